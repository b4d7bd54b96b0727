// SPDX-License-Identifier: Apache-2.0
//! The btrfs graph driver: every layer is a subvolume, a child is a snapshot of its parent.
//!
//! A layer is made and removed in the time that a snapshot takes, is shown without a mount, and
//! its changes are found by the generation numbers of the file system, so that a diff costs what
//! has changed and not what is there.
//!
//! ```text
//! btrfs/                    0700
//! btrfs/subvolumes/         0700
//! btrfs/subvolumes/<id>/    the layer: a writable subvolume; base layers start as 0555
//! btrfs/quotas/<id>         the layer's limit in bytes, when it has one
//! btrfs/tempdirs/           what is being made or removed; absent when nothing is
//! ```

mod changes;
mod config;
mod driver;
mod frozen;
mod items;
mod lineage;
mod quota;
mod subvolume;
mod sys;
mod tree;

use plywood_plugin_sdk::{Driver, OpenRequest, Plugin, Result};

/// The btrfs driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Btrfs;

impl Plugin for Btrfs {
    const NAME: &'static str = "btrfs";
    const VENDOR: &'static str = "Plywood";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        Ok(Box::new(driver::BtrfsDriver::open(request)?))
    }
}
