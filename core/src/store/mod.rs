// SPDX-License-Identifier: Apache-2.0
//! The store: layers, images and containers behind one object.
//!
//! What is on disk, besides what the record stores and the driver (`D`) keep:
//!
//! ```text
//! GRAPHROOT/storage.lock     locked while the driver is opened, during mounts and shutdown; token
//!           userns.lock      locked while id maps are chosen
//! RUNROOT/D-locks/DIGEST     locks of callers
//! ```
//!
//! # Locking
//! Every method takes the locks it needs, in the order of [`locking::order`](crate::locking::order),
//! and gives them back before it returns. What is removed is deleted after that.

mod additional;
mod big_data;
mod containers;
mod delete;
mod directories;
mod images;
mod layers;
mod list;
mod mount;
mod names;
mod open;
mod options;
mod paths;
mod shutdown;
mod size;

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

pub use additional::AdditionalLayer;
pub use options::{DriverChoice, MountOptions, MultiListOptions, MultiListResult, ParentOwners};
pub(crate) use paths::{
    clear_leftovers, make_dir, orphans, record_dir, remove_orphan, remove_tree, with_candidates,
};

use crate::{
    Digest, Result,
    containers::ContainerStore,
    images::ImageStore,
    locking::{
        StoreLock,
        order::{Graph, Unordered},
    },
    plugin::{Registry, SourceHandle},
};
pub use crate::{
    archive::walk::Change,
    config::StoreOptions,
    containers::{Container, NewContainer},
    images::{BigDataItem, Image, NewImage},
    layers::{DiffOptions, Layer, NewLayer},
};

/// Computes the digest of a manifest from its bytes.
pub type ManifestDigest<'a> = &'a dyn Fn(&[u8]) -> Result<Digest>;

/// The lock of a digest.
pub type DigestLock = Arc<StoreLock<Unordered>>;

/// A store of layers, images and containers, shared with other processes.
///
/// # Behavior
/// - Texts that name an object are its id, one of its names, or a prefix of its id that no other
///   object of the kind has. Where several kinds are possible, layers are searched first, then
///   images, then containers.
/// - A store whose driver is missing can be listed and its metadata read; what needs the driver
///   says so.
/// - All methods may be called from any thread, several at a time.
pub struct Store {
    options: StoreOptions,
    choice: DriverChoice,
    graph_lock: Arc<StoreLock<Graph>>,
    live: Mutex<open::Live>,
    registry: Registry,
    sources: Mutex<Option<Vec<SourceHandle>>>,
    images: ImageStore,
    containers: ContainerStore,
}

impl Store {
    /// The directory for what a restart may forget.
    pub fn run_root(&self) -> &Path {
        &self.options.run_root
    }

    /// The directory for everything else.
    pub fn graph_root(&self) -> &Path {
        &self.options.graph_root
    }

    /// The separate store for image layers.
    pub fn image_store(&self) -> Option<&Path> {
        self.options.image_store.as_deref()
    }

    /// The driver's name, which is also its directory.
    pub fn driver_name(&self) -> &str {
        &self.choice.name
    }

    /// The driver options that the store was opened with.
    pub fn driver_options(&self) -> &[String] {
        &self.options.driver_options
    }

    /// Which driver is used, and why.
    pub fn driver_choice(&self) -> &DriverChoice {
        &self.choice
    }

    /// What the store was opened with.
    pub fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// The lock of a digest, for callers that must not do the same work twice.
    ///
    /// # Errors
    /// What making the lock file reports.
    pub fn digest_lock(&self, digest: &Digest) -> Result<DigestLock> {
        let dir = self.run_dir("locks");
        make_dir(&dir)?;
        let file = record_dir(&dir, digest.as_str())?;
        StoreLock::open(&file, crate::locking::Access::ReadWrite)
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("graph_root", &self.options.graph_root)
            .field("run_root", &self.options.run_root)
            .field("driver", &self.choice.name)
            .finish_non_exhaustive()
    }
}
