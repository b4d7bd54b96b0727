// SPDX-License-Identifier: Apache-2.0
//! Decoders for the compressions of layers.

use std::{
    fmt,
    io::{self, BufRead, Read},
};

use bzip2::bufread::MultiBzDecoder;
use flate2::{Decompress, FlushDecompress, Status};
use liblzma::{bufread::XzDecoder, stream};

use super::{Compression, error::ArchiveError};
use crate::Error;

/// The largest zstd window, 128 MiB: what libzstd allows by default and `zstd --ultra -22` needs.
const ZSTD_WINDOW_LOG: u32 = 27;

/// What an xz decoder may use; `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 512 << 20;

/// Reads compressed data and gives what it decompresses to.
///
/// # Behavior
/// - All members, streams and frames of the input are decoded, and it is read to its end.
/// - NULs after the last gzip member are skipped; anything else there is an error.
/// - A truncated input is an error of kind [`io::ErrorKind::UnexpectedEof`].
pub struct Decoder<R: BufRead> {
    compression: Compression,
    inner: Inner<R>,
}

enum Inner<R: BufRead> {
    Plain(R),
    Gzip(GzipReader<R>),
    Bzip2(MultiBzDecoder<R>),
    Xz(XzDecoder<R>),
    Zstd(zstd::Decoder<'static, R>),
}

impl<R: BufRead> Decoder<R> {
    /// A decoder for `input`.
    ///
    /// # Errors
    /// When the decoder's memory cannot be had.
    pub fn new(compression: Compression, input: R) -> io::Result<Self> {
        let inner = match compression {
            Compression::None => Inner::Plain(input),
            Compression::Gzip => Inner::Gzip(GzipReader::new(input)),
            Compression::Bzip2 => Inner::Bzip2(MultiBzDecoder::new(input)),
            Compression::Xz => {
                let stream = stream::Stream::new_stream_decoder(XZ_MEMORY, stream::CONCATENATED)?;
                Inner::Xz(XzDecoder::new_stream(input, stream))
            }
            Compression::Zstd => {
                let mut decoder = zstd::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG)?;
                Inner::Zstd(decoder)
            }
        };
        Ok(Self { compression, inner })
    }

    /// The compressed side.
    pub fn input(&mut self) -> &mut R {
        match &mut self.inner {
            Inner::Plain(reader) => reader,
            Inner::Gzip(decoder) => &mut decoder.input,
            Inner::Bzip2(decoder) => decoder.get_mut(),
            Inner::Xz(decoder) => decoder.get_mut(),
            Inner::Zstd(decoder) => decoder.get_mut(),
        }
    }

    /// Reads what the decoder left of its input.
    ///
    /// # Errors
    /// When there is something left.
    pub(crate) fn expect_end(&mut self) -> io::Result<()> {
        match self.input().fill_buf()? {
            [] => Ok(()),
            _ => Err(garbage()),
        }
    }

    /// What an error of this decoder means, when its input did not fail.
    pub(crate) fn explain(&self, error: io::Error) -> Error {
        let compression = self.compression;
        if error
            .get_ref()
            .is_some_and(<dyn std::error::Error + Send + Sync>::is::<Garbage>)
        {
            ArchiveError::TrailingGarbage { compression }.into()
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            ArchiveError::Truncated { name: None }.into()
        } else {
            ArchiveError::Damaged {
                compression,
                source: error,
            }
            .into()
        }
    }
}

impl<R: BufRead> Read for Decoder<R> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        match &mut self.inner {
            Inner::Plain(reader) => reader.read(output),
            Inner::Gzip(decoder) => decoder.read(output),
            Inner::Bzip2(decoder) => decoder.read(output),
            Inner::Xz(decoder) => decoder.read(output),
            Inner::Zstd(decoder) => decoder.read(output),
        }
    }
}

impl<R: BufRead> fmt::Debug for Decoder<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder")
            .field("compression", &self.compression)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, thiserror::Error)]
#[error("garbage after the end of compressed data")]
struct Garbage;

fn garbage() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, Garbage)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum GzipState {
    Member,
    BetweenMembers,
    Tail,
    Done,
}

/// Decodes all members; the `flate2` reader for that takes NULs at the end for a damaged member.
struct GzipReader<R> {
    input: R,
    inflate: Decompress,
    state: GzipState,
}

impl<R: BufRead> GzipReader<R> {
    fn new(input: R) -> Self {
        Self {
            input,
            inflate: Decompress::new_gzip(15),
            state: GzipState::Member,
        }
    }

    fn inflate(&mut self, output: &mut [u8]) -> io::Result<usize> {
        loop {
            let input = self.input.fill_buf()?;
            let at_end = input.is_empty();
            let before = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(input, output, FlushDecompress::None)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let consumed = count(self.inflate.total_in() - before.0);
            let produced = count(self.inflate.total_out() - before.1);
            self.input.consume(consumed);
            if status == Status::StreamEnd {
                self.state = GzipState::BetweenMembers;
                return Ok(produced);
            }
            if produced > 0 {
                return Ok(produced);
            }
            if at_end {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if consumed == 0 {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
    }

    fn begin_member(&mut self) -> io::Result<()> {
        self.state = match self.input.fill_buf()? {
            [] => GzipState::Done,
            [0, ..] => GzipState::Tail,
            [0x1f, ..] => {
                self.inflate.reset(true);
                GzipState::Member
            }
            _ => return Err(garbage()),
        };
        Ok(())
    }

    fn skip_tail(&mut self) -> io::Result<()> {
        loop {
            let tail = self.input.fill_buf()?;
            if tail.is_empty() {
                self.state = GzipState::Done;
                return Ok(());
            }
            if tail.iter().any(|byte| *byte != 0) {
                return Err(garbage());
            }
            let length = tail.len();
            self.input.consume(length);
        }
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        if output.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                GzipState::Member => {
                    let produced = self.inflate(output)?;
                    if produced > 0 {
                        return Ok(produced);
                    }
                }
                GzipState::BetweenMembers => self.begin_member()?,
                GzipState::Tail => self.skip_tail()?,
                GzipState::Done => return Ok(0),
            }
        }
    }
}

/// A difference of totals that is at most a buffer's length.
fn count(difference: u64) -> usize {
    usize::try_from(difference).expect("at most the length of a buffer")
}

#[cfg(test)]
mod tests;
