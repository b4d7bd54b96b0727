// SPDX-License-Identifier: Apache-2.0
//! What this process has read of the records, and when that is out of date.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use super::{mounts::MountTable, record::Layer};
use crate::{
    Digest, Error, Result,
    durable::Durability,
    locking::Token,
    records::{Lookup, Table},
};

/// The names of the record files; a record found in both counts where it comes first.
const FILES: [&str; 2] = ["layers.json", "volatile-layers.json"];

/// New records go here, those of volatile layers too: containers/storage 1.43 knows no other file
/// and would remove the layers below a container that it cannot see.
pub(super) const STABLE: usize = 0;

/// The records of one directory with their indexes.
#[derive(Clone, Debug)]
pub(super) struct LayerTable {
    table: Table<Layer>,
    index: OnceLock<Index>,
    /// Loading found incomplete layers or repeated names, and no writer has tried to resolve that.
    pub(super) untidy: bool,
}

/// Made when it is first asked for, dropped when a record changes.
#[derive(Clone, Debug, Default)]
struct Index {
    compressed: HashMap<Digest, Vec<String>>,
    diff: HashMap<Digest, Vec<String>>,
    toc: HashMap<Digest, Vec<String>>,
    children: HashMap<String, Vec<String>>,
}

/// Which digest of a layer.
#[derive(Clone, Copy, Debug)]
pub(super) enum DigestKind {
    Compressed,
    Diff,
    Toc,
}

impl LayerTable {
    /// Reads the records in `dir`.
    pub(super) fn load(dir: &Path, durability: Durability) -> Result<Self> {
        let files = [
            (dir.join(FILES[0]), durability),
            (dir.join(FILES[1]), Durability::None),
        ];
        let table: Table<Layer> = Table::load(&files)?;
        Ok(Self {
            untidy: table.is_changed() || table.iter().any(Layer::is_incomplete),
            table,
            index: OnceLock::new(),
        })
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Layer> {
        self.table.iter()
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Layer> {
        self.table.get(id)
    }

    pub(super) fn by_name(&self, name: &str) -> Option<&Layer> {
        self.table.by_name(name)
    }

    pub(super) fn lookup(&self, what: &str) -> Lookup<'_, Layer> {
        self.table.lookup(what)
    }

    /// The ids of the layers with that digest, in order of creation.
    pub(super) fn by_digest(&self, kind: DigestKind, digest: &Digest) -> &[String] {
        let index = self.index();
        let ids = match kind {
            DigestKind::Compressed => index.compressed.get(digest),
            DigestKind::Diff => index.diff.get(digest),
            DigestKind::Toc => index.toc.get(digest),
        };
        ids.map_or(&[], Vec::as_slice)
    }

    /// The ids of the layers that stand on `id`.
    pub(super) fn children(&self, id: &str) -> &[String] {
        self.index().children.get(id).map_or(&[], Vec::as_slice)
    }

    fn index(&self) -> &Index {
        self.index.get_or_init(|| {
            let mut index = Index::default();
            for layer in self.table.iter() {
                for (map, digest) in [
                    (&mut index.compressed, &layer.compressed_digest),
                    (&mut index.diff, &layer.diff_digest),
                    (&mut index.toc, &layer.toc_digest),
                ] {
                    if let Some(digest) = digest {
                        map.entry(digest.clone())
                            .or_default()
                            .push(layer.id.clone());
                    }
                }
                if let Some(parent) = &layer.parent {
                    let children = index.children.entry(parent.clone()).or_default();
                    children.push(layer.id.clone());
                }
            }
            index
        })
    }

    /// Whether loading found names twice, which is resolved by saving.
    pub(super) fn is_changed(&self) -> bool {
        self.table.is_changed()
    }

    /// The ids of layers that another program left half made or half removed.
    pub(super) fn incomplete(&self) -> Vec<String> {
        self.table
            .iter()
            .filter(|layer| layer.is_incomplete())
            .map(|layer| layer.id.clone())
            .collect()
    }

    /// The records, to be changed.
    pub(super) fn records(&mut self) -> &mut Table<Layer> {
        self.index = OnceLock::new();
        &mut self.table
    }
}

/// Which versions of the record files there are: time, inode and size of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamps([Option<(i64, i64, u64, u64)>; 2]);

impl Stamps {
    /// What is there now.
    ///
    /// The time alone does not tell two versions apart that were made within one tick of the clock.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut stamps = Self::default();
        for (stamp, name) in stamps.0.iter_mut().zip(FILES) {
            let path = dir.join(name);
            *stamp = match fs::metadata(&path) {
                Ok(found) => Some((found.mtime(), found.mtime_nsec(), found.ino(), found.size())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(Error::io("cannot inspect", &path, error)),
            };
        }
        Ok(stamps)
    }
}

/// Records as they were read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) table: Arc<LayerTable>,
    pub(super) token: Token,
    pub(super) stamps: Stamps,
}

impl Loaded {
    /// Reads the records; the lock on them is held.
    pub(super) fn load(dir: &Path, token: Token, durability: Durability) -> Result<Self> {
        // Before the records: a file replaced by hand in between is then read again.
        let stamps = Stamps::read(dir)?;
        Ok(Self {
            table: Arc::new(LayerTable::load(dir, durability)?),
            token,
            stamps,
        })
    }

    /// Whether nobody has written since.
    pub(super) fn is_current(&self, dir: &Path, token: &Token) -> Result<bool> {
        Ok(self.token == *token && self.stamps == Stamps::read(dir)?)
    }
}

/// What all users of a layer store in this process share.
#[derive(Debug, Default)]
pub(super) struct State {
    /// `None` before the first reading, while somebody writes, and after a failed save.
    pub(super) records: Option<Loaded>,
    pub(super) mounts: Option<(Arc<MountTable>, Token)>,
    /// A writer of this process has looked for leftovers.
    pub(super) swept: bool,
    /// What has been reclaimed and not yet been asked for.
    pub(super) reclaimed: Vec<String>,
}

/// A read-only store's records at the moment.
#[derive(Debug)]
pub(super) struct RoTable {
    pub(super) dir: PathBuf,
    pub(super) table: Arc<LayerTable>,
}
