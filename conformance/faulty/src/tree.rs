// SPDX-License-Identifier: Apache-2.0
//! What faults do to trees, without traces of their own.

use std::{
    fs::{self, Metadata},
    io,
    os::unix::fs::{MetadataExt as _, lchown},
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{IoContext, Result};
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, XattrFlags, utimensat};

/// Everything below `tree`, and `tree` itself as the first.
pub(crate) fn entries(tree: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let mut found = Vec::new();
    let mut waiting = vec![tree.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).at("cannot stat", &path)?;
        if meta.is_dir() {
            for entry in fs::read_dir(&path).at("cannot read", &path)? {
                waiting.push(entry.at("cannot read", &path)?.path());
            }
        }
        found.push((path, meta));
    }
    Ok(found)
}

/// Every regular file below `tree`.
pub(crate) fn files(tree: &Path) -> Result<Vec<(PathBuf, Metadata)>> {
    let mut found = entries(tree)?;
    found.retain(|(_, meta)| meta.is_file());
    Ok(found)
}

/// Sets the times that `meta` has.
pub(crate) fn set_times(path: &Path, meta: &Metadata, with_nanoseconds: bool) -> Result<()> {
    let time = |tv_sec, tv_nsec| Timespec {
        tv_sec,
        tv_nsec: if with_nanoseconds { tv_nsec } else { 0 },
    };
    let times = Timestamps {
        last_access: time(meta.atime(), meta.atime_nsec()),
        last_modification: time(meta.mtime(), meta.mtime_nsec()),
    };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).at("cannot set times of", path)
}

/// Changes an entry of a directory, whose times stay.
pub(crate) fn quietly(path: &Path, change: impl FnOnce() -> io::Result<()>) -> Result<()> {
    let directory = path.parent().unwrap_or(path);
    let meta = fs::symlink_metadata(directory).at("cannot stat", directory)?;
    change().at("cannot change", path)?;
    set_times(directory, &meta, true)
}

/// Copies a file with all its attributes.
pub(crate) fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let meta = fs::metadata(from).at("cannot stat", from)?;
    fs::copy(from, to).at("cannot copy", from)?;
    lchown(to, Some(meta.uid()), Some(meta.gid())).at("cannot change the owner of", to)?;
    fs::set_permissions(to, meta.permissions()).at("cannot change the mode of", to)?;
    for name in xattr_names(from)? {
        let mut value = vec![0; 64 << 10];
        let size = rustix::fs::lgetxattr(from, &name[..], &mut value[..])
            .at("cannot read attributes of", from)?;
        rustix::fs::lsetxattr(to, &name[..], &value[..size], XattrFlags::empty())
            .at("cannot set attributes of", to)?;
    }
    set_times(to, &meta, true)
}

/// The names of a file's extended attributes.
pub(crate) fn xattr_names(path: &Path) -> Result<Vec<Vec<u8>>> {
    let mut buffer = vec![0; 64 << 10];
    let size = match rustix::fs::llistxattr(path, &mut buffer[..]) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        other => other.at("cannot list attributes of", path)?,
    };
    let names = buffer[..size].split(|byte| *byte == 0);
    Ok(names
        .filter(|name| !name.is_empty())
        .map(Into::into)
        .collect())
}
