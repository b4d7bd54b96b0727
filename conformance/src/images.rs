// SPDX-License-Identifier: Apache-2.0
//! Where the image files of the suite's own file systems lie.
//!
//! Most of a case's time would be waits for the disk below those images, which says nothing about
//! a driver: what it syncs reaches the image either way, and power cuts copy the image.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::scratch::{Mounted, Spec};

/// What must be free before images are put into memory: full runs keep less
/// than 2 GiB at once, and the cases themselves need memory, too.
const ENOUGH: u64 = 6 << 30;

/// The value that asks for memory.
pub(crate) const MEMORY: &str = "memory";

/// A new directory for the suite's own files, below the one that was asked for.
///
/// # Errors
/// What the kernel reports, with the directory's path.
pub(crate) fn work(wanted: Option<&str>) -> io::Result<TempDir> {
    let place = wanted
        .filter(|place| *place != MEMORY)
        .unwrap_or("/var/tmp");
    tempfile::Builder::new()
        .prefix("plywood-conformance-")
        .tempdir_in(place)
}

/// A directory for image files.
#[derive(Debug)]
pub(crate) struct Images {
    /// The directory.
    pub(crate) path: PathBuf,
    /// What the report says of it: `memory`, or the directory that was asked for.
    pub(crate) shown: String,
    /// Keeps the memory until what lies in it was unmounted.
    _memory: Option<Mounted>,
}

impl Images {
    /// Refuses memory for a pool, whose image the kernel's threads open, which do not see it.
    pub(crate) fn check(wanted: Option<&str>, specs: &[Spec]) -> Result<(), String> {
        match specs.iter().find(|spec| spec.is_pool()) {
            Some(pool) if wanted == Some(MEMORY) => Err(format!(
                "`{pool}` cannot lie in memory of the suite's own, which the kernel's threads do \
                 not see: use `--images /dev/shm`"
            )),
            _ => Ok(()),
        }
    }

    /// Memory when it was asked for, or when nothing was, enough of it is free and none of `specs`
    /// is a pool; else `work`.
    ///
    /// # Behavior
    /// - To be called in a mount namespace of the suite's own, with which the memory goes away.
    pub(crate) fn make(wanted: Option<&str>, work: &Path, specs: &[Spec]) -> io::Result<Self> {
        let freely = wanted.is_none() && !specs.iter().any(Spec::is_pool);
        if wanted == Some(MEMORY) || (freely && available()? >= ENOUGH) {
            return Self::in_memory(work);
        }
        let shown = work.parent().unwrap_or(work).display().to_string();
        Ok(Self {
            path: work.to_owned(),
            shown,
            _memory: None,
        })
    }

    fn in_memory(work: &Path) -> io::Result<Self> {
        let path = work.join("images");
        let size = available()? / 4 * 3;
        let memory = Mounted::memory(&path, &format!("mode=0755,size={size}"))?;
        Ok(Self {
            path,
            shown: MEMORY.to_owned(),
            _memory: Some(memory),
        })
    }
}

/// The bytes that the kernel thinks it can give without swapping.
fn available() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    let kib = number.ok_or_else(|| io::Error::other("/proc/meminfo names no available memory"))?;
    Ok(kib << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_some_memory() {
        assert!(available().unwrap() > 1 << 20);
    }

    #[test]
    fn a_directory_that_is_asked_for_is_taken_and_a_missing_one_is_named() {
        let place = tempfile::tempdir().unwrap();
        let wanted = place.path().to_str().unwrap();
        let own = work(Some(wanted)).unwrap();
        let images = Images::make(Some(wanted), own.path(), &[]).unwrap();
        assert_eq!(images.path, own.path());
        assert_eq!(images.shown, wanted);
        let missing = format!("{wanted}/missing");
        let error = work(Some(&missing)).unwrap_err();
        assert!(error.to_string().contains(&missing), "{error}");
    }

    #[test]
    fn a_pool_is_never_put_into_memory_that_only_the_suite_sees() {
        let place = tempfile::tempdir().unwrap();
        let specs = ["loop:ext4", "loop:zfs+compression=off"].map(|text| text.parse().unwrap());
        let images = Images::make(None, place.path(), &specs).unwrap();
        assert_eq!(images.path, place.path());
        let refusal = Images::check(Some(MEMORY), &specs).unwrap_err();
        assert!(refusal.contains("`loop:zfs+compression=off`"), "{refusal}");
        assert!(refusal.contains("--images /dev/shm"), "{refusal}");
        assert_eq!(Images::check(Some(MEMORY), &specs[..1]), Ok(()));
        assert_eq!(Images::check(None, &specs), Ok(()));
    }
}
