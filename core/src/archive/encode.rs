// SPDX-License-Identifier: Apache-2.0
//! Compresses a tar stream on its way out.
//!
//! gzip is cut into blocks that several threads compress, each with the end of the block before as
//! its dictionary. The cuts do not depend on the number of threads or the sizes of writes, so the
//! same stream always gives the same bytes.

use std::{
    io::{self, Write},
    mem, thread,
};

use flate2::{Compress, Compression as Level, Crc, FlushCompress, Status};

use super::{Compression, stream::output_error};
use crate::{
    Error, ErrorKind, Result,
    channel::{Receiver, Sender, bounded},
};

/// What one thread compresses at a time.
const BLOCK: usize = 256 << 10;
/// How far deflate looks back.
const DICTIONARY: usize = 32 << 10;
/// The most threads that compress.
const WORKERS: usize = 4;
/// Gives streams of the size that containers/storage's gzip gives at its default level.
const GZIP_LEVEL: u32 = 4;
/// The level that containers/storage uses for zstd, its library's default.
const ZSTD_LEVEL: i32 = 3;

/// Runs `produce` with a writer whose bytes arrive in `out` compressed.
///
/// # Behavior
/// - Compression runs on threads of its own; `produce` runs on the caller's.
/// - The bytes depend on the stream alone.
/// - When `produce` fails, `out` holds a truncated stream.
///
/// # Errors
/// [`ErrorKind::NotSupported`] for bzip2 and xz, before `produce` runs; a failure of `out`; else
/// that of `produce`.
///
/// # Compatibility
/// bzip2 and xz are refused with the sentence of containers/storage (`CompressStream`).
pub fn encoded<T>(
    compression: Compression,
    out: &mut (dyn Write + Send),
    produce: impl FnOnce(&mut (dyn Write + Send)) -> Result<T>,
) -> Result<T> {
    match compression {
        Compression::None => produce(out),
        Compression::Gzip => gzip(out, produce),
        Compression::Zstd => zstandard(out, produce),
        Compression::Bzip2 | Compression::Xz => Err(Error::new(
            ErrorKind::NotSupported,
            format!("unsupported compression format {}", compression.extension()),
        )
        .hint("ask for an uncompressed, gzip or zstd stream")),
    }
}

