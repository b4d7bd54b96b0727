// SPDX-License-Identifier: Apache-2.0
//! Two threads with a fixed number of chunks between them.

use std::{
    io::{self, BufRead, Read},
    thread,
};

use plywood_plugin_sdk::DriverError;
use sha2::{Digest as _, Sha256};

use super::{
    Compression,
    codec::Decoder,
    detect::{self, MAGIC_LENGTH},
    exchange::{Exchange, Side},
    import::ImportOptions,
    reader::Source,
};
use crate::{Digest, Error, ErrorKind, Result};

/// A multiple of the tar block size, so that no header straddles two chunks.
const CHUNK: usize = 256 << 10;

/// The chunks in use at any time.
const CHUNKS: usize = 12;

/// The buffer in front of the decoder.
const INPUT: usize = 256 << 10;

/// Whether digests are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Digests {
    Compute,
    Skip,
}

/// What is known about a stream once all of it was read.
#[derive(Debug)]
pub(super) struct Pumped {
    pub(super) compression: Compression,
    pub(super) compressed_size: u64,
    pub(super) diff_size: u64,
    /// Those of no bytes when none are wanted.
    pub(super) compressed_digest: Digest,
    pub(super) diff_digest: Digest,
}

struct Chunk {
    bytes: Box<[u8]>,
    length: usize,
    /// Whether the digest of the decompressed stream is wanted, and not that of the input.
    to_hash: bool,
}

