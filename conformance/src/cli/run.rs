// SPDX-License-Identifier: Apache-2.0
//! `plywood-conformance run`.

use std::{
    ffi::OsString,
    fs,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    sync::Mutex,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use super::{
    HARNESS,
    say::{complain, say, sayln},
    usage,
};
use crate::{
    Entry, GATES, Options, Outcome, Results, Scratch, ScratchError, Source, Spec, Status,
    catalogue, describe, entry,
    images::{self, Images},
    report::{
        self, Environment, PluginFacts, RunFacts, SuiteFacts, Terminal, Totals, Waiver,
        is_released, profile_of,
    },
};

#[derive(clap::Args)]
pub(super) struct RunOptions {
    /// The plugin file.
    #[arg(required_unless_present = "embedded")]
    plugin: Option<PathBuf>,
    /// A driver that is linked into this program.
    #[arg(long, conflicts_with = "plugin", value_name = "NAME")]
    embedded: Option<String>,
    /// Where stores are made: a directory, loop:TYPE[+MOUNT-OPTION...] or tmpfs.
    #[arg(long, value_delimiter = ',', value_name = "SCRATCH")]
    scratch: Vec<String>,
    /// Where the suite's own files lie, images of loop file systems too: a directory or `memory`;
    /// memory for images when there is enough of it and none is a pool's, and else /var/tmp.
    #[arg(long, value_name = "PLACE")]
    images: Option<String>,
    /// Only cases whose id matches; `*` stands for anything.
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    only: Vec<String>,
    /// Only cases of these sets (quick, slow, crash, perf).
    #[arg(long, value_delimiter = ',', value_name = "SET")]
    group: Vec<String>,
    /// Without the cases of these sets.
    #[arg(long, value_delimiter = ',', value_name = "SET")]
    skip_group: Vec<String>,
    /// Only cases of these profiles.
    #[arg(long, value_delimiter = ',', value_name = "PROFILE")]
    profile: Vec<String>,
    /// Options for the driver, `key=value`.
    #[arg(long = "storage-opt", value_name = "KEY=VALUE")]
    options: Vec<String>,
    /// Seeds everything random (decimal or 0x...); drawn when it is not given.
    #[arg(long, value_parser = seed, value_name = "NUMBER")]
    seed: Option<u64>,
    /// How many cases run at once; four for each processor, when not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Multiplies the time that each case may take, and what is timed in it.
    #[arg(long, default_value_t = 1)]
    patience: u32,
    /// How many seconds the cases with random input go on, each; 600 is what a release deserves.
    #[arg(long, default_value_t = 2, value_name = "SECONDS")]
    fuzz: u32,
    /// Where the report goes.
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// A `results.json` that the report compares this run with.
    #[arg(long, requires = "out", value_name = "FILE")]
    compare: Option<PathBuf>,
    /// Keeps the files of failed cases below the report.
    #[arg(long, requires = "out")]
    keep_on_fail: bool,
    /// A file with a line `ID REASON` for each case that is known to fail.
    #[arg(long, value_name = "FILE")]
    known_failures: Option<PathBuf>,
    /// Prints the results as JSON instead of text.
    #[arg(long)]
    json: bool,
    /// One line for every case.
    #[arg(long, short)]
    verbose: bool,
    /// Turns this case's failures into passes, to test the suite itself.
    #[arg(long, hide = true, value_name = "ID")]
    sabotage: Option<String>,
}

fn seed(text: &str) -> Result<u64, String> {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.map_err(|error| error.to_string())
}

/// What is wrong, and with which exit status the program says so.
pub(super) struct Refusal(pub(super) u8, pub(super) String);

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self(HARNESS, error.to_string())
    }
}

pub(super) fn run(options: &RunOptions, raw: &[OsString]) -> u8 {
    match try_run(options, raw) {
        Ok(results) => results.exit_code(),
        Err(Refusal(super::USAGE, text)) => usage(&text),
        Err(Refusal(code, text)) => {
            complain!("error: {text}");
            code
        }
    }
}

fn wrong(text: impl Into<String>) -> Refusal {
    Refusal(super::USAGE, text.into())
}

