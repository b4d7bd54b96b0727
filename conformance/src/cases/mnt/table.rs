// SPDX-License-Identifier: Apache-2.0
//! What the kernel says is mounted.

use std::{
    fs,
    path::{Path, PathBuf},
};

use plywood::sdk::{MountRequest, toolkit::mountinfo};

use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
};

/// How many mounts there are at a path itself.
pub(super) fn at(path: &Path) -> Result<usize, Failure> {
    let mounts = mountinfo::mounts()?;
    let path = match fs::canonicalize(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        path => path?,
    };
    Ok(mounts.iter().filter(|mount| mount.target == path).count())
}

/// Every mount below a directory.
pub(super) fn below(root: &Path) -> Result<Vec<PathBuf>, Failure> {
    let root = fs::canonicalize(root)?;
    let mounts = mountinfo::mounts()?.into_iter();
    Ok(mounts
        .map(|mount| mount.target)
        .filter(|target| target.starts_with(&root))
        .collect())
}

/// The requests that the driver must serve alike: writable, and read-only where it can.
pub(super) fn requests(target: &Target) -> Vec<MountRequest> {
    let mut requests = vec![MountRequest::default()];
    if target.driver.capabilities().read_only_mounts {
        requests.push(read_only());
    }
    requests
}

pub(super) fn read_only() -> MountRequest {
    let mut request = MountRequest::default();
    request.read_only = true;
    request
}

/// How often the record says that the layer is mounted.
pub(super) fn count(target: &Target, id: &str) -> Result<u32, Failure> {
    let layers = target.layers()?;
    let layer = layers.iter().find(|layer| layer.id == id);
    let layer = layer.ok_or_else(|| Failure::new(format!("layer `{id}` has no record")))?;
    Ok(layer.mount_count)
}

/// Nothing is mounted but what was before, and the layer counts as not mounted.
pub(super) fn demand_unmounted(target: &Target, id: &str, before: &[PathBuf]) -> Outcome {
    same!(
        before,
        &below(&target.root)?[..],
        "what is mounted below the root after the last unmount of `{id}`"
    );
    let counted = count(target, id)?;
    demand!(
        counted == 0,
        "the unmounted layer `{id}` counts {counted} mounts"
    );
    Ok(())
}
