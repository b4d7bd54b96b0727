// SPDX-License-Identifier: Apache-2.0
//! The dataset below which layers are made.

use std::{
    ffi::OsStr,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, IoContext, Result,
    toolkit::mountinfo::{self, MountEntry},
};

use crate::{command::Meaning, dataset::Datasets};

/// The number of zfs in `statfs`; OpenZFS's `ZFS_SUPER_MAGIC`.
const MAGIC: u64 = 0x2fc1_2fc1;

/// How commands and kernel talk to each other.
const DEVICE: &str = "/dev/zfs";

/// Finds the dataset that is mounted where `home` is, or will be.
///
/// # Errors
/// [`INCOMPATIBLE_FILESYSTEM`](DriverErrorCode::INCOMPATIBLE_FILESYSTEM) when it is not on zfs.
pub(crate) fn of(home: &Path) -> Result<String> {
    let existing = existing(home);
    let found = rustix::fs::statfs(&existing).at("cannot stat the file system of", &existing)?;
    // The kernel's type is signed on some machines; the numbers have 32 bits.
    if u64::try_from(found.f_type & 0xffff_ffff) != Ok(MAGIC) {
        let message = format!("`{}` is not on a zfs filesystem", home.display());
        return Err(
            DriverError::new(DriverErrorCode::INCOMPATIBLE_FILESYSTEM, message)
                .object(home.display().to_string())
                .remedy("mount a dataset there, name one with `zfs.fsname`, or use another driver"),
        );
    }
    let device = fs::metadata(&existing).at("cannot stat", &existing)?.dev();
    mounted(&mountinfo::mounts()?, device).ok_or_else(|| {
        let path = existing.display();
        let message = format!("failed to find zfs dataset mounted on '{path}'");
        DriverError::new(DriverErrorCode::PREREQUISITES, message)
            .object(path.to_string())
            .remedy("name the dataset with `zfs.fsname`")
    })
}

/// The dataset of a device.
fn mounted(mounts: &[MountEntry], device: u64) -> Option<String> {
    let device = format!(
        "{}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device)
    );
    let here = |mount: &&MountEntry| mount.fstype == "zfs" && mount.device == device;
    let source: &OsStr = &mounts.iter().find(here)?.source;
    source.to_str().map(str::to_owned)
}

/// The part of a path that is there already.
fn existing(path: &Path) -> PathBuf {
    let mut existing = path;
    while fs::metadata(existing).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        match existing.parent() {
            Some(above) if !above.as_os_str().is_empty() => existing = above,
            _ => break,
        }
    }
    existing.to_owned()
}

/// Fails unless the kernel has zfs and the process may use it.
pub(crate) fn check_device() -> Result<()> {
    match OpenOptions::new().read(true).write(true).open(DEVICE) {
        Ok(_) => Ok(()),
        Err(error) => {
            let message = format!("could not open {DEVICE}: {error}");
            Err(DriverError::new(DriverErrorCode::PREREQUISITES, message)
                .object(DEVICE)
                .remedy("load the kernel module of OpenZFS, and run as root"))
        }
    }
}

/// Fails unless the dataset `name` is there.
pub(crate) fn check(datasets: &Datasets, name: &str) -> Result<()> {
    let listed = datasets.zfs(&["list", "-H", "-o", "name", "-t", "filesystem", name]);
    listed.map(drop).map_err(|failure| {
        let mut error = failure.about(name);
        if failure.meaning == Meaning::Missing {
            error.code = DriverErrorCode::PREREQUISITES;
            error.message = format!("cannot find root filesystem {name}: {}", failure.complaint);
            error = error.remedy(format!("make it with `zfs create {name}`, or name another"));
        }
        error
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_found_by_the_device_and_not_by_the_place() {
        let table =
            b"36 22 0:31 / /pool rw - zfs pool rw\n37 22 0:32 /sub /x rw - zfs pool/a\\040b rw\n\
                      38 22 0:33 / /x/y rw - tmpfs t rw\n";
        let mounts = mountinfo::parse(table).unwrap();
        let device = rustix::fs::makedev;
        assert_eq!(mounted(&mounts, device(0, 31)).as_deref(), Some("pool"));
        assert_eq!(mounted(&mounts, device(0, 32)).as_deref(), Some("pool/a b"));
        assert_eq!(mounted(&mounts, device(0, 33)), None);
    }

    #[test]
    fn another_file_system_is_refused_before_anything_is_made() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().join("graph/zfs");
        let error = of(&home).unwrap_err();
        assert_eq!(error.code, DriverErrorCode::INCOMPATIBLE_FILESYSTEM);
        assert!(!home.exists() && error.means_unsuitable());
    }
}
