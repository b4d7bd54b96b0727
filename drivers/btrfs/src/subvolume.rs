// SPDX-License-Identifier: Apache-2.0
//! Subvolumes by their paths.

use std::{
    ffi::{CString, OsStr},
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::Path,
    thread,
    time::{Duration, Instant},
};

use plywood_plugin_sdk::{DriverError, DriverErrorCode, IoContext, Result, toolkit};
use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::{
    lineage, quota,
    sys::{self, Access, FIRST_INODE},
};

/// The number of btrfs in `statfs`.
const MAGIC: u64 = 0x9123_683e;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// How long the room of a removed subvolume is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// How deep subvolumes inside subvolumes are followed before they are removed file by file.
const DEEPEST: usize = 64;

/// Whether `path` is on a btrfs file system.
pub(crate) fn is_btrfs(path: &Path) -> Result<bool> {
    let found = rustix::fs::statfs(path).at("cannot stat the file system of", path)?;
    // The kernel's type is signed on some machines; the numbers have 32 bits.
    Ok(u64::try_from(found.f_type & 0xffff_ffff) == Ok(MAGIC))
}

/// Opens a directory.
pub(crate) fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty()).at("cannot open", path)
}

/// Whether `path` is the root of a subvolume on a btrfs file system.
pub(crate) fn is_subvolume(path: &Path) -> Result<bool> {
    Ok(is_btrfs(path)? && is_root(open(path)?).at("cannot stat", path)?)
}

/// Whether a directory on btrfs is the root of a subvolume.
fn is_root(directory: impl AsFd) -> io::Result<bool> {
    Ok(rustix::fs::fstat(directory)?.st_ino == FIRST_INODE)
}

/// The directory of `path` and its last name.
fn split(path: &Path) -> Result<(OwnedFd, &OsStr)> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        let message = format!("not the path of a subvolume: `{}`", path.display());
        return Err(DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message));
    };
    Ok((open(directory)?, name))
}

/// Makes an empty subvolume.
pub(crate) fn create(path: &Path) -> Result<()> {
    let (directory, name) = split(path)?;
    sys::create_subvolume(directory, name).at("cannot create the subvolume", path)
}

/// Makes a snapshot of `source` at `path`.
pub(crate) fn snapshot(source: &Path, path: &Path, access: Access) -> Result<()> {
    let from = open(source)?;
    if !is_root(&from).at("cannot stat", source)? {
        let message = format!("`{}` is no subvolume", source.display());
        return Err(DriverError::new(DriverErrorCode::CORRUPT, message)
            .object(source.display().to_string())
            .remedy("restore it as a subvolume, for instance from a copy"));
    }
    let (directory, name) = split(path)?;
    sys::create_snapshot(&from, directory, name, access).at("cannot make the snapshot", path)
}

/// Renames a subvolume out of its directory; `None` when it is not there.
///
/// The kernel refuses that for read-only ones, which are made writable.
pub(crate) fn rename_away<T>(
    path: &Path,
    mut rename: impl FnMut() -> Result<Option<T>>,
) -> Result<Option<T>> {
    match rename() {
        Err(error) if error.errno == Some(libc::EROFS) => {
            let subvolume = open(path)?;
            if !is_root(&subvolume).at("cannot stat", path)? {
                return Err(error);
            }
            sys::set_access(&subvolume, Access::ReadWrite).at("cannot make writable", path)?;
            rename()
        }
        other => other,
    }
}

/// Removes a subvolume or a directory with everything in it, subvolumes included; what is not
/// there is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(found) if !found.is_dir() || found.ino() != FIRST_INODE => {
            return toolkit::remove_tree(path);
        }
        other => other.at("cannot stat", path)?,
    };
    let (directory, name) = split(path)?;
    let removed = open_child(&directory, name.as_bytes())
        .and_then(|subvolume| remove_opened(directory.as_fd(), name, &subvolume, 0));
    match removed {
        Ok(()) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        // What is too deep for the short way, or closed even to its owner, takes the long one.
        Err(_) => toolkit::remove_tree(path),
    }
}

/// As [`remove`], and waits a moment for the room.
pub(crate) fn free(path: &Path) -> Result<()> {
    let (directory, name) = split(path)?;
    // Without an answer there is nothing to wait for.
    let opened = open_child(&directory, name.as_bytes());
    let id = opened.and_then(|subvolume| {
        if is_root(&subvolume)? {
            Ok(sys::info(&subvolume)?.id)
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        }
    });
    remove(path)?;
    if let Ok(id) = id {
        wait_until_freed(&directory, id);
    }
    Ok(())
}

/// Gives the kernel a moment to free what a subvolume that was just destroyed occupied.
///
/// It begins with that after the next commit, which would be half a minute away, and until then
/// whoever deletes because there is no room has no room. What takes longer goes on by itself.
fn wait_until_freed(file: &OwnedFd, id: u64) {
    let end = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    // Failures only mean that it goes on by itself.
    if sys::start_commit(file).is_err() {
        return;
    }
    while matches!(lineage::root(file, id), Ok(Some(_))) && Instant::now() < end {
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Removes everything that `place` contains.
pub(crate) fn remove_content(place: &Path) -> Result<()> {
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.at("cannot list", place)?,
    };
    for entry in entries {
        remove(&entry.at("cannot list", place)?.path())?;
    }
    Ok(())
}

fn open_child(directory: impl AsFd, path: &[u8]) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    let opened = rustix::fs::openat2(directory, path, DIRECTORY, Mode::empty(), resolve);
    match opened {
        // Something is mounted there: what is mounted belongs to somebody else.
        Err(Errno::XDEV) => Err(Errno::BUSY.into()),
        other => Ok(other?),
    }
}

/// Removes the subvolume `name` of `directory`, which is open as `subvolume`, the inner ones first.
fn remove_opened(
    directory: std::os::fd::BorrowedFd<'_>,
    name: &OsStr,
    subvolume: &OwnedFd,
    depth: usize,
) -> io::Result<()> {
    // Nothing can be removed from a read-only one, not even a subvolume.
    sys::set_access(subvolume, Access::ReadWrite)?;
    for child in sys::children(subvolume)? {
        if depth >= DEEPEST {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let path = sys::child_path(subvolume, &child)?;
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b"."[..], &path[..]),
        };
        let above = open_child(subvolume, if above.is_empty() { b"." } else { above })?;
        let inner = open_child(&above, name)?;
        remove_opened(above.as_fd(), OsStr::from_bytes(name), &inner, depth + 1)?;
    }
    quota::forget(subvolume);
    match sys::destroy(directory, name) {
        // Whoever is not the host's root may empty a subvolume, and remove an empty one.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let name = CString::new(name.as_bytes())?;
            Ok(toolkit::remove_tree_at(directory, &name)?)
        }
        other => other,
    }
}
