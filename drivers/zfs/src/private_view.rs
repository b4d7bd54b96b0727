// SPDX-License-Identifier: Apache-2.0
//! Datasets that are mounted for one program alone.
//!
//! `zfs diff` works on mounted datasets only. They are mounted in a mount namespace of a thread,
//! which the program inherits and nobody else sees; it ends with the thread or the process.

use std::{
    fs,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    thread,
};

use nix::sched::{CloneFlags, unshare};
use plywood_plugin_sdk::{DriverError, DriverErrorCode, IoContext, Result, toolkit::mountinfo};
use rustix::{
    fs::CWD,
    mount::{
        MountFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags, mount, mount_change,
        move_mount, unmount,
    },
};

use crate::mounts;

/// Runs `work` where the datasets `names` are mounted at the directories that it gets, in order.
///
/// # Behavior
/// - `place` is a directory that exists, of which `work` and the programs that it starts see nothing
///   but the mounts; everybody else sees what is in it.
pub(crate) fn within<T: Send>(
    names: &[&str],
    place: &Path,
    work: impl FnOnce(&[PathBuf]) -> Result<T> + Send,
) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, || {
            let directories = prepare(names, place)?;
            work(&directories)
        });
        let thread = thread.at("cannot start a thread for", place)?;
        thread.join().unwrap_or_else(|_| {
            let message = "the thread that compares datasets panicked";
            Err(DriverError::new(DriverErrorCode::PANICKED, message))
        })
    })
}

/// Unmounts the copies that the namespace has of mounts of the same datasets: `zfs diff` would take
/// one of them for the place that its paths are below.
fn leave(names: &[&str]) -> Result<()> {
    // The table is that of the process; the namespace of this thread has the same mounts.
    for mount in mountinfo::mounts()?.iter().rev() {
        let same = names.iter().any(|name| mount.source == **name);
        if mount.fstype == "zfs" && same {
            let gone = unmount(&mount.target, UnmountFlags::DETACH);
            gone.at("cannot unmount", &mount.target)?;
        }
    }
    Ok(())
}

fn prepare(names: &[&str], place: &Path) -> Result<Vec<PathBuf>> {
    unshare(CloneFlags::CLONE_NEWNS).at("cannot make a mount namespace for", place)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).at("cannot make private", "/")?;
    leave(names)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount(
        "plywood",
        place,
        "tmpfs",
        flags,
        Some(c"mode=0700,size=64k"),
    )
    .at("cannot mount a tmpfs at", place)?;
    let attach = |(number, name): (usize, &&str)| {
        let directory = place.join(number.to_string());
        fs::create_dir(&directory).at("cannot create", &directory)?;
        let mounted: OwnedFd = mounts::detached(name)?;
        let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
        move_mount(&mounted, c"", CWD, &directory, flags).at("cannot mount at", &directory)?;
        Ok(directory)
    };
    names.iter().enumerate().map(attach).collect()
}
