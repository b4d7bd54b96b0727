// SPDX-License-Identifier: Apache-2.0
//! Runs cases, each in processes of its own.

use std::{
    collections::{BTreeMap, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};

use crate::{
    Backing, Entry, Scratch, Site, Source, interrupt,
    scratch::pool,
    site::{how, own_group},
    wire::{self, Leak, Status, Verdict},
    worker::INIT,
};

/// What is run, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The driver.
    pub source: Source,
    /// Driver options, `key=value`.
    pub driver_options: Vec<String>,
    /// Seeds everything random.
    pub seed: u64,
    /// How many cases run at once.
    pub jobs: usize,
    /// Multiplies every case's time limit.
    pub patience: u32,
    /// How long cases with random input go on.
    pub fuzz: Duration,
    /// Replaces every case's time limit.
    pub limit: Option<Duration>,
    /// A directory for what processes of cases say.
    pub work: PathBuf,
    /// Where the files of failed cases are kept.
    pub keep: Option<PathBuf>,
    /// The case whose failures are turned into passes.
    pub sabotage: Option<String>,
}

/// A case that was run on one scratch.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Whom it binds: `M`, `cap`, `H` or `R`.
    pub level: String,
    /// The capability that it is about.
    pub gate: Option<String>,
    /// What it ran on.
    pub scratch: String,
    /// What came of it.
    pub status: Status,
    /// Why it did not pass.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// What should have been seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<String>,
    /// What was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
    /// The second gate of the catalogue for which it does not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub excuse: Option<String>,
    /// The steps that it named, the last one being where it stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<String>,
    /// Recorded numbers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub measures: BTreeMap<String, f64>,
    /// What it left behind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub leaks: Vec<Leak>,
    /// How many assertions it made.
    pub assertions: u32,
    /// How long it took.
    pub duration_ms: u64,
    /// What its processes wrote to standard output and error.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// The mount table of its namespace at the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mountinfo: Option<String>,
    /// Files that were kept, relative to the report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub artifacts: Vec<String>,
    /// Something outside the store was changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub host_unsafe: bool,
}

impl Outcome {
    /// A case that was not started.
    pub fn not_run(entry: &Entry, scratch: &str, why: &str) -> Self {
        let verdict = Verdict::new(Status::NotRun, why);
        Self::of(entry, scratch, verdict, wire::Messages::default())
    }

    fn of(entry: &Entry, scratch: &str, verdict: Verdict, messages: wire::Messages) -> Self {
        Self {
            id: entry.id.to_owned(),
            name: entry.name.to_owned(),
            level: entry.level.word().to_owned(),
            gate: entry.gate.map(|gate| gate.name.to_owned()),
            scratch: scratch.to_owned(),
            status: verdict.status,
            message: verdict.message,
            expected: verdict.expected,
            actual: verdict.actual,
            excuse: verdict.excuse,
            steps: messages.steps,
            measures: messages.measures,
            leaks: verdict.leaks,
            assertions: verdict.assertions,
            duration_ms: 0,
            output: String::new(),
            mountinfo: None,
            artifacts: Vec::new(),
            host_unsafe: verdict.host_unsafe,
        }
    }
}

/// Why a case has no result when the program was told to stop.
const INTERRUPTED: &str = "interrupted";

