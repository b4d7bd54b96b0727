// SPDX-License-Identifier: Apache-2.0
//! Making a layer from a tar stream.
//!
//! The stream is unpacked in a private place while no lock is held, and becomes a layer by renames.
//! A driver without staging unpacks into the layer itself, while the lock is held.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::Read,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicBool},
};

use plywood_plugin_sdk::{CreateRequest, IdMaps, LayerId, Staged, UnpackTarget};

use super::{
    access::{LayersView, LayersWrite},
    create::{Prepared, close},
    intent::Intent,
    looking::Looking,
    options::{LayerStore, Shared},
    record::{Layer, NewLayer},
};
use crate::{
    Digest, Error, ErrorKind, IoContext, Result,
    archive::{
        import::{self, ImportOptions, Imported},
        opaque_root,
    },
    durable::{self, Durability},
    locking::order::{Before, Held, Layers, RoLayers},
    plugin::DriverHandle,
    records::Timestamp,
};

/// A check of the caller's on a new layer, made whenever the layers lock is held on its behalf;
/// it gets the id of the parent.
pub type PutCheck<'a> =
    &'a dyn Fn(&LayersView<'_>, Option<&str>, &mut Held<'_, RoLayers>) -> Result<()>;

/// How a stream becomes a layer.
#[derive(Clone, Copy, Default)]
pub struct PutOptions<'a> {
    /// The number of uncompressed bytes that must not be exceeded.
    pub limit: Option<u64>,
    /// Gets the number of input bytes read so far, now and then.
    pub progress: Option<&'a (dyn Fn(u64) + Sync)>,
    /// Stops the work soon after it becomes true.
    pub cancel: Option<&'a AtomicBool>,
    /// The digest that the uncompressed stream must have.
    pub expected_diff: Option<&'a Digest>,
    /// The digest that the stream must have as it comes.
    pub expected_compressed: Option<&'a Digest>,
    /// What else must hold for the new layer.
    pub check: Option<PutCheck<'a>>,
}

impl fmt::Debug for PutOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutOptions")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl PutOptions<'_> {
    pub(super) fn check(
        &self,
        view: &LayersView<'_>,
        new: &NewLayer,
        held: &mut Held<'_, RoLayers>,
    ) -> Result<()> {
        let Some(check) = self.check else {
            return Ok(());
        };
        let parent = new
            .parent
            .as_deref()
            .map(|parent| view.lookup(parent))
            .transpose()?;
        check(view, parent.as_deref(), held)
    }

    pub(super) fn import<R: Read + Send>(
        &self,
        reader: R,
        target: &UnpackTarget,
        id_maps: &IdMaps,
        tar_split: &TarSplit,
        below: impl FnOnce() -> Result<Vec<PathBuf>>,
    ) -> Result<Imported> {
        let options = ImportOptions {
            limit: self.limit,
            progress: self.progress,
            cancel: self.cancel,
            ..ImportOptions::new(target, id_maps)
        };
        let imported = import::import(reader, &options, &tar_split.file)?;
        opaque_root::spell_out(target, below)?;
        let other = |expected: Option<&Digest>, found: &Digest, what: &str| match expected {
            Some(expected) if expected != found => Err(Error::new(
                ErrorKind::InvalidDigest,
                format!("the stream {what} {found}, but {expected} was expected"),
            )
            .subject(expected.as_str())
            .hint("the file is damaged or was changed; get it again")),
            _ => Ok(()),
        };
        other(self.expected_diff, &imported.diff_digest, "unpacks to")?;
        other(self.expected_compressed, &imported.compressed_digest, "is")?;
        Ok(imported)
    }
}

