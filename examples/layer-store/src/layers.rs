// SPDX-License-Identifier: Apache-2.0
//! The folder of layers on disk: `DIGEST/{diff,info,blob}`.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use plywood::{
    Digest,
    archive::import::{self, ImportOptions, Imported},
    layers::Layer,
    sdk::{IdMaps, UnpackTarget, WhiteoutForm},
};

/// A folder of layers.
#[derive(Debug)]
pub(crate) struct Layers(PathBuf);

impl Layers {
    /// The folder at `path`, made when it is missing.
    pub(crate) fn at(path: &Path) -> Result<Self> {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let path = path.canonicalize();
        Ok(Self(path.context("cannot resolve the folder of layers")?))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// The directory of the layer that is looked up with `digest`, if there is one.
    pub(crate) fn find(&self, digest: &str) -> Option<PathBuf> {
        let digest: Digest = digest.parse().ok()?;
        let path = self.0.join(digest.as_str());
        path.is_dir().then_some(path)
    }

    /// The digests of all layers, sorted.
    pub(crate) fn list(&self) -> io::Result<Vec<String>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let name = entry?.file_name();
            let name = name.to_str().filter(|name| self.find(name).is_some());
            found.extend(name.map(str::to_owned));
        }
        found.sort();
        Ok(found)
    }

    /// Unpacks the stream in `file`; returns the digest that its layer is looked up with.
    ///
    /// The layer appears whole or not at all.
    pub(crate) fn add(&self, file: &Path) -> Result<Digest> {
        let shown = file.display();
        let place = tempfile::Builder::new()
            .prefix(".adding-")
            .tempdir_in(&self.0)?;
        let diff = place.path().join("diff");
        fs::create_dir(&diff)?;
        let stream = File::open(file).with_context(|| format!("cannot open {shown}"))?;
        let mut target = UnpackTarget::tree(&diff);
        // Overlay mounts it as it is.
        target.whiteouts = WhiteoutForm::Overlay;
        target.fresh = true;
        let maps = IdMaps::default();
        let options = ImportOptions::new(&target, &maps);
        let imported = import::import(stream, &options, io::sink())
            .with_context(|| format!("cannot unpack {shown}"))?;
        let digest = imported.compressed_digest.clone();
        if self.find(digest.as_str()).is_some() {
            bail!("{digest} is there already");
        }
        fs::copy(file, place.path().join("blob"))?;
        let info = serde_json::to_vec(&record(imported))?;
        fs::write(place.path().join("info"), info)?;
        rustix::fs::syncfs(File::open(place.path())?)?;
        let place = place.keep();
        fs::rename(&place, self.0.join(digest.as_str())).or_else(|error| {
            fs::remove_dir_all(&place)?;
            Err(error)
        })?;
        Ok(digest)
    }
}

/// What a store records of the layer; it adds id, parent and names.
fn record(imported: Imported) -> Layer {
    let size = |bytes: u64| i64::try_from(bytes).ok();
    let mut layer = Layer::default();
    layer.compressed_digest = Some(imported.compressed_digest);
    layer.compressed_size = size(imported.compressed_size);
    layer.diff_digest = Some(imported.diff_digest);
    layer.diff_size = size(imported.diff_size);
    layer.compression_number = imported.compression.number();
    layer.uids = imported.uids;
    layer.gids = imported.gids;
    layer
}