fn try_run(options: &RunOptions, raw: &[OsString]) -> Result<Results, Refusal> {
    let source = source(options)?;
    let cases = selection(options)?;
    let specs = specs(options)?;
    Images::check(options.images.as_deref(), &specs).map_err(wrong)?;
    let waivers = waivers(options.known_failures.as_deref())?;
    let plugin = describe::plugin(&source).map_err(wrong)?;
    if !nix::unistd::geteuid().is_root() {
        let text = "stores with layers of every owner are made and mounted: run it as root";
        return Err(Refusal(HARNESS, text.to_owned()));
    }
    own_mounts()?;
    let work = images::work(options.images.as_deref())?;
    let images = Images::make(options.images.as_deref(), work.path(), &specs)?;
    let (scratches, unavailable) = scratches(&specs, &images.path)?;
    let reasons: Vec<_> = unavailable.values().map(String::as_str).collect();
    let nowhere = scratches.is_empty().then(|| reasons.join("; "));
    let mut environment =
        describe::environment(scratches.iter().map(|s| s.backing.clone()).collect());
    environment.unavailable = unavailable;
    if scratches.iter().any(Scratch::has_image) {
        environment.images = images.shown;
    }
    let mut results = no_results(run_facts(options, raw), plugin, environment)?;
    results.options.clone_from(&options.options);
    results.waivers = waivers;
    for scratch in &scratches {
        let description = describe::open(&source, &options.options, scratch)?;
        if let Some(refusal) = description.refusal {
            complain!(
                "{}: the driver cannot be opened: {refusal}",
                scratch.backing.spec
            );
            continue;
        }
        results.plugin.capabilities = description.capabilities;
        results.plugin.max_depth = description.max_depth;
    }
    let display = Display::new(options);
    display.head(&results);
    let runner = Options {
        source: source.clone(),
        driver_options: options.options.clone(),
        seed: results.run.seed,
        jobs: results.run.jobs,
        patience: options.patience,
        fuzz: std::time::Duration::from_secs(options.fuzz.into()),
        limit: None,
        work: work.path().to_owned(),
        keep: options
            .out
            .as_ref()
            .filter(|_| options.keep_on_fail)
            .map(|out| out.join("keep")),
        sabotage: options.sabotage.clone(),
    };
    let sink = report::Sink::open(options.out.as_deref(), options.compare.as_deref())?;
    sink.started(&results)?;
    let results = Mutex::new(results);
    let seen = |outcome: Outcome| {
        let mut results = results.lock().expect("no holder panics");
        let outcome = waived(outcome, &results.waivers);
        display.outcome(&outcome, &results);
        results.cases.push(outcome.clone());
        sink.case(&outcome, &mut results);
    };
    for mut scratch in scratches {
        widen(&mut scratch, runner.jobs.min(cases.len()), &images.path);
        crate::run(&runner, &scratch, &cases, &seen);
    }
    if let Some(why) = &nowhere {
        for entry in &cases {
            seen(Outcome::not_run(entry, "none", why));
        }
    }
    let mut results = results.into_inner().expect("no holder panics");
    finish(&mut results, &source)?;
    sink.finish(&mut results)?;
    display.tail(&results, options.out.as_deref());
    Ok(results)
}

/// The results of a run that has not begun.
fn no_results(
    run: RunFacts,
    plugin: PluginFacts,
    environment: Environment,
) -> Result<Results, Refusal> {
    Ok(Results {
        schema: report::SCHEMA.to_owned(),
        suite: SuiteFacts {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            catalogue_sha256: crate::catalogue_sha256(),
            program_sha256: describe::sha256(&fs::read(crate::site::PROGRAM)?),
        },
        run,
        plugin,
        environment,
        options: Vec::new(),
        cases: Vec::new(),
        profiles: std::collections::BTreeMap::new(),
        undeclared: std::collections::BTreeMap::new(),
        waivers: Vec::new(),
        totals: Totals::default(),
    })
}

fn source(options: &RunOptions) -> Result<Source, Refusal> {
    match (&options.plugin, &options.embedded) {
        (Some(path), _) => match path.canonicalize() {
            Ok(path) => Ok(Source::Plugin(path)),
            Err(error) => Err(wrong(format!("cannot read `{}`: {error}", path.display()))),
        },
        (None, Some(name)) => Ok(Source::Embedded(name.clone())),
        (None, None) => Err(wrong("name a plugin file or a driver that is linked in")),
    }
}

/// Whether `id` is what `pattern` describes; `*` stands for anything.
pub(crate) fn matches(pattern: &str, id: &str) -> bool {
    match pattern.split_once('*') {
        None => id == pattern,
        Some((head, tail)) => {
            let Some(rest) = id.strip_prefix(head) else {
                return false;
            };
            (0..=rest.len())
                .any(|start| rest.is_char_boundary(start) && matches(tail, &rest[start..]))
        }
    }
}

