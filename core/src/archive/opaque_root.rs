// SPDX-License-Identifier: Apache-2.0
//! A layer that hides all of its parent.
//!
//! The kernel's overlay does not look at the mark of an opaque directory on the root of a layer, so
//! that mark is replaced by one for every name that the layers below have there.

use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{UnpackTarget, WhiteoutForm};
use rustix::{
    fs::{CWD, FileType, Mode, OFlags, XattrFlags},
    io::Errno,
};

use crate::{IoContext, Result};

/// Hides what `below` has when the stream that was unpacked into `target` has said so.
///
/// # Behavior
/// - `below` are the directories in which files of the parent are found; it is asked only then.
pub(crate) fn spell_out(
    target: &UnpackTarget,
    below: impl FnOnce() -> Result<Vec<PathBuf>>,
) -> Result<()> {
    let mark = match target.whiteouts {
        WhiteoutForm::Overlay => "trusted.overlay.opaque",
        WhiteoutForm::OverlayUserXattr => "user.overlay.opaque",
        _ => return Ok(()),
    };
    let root = &target.directory;
    match rustix::fs::getxattr(root, mark, &mut [0_u8; 8]) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(()),
        answer => answer.at("cannot read attributes of", root)?,
    };
    let mut names = BTreeSet::new();
    for directory in below()? {
        for entry in entries(&directory)? {
            names.insert(entry.at("cannot read", &directory)?.file_name());
        }
    }
    for name in names {
        hide(&root.join(name), mark)?;
    }
    rustix::fs::removexattr(root, mark).at("cannot remove a mark from", root)
}

fn entries(directory: &Path) -> Result<impl Iterator<Item = io::Result<fs::DirEntry>>> {
    fs::read_dir(directory).at("cannot read", directory)
}

/// Hides what lies below `path`: by a whiteout, or with what the layer itself has there.
fn hide(path: &Path, mark: &str) -> Result<()> {
    let made = rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0);
    match made {
        Err(Errno::EXIST) => {}
        answer => return answer.at("cannot make whiteout", path),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let own: OwnedFd = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        answer => answer.at("cannot open", path)?,
    };
    rustix::fs::fsetxattr(own, mark, b"y", XattrFlags::empty()).at("cannot mark as opaque", path)
}
