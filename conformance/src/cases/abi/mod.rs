// SPDX-License-Identifier: Apache-2.0
//! The plugin file, its functions, and what a driver does to the process that it is in.

use std::path::Path;

use plywood::{
    Result,
    plugin::load_plugin,
    sdk::{MountRequest, OpenRequest, abi::Loaded},
};

use super::lifecycle::sample;
use crate::{
    Site, Source, Target,
    case::{Failure, Outcome, demand},
    excuses,
    target::layer_id,
};

pub(super) mod boundary;
pub(super) mod file;
pub(super) mod instances;
pub(super) mod process;
mod state;

/// The plugin file; a driver that is linked in has none.
fn file_of(site: &Site) -> Result<&Path, Failure> {
    match &site.source {
        Source::Plugin(path) => Ok(path),
        Source::Embedded(_) => Err(Failure::not_applicable(
            excuses::LINKED_IN,
            "the driver is linked in: there is no plugin file",
        )),
    }
}

/// The plugin, checked and loaded, with no driver opened.
fn loaded(site: &Site) -> Result<Loaded, Failure> {
    Ok(load_plugin(file_of(site)?)?)
}

/// A request for the site's own root, with the directories above the homes made.
fn request(site: &Site) -> Result<OpenRequest> {
    site.request()
}

/// Uses all that every driver has, and provokes failures.
pub(super) fn life(target: &Target, name: &str) -> Outcome {
    let (base, child) = (format!("{name}-base"), format!("{name}-child"));
    target.put(&base, None, &sample())?;
    target.create(&child, Some(&base))?;
    target.within(&child, |path| -> Outcome {
        std::fs::write(path.join("new"), "new")?;
        std::fs::remove_file(path.join("plain"))?;
        Ok(())
    })?;
    let id = layer_id(&child);
    let driver = &target.driver;
    driver.status()?;
    driver.metadata(&id)?;
    driver.usage(&id)?;
    driver.recover()?;
    if driver.capabilities().list {
        demand!(driver.list()?.contains(&id), "`{child}` is not listed");
    }
    demand!(!target.changes(&child)?.is_empty(), "no change is seen");
    demand!(!target.diff(&child)?.is_empty(), "the diff is empty");
    let unknown = layer_id("unknown");
    let request = MountRequest::default();
    for (operation, error) in [
        ("create", target.create(&child, Some(&base)).err()),
        ("mount_plan", driver.mount_plan(&unknown, &request).err()),
        ("usage", driver.usage(&unknown).err()),
    ] {
        demand!(error.is_some(), "`{operation}` should have failed");
    }
    target.delete(&child)?;
    target.delete(&base)?;
    demand!(!driver.exists(&id)?, "`{child}` is still there");
    Ok(())
}
