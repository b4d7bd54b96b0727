// SPDX-License-Identifier: Apache-2.0
//! Writes the tar stream of a layer's changes, or of a directory.

use std::{io::Write, path::Path};

use plywood_plugin_sdk::{DiffView, IdMaps};

use super::walk::{Change, DiffMaps};
use crate::{Error, ErrorKind, Result};

/// Writes what `view` shows as a tar stream; returns its bytes.
pub fn export(view: &DiffView, maps: &DiffMaps<'_>, out: &mut (dyn Write + Send)) -> Result<u64> {
    drop((view, maps.layer, out.flush()));
    Err(Error::new(ErrorKind::NotSupported, "not ready yet"))
}

/// Writes the given changes of `tree` as a tar stream; returns its bytes.
pub fn export_changes(
    tree: &Path,
    changes: &[Change],
    maps: &IdMaps,
    out: &mut (dyn Write + Send),
) -> Result<u64> {
    drop((tree, changes, maps, out.flush()));
    Err(Error::new(ErrorKind::NotSupported, "not ready yet"))
}

/// How [`pack_tree`] writes.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions<'a> {
    /// From the ids on the host to those in the stream.
    pub id_maps: &'a IdMaps,
    /// Every entry's owner, instead of that of its file.
    pub owner: Option<(u32, u32)>,
    /// Keep times to the nanosecond and all extended attributes: the stream is unpacked at once.
    pub exact: bool,
}

/// Writes `source`, a directory's content or a single file, as a tar stream; returns its bytes.
pub fn pack_tree(
    source: &Path,
    options: &PackOptions<'_>,
    out: &mut (dyn Write + Send),
) -> Result<u64> {
    drop((source, options, out.flush()));
    Err(Error::new(ErrorKind::NotSupported, "not ready yet"))
}
