// SPDX-License-Identifier: Apache-2.0
//! Private places for what is being made or removed, which whoever comes after a crash reclaims.
//!
//! # Compatibility
//! The names and the lock protocol are those of containers/storage, so that either tool cleans up
//! after the other:
//!
//! ```text
//! ROOT/lock-DIGITS          0600, locked by the owner for as long as it lives
//! ROOT/temp-dir-DIGITS/     0700
//!      N-addition           something new, renamed away when it is finished
//!      N-BASENAME           something to be deleted, renamed to here
//! ```

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::{Reserve, remove_tree};
use crate::{
    DriverError, DriverErrorCode, IoContext, Result,
    sys::ofd_lock::{self, LockKind},
};

const LOCK: &str = "lock-";
const PLACE: &str = "temp-dir-";

/// How often a name is chosen anew when others interfere.
const ATTEMPTS: usize = 64;

/// A place that belongs to this process until it is closed or the process dies.
///
/// # Locking
/// Needs none: a place is private. Another process (or another thread's [`recover`]) leaves it
/// alone while its lock file is locked.
#[derive(Debug)]
#[must_use = "dropping it removes everything inside"]
pub struct TempDir {
    root: PathBuf,
    digits: String,
    count: u64,
    /// `None` once closed.
    lock: Option<File>,
    reserve: Option<Reserve>,
}

impl TempDir {
    /// Makes a place below `root`, which is made (0700) when it is missing.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn create(root: &Path) -> Result<Self> {
        let created = Self::try_create(root);
        if created.is_err() {
            // On a full disk the root alone may have been made; the first failure is the one to
            // tell.
            drop(remove_root(root));
        }
        created
    }

    fn try_create(root: &Path) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            create_root(root)?;
            let digits = random_digits()?;
            let Some(lock) = create_lock(&path_of(root, LOCK, &digits))? else {
                continue;
            };
            let place = path_of(root, PLACE, &digits);
            return match DirBuilder::new().mode(0o700).create(&place) {
                Ok(()) => Ok(Self {
                    root: root.to_owned(),
                    digits,
                    count: 0,
                    lock: Some(lock),
                    reserve: None,
                }),
                Err(error) => {
                    // The place is someone's leftover, or the disk is full: in either case the
                    // lock file that was just made is ours to remove.
                    let lock_path = path_of(root, LOCK, &digits);
                    fs::remove_file(&lock_path).at("cannot remove", &lock_path)?;
                    if error.kind() == io::ErrorKind::AlreadyExists {
                        continue;
                    }
                    Err(error).at("cannot create directory", &place)
                }
            };
        }
        Err(DriverError::new(
            DriverErrorCode::BUSY,
            format!(
                "cannot find a free name for a temporary directory in `{}`",
                root.display()
            ),
        )
        .object(root.display().to_string()))
    }

    /// The place's name, `temp-dir-DIGITS`.
    pub fn name(&self) -> String {
        format!("{PLACE}{}", self.digits)
    }

    /// The directory itself.
    pub fn path(&self) -> PathBuf {
        path_of(&self.root, PLACE, &self.digits)
    }

    /// A path for something new; nothing exists there yet.
    ///
    /// The caller makes it and, when it is finished, renames it to where it belongs.
    pub fn addition(&mut self) -> PathBuf {
        self.next("addition".as_ref())
    }

    /// Moves what is at `path` into the place, to be deleted with it; `None` when nothing is there.
    ///
    /// # Errors
    /// What `rename(2)` reports: `path` must be on the same file system.
    pub fn take(&mut self, path: &Path) -> Result<Option<PathBuf>> {
        let name = path.file_name().ok_or_else(|| {
            DriverError::new(
                DriverErrorCode::INVALID_ARGUMENT,
                format!(
                    "a path without a name cannot be removed: `{}`",
                    path.display()
                ),
            )
        })?;
        let target = self.next(name);
        match fs::rename(path, &target) {
            Ok(()) => Ok(Some(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("cannot move away", path),
        }
    }

    fn next(&mut self, name: &std::ffi::OsStr) -> PathBuf {
        let mut numbered = std::ffi::OsString::from(format!("{}-", self.count));
        numbered.push(name);
        self.count += 1;
        self.path().join(numbered)
    }

    /// Makes a place for something that is going to be built there, which can be removed again
    /// when building it fails because no more files can be opened.
    ///
    /// # Errors
    /// What the file system reports; that too few files can be opened.
    pub fn create_to_build(root: &Path) -> Result<Self> {
        let reserve = Reserve::new().at("cannot prepare to build in", root)?;
        let mut place = Self::create(root)?;
        place.reserve = Some(reserve);
        Ok(place)
    }

    /// Gives back the open files that are kept for removing what was built, to who has to tidy up
    /// before the place is closed.
    pub fn spend_reserve(&mut self) {
        self.reserve = None;
    }

    /// Leaves the place as it is to whoever recovers next.
    ///
    /// # Errors
    /// What unlocking reports; the lock goes with the process at the latest.
    pub fn abandon(mut self) -> Result<()> {
        match self.lock.take() {
            Some(lock) => ofd_lock::unlock(&lock).at("cannot unlock", self.path()),
            None => Ok(()),
        }
    }

    /// Deletes the place with everything inside, and `root` when nothing else is in it.
    ///
    /// # Errors
    /// What cannot be deleted; it is left for [`recover`].
    pub fn close(mut self) -> Result<()> {
        self.finish()
    }

    fn finish(&mut self) -> Result<()> {
        self.spend_reserve();
        match self.lock.take() {
            Some(lock) => dispose(&self.root, &self.digits, &lock),
            None => Ok(()),
        }
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be deleted now is unlocked and found by the next `recover`.
        drop(self.finish());
    }
}

/// Deletes the places below `root` whose owner is dead; returns their names.
///
/// # Behavior
/// - A place whose lock is held, here or elsewhere, is left alone.
/// - A place without a lock file is reclaimed too.
/// - One that cannot be deleted does not keep the others from being deleted.
///
/// # Errors
/// The first failure.
pub fn recover(root: &Path) -> Result<Vec<String>> {
    recover_with(root, |_| Ok(()))
}

/// As [`recover`], with a look at each place before it is deleted.
///
/// # Behavior
/// - `visit` gets the path of the place, which may be missing, while its lock is held. When it
///   fails, the place stays.
///
/// # Errors
/// The first failure, also of `visit`.
pub fn recover_with(
    root: &Path,
    mut visit: impl FnMut(&Path) -> Result<()>,
) -> Result<Vec<String>> {
    let mut reclaimed = Vec::new();
    let mut failure = None;
    for digits in candidates(root)? {
        match reclaim(root, &digits, &mut visit) {
            Ok(true) => reclaimed.push(format!("{PLACE}{digits}")),
            Ok(false) => {}
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    remove_root(root)?;
    Ok(reclaimed)
}

/// Whether an entry of a directory of such places belongs to this protocol.
pub fn is_own_entry(name: &str) -> bool {
    digits_of(name).is_some()
}

fn candidates(root: &Path) -> Result<BTreeSet<String>> {
    let entries = match fs::read_dir(root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        other => other.at("cannot list", root)?,
    };
    let mut found = BTreeSet::new();
    for entry in entries {
        let name = entry.at("cannot list", root)?.file_name();
        if let Some(digits) = name.to_str().and_then(digits_of) {
            found.insert(digits.to_owned());
        }
    }
    Ok(found)
}

fn digits_of(name: &str) -> Option<&str> {
    let digits = name
        .strip_prefix(LOCK)
        .or_else(|| name.strip_prefix(PLACE))?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then_some(digits)
}

fn reclaim(root: &Path, digits: &str, visit: &mut impl FnMut(&Path) -> Result<()>) -> Result<bool> {
    let path = path_of(root, LOCK, digits);
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path);
    let lock = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.at("cannot open", &path)?,
    };
    if !take_lock(&lock, &path)? {
        return Ok(false);
    }
    visit(&path_of(root, PLACE, digits))?;
    dispose(root, digits, &lock)?;
    Ok(true)
}

/// Deletes the place first and its lock file last, so that a crash in between leaves a lock file
/// that nobody holds.
fn dispose(root: &Path, digits: &str, lock: &File) -> Result<()> {
    remove_tree(&path_of(root, PLACE, digits))?;
    let path = path_of(root, LOCK, digits);
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other.at("cannot remove", &path)?,
    }
    ofd_lock::unlock(lock).at("cannot unlock", &path)?;
    remove_root(root)
}

