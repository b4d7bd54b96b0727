// SPDX-License-Identifier: Apache-2.0
//! Reads the lines of a tar-split record.
//!
//! The writers in use put members in one order and without blanks, so a line is taken apart by
//! hand; whatever looks different goes through `serde_json`.

use std::{borrow::Cow, io::Read};

use base64_simd::STANDARD;
use memchr::{memchr, memchr2};
use serde::Deserialize;

use crate::{Error, ErrorKind};

/// The longest line that is read: containers/storage writes segments of at most 1 MiB after the
/// end of a tar, and a header with its extensions is far below that.
const LINE_LIMIT: usize = 32 << 20;

/// What is wrong with a record.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecordError {
    #[error("it cannot be decompressed")]
    Compression { source: std::io::Error },
    #[error("line {line} is longer than {LINE_LIMIT} bytes")]
    TooLong { line: u64 },
    #[error("line {line} is not the JSON of an entry")]
    Json {
        line: u64,
        source: serde_json::Error,
    },
    #[error("line {line} has the unknown type {found}")]
    Type { line: u64, found: i64 },
    #[error("line {line} has position {found}")]
    Position { line: u64, found: i64 },
    #[error("line {line} has a payload that is not base64")]
    Base64 { line: u64 },
    #[error("line {line} has a checksum that is not 8 bytes long")]
    Checksum { line: u64 },
    #[error("line {line} has no usable name")]
    Name { line: u64 },
    #[error("line {line} has size {found}")]
    Size { line: u64, found: i64 },
}

impl From<RecordError> for Error {
    fn from(error: RecordError) -> Self {
        Error::new(ErrorKind::Corrupt, "the tar-split record is damaged")
            .hint("delete the layer and import or pull it again")
            .caused_by(error)
    }
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Entry<'a> {
    /// Bytes of the stream, in base64.
    Segment(Cow<'a, [u8]>),
    /// Content that is on disk.
    File(FileEntry<'a>),
}

/// A file's content in the stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileEntry<'a> {
    /// The name in the header, not cleaned.
    pub(super) name: Cow<'a, [u8]>,
    /// The number of bytes.
    pub(super) size: u64,
    /// The CRC-64/ISO of the content; 0 when there is none.
    pub(super) crc: u64,
}

/// The entries of a decompressed record, in order.
pub(super) struct Entries<R> {
    source: R,
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    /// Lines seen; also the position that the next entry must have.
    line: u64,
    done: bool,
}

impl<R: Read> Entries<R> {
    pub(super) fn new(source: R) -> Self {
        Self {
            source,
            buffer: vec![0; 64 << 10],
            start: 0,
            end: 0,
            line: 0,
            done: false,
        }
    }

    /// The next entry and its line's number, `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<(Entry<'_>, u64)>, RecordError> {
        let Some((from, to)) = self.next_line()? else {
            return Ok(None);
        };
        let index = self.line;
        self.line += 1;
        let entry = parse(&self.buffer[from..to], index)?;
        Ok(Some((entry, self.line)))
    }

    /// Finds the next line that is not blank.
    fn next_line(&mut self) -> Result<Option<(usize, usize)>, RecordError> {
        let mut searched = 0;
        loop {
            let window = &self.buffer[self.start + searched..self.end];
            let found = memchr(b'\n', window).map(|at| (self.start, self.start + searched + at));
            let (from, to) = match found {
                Some((from, to)) => {
                    self.start = to + 1;
                    (from, to)
                }
                None if self.done && self.start == self.end => return Ok(None),
                None if self.done => {
                    let rest = (self.start, self.end);
                    self.start = self.end;
                    rest
                }
                None => {
                    searched = self.end - self.start;
                    self.refill()?;
                    continue;
                }
            };
            searched = 0;
            if !self.buffer[from..to].trim_ascii().is_empty() {
                return Ok(Some((from, to)));
            }
        }
    }

    fn refill(&mut self) -> Result<(), RecordError> {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.end == self.buffer.len() {
            if self.end >= LINE_LIMIT {
                return Err(RecordError::TooLong {
                    line: self.line + 1,
                });
            }
            self.buffer.resize(self.end * 2, 0);
        }
        loop {
            match self.source.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.done = true,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(RecordError::Compression { source }),
            }
            return Ok(());
        }
    }
}

/// Takes one line apart; `index` counts from 0 and must be its position.
fn parse(bytes: &[u8], index: u64) -> Result<Entry<'_>, RecordError> {
    let line = index + 1;
    let fields = match Fields::by_hand(bytes) {
        Some(fields) => fields,
        None => Fields::by_serde(bytes, line)?,
    };
    if u64::try_from(fields.position) != Ok(index) {
        return Err(RecordError::Position {
            line,
            found: fields.position,
        });
    }
    match fields.kind {
        1 => fields.file(line).map(Entry::File),
        2 => Ok(Entry::Segment(fields.payload.unwrap_or_default())),
        found => Err(RecordError::Type { line, found }),
    }
}

