// SPDX-License-Identifier: Apache-2.0
//! Runs cases, each in a process of its own.

use std::{
    ffi::OsString,
    io::{self, Read as _, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde::Serialize;

use crate::{Case, Source, Target, Verdict, leaks::Baseline};

/// The hidden argument that makes the program run one case.
pub const WORKER: &str = "__case";

/// What is run, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The driver.
    pub source: Source,
    /// Where stores are made; on the file system that is to be tested.
    pub scratch: PathBuf,
    /// Driver options, `key=value`.
    pub driver_options: Vec<String>,
    /// How long a case may take.
    pub timeout: Duration,
}

/// A case that was run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Its id.
    pub id: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What came of it.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How long it took.
    pub milliseconds: u128,
}

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// Passed.
    pub pass: usize,
    /// Failed.
    pub fail: usize,
    /// Could not be run properly.
    pub error: usize,
    /// Do not apply to what the driver declares.
    pub not_applicable: usize,
}

impl Summary {
    /// Counts outcomes.
    pub fn of(outcomes: &[Outcome]) -> Self {
        let mut summary = Self::default();
        for outcome in outcomes {
            match outcome.verdict {
                Verdict::Pass => summary.pass += 1,
                Verdict::Fail(_) => summary.fail += 1,
                Verdict::Error(_) => summary.error += 1,
                Verdict::NotApplicable => summary.not_applicable += 1,
            }
        }
        summary
    }
}

/// Runs `cases` one after the other and hands each outcome to `seen`.
pub fn run(options: &Options, cases: &[Case], mut seen: impl FnMut(&Outcome)) -> Vec<Outcome> {
    let mut outcomes = Vec::with_capacity(cases.len());
    for case in cases {
        let start = Instant::now();
        let verdict = run_one(options, case).unwrap_or_else(|error| {
            Verdict::Error(format!("the case's process could not be run: {error}"))
        });
        let milliseconds = start.elapsed().as_millis();
        let outcome = Outcome {
            id: case.id,
            name: case.name,
            verdict,
            milliseconds,
        };
        seen(&outcome);
        outcomes.push(outcome);
    }
    outcomes
}

fn run_one(options: &Options, case: &Case) -> io::Result<Verdict> {
    let root = tempfile::Builder::new()
        .prefix("conformance-")
        .tempdir_in(&options.scratch)?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(worker_arguments(options, case, root.path()))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()?;
    let mut stdout = child.stdout.take().expect("it is piped");
    let reader = thread::spawn(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text)
    });
    let end = Instant::now() + options.timeout;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > end {
            child.kill()?;
            child.wait()?;
            return Ok(Verdict::Fail(format!(
                "no end after {} s",
                options.timeout.as_secs()
            )));
        }
        thread::sleep(Duration::from_millis(5));
    };
    let text = reader
        .join()
        .map_err(|_| io::Error::other("the reader panicked"))??;
    if !status.success() {
        return Ok(Verdict::Fail(format!("the process ended with {status}")));
    }
    serde_json::from_str(&text).map_err(io::Error::other)
}

fn worker_arguments(options: &Options, case: &Case, root: &Path) -> Vec<OsString> {
    let (kind, what) = match &options.source {
        Source::Plugin(path) => ("plugin", path.into()),
        Source::Embedded(name) => ("embedded", name.into()),
    };
    let fixed = [
        WORKER.into(),
        case.id.into(),
        kind.into(),
        what,
        root.into(),
    ];
    fixed
        .into_iter()
        .chain(options.driver_options.iter().map(OsString::from))
        .collect()
}

/// Runs one case in this process and prints its verdict: what [`WORKER`] does.
///
/// # Errors
/// When the arguments are not those of [`run`], or the verdict cannot be printed.
pub fn worker(arguments: &[OsString], out: &mut dyn Write) -> io::Result<()> {
    let [id, kind, what, root, options @ ..] = arguments else {
        return Err(io::Error::other(
            "a case's process is started by the suite alone",
        ));
    };
    let case = crate::all()
        .into_iter()
        .find(|case| id == case.id)
        .ok_or_else(|| io::Error::other("no such case"))?;
    let source = if kind == "plugin" {
        Source::Plugin(what.into())
    } else {
        Source::Embedded(what.to_string_lossy().into_owned())
    };
    let options: Vec<String> = options
        .iter()
        .map(|option| option.to_string_lossy().into_owned())
        .collect();
    let verdict = check(&case, &source, Path::new(root), &options);
    serde_json::to_writer(&mut *out, &verdict)?;
    out.flush()
}

fn check(case: &Case, source: &Source, root: &Path, options: &[String]) -> Verdict {
    let alone = unshare(CloneFlags::CLONE_NEWNS).and_then(|()| {
        mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None)
    });
    if let Err(error) = alone {
        return Verdict::Error(format!("cannot make a mount namespace: {error}"));
    }
    let mut target = match Target::open(source, root, options) {
        Ok(target) => target,
        Err(error) => return Verdict::Error(format!("the driver cannot be opened: {error:?}")),
    };
    if case
        .gate
        .is_some_and(|gate| !gate(target.driver.capabilities()))
    {
        return Verdict::NotApplicable;
    }
    let home = target.home();
    let baseline = match Baseline::take() {
        Ok(baseline) => baseline,
        Err(error) => return Verdict::Error(format!("cannot look at this process: {error}")),
    };
    if let Err(failure) = (case.body)(&mut target) {
        return Verdict::Fail(failure.0);
    }
    match baseline.leaks(&home) {
        Ok(leaks) if leaks.is_empty() => Verdict::Pass,
        Ok(leaks) => Verdict::Fail(leaks.join(", ")),
        Err(error) => Verdict::Error(format!("cannot look at this process: {error}")),
    }
}
