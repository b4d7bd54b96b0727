// SPDX-License-Identifier: Apache-2.0
//! The zfs graph driver: every layer is a dataset, a child is a clone of a snapshot of its parent.
//!
//! A layer is made and removed in the time that a clone takes, and its changes are found by
//! `zfs diff`, so that a diff costs what has changed and not what is there. The programs `zfs` and
//! `zpool` are used, as containers/storage does.
//!
//! ```text
//! FSNAME/<id>                     the layer: a dataset with mountpoint=legacy
//! FSNAME/plywood:TAG:stage:<n>    a layer that is being made
//! FSNAME/plywood:TAG:trash:<n>    a layer that is being removed
//! zfs/                            0700, the home
//! zfs/graph/<id>/                 where a layer is mounted; absent when it is not
//! zfs/tempdirs/                   who makes or removes what; absent when nobody does
//! ```
//!
//! `:` cannot occur in the id of a layer, and `TAG` is the home's own, so that two stores may share
//! a parent dataset.
//!
//! # Files without a mount
//! Core reads and writes layers that are not mounted anywhere. The driver shows them through mounts
//! that are attached to no directory: they are reached through a descriptor of this process alone,
//! are seen in no table, and are gone with the process however it ends.

mod changes;
mod command;
mod config;
mod dataset;
mod difference;
mod driver;
mod holders;
mod lineage;
mod looks;
mod mounts;
mod parent;
mod places;
mod private_view;
mod shared;
mod stale;
mod usage;

use plywood_plugin_sdk::{Driver, OpenRequest, Plugin, Result};

/// The zfs driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Zfs;

impl Plugin for Zfs {
    const NAME: &'static str = "zfs";
    const VENDOR: &'static str = "Plywood";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        Ok(Box::new(driver::ZfsDriver::open(request)?))
    }
}
