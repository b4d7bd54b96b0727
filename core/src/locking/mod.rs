// SPDX-License-Identifier: Apache-2.0
//! Locks that this process's threads, other processes and Go's containers/storage respect.
//!
//! # Locking
//! Each lock file has one lock object in a process. Above the kernel's lock, which belongs to the
//! process as a whole, it has a readers-writer lock for the threads: readers share one kernel
//! lock, and a waiting writer keeps new readers out. The order is in [`order`].
//!
//! # Compatibility
//! The kernel's lock is an open-file-description record lock on the whole file. It excludes the
//! POSIX record locks of containers/storage and is excluded by them.

mod last_write;
pub mod order;
mod process;
mod wait;

use std::{
    fmt,
    fs::{File, OpenOptions},
    io,
    marker::PhantomData,
    ops::Deref,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
    time::Duration,
};

pub use last_write::{LENGTH as TOKEN_LENGTH, Token};
use order::{Before, Counted, Held, Level, Unordered};
use plywood_plugin_sdk::sys::ofd_lock::LockKind;
use process::Shared;

use crate::{Error, ErrorKind, IoContext, Result};

/// What a lock may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading and writing.
    ReadWrite,
    /// Reading only: the lock file is never opened for writing.
    ReadOnly,
}

/// How long a lock is waited for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience {
    /// Fail with [`ErrorKind::Busy`] after this time; forever when `None`.
    pub timeout: Option<Duration>,
}

/// The lock of one level, `L`, on one file.
pub struct StoreLock<L: Level> {
    shared: Arc<Shared>,
    access: Access,
    patience: Patience,
    level: PhantomData<fn() -> L>,
}

impl<L: Level> StoreLock<L> {
    /// The lock on the file at `path`, which is made (0644 under the umask) when it is missing.
    ///
    /// # Errors
    /// What opening the file reports, also [`ErrorKind::ReadOnlyFilesystem`] for a file that is
    /// missing on such a file system.
    pub fn open(path: &Path, access: Access) -> Result<Arc<Self>> {
        Self::open_with(path, access, Patience::default())
    }

    /// As [`StoreLock::open`], with a limit for how long to wait.
    ///
    /// # Errors
    /// As [`StoreLock::open`].
    pub fn open_with(path: &Path, access: Access, patience: Patience) -> Result<Arc<Self>> {
        drop(open_file(path, access).at("cannot open lock file", path)?);
        let canonical = std::fs::canonicalize(path).at("cannot resolve", path)?;
        Ok(Arc::new(Self {
            shared: Shared::of(canonical),
            access,
            patience,
            level: PhantomData,
        }))
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        self.shared.path()
    }

    /// What the lock may be used for.
    pub fn access(&self) -> Access {
        self.access
    }

    /// Waits until nobody writes.
    ///
    /// # Errors
    /// [`ErrorKind::Busy`] after the timeout, and what the kernel reports.
    pub fn read<'held, B: Before<L>>(
        &self,
        held: &'held mut Held<'_, B>,
    ) -> Result<(ReadGuard<'held, L>, Held<'held, L>)> {
        let _: &mut Held<'_, B> = held;
        Ok((self.acquire(LockKind::Shared)?, Held::further_in()))
    }

    /// As [`StoreLock::read`], using the proof up instead of borrowing it.
    ///
    /// # Errors
    /// As [`StoreLock::read`].
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a proof that is passed by value cannot be used again"
    )]
    pub fn read_with<'held, B: Before<L>>(
        &self,
        held: Held<'held, B>,
    ) -> Result<(ReadGuard<'held, L>, Held<'held, L>)> {
        let _: Held<'held, B> = held;
        Ok((self.acquire(LockKind::Shared)?, Held::further_in()))
    }

    /// Waits until nobody else reads or writes.
    ///
    /// # Errors
    /// [`ErrorKind::StoreIsReadOnly`] for [`Access::ReadOnly`], [`ErrorKind::Busy`] after the
    /// timeout, and what the kernel reports.
    pub fn write<'held, B: Before<L>>(
        &self,
        held: &'held mut Held<'_, B>,
    ) -> Result<(WriteGuard<'held, L>, Held<'held, L>)> {
        let _: &mut Held<'_, B> = held;
        Ok((self.acquire_write()?, Held::further_in()))
    }

    /// As [`StoreLock::read`], giving the proof up: for functions that return guards of several
    /// levels.
    ///
    /// # Errors
    /// As [`StoreLock::read`].
    pub fn read_owned<'held, B: Before<L>>(
        &self,
        held: Held<'held, B>,
    ) -> Result<(ReadGuard<'held, L>, Held<'held, L>)> {
        Ok((self.acquire(LockKind::Shared)?, held.deeper()))
    }

    /// As [`StoreLock::write`], giving the proof up: for functions that return guards of several
    /// levels.
    ///
    /// # Errors
    /// As [`StoreLock::write`].
    pub fn write_owned<'held, B: Before<L>>(
        &self,
        held: Held<'held, B>,
    ) -> Result<(WriteGuard<'held, L>, Held<'held, L>)> {
        Ok((self.acquire_write()?, held.deeper()))
    }

    fn acquire_write<'held>(&self) -> Result<WriteGuard<'held, L>> {
        if self.access == Access::ReadOnly {
            return Err(Error::new(
                ErrorKind::StoreIsReadOnly,
                "called a write method on a read-only store",
            )
            .subject(self.path().display().to_string()));
        }
        Ok(WriteGuard(self.acquire(LockKind::Exclusive)?))
    }

    fn acquire<'held>(&self, kind: LockKind) -> Result<ReadGuard<'held, L>> {
        let file = self.shared.acquire(kind, self.access, self.patience)?;
        Ok(ReadGuard {
            file,
            shared: Arc::clone(&self.shared),
            kind,
            _counted: Counted::new::<L>(),
            held: PhantomData,
            level: PhantomData,
        })
    }
}

