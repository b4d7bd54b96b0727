// SPDX-License-Identifier: Apache-2.0
//! What a layer changes against its parent: a sorted list of paths and kinds, and its size.

use std::path::{Path, PathBuf};

use plywood_plugin_sdk::{ChangeKind, DiffView, IdMaps, NativeChange};

use crate::{Error, ErrorKind, Result};

/// One changed path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The path inside the layer, with a leading `/`.
    pub path: PathBuf,
    /// What happened.
    pub kind: ChangeKind,
}

/// Who owns the files of a layer and of its parent on the host.
#[derive(Clone, Copy, Debug)]
pub struct DiffMaps<'a> {
    /// The maps of the layer.
    pub layer: &'a IdMaps,
    /// The maps of its parent.
    pub parent: &'a IdMaps,
}

/// The changes that `view` shows, sorted, parents before their children.
pub fn changes(view: &DiffView, maps: &DiffMaps<'_>) -> Result<Vec<Change>> {
    let _ = (view, maps.layer, maps.parent);
    Err(Error::new(ErrorKind::NotSupported, "not ready yet"))
}

/// The changes of a driver's own list, checked against both trees.
pub fn changes_from_native(
    tree: &Path,
    parent: &Path,
    native: &[NativeChange],
    maps: &DiffMaps<'_>,
) -> Result<Vec<Change>> {
    let _ = (tree, parent, native, maps.layer);
    Err(Error::new(ErrorKind::NotSupported, "not ready yet"))
}

/// The bytes of what `view` adds or changes; each inode counts once.
pub fn diff_size(view: &DiffView, maps: &DiffMaps<'_>) -> Result<u64> {
    let _ = (view, maps.layer);
    Err(Error::new(ErrorKind::NotSupported, "not ready yet"))
}