fn selection(options: &RunOptions) -> Result<Vec<&'static Entry>, Refusal> {
    let known = |wanted: &[String], exists: &dyn Fn(&str) -> bool, what: &str| match wanted
        .iter()
        .find(|wanted| !exists(wanted))
    {
        Some(unknown) => Err(wrong(format!("there is no {what} `{unknown}`"))),
        None => Ok(()),
    };
    let all: Vec<&'static Entry> = catalogue()
        .iter()
        .filter(|entry| is_released(entry))
        .collect();
    let set = |name: &str| catalogue().iter().any(|entry| entry.is_in(name));
    known(&options.group, &set, "set of cases")?;
    known(&options.skip_group, &set, "set of cases")?;
    let profile = |name: &str| {
        ["core", "recorded"].contains(&name) || GATES.iter().any(|gate| gate.profile == name)
    };
    known(&options.profile, &profile, "profile")?;
    let pattern = |pattern: &str| all.iter().any(|entry| matches(pattern, entry.id));
    known(&options.only, &pattern, "case that matches")?;
    let mut cases = all.clone();
    cases.retain(|entry| {
        let any = |list: &[String], fits: &dyn Fn(&str) -> bool| {
            list.is_empty() || list.iter().any(|item| fits(item))
        };
        any(&options.only, &|pattern| matches(pattern, entry.id))
            && any(&options.group, &|set| entry.is_in(set))
            && any(&options.profile, &|name| profile_of(entry) == name)
            && !options.skip_group.iter().any(|set| entry.is_in(set))
    });
    if cases.is_empty() {
        return Err(wrong("no case is selected by these filters together"));
    }
    Ok(cases)
}

fn specs(options: &RunOptions) -> Result<Vec<Spec>, Refusal> {
    if options.scratch.is_empty() {
        return Ok(vec![Spec::Directory(PathBuf::from("/var/tmp"))]);
    }
    let specs = options.scratch.iter().map(|text| text.parse());
    specs.collect::<Result<_, String>>().map_err(wrong)
}

fn waivers(file: Option<&Path>) -> Result<Vec<Waiver>, Refusal> {
    let Some(file) = file else {
        return Ok(Vec::new());
    };
    let text = fs::read_to_string(file)
        .map_err(|error| wrong(format!("cannot read `{}`: {error}", file.display())))?;
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| match line.split_once(' ') {
            Some((id, reason)) if entry(id).is_some() => Ok(Waiver {
                id: id.to_owned(),
                reason: reason.trim().to_owned(),
            }),
            _ => Err(wrong(format!(
                "`{}`: `{line}` is not `ID REASON` with the id of a case",
                file.display()
            ))),
        })
        .collect()
}

fn waived(mut outcome: Outcome, waivers: &[Waiver]) -> Outcome {
    if waivers.iter().any(|waiver| waiver.id == outcome.id) {
        outcome.status = match outcome.status {
            Status::Fail | Status::Error => Status::Xfail,
            Status::Pass => Status::Xpass,
            other => other,
        };
    }
    outcome
}

/// What the suite mounts is seen by itself alone, and goes away with it however it ends.
pub(super) fn own_mounts() -> Result<(), Refusal> {
    let none = None::<&str>;
    unshare(CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none))
        .map_err(|error| Refusal(HARNESS, format!("cannot make a mount namespace: {error}")))
}

/// Gives each case at work a file system for itself, where that makes it faster.
fn widen(scratch: &mut Scratch, jobs: usize, images: &Path) {
    if let Err(error) = scratch.widen(jobs, images) {
        complain!("warning: {error}; cases at work share what file systems there are");
    }
}

type Unavailable = std::collections::BTreeMap<String, String>;

fn scratches(specs: &[Spec], work: &Path) -> Result<(Vec<Scratch>, Unavailable), Refusal> {
    let mut made = Vec::new();
    let mut unavailable = Unavailable::new();
    for spec in specs {
        match Scratch::make(spec, work) {
            Ok(scratch) => made.push(scratch),
            Err(ScratchError::Unavailable(why)) => {
                unavailable.insert(spec.to_string(), why);
            }
            Err(ScratchError::Failed(why)) => return Err(Refusal(HARNESS, why)),
        }
    }
    Ok((made, unavailable))
}

