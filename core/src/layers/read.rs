// SPDX-License-Identifier: Apache-2.0
//! Questions that the records answer.

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::Path,
};

use super::{
    access::LayersView,
    options::{Shared, driver_id},
    record::Layer,
    state::{DigestKind, LayerTable},
};
use crate::{Digest, Error, ErrorKind, Result, big_data, records::Lookup};

/// A layer and where its files beside the record are.
#[derive(Clone, Copy)]
pub(super) struct Found<'a> {
    pub(super) layer: &'a Layer,
    /// The directory of the records that it is in.
    pub(super) dir: &'a Path,
    pub(super) read_only: bool,
}

impl Found<'_> {
    pub(super) fn to_layer(self) -> Layer {
        let mut layer = self.layer.clone();
        layer.read_only = self.read_only;
        layer
    }
}

impl LayersView<'_> {
    /// The store's own layers in order of creation, as they are recorded (without mounts).
    pub fn iter(&self) -> impl Iterator<Item = &Layer> {
        self.table.iter()
    }

    /// The record of one of the store's own layers, by its id.
    pub(crate) fn own_record(&self, id: &str) -> Option<&Layer> {
        self.table.get(id)
    }

    /// How many layers the store itself has.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the store itself has no layers.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// All layers in order of creation, then those of read-only stores.
    ///
    /// # Behavior
    /// - A layer that is in several stores is listed once.
    /// - When it cannot be read what is mounted, that is logged and left out.
    pub fn list(&self) -> Vec<Layer> {
        let mounts = self.shared.mounts_to_show();
        let mut layers: Vec<Layer> = self.table.iter().cloned().collect();
        for layer in &mut layers {
            mounts.note(layer);
        }
        for (number, store) in self.read_only.iter().enumerate() {
            let seen = |id: &str| {
                self.table.get(id).is_some()
                    || self.read_only[..number]
                        .iter()
                        .any(|s| s.table.get(id).is_some())
            };
            for layer in store.table.iter().filter(|layer| !seen(&layer.id)) {
                let mut layer = layer.clone();
                layer.read_only = true;
                mounts.note(&mut layer);
                layers.push(layer);
            }
        }
        layers
    }

    /// The layer with that id, name or unique id prefix.
    ///
    /// # Behavior
    /// - When it cannot be read what is mounted, that is logged and left out.
    ///
    /// # Errors
    /// `LayerUnknown`; for an ambiguous prefix the hint lists candidates.
    pub fn get(&self, what: &str) -> Result<Layer> {
        let mut layer = self.find(what)?.to_layer();
        self.shared.mounts_to_show().note(&mut layer);
        Ok(layer)
    }

    /// The full id of the layer with that id, name or unique id prefix.
    ///
    /// # Errors
    /// As [`LayersView::get`].
    pub fn lookup(&self, what: &str) -> Result<String> {
        Ok(self.find(what)?.layer.id.clone())
    }

    /// Whether there is a layer with that id, name or unique id prefix.
    pub fn exists(&self, what: &str) -> bool {
        self.find(what).is_ok()
    }

    /// The ids of the layers that stand directly on the layer with that id.
    pub fn children(&self, id: &str) -> Vec<String> {
        self.table.children(id).to_vec()
    }

    /// The layer and those below it, nearest first.
    ///
    /// # Errors
    /// `LayerUnknown` for the layer itself; `Corrupt` when one below it is missing or comes again.
    pub fn chain(&self, what: &str) -> Result<Vec<Layer>> {
        let mut chain = vec![self.find(what)?.to_layer()];
        let mut seen = HashSet::from([chain[0].id.clone()]);
        while let Some(parent) = chain.last().and_then(|layer| layer.parent.clone()) {
            let damaged = |why: &str| {
                Error::new(
                    ErrorKind::Corrupt,
                    format!(
                        "layer `{}` stands on layer `{parent}`, which {why}",
                        chain[0].id
                    ),
                )
                .subject(&*parent)
            };
            if !seen.insert(parent.clone()) {
                return Err(damaged("stands on it in turn"));
            }
            match self.find_exact(&parent) {
                Some(found) => chain.push(found.to_layer()),
                None => return Err(damaged("is missing")),
            }
        }
        Ok(chain)
    }

    /// The layers filled from a stream with that digest.
    pub fn by_compressed_digest(&self, digest: &Digest) -> Vec<Layer> {
        self.by_digest(DigestKind::Compressed, digest)
    }

    /// The layers whose uncompressed stream has that digest.
    pub fn by_diff_digest(&self, digest: &Digest) -> Vec<Layer> {
        self.by_digest(DigestKind::Diff, digest)
    }

    /// The layers whose chunked stream's table of contents has that digest.
    pub fn by_toc_digest(&self, digest: &Digest) -> Vec<Layer> {
        self.by_digest(DigestKind::Toc, digest)
    }

    fn by_digest(&self, kind: DigestKind, digest: &Digest) -> Vec<Layer> {
        let of = |table: &LayerTable, read_only: bool| -> Vec<Layer> {
            let ids = table.by_digest(kind, digest).iter();
            ids.filter_map(|id| table.get(id))
                .map(|layer| Layer {
                    read_only,
                    ..layer.clone()
                })
                .collect()
        };
        let mut layers = of(&self.table, false);
        for store in &self.read_only {
            for layer in of(&store.table, true) {
                if !layers.iter().any(|other| other.id == layer.id) {
                    layers.push(layer);
                }
            }
        }
        layers
    }

    /// The recorded size of the layer's uncompressed stream; -1 when it is not known.
    ///
    /// # Errors
    /// As [`LayersView::get`].
    pub fn size(&self, what: &str) -> Result<i64> {
        Ok(self.find(what)?.layer.recorded_size())
    }

    /// The layer's names.
    ///
    /// # Errors
    /// As [`LayersView::get`].
    pub fn names(&self, what: &str) -> Result<Vec<String>> {
        Ok(self.find(what)?.layer.names.clone())
    }

    /// The layer's metadata.
    ///
    /// # Errors
    /// As [`LayersView::get`].
    pub fn metadata(&self, what: &str) -> Result<String> {
        Ok(self.find(what)?.layer.metadata.clone())
    }

    /// The keys of the layer's big data items.
    ///
    /// # Errors
    /// As [`LayersView::get`].
    pub fn big_data_names(&self, what: &str) -> Result<Vec<String>> {
        Ok(self.find(what)?.layer.big_data_names.clone())
    }

    /// A big data item of the layer, to be read; it stays as it is when the item is replaced.
    ///
    /// # Errors
    /// `BigDataMissing` when there is no such item, `InvalidBigDataName` for an unusable key.
    pub fn big_data(&self, what: &str, key: &str) -> Result<File> {
        let found = self.find(what)?;
        let path = big_data::path(
            &Shared::data_dir(found.dir, &driver_id(&found.layer.id)?),
            key,
        )?;
        match File::open(&path) {
            Ok(file) => Ok(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::new(
                ErrorKind::BigDataMissing,
                format!(
                    "locating item named \"{key}\" for layer with ID \"{}\": file does not exist",
                    found.layer.id
                ),
            )
            .subject(key)),
            Err(error) => Err(Error::io("cannot read", &path, error)),
        }
    }

    /// How often the layer is mounted.
    ///
    /// # Errors
    /// As [`LayersView::get`], and `Corrupt` when it cannot be read what is mounted.
    pub fn mounted(&self, what: &str) -> Result<u32> {
        let mut layer = self.find(what)?.to_layer();
        self.shared.mounts()?.note(&mut layer);
        Ok(layer.mount_count)
    }

    /// Whether the layer's original stream can be rebuilt.
    ///
    /// # Errors
    /// As [`LayersView::get`].
    pub fn has_tar_split(&self, what: &str) -> Result<bool> {
        let found = self.find(what)?;
        let path = Shared::tar_split(found.dir, &driver_id(&found.layer.id)?);
        fs::exists(&path).map_err(|error| Error::io("cannot inspect", &path, error))
    }

    /// The layer in the store itself, or else in a read-only one.
    pub(super) fn find(&self, what: &str) -> Result<Found<'_>> {
        let mut candidates = Vec::new();
        let tables = std::iter::once((&*self.table, &*self.shared.dir, false)).chain(
            self.read_only
                .iter()
                .map(|store| (&*store.table, &*store.dir, true)),
        );
        for (table, dir, read_only) in tables {
            match table.lookup(what) {
                Lookup::Found(layer) => {
                    return Ok(Found {
                        layer,
                        dir,
                        read_only,
                    });
                }
                Lookup::Ambiguous(ids) => candidates.extend(ids),
                Lookup::Missing => {}
            }
        }
        Err(unknown(what, &candidates))
    }

    /// The layer with exactly that id.
    pub(super) fn find_exact(&self, id: &str) -> Option<Found<'_>> {
        let own = self.table.get(id).map(|layer| Found {
            layer,
            dir: &self.shared.dir,
            read_only: false,
        });
        own.or_else(|| {
            self.read_only.iter().find_map(|store| {
                store.table.get(id).map(|layer| Found {
                    layer,
                    dir: &store.dir,
                    read_only: true,
                })
            })
        })
    }

    /// The id of a layer that may be changed.
    pub(super) fn own(&self, what: &str, action: &str) -> Result<String> {
        let found = self.find(what)?;
        if !found.read_only {
            return Ok(found.layer.id.clone());
        }
        Err(Error::new(
            ErrorKind::StoreIsReadOnly,
            format!(
                "not allowed to {action} at \"{}\": called a write method on a read-only store",
                found.dir.display()
            ),
        )
        .subject(&*found.layer.id))
    }
}

/// No layer answers to `what`.
pub(super) fn unknown(what: &str, candidates: &[String]) -> Error {
    let error = Error::new(ErrorKind::LayerUnknown, "layer not known").subject(what);
    if candidates.is_empty() {
        return error;
    }
    let shown: Vec<&str> = candidates
        .iter()
        .map(|id| id.get(..what.len() + 12).unwrap_or(id))
        .collect();
    error.hint(format!(
        "`{what}` is the beginning of several ids: {}",
        shown.join(", ")
    ))
}