/// Which of two failures counts: a writer that is gone makes its producer fail, too.
fn first_cause<T>(produced: Result<T>, written: thread::Result<Result<()>>) -> Result<T> {
    match written {
        Ok(Ok(())) => produced,
        Ok(Err(error)) => Err(error),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn no_thread(source: io::Error) -> Error {
    Error::new(ErrorKind::Io, "cannot start a thread").caused_by(source)
}

fn receiver_gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

fn zstandard<T>(
    out: &mut (dyn Write + Send),
    produce: impl FnOnce(&mut (dyn Write + Send)) -> Result<T>,
) -> Result<T> {
    let (queue, blocks) = bounded::<Block>(4);
    thread::scope(|scope| {
        let writer = thread::Builder::new()
            .name("encode-zstd".to_owned())
            .spawn_scoped(scope, move || write_zstd(&blocks, out))
            .map_err(no_thread)?;
        let mut sink = Blocks::new(move |block| queue.send(block).map_err(|_| receiver_gone()));
        let produced = produce(&mut sink).and_then(|value| {
            sink.finish().map_err(output_error)?;
            Ok(value)
        });
        // Its queue ends the writer.
        drop(sink);
        first_cause(produced, writer.join())
    })
}

/// Ends the frame only after the last block: a truncated stream must not look whole.
fn write_zstd(blocks: &Receiver<Block>, out: &mut (dyn Write + Send)) -> Result<()> {
    let mut encoder = zstd::Encoder::new(&mut *out, ZSTD_LEVEL).map_err(output_error)?;
    encoder.include_checksum(true).map_err(output_error)?;
    for block in blocks.iter() {
        encoder.write_all(&block.data).map_err(output_error)?;
        if block.last {
            encoder.finish().map_err(output_error)?;
            return out.flush().map_err(output_error);
        }
    }
    Ok(())
}

fn gzip<T>(
    out: &mut (dyn Write + Send),
    produce: impl FnOnce(&mut (dyn Write + Send)) -> Result<T>,
) -> Result<T> {
    let workers = thread::available_parallelism().map_or(1, |count| count.get().min(WORKERS));
    let (job_queue, jobs) = bounded::<Job>(workers);
    let (order, pieces) = bounded::<Receiver<Result<Deflated>>>(2 * workers);
    thread::scope(move |scope| {
        for _ in 0..workers {
            let jobs = jobs.clone();
            thread::Builder::new()
                .name("encode-gzip".to_owned())
                .spawn_scoped(scope, move || compress_jobs(&jobs))
                .map_err(no_thread)?;
        }
        let writer = thread::Builder::new()
            .name("encode-write".to_owned())
            .spawn_scoped(scope, move || write_gzip(pieces, out))
            .map_err(no_thread)?;
        let mut sink = Blocks::new(move |block| {
            let (answer, piece) = bounded(1);
            order.send(piece).map_err(|_| receiver_gone())?;
            let job = Job { block, answer };
            job_queue.send(job).map_err(|_| receiver_gone())
        });
        let produced = produce(&mut sink).and_then(|value| {
            sink.finish().map_err(output_error)?;
            Ok(value)
        });
        // Its queues end the workers and the writer.
        drop(sink);
        first_cause(produced, writer.join())
    })
}

/// A piece of the stream.
struct Block {
    data: Vec<u8>,
    /// What comes before it, as far as deflate can refer to it.
    dictionary: Vec<u8>,
    last: bool,
}

/// Cuts a stream into blocks.
struct Blocks<F> {
    data: Vec<u8>,
    dictionary: Vec<u8>,
    send: F,
}

impl<F: FnMut(Block) -> io::Result<()>> Blocks<F> {
    fn new(send: F) -> Self {
        Self {
            data: Vec::with_capacity(BLOCK),
            dictionary: Vec::new(),
            send,
        }
    }

    fn cut(&mut self, last: bool) -> io::Result<()> {
        let tail = self.data[self.data.len().saturating_sub(DICTIONARY)..].to_vec();
        let data = mem::replace(&mut self.data, Vec::with_capacity(BLOCK));
        let dictionary = mem::replace(&mut self.dictionary, tail);
        (self.send)(Block {
            data,
            dictionary,
            last,
        })
    }

    fn finish(&mut self) -> io::Result<()> {
        self.cut(true)
    }
}

impl<F: FnMut(Block) -> io::Result<()>> Write for Blocks<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.data.len() == BLOCK {
            self.cut(false)?;
        }
        let count = bytes.len().min(BLOCK - self.data.len());
        self.data.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    /// Does nothing: a block that ends early would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Job {
    block: Block,
    answer: Sender<Result<Deflated>>,
}

struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
    last: bool,
}

fn compress_jobs(jobs: &Receiver<Job>) {
    let mut deflate = Compress::new(Level::new(GZIP_LEVEL), false);
    for job in jobs.iter() {
        // The writer is gone only when it failed, and then it needs no answer.
        drop(job.answer.send(compress(&mut deflate, &job.block)));
    }
}

fn compress(deflate: &mut Compress, block: &Block) -> Result<Deflated> {
    let failed = |source: flate2::CompressError| {
        Error::new(ErrorKind::Io, "cannot compress the tar stream").caused_by(source)
    };
    deflate.reset();
    if !block.dictionary.is_empty() {
        deflate.set_dictionary(&block.dictionary).map_err(failed)?;
    }
    let flush = if block.last {
        FlushCompress::Finish
    } else {
        FlushCompress::Sync
    };
    let mut bytes = Vec::with_capacity(block.data.len() / 2 + 1024);
    loop {
        let done = usize::try_from(deflate.total_in()).unwrap_or(usize::MAX);
        let rest = block.data.get(done..).unwrap_or_default();
        let status = deflate
            .compress_vec(rest, &mut bytes, flush)
            .map_err(failed)?;
        // Room that is left over means that nothing is held back any more.
        if status == Status::StreamEnd || (!block.last && bytes.len() < bytes.capacity()) {
            break;
        }
        bytes.reserve(BLOCK / 4);
    }
    let mut crc = Crc::new();
    crc.update(&block.data);
    Ok(Deflated {
        bytes,
        crc,
        last: block.last,
    })
}

