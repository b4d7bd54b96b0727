// SPDX-License-Identifier: Apache-2.0
//! Whether the file system fits.

use std::path::Path;

use plywood_plugin_sdk::{DriverError, DriverErrorCode, Result, toolkit};

/// What to do where blocks cannot be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// The file system is not suitable.
    Refuse,
    /// Bytes are copied.
    Copy,
}

/// Whether files below `directory` can share blocks.
///
/// # Errors
/// `INCOMPATIBLE_FILESYSTEM` when they cannot and `fallback` does not allow copies.
pub(crate) fn shares_blocks(directory: &Path, fallback: Fallback) -> Result<bool> {
    let can = toolkit::can_share_blocks(directory)?;
    if can || fallback == Fallback::Copy {
        return Ok(can);
    }
    let shown = directory.display();
    let message = format!("the file system of `{shown}` cannot share blocks between files");
    let error = DriverError::new(DriverErrorCode::INCOMPATIBLE_FILESYSTEM, message);
    let remedy = "put the store on xfs or btrfs, or allow real copies with reflink.fallback=copy";
    Err(error.object(shown.to_string()).remedy(remedy))
}
