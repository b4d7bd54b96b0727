// SPDX-License-Identifier: Apache-2.0
//! The driver without a store around it: many layers cost little, and nothing has a record.

use std::{fs, path::Path};

use plywood::{
    Result, mount,
    sdk::{CreateRequest, LayerKind, MountPlan, MountRequest},
};

use crate::{
    Target,
    case::{Failure, Outcome},
    target::layer_id,
};

/// Makes a layer.
pub(super) fn create(target: &Target, id: &str, parent: Option<&str>) -> Result<()> {
    let mut request = CreateRequest::new(layer_id(id), parent.map(layer_id));
    request.kind = LayerKind::ReadWrite;
    target.driver.create(&request)
}

/// Puts a plain file where core would unpack it.
pub(super) fn write(target: &Target, id: &str, name: &str, text: &str) -> Outcome {
    let place = target.driver.unpack_target(&layer_id(id))?;
    Ok(fs::write(place.directory.join(name), text)?)
}

/// Mounts a layer as core does, does `work` in it, and unmounts it in any case.
pub(super) fn within<T>(
    target: &Target,
    id: &str,
    work: impl FnOnce(&Path) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let (id, request) = (layer_id(id), MountRequest::default());
    let plan = target.driver.mount_plan(&id, &request)?;
    let by_driver = matches!(plan, MountPlan::ByDriver { .. });
    let path = if by_driver {
        target.driver.mount(&id, &request)?
    } else {
        mount::execute(&plan)?
    };
    let done = work(&path);
    let unmounted = if by_driver {
        target.driver.unmount(&id)
    } else {
        mount::undo(&plan, &path)
    };
    let done = done?;
    unmounted?;
    target.driver.released(&id)?;
    Ok(done)
}
