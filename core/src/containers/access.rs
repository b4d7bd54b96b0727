// SPDX-License-Identifier: Apache-2.0
//! The container store: guards that hold its lock and see the records as they are.

use std::{
    fmt,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Container, table};
use crate::{
    Digest, Error, ErrorKind, RecordOptions, Result, big_data,
    durable::Durability,
    locking::{
        Access, ReadGuard, StoreLock, Token, WriteGuard,
        order::{Before, Containers, Held},
    },
    records::{Cache, Lookup, Table},
};

/// The containers of a store; cheap to clone, and all clones share what they have read.
///
/// # Locking
/// [`ContainerStore::read`] and [`ContainerStore::write`] take the containers lock until their
/// guard is dropped.
#[derive(Clone)]
pub struct ContainerStore(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) run_dir: PathBuf,
    pub(super) durability: Durability,
    lock: Arc<StoreLock<Containers>>,
    cache: Cache<Table<Container>>,
}

/// The records of a container store, as they are while the lock is held.
pub struct ContainersView {
    pub(super) shared: Arc<Shared>,
    pub(super) table: Arc<Table<Container>>,
}

/// The records, locked for reading.
///
/// # Locking
/// Until it is dropped nobody, in any process, changes containers.
#[must_use = "the lock is given back when this is dropped"]
pub struct ContainersRead<'held> {
    view: ContainersView,
    _guard: ReadGuard<'held, Containers>,
}

/// The records, locked for changes.
///
/// # Behavior
/// - After a failed save the records are read anew before anything else is done with them.
///
/// # Locking
/// Until it is dropped nobody else, in any process, reads or changes containers.
#[must_use = "the lock is given back when this is dropped"]
pub struct ContainersWrite<'held> {
    pub(super) view: ContainersView,
    guard: WriteGuard<'held, Containers>,
    token: Token,
    /// The records in memory may differ from those on disk.
    stale: bool,
}

impl ContainerStore {
    /// Opens the containers in `dir` (`GRAPHROOT/D-containers`), whose run directories are in
    /// `run_dir` (`RUNROOT/D-containers`).
    ///
    /// # Behavior
    /// - Nothing is read yet: damaged records are reported by what needs them.
    ///
    /// # Errors
    /// What making the directory or the lock file reports.
    pub fn open(dir: &Path, run_dir: &Path, options: RecordOptions) -> Result<Self> {
        crate::store::make_dir(dir)?;
        let lock = StoreLock::open_with(
            &dir.join("containers.lock"),
            Access::ReadWrite,
            options.patience,
        )?;
        Ok(Self(Arc::new(Shared {
            dir: dir.to_owned(),
            run_dir: run_dir.to_owned(),
            durability: options.durability,
            lock,
            cache: Cache::new(table::files(dir)),
        })))
    }

    /// The directory of the records.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Locks the containers for reading.
    ///
    /// # Errors
    /// `Corrupt` names the file and place that cannot be understood; nothing is changed then.
    pub fn read<'held, B>(
        &self,
        held: &'held mut Held<'_, B>,
    ) -> Result<(ContainersRead<'held>, Held<'held, Containers>)>
    where
        B: Before<Containers>,
    {
        let (guard, held) = self.0.lock.read(held)?;
        let table = self.0.current(&guard)?;
        let view = self.view(table);
        let read = ContainersRead {
            view,
            _guard: guard,
        };
        Ok((read, held))
    }

    /// Locks the containers for changes.
    ///
    /// # Errors
    /// As [`ContainerStore::read`].
    pub fn write<'held, B>(
        &self,
        held: &'held mut Held<'_, B>,
    ) -> Result<(ContainersWrite<'held>, Held<'held, Containers>)>
    where
        B: Before<Containers>,
    {
        let (guard, held) = self.0.lock.write(held)?;
        let table = self.0.current(&guard)?;
        let token = guard.token()?;
        self.0.cache.forget();
        let view = self.view(table);
        let write = ContainersWrite {
            view,
            guard,
            token,
            stale: false,
        };
        Ok((write, held))
    }

    fn view(&self, table: Arc<Table<Container>>) -> ContainersView {
        ContainersView {
            shared: Arc::clone(&self.0),
            table,
        }
    }
}

impl Shared {
    fn current(&self, guard: &ReadGuard<'_, Containers>) -> Result<Arc<Table<Container>>> {
        self.cache
            .current(guard, || table::load(&self.dir, self.durability))
    }
}

/// The error for a container that is not found; candidates belong to an ambiguous prefix.
pub(super) fn unknown(what: &str, candidates: &[String]) -> Error {
    let error = Error::new(ErrorKind::ContainerUnknown, "container not known").subject(what);
    crate::store::with_candidates(error, what, candidates)
}

