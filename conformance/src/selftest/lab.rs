// SPDX-License-Identifier: Apache-2.0
//! Where host cases run the suite.

use std::{
    ffi::OsStr,
    fs, io,
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, OnceLock},
    time::Duration,
};

use crate::{
    Entry, Level, Options, Outcome, Scratch, Source, case::Failure, catalogue, entry,
    report::is_released,
};

/// What host cases work with.
pub(crate) struct Lab<'a> {
    /// Where stores are made.
    pub(crate) scratch: &'a Scratch,
    /// A directory for other files.
    pub(crate) work: &'a Path,
    /// How many cases run at once.
    pub(crate) jobs: usize,
    /// The case whose failures are turned into passes.
    pub(crate) sabotage: Option<String>,
    /// What came of every case with the driver that does nothing.
    pub(crate) liar: OnceLock<Vec<Outcome>>,
}

/// What a run of the program said.
pub(crate) struct Said {
    /// Its exit status; `None` when it was killed.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl<'a> Lab<'a> {
    /// A lab on `scratch`.
    pub(crate) fn new(scratch: &'a Scratch, work: &'a Path, jobs: usize) -> Self {
        Self {
            scratch,
            work,
            jobs,
            sabotage: None,
            liar: OnceLock::new(),
        }
    }

    /// Runs `cases` with a linked-in driver; `limit` replaces the time that each may take.
    pub(crate) fn run(
        &self,
        driver: &str,
        cases: &[&'static Entry],
        limit: Option<Duration>,
    ) -> Vec<Outcome> {
        let options = Options {
            source: Source::Embedded(driver.to_owned()),
            driver_options: Vec::new(),
            seed: 0x5eed,
            jobs: self.jobs,
            patience: 1,
            fuzz: Duration::from_secs(1),
            limit,
            work: self.work.to_owned(),
            keep: None,
            sabotage: self.sabotage.clone(),
        };
        let outcomes = Mutex::new(Vec::new());
        crate::run(&options, self.scratch, cases, &|outcome| {
            outcomes.lock().expect("no holder panics").push(outcome);
        });
        outcomes.into_inner().expect("no holder panics")
    }

    /// Runs one case.
    pub(crate) fn one(&self, driver: &str, id: &str) -> Result<Outcome, Failure> {
        let wanted = entry(id).ok_or_else(|| Failure::harness(format!("there is no `{id}`")))?;
        let mut outcomes = self.run(driver, &[wanted], None);
        outcomes
            .pop()
            .ok_or_else(|| Failure::harness(format!("nothing came of {id}")))
    }

    /// What comes of every written case with the driver that declares all and does nothing.
    pub(crate) fn with_liar(&self) -> &[Outcome] {
        self.liar.get_or_init(|| {
            let all: Vec<_> = catalogue()
                .iter()
                .filter(|entry| is_released(entry) && entry.level != Level::Recorded)
                .collect();
            // What it does is done at once; a case that waits for it has seen enough by then.
            self.run("faulty-liar", &all, Some(Duration::from_secs(30)))
        })
    }

    /// The suite's own program, to be run with `arguments`.
    pub(crate) fn command<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
        let mut command = Command::new(crate::site::PROGRAM);
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs the suite's own program to its end.
    pub(crate) fn program<S: AsRef<OsStr>>(arguments: &[S]) -> io::Result<Said> {
        said(&mut Self::command(arguments))
    }

    /// An empty directory.
    pub(crate) fn directory(&self, name: &str) -> io::Result<std::path::PathBuf> {
        let path = self.work.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir(&path)?;
        Ok(path)
    }
}

/// Runs a command to its end.
pub(crate) fn said(command: &mut Command) -> io::Result<Said> {
    let done = command.output()?;
    Ok(Said {
        code: done.status.code(),
        out: String::from_utf8_lossy(&done.stdout).into_owned(),
        err: String::from_utf8_lossy(&done.stderr).into_owned(),
    })
}
