// SPDX-License-Identifier: Apache-2.0
//! Reads a tar stream entry by entry and keeps the bytes that are not file content.
//!
//! Headers are parsed where they lie when the source's pieces are multiples of the block size;
//! file content is handed out as slices of the source, never copied.

use super::{
    error::{ArchiveError, printable},
    header::{self, BLOCK, Block, EntryType, Time, ZERO_BLOCK},
    pax::{Attributes, InvalidRecords, Records},
    sparse::{self, Form, Fragment, Lines},
};
use crate::Result;

/// The largest extension header, as in Go since 1.19 (`maxSpecialFileSize`).
const MAX_EXTENSION: u64 = 1 << 20;

/// The most header bytes in front of one entry.
const MAX_RAW: usize = 4 << 20;

/// Where the bytes come from.
pub(crate) trait Source {
    /// The bytes at hand; none only at the end of the stream.
    fn fill(&mut self) -> Result<&[u8]>;

    /// Marks `count` of them as used.
    fn consume(&mut self, count: usize);
}

impl Source for &[u8] {
    fn fill(&mut self) -> Result<&[u8]> {
        Ok(self)
    }

    fn consume(&mut self, count: usize) {
        *self = &self[count..];
    }
}

/// An entry, with what its extension headers say already applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The type.
    pub(crate) kind: EntryType,
    /// The name as written.
    pub(crate) name: Vec<u8>,
    /// The target of a link.
    pub(crate) link: Vec<u8>,
    /// Bytes of content, holes included.
    pub(crate) size: u64,
    /// The lower twelve mode bits.
    pub(crate) mode: u32,
    /// The owner; any number can be written.
    pub(crate) uid: i64,
    /// The owning group.
    pub(crate) gid: i64,
    /// When the content was last changed.
    pub(crate) mtime: Time,
    /// When it was last read, if recorded.
    pub(crate) atime: Option<Time>,
    /// A device's numbers.
    pub(crate) device: (u32, u32),
    /// Extended attributes.
    pub(crate) attributes: Attributes,
}

/// A piece of an entry's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// Bytes.
    Data(&'a [u8]),
    /// So many NULs that are not in the stream.
    Hole(u64),
}

#[derive(Debug)]
struct SparseBody {
    map: Vec<Fragment>,
    /// The first fragment that is not finished.
    next: usize,
    position: u64,
    size: u64,
}

/// What precedes an entry's own header.
#[derive(Default)]
struct Extensions {
    records: Records,
    long_name: Vec<u8>,
    long_link: Vec<u8>,
}

/// A tar stream.
#[derive(Debug)]
pub(crate) struct TarReader<S> {
    source: S,
    /// Bytes handed out by the last `piece`, still to be consumed.
    pending: usize,
    position: u64,
    raw: Vec<u8>,
    stored: u64,
    padding: usize,
    sparse: Option<SparseBody>,
    name: Vec<u8>,
}

impl<S: Source> TarReader<S> {
    pub(crate) fn new(source: S) -> Self {
        Self {
            source,
            pending: 0,
            position: 0,
            raw: Vec::with_capacity(4 * BLOCK),
            stored: 0,
            padding: 0,
            sparse: None,
            name: Vec::new(),
        }
    }

    /// The header and padding bytes read since they were last cleared.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    /// Forgets them.
    pub(crate) fn clear_raw(&mut self) {
        self.raw.clear();
    }

    /// Whether the current entry's content in the stream is not that of its file.
    pub(crate) fn is_sparse(&self) -> bool {
        self.sparse.is_some()
    }

