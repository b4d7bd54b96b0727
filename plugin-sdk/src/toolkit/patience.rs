// SPDX-License-Identifier: Apache-2.0
//! Work that may never end, because a file system does not answer, in threads that can be left
//! behind.
//!
//! # Behavior
//! - A thread that is left behind ends as soon as the file system answers, or the process does. A
//!   request that a FUSE server has taken and does not finish keeps even a killed thread; ending
//!   the server, or its connection below `/sys/fs/fuse/connections`, ends it too.

use std::{
    fs::File,
    io::{self, Read},
    panic::resume_unwind,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    },
    thread,
    time::Duration,
};

use crate::{DriverError, DriverErrorCode, IoContext, Result};

/// How a long piece of work says that it is still going on; it ends with the work.
#[derive(Debug)]
pub struct Pulse {
    beats: SyncSender<()>,
    state: Arc<AtomicU8>,
}

/// The work goes on, and somebody waits for it.
const AWAITED: u8 = 0;
/// The work goes on, and nobody waits for it any more.
const LEFT: u8 = 1;
/// The work is over.
const OVER: u8 = 2;

/// How many threads were left behind and still wait.
static WAITING: AtomicUsize = AtomicUsize::new(0);

/// So many of them, and what hangs is not asked once more: a program that runs for long must not
/// fill up with threads.
const MOST_WAITING: usize = 64;

impl Pulse {
    /// Says that something was done; the limit begins anew.
    ///
    /// # Errors
    /// [`TIMEOUT`](DriverErrorCode::TIMEOUT) once nobody waits any more: the work is to stop.
    pub fn beat(&self) -> Result<()> {
        if self.state.load(Ordering::Acquire) == LEFT {
            return Err(DriverError::new(
                DriverErrorCode::TIMEOUT,
                "nobody waits for the result any more",
            ));
        }
        // One beat that nobody has looked at yet is as good as two.
        let _unseen = self.beats.try_send(());
        Ok(())
    }
}

/// Runs `work` on a thread of its own, and leaves that behind when it has said nothing for `limit`.
///
/// # Behavior
/// - Work that is left behind still runs until it asks its [`Pulse`], so it must not do what would
///   be wrong later.
/// - A panic of `work` goes on in the caller.
///
/// # Errors
/// Those of `work`; [`TIMEOUT`](DriverErrorCode::TIMEOUT), which names `path`, also when too many
/// threads wait already; and when no thread can be started.
pub fn within<T: Send + 'static>(
    limit: Duration,
    action: &str,
    path: &Path,
    work: impl FnOnce(&Pulse) -> Result<T> + Send + 'static,
) -> Result<T> {
    if WAITING.load(Ordering::Acquire) >= MOST_WAITING {
        return Err(timed_out(limit, action, path));
    }
    let state = Arc::new(AtomicU8::new(AWAITED));
    let (beats, heard) = mpsc::sync_channel(1);
    let pulse = Pulse {
        beats,
        state: Arc::clone(&state),
    };
    let running = thread::Builder::new().name("patience".to_owned());
    let running = running.spawn(move || {
        let ending = Ending(Arc::clone(&pulse.state));
        let done = work(&pulse);
        drop(ending);
        done
    });
    let running = running.at("cannot start a thread for", path)?;
    loop {
        match heard.recv_timeout(limit) {
            Ok(()) => {}
            // The work is over: its end of the channel is gone.
            Err(RecvTimeoutError::Disconnected) => {
                return running.join().unwrap_or_else(|panic| resume_unwind(panic));
            }
            Err(RecvTimeoutError::Timeout) => {
                WAITING.fetch_add(1, Ordering::AcqRel);
                let order = Ordering::AcqRel;
                let left = state.compare_exchange(AWAITED, LEFT, order, Ordering::Acquire);
                if left.is_ok() {
                    return Err(timed_out(limit, action, path));
                }
                // It ended at the last moment; the channel says so next.
                WAITING.fetch_sub(1, Ordering::AcqRel);
            }
        }
    }
}

/// Notes the end of the work, also by a panic.
struct Ending(Arc<AtomicU8>);

