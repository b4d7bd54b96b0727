// SPDX-License-Identifier: Apache-2.0
//! The vfs graph driver: every layer is a whole tree, so it works on any file system.
//!
//! A layer starts as a copy of its parent and is shown without a mount. It costs space and time
//! that the overlay driver does not cost, and needs nothing from the kernel.
//!
//! ```text
//! vfs/               0700
//! vfs/dir/           0700
//! vfs/dir/<id>/      the layer's whole tree; base layers start as 0555
//! vfs/tempdirs/      what is being made or removed; absent when nothing is
//! ```

mod config;
mod driver;

use plywood_plugin_sdk::{Driver, OpenRequest, Plugin, Result};

/// The vfs driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vfs;

impl Plugin for Vfs {
    const NAME: &'static str = "vfs";
    const VENDOR: &'static str = "Plywood";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        Ok(Box::new(driver::VfsDriver::open(request)?))
    }
}
