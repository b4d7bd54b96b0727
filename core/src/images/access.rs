// SPDX-License-Identifier: Apache-2.0
//! The image store: guards that hold its lock and see the records as they are.

use std::{
    fmt,
    ops::Deref,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Image, table::ImageTable};
use crate::{
    Digest, Error, ErrorKind, RecordOptions, Result, big_data,
    durable::Durability,
    locking::{
        Access, ReadGuard, StoreLock, Token, WriteGuard,
        order::{Before, Held, Images, RoImages},
    },
    records::{Cache, Lookup},
};

/// The images of a store; cheap to clone, and all clones share what they have read.
///
/// # Locking
/// [`ImageStore::read`] and [`ImageStore::write`] take the images lock, and read locks on the
/// read-only stores, until their guard is dropped.
#[derive(Clone)]
pub struct ImageStore(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) durability: Durability,
    lock: Arc<StoreLock<Images>>,
    cache: Cache<ImageTable>,
    read_only: Vec<ReadOnlyStore>,
}

struct ReadOnlyStore {
    dir: PathBuf,
    lock: Arc<StoreLock<RoImages>>,
    cache: Cache<ImageTable>,
}

/// The records of an image store, as they are while the lock is held.
///
/// Images of read-only stores are found after the store's own.
pub struct ImagesView<'held> {
    pub(super) shared: Arc<Shared>,
    pub(super) table: Arc<ImageTable>,
    read_only: Vec<(PathBuf, Arc<ImageTable>)>,
    _read_only_guards: Vec<ReadGuard<'held, RoImages>>,
}

/// The records, locked for reading.
///
/// # Locking
/// Until it is dropped nobody, in any process, changes images.
#[must_use = "the lock is given back when this is dropped"]
pub struct ImagesRead<'held> {
    view: ImagesView<'held>,
    _guard: ReadGuard<'held, Images>,
}

/// The records, locked for changes.
///
/// # Behavior
/// - After a failed save the records are read anew before anything else is done with them.
///
/// # Locking
/// Until it is dropped nobody else, in any process, reads or changes images.
#[must_use = "the lock is given back when this is dropped"]
pub struct ImagesWrite<'held> {
    pub(super) view: ImagesView<'held>,
    guard: WriteGuard<'held, Images>,
    token: Token,
    /// The records in memory may differ from those on disk.
    stale: bool,
}

impl ImageStore {
    /// Opens the images in `dir` (`GRAPHROOT/D-images`), and those of read-only stores.
    ///
    /// # Behavior
    /// - Nothing is read yet: damaged records are reported by what needs them.
    /// - A read-only store whose lock file can be neither opened nor made is left out, with a
    ///   warning.
    ///
    /// # Errors
    /// What making the directory or the lock files reports.
    pub fn open(dir: &Path, read_only_dirs: &[PathBuf], options: RecordOptions) -> Result<Self> {
        crate::store::make_dir(dir)?;
        let lock = StoreLock::open_with(
            &dir.join("images.lock"),
            Access::ReadWrite,
            options.patience,
        )?;
        let mut read_only = Vec::with_capacity(read_only_dirs.len());
        for dir in read_only_dirs {
            match StoreLock::open_with(&dir.join("images.lock"), Access::ReadOnly, options.patience)
            {
                Ok(lock) => read_only.push(ReadOnlyStore {
                    dir: dir.clone(),
                    lock,
                    cache: Cache::new(vec![ImageTable::file(dir)]),
                }),
                Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                    tracing::warn!(
                        store = %dir.display(), ?error,
                        "a read-only image store is left out: it cannot be locked"
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self(Arc::new(Shared {
            dir: dir.to_owned(),
            durability: options.durability,
            lock,
            cache: Cache::new(vec![ImageTable::file(dir)]),
            read_only,
        })))
    }

    /// The directory of the records.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// Locks the images for reading.
    ///
    /// # Errors
    /// `Corrupt` names the file and place that cannot be understood; nothing is changed then.
    pub fn read<'held, B>(
        &self,
        held: &'held mut Held<'_, B>,
    ) -> Result<(ImagesRead<'held>, Held<'held, RoImages>)>
    where
        B: Before<Images>,
    {
        let (guard, held) = self.0.lock.read_owned(held.part())?;
        let table = self.0.current(&guard)?;
        let (view, held) = self.view(table, held)?;
        let read = ImagesRead {
            view,
            _guard: guard,
        };
        Ok((read, held))
    }

    /// Locks the images for changes.
    ///
    /// # Errors
    /// As [`ImageStore::read`].
    pub fn write<'held, B>(
        &self,
        held: &'held mut Held<'_, B>,
    ) -> Result<(ImagesWrite<'held>, Held<'held, RoImages>)>
    where
        B: Before<Images>,
    {
        let (guard, held) = self.0.lock.write_owned(held.part())?;
        let table = self.0.current(&guard)?;
        let token = guard.token()?;
        self.0.cache.forget();
        let (view, held) = self.view(table, held)?;
        let write = ImagesWrite {
            view,
            guard,
            token,
            stale: false,
        };
        Ok((write, held))
    }

