// SPDX-License-Identifier: Apache-2.0
//! Reads a layer's stream once: digests, decompression, tar-split record and files.

use std::{
    fmt,
    io::{Read, Write},
    sync::atomic::AtomicBool,
};

use plywood_plugin_sdk::{IdMaps, UnpackTarget};

use super::Compression;
use crate::{Digest, Error, ErrorKind, Result};

/// Where and how a stream is unpacked.
#[derive(Clone, Copy)]
pub struct ImportOptions<'a> {
    /// The place, as the driver describes it.
    pub target: &'a UnpackTarget,
    /// From the ids in the stream to those on the host.
    pub id_maps: &'a IdMaps,
    /// The number of uncompressed bytes that must not be exceeded.
    pub limit: Option<u64>,
    /// Gets the number of input bytes read so far, now and then.
    pub progress: Option<&'a (dyn Fn(u64) + Sync)>,
    /// Stops the work soon after it becomes true.
    pub cancel: Option<&'a AtomicBool>,
}

impl<'a> ImportOptions<'a> {
    /// Options without limit, progress and cancellation.
    pub fn new(target: &'a UnpackTarget, id_maps: &'a IdMaps) -> Self {
        Self {
            target,
            id_maps,
            limit: None,
            progress: None,
            cancel: None,
        }
    }
}

impl fmt::Debug for ImportOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ImportOptions")
            .field("target", &self.target)
            .field("id_maps", &self.id_maps)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

/// What a layer's record says about its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The digest of the stream as it came.
    pub compressed_digest: Digest,
    /// Its bytes.
    pub compressed_size: u64,
    /// The digest of the decompressed stream.
    pub diff_digest: Digest,
    /// Its bytes.
    pub diff_size: u64,
    /// How the stream was compressed.
    pub compression: Compression,
    /// The user ids in the entries, before mapping, sorted.
    pub uids: Vec<u32>,
    /// The group ids in the entries, before mapping, sorted.
    pub gids: Vec<u32>,
}

/// Unpacks `reader` and writes its record, gzip-compressed, to `tar_split`.
///
/// # Behavior
/// - The whole input is read to its end; both digests cover all of it.
/// - An empty input is an empty layer.
/// - `tar_split` is neither flushed to disk nor closed; after an error it holds a partial record.
///
/// # Errors
/// [`ErrorKind::InvalidArchive`] for a stream that is not acceptable, with the entry as subject;
/// input and output failures with their path. What was unpacked so far stays.
pub fn import<R, W>(reader: R, options: &ImportOptions<'_>, tar_split: W) -> Result<Imported>
where
    R: Read + Send,
    W: Write + Send,
{
    drop((reader, tar_split));
    let _limit = options.limit;
    Err(Error::new(
        ErrorKind::NotSupported,
        "import is not ready yet",
    ))
}

/// Unpacks `reader` without digests and record; returns the number of uncompressed bytes.
///
/// # Errors
/// Those of [`import`].
pub fn unpack_plain<R: Read + Send>(reader: R, options: &ImportOptions<'_>) -> Result<u64> {
    drop(reader);
    let _limit = options.limit;
    Err(Error::new(
        ErrorKind::NotSupported,
        "unpacking is not ready yet",
    ))
}