/// The members of a line.
struct Fields<'a> {
    kind: i64,
    name: Option<Cow<'a, [u8]>>,
    size: i64,
    payload: Option<Cow<'a, [u8]>>,
    position: i64,
}

impl<'a> Fields<'a> {
    /// Reads the form that the known writers write; `None` for anything else.
    fn by_hand(line: &'a [u8]) -> Option<Self> {
        let rest = line.strip_prefix(b"{\"type\":")?;
        let (&digit, mut rest) = rest.split_first()?;
        let mut fields = Self {
            kind: i64::from(digit.checked_sub(b'0')?),
            name: None,
            size: 0,
            payload: None,
            position: 0,
        };
        if let Some(after) = rest.strip_prefix(b",\"name\":\"") {
            let (name, after) = plain_string(after)?;
            if name.iter().any(|byte| *byte < b' ') || std::str::from_utf8(name).is_err() {
                return None;
            }
            fields.name = Some(Cow::Borrowed(name));
            rest = after;
        }
        if let Some(after) = rest.strip_prefix(b",\"size\":") {
            (fields.size, rest) = number(after)?;
        }
        rest = rest.strip_prefix(b",\"payload\":")?;
        rest = if let Some(after) = rest.strip_prefix(b"\"") {
            let (payload, after) = plain_string(after)?;
            fields.payload = Some(Cow::Borrowed(payload));
            after
        } else {
            rest.strip_prefix(b"null")?
        };
        (fields.position, rest) = number(rest.strip_prefix(b",\"position\":")?)?;
        (rest == b"}").then_some(fields)
    }

    fn by_serde(bytes: &[u8], line: u64) -> Result<Self, RecordError> {
        let raw: Raw =
            serde_json::from_slice(bytes).map_err(|source| RecordError::Json { line, source })?;
        let name = match (raw.name, raw.encoded_name) {
            (Some(name), _) if !name.is_empty() => Some(name.into_bytes()),
            (_, Some(raw)) if !raw.is_empty() => Some(
                STANDARD
                    .decode_to_vec(raw.as_bytes())
                    .map_err(|_| RecordError::Base64 { line })?,
            ),
            _ => None,
        };
        Ok(Self {
            kind: raw.kind,
            name: name.map(Cow::Owned),
            size: raw.size.unwrap_or(0),
            payload: raw.payload.map(|payload| Cow::Owned(payload.into_bytes())),
            position: raw.position.unwrap_or(0),
        })
    }

    fn file(self, line: u64) -> Result<FileEntry<'a>, RecordError> {
        let size = u64::try_from(self.size).map_err(|_| RecordError::Size {
            line,
            found: self.size,
        })?;
        let name = self
            .name
            .filter(|name| !name.is_empty() && memchr(0, name).is_none())
            .ok_or(RecordError::Name { line })?;
        let crc = if size == 0 {
            0
        } else {
            checksum(&self.payload.unwrap_or_default(), line)?
        };
        Ok(FileEntry { name, size, crc })
    }
}

#[derive(Deserialize)]
struct Raw {
    #[serde(rename = "type")]
    kind: i64,
    name: Option<String>,
    #[serde(rename = "name_raw")]
    encoded_name: Option<String>,
    size: Option<i64>,
    payload: Option<String>,
    position: Option<i64>,
}

fn checksum(payload: &[u8], line: u64) -> Result<u64, RecordError> {
    let mut bytes = [0; 9];
    if payload.len() != 12 {
        return Err(RecordError::Checksum { line });
    }
    let decoded = STANDARD
        .decode(payload, base64_simd::Out::from_slice(&mut bytes))
        .map_err(|_| RecordError::Base64 { line })?;
    <[u8; 8]>::try_from(&*decoded)
        .map(u64::from_be_bytes)
        .map_err(|_| RecordError::Checksum { line })
}

/// A string without escapes up to its closing quote, and what follows the quote.
fn plain_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = memchr2(b'"', b'\\', bytes)?;
    (bytes[at] == b'"').then(|| (&bytes[..at], &bytes[at + 1..]))
}

/// A number that is not negative, and what follows it.
fn number(bytes: &[u8]) -> Option<(i64, &[u8])> {
    let digits = bytes
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if digits == 0 || digits > 18 || (digits > 1 && bytes[0] == b'0') {
        return None;
    }
    let value = bytes[..digits]
        .iter()
        .fold(0, |value, byte| value * 10 + i64::from(byte - b'0'));
    Some((value, &bytes[digits..]))
}

#[cfg(test)]
mod tests;
