// SPDX-License-Identifier: Apache-2.0
//! Datasets that are mounted at no place.

use std::os::fd::OwnedFd;

use plywood_plugin_sdk::{DriverError, DriverErrorCode, Result, toolkit};
use rustix::{
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
        fsconfig_set_string, fsmount, fsopen,
    },
};

use crate::dataset::PATIENCE;

/// Mounts the dataset `name` without attaching it anywhere; it is unmounted with the descriptor.
///
/// # Behavior
/// - While it is mounted read-only elsewhere, as containers/storage does for `ro`, the kernel gives
///   it read-only here too.
/// - Who mounts it or counts its files in the same moment is waited for: only one program at a time
///   can open a dataset that is mounted nowhere.
pub(crate) fn detached(name: &str) -> Result<OwnedFd> {
    let is_busy = |errno: &Errno| *errno == Errno::BUSY;
    let mounted = toolkit::while_busy(PATIENCE, is_busy, || match mount(name, false) {
        Err(Errno::BUSY | Errno::ROFS) => mount(name, true),
        other => other,
    });
    mounted.map_err(|errno| explained(name, errno))
}

fn mount(name: &str, read_only: bool) -> Result<OwnedFd, Errno> {
    let context = fsopen("zfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", name)?;
    if read_only {
        fsconfig_set_flag(&context, "ro")?;
    }
    fsconfig_create(&context)?;
    // Looking at a layer must not change it.
    let attributes = if read_only {
        MountAttrFlags::MOUNT_ATTR_RDONLY
    } else {
        MountAttrFlags::MOUNT_ATTR_NOATIME
    };
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn explained(name: &str, errno: Errno) -> DriverError {
    let text = std::io::Error::from(errno);
    let (code, remedy) = match errno {
        Errno::NOENT => (DriverErrorCode::NOT_FOUND, None),
        Errno::NODEV => (
            DriverErrorCode::PREREQUISITES,
            Some("load the kernel module of OpenZFS"),
        ),
        Errno::NOSYS => (
            DriverErrorCode::PREREQUISITES,
            Some("use Linux 5.2 or newer"),
        ),
        Errno::PERM | Errno::ACCESS => (DriverErrorCode::PERMISSION, Some("run as root")),
        Errno::BUSY => (DriverErrorCode::BUSY, Some("try again")),
        Errno::NOSPC | Errno::DQUOT => (DriverErrorCode::NO_SPACE, None),
        _ => (DriverErrorCode::IO, None),
    };
    let mut error = DriverError::new(code, format!("cannot mount the dataset `{name}`: {text}"));
    error.errno = Some(errno.raw_os_error());
    error = error.object(name);
    match remedy {
        Some(remedy) => error.remedy(remedy),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_mounted_is_named() {
        let error = detached("no-such-pool/dataset").unwrap_err();
        assert_eq!(error.object.as_deref(), Some("no-such-pool/dataset"));
        assert!(error.message.contains("no-such-pool/dataset"), "{error}");
    }
}
