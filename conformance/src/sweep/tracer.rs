// SPDX-License-Identifier: Apache-2.0
//! Follows one run and cuts it short at the call it is told.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, ExitStatus},
};

use nix::{
    errno::Errno,
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
    },
    unistd::Pid,
};
use rustix::process::{WaitOptions, WaitStatus};

use super::{
    Action, Point, Run,
    calls::{Effect, TABLE},
    sys::{self, Registers},
};

/// Only children and tracees of this thread, of every kind: what other threads started is theirs
/// to wait for.
const MINE: u32 = (libc::__WALL | libc::__WNOTHREAD).cast_unsigned();

#[derive(Debug)]
pub(super) struct Tracer<'a, 'b> {
    action: Action<'a>,
    report: &'b Path,
    root: i32,
    live: BTreeSet<i32>,
    /// Everything that was ever followed.
    seen: BTreeSet<i32>,
    run: Run,
    /// Everything that still shows up is to be killed.
    ending: bool,
}

impl<'a, 'b> Tracer<'a, 'b> {
    /// Runs `command` to its end, on a thread of its own since ptrace obeys only the thread that
    /// attached.
    pub(super) fn run(
        mut command: Command,
        action: Action<'a>,
        report: &'b Path,
    ) -> io::Result<Run> {
        let root = i32::try_from(command.spawn()?.id()).map_err(io::Error::other)?;
        let mut this = Self {
            action,
            report,
            root,
            live: BTreeSet::from([root]),
            seen: BTreeSet::new(),
            run: Run::default(),
            ending: false,
        };
        let done = this
            .attach()
            .and_then(|begun| if begun { this.follow() } else { Ok(()) });
        if done.is_err() {
            this.ending = true;
            this.kill_all();
            // Nothing may be left running or unwaited for; the first error is the one to tell.
            this.follow().ok();
        }
        this.reap_orphans();
        done.map(|()| this.run)
    }

    /// Children of what was killed belong to this process when it is the first of its namespace;
    /// nobody else waits for them.
    fn reap_orphans(&self) {
        for thread in self.seen.iter().filter(|thread| **thread != self.root) {
            let pid = rustix::process::Pid::from_raw(*thread);
            // Most are no children of this process, or were threads.
            rustix::process::waitpid(pid, WaitOptions::NOHANG).ok();
        }
    }

    /// Waits until the process stops itself in [`begin`](super::begin); false when it ended first.
    fn attach(&mut self) -> io::Result<bool> {
        let pid = rustix::process::Pid::from_raw(self.root);
        let (_, status) = rustix::process::waitpid(pid, WaitOptions::UNTRACED)?
            .ok_or_else(|| io::Error::other("the process did not stop"))?;
        if !status.stopped() {
            self.run.status = Some(ExitStatus::from_raw(status.as_raw()));
            return Ok(false);
        }
        let options = Options::PTRACE_O_EXITKILL
            | Options::PTRACE_O_TRACESECCOMP
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_TRACEFORK
            | Options::PTRACE_O_TRACEVFORK
            | Options::PTRACE_O_TRACEEXEC;
        for entry in fs::read_dir(format!("/proc/{}/task", self.root))? {
            let name = entry?.file_name();
            let thread: i32 = name
                .to_str()
                .and_then(|name| name.parse().ok())
                .ok_or_else(|| io::Error::other("a thread has no number"))?;
            ptrace::seize(Pid::from_raw(thread), options)?;
            self.live.insert(thread);
        }
        kill(Pid::from_raw(self.root), Signal::SIGCONT)?;
        Ok(true)
    }

    fn follow(&mut self) -> io::Result<()> {
        loop {
            let options = WaitOptions::from_bits_retain(MINE);
            let (thread, status) = match rustix::process::wait(options) {
                Ok(Some((pid, status))) => (pid.as_raw_nonzero().get(), status),
                Ok(None) | Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::CHILD) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if !status.stopped() {
                self.ended(thread, status);
                continue;
            }
            self.live.insert(thread);
            self.seen.insert(thread);
            if self.ending {
                self.kill_all();
                gone_is_fine(sys::resume(thread, 0))?;
                continue;
            }
            let signal = self.stopped(thread, status)?;
            gone_is_fine(sys::resume(thread, signal))?;
        }
    }

    fn ended(&mut self, thread: i32, status: WaitStatus) {
        self.live.remove(&thread);
        if thread == self.root {
            self.run.status = Some(ExitStatus::from_raw(status.as_raw()));
            // What outlives the run would meet its filter without a tracer.
            self.ending = true;
            self.kill_all();
        }
    }

    /// Deals with a stop; the signal that the thread is resumed with.
    fn stopped(&mut self, thread: i32, status: WaitStatus) -> io::Result<i32> {
        match status.as_raw() >> 16 {
            0 => Ok(status.stopping_signal().unwrap_or(0)),
            libc::PTRACE_EVENT_SECCOMP => self.called(thread).map(|()| 0),
            libc::PTRACE_EVENT_CLONE | libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK => {
                if let Ok(new) = ptrace::getevent(Pid::from_raw(thread)) {
                    self.live.extend(i32::try_from(new));
                }
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    fn called(&mut self, thread: i32) -> io::Result<()> {
        let index = ptrace::getevent(Pid::from_raw(thread))?;
        let call = usize::try_from(index)
            .ok()
            .and_then(|index| TABLE.get(index))
            .ok_or_else(|| io::Error::other("a stop of a foreign filter"))?;
        if self.action.wants_space() && call.effect != Effect::Allocates {
            return Ok(());
        }
        let registers = Registers::of(thread)?;
        let subject = match call.occurs(thread, &registers) {
            Some(subject) if !Path::new(&subject).starts_with(self.report) => subject,
            _ => return Ok(()),
        };
        self.run.points += 1;
        let here = self.run.points;
        let point = || Point {
            number: here,
            call: call.name,
            subject,
        };
        match &mut self.action {
            Action::Count => self.run.trace.push(point()),
            Action::KillAt(at) if *at == here => {
                self.run.cut = Some(point());
                self.ending = true;
                self.kill_all();
            }
            Action::DoAndKillAt(at, deed) if *at == here => {
                self.run.cut = Some(point());
                self.ending = true;
                let done = deed();
                self.kill_all();
                done?;
            }
            Action::FailAt(at, errno) if *at == here => {
                self.run.cut = Some(point());
                registers.refuse(thread, *errno)?;
            }
            Action::FailFrom(at, errno) if *at <= here => {
                if *at == here {
                    self.run.cut = Some(point());
                }
                registers.refuse(thread, *errno)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn kill_all(&self) {
        for thread in &self.live {
            // One that is gone already is what is wanted.
            let _: Result<(), Errno> = kill(Pid::from_raw(*thread), Signal::SIGKILL);
        }
    }
}

/// A thread that another one's `exit` or `exec` took away while it was stopped.
fn gone_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        done => done,
    }
}