impl ContainersView {
    /// All containers in order of creation.
    pub fn list(&self) -> impl Iterator<Item = &Container> {
        self.table.iter()
    }

    /// A container by id, name, id of its layer, or unique id prefix.
    ///
    /// # Errors
    /// `ContainerUnknown`, with candidates in the hint when a prefix is ambiguous.
    pub fn get(&self, what: &str) -> Result<&Container> {
        match self.table.lookup(what) {
            Lookup::Found(container) => Ok(container),
            Lookup::Ambiguous(candidates) => Err(unknown(what, &candidates)),
            Lookup::Missing => Err(unknown(what, &[])),
        }
    }

    /// A container by id, name, id of its layer, or unique id prefix.
    pub fn find(&self, what: &str) -> Option<&Container> {
        self.get(what).ok()
    }

    /// The container that has the layer, by the layer's id.
    pub fn by_layer(&self, layer: &str) -> Option<&Container> {
        self.table.by_alias(layer)
    }

    /// The first container made from the image, by the image's id.
    pub fn by_image(&self, image: &str) -> Option<&Container> {
        self.list()
            .find(|container| container.image.as_deref() == Some(image))
    }

    /// A big data item.
    ///
    /// # Errors
    /// `ContainerUnknown`, `BigDataMissing`, `InvalidBigDataName`.
    pub fn big_data(&self, what: &str, key: &str) -> Result<Vec<u8>> {
        if key.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidBigDataName,
                "can't retrieve container big data with empty name: not a valid name for a big \
                 data item",
            ));
        }
        let container = self.get(what)?;
        let dir = crate::store::record_dir(&self.shared.dir, &container.id)?;
        big_data::read(&dir, key)?.ok_or_else(|| {
            let file = dir.join(big_data::file_name(key));
            Error::new(
                ErrorKind::BigDataMissing,
                format!("open {}: no such file or directory", file.display()),
            )
            .subject(key)
        })
    }

    /// The size of a big data item; of the file, when it is not recorded.
    ///
    /// # Errors
    /// `ContainerUnknown`, `SizeUnknown`.
    pub fn big_data_size(&self, what: &str, key: &str) -> Result<u64> {
        let recorded = self.get(what)?.big_data_sizes.get(key);
        let read = || self.big_data(what, key).ok().map(|data| data.len() as u64);
        recorded
            .and_then(|size| u64::try_from(*size).ok())
            .or_else(read)
            .ok_or_else(|| Error::new(ErrorKind::SizeUnknown, "size is not known").subject(key))
    }

    /// The digest of a big data item; of the file, when it is not recorded.
    ///
    /// # Errors
    /// `ContainerUnknown`, `DigestUnknown`.
    pub fn big_data_digest(&self, what: &str, key: &str) -> Result<Digest> {
        let recorded = self.get(what)?.big_data_digests.get(key).cloned();
        let read = || {
            let data = self.big_data(what, key).ok()?;
            Some(Digest::sha256(&data))
        };
        recorded.or_else(read).ok_or_else(|| {
            Error::new(ErrorKind::DigestUnknown, "could not compute digest of item").subject(key)
        })
    }
}

impl ContainersWrite<'_> {
    /// The records, to be changed and then saved.
    pub(super) fn edit(&mut self) -> Result<&mut Table<Container>> {
        if self.stale {
            self.view.table = Arc::new(table::load(
                &self.view.shared.dir,
                self.view.shared.durability,
            )?);
            self.stale = false;
        }
        Ok(Arc::make_mut(&mut self.view.table))
    }

    /// Saves what was changed.
    pub(super) fn commit(&mut self) -> Result<()> {
        self.stale = true;
        let table = Arc::make_mut(&mut self.view.table);
        let ((), token) = self.guard.publish(|| table.save())?;
        self.token = token;
        self.stale = false;
        Ok(())
    }
}

impl Drop for ContainersWrite<'_> {
    fn drop(&mut self) {
        if !self.stale && !self.view.table.is_changed() {
            let table = Arc::clone(&self.view.table);
            self.view.shared.cache.keep(self.token.clone(), table);
        }
    }
}

impl Deref for ContainersRead<'_> {
    type Target = ContainersView;

    fn deref(&self) -> &Self::Target {
        &self.view
    }
}

impl Deref for ContainersWrite<'_> {
    type Target = ContainersView;

    fn deref(&self) -> &Self::Target {
        &self.view
    }
}

impl fmt::Debug for ContainerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContainerStore({})", self.0.dir.display())
    }
}

impl fmt::Debug for ContainersView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ContainersView")
            .field("dir", &self.shared.dir)
            .field("containers", &self.table.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ContainersRead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view.fmt(f)
    }
}

impl fmt::Debug for ContainersWrite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view.fmt(f)
    }
}