/// A fresh lock file, locked; `None` when the name is taken or someone was faster.
fn create_lock(path: &Path) -> Result<Option<File>> {
    let created = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    let lock = match created {
        // Not found: another process removed the empty root after it was made.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotFound
            ) =>
        {
            return Ok(None);
        }
        other => other.at("cannot create", path)?,
    };
    Ok(take_lock(&lock, path)?.then_some(lock))
}

/// Locks without waiting; false when someone else has the lock, or had it and removed the file
/// between our open and our lock.
fn take_lock(lock: &File, path: &Path) -> Result<bool> {
    if !ofd_lock::try_lock(lock, LockKind::Exclusive).at("cannot lock", path)? {
        return Ok(false);
    }
    let ours = lock.metadata().at("cannot inspect", path)?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at("cannot inspect", path),
    }
}

fn create_root(root: &Path) -> Result<()> {
    let created = DirBuilder::new().recursive(true).mode(0o700).create(root);
    match created {
        // It was there, and another process removed it before it was looked at: what follows finds
        // out and tries again.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.at("cannot create directory", root),
    }
}

/// Removes `root` when it is empty: the link repair of containers/storage 1.43 takes every
/// directory beside the layers for a layer and fails on this one.
fn remove_root(root: &Path) -> Result<()> {
    match fs::remove_dir(root) {
        Ok(()) => Ok(()),
        Err(error) => match error.raw_os_error() {
            Some(libc::ENOTEMPTY | libc::EEXIST | libc::ENOENT | libc::EBUSY) => Ok(()),
            _ => Err(error).at("cannot remove", root),
        },
    }
}

fn path_of(root: &Path, prefix: &str, digits: &str) -> PathBuf {
    root.join(format!("{prefix}{digits}"))
}

fn random_digits() -> Result<String> {
    let number = getrandom::u32().map_err(|error| {
        DriverError::new(
            DriverErrorCode::OTHER,
            format!("cannot get random numbers: {error}"),
        )
    })?;
    Ok(number.to_string())
}

#[cfg(test)]
mod tests;