impl StoreLock<Unordered> {
    /// Waits until nobody writes; outside the order.
    ///
    /// # Errors
    /// As [`StoreLock::read`].
    pub fn read_unordered(&self) -> Result<ReadGuard<'static, Unordered>> {
        self.acquire(LockKind::Shared)
    }

    /// Waits until nobody else reads or writes; outside the order.
    ///
    /// # Errors
    /// As [`StoreLock::write`].
    pub fn write_unordered(&self) -> Result<WriteGuard<'static, Unordered>> {
        self.acquire_write()
    }
}

impl<L: Level> fmt::Debug for StoreLock<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreLock")
            .field("level", &L::NAME)
            .field("path", &self.path())
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// A lock that is held, at least for reading, until this is dropped.
#[must_use = "the lock is given back when the guard is dropped"]
pub struct ReadGuard<'held, L: Level> {
    file: Arc<File>,
    shared: Arc<Shared>,
    kind: LockKind,
    _counted: Counted,
    held: PhantomData<&'held mut ()>,
    level: PhantomData<fn() -> L>,
}

impl<L: Level> ReadGuard<'_, L> {
    /// The last writer's token.
    ///
    /// # Errors
    /// What reading the lock file reports.
    pub fn token(&self) -> Result<Token> {
        Token::read(&self.file).at("cannot read lock file", self.shared.path())
    }

    /// Whether somebody has written since `seen` was the token.
    ///
    /// # Errors
    /// As [`ReadGuard::token`].
    pub fn modified_since(&self, seen: &Token) -> Result<bool> {
        Ok(self.token()? != *seen)
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        self.shared.path()
    }
}

impl<L: Level> Drop for ReadGuard<'_, L> {
    fn drop(&mut self) {
        self.shared.release(self.kind);
    }
}

impl<L: Level> fmt::Debug for ReadGuard<'_, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} lock on `{}`", self.kind, self.path().display())
    }
}

/// A lock that is held for writing until this is dropped.
#[derive(Debug)]
#[must_use = "the lock is given back when the guard is dropped"]
pub struct WriteGuard<'held, L: Level>(ReadGuard<'held, L>);

impl<L: Level> WriteGuard<'_, L> {
    /// Leaves a new token, so that everyone else reads the records anew; returns it.
    ///
    /// # Errors
    /// What writing the lock file reports.
    pub fn record_write(&self) -> Result<Token> {
        let token = Token::new().at("cannot make a token for", self.path())?;
        token
            .write(&self.0.file)
            .at("cannot write lock file", self.path())?;
        Ok(token)
    }

    /// Leaves a token, runs `replace` (which replaces the records), and leaves another one, which
    /// it returns: the one to remember as one's own.
    ///
    /// # Errors
    /// What `replace` or writing the lock file reports. Others read the records anew in any case.
    ///
    /// # Compatibility
    /// Some versions of containers/storage write the token before the records, some after. With
    /// both, a crash in between is harmless.
    pub fn publish<T>(&self, replace: impl FnOnce() -> Result<T>) -> Result<(T, Token)> {
        self.record_write()?;
        let done = replace()?;
        Ok((done, self.record_write()?))
    }
}

impl<'held, L: Level> Deref for WriteGuard<'held, L> {
    type Target = ReadGuard<'held, L>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// Opens the lock file. A read-only store on a read-only file system, or one that belongs to
/// someone else, cannot be asked to create it.
fn open_file(path: &Path, access: Access) -> io::Result<File> {
    let open = |flags| {
        OpenOptions::new()
            .read(true)
            .write(access == Access::ReadWrite)
            // `create` of the standard library insists on write access.
            .custom_flags(flags)
            .mode(0o644)
            .open(path)
    };
    match open(libc::O_CREAT) {
        Err(error)
            if access == Access::ReadOnly
                && matches!(
                    error.raw_os_error(),
                    Some(libc::EROFS | libc::EACCES | libc::EPERM)
                ) =>
        {
            open(0).map_err(|second| match second.raw_os_error() {
                Some(libc::ENOENT) => error,
                _ => second,
            })
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