/// Takes `pieces` by value: dropping it after a failure ends the producer.
fn write_gzip(
    pieces: Receiver<Receiver<Result<Deflated>>>,
    out: &mut (dyn Write + Send),
) -> Result<()> {
    // Deflate, no flags, no time, no hint, unknown system.
    out.write_all(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff")
        .map_err(output_error)?;
    let mut crc = Crc::new();
    for piece in pieces {
        let Some(deflated) = piece.recv() else {
            break;
        };
        let deflated = deflated?;
        out.write_all(&deflated.bytes).map_err(output_error)?;
        crc.combine(&deflated.crc);
        if deflated.last {
            out.write_all(&crc.sum().to_le_bytes())
                .and_then(|()| out.write_all(&crc.amount().to_le_bytes()))
                .and_then(|()| out.flush())
                .map_err(output_error)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn noise(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        (0..length)
            .map(|at| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if at % 7 < 4 {
                    b"abcdefg\0"[at % 8]
                } else {
                    state.to_be_bytes()[0]
                }
            })
            .collect()
    }

    fn encode(compression: Compression, data: &[u8], step: usize) -> Vec<u8> {
        let mut out = Vec::new();
        encoded(compression, &mut out, |sink| {
            for piece in data.chunks(step) {
                sink.write_all(piece).map_err(output_error)?;
            }
            Ok(())
        })
        .unwrap();
        out
    }

    #[test]
    fn every_length_around_a_block_comes_back() {
        for length in [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK + 17] {
            let data = noise(length);
            let packed = encode(Compression::Gzip, &data, 10_007);
            assert_eq!(packed, encode(Compression::Gzip, &data, 65_536), "{length}");
            let mut back = Vec::new();
            let mut decoder = flate2::read::GzDecoder::new(&packed[..]);
            decoder.read_to_end(&mut back).unwrap();
            assert!(back == data, "{length}");

            let packed = encode(Compression::Zstd, &data, 10_007);
            assert!(zstd::decode_all(&packed[..]).unwrap() == data, "{length}");
            assert_eq!(encode(Compression::None, &data, 999), data);
        }
    }

    #[test]
    fn formats_that_go_cannot_write_are_refused() {
        for (compression, text) in [
            (Compression::Bzip2, "unsupported compression format tar.bz2"),
            (Compression::Xz, "unsupported compression format tar.xz"),
        ] {
            let mut out = Vec::new();
            let error = encoded(compression, &mut out, |_| Ok(())).unwrap_err();
            assert_eq!(error.to_string(), text);
            assert!(out.is_empty());
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::Error::other("no room"))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_failing_output_ends_the_producer_and_is_the_error() {
        for compression in [Compression::Gzip, Compression::Zstd] {
            let error = encoded(compression, &mut Full, |sink| {
                loop {
                    sink.write_all(&[0; 4096]).map_err(output_error)?;
                }
                #[expect(unreachable_code, reason = "gives the closure its type")]
                Ok(())
            })
            .unwrap_err();
            let cause = std::error::Error::source(&error).unwrap().to_string();
            assert_eq!(cause, "no room", "{compression:?}");
        }
    }

    #[test]
    fn a_failing_producer_leaves_a_truncated_stream() {
        let data = noise(2 * BLOCK);
        for compression in [Compression::Gzip, Compression::Zstd] {
            let mut out = Vec::new();
            let error = encoded(compression, &mut out, |sink| {
                sink.write_all(&data).map_err(output_error)?;
                Err::<(), _>(Error::new(ErrorKind::Corrupt, "stop"))
            })
            .unwrap_err();
            assert_eq!(error.to_string(), "stop");
            let mut back = Vec::new();
            let whole = match compression {
                Compression::Gzip => flate2::read::GzDecoder::new(&out[..]).read_to_end(&mut back),
                _ => zstd::Decoder::new(&out[..]).unwrap().read_to_end(&mut back),
            };
            assert!(whole.is_err(), "{compression:?}");
        }
    }
}