    fn view<'held>(
        &self,
        table: Arc<ImageTable>,
        held: Held<'held, Images>,
    ) -> Result<(ImagesView<'held>, Held<'held, RoImages>)> {
        let mut held = held.deeper::<RoImages>();
        let mut read_only = Vec::with_capacity(self.0.read_only.len());
        let mut guards = Vec::with_capacity(self.0.read_only.len());
        for store in &self.0.read_only {
            let (guard, further) = store.lock.read_owned(held)?;
            held = further;
            let table = store
                .cache
                .current(&guard, || ImageTable::load(&store.dir, Durability::None))?;
            read_only.push((store.dir.clone(), table));
            guards.push(guard);
        }
        let view = ImagesView {
            shared: Arc::clone(&self.0),
            table,
            read_only,
            _read_only_guards: guards,
        };
        Ok((view, held))
    }
}

impl Shared {
    fn current(&self, guard: &ReadGuard<'_, Images>) -> Result<Arc<ImageTable>> {
        self.cache.current(guard, || self.load())
    }

    fn load(&self) -> Result<ImageTable> {
        ImageTable::load(&self.dir, self.durability)
    }
}

/// The error for an image that is not found; candidates belong to an ambiguous prefix.
pub(super) fn unknown(what: &str, candidates: &[String]) -> Error {
    let error = Error::new(
        ErrorKind::ImageUnknown,
        format!("locating image with ID {what:?}: image not known"),
    )
    .subject(what);
    crate::store::with_candidates(error, what, candidates)
}

