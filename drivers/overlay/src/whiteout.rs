// SPDX-License-Identifier: Apache-2.0
//! The forms in which a layer says that something below it is gone.

use std::{ffi::OsStr, fs, io, os::unix::ffi::OsStrExt, path::Path};

use plywood_plugin_sdk::{DriverError, IoContext, Result, WhiteoutForm};
use rustix::io::Errno;

use crate::layout::{RESERVED, absent};

/// The form that layers of a store have.
///
/// # Compatibility
/// With a mount program containers/storage keeps the names of the tar (`getWhiteoutFormat`).
pub(crate) fn form(mount_program: bool, userxattr: bool) -> WhiteoutForm {
    match (mount_program, userxattr) {
        (true, _) => WhiteoutForm::Literal,
        (false, true) => WhiteoutForm::OverlayUserXattr,
        (false, false) => WhiteoutForm::Overlay,
    }
}

/// Whether something in the home was made for a mount program: names that begin with `.wh.`, or
/// attributes that fuse-overlayfs sets.
///
/// The kernel would show such a layer with everything back that was deleted.
///
/// # Compatibility
/// `scanForMountProgramIndicators` in containers/storage.
pub(crate) fn made_for_mount_program(home: &Path) -> Result<bool> {
    let mut waiting = vec![home.to_owned()];
    while let Some(directory) = waiting.pop() {
        if has_program_xattr(&directory)? {
            return Ok(true);
        }
        let entries = match fs::read_dir(&directory) {
            Err(error) if absent(&error) => continue,
            other => other.at("cannot read", &directory)?,
        };
        for entry in entries {
            let entry = entry.at("cannot read", &directory)?;
            let name = entry.file_name();
            if name.as_bytes().starts_with(b".wh.") {
                return Ok(true);
            }
            let is_dir = entry.file_type().at("cannot stat", entry.path())?.is_dir();
            let place = directory == home && RESERVED.iter().any(|no| name == OsStr::new(no));
            if is_dir && !place {
                waiting.push(entry.path());
            }
        }
    }
    Ok(false)
}

fn has_program_xattr(directory: &Path) -> Result<bool> {
    let mut names = vec![0; 1024];
    let size = loop {
        match rustix::fs::llistxattr(directory, &mut names) {
            Ok(size) => break size,
            Err(Errno::RANGE) => names.resize(names.len() * 2, 0),
            Err(Errno::OPNOTSUPP | Errno::NOENT) => return Ok(false),
            Err(error) => {
                let error = io::Error::from(error);
                return Err(DriverError::io(
                    "cannot list the attributes of",
                    directory,
                    &error,
                ));
            }
        }
    };
    let ours = |name: &[u8]| {
        name.starts_with(b"user.fuseoverlayfs.") || name.starts_with(b"user.containers.")
    };
    Ok(names[..size].split(|byte| *byte == 0).any(ours))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_of_a_mount_program_are_found() {
        let home = tempfile::tempdir().unwrap();
        let diff = home.path().join("a/diff/x");
        fs::create_dir_all(&diff).unwrap();
        fs::create_dir_all(home.path().join("tempdirs/.wh.a")).unwrap();
        assert!(!made_for_mount_program(home.path()).unwrap());

        fs::write(diff.join(".wh.gone"), b"").unwrap();
        assert!(made_for_mount_program(home.path()).unwrap());

        fs::remove_file(diff.join(".wh.gone")).unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(
            &diff,
            "user.containers.override_stat",
            b"0:0:0755:dir",
            flags,
        )
        .unwrap();
        assert!(made_for_mount_program(home.path()).unwrap());
    }
}
