// SPDX-License-Identifier: Apache-2.0
//! Writes a record while its stream is read.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};

use super::entry::Entry;
use crate::{
    Error, ErrorKind, Result,
    archive::{
        error::{ArchiveError, printable},
        names::{self, NameSet},
    },
};

/// About as small as Go's fastest level, and as fast as level 1.
const LEVEL: u32 = 2;

/// How many bytes of lines are collected before they are compressed.
const LINES: usize = 32 << 10;

/// The largest segment of what follows the end of an archive.
pub(crate) const MAX_TRAILING_SEGMENT: usize = 1 << 20;

/// Writes lines to a gzip file.
#[derive(Debug)]
pub struct RecordWriter<W: Write> {
    output: GzEncoder<W>,
    lines: Vec<u8>,
    position: u64,
    names: NameSet,
}

impl<W: Write> RecordWriter<W> {
    /// A record that goes to `output`.
    pub fn new(output: W) -> Self {
        Self {
            output: GzEncoder::new(output, Compression::new(LEVEL)),
            lines: Vec::with_capacity(LINES + (LINES >> 3)),
            position: 0,
            names: NameSet::default(),
        }
    }

    /// Adds bytes that are not file content; nothing is written for none.
    ///
    /// # Errors
    /// When the output fails.
    pub fn segment(&mut self, bytes: &[u8]) -> Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.add(Entry::Segment(bytes))
    }

    /// Adds a file.
    ///
    /// # Errors
    /// When a file of the same name after clean-up was added before, or the output fails.
    pub fn file(&mut self, name: &[u8], size: u64, checksum: u64) -> Result<()> {
        if !self.names.insert(&names::clean(name)) {
            let name = printable(name);
            return Err(ArchiveError::DuplicatePath { name }.into());
        }
        self.add(Entry::File {
            name,
            size,
            checksum,
        })
    }

    /// Ends the record.
    ///
    /// # Errors
    /// When the output fails.
    pub fn finish(mut self) -> Result<W> {
        self.output.write_all(&self.lines).map_err(cannot_write)?;
        self.output.finish().map_err(cannot_write)
    }

    fn add(&mut self, entry: Entry<'_>) -> Result<()> {
        entry.write(self.position, &mut self.lines);
        self.position += 1;
        if self.lines.len() >= LINES {
            self.output.write_all(&self.lines).map_err(cannot_write)?;
            self.lines.clear();
        }
        Ok(())
    }
}

fn cannot_write(error: io::Error) -> Error {
    let kind = match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT) => ErrorKind::NoSpace,
        _ => ErrorKind::Io,
    };
    Error::new(kind, "cannot write the tar-split record").caused_by(error)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn text(record: &[u8]) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(record)
            .read_to_string(&mut text)
            .unwrap();
        text
    }

    #[test]
    fn positions_count_lines() {
        let mut record = RecordWriter::new(Vec::new());
        record.segment(b"x").unwrap();
        record.segment(b"").unwrap();
        record.file(b"a", 0, 0).unwrap();
        record.segment(b"y").unwrap();
        let written = text(&record.finish().unwrap());
        let positions: Vec<_> = written
            .lines()
            .map(|line| line.rsplit(':').next().unwrap())
            .collect();
        assert_eq!(positions, ["0}", "1}", "2}"]);
    }

    #[test]
    fn an_empty_record_is_an_empty_file() {
        let record = RecordWriter::new(Vec::new()).finish().unwrap();
        assert_eq!(text(&record), "");
        assert!(!record.is_empty());
    }

    #[test]
    fn duplicates_are_found_after_clean_up() {
        let mut record = RecordWriter::new(io::sink());
        record.file(b"d/", 0, 0).unwrap();
        let error = record.file(b"./d", 0, 0).unwrap_err();
        assert_eq!(error.to_string(), "duplicates of file paths not supported");
        assert_eq!(error.about(), Some("./d"));
        assert_eq!(error.kind(), ErrorKind::InvalidArchive);
    }

    #[test]
    fn a_full_disk_is_told() {
        #[derive(Debug)]
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::Error::from_raw_os_error(libc::ENOSPC))
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let error = RecordWriter::new(Full).finish().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NoSpace);
    }
}
