// SPDX-License-Identifier: Apache-2.0
//! A driver's home as a mount of its own, so that layers' mounts do not spread.

use std::{
    os::fd::OwnedFd,
    path::Path,
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{AtFlags, CWD, FlockOperation, Mode, OFlags, StatxAttributes, StatxFlags, flock},
    mount::{MountPropagationFlags, UnmountFlags, mount_bind_recursive, mount_change, unmount},
};

use super::mountinfo;
use crate::{DriverError, DriverErrorCode, IoContext, LayerId, Result};

/// Makes `directory` a mount point, by mounting it on itself, and keeps mounts below it from
/// propagating to other mount namespaces, where they would stay when a layer is unmounted.
///
/// # Behavior
/// - A directory that is a mount point already is only made private.
///
/// # Locking
/// Of several processes that do this at once, one mounts it and the others find it mounted: a second
/// mount would also repeat every layer that is mounted below by then.
///
/// # Errors
/// When the process may not mount.
pub fn make_private(directory: &Path) -> Result<()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let _other_processes = lock(directory)?;
    if !is_mount_point(directory)? {
        mount_bind_recursive(directory, directory).at("cannot mount on itself", directory)?;
    }
    mount_change(directory, MountPropagationFlags::PRIVATE).at("cannot make private", directory)
}

/// Locks `directory` until the result is dropped. It is on a directory, which the record locks of
/// stores cannot lock, and concerns nobody but the callers of [`make_private`].
#[expect(
    clippy::disallowed_methods,
    reason = "excludes other processes of ours from one mount, not podman from a store"
)]
fn lock(directory: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = rustix::fs::open(directory, flags, Mode::empty()).at("cannot open", directory)?;
    rustix::io::retry_on_intr(|| flock(&open, FlockOperation::LockExclusive))
        .at("cannot lock", directory)?;
    Ok(open)
}

/// Takes back what [`make_private`] did.
///
/// # Behavior
/// - Another file system that is mounted there stays, and so does nothing at all.
///
/// # Errors
/// [`BUSY`](DriverErrorCode::BUSY) while something is mounted below `directory`.
pub fn undo_private(directory: &Path) -> Result<()> {
    let directory = std::fs::canonicalize(directory).at("cannot resolve", directory)?;
    let mounts = mountinfo::mounts()?;
    let Some(mount) = mountinfo::at(&mounts, &directory) else {
        return Ok(());
    };
    let above = mounts.iter().find(|other| other.id == mount.parent);
    if above.is_none_or(|above| above.device != mount.device) {
        return Ok(());
    }
    let inside = |target: &Path| target != directory && target.starts_with(&directory);
    if let Some(busy) = mounts.iter().find(|other| inside(&other.target)) {
        let message = format!("something is mounted at `{}`", busy.target.display());
        return Err(DriverError::new(DriverErrorCode::BUSY, message)
            .object(directory.display().to_string())
            .remedy("unmount the containers first"));
    }
    // Lazily: other processes may just be looking into it.
    unmount(&directory, UnmountFlags::DETACH).at("cannot unmount", &directory)
}

/// Whether something is mounted at `directory`; not when nothing is there.
///
/// # Errors
/// When the system does not say.
pub fn is_mount_point(directory: &Path) -> Result<bool> {
    let found = match rustix::fs::statx(CWD, directory, AtFlags::empty(), StatxFlags::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        // A mount program that died leaves a mount that answers nothing else.
        Err(rustix::io::Errno::NOTCONN) => return Ok(true),
        other => other.at("cannot stat", directory)?,
    };
    if found
        .stx_attributes_mask
        .contains(StatxAttributes::MOUNT_ROOT)
    {
        return Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
    }
    // Kernels before 5.8 do not say.
    let directory = std::fs::canonicalize(directory).at("cannot resolve", directory)?;
    Ok(mountinfo::at(&mountinfo::mounts()?, &directory).is_some())
}

/// Refuses to remove a layer while it is mounted at `target`.
///
/// # Errors
/// [`BUSY`](DriverErrorCode::BUSY), or what [`is_mount_point`] reports.
pub fn refuse_mounted(id: &LayerId, target: &Path) -> Result<()> {
    if !is_mount_point(target)? {
        return Ok(());
    }
    let message = format!("the layer is mounted at `{}`", target.display());
    Err(DriverError::new(DriverErrorCode::BUSY, message)
        .object(id.as_str())
        .remedy("unmount it first"))
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Unmounted<'a>(&'a Path);

    impl Drop for Unmounted<'_> {
        fn drop(&mut self) {
            while unmount(self.0, UnmountFlags::DETACH).is_ok() {}
        }
    }

    #[test]
    fn root_a_home_is_mounted_once_privately_and_unmounted() {
        let root = tempfile::tempdir().unwrap();
        let home = std::fs::canonicalize(root.path()).unwrap().join("a home");
        std::fs::create_dir(&home).unwrap();
        if let Err(error) = make_private(&home) {
            assert_eq!(error.code, DriverErrorCode::PERMISSION, "{error}");
            return;
        }
        let _guard = Unmounted(&home);
        make_private(&home).unwrap();
        let mounts = mountinfo::mounts().unwrap();
        let here: Vec<_> = mounts.iter().filter(|mount| mount.target == home).collect();
        assert_eq!(here.len(), 1);
        assert!(!here[0].shared);

        let below = home.join("below");
        std::fs::create_dir(&below).unwrap();
        mount_bind_recursive(root.path(), &below).unwrap();
        assert_eq!(undo_private(&home).unwrap_err().code, DriverErrorCode::BUSY);
        unmount(&below, UnmountFlags::DETACH).unwrap();
        undo_private(&home).unwrap();
        undo_private(&home).unwrap();
        assert!(mountinfo::at(&mountinfo::mounts().unwrap(), &home).is_none());
    }
}