/// Runs `cases` on `scratch` and hands each outcome to `seen` as soon as it is there.
///
/// # Behavior
/// - A case's process that crashes or hangs is that case's failure; the others go on.
/// - Those that may take longest begin first, so that none of them is waited for alone at the end.
///
/// # Panics
/// When `seen` does.
pub fn run(
    options: &Options,
    scratch: &Scratch,
    cases: &[&'static Entry],
    seen: &(dyn Fn(Outcome) + Sync),
) {
    let mut order = cases.to_vec();
    order.sort_by_key(|entry| std::cmp::Reverse(entry.timeout));
    let queue: Mutex<VecDeque<_>> = Mutex::new(order.into());
    let next = &|| queue.lock().expect("no holder panics").pop_front();
    thread::scope(|scope| {
        for job in 0..options.jobs.max(1) {
            let place = scratch.path(job);
            scope.spawn(move || {
                while let Some(entry) = next() {
                    seen(if interrupt::asked() {
                        Outcome::not_run(entry, &scratch.backing.spec, INTERRUPTED)
                    } else {
                        run_one(options, &scratch.backing, place, entry)
                    });
                }
            });
        }
    });
}

fn run_one(options: &Options, backing: &Backing, place: &Path, entry: &'static Entry) -> Outcome {
    let start = Instant::now();
    let mut outcome = try_one(options, backing, place, entry).unwrap_or_else(|error| {
        let text = format!("the case's process could not be run: {error}");
        let verdict = Verdict::new(Status::Error, text);
        Outcome::of(entry, &backing.spec, verdict, wire::Messages::default())
    });
    outcome.duration_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    outcome
}

fn try_one(
    options: &Options,
    backing: &Backing,
    place: &Path,
    entry: &'static Entry,
) -> io::Result<Outcome> {
    let root = tempfile::Builder::new()
        .prefix("conformance-")
        .tempdir_in(place)?;
    pool::own_root(root.path())?;
    let said = tempfile::Builder::new()
        .prefix(entry.id)
        .tempdir_in(&options.work)?;
    let site = site(options, backing, entry, root.path(), said.path());
    let output = said.path().join("output");
    let mut command = own_group(&[INIT.into(), serde_json::to_string(&site)?.into()]);
    let log = fs::File::create(&output)?;
    let mut child = command
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(Stdio::from(log))
        .spawn()?;
    let usual = entry.timeout * crowd(options.jobs) + options.fuzz;
    let limit = options.limit.unwrap_or(usual) * options.patience.max(1);
    let ended = watch(&mut child, limit)?;
    let mut messages = wire::read(&site.messages)?;
    let verdict = match (ended, messages.verdict.take()) {
        (None, _) if interrupt::asked() => Verdict::new(Status::NotRun, INTERRUPTED),
        (None, _) => Verdict::new(Status::Fail, format!("no end after {} s", limit.as_secs())),
        (Some(_), Some(verdict)) => verdict,
        (Some(status), None) => Verdict::new(
            Status::Fail,
            format!("the case's process {}", death(status)),
        ),
    };
    let mut outcome = Outcome::of(entry, &backing.spec, verdict, messages);
    outcome.output = clipped(&fs::read(&output)?);
    outcome.mountinfo = fs::read_to_string(site.messages.with_extension("mountinfo")).ok();
    if outcome.status == Status::Fail
        && let Some(keep) = &options.keep
    {
        let place = format!("{}-{}", entry.id, backing.spec.replace([':', '/'], "-"));
        keep_files(root.path(), &keep.join(&place))?;
        outcome.artifacts.push(format!("keep/{place}"));
    }
    remove(root, &mut outcome);
    Ok(outcome)
}

/// How many cases share a processor: the catalogue's limits are for one that has it for itself.
fn crowd(jobs: usize) -> u32 {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(jobs.div_ceil(processors))
        .unwrap_or(u32::MAX)
        .max(1)
}

fn site(options: &Options, backing: &Backing, entry: &Entry, root: &Path, said: &Path) -> Site {
    Site {
        source: options.source.clone(),
        root: root.to_owned(),
        options: options.driver_options.clone(),
        backing: backing.clone(),
        case: entry.id.to_owned(),
        seed: options.seed,
        fuzz: options.fuzz,
        patience: options.patience.max(1),
        messages: said.join("messages"),
        sabotaged: options.sabotage.as_deref() == Some(entry.id),
    }
}

/// Waits for the end; kills the whole group when there is none in time, or when told to stop.
fn watch(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let end = Instant::now() + limit;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > end || interrupt::asked() {
            let group = i32::try_from(child.id()).map_err(io::Error::other)?;
            killpg(Pid::from_raw(group), Signal::SIGKILL)?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

/// How the case's process ended, from the status of the one above it.
fn death(status: ExitStatus) -> String {
    match status.code() {
        Some(code) if code > 128 => {
            let signal = Signal::try_from(code - 128);
            let name = signal.map_or("a signal", Signal::as_str);
            format!("was killed by {name}")
        }
        _ => how(status),
    }
}

/// The end of what was written, when it is too much to show.
fn clipped(output: &[u8]) -> String {
    const MOST: usize = 16 << 10;
    let text = String::from_utf8_lossy(&output[output.len().saturating_sub(MOST)..]);
    text.into_owned()
}

fn keep_files(root: &Path, place: &Path) -> io::Result<()> {
    if place.exists() {
        fs::remove_dir_all(place)?;
    }
    fs::create_dir_all(place)?;
    let status = std::process::Command::new("cp")
        .args(["-a", "--one-file-system", "--"])
        .arg(root)
        .arg(place)
        .status()?;
    if status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!(
        "cannot keep the case's files: cp {}",
        how(status)
    )))
}

/// Removes the case's root: what resists is the case's failure, and must not reach the next one.
fn remove(root: tempfile::TempDir, outcome: &mut Outcome) {
    let path = root.keep();
    let detached = crate::leaks::detach_loops(&path).map_err(|error| error.to_string());
    let emptied = pool::remove_root(&path).map_err(|error| error.to_string());
    let removed = plywood::sdk::toolkit::remove_tree(&path).map_err(|error| error.to_string());
    if let Err(error) = detached.and(emptied).and(removed) {
        let what = format!("`{}` cannot be removed: {error}", path.display());
        outcome.leaks.push(Leak {
            id: "GD-LEK-006".to_owned(),
            what: what.clone(),
        });
        if outcome.status == Status::Pass {
            outcome.status = Status::Fail;
            outcome.message = what;
        }
    }
}
