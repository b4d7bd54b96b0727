// SPDX-License-Identifier: Apache-2.0
//! Layers whose files are being read or written without being mounted anywhere.

use std::{
    collections::HashMap,
    fs::File,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use plywood_plugin_sdk::{DriverError, DriverErrorCode, IoContext, Result};
use rustix::{
    fs::{Mode, OFlags},
    io::DupFlags,
};

use crate::mounts;

/// The datasets that this process shows to core, by the paths at which it does.
#[derive(Debug, Default)]
pub(crate) struct Looks(Mutex<HashMap<PathBuf, Look>>);

#[derive(Debug)]
struct Look {
    dataset: String,
    mount: OwnedFd,
}

impl Looks {
    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Look>> {
        // Each operation on the map is one step, so a panic elsewhere leaves it whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the dataset `name` until [`Looks::close`]; returns its root.
    pub(crate) fn open(&self, name: &str) -> Result<PathBuf> {
        let mount = mounts::detached(name)?;
        // The dot lets it be opened without following a link.
        let path = PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd()));
        let look = Look {
            dataset: name.to_owned(),
            mount,
        };
        self.lock().insert(path.clone(), look);
        Ok(path)
    }

    /// Ends what [`Looks::open`] began.
    pub(crate) fn close(&self, path: &Path) {
        self.lock().remove(path);
    }

    /// Unmounts the dataset `name`, which is renamed or destroyed next.
    ///
    /// # Behavior
    /// - Whoever still uses it finds nothing there, and never something else: the numbers of the
    ///   descriptors stay taken until they are given back.
    pub(crate) fn end(&self, name: &str) -> Result<()> {
        for (path, look) in self.lock().iter_mut() {
            if look.dataset == name {
                let nothing = File::open("/dev/null").at("cannot open", "/dev/null")?;
                let replaced = rustix::io::dup3(&nothing, &mut look.mount, DupFlags::CLOEXEC);
                replaced.at("cannot close", path)?;
                look.dataset.clear();
            }
        }
        Ok(())
    }

    /// Unmounts the dataset `name`, which core has finished with.
    pub(crate) fn forget(&self, name: &str) {
        self.lock().retain(|_, look| look.dataset != name);
    }
}

/// Makes what was written into the dataset `name` durable.
pub(crate) fn sync(name: &str) -> Result<()> {
    // All mounts of a dataset are one file system.
    let mount = mounts::detached(name)?;
    let root = root(mount.as_fd()).at("cannot open the root of", name)?;
    rustix::fs::syncfs(root).at("cannot sync", name)
}

/// The root of what is mounted, opened: what `fsmount` gives is no open file.
pub(crate) fn root(mount: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(mount, ".", flags, Mode::empty())
}

/// Whether there is no such dataset, told by who was asked to mount it.
pub(crate) fn is_missing(error: &DriverError) -> bool {
    error.code == DriverErrorCode::NOT_FOUND
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn look_at(directory: &std::path::Path, dataset: &str) -> (PathBuf, Look) {
        let mount = OwnedFd::from(File::open(directory).unwrap());
        let path = PathBuf::from(format!("/proc/self/fd/{}/.", mount.as_raw_fd()));
        let dataset = dataset.to_owned();
        (path, Look { dataset, mount })
    }

    #[test]
    fn what_was_taken_away_shows_nothing_and_keeps_its_number() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let looks = Looks::default();
        let (path, look) = look_at(root.path(), "p/x");
        looks.lock().insert(path.clone(), look);
        assert!(path.join("file").exists());
        looks.end("p/x").unwrap();
        assert!(!path.join("file").exists());
        let (other, _look) = look_at(root.path(), "p/y");
        assert_ne!(other, path);
        looks.close(&path);
        assert!(looks.lock().is_empty());
    }

    #[test]
    fn a_dataset_is_forgotten_by_its_name() {
        let root = tempfile::tempdir().unwrap();
        let looks = Looks::default();
        for name in ["p/x", "p/y", "p/x"] {
            let (path, look) = look_at(root.path(), name);
            looks.lock().insert(path, look);
        }
        looks.forget("p/x");
        assert_eq!(looks.lock().len(), 1);
    }
}
