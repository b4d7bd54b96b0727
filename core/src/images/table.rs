// SPDX-License-Identifier: Apache-2.0
//! The records of one directory with their indexes.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use super::Image;
use crate::{
    Digest, Result,
    durable::Durability,
    records::{Record, Table},
};

/// Images and where to find them by digest and layer.
#[derive(Clone, Debug)]
pub(super) struct ImageTable {
    table: Table<Image>,
    /// Made when it is first asked for, dropped when a record changes.
    index: OnceLock<Index>,
}

#[derive(Clone, Debug, Default)]
struct Index {
    digests: HashMap<Digest, Vec<String>>,
    layers: HashMap<String, Vec<String>>,
}

impl ImageTable {
    pub(super) fn file(dir: &Path) -> PathBuf {
        dir.join("images.json")
    }

    pub(super) fn load(dir: &Path, durability: Durability) -> Result<Self> {
        Ok(Self {
            table: Table::load(&[(Self::file(dir), durability)])?,
            index: OnceLock::new(),
        })
    }

    pub(super) fn records(&self) -> &Table<Image> {
        &self.table
    }

    /// The records, to be changed.
    pub(super) fn records_mut(&mut self) -> &mut Table<Image> {
        self.index = OnceLock::new();
        &mut self.table
    }

    /// Images that are found by the digest, in order of creation.
    pub(super) fn by_digest(&self, digest: &Digest) -> impl Iterator<Item = &Image> {
        self.found(self.index().digests.get(digest))
    }

    /// Images whose top layer, or a mapped copy of it, is that one.
    pub(super) fn by_layer(&self, layer: &str) -> impl Iterator<Item = &Image> {
        self.found(self.index().layers.get(layer))
    }

    fn found<'a>(&'a self, ids: Option<&'a Vec<String>>) -> impl Iterator<Item = &'a Image> {
        ids.into_iter()
            .flatten()
            .filter_map(|id| self.table.get(id))
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let mut index = Index::default();
            for image in self.table.iter() {
                let add = |list: &mut Vec<String>| list.push(image.id().to_owned());
                for digest in &image.digests {
                    add(index.digests.entry(digest.clone()).or_default());
                }
                for layer in image.layers() {
                    add(index.layers.entry(layer.to_owned()).or_default());
                }
            }
            index
        })
    }
}