    /// Bytes of the stream used so far.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// The next entry, or `None` after the end mark or at the end of the stream.
    ///
    /// # Behavior
    /// - What is left of the previous entry's content is skipped.
    /// - A stream may end without an end mark, or after one block of it.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        while self.piece()?.is_some() {}
        let mut extensions = Extensions::default();
        loop {
            self.read_padding()?;
            let start = self.position;
            let Some(block) = self.read_header()? else {
                return Ok(None);
            };
            let invalid = ArchiveError::InvalidHeader { offset: start };
            let Ok(raw) = header::parse(&block) else {
                return Err(invalid.into());
            };
            match raw.type_flag {
                b'x' => {
                    let content = self.read_extension(raw.size, start)?;
                    extensions.records = Records::parse(&content).map_err(|_| invalid)?;
                }
                b'L' => {
                    let content = self.read_extension(raw.size, start)?;
                    extensions.long_name = header::text(&content).to_vec();
                }
                b'K' => {
                    let content = self.read_extension(raw.size, start)?;
                    extensions.long_link = header::text(&content).to_vec();
                }
                b'g' => {
                    let name = joined_name(&raw);
                    let content = self.read_extension(raw.size, start)?;
                    Records::parse(&content).map_err(|_| invalid)?;
                    return Ok(Some(global_header(name)));
                }
                _ => return self.entry(&raw, &extensions, start).map(Some),
            }
        }
    }

    fn entry(
        &mut self,
        raw: &header::RawHeader<'_>,
        extensions: &Extensions,
        start: u64,
    ) -> Result<Entry> {
        let invalid = || ArchiveError::InvalidHeader { offset: start };
        let mut entry = merge(raw, extensions).map_err(|_| invalid())?;
        self.name.clone_from(&entry.name);
        self.stored = if entry.kind.is_header_only() {
            0
        } else {
            entry.size
        };
        self.padding = padding(self.stored);
        let Some(form) = sparse::form(&extensions.records) else {
            entry.size = self.stored;
            return Ok(entry);
        };
        self.begin_sparse(&mut entry, form, &extensions.records)
            .map_err(|error| error.unwrap_or_else(|| invalid().into()))?;
        Ok(entry)
    }

    /// Prepares the expansion of a sparse file; fails with `None` where the map is malformed.
    fn begin_sparse(
        &mut self,
        entry: &mut Entry,
        form: Form,
        records: &Records,
    ) -> Result<(), Option<crate::Error>> {
        if let Some(name) = records.get("GNU.sparse.name") {
            entry.name = name.to_vec();
        }
        if let Some(size) = sparse::real_size(records).map_err(|_| None)? {
            entry.size = u64::try_from(size).map_err(|_| None)?;
        }
        let map = match form {
            Form::InHeader => sparse::map_in_header(records).map_err(|_| None)?,
            Form::InContent => self.read_sparse_map()?,
        };
        if entry.kind.is_header_only() {
            return Err(None);
        }
        sparse::check(&map, entry.size, self.stored).map_err(|_| None)?;
        self.sparse = Some(SparseBody {
            map,
            next: 0,
            position: 0,
            size: entry.size,
        });
        Ok(())
    }

    fn read_sparse_map(&mut self) -> Result<Vec<Fragment>, Option<crate::Error>> {
        let mut lines = Lines::default();
        loop {
            self.stored = self.stored.checked_sub(BLOCK as u64).ok_or(None)?;
            let mut block = ZERO_BLOCK;
            if self.read_into(&mut block).map_err(Some)? < BLOCK {
                return Err(Some(self.truncated()));
            }
            // The map is no content of the file: it comes back with the headers.
            self.raw.extend_from_slice(&block);
            if lines.add(&block).map_err(|_| None)? {
                return lines.finish().map_err(|_| None);
            }
        }
    }

    /// The next piece of the current entry's content.
    pub(crate) fn piece(&mut self) -> Result<Option<Piece<'_>>> {
        self.release();
        let mut wanted = self.stored;
        if let Some(body) = &mut self.sparse {
            while body.next < body.map.len() && body.map[body.next].length == 0 {
                body.next += 1;
            }
            let hole_end = body.map.get(body.next).map_or(body.size, |f| f.offset);
            if body.position < hole_end {
                let hole = hole_end - body.position;
                body.position = hole_end;
                return Ok(Some(Piece::Hole(hole)));
            }
            match body.map.get_mut(body.next) {
                Some(fragment) => wanted = fragment.length,
                None => self.sparse = None,
            }
        }
        if wanted == 0 || self.stored == 0 {
            return Ok(None);
        }
        let available = self.source.fill()?.len();
        if available == 0 {
            return Err(self.truncated());
        }
        let count = usize::try_from(wanted).map_or(available, |wanted| wanted.min(available));
        self.pending = count;
        self.stored -= count as u64;
        if let Some(body) = &mut self.sparse {
            body.position += count as u64;
            let fragment = &mut body.map[body.next];
            fragment.length -= count as u64;
            fragment.offset = body.position;
        }
        Ok(Some(Piece::Data(&self.source.fill()?[..count])))
    }

    /// What follows the end of the archive, at most `most` bytes of it.
    pub(crate) fn trailing(&mut self, most: usize) -> Result<Option<&[u8]>> {
        self.release();
        let count = self.source.fill()?.len().min(most);
        if count == 0 {
            return Ok(None);
        }
        self.pending = count;
        Ok(Some(&self.source.fill()?[..count]))
    }

    fn release(&mut self) {
        self.source.consume(self.pending);
        self.position += self.pending as u64;
        self.pending = 0;
    }

    fn truncated(&self) -> crate::Error {
        let name = (!self.name.is_empty()).then(|| printable(&self.name));
        ArchiveError::Truncated { name }.into()
    }

    /// Reads until `buffer` is full or the stream ends.
    fn read_into(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let bytes = self.source.fill()?;
            let count = bytes.len().min(buffer.len() - done);
            if count == 0 {
                break;
            }
            buffer[done..done + count].copy_from_slice(&bytes[..count]);
            self.source.consume(count);
            self.position += count as u64;
            done += count;
        }
        Ok(done)
    }

    /// A stream may end inside the padding of its last entry.
    fn read_padding(&mut self) -> Result<()> {
        let mut padding = ZERO_BLOCK;
        let wanted = std::mem::take(&mut self.padding);
        let count = self.read_into(&mut padding[..wanted])?;
        self.raw.extend_from_slice(&padding[..count]);
        if self.raw.len() > MAX_RAW {
            let offset = self.position;
            return Err(ArchiveError::FieldTooLong { offset }.into());
        }
        Ok(())
    }

    /// The next header block, or `None` at the end mark or the end of the stream.
    fn read_header(&mut self) -> Result<Option<Block>> {
        let start = self.position;
        let Some(block) = self.read_block()? else {
            return Ok(None);
        };
        if block != ZERO_BLOCK {
            return Ok(Some(block));
        }
        match self.read_block()? {
            Some(second) if second != ZERO_BLOCK => {
                Err(ArchiveError::InvalidHeader { offset: start }.into())
            }
            _ => Ok(None),
        }
    }

    fn read_block(&mut self) -> Result<Option<Block>> {
        let mut block = ZERO_BLOCK;
        match self.read_into(&mut block)? {
            0 => Ok(None),
            BLOCK => {
                self.raw.extend_from_slice(&block);
                Ok(Some(block))
            }
            _ => Err(self.truncated()),
        }
    }

    fn read_extension(&mut self, size: i64, start: u64) -> Result<Vec<u8>> {
        let size =
            u64::try_from(size).map_err(|_| ArchiveError::InvalidHeader { offset: start })?;
        if size > MAX_EXTENSION {
            return Err(ArchiveError::FieldTooLong { offset: start }.into());
        }
        let mut content = vec![0; usize::try_from(size).expect("at most a mebibyte")];
        if self.read_into(&mut content)? < content.len() {
            return Err(self.truncated());
        }
        self.raw.extend_from_slice(&content);
        self.padding = padding(size);
        Ok(content)
    }
}

