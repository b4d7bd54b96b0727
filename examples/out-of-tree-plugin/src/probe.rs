// SPDX-License-Identifier: Apache-2.0
//! What the file system can do, found out by trying.

use std::{fs, io, path::Path, process::Command};

use plywood_plugin_sdk::{DriverError, DriverErrorCode, IoContext, Result, toolkit::TempDir};

/// What to do where blocks cannot be shared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fallback {
    /// The file system is not suitable.
    Refuse,
    /// Bytes are copied.
    Copy,
}

/// Whether files in `directory`, which is made when it is missing, can share blocks.
///
/// # Errors
/// `INCOMPATIBLE_FILESYSTEM` when they cannot and `fallback` does not allow copies; `PREREQUISITES`
/// when there is nothing to try it with.
pub(crate) fn shares_blocks(directory: &Path, fallback: Fallback) -> Result<bool> {
    let mut place = TempDir::create(directory)?;
    let (one, other) = (place.addition(), place.addition());
    fs::write(&one, [b'x'; 4096]).at("cannot write", &one)?;
    let mut copy = Command::new("cp");
    copy.args(["--reflink=always", "--"]).args([&one, &other]);
    let tried = match copy.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(no_cp()),
        tried => tried.at("cannot run cp for", &one)?,
    };
    place.close()?;
    let can = tried.status.success();
    if can || fallback == Fallback::Copy {
        return Ok(can);
    }
    let shown = directory.display();
    let message = format!("the file system of `{shown}` cannot share blocks between files");
    let error = DriverError::new(DriverErrorCode::INCOMPATIBLE_FILESYSTEM, message);
    let remedy = "put the store on xfs or btrfs, or allow real copies with reflink.fallback=copy";
    Err(error.object(shown.to_string()).remedy(remedy))
}

fn no_cp() -> DriverError {
    let message = "the program cp is missing";
    let error = DriverError::new(DriverErrorCode::PREREQUISITES, message).object("cp");
    error.remedy("install GNU coreutils, or put its directory into PATH")
}
