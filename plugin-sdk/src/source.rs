// SPDX-License-Identifier: Apache-2.0
//! The traits of a layer source: a plugin that has the content of layers ready in directories.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{OpenRequest, Result};

/// What a layer source is called and how it is opened; implemented by a unit type and exported with
/// [`export_layer_source!`](crate::export_layer_source).
pub trait SourcePlugin: Send + Sync + 'static {
    /// The source's name, in the grammar of [`Plugin::NAME`](crate::Plugin::NAME). The file is
    /// `libplywood_driver_NAME.so`; one file may hold a driver and a source, under one name.
    const NAME: &'static str;
    /// Who ships it.
    const VENDOR: &'static str;
    /// The source's own version.
    const VERSION: &'static str;

    /// Opens the source for a store.
    ///
    /// # Behavior
    /// - `request.home` and `request.run_dir` are one directory of the source's own in the store's run
    ///   root, which it makes if it needs it: in the graph root a directory means a driver.
    /// - `request.options` are those of all drivers and sources.
    /// - It answers within its time-out, whatever state what it draws from is in.
    ///
    /// # Errors
    /// Options that make no sense, and what is missing; with a remedy.
    fn open(request: OpenRequest) -> Result<Box<dyn LayerSource>>;
}

/// Gives ready directories for layers that are looked up by digest and image reference.
///
/// # Behavior
/// - Every method may be called from any thread, several at a time, and answers within the source's
///   time-out: what it draws from may hang at any moment.
/// - Core holds no lock of the store during a call.
pub trait LayerSource: Send + Sync {
    /// Pairs for people, for instance the directories that are searched.
    fn status(&self) -> Result<Vec<(String, String)>>;

    /// Finds a layer; `None` when the source does not have it.
    ///
    /// # Behavior
    /// - A layer that is found is in use until [`LayerSource::release`] is called with its
    ///   directory, once for each time it was found.
    fn lookup(&self, query: &LayerQuery) -> Result<Option<SourceLayer>>;

    /// Ends one use that [`LayerSource::lookup`] began.
    fn release(&self, directory: &Path) -> Result<()>;
}

/// What a layer is looked up by; at least one digest is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LayerQuery {
    /// The digest of the layer's stream, `ALGORITHM:HEX`.
    pub digest: Option<String>,
    /// The digest of the table of contents of the layer's stream; it is tried first.
    pub toc_digest: Option<String>,
    /// The reference of the image that the layer belongs to.
    pub reference: Option<String>,
}

/// A layer that a source has.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SourceLayer {
    /// The layer's directory. A driver that keeps a reference to the layer writes this path to
    /// disk, and its uses are counted by the protocol in `docs/layer-source.md`.
    pub directory: PathBuf,
    /// The layer's own files, with whiteouts in overlay's form.
    pub diff: PathBuf,
    /// The layer's record as JSON, in the form of the store's `layers.json`.
    pub info: Vec<u8>,
    /// The stream that the layer was made from, as it came; `None` when the source lacks it.
    pub blob: Option<PathBuf>,
    /// How long an answer of what serves these paths is waited for.
    pub timeout: Duration,
}

impl SourceLayer {
    /// The layer in `directory`, with its files in `diff`.
    pub fn new(directory: impl Into<PathBuf>, info: Vec<u8>, timeout: Duration) -> Self {
        let directory = directory.into();
        Self {
            diff: directory.join("diff"),
            directory,
            info,
            blob: None,
            timeout,
        }
    }
}

/// The content of a new layer, in a directory that a layer source gives.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExternalDirectory {
    /// The layer's directory in the source.
    pub directory: PathBuf,
    /// The layer's own files, with whiteouts in overlay's form.
    pub diff: PathBuf,
    /// How long an answer of what serves these paths is waited for.
    pub timeout: Duration,
}

impl ExternalDirectory {
    /// The content of `layer`.
    pub fn of(layer: &SourceLayer) -> Self {
        Self::new(&layer.directory, &layer.diff, layer.timeout)
    }

    /// The files in `diff` of the layer in `directory`.
    pub fn new(directory: impl Into<PathBuf>, diff: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self {
            directory: directory.into(),
            diff: diff.into(),
            timeout,
        }
    }
}

/// A layer source that is linked into the program, found by core through
/// [`inventory`](crate::inventory).
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedSource {
    /// The source's name.
    pub name: &'static str,
    /// Who ships it.
    pub vendor: &'static str,
    /// The source's own version.
    pub version: &'static str,
    /// Opens it.
    pub open: fn(OpenRequest) -> Result<Box<dyn LayerSource>>,
}

impl EmbeddedSource {
    /// The description of `S`.
    pub const fn of<S: SourcePlugin>() -> Self {
        Self {
            name: S::NAME,
            vendor: S::VENDOR,
            version: S::VERSION,
            open: S::open,
        }
    }
}

inventory::collect!(EmbeddedSource);

/// Links a layer source into the program that uses this macro, as
/// [`embed_driver!`](crate::embed_driver) does with a driver.
#[macro_export]
macro_rules! embed_layer_source {
    ($source:ty) => {
        $crate::inventory::submit! { $crate::EmbeddedSource::of::<$source>() }
    };
}
