// SPDX-License-Identifier: Apache-2.0
//! Kills a process before each system call with which it changes something.
//!
//! The process that is swept is a role of a case: it opens the store, prepares what it needs, calls
//! [`begin`] and does one operation. Its calls are counted from there, in all of its threads and in
//! every process that it starts. A run is then repeated with a kill before the first of them, the
//! second, and so on, until a run ends by itself: what several threads do varies from run to run.
//!
//! A seccomp filter stops the process at those calls and nowhere else, so a run that is followed
//! costs little more than one that is not.
//!
//! What is written through a shared memory map is not seen, nor are the single operations behind
//! one `io_uring_enter`. `fsync` and its like are no points of their own: a kill before one leaves
//! exactly what a kill before the next change leaves.

mod calls;
mod filter;
mod sys;
#[cfg(test)]
mod tests;
mod tracer;

use std::{
    fmt, fs, io,
    path::Path,
    process::{Command, ExitStatus},
    thread,
};

use nix::sys::signal::{Signal, raise};

/// What is done to a run.
pub enum Action<'a> {
    /// Nothing: its points are counted and named.
    Count,
    /// It is killed before the call of that number, the first being 1.
    KillAt(u64),
    /// The same, with something done first while the process stands before the call.
    DoAndKillAt(u64, &'a mut (dyn FnMut() -> io::Result<()> + Send)),
    /// The call of that number, of those that need space, fails with this error number.
    FailAt(u64, i32),
    /// So does every later one: a disk stays full.
    FailFrom(u64, i32),
}

impl Action<'_> {
    fn wants_space(&self) -> bool {
        matches!(self, Self::FailAt(..) | Self::FailFrom(..))
    }
}

impl fmt::Debug for Action<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count => write!(f, "Count"),
            Self::KillAt(at) => write!(f, "KillAt({at})"),
            Self::DoAndKillAt(at, _) => write!(f, "DoAndKillAt({at})"),
            Self::FailAt(at, errno) => write!(f, "FailAt({at}, {errno})"),
            Self::FailFrom(at, errno) => write!(f, "FailFrom({at}, {errno})"),
        }
    }
}

/// A call before which a run can be cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// Its number, from 1.
    pub number: u64,
    /// The system call.
    pub call: &'static str,
    /// The path that it is about, as far as it has one.
    pub subject: String,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            number,
            call,
            subject,
        } = self;
        write!(f, "change {number}, {call}")?;
        if subject.is_empty() {
            return Ok(());
        }
        write!(f, " `{subject}`")
    }
}

/// What a run did.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// How many points it passed; those that need space, when calls are made to fail.
    pub points: u64,
    /// Every point, when they were only counted.
    pub trace: Vec<Point>,
    /// Where it was killed, or which call failed first; `None` when it did not get that far.
    pub cut: Option<Point>,
    /// How the process ended.
    pub status: Option<ExitStatus>,
}

/// Runs `command` and does `action` to it.
///
/// # Behavior
/// - The program calls [`begin`]; one that ends before that gives a run without points.
/// - Whatever it started and left running is killed when it ends: helpers share its fate.
/// - The command's output must go where it needs no reader (a file, nothing, the caller's own).
/// - What it does to `report` or below is no change: the file in which it says how it went.
///
/// # Errors
/// When the process cannot be started or traced.
pub fn run(command: Command, action: Action<'_>, report: &Path) -> io::Result<Run> {
    thread::scope(|scope| {
        scope
            .spawn(|| tracer::Tracer::run(command, action, report))
            .join()
            .map_err(|_| io::Error::other("the tracer panicked"))?
    })
}

/// Says that the operation begins: from here on the process is followed.
///
/// # Behavior
/// - Stops until the tracer has attached, so only a process that [`run`] started may call it.
///
/// # Errors
/// When nothing traces the process, or the kernel has no seccomp filters.
pub fn begin() -> io::Result<()> {
    raise(Signal::SIGSTOP)?;
    let status = fs::read_to_string("/proc/self/status")?;
    let traced = status
        .lines()
        .any(|line| line.starts_with("TracerPid:") && !line.ends_with("\t0"));
    if !traced {
        return Err(io::Error::other("nothing follows this process"));
    }
    sys::install(&mut filter::program())
}

/// Makes `fsync` and its like succeed at once, in this process and in all that it starts from now
/// on.
///
/// # Behavior
/// - What a process has written survives its death without them, and a sweep of kills takes seconds
///   instead of minutes. A case about power cuts or full disks must not call it.
///
/// # Errors
/// When the kernel has no seccomp filters.
pub fn do_not_wait_for_disks() -> io::Result<()> {
    sys::install(&mut filter::no_waiting())
}
