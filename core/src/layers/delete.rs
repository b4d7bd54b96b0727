// SPDX-License-Identifier: Apache-2.0
//! Removing layers: the record first, then the content out of the way, then the bytes.

use std::{collections::BTreeSet, fs, io, path::Path, sync::Arc};

use plywood_plugin_sdk::{LayerId, toolkit::remove_tree};

use super::{
    access::LayersWrite,
    intent::Intent,
    looking::Looking,
    mounts::UnmountOptions,
    options::{Shared, driver_id},
};
use crate::{
    Error, ErrorKind, IoContext, Result,
    plugin::{DESCRIPTORS, DriverHandle},
};

/// What has been removed from the store and is still to be deleted.
///
/// # Behavior
/// - Dropping it deletes as [`Reaper::run`] does, with failures logged.
///
/// # Locking
/// Needs none; it is best run after the layers lock was given back.
#[derive(Debug, Default)]
#[must_use = "run it after the lock is given back"]
pub struct Reaper {
    driver: Option<Driver>,
    tokens: Vec<(LayerId, String)>,
    intents: Vec<Intent>,
    /// Notes of what could not be moved away, by which the next writer tries again.
    kept: Vec<Intent>,
    failures: Vec<Error>,
}

#[derive(Clone)]
struct Driver(DriverHandle);

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Reaper {
    /// Deletes what has been removed.
    ///
    /// # Errors
    /// The first failure; what stays is found and deleted by a later writer or by garbage
    /// collection.
    pub fn run(mut self) -> Result<()> {
        self.finish();
        match std::mem::take(&mut self.failures).into_iter().next() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    /// Adds what another one has to delete.
    pub fn absorb(&mut self, mut other: Self) {
        self.driver = self.driver.take().or_else(|| other.driver.take());
        self.tokens.append(&mut other.tokens);
        self.intents.append(&mut other.intents);
        self.kept.append(&mut other.kept);
        self.failures.append(&mut other.failures);
    }

    fn finish(&mut self) {
        for (id, token) in self.tokens.drain(..) {
            if let Some(Driver(driver)) = &self.driver
                && let Err(error) = driver.reap(&token)
            {
                tracing::warn!(layer = %id, ?error, "a removed layer cannot be deleted yet");
                self.failures.push(error);
            }
        }
        step!("delete.reaped");
        for intent in self.intents.drain(..) {
            if let Err(error) = intent.close() {
                self.failures.push(error);
            }
        }
        for intent in self.kept.drain(..) {
            if let Err(error) = intent.place.abandon() {
                self.failures.push(error.into());
            }
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.finish();
        for error in &self.failures {
            tracing::warn!(?error, "something removed could not be deleted");
        }
    }
}

impl LayersWrite<'_> {
    /// Removes layers.
    ///
    /// # Behavior
    /// - Mounted ones are unmounted first, however often they are mounted.
    /// - Whether others stand on them is not checked.
    /// - When it returns none of them can be seen any more; their bytes are deleted by the result.
    ///
    /// # Errors
    /// `LayerUnknown`, `StoreIsReadOnly`, a failing unmount, a failing save: nothing is removed.
    ///
    /// # Durability
    /// The records are written once for all of them.
    pub fn delete<S: AsRef<str>>(&mut self, layers: &[S]) -> Result<Reaper> {
        self.fresh()?;
        let mut ids = BTreeSet::new();
        for what in layers {
            ids.insert(self.own(what.as_ref(), "delete layers")?);
        }
        self.remove(&ids)
    }

    /// Removes all layers of the store, also those that the driver alone knows.
    ///
    /// # Errors
    /// As [`LayersWrite::delete`].
    pub fn wipe(&mut self) -> Result<Reaper> {
        self.fresh()?;
        let ids = self.iter().map(|layer| layer.id.clone()).collect();
        let mut reaper = self.remove(&ids)?;
        let (_, rest) = self.collect_unrecorded()?;
        reaper.absorb(rest);
        Ok(reaper)
    }

    pub(super) fn remove(&mut self, ids: &BTreeSet<String>) -> Result<Reaper> {
        if ids.is_empty() {
            return Ok(Reaper::default());
        }
        let shared = Arc::clone(&self.shared);
        shared.driver()?;
        // 1. Nothing of them is mounted any more.
        let mounts = shared.mounts()?;
        let force = UnmountOptions {
            force: true,
            ..UnmountOptions::default()
        };
        for id in mounts.ids().iter().filter(|id| ids.contains(*id)) {
            self.unmount(id, force)?;
        }
        match self.unrecord(ids) {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                self.fresh()?;
                self.make_room(ids, &error);
                self.unrecord(ids)
            }
            done => done,
        }
    }

    /// Deletes the content of layers that are to be removed, but for their records.
    ///
    /// # Behavior
    /// - Only for full disks: notes and new records need a few blocks, and what is to go has them.
    ///   A crash now leaves layers that are recorded and empty, and can be removed again.
    pub(crate) fn make_room(&self, ids: &BTreeSet<String>, error: &Error) {
        tracing::warn!(
            ?error,
            "the disk is full: content is deleted before its records"
        );
        for id in ids.iter().filter_map(|id| driver_id(id).ok()) {
            if let Err(error) = self.shared.empty(&id) {
                tracing::warn!(layer = %id, ?error, "a layer cannot be emptied");
            }
        }
    }

    fn unrecord(&mut self, ids: &BTreeSet<String>) -> Result<Reaper> {
        let shared = Arc::clone(&self.shared);
        // 2. Notes, by which the next writer finds what a crash leaves. Ids that only other
        //    programs accept name nothing that could be removed safely, but the record.
        let usable: Vec<LayerId> = ids.iter().filter_map(|id| driver_id(id).ok()).collect();
        let intent = Intent::begin(&shared)?;
        for id in &usable {
            intent.note(id)?;
        }
        step!("delete.noted");
        // 3. The records. After a failed save they may be gone nevertheless.
        for id in ids {
            self.records().remove(id);
        }
        if let Err(error) = self.save() {
            self.fresh()?;
            if ids.iter().any(|id| self.table.get(id).is_some()) {
                return Err(error);
            }
            tracing::warn!(?error, "layers are removed, but perhaps not for good");
        }
        step!("delete.recorded");
        // 4. The content, out of the way.
        let reaper = shared.move_away(&usable, intent);
        step!("delete.moved");
        Ok(reaper)
    }
}

