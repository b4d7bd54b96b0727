// SPDX-License-Identifier: Apache-2.0
//! Reads a layer's stream once: digests, decompression, tar-split record and files.
//!
//! ```text
//! thread 1   read, digest of the input, decompress -> chunks of 256 KiB
//! thread 2   digest of the chunks, tar-split record, checksums, files
//! ```

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Read, Write},
    sync::atomic::{AtomicBool, Ordering},
};

use plywood_plugin_sdk::{IdMaps, UnpackTarget};

use super::{
    Compression,
    error::ArchiveError,
    names,
    pipeline::{self, ChunkSource, Digests, Pumped},
    reader::{Entry, Piece, TarReader},
    unpack::{Content, Unpacker},
};
use crate::{
    Digest, Error, ErrorKind, Result,
    tar_split::{
        entry::Checksum,
        writer::{MAX_TRAILING_SEGMENT, RecordWriter},
    },
};

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

    /// Fails once the caller wants the work to stop.
    pub(super) fn check_cancelled(&self) -> Result<()> {
        match self.cancel {
            Some(flag) if flag.load(Ordering::Relaxed) => {
                Err(Error::new(ErrorKind::Cancelled, "cancelled"))
            }
            _ => Ok(()),
        }
    }

    /// Fails when `size` uncompressed bytes are too many.
    pub(super) fn check_limit(&self, size: u64) -> Result<()> {
        match self.limit {
            Some(limit) if size > limit => Err(ArchiveError::TooLarge { limit }.into()),
            _ => Ok(()),
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
/// - Another thread reads `reader`; after a failure the call returns once the read in progress has.
/// - `tar_split` is neither flushed to disk nor closed; after an error it holds a partial record.
///
/// # Errors
/// [`ErrorKind::InvalidArchive`] for a stream that is not acceptable, with the entry as subject;
/// [`ErrorKind::Cancelled`]; input and output failures with their path. What was unpacked so far
/// stays.
pub fn import<R, W>(reader: R, options: &ImportOptions<'_>, tar_split: W) -> Result<Imported>
where
    R: Read + Send,
    W: Write + Send,
{
    let record = RecordWriter::new(tar_split);
    let (pumped, unpacked) = pipeline::run(reader, options, Digests::Compute, |source| {
        Work::new(options, Some(record)).run(source)
    })?;
    let Pumped {
        compression,
        compressed_size,
        diff_size,
        compressed_digest,
        diff_digest,
    } = pumped;
    Ok(Imported {
        compressed_digest,
        diff_digest,
        compressed_size,
        diff_size,
        compression,
        uids: unpacked.uids.into_iter().collect(),
        gids: unpacked.gids.into_iter().collect(),
    })
}

/// Unpacks `reader` without digests and record; returns the number of uncompressed bytes.
///
/// # Errors
/// Those of [`import`], except that names may be used twice: the later entry counts.
pub fn unpack_plain<R: Read + Send>(reader: R, options: &ImportOptions<'_>) -> Result<u64> {
    let (pumped, _) = pipeline::run(reader, options, Digests::Skip, |source| {
        Work::<io::Sink>::new(options, None).run(source)
    })?;
    Ok(pumped.diff_size)
}

#[derive(Default)]
struct Owners {
    uids: BTreeSet<u32>,
    gids: BTreeSet<u32>,
}

impl Owners {
    /// Whiteouts do not count; ids beyond 32 bits are refused where they are used.
    fn add(&mut self, entry: &Entry) {
        if names::base(&entry.name).starts_with(b".wh.") {
            return;
        }
        self.uids.extend(u32::try_from(entry.uid));
        self.gids.extend(u32::try_from(entry.gid));
    }
}

/// What the second thread does.
struct Work<'a, W: Write> {
    options: &'a ImportOptions<'a>,
    record: Option<RecordWriter<W>>,
    owners: Owners,
    /// Bytes of holes, which are not in the stream.
    holes: u64,
}

impl<'a, W: Write> Work<'a, W> {
    fn new(options: &'a ImportOptions<'a>, record: Option<RecordWriter<W>>) -> Self {
        Self {
            options,
            record,
            owners: Owners::default(),
            holes: 0,
        }
    }

    fn run(mut self, source: &mut ChunkSource<'_>) -> Result<Owners> {
        let mut unpacker = Unpacker::new(self.options.target, self.options.id_maps)?;
        let mut tar = TarReader::new(source);
        while let Some(entry) = tar.next()? {
            self.options.check_cancelled()?;
            self.segment(&mut tar)?;
            self.owners.add(&entry);
            let is_sparse = tar.is_sparse();
            let mut body = Body {
                tar: &mut tar,
                options: self.options,
                holes: &mut self.holes,
                kept: match &mut self.record {
                    None => Kept::Nothing,
                    Some(record) if is_sparse => Kept::Bytes(record),
                    Some(_) => Kept::Checksum(Checksum::default()),
                },
            };
            unpacker.entry(&entry, &mut body)?;
            while body.next()?.is_some() {}
            let (size, checksum) = match body.kept {
                Kept::Checksum(mut checksum) => (entry.size, checksum.take()),
                Kept::Nothing | Kept::Bytes(_) => (0, 0),
            };
            if let Some(record) = &mut self.record {
                record.file(&entry.name, size, checksum)?;
            }
        }
        self.segment(&mut tar)?;
        unpacker.finish()?;
        self.trailing(&mut tar)?;
        if let Some(record) = self.record {
            drop(record.finish()?);
        }
        Ok(self.owners)
    }

    fn segment(&mut self, tar: &mut TarReader<&mut ChunkSource<'_>>) -> Result<()> {
        if let Some(record) = &mut self.record {
            record.segment(tar.raw())?;
        }
        tar.clear_raw();
        Ok(())
    }

    /// Blocking and whatever else follows the end mark, in segments of bounded size.
    fn trailing(&mut self, tar: &mut TarReader<&mut ChunkSource<'_>>) -> Result<()> {
        let mut segment = Vec::new();
        while let Some(bytes) = tar.trailing(MAX_TRAILING_SEGMENT - segment.len())? {
            let Some(record) = &mut self.record else {
                continue;
            };
            segment.extend_from_slice(bytes);
            if segment.len() == MAX_TRAILING_SEGMENT {
                record.segment(&segment)?;
                segment.clear();
            }
        }
        match &mut self.record {
            Some(record) => record.segment(&segment),
            None => Ok(()),
        }
    }
}

/// What is kept of an entry's content for its record.
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and nearly all are checksums"
)]
enum Kept<'r, W: Write> {
    /// There is no record.
    Nothing,
    /// The checksum of the file, which gives the content back.
    Checksum(Checksum),
    /// The bytes themselves: the file alone does not say what of it the stream had.
    Bytes(&'r mut RecordWriter<W>),
}

/// The content of one entry.
struct Body<'b, 's, 'c, W: Write> {
    tar: &'b mut TarReader<&'s mut ChunkSource<'c>>,
    options: &'b ImportOptions<'b>,
    holes: &'b mut u64,
    kept: Kept<'b, W>,
}

impl<W: Write> Content for Body<'_, '_, '_, W> {
    fn next(&mut self) -> Result<Option<Piece<'_>>> {
        let position = self.tar.position();
        let Some(piece) = self.tar.piece()? else {
            return Ok(None);
        };
        match piece {
            Piece::Data(bytes) => match &mut self.kept {
                Kept::Nothing => {}
                Kept::Checksum(checksum) => checksum.update(bytes),
                Kept::Bytes(record) => record.segment(bytes)?,
            },
            Piece::Hole(length) => {
                *self.holes = self.holes.saturating_add(length);
                self.options
                    .check_limit(self.holes.saturating_add(position))?;
            }
        }
        Ok(Some(piece))
    }
}
