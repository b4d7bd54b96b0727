// SPDX-License-Identifier: Apache-2.0
//! Access to the records: guards that hold the lock and see the records as they are.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, PoisonError},
};

use super::{
    delete::Reaper,
    options::{LayerStore, ReadOnlyStore, Shared},
    record::Layer,
    state::{LayerTable, Loaded, RoTable, Stamps},
};
use crate::{
    Result,
    durable::Durability,
    locking::{
        ReadGuard, Token, WriteGuard,
        order::{Before, Held, Layers, RoLayers},
    },
    records::Table,
};

/// How often a reader has leftovers of others cleaned up before it shows what there is.
const CLEANUPS: usize = 3;

/// The records of a layer store, as they are while the lock is held.
///
/// Layers of read-only stores are found after the store's own.
pub struct LayersView<'held> {
    pub(super) shared: Arc<Shared>,
    pub(super) table: Arc<LayerTable>,
    pub(super) read_only: Vec<RoTable>,
    _read_only_guards: Vec<ReadGuard<'held, RoLayers>>,
}

/// The records, locked for reading.
///
/// # Locking
/// Until it is dropped nobody, in any process, changes layers.
#[must_use = "the lock is given back when this is dropped"]
pub struct LayersRead<'held> {
    view: LayersView<'held>,
    _guard: ReadGuard<'held, Layers>,
}

/// The records, locked for changes.
///
/// # Behavior
/// - After a failed save the records are read anew before anything else is done with them.
///
/// # Locking
/// Until it is dropped nobody else, in any process, reads or changes layers.
#[must_use = "the lock is given back when this is dropped"]
pub struct LayersWrite<'held> {
    pub(super) view: LayersView<'held>,
    guard: WriteGuard<'held, Layers>,
    pub(super) token: Token,
    stamps: Stamps,
    /// The records in memory may differ from those on disk.
    stale: bool,
    /// Deleted after the lock is given back, since fields are dropped in this order.
    pub(super) reapers: Vec<Reaper>,
}

impl LayerStore {
    /// Locks the layers for reading.
    ///
    /// # Behavior
    /// - The records are read only when somebody has written since this process read them.
    /// - Layers that a crash of another program left incomplete are removed first, which takes the
    ///   lock for writing for a moment; when that is not possible they are shown as they are.
    ///
    /// # Errors
    /// `Corrupt` names the file and place that cannot be understood; nothing is changed then.
    pub fn read<'held, B>(
        &self,
        held: &'held mut Held<'_, B>,
    ) -> Result<(LayersRead<'held>, Held<'held, RoLayers>)>
    where
        B: Before<Layers> + Before<RoLayers>,
    {
        for _ in 0..CLEANUPS {
            if !self.needs_cleanup(held)? {
                break;
            }
            if let Err(error) = self.write(held).map(drop) {
                tracing::warn!(?error, "incomplete layers cannot be cleaned up");
                break;
            }
        }
        let (guard, inner) = self.0.lock.read(held)?;
        let table = self.0.current(&guard)?;
        let (view, inner) = LayersView::new(&self.0, table, inner)?;
        Ok((
            LayersRead {
                view,
                _guard: guard,
            },
            inner,
        ))
    }

    /// Locks the layers for changes.
    ///
    /// # Behavior
    /// - What crashes left, of this program or of others, is removed first: incomplete layers, and
    ///   what is named in `tmp/`. What cannot be removed is logged and left for the next time.
    ///
    /// # Errors
    /// As [`LayerStore::read`].
    pub fn write<'held, B>(
        &self,
        held: &'held mut Held<'_, B>,
    ) -> Result<(LayersWrite<'held>, Held<'held, RoLayers>)>
    where
        B: Before<Layers> + Before<RoLayers>,
    {
        let (guard, inner) = self.0.lock.write(held)?;
        let token = guard.token()?;
        let mut state = self.0.state();
        let (loaded, fresh) = match state.records.take() {
            Some(loaded) if loaded.is_current(&self.0.dir, &token)? => (loaded, false),
            _ => (Loaded::load(&self.0.dir, token, self.0.durability)?, true),
        };
        let sweep = fresh || !state.swept || loaded.table.untidy;
        state.swept = true;
        drop(state);
        let (view, inner) = LayersView::new(&self.0, loaded.table, inner)?;
        let mut write = LayersWrite {
            view,
            guard,
            token: loaded.token,
            stamps: loaded.stamps,
            stale: false,
            reapers: Vec::new(),
        };
        if sweep {
            write.sweep()?;
        }
        Ok((write, inner))
    }

    fn needs_cleanup<B: Before<Layers>>(&self, held: &mut Held<'_, B>) -> Result<bool> {
        if self.0.driver.is_none() {
            return Ok(false);
        }
        let seen = {
            let state = self.0.state();
            let loaded = state.records.as_ref();
            loaded.map(|loaded| (loaded.stamps, loaded.table.untidy))
        };
        if let Some((stamps, false)) = seen
            && stamps == Stamps::read(&self.0.dir)?
        {
            return Ok(false);
        }
        let (guard, _inner) = self.0.lock.read(held)?;
        Ok(self.0.current(&guard)?.untidy)
    }
}