impl Shared {
    /// Moves everything of layers without records out of the way.
    pub(super) fn move_away(&self, ids: &[LayerId], mut intent: Intent) -> Reaper {
        // From here on nothing is taken back any more, and drivers need open files.
        intent.place.spend_reserve();
        let mut reaper = Reaper::default();
        reaper.driver = self.driver.clone().map(Driver);
        for id in ids {
            match self.move_content(id) {
                Ok(Some(token)) => reaper.tokens.push((id.clone(), token)),
                Ok(None) => {}
                Err(error) => reaper.failures.push(error),
            }
            step!("delete.trashed");
            if let Err(error) = intent.take_files(self, id) {
                reaper.failures.push(error);
            }
        }
        if reaper.failures.is_empty() {
            reaper.intents.push(intent);
        } else {
            reaper.kept.push(intent);
        }
        reaper
    }

    fn empty(&self, id: &LayerId) -> Result<()> {
        let tar_split = Shared::tar_split(&self.dir, id);
        match fs::remove_file(&tar_split) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("cannot remove", &tar_split, error));
            }
            _ => {}
        }
        let driver = self.driver()?;
        // The files of a layer from elsewhere are not ours.
        if driver.external_layer(id)?.is_some() {
            return Ok(());
        }
        let mut looking = Looking::with(driver);
        let directory = looking.unpack_target(id)?.directory;
        let in_store = |root| directory.starts_with(root);
        // A driver may show a layer of its own without a place in the store.
        let shown = directory.starts_with(DESCRIPTORS);
        if !shown && !self.dir.parent().is_some_and(in_store) {
            return Ok(());
        }
        for entry in fs::read_dir(&directory).at("cannot list", &directory)? {
            remove_tree(&entry.at("cannot list", &directory)?.path())?;
        }
        Ok(())
    }

    fn move_content(&self, id: &LayerId) -> Result<Option<String>> {
        let driver = self.driver()?;
        let remove = || {
            if driver.capabilities().deferred_removal {
                return driver.trash(id);
            }
            driver.remove(id).map(|_| None)
        };
        match self.with_room(id, remove) {
            // A process that died before it could record its mount left it there.
            Err(error) if error.kind() == ErrorKind::Busy => {
                self.take_back(id, Path::new(""))?;
                self.with_room(id, remove)
            }
            other => other,
        }
    }

    /// Removes a layer; on a full disk its content goes first, since a driver may need a few blocks
    /// to move the layer away.
    pub(super) fn with_room<T>(&self, id: &LayerId, remove: impl Fn() -> Result<T>) -> Result<T> {
        match remove() {
            Err(error) if error.kind() == ErrorKind::NoSpace => {
                self.empty(id)?;
                remove()
            }
            other => other,
        }
    }
}
