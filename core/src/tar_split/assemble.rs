// SPDX-License-Identifier: Apache-2.0
//! Rebuilds a layer's original tar stream from its record and its files.
//!
//! One thread reads the record and lays out chunks of the stream, with gaps for the content of
//! small files; workers fill the gaps and stream large files; the caller's thread writes the chunks
//! in order. Every queue is bounded, so memory does not grow with the layer.

use std::{
    io::{BufReader, Read, Write},
    path::PathBuf,
    thread,
};

use base64_simd::STANDARD;
use flate2::bufread::MultiGzDecoder;

use super::{
    files::{Content, Roots},
    parse::{Entries, Entry, FileEntry, RecordError},
};
use crate::{
    Error, ErrorKind, Result,
    archive::stream::output_error,
    channel::{Receiver, Sender, bounded},
};

/// The unit in which the stream moves between threads.
const CHUNK: usize = 256 << 10;
/// The largest file that is put between headers of the same chunk.
const SMALL: u64 = 64 << 10;
/// Chunks under way between the record's reader and the writer.
const QUEUE: usize = 8;
/// The most threads that open and read files.
const WORKERS: usize = 4;

/// Writes the stream that `record` describes, with files from `roots`; returns its bytes.
///
/// # Behavior
/// - `record` is gzip with any number of members.
/// - A file is taken from the first root that has it; no symlink leads out of a root, and a
///   symlink in a file's place is refused.
/// - Exactly the recorded number of bytes is taken from each file, and its checksum is verified.
/// - Trailing bytes of a file that has grown are left out.
///
/// # Errors
/// [`ErrorKind::Corrupt`] for a damaged record, and for a file that is missing, too short, or
/// different from what was recorded (the file is the subject). What was written to `out` before an
/// error is a part of the stream.
pub fn assemble(
    record: impl Read + Send,
    roots: &[PathBuf],
    out: &mut (dyn Write + Send),
) -> Result<u64> {
    let roots = &Roots::open(roots)?;
    let workers = thread::available_parallelism().map_or(1, |count| count.get().min(WORKERS));
    let (order, slots) = bounded(QUEUE);
    let (job_queue, jobs) = bounded(QUEUE);
    let (recycle, free) = bounded(QUEUE);
    thread::scope(move |scope| {
        let planner = Planner {
            chunk: Chunk::new(&free),
            free: free.clone(),
            order,
            jobs: job_queue,
        };
        spawn(scope, "assemble-record", move || planner.run(record))?;
        for _ in 0..workers {
            let worker = Worker {
                roots,
                jobs: jobs.clone(),
                free: free.clone(),
            };
            spawn(scope, "assemble-files", move || worker.run())?;
        }
        // The last receiver must go when the workers end, or the planner would wait for ever.
        drop((jobs, free));
        write_in_order(slots, &recycle, out)
    })
}

fn spawn<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() + Send + 'scope,
) -> Result<()> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, work)
        .map(drop)
        .map_err(|source| Error::new(ErrorKind::Io, "cannot start a thread").caused_by(source))
}

/// What the writer writes next.
enum Slot {
    Ready(Chunk),
    Pending(Receiver<Result<Chunk>>),
    Failed(Error),
}

/// Takes `slots` by value: dropping it after a failure ends the planner.
fn write_in_order(
    slots: Receiver<Slot>,
    recycle: &Sender<Chunk>,
    out: &mut (dyn Write + Send),
) -> Result<u64> {
    let mut total = 0;
    let mut write = |chunk: Chunk| -> Result<()> {
        out.write_all(&chunk.bytes[..chunk.used])
            .map_err(output_error)?;
        total += chunk.used as u64;
        // A full queue means that enough chunks are free.
        recycle.offer(chunk);
        Ok(())
    };
    for slot in slots {
        match slot {
            Slot::Ready(chunk) => write(chunk)?,
            Slot::Pending(chunks) => {
                for chunk in chunks {
                    write(chunk?)?;
                }
            }
            Slot::Failed(error) => return Err(error),
        }
    }
    out.flush().map_err(output_error)?;
    Ok(total)
}

/// A piece of the stream, and the gaps in it that files fill.
struct Chunk {
    bytes: Box<[u8]>,
    used: usize,
    gaps: Vec<Gap>,
    names: Vec<u8>,
}

struct Gap {
    at: usize,
    size: usize,
    crc: u64,
    name_end: usize,
}

impl Chunk {
    fn new(free: &Receiver<Chunk>) -> Self {
        match free.try_recv() {
            Some(mut chunk) => {
                chunk.used = 0;
                chunk.gaps.clear();
                chunk.names.clear();
                chunk
            }
            None => Self {
                bytes: vec![0; CHUNK].into_boxed_slice(),
                used: 0,
                gaps: Vec::new(),
                names: Vec::new(),
            },
        }
    }

    fn room(&self) -> usize {
        self.bytes.len() - self.used
    }

    fn append<'b>(&mut self, bytes: &'b [u8]) -> &'b [u8] {
        let count = bytes.len().min(self.room());
        self.bytes[self.used..self.used + count].copy_from_slice(&bytes[..count]);
        self.used += count;
        &bytes[count..]
    }
}

