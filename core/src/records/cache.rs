// SPDX-License-Identifier: Apache-2.0
//! What this process has read of a table, and when that is out of date.

use std::{
    fmt, fs,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    Result,
    locking::{ReadGuard, Token, order::Level},
};

/// A table as it was read or written under a lock, with the marks by which a change is noticed.
///
/// # Behavior
/// - The token tells of every writer that follows the protocol, the files' stamps also of a writer
///   that died between replacing the records and leaving its token.
pub(crate) struct Cache<T> {
    files: Vec<PathBuf>,
    slot: Mutex<Option<Cached<T>>>,
}

struct Cached<T> {
    token: Token,
    stamps: Stamps,
    table: Arc<T>,
}

/// Identity and last change of each file; `None` for one that is not there.
type Stamps = Vec<Option<(u64, i64, i64, u64)>>;

impl<T> Cache<T> {
    /// A cache of nothing, for a table in these files.
    pub(crate) fn new(files: Vec<PathBuf>) -> Self {
        Self {
            files,
            slot: Mutex::new(None),
        }
    }

    /// The table as it is while `guard` is held; `load` is called when the cache is out of date.
    pub(crate) fn current<L: Level>(
        &self,
        guard: &ReadGuard<'_, L>,
        load: impl FnOnce() -> Result<T>,
    ) -> Result<Arc<T>> {
        let mut slot = self.lock();
        let token = guard.token()?;
        let stamps = self.stamps();
        if let Some(cached) = &*slot
            && cached.token == token
            && cached.stamps == stamps
        {
            return Ok(Arc::clone(&cached.table));
        }
        let table = Arc::new(load()?);
        *slot = Some(Cached {
            token,
            stamps,
            table: Arc::clone(&table),
        });
        Ok(table)
    }

    /// Forgets the table: a writer is about to change it.
    pub(crate) fn forget(&self) {
        *self.lock() = None;
    }

    /// Keeps a table that equals the files, while the lock is still held for writing.
    pub(crate) fn keep(&self, token: Token, table: Arc<T>) {
        let stamps = self.stamps();
        *self.lock() = Some(Cached {
            token,
            stamps,
            table,
        });
    }

    fn stamps(&self) -> Stamps {
        let stamp = |path: &PathBuf| {
            let data = fs::metadata(path).ok()?;
            Some((data.ino(), data.mtime(), data.mtime_nsec(), data.size()))
        };
        self.files.iter().map(stamp).collect()
    }

    /// A thread that panicked while it held the mutex left the slot as it was before.
    fn lock(&self) -> MutexGuard<'_, Option<Cached<T>>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> fmt::Debug for Cache<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}
