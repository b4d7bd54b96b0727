// SPDX-License-Identifier: Apache-2.0
//! A Plywood graph driver whose layers are whole trees that share their data.
//!
//! A new layer is a copy of its parent in which every file refers to the parent's blocks until one
//! of the two is written (`FICLONE`): making one costs time for names, not for bytes, and reading
//! goes through no stack of layers. It needs a file system that can share blocks, for instance xfs
//! or btrfs; the option `reflink.fallback=copy` lets it work on others, with real copies.
//!
//! ```text
//! HOME/layers/ID/    the layer's files
//! HOME/places/       what is being made or removed; reclaimed after a crash
//! RUN/ID/            where a read-only mount of the layer appears
//! ```

mod driver;
mod probe;

use plywood_plugin_sdk::{Driver, OpenRequest, Plugin, Result, export_driver};

use crate::{driver::Reflinks, probe::Fallback};

/// Names the driver and opens it.
#[derive(Clone, Copy, Debug)]
pub struct Reflink;

impl Plugin for Reflink {
    const NAME: &'static str = "reflink";
    const VENDOR: &'static str = "Example Storage Ltd.";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        let mut fallback = Fallback::Refuse;
        for option in request.options_of(Self::NAME)? {
            match (option.key.as_str(), option.value) {
                ("fallback", "refuse") => fallback = Fallback::Refuse,
                ("fallback", "copy") => fallback = Fallback::Copy,
                ("fallback", _) => return Err(option.invalid("`refuse` or `copy`")),
                _ => return Err(option.unknown()),
            }
        }
        Ok(Box::new(Reflinks::open(request, fallback)?))
    }
}

export_driver!(Reflink);