/// Work for a thread that reads files; the answer goes where the writer waits for it.
enum Job {
    Fill(Chunk, Sender<Result<Chunk>>),
    Stream(Box<Content>, Sender<Result<Chunk>>),
}

/// The other end is gone: whoever left knows why.
struct Gone;

/// Reads the record and lays out chunks.
struct Planner {
    chunk: Chunk,
    free: Receiver<Chunk>,
    order: Sender<Slot>,
    jobs: Sender<Job>,
}

enum Stop {
    Gone,
    Failed(Error),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<RecordError> for Stop {
    fn from(error: RecordError) -> Self {
        Self::Failed(error.into())
    }
}

impl Planner {
    fn run(mut self, record: impl Read) {
        if let Err(Stop::Failed(error)) = self.plan(record) {
            // The writer may have failed first and be gone.
            drop(self.order.send(Slot::Failed(error)));
        }
    }

    fn plan(&mut self, record: impl Read) -> Result<(), Stop> {
        let record = MultiGzDecoder::new(BufReader::with_capacity(64 << 10, record));
        let mut entries = Entries::new(record);
        while let Some((entry, line)) = entries.next()? {
            match entry {
                Entry::Segment(payload) => self.segment(&payload, line)?,
                Entry::File(file) if file.size == 0 => {}
                Entry::File(file) => self.file(&file)?,
            }
        }
        Ok(self.flush()?)
    }

    fn segment(&mut self, payload: &[u8], line: u64) -> Result<(), Stop> {
        let bad = || Stop::from(RecordError::Base64 { line });
        let length = STANDARD.decoded_length(payload).map_err(|_| bad())?;
        if length <= self.chunk.room() {
            let place = &mut self.chunk.bytes[self.chunk.used..self.chunk.used + length];
            let out = base64_simd::Out::from_slice(place);
            let decoded = STANDARD.decode(payload, out).map_err(|_| bad())?.len();
            self.chunk.used += decoded;
            return Ok(());
        }
        let decoded = STANDARD.decode_to_vec(payload).map_err(|_| bad())?;
        let mut rest = self.chunk.append(&decoded);
        while !rest.is_empty() {
            self.flush()?;
            rest = self.chunk.append(rest);
        }
        Ok(())
    }

    fn file(&mut self, file: &FileEntry<'_>) -> Result<(), Stop> {
        if file.size > SMALL {
            self.flush()?;
            let (answer, chunks) = bounded(2);
            let content = Content::new(file.name.to_vec(), file.size, file.crc);
            self.send(
                Slot::Pending(chunks),
                Job::Stream(Box::new(content), answer),
            )?;
            return Ok(());
        }
        let size = usize::try_from(file.size).unwrap_or(CHUNK);
        if size > self.chunk.room() {
            self.flush()?;
        }
        let chunk = &mut self.chunk;
        chunk.names.extend_from_slice(&file.name);
        chunk.gaps.push(Gap {
            at: chunk.used,
            size,
            crc: file.crc,
            name_end: chunk.names.len(),
        });
        chunk.used += size;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Gone> {
        if self.chunk.used == 0 {
            return Ok(());
        }
        let chunk = std::mem::replace(&mut self.chunk, Chunk::new(&self.free));
        if chunk.gaps.is_empty() {
            return self.order.send(Slot::Ready(chunk)).map_err(|_| Gone);
        }
        let (answer, chunks) = bounded(1);
        self.send(Slot::Pending(chunks), Job::Fill(chunk, answer))
    }

    fn send(&self, slot: Slot, job: Job) -> Result<(), Gone> {
        self.order.send(slot).map_err(|_| Gone)?;
        self.jobs.send(job).map_err(|_| Gone)
    }
}

/// Opens and reads files.
struct Worker<'a> {
    roots: &'a Roots,
    jobs: Receiver<Job>,
    free: Receiver<Chunk>,
}

impl Worker<'_> {
    fn run(self) {
        for job in self.jobs.iter() {
            // The writer is gone only when it failed, and then it needs no answer.
            match job {
                Job::Fill(chunk, answer) => drop(answer.send(self.fill(chunk))),
                Job::Stream(content, answer) => {
                    if let Err(error) = self.stream(content, &answer) {
                        drop(answer.send(Err(error)));
                    }
                }
            }
        }
    }

    fn fill(&self, mut chunk: Chunk) -> Result<Chunk> {
        let mut name_start = 0;
        for gap in &chunk.gaps {
            let name = &chunk.names[name_start..gap.name_end];
            name_start = gap.name_end;
            let place = &mut chunk.bytes[gap.at..gap.at + gap.size];
            self.roots.read_whole(name, place, gap.crc)?;
        }
        Ok(chunk)
    }

    fn stream(&self, mut content: Box<Content>, answer: &Sender<Result<Chunk>>) -> Result<()> {
        let file = self.roots.open_file(content.name())?;
        while content.left() > 0 {
            let mut chunk = Chunk::new(&self.free);
            chunk.used = content.read(&file, &mut chunk.bytes)?;
            if answer.send(Ok(chunk)).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}