/// Reads and decompresses `reader` on a thread of its own, while `consume` reads the outcome.
///
/// The consumer must read to the end; an error of either side ends both, and that of the reading
/// side counts, since the other side only sees a stream that stops.
pub(super) fn run<R, T>(
    reader: R,
    options: &ImportOptions<'_>,
    digests: Digests,
    consume: impl FnOnce(&mut ChunkSource<'_>) -> Result<T>,
) -> Result<(Pumped, T)>
where
    R: Read + Send,
{
    let chunks = (0..CHUNKS).map(|_| Chunk {
        bytes: vec![0; CHUNK].into_boxed_slice(),
        length: 0,
        to_hash: false,
    });
    let exchange = Exchange::new(chunks.collect());
    let (reading, using) = (exchange.side(), exchange.side());
    thread::scope(|scope| {
        let pump = thread::Builder::new()
            .name("layer-reader".to_owned())
            .spawn_scoped(scope, move || pump(reader, options, digests, &reading))
            .map_err(|error| Error::new(ErrorKind::Io, "cannot start a thread").caused_by(error))?;
        let mut source = ChunkSource {
            chunks: using,
            current: None,
            used: 0,
            hash: Sha256::new(),
        };
        let consumed = consume(&mut source);
        let hash = source.close();
        let pumped = match pump.join() {
            Ok(pumped) => pumped,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        let pumped = match pumped {
            Err(PumpError::Stopped) => None,
            Err(PumpError::Failed(error)) => return Err(error),
            Ok(pumped) => Some(pumped),
        };
        let value = consumed?;
        let mut pumped = pumped.expect("the consumer read to the end");
        if pumped.compression != Compression::None {
            pumped.diff_digest = Digest::from_sha256(&hash.finalize());
        }
        Ok((pumped, value))
    })
}

enum PumpError {
    /// The consumer went away.
    Stopped,
    Failed(Error),
}

impl From<Error> for PumpError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

fn pump<R: Read>(
    reader: R,
    options: &ImportOptions<'_>,
    digests: Digests,
    chunks: &Side<'_, Chunk>,
) -> Result<Pumped, PumpError> {
    let mut input = Input::new(reader, options, digests);
    let start = input.fill_buf();
    let compression = match start {
        Ok(start) => detect::detect(start),
        Err(error) => return Err(input.explain(error).into()),
    };
    let mut decoder = Decoder::new(compression, input).map_err(|error| {
        PumpError::Failed(Error::new(ErrorKind::Io, "cannot start a decoder").caused_by(error))
    })?;
    let mut size = 0;
    loop {
        options.check_cancelled()?;
        let mut chunk = chunks.take_empty().ok_or(PumpError::Stopped)?;
        if let Err(error) = fill(&mut decoder, &mut chunk) {
            return Err(explain(&mut decoder, error).into());
        }
        chunk.to_hash = digests == Digests::Compute && compression != Compression::None;
        let at_end = chunk.length < CHUNK;
        size += chunk.length as u64;
        options.check_limit(size)?;
        if chunk.length > 0 && !chunks.put_full(chunk) {
            return Err(PumpError::Stopped);
        }
        if at_end {
            break;
        }
    }
    if let Err(error) = decoder.expect_end() {
        return Err(explain(&mut decoder, error).into());
    }
    let input = decoder.input();
    input.report();
    let hash = input.hash.take().unwrap_or_default();
    let compressed_digest = Digest::from_sha256(&hash.finalize());
    Ok(Pumped {
        compression,
        compressed_size: input.count,
        diff_size: size,
        diff_digest: compressed_digest.clone(),
        compressed_digest,
    })
}

/// Fills a chunk completely, unless the stream ends.
fn fill<R: BufRead>(decoder: &mut Decoder<R>, chunk: &mut Chunk) -> io::Result<()> {
    chunk.length = 0;
    while chunk.length < CHUNK {
        match decoder.read(&mut chunk.bytes[chunk.length..]) {
            Ok(0) => break,
            Ok(count) => chunk.length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn explain<R: Read>(decoder: &mut Decoder<Input<'_, R>>, error: io::Error) -> Error {
    let input = decoder.input();
    match input.failure.take() {
        Some(failure) => failure,
        None if input.failed => input.explain(error),
        None => decoder.explain(error),
    }
}

/// The stream as it comes: buffered, counted, hashed.
struct Input<'a, R> {
    reader: R,
    options: &'a ImportOptions<'a>,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    count: u64,
    hash: Option<Sha256>,
    failed: bool,
    failure: Option<Error>,
}

impl<'a, R: Read> Input<'a, R> {
    fn new(reader: R, options: &'a ImportOptions<'a>, digests: Digests) -> Self {
        Self {
            reader,
            options,
            buffer: vec![0; INPUT].into_boxed_slice(),
            start: 0,
            end: 0,
            count: 0,
            hash: (digests == Digests::Compute).then(Sha256::new),
            failed: false,
            failure: None,
        }
    }

    fn report(&self) {
        if let Some(progress) = self.options.progress {
            progress(self.count);
        }
    }

    #[expect(clippy::unused_self, reason = "it is an error of this input")]
    fn explain(&self, error: io::Error) -> Error {
        // A layer source that did not answer has said who it is, and what helps.
        if let Some(late) = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<DriverError>())
        {
            return late.clone().into();
        }
        Error::new(ErrorKind::Io, "cannot read the layer's stream").caused_by(error)
    }

    /// Reads more; enough to recognise a compression by, unless the stream is shorter.
    fn refill(&mut self) -> io::Result<()> {
        (self.start, self.end) = (0, 0);
        while self.end < MAGIC_LENGTH {
            match self.reader.read(&mut self.buffer[self.end..]) {
                Ok(0) => break,
                Ok(count) => self.end += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.failed = true;
                    return Err(error);
                }
            }
        }
        let bytes = &self.buffer[..self.end];
        if let Some(hash) = &mut self.hash {
            hash.update(bytes);
        }
        self.count += bytes.len() as u64;
        self.report();
        if let Err(error) = self.options.check_cancelled() {
            self.failure = Some(error);
            return Err(io::ErrorKind::Other.into());
        }
        Ok(())
    }
}

impl<R: Read> BufRead for Input<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.start == self.end {
            self.refill()?;
        }
        Ok(&self.buffer[self.start..self.end])
    }

    fn consume(&mut self, count: usize) {
        self.start += count;
    }
}

impl<R: Read> Read for Input<'_, R> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(output.len());
        output[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

/// The decompressed stream, as the second thread sees it.
pub(super) struct ChunkSource<'c> {
    chunks: Side<'c, Chunk>,
    current: Option<Chunk>,
    used: usize,
    hash: Sha256,
}

impl ChunkSource<'_> {
    /// Ends the exchange, which stops the other thread if it is still at work.
    fn close(self) -> Sha256 {
        self.hash
    }

    fn next_chunk(&mut self) {
        if let Some(used) = self.current.take() {
            self.chunks.put_empty(used);
        }
        self.used = 0;
        self.current = self.chunks.take_full();
        if let Some(chunk) = self.current.as_ref().filter(|chunk| chunk.to_hash) {
            self.hash.update(&chunk.bytes[..chunk.length]);
        }
    }
}

impl Source for &mut ChunkSource<'_> {
    fn fill(&mut self) -> Result<&[u8]> {
        let is_used_up = |chunk: &Chunk| chunk.length == self.used;
        if self.current.as_ref().is_none_or(is_used_up) {
            self.next_chunk();
        }
        Ok(self
            .current
            .as_ref()
            .map_or(&[], |chunk| &chunk.bytes[self.used..chunk.length]))
    }

    fn consume(&mut self, count: usize) {
        self.used += count;
    }
}