impl LayerStore {
    /// Makes a layer and fills it from a tar stream, compressed or not; returns it and the bytes of
    /// the uncompressed stream.
    ///
    /// # Behavior
    /// - The layer appears whole or not at all.
    /// - Ids, names and parent are checked before the stream is read, and again when the layer
    ///   appears. The parent is the one that was found before.
    ///
    /// # Errors
    /// Those of [`LayersWrite::create`] and of [`import::import`]; `Busy` when the parent was removed
    /// and made again meanwhile.
    ///
    /// # Locking
    /// Takes the layers lock for the checks and for the end. While the stream is read no lock is
    /// held, unless the driver cannot stage.
    ///
    /// # Durability
    /// Content and tar-split record are on disk before the layer's record is written.
    pub fn put<R, B>(
        &self,
        held: &mut Held<'_, B>,
        new: &NewLayer,
        reader: R,
        options: PutOptions<'_>,
    ) -> Result<(Layer, u64)>
    where
        R: Read + Send,
        B: Before<Layers> + Before<RoLayers>,
    {
        if !self.0.driver()?.capabilities().staging {
            let (mut write, mut inner) = self.write(held)?;
            options.check(&write, new, &mut inner)?;
            return write.put_in_place(new, reader, &options);
        }
        // 1. Everything that can be refused is refused before the stream is read.
        let (new, request, basis) = {
            let (read, mut inner) = self.read(held)?;
            options.check(&read, new, &mut inner)?;
            let request = read.prepare(new)?.request;
            let basis = Basis::of(&read, &request);
            (pinned(new, &request), request, basis)
        };
        // 2. A private place that is found after a crash, and the content in it.
        let mut intent = Intent::begin(&self.0)?;
        intent.note(&request.id)?;
        let tar_split = TarSplit::create(&mut intent)?;
        step!("put.noted");
        let stage = Stage::begin(self.0.driver()?, &request)?;
        step!("put.staged");
        let target = &stage.staged.target;
        let mut looking = Looking::with(self.0.driver()?);
        let below = || looking.content_of(request.parent.as_ref());
        let imported = options.import(reader, target, &request.id_maps, &tar_split, below)?;
        step!("put.imported");
        // 3. The content is durable before anything refers to it.
        tar_split.sync(self.0.durability)?;
        stage.sync(self.0.durability)?;
        step!("put.synced");
        // 4. The checks again, then the layer appears.
        let (mut write, mut inner) = self.write(held)?;
        options.check(&write, &new, &mut inner)?;
        let mut prepared = write.prepare(&new)?;
        if prepared.request != request || Basis::of(&write, &prepared.request) != basis {
            return Err(replaced(&request));
        }
        fill(&mut prepared.record, &imported, &new);
        intent.take_files(&self.0, &prepared.id)?;
        stage.adopt(&prepared)?;
        step!("put.adopted");
        let layer = write.publish(prepared, tar_split)?;
        drop(write);
        close(intent);
        Ok((layer, imported.diff_size))
    }
}

impl LayersWrite<'_> {
    fn put_in_place<R: Read + Send>(
        &mut self,
        new: &NewLayer,
        reader: R,
        options: &PutOptions<'_>,
    ) -> Result<(Layer, u64)> {
        let mut prepared = self.prepare(new)?;
        let shared = Arc::clone(&self.shared);
        let mut intent = Intent::begin(&shared)?;
        intent.note(&prepared.id)?;
        intent.take_files(&shared, &prepared.id)?;
        let tar_split = TarSplit::create(&mut intent)?;
        step!("put.noted");
        shared.create_content(&prepared)?;
        step!("put.created");
        let filled = shared.fill_in_place(&prepared, reader, options, &tar_split);
        let imported = filled.inspect_err(|_| {
            shared.discard_unrecorded(&prepared.id);
        })?;
        fill(&mut prepared.record, &imported, new);
        let layer = self.publish(prepared, tar_split)?;
        close(intent);
        Ok((layer, imported.diff_size))
    }

    /// Puts the tar-split record in place and records the layer.
    fn publish(&mut self, prepared: Prepared, tar_split: TarSplit) -> Result<Layer> {
        let target = Shared::tar_split(&self.shared.dir, &prepared.id);
        if let Err(error) = tar_split.publish(&target, self.shared.durability) {
            self.shared.discard_unrecorded(&prepared.id);
            return Err(error);
        }
        step!("put.tar_split");
        self.record(prepared)
    }
}

impl Shared {
    /// Makes a layer's content durable, unless the driver does not offer that or is told not to.
    pub(super) fn sync_layer(&self, driver: &DriverHandle, id: &LayerId) -> Result<()> {
        if self.durability == Durability::Full && driver.capabilities().sync {
            return driver.sync(id);
        }
        Ok(())
    }

    fn fill_in_place<R: Read + Send>(
        &self,
        prepared: &Prepared,
        reader: R,
        options: &PutOptions<'_>,
        tar_split: &TarSplit,
    ) -> Result<Imported> {
        let (driver, id) = (self.driver()?, &prepared.id);
        let mut looking = Looking::with(driver);
        let target = looking.unpack_target(id)?;
        let request = &prepared.request;
        let below = || looking.content_of(request.parent.as_ref());
        let imported = options.import(reader, &target, &request.id_maps, tar_split, below)?;
        tar_split.sync(self.durability)?;
        step!("put.imported");
        self.sync_layer(driver, id)?;
        step!("put.synced");
        Ok(imported)
    }
}