impl Drop for Ending {
    fn drop(&mut self) {
        if self.0.swap(OVER, Ordering::AcqRel) == LEFT {
            WAITING.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

fn timed_out(limit: Duration, action: &str, path: &Path) -> DriverError {
    let message = format!(
        "{action} `{}`: no answer within {} s",
        path.display(),
        limit.as_secs_f32()
    );
    let mut error = DriverError::new(DriverErrorCode::TIMEOUT, message)
        .object(path.display().to_string())
        .remedy(
            "see whether the program that serves this directory is running; when it hangs, end it \
             or its connection below /sys/fs/fuse/connections",
        );
    error.errno = Some(libc::ETIMEDOUT);
    error
}

/// The bytes that are read ahead in one piece.
const CHUNK: usize = 256 * 1024;

/// A file that is read by a thread of its own, so that a read fails and does not hang.
#[derive(Debug)]
pub struct PatientFile {
    path: PathBuf,
    limit: Duration,
    chunks: Receiver<io::Result<Vec<u8>>>,
    current: io::Cursor<Vec<u8>>,
    ended: bool,
}

impl PatientFile {
    /// Opens the file at `path`.
    ///
    /// # Errors
    /// What opening reports, and [`TIMEOUT`](DriverErrorCode::TIMEOUT).
    pub fn open(path: &Path, limit: Duration) -> Result<Self> {
        let wanted = path.to_owned();
        let file = within(limit, "cannot open", path, move |_| {
            File::open(&wanted).at("cannot open", &wanted)
        })?;
        let (filled, chunks) = mpsc::sync_channel(4);
        let reader = thread::Builder::new().name("patience".to_owned());
        let reader = reader.spawn(move || fill(file, &filled));
        drop(reader.at("cannot start a thread for", path)?);
        Ok(Self {
            path: path.to_owned(),
            limit,
            chunks,
            current: io::Cursor::default(),
            ended: false,
        })
    }
}

fn fill(mut file: File, filled: &SyncSender<io::Result<Vec<u8>>>) {
    loop {
        let mut chunk = vec![0; CHUNK];
        let read = file.read(&mut chunk).map(|length| {
            chunk.truncate(length);
            chunk
        });
        match &read {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Ok(chunk) if !chunk.is_empty() => {}
            // The end, or a failure, is the last that is said; who hears it finds the file closed.
            _ => {
                drop(file);
                return drop(filled.send(read));
            }
        }
        if filled.send(read).is_err() {
            return;
        }
    }
}

impl Read for PatientFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.current.read(buffer)?;
        if length > 0 || buffer.is_empty() || self.ended {
            return Ok(length);
        }
        let next = match self.chunks.recv_timeout(self.limit) {
            Ok(next) => next,
            Err(RecvTimeoutError::Disconnected) => Err(io::Error::other("the reader is gone")),
            Err(RecvTimeoutError::Timeout) => {
                let error = timed_out(self.limit, "cannot read", &self.path);
                Err(io::Error::new(io::ErrorKind::TimedOut, error))
            }
        };
        self.ended = !matches!(&next, Ok(chunk) if !chunk.is_empty());
        self.current = io::Cursor::new(next?);
        self.current.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt, time::Instant};

    use super::*;

    const SHORT: Duration = Duration::from_millis(100);

    #[test]
    fn what_was_read_to_its_end_is_closed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "text").unwrap();
        let path = fs::canonicalize(file.path()).unwrap();
        let opened = || {
            let table = fs::read_dir("/proc/self/fd").unwrap();
            let targets = table.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
            targets.filter(|target| *target == path).count()
        };
        // On one processor the reader may stand wherever it lets go of it.
        let all = rustix::thread::sched_getaffinity(None).unwrap();
        let first = (0..rustix::thread::CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu));
        let mut one = rustix::thread::CpuSet::new();
        one.set(first.unwrap());
        rustix::thread::sched_setaffinity(None, &one).unwrap();
        let before = opened();
        for _ in 0..200 {
            let mut text = String::new();
            let mut patient = PatientFile::open(&path, Duration::from_secs(10)).unwrap();
            patient.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), opened()), ("text", before));
        }
    }

    #[test]
    fn what_answers_is_heard() {
        let path = Path::new("/store");
        assert_eq!(within(SHORT, "a", path, |_| Ok(7)).unwrap(), 7);
        let slow = within(SHORT, "a", path, |pulse| {
            for _ in 0..10 {
                thread::sleep(SHORT / 3);
                pulse.beat()?;
            }
            Ok("whole")
        });
        assert_eq!(slow.unwrap(), "whole");
    }

    #[test]
    fn what_does_not_answer_is_left_and_told_so() {
        let (told, hears) = mpsc::channel();
        let start = Instant::now();
        let error = within(SHORT, "cannot stat", Path::new("/store/x"), move |pulse| {
            thread::sleep(SHORT * 4);
            told.send(pulse.beat().unwrap_err().code).unwrap();
            Ok(())
        });
        let error = error.unwrap_err();
        assert!(start.elapsed() < SHORT * 3, "{:?}", start.elapsed());
        assert_eq!(error.code, DriverErrorCode::TIMEOUT);
        assert_eq!(error.object.as_deref(), Some("/store/x"));
        assert_eq!(hears.recv().unwrap(), DriverErrorCode::TIMEOUT);
        // It is no longer counted once it has ended.
        let start = Instant::now();
        while WAITING.load(Ordering::Acquire) > 1 {
            assert!(start.elapsed() < SHORT * 20, "a thread is counted for ever");
            thread::sleep(SHORT / 10);
        }
    }

    #[test]
    fn a_panic_arrives_where_it_is_waited_for() {
        let outcome = std::panic::catch_unwind(|| {
            // Printing a backtrace takes its time.
            within::<()>(SHORT * 100, "a", Path::new("/"), |_| panic!("as asked"))
        });
        assert!(outcome.is_err());
    }

    #[test]
    fn a_file_arrives_whole_and_a_silent_one_fails() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("blob");
        let bytes: Vec<u8> = (0..=250).cycle().take(3 * CHUNK + 5).collect();
        fs::write(&path, &bytes).unwrap();
        let mut read = Vec::new();
        let mut file = PatientFile::open(&path, SHORT).unwrap();
        file.read_to_end(&mut read).unwrap();
        assert!(read == bytes);
        assert_eq!(file.read(&mut [0]).unwrap(), 0);

        // A pipe that somebody holds open for writing and writes nothing to.
        let pipe = root.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let error = PatientFile::open(&pipe, SHORT).unwrap_err();
        assert_eq!(error.code, DriverErrorCode::TIMEOUT);
        let writer = fs::OpenOptions::new().read(true).write(true).open(&pipe);
        let writer = writer.unwrap();
        writer
            .set_permissions(fs::Permissions::from_mode(0o600))
            .unwrap();
        let error = PatientFile::open(&pipe, SHORT)
            .unwrap()
            .read(&mut [0])
            .unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