fn run_facts(options: &RunOptions, raw: &[OsString]) -> RunFacts {
    let mut filters = Vec::new();
    for (name, values) in [
        ("--only", &options.only),
        ("--group", &options.group),
        ("--skip-group", &options.skip_group),
        ("--profile", &options.profile),
    ] {
        filters.extend(values.iter().map(|value| format!("{name} {value}")));
    }
    RunFacts {
        id: format!(
            "{:032x}",
            u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..))
        ),
        started: now(),
        finished: String::new(),
        seed: options.seed.unwrap_or_else(|| fastrand::u64(..)),
        argv: raw.iter().map(|word| word.display().to_string()).collect(),
        complete: filters.is_empty(),
        filters,
        events_sha256: String::new(),
        jobs: options.jobs.unwrap_or_else(usual_jobs).max(1),
    }
}

/// Cases wait for a good part of their time, so that one for each processor leaves it idle.
pub(super) fn usual_jobs() -> usize {
    4 * std::thread::available_parallelism().map_or(1, usize::from)
}

fn now() -> String {
    jiff::Timestamp::now()
        .round(jiff::Unit::Second)
        .map_or_else(|error| error.to_string(), |now| now.to_string())
}

fn finish(results: &mut Results, source: &Source) -> Result<(), Refusal> {
    results.run.finished = now();
    results.plugin.sha256_after = describe::sha256(&fs::read(describe::file_of(source))?);
    results.settle();
    Ok(())
}

struct Display {
    quiet: bool,
    verbose: bool,
    terminal: Terminal,
}

impl Display {
    fn new(options: &RunOptions) -> Self {
        let terminal = io::stdout().is_terminal();
        #[expect(
            clippy::disallowed_methods,
            reason = "NO_COLOR is part of a command line"
        )]
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            quiet: options.json,
            verbose: options.verbose || !terminal,
            terminal: Terminal {
                colour: terminal && !plain,
            },
        }
    }

    fn head(&self, results: &Results) {
        if self.quiet {
            return;
        }
        let (suite, plugin, host) = (&results.suite, &results.plugin, &results.environment);
        sayln!(
            "plywood-conformance {}  catalogue sha256:{}  seed {:#x}",
            suite.version,
            &suite.catalogue_sha256[..12],
            results.run.seed
        );
        sayln!(
            "driver   {} {} by {}  abi {}  sha256:{}",
            plugin.name,
            plugin.version,
            plugin.vendor,
            plugin.abi,
            plugin.sha256.get(..12).unwrap_or_default()
        );
        sayln!(
            "host     Linux {} {}  {}  cpus {}",
            host.kernel,
            host.arch,
            host.libc,
            host.cpus
        );
        for scratch in &host.scratch {
            sayln!("scratch  {} ({})", scratch.spec, scratch.fstype);
        }
        if !host.images.is_empty() {
            sayln!("images   {}", host.images);
        }
        sayln!("declares {}\n", plugin.capabilities.join(" "));
    }

    fn outcome(&self, outcome: &Outcome, results: &Results) {
        if self.quiet {
            return;
        }
        let bad = [Status::Fail, Status::Error, Status::Xpass].contains(&outcome.status);
        if self.verbose {
            sayln!("{}", self.terminal.line(outcome));
        }
        if bad {
            let again = results.again(&outcome.id);
            say!("{}", self.terminal.failure(outcome, &again));
        }
    }

    fn tail(&self, results: &Results, out: Option<&Path>) {
        if self.quiet {
            match serde_json::to_string(results) {
                Ok(text) => sayln!("{text}"),
                Err(error) => complain!("error: {error}"),
            }
            return;
        }
        say!("\n{}", report::summary(results));
        let place = out.map(|out| format!("   {}", out.join("report.html").display()));
        sayln!("RESULT: {}{}", results.verdict(), place.unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_ids() {
        assert!(matches("GD-WHO-012", "GD-WHO-012"));
        assert!(!matches("GD-WHO-01", "GD-WHO-012"));
        assert!(matches("GD-WHO-*", "GD-WHO-012"));
        assert!(matches("*-012", "GD-WHO-012"));
        assert!(matches("GD-*-012", "GD-WHO-012"));
        assert!(!matches("GD-*-013", "GD-WHO-012"));
        assert!(matches("*", "anything"));
    }
}