/// Notes in a record what its stream was.
pub(super) fn fill(record: &mut Layer, imported: &Imported, new: &NewLayer) {
    let given = new
        .original_digest
        .as_ref()
        .filter(|digest| digest.algorithm() == "sha256");
    let size =
        |bytes: u64| Some(i64::try_from(bytes).unwrap_or(i64::MAX)).filter(|size| *size != 0);
    record.compressed_digest = given.or(Some(&imported.compressed_digest)).cloned();
    record.compressed_size = match (&new.original_digest, new.original_size) {
        (Some(_), Some(bytes)) => Some(bytes),
        _ => size(imported.compressed_size),
    };
    record.diff_digest = Some(imported.diff_digest.clone());
    record.diff_size = size(imported.diff_size);
    record.toc_digest.clone_from(&new.toc_digest);
    record.compression_number = imported.compression.number();
    record.uids.clone_from(&imported.uids);
    record.gids.clone_from(&imported.gids);
}

/// The same layer, made from the layers that the request names, whatever names and prefixes mean
/// when the stream has been read.
fn pinned(new: &NewLayer, request: &CreateRequest) -> NewLayer {
    let text = |id: &Option<LayerId>| id.as_ref().map(ToString::to_string);
    NewLayer {
        id: Some(request.id.to_string()),
        parent: text(&request.parent),
        template: text(&request.template),
        ..new.clone()
    }
}

/// When parent and template were made: a driver may have staged a copy of them, so others of the
/// same ids will not do.
#[derive(PartialEq)]
struct Basis([Option<Timestamp>; 2]);

impl Basis {
    fn of(view: &LayersView<'_>, request: &CreateRequest) -> Self {
        Self([&request.parent, &request.template].map(|id| {
            let found = view.find_exact(id.as_ref()?.as_str())?;
            Some(found.layer.created.clone())
        }))
    }
}

fn replaced(request: &CreateRequest) -> Error {
    let error = Error::new(
        ErrorKind::Busy,
        "what the layer is made from was replaced while its stream was read",
    )
    .hint("try again");
    match request.parent.as_ref().or(request.template.as_ref()) {
        Some(id) => error.subject(id.as_str()),
        None => error,
    }
}

/// A tar-split record that is being written in a private place.
#[derive(Debug)]
pub(super) struct TarSplit {
    pub(super) file: File,
    path: PathBuf,
}

impl TarSplit {
    pub(super) fn create(intent: &mut Intent) -> Result<Self> {
        let path = intent.place.addition();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .at("cannot create", &path)?;
        Ok(Self { file, path })
    }

    pub(super) fn sync(&self, durability: Durability) -> Result<()> {
        match durability {
            Durability::Full => self.file.sync_data().at("cannot synchronise", &self.path),
            Durability::None => Ok(()),
        }
    }

    pub(super) fn publish(self, target: &Path, durability: Durability) -> Result<()> {
        fs::rename(&self.path, target).at("cannot replace", target)?;
        match (durability, target.parent()) {
            (Durability::Full, Some(dir)) => durable::sync_dir(dir),
            _ => Ok(()),
        }
    }
}

/// A driver's private place, given up when it is dropped before it became a layer.
struct Stage<'a> {
    driver: &'a DriverHandle,
    staged: Staged,
    adopted: bool,
}

impl<'a> Stage<'a> {
    fn begin(driver: &'a DriverHandle, request: &CreateRequest) -> Result<Self> {
        Ok(Self {
            driver,
            staged: driver.stage(request)?,
            adopted: false,
        })
    }

    fn sync(&self, durability: Durability) -> Result<()> {
        if durability == Durability::Full && self.driver.capabilities().sync {
            return self.driver.sync_staged(&self.staged.token);
        }
        Ok(())
    }

    fn adopt(mut self, prepared: &Prepared) -> Result<()> {
        let (token, request) = (&self.staged.token, &prepared.request);
        match self.driver.adopt(token, request) {
            Err(error) if error.kind() == ErrorKind::DuplicateId => {
                tracing::warn!(layer = %request.id, "replacing a directory that has no record");
                self.driver.remove(&request.id)?;
                self.driver.adopt(token, request)?;
            }
            other => other?,
        }
        self.adopted = true;
        Ok(())
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if !self.adopted
            && let Err(error) = self.driver.discard(&self.staged.token)
        {
            tracing::warn!(?error, "what was staged stays until the next writer");
        }
    }
}