impl Shared {
    /// The records, read anew when somebody has written.
    fn current(&self, guard: &ReadGuard<'_, Layers>) -> Result<Arc<LayerTable>> {
        let token = guard.token()?;
        let mut state = self.state();
        match &state.records {
            Some(loaded) if loaded.is_current(&self.dir, &token)? => Ok(Arc::clone(&loaded.table)),
            _ => {
                state.records = None;
                let loaded = Loaded::load(&self.dir, token, self.durability)?;
                let table = Arc::clone(&loaded.table);
                state.records = Some(loaded);
                Ok(table)
            }
        }
    }
}

impl ReadOnlyStore {
    fn current(&self, guard: &ReadGuard<'_, RoLayers>) -> Result<Arc<LayerTable>> {
        let token = guard.token()?;
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &*state {
            Some(loaded) if loaded.is_current(&self.dir, &token)? => Ok(Arc::clone(&loaded.table)),
            _ => {
                *state = None;
                let loaded = Loaded::load(&self.dir, token, Durability::None)?;
                let table = Arc::clone(&loaded.table);
                *state = Some(loaded);
                Ok(table)
            }
        }
    }
}

impl<'held> LayersView<'held> {
    fn new(
        shared: &Arc<Shared>,
        table: Arc<LayerTable>,
        held: Held<'held, Layers>,
    ) -> Result<(Self, Held<'held, RoLayers>)> {
        let mut held = held.deeper::<RoLayers>();
        let mut read_only = Vec::with_capacity(shared.read_only.len());
        let mut guards = Vec::with_capacity(shared.read_only.len());
        for store in &shared.read_only {
            let (guard, inner) = store.lock.read_with(held)?;
            held = inner;
            read_only.push(RoTable {
                dir: store.dir.clone(),
                table: store.current(&guard)?,
            });
            guards.push(guard);
        }
        let view = Self {
            shared: Arc::clone(shared),
            table,
            read_only,
            _read_only_guards: guards,
        };
        Ok((view, held))
    }
}

impl LayersWrite<'_> {
    /// The records to change; [`LayersWrite::save`] must follow.
    pub(super) fn records(&mut self) -> &mut Table<Layer> {
        self.stale = true;
        Arc::make_mut(&mut self.view.table).records()
    }

    /// Writes what has been changed.
    ///
    /// # Durability
    /// Each file is replaced at most once. After a failure the records are read anew.
    pub(super) fn save(&mut self) -> Result<()> {
        self.stale = true;
        let records = Arc::make_mut(&mut self.view.table).records();
        match self.guard.publish(|| records.save()) {
            Ok(((), token)) => {
                self.stamps = Stamps::read(&self.view.shared.dir)?;
                self.token = token;
                self.stale = false;
                Ok(())
            }
            Err(error) => {
                // When that fails too, the records stay stale until they can be read.
                if let Err(second) = self.reload() {
                    tracing::warn!(?second, "the records cannot be read after a failed save");
                }
                Err(error)
            }
        }
    }

    /// Makes sure that the records are those on disk.
    pub(super) fn fresh(&mut self) -> Result<()> {
        if self.stale { self.reload() } else { Ok(()) }
    }

    fn reload(&mut self) -> Result<()> {
        let shared = &self.view.shared;
        let loaded = Loaded::load(&shared.dir, self.guard.token()?, shared.durability)?;
        self.view.table = loaded.table;
        self.token = loaded.token;
        self.stamps = loaded.stamps;
        self.stale = false;
        Ok(())
    }
}

impl Drop for LayersWrite<'_> {
    fn drop(&mut self) {
        if !self.stale {
            self.view.shared.state().records = Some(Loaded {
                table: Arc::clone(&self.view.table),
                token: self.token.clone(),
                stamps: self.stamps,
            });
        }
    }
}

impl<'held> Deref for LayersRead<'held> {
    type Target = LayersView<'held>;

    fn deref(&self) -> &Self::Target {
        &self.view
    }
}

impl<'held> Deref for LayersWrite<'held> {
    type Target = LayersView<'held>;

    fn deref(&self) -> &Self::Target {
        &self.view
    }
}

impl fmt::Debug for LayersView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayersView")
            .field("dir", &self.shared.dir)
            .field("layers", &self.table.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for LayersRead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view.fmt(f)
    }
}

impl fmt::Debug for LayersWrite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view.fmt(f)
    }
}
