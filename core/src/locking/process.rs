// SPDX-License-Identifier: Apache-2.0
//! The one lock object that a process has for a file.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    time::Instant,
};

use plywood_plugin_sdk::sys::ofd_lock::{self, LockKind};

use super::{
    Access, Patience, open_file,
    wait::{self, Wait},
};
use crate::{IoContext, Result};

static REGISTRY: Mutex<BTreeMap<PathBuf, Weak<Shared>>> = Mutex::new(BTreeMap::new());

/// The threads' lock above the kernel's.
#[derive(Debug)]
pub(super) struct Shared {
    path: PathBuf,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The description that the kernel's lock belongs to, while anybody holds it.
    file: Option<Arc<File>>,
    readers: usize,
    writer: bool,
    writers_waiting: usize,
    /// One thread is waiting for the kernel; the others wait for it.
    asking: bool,
}

impl State {
    fn free_for(&self, kind: LockKind) -> bool {
        match kind {
            LockKind::Shared => !self.writer && !self.asking && self.writers_waiting == 0,
            LockKind::Exclusive => !self.writer && !self.asking && self.readers == 0,
        }
    }
}

impl Shared {
    /// The object for a canonical path.
    pub(super) fn of(path: PathBuf) -> Arc<Self> {
        let mut registry = lock(&REGISTRY);
        if let Some(found) = registry.get(&path).and_then(Weak::upgrade) {
            return found;
        }
        registry.retain(|_, known| known.strong_count() > 0);
        let made = Arc::new(Self {
            path: path.clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        registry.insert(path, Arc::downgrade(&made));
        made
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the lock; the file is open for reading, for a writer also for writing.
    pub(super) fn acquire(
        &self,
        kind: LockKind,
        access: Access,
        patience: Patience,
    ) -> Result<Arc<File>> {
        let mut wait = Wait::new(&self.path, kind, patience);
        let mut state = self.wait_for_threads(kind, &mut wait)?;
        if kind == LockKind::Shared
            && state.readers > 0
            && let Some(file) = state.file.clone()
        {
            state.readers += 1;
            return Ok(file);
        }
        state.asking = true;
        drop(state);
        // A thread that is killed by a panic here would block the others for ever.
        let asking = Asking(self);
        let file = open_file(&self.path, access_for(kind, access))
            .at("cannot open lock file", &self.path)
            .and_then(|file| wait::for_kernel(Arc::new(file), kind, &mut wait))?;
        std::mem::forget(asking);

        let mut state = lock(&self.state);
        state.asking = false;
        state.file = Some(Arc::clone(&file));
        match kind {
            LockKind::Shared => state.readers = 1,
            LockKind::Exclusive => state.writer = true,
        }
        self.changed.notify_all();
        Ok(file)
    }

    fn wait_for_threads(
        &self,
        kind: LockKind,
        wait: &mut Wait<'_>,
    ) -> Result<MutexGuard<'_, State>> {
        let mut state = lock(&self.state);
        if state.free_for(kind) {
            return Ok(state);
        }
        let writer = usize::from(kind == LockKind::Exclusive);
        state.writers_waiting += writer;
        let outcome = loop {
            if state.free_for(kind) {
                break Ok(());
            }
            let (again, _) = self
                .changed
                .wait_timeout(state, wait.slice(Instant::now()))
                .unwrap_or_else(PoisonError::into_inner);
            state = again;
            if let Err(error) = wait.tick(|| "another thread of this process".to_owned()) {
                break Err(error);
            }
        };
        state.writers_waiting -= writer;
        match outcome {
            Ok(()) => Ok(state),
            Err(error) => {
                // Readers may have waited for this writer alone.
                self.changed.notify_all();
                Err(error)
            }
        }
    }

    /// Gives back what [`Shared::acquire`] took.
    pub(super) fn release(&self, kind: LockKind) {
        let mut state = lock(&self.state);
        match kind {
            LockKind::Shared => state.readers -= 1,
            LockKind::Exclusive => state.writer = false,
        }
        if state.readers > 0 {
            return;
        }
        if let Some(file) = state.file.take() {
            // Not only closed: a forked child may have a copy of the descriptor.
            if let Err(error) = ofd_lock::unlock(&file) {
                tracing::warn!(lock = %self.path.display(), %error, "cannot unlock");
            }
        }
        self.changed.notify_all();
    }
}

/// A reader of a lock that may be written opens it as Go does.
fn access_for(kind: LockKind, access: Access) -> Access {
    match kind {
        LockKind::Exclusive => Access::ReadWrite,
        LockKind::Shared => access,
    }
}

struct Asking<'a>(&'a Shared);

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).asking = false;
        self.0.changed.notify_all();
    }
}

/// The data is consistent at every point where a panic could occur.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