impl ImagesView<'_> {
    /// All images, the store's own first, each in order of creation.
    pub fn list(&self) -> Vec<Image> {
        let own = self.table.records().iter().cloned();
        own.chain(self.read_only().cloned().map(read_only_copy))
            .collect()
    }

    /// The images that can be changed.
    pub fn own(&self) -> impl Iterator<Item = &Image> {
        self.table.records().iter()
    }

    fn read_only(&self) -> impl Iterator<Item = &Image> {
        self.read_only
            .iter()
            .flat_map(|(_, table)| table.records().iter())
    }

    /// An image by id, name or unique id prefix.
    ///
    /// # Errors
    /// `ImageUnknown`, with candidates in the hint when a prefix is ambiguous.
    pub fn get(&self, what: &str) -> Result<Image> {
        let (_, image, read_only) = self.locate(what)?;
        Ok(if read_only {
            read_only_copy(image.clone())
        } else {
            image.clone()
        })
    }

    /// An image that can be changed, by id, name or unique id prefix.
    pub fn find_own(&self, what: &str) -> Option<&Image> {
        match self.table.records().lookup(what) {
            Lookup::Found(image) => Some(image),
            Lookup::Ambiguous(_) | Lookup::Missing => None,
        }
    }

    /// An image by id, name or unique id prefix, wherever it is.
    pub fn find(&self, what: &str) -> Option<&Image> {
        self.locate(what).ok().map(|(_, image, _)| image)
    }

    /// The directory of the records, the image, and whether it is read-only.
    fn locate(&self, what: &str) -> Result<(&Path, &Image, bool)> {
        let mut candidates = Vec::new();
        let own = std::iter::once((self.shared.dir.as_path(), &self.table, false));
        let others = self
            .read_only
            .iter()
            .map(|(dir, table)| (dir.as_path(), table, true));
        for (dir, table, read_only) in own.chain(others) {
            match table.records().lookup(what) {
                Lookup::Found(image) => return Ok((dir, image, read_only)),
                Lookup::Ambiguous(ids) => candidates.extend(ids),
                Lookup::Missing => {}
            }
        }
        Err(unknown(what, &candidates))
    }

    /// Images that are found by the digest.
    pub fn by_digest(&self, digest: &Digest) -> Vec<Image> {
        let own = self.table.by_digest(digest).cloned();
        let others = self.read_only.iter();
        own.chain(
            others.flat_map(|(_, table)| table.by_digest(digest).cloned().map(read_only_copy)),
        )
        .collect()
    }

    /// Images whose top layer, or a mapped copy of it, is that one.
    pub fn by_layer(&self, layer: &str) -> Vec<Image> {
        let own = self.table.by_layer(layer).cloned();
        let others = self.read_only.iter();
        own.chain(others.flat_map(|(_, table)| table.by_layer(layer).cloned().map(read_only_copy)))
            .collect()
    }

    /// Images that can be changed whose top layer, or a mapped copy of it, is that one.
    pub(crate) fn own_by_layer(&self, layer: &str) -> impl Iterator<Item = &Image> {
        self.table.by_layer(layer)
    }

    /// Where the image's big data is; the id is that of a record.
    pub(crate) fn data_dir(&self, what: &str) -> Result<PathBuf> {
        let (dir, image, _) = self.locate(what)?;
        crate::store::record_dir(dir, &image.id)
    }

    /// A big data item.
    ///
    /// # Errors
    /// `ImageUnknown`, `BigDataMissing`, `InvalidBigDataName`.
    pub fn big_data(&self, what: &str, key: &str) -> Result<Vec<u8>> {
        if key.is_empty() {
            return Err(Error::new(
                ErrorKind::InvalidBigDataName,
                "can't retrieve image big data value for empty name: not a valid name for a big \
                 data item",
            ));
        }
        let dir = self.data_dir(what)?;
        big_data::read(&dir, key)?.ok_or_else(|| {
            Error::new(
                ErrorKind::BigDataMissing,
                format!(
                    "locating item named {key:?} for image with ID {what:?} (consider removing \
                     the image to resolve the issue): file does not exist"
                ),
            )
            .subject(key)
        })
    }

    /// The size of a big data item; of the file, when it is not recorded.
    ///
    /// # Errors
    /// `ImageUnknown`, `SizeUnknown`.
    pub fn big_data_size(&self, what: &str, key: &str) -> Result<u64> {
        let image = self.get(what)?;
        let recorded = image.big_data_sizes.get(key);
        let read = || self.big_data(what, key).ok().map(|data| data.len() as u64);
        recorded
            .and_then(|size| u64::try_from(*size).ok())
            .or_else(read)
            .ok_or_else(|| Error::new(ErrorKind::SizeUnknown, "size is not known").subject(key))
    }

    /// The recorded digest of a big data item.
    ///
    /// # Errors
    /// `ImageUnknown`, `DigestUnknown`.
    pub fn big_data_digest(&self, what: &str, key: &str) -> Result<Digest> {
        let image = self.get(what)?;
        image.big_data_digests.get(key).cloned().ok_or_else(|| {
            Error::new(ErrorKind::DigestUnknown, "could not compute digest of item").subject(key)
        })
    }
}

fn read_only_copy(mut image: Image) -> Image {
    image.read_only = true;
    image
}

impl ImagesWrite<'_> {
    /// The records, to be changed and then saved.
    pub(super) fn edit(&mut self) -> Result<&mut ImageTable> {
        if self.stale {
            self.view.table = Arc::new(self.view.shared.load()?);
            self.stale = false;
        }
        Ok(Arc::make_mut(&mut self.view.table))
    }

    /// Saves what was changed.
    pub(super) fn commit(&mut self) -> Result<()> {
        self.stale = true;
        let table = Arc::make_mut(&mut self.view.table).records_mut();
        let ((), token) = self.guard.publish(|| table.save())?;
        self.token = token;
        self.stale = false;
        Ok(())
    }
}

impl Drop for ImagesWrite<'_> {
    fn drop(&mut self) {
        if !self.stale && !self.view.table.records().is_changed() {
            let table = Arc::clone(&self.view.table);
            self.view.shared.cache.keep(self.token.clone(), table);
        }
    }
}

impl<'held> Deref for ImagesRead<'held> {
    type Target = ImagesView<'held>;

    fn deref(&self) -> &Self::Target {
        &self.view
    }
}

impl<'held> Deref for ImagesWrite<'held> {
    type Target = ImagesView<'held>;

    fn deref(&self) -> &Self::Target {
        &self.view
    }
}

impl fmt::Debug for ImageStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageStore({})", self.0.dir.display())
    }
}

impl fmt::Debug for ImagesView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImagesView")
            .field("dir", &self.shared.dir)
            .field("images", &self.table.records().len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ImagesRead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view.fmt(f)
    }
}

impl fmt::Debug for ImagesWrite<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view.fmt(f)
    }
}
