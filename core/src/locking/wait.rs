// SPDX-License-Identifier: Apache-2.0
//! Waiting for a lock: with words when it takes long, and not longer than allowed.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use plywood_plugin_sdk::sys::ofd_lock::{self, LockKind};

use super::Patience;
use crate::{Error, ErrorKind, IoContext, Result};

/// After this time, and then at doubling intervals, a wait is worth a message.
const QUIET: Duration = Duration::from_secs(1);

/// One wait, from the first attempt on.
#[derive(Debug)]
pub(super) struct Wait<'a> {
    path: &'a Path,
    kind: LockKind,
    began: Instant,
    next_message: Duration,
    timeout: Option<Duration>,
}

impl<'a> Wait<'a> {
    pub(super) fn new(path: &'a Path, kind: LockKind, patience: Patience) -> Self {
        Self {
            path,
            kind,
            began: Instant::now(),
            next_message: QUIET,
            timeout: patience.timeout,
        }
    }

    /// How long to sleep before the next [`Wait::tick`].
    pub(super) fn slice(&self, now: Instant) -> Duration {
        let passed = now.duration_since(self.began);
        let until = self
            .timeout
            .map_or(self.next_message, |t| t.min(self.next_message));
        until.saturating_sub(passed).max(Duration::from_millis(1))
    }

    /// Says what is being waited for when that is due, and fails when it has taken too long.
    pub(super) fn tick(&mut self, holder: impl Fn() -> String) -> Result<()> {
        let passed = self.began.elapsed();
        if self.timeout.is_some_and(|timeout| passed >= timeout) {
            let holder = holder();
            return Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "timed out after {passed:.1?} waiting for the lock `{}`, held by {holder}",
                    self.path.display()
                ),
            )
            .subject(self.path.display().to_string())
            .hint("wait for that process to finish, or raise the lock timeout"));
        }
        if passed >= self.next_message {
            self.next_message = passed * 2;
            tracing::info!(
                lock = %self.path.display(),
                kind = ?self.kind,
                waited = ?passed,
                holder = holder(),
                "waiting for a lock"
            );
        }
        Ok(())
    }
}

/// Takes the kernel's lock.
///
/// The blocking call is made by a helper thread when the lock is not free at once. The lock
/// belongs to the open file, not to the thread. If the wait is given up, the helper is the last
/// owner of the file and closes it as soon as it gets the lock. Waiting in the kernel's queue and
/// not by polling keeps a stream of other processes from starving this one.
pub(super) fn for_kernel(
    file: Arc<File>,
    kind: LockKind,
    wait: &mut Wait<'_>,
) -> Result<Arc<File>> {
    if ofd_lock::try_lock(&file, kind).at("cannot lock", wait.path)? {
        return Ok(file);
    }
    let (done, outcome) = mpsc::channel();
    let asked = Arc::clone(&file);
    thread::Builder::new()
        .name("plywood-lock".to_owned())
        .spawn(move || {
            let result = ofd_lock::lock(&asked, kind);
            // Before the answer, so that a receiver who has gone leaves no copy behind.
            drop(asked);
            drop(done.send(result));
        })
        .at("cannot start a thread to wait for", wait.path)?;
    loop {
        match outcome.recv_timeout(wait.slice(Instant::now())) {
            Ok(result) => {
                result.at("cannot lock", wait.path)?;
                return Ok(file);
            }
            Err(mpsc::RecvTimeoutError::Timeout) => wait.tick(|| describe_holder(&file, kind))?,
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let lost = io::Error::other("the waiting thread ended without an answer");
                return Err(lost).at("cannot lock", wait.path);
            }
        }
    }
}

/// Who is in the way, for people.
fn describe_holder(file: &File, kind: LockKind) -> String {
    let pid = match ofd_lock::holder(file, kind) {
        Ok(Some(holder)) => holder.pid.or_else(|| owner_of_ofd_lock(file)),
        _ => None,
    };
    match pid {
        None => "an unknown process".to_owned(),
        Some(pid) => match fs::read_to_string(format!("/proc/{pid}/comm")) {
            Ok(name) => format!("process {pid} ({})", name.trim_end()),
            Err(_) => format!("process {pid}"),
        },
    }
}

/// The kernel names nobody for an open-file-description lock, but shows it with the descriptors
/// it can be reached through.
fn owner_of_ofd_lock(file: &File) -> Option<i32> {
    let wanted = file.metadata().ok()?;
    let own = i32::try_from(std::process::id()).ok()?;
    let pids = fs::read_dir("/proc").ok()?.flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| *pid != own)
        .find(|pid| has_ofd_lock(*pid, &wanted).unwrap_or(false))
}

fn has_ofd_lock(pid: i32, wanted: &fs::Metadata) -> io::Result<bool> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        let Ok(found) = fs::metadata(entry.path()) else {
            continue;
        };
        if (found.dev(), found.ino()) != (wanted.dev(), wanted.ino()) {
            continue;
        }
        let number = entry.file_name();
        let info = fs::read_to_string(Path::new(&format!("/proc/{pid}/fdinfo")).join(number))?;
        let held = |line: &str| line.starts_with("lock:") && line.contains("OFDLCK");
        if info.lines().any(held) {
            return Ok(true);
        }
    }
    Ok(false)
}
