// SPDX-License-Identifier: Apache-2.0
//! What a layer store is opened with.

use std::{
    fmt, fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use plywood_plugin_sdk::{LayerId, toolkit::layer_store::DEFAULT_TIMEOUT};

use super::state::{Loaded, State};
use crate::{
    Error, ErrorKind, IoContext, Result,
    durable::Durability,
    locking::{
        Access, Patience, StoreLock,
        order::{Layers, RoLayers, Unordered},
    },
    plugin::DriverHandle,
};

/// What a layer store is opened with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerStoreOptions {
    /// `GRAPHROOT/D-layers`.
    pub dir: PathBuf,
    /// `RUNROOT/D-layers`.
    pub run_dir: PathBuf,
    /// The driver; without it records can be read and changed, but no layer be made, removed,
    /// mounted or read.
    pub driver: Option<DriverHandle>,
    /// The layer directories of other stores, opened read-only, whose layers can be parents.
    pub read_only_stores: Vec<PathBuf>,
    /// What a finished operation survives.
    pub durability: Durability,
    /// How long locks are waited for.
    pub patience: Patience,
    /// How long layer sources are waited for.
    pub source_timeout: Duration,
}

impl LayerStoreOptions {
    /// A store without driver and read-only stores.
    pub fn new(dir: impl Into<PathBuf>, run_dir: impl Into<PathBuf>) -> Self {
        Self {
            dir: dir.into(),
            run_dir: run_dir.into(),
            driver: None,
            read_only_stores: Vec::new(),
            durability: Durability::Full,
            patience: Patience::default(),
            source_timeout: DEFAULT_TIMEOUT,
        }
    }
}

/// The layers of a store; cheap to clone, and all clones share what they have read.
///
/// # Locking
/// [`LayerStore::read`] and [`LayerStore::write`] take the layers lock (and read locks on the
/// read-only stores) until their guard is dropped. [`LayerStore::put`], [`LayerStore::apply`],
/// [`LayerStore::diff`] and other methods of this type take it themselves, for short times.
#[derive(Clone)]
pub struct LayerStore(pub(super) Arc<Shared>);

pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) driver: Option<DriverHandle>,
    pub(super) durability: Durability,
    pub(super) source_timeout: Duration,
    pub(super) lock: Arc<StoreLock<Layers>>,
    /// Held inside single methods only and never around another lock, which keeps it innermost.
    pub(super) mounts_lock: Arc<StoreLock<Unordered>>,
    pub(super) mounts_path: PathBuf,
    pub(super) state: Mutex<State>,
    pub(super) read_only: Vec<ReadOnlyStore>,
}

pub(super) struct ReadOnlyStore {
    pub(super) dir: PathBuf,
    pub(super) lock: Arc<StoreLock<RoLayers>>,
    pub(super) state: Mutex<Option<Loaded>>,
}

impl LayerStore {
    /// Opens the layers of a store, making its directories when they are missing.
    ///
    /// # Behavior
    /// - Nothing is read yet: damaged records are reported by what needs them.
    /// - A read-only store whose lock file can be neither opened nor made is left out, with a
    ///   warning.
    ///
    /// # Errors
    /// What making the directories or the lock files reports.
    pub fn open(options: LayerStoreOptions) -> Result<Self> {
        make_dir(&options.dir)?;
        make_dir(&options.run_dir)?;
        let lock = StoreLock::open_with(
            &options.dir.join("layers.lock"),
            Access::ReadWrite,
            options.patience,
        )?;
        let mounts_lock = StoreLock::open_with(
            &options.run_dir.join("mountpoints.lock"),
            Access::ReadWrite,
            options.patience,
        )?;
        let mut read_only = Vec::with_capacity(options.read_only_stores.len());
        for dir in options.read_only_stores {
            match StoreLock::open_with(&dir.join("layers.lock"), Access::ReadOnly, options.patience)
            {
                Ok(lock) => read_only.push(ReadOnlyStore {
                    dir,
                    lock,
                    state: Mutex::default(),
                }),
                Err(error) if error.kind() == ErrorKind::ReadOnlyFilesystem => {
                    tracing::warn!(
                        store = %dir.display(), ?error,
                        "a read-only store is left out: it cannot be locked"
                    );
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self(Arc::new(Shared {
            mounts_path: options.run_dir.join("mountpoints.json"),
            dir: options.dir,
            driver: options.driver,
            durability: options.durability,
            source_timeout: options.source_timeout,
            lock,
            mounts_lock,
            state: Mutex::default(),
            read_only,
        })))
    }

    /// The directory of the records.
    pub fn dir(&self) -> &Path {
        &self.0.dir
    }

    /// The driver, when there is one.
    pub fn driver(&self) -> Option<&DriverHandle> {
        self.0.driver.as_ref()
    }
}

impl fmt::Debug for LayerStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LayerStore")
            .field("dir", &self.0.dir)
            .finish_non_exhaustive()
    }
}

impl Shared {
    /// The driver, or why it cannot be done.
    pub(super) fn driver(&self) -> Result<&DriverHandle> {
        self.driver.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::DriverUnavailable,
                "this needs the store's driver, which is not available",
            )
            .hint("install the driver's plugin; `plywood driver list` shows where it is searched")
        })
    }

    /// Locks the state; a thread that panicked while it held it left it as it was before.
    pub(super) fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The tar-split record of a layer, wherever the layer is.
    pub(super) fn tar_split(dir: &Path, id: &LayerId) -> PathBuf {
        dir.join(format!("{id}.tar-split.gz"))
    }

    /// The directory of a layer's big data.
    pub(super) fn data_dir(dir: &Path, id: &LayerId) -> PathBuf {
        dir.join(id.as_str())
    }

    /// Where additions and removals are made.
    pub(super) fn tmp(&self) -> PathBuf {
        self.dir.join("tmp")
    }
}

/// Whether the files of a layer with that id would be files of the store itself, or of another
/// layer. Other programs' records may have such ids; their files are never touched.
pub(super) fn is_reserved(id: &str) -> bool {
    const OWN: [&str; 4] = ["tmp", "layers.lock", "layers.json", "volatile-layers.json"];
    OWN.contains(&id) || id.ends_with(".tar-split.gz")
}

/// The id as drivers take it.
///
/// # Errors
/// `InvalidArgument` for ids that only other programs' records have.
pub(super) fn driver_id(id: &str) -> Result<LayerId> {
    LayerId::new(id)
        .map_err(|error| Error::new(ErrorKind::InvalidArgument, error.to_string()).subject(id))
}

fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .at("cannot create directory", path)
}