fn padding(size: u64) -> usize {
    let rest = usize::try_from(size % BLOCK as u64).expect("less than a block");
    (BLOCK - rest) % BLOCK
}

fn joined_name(raw: &header::RawHeader<'_>) -> Vec<u8> {
    if raw.prefix.is_empty() {
        raw.name.to_vec()
    } else {
        [raw.prefix, b"/", raw.name].concat()
    }
}

/// Its own fields mean nothing; Go's reader gives an entry with just the name.
fn global_header(name: Vec<u8>) -> Entry {
    Entry {
        kind: EntryType::GlobalHeader,
        name,
        link: Vec::new(),
        size: 0,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        atime: None,
        device: (0, 0),
        attributes: Attributes::new(),
    }
}

/// Applies the extension headers to the entry's own header, as Go's `mergePAX` does.
fn merge(raw: &header::RawHeader<'_>, extensions: &Extensions) -> Result<Entry, InvalidRecords> {
    let records = &extensions.records;
    let pick = |long: &[u8], key: &str, short: Vec<u8>| match (long, records.get(key)) {
        (&[], None) => short,
        (&[], Some(value)) => value.to_vec(),
        (long, _) => long.to_vec(),
    };
    let name = pick(&extensions.long_name, "path", joined_name(raw));
    let link = pick(&extensions.long_link, "linkpath", raw.link.to_vec());
    let kind = EntryType::new(raw.type_flag, &name);
    let seconds = |seconds| Time {
        seconds,
        nanoseconds: 0,
    };
    let size = records.number("size")?.unwrap_or(raw.size);
    let size = match u64::try_from(size) {
        Ok(size) => size,
        Err(_) if kind.is_header_only() => 0,
        Err(_) => return Err(InvalidRecords),
    };
    let device = match kind {
        EntryType::CharacterDevice | EntryType::BlockDevice => (
            u32::try_from(raw.major).map_err(|_| InvalidRecords)?,
            u32::try_from(raw.minor).map_err(|_| InvalidRecords)?,
        ),
        _ => (0, 0),
    };
    records.time("ctime")?;
    Ok(Entry {
        kind,
        name,
        link,
        size,
        mode: u32::try_from(raw.mode & 0o7777).expect("twelve bits"),
        uid: records.number("uid")?.unwrap_or(raw.uid),
        gid: records.number("gid")?.unwrap_or(raw.gid),
        mtime: records.time("mtime")?.unwrap_or(seconds(raw.mtime)),
        atime: records.time("atime")?.or(raw.atime.map(seconds)),
        device,
        attributes: records.attributes(),
    })
}

#[cfg(test)]
mod tests;
