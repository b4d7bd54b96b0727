// SPDX-License-Identifier: Apache-2.0
//! The overlay graph driver: a layer is a directory with just its own changes, and the kernel (or
//! a FUSE mount program) shows the whole.
//!
//! The files are those of containers/storage, which may use the store at the same time:
//!
//! ```text
//! overlay/                     0700
//! overlay/.has-mount-program   `true` when the layers need a mount program, else `false`
//! overlay/l/<link>             symlink to ../<id>/diff
//! overlay/<id>/diff            the layer's own files
//! overlay/<id>/link            its name below `l`
//! overlay/<id>/lower           l/<link of the parent>:l/<link of its parent>:...
//! overlay/<id>/work, merged    for the kernel: its work directory and the place of the mount
//! overlay/<id>/empty           only in a layer without a parent: what lies below it
//! overlay/<id>/additionallayer only in a layer whose `diff` leads to an additional layer store
//! overlay/tempdirs/            what is being made or removed; absent when nothing is
//! RUNROOT/overlay/<feature>-true, <feature>-false
//! ```
//!
//! # Behavior
//! - A layer is made in a fixed order that ends with `lower` or `empty`; a directory without its
//!   last part is what an interruption left, and the next creation of that id replaces it. An
//!   adopted layer appears whole by one rename. A whole layer that core has no record of is core's
//!   to remove.
//! - Which of the kernel and a FUSE program mounts is settled when the store is opened, by test
//!   mounts whose outcome the run directory remembers until the next boot.
//!
//! # Durability
//! - `link` and `lower` are on disk before the layer's directory appears complete; an empty one
//!   after a power cut was the most frequent damage in such stores.
//! - `overlay.sync=filesystem`, the default, makes a layer's content durable by `syncfs` before
//!   core records it; `overlay.sync=none` gives both up.

mod backing;
mod config;
mod diff;
mod driver;
mod external;
mod layout;
mod link;
mod merged;
mod mount;
mod open;
mod probe;
mod program;
mod recover;
mod staging;
mod test_mount;
mod whiteout;

use plywood_plugin_sdk::{Driver, OpenRequest, Plugin, Result};

/// The overlay driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Overlay;

impl Overlay {
    /// Opens the driver for one that is called `name` and embeds this one.
    ///
    /// # Behavior
    /// - Options may have that name before their key, and image stores have a directory of that
    ///   name.
    ///
    /// # Errors
    /// As [`Plugin::open`].
    pub fn open_as(name: &str, request: OpenRequest) -> Result<Box<dyn Driver>> {
        Ok(Box::new(driver::OverlayDriver::open(name, request)?))
    }
}

impl Plugin for Overlay {
    const NAME: &'static str = "overlay";
    const VENDOR: &'static str = "Plywood";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        Self::open_as(Self::NAME, request)
    }
}
