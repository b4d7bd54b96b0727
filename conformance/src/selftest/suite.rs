// SPDX-License-Identifier: Apache-2.0
//! Group SLF: the suite says what it sees, and nothing else.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use nix::mount::{MsFlags, mount};

use super::{HostCase, Lab, REFERENCE, drivers, fixtures, host, lab::said};
use crate::{
    Entry, Results, Status,
    case::{Failure, Outcome, demand, same},
    catalogue, entry,
    report::is_released,
};

pub(super) const CASES: &[HostCase] = &[
    host("GD-SLF-001", always_pass),
    host("GD-SLF-002", always_fail),
    host("GD-SLF-003", always_not_run),
    host("GD-SLF-004", crash),
    host("GD-SLF-005", hang),
    host("GD-SLF-006", drivers::leak),
    host("GD-SLF-007", drivers::liar),
    host("GD-SLF-008", drivers::honest_minimal),
    host("GD-SLF-009", drivers::mutants),
    host("GD-SLF-010", assertion_count),
    host("GD-SLF-011", accounting),
    host("GD-SLF-012", unknown_filter),
    host("GD-SLF-013", dirty_start),
    host("GD-SLF-014", teardown_failure),
];

/// A short case that every driver without its fault passes.
pub(super) const EXISTS: &str = "GD-LIF-008";
/// The driver that fails it.
const EXISTS_LIES: &str = "faulty-exists-lies";

fn always_pass(lab: &Lab<'_>) -> Outcome {
    let outcome = lab.one(REFERENCE, fixtures::PASSES)?;
    same!(Status::Pass, outcome.status, "a case that passes, reported");
    same!(1, outcome.assertions, "its assertions");
    let run = ["run", "--embedded", REFERENCE, "--only", EXISTS, "--json"];
    let said = Lab::program(&run)?;
    same!(Some(0), said.code, "the exit status of a run that passes");
    let results = results(&said.out)?;
    same!(1, results.totals.pass, "the passes that it reports");
    Ok(())
}

fn always_fail(lab: &Lab<'_>) -> Outcome {
    let outcome = lab.one(REFERENCE, fixtures::FAILS)?;
    same!(Status::Fail, outcome.status, "a case that fails, reported");
    same!("this fails always", outcome.message, "the failure's text");
    let outcome = lab.one(REFERENCE, fixtures::PANICS)?;
    same!(Status::Fail, outcome.status, "a case that panics, reported");
    let run = ["run", "--embedded", EXISTS_LIES, "--only", EXISTS, "--json"];
    let said = Lab::program(&run)?;
    same!(Some(1), said.code, "the exit status of a run that fails");
    same!(
        1,
        results(&said.out)?.totals.fail,
        "the failures that it reports"
    );
    Ok(())
}

fn always_not_run(lab: &Lab<'_>) -> Outcome {
    let outcome = lab.one(REFERENCE, fixtures::NOT_RUN)?;
    same!(
        Status::NotRun,
        outcome.status,
        "a case that cannot run, reported"
    );
    demand!(!outcome.message.is_empty(), "no reason is given for it");
    // Without the tools, the file system that is asked for cannot be made.
    let run = [
        "run",
        "--embedded",
        REFERENCE,
        "--only",
        EXISTS,
        "--scratch",
        "loop:xfs",
        "--json",
    ];
    let nothing = lab.directory("no-tools")?;
    let said = said(Lab::command(&run).env("PATH", nothing))?;
    same!(
        Some(2),
        said.code,
        "the exit status of a run that misses a tool ({})",
        said.err
    );
    let results = results(&said.out)?;
    let statuses: Vec<_> = results.cases.iter().map(|case| case.status).collect();
    same!(
        [Status::NotRun],
        statuses[..],
        "what it reports of the one case"
    );
    demand!(
        results
            .cases
            .iter()
            .all(|case| case.message.contains("xfs")),
        "the reason does not say what is missing: {:?}",
        results.cases
    );
    Ok(())
}

/// Runs a fixture and one that passes; both are there, and the second passes.
fn beside_a_pass(lab: &Lab<'_>, id: &str) -> Result<crate::Outcome, Failure> {
    let find = |id| entry(id).ok_or_else(|| Failure::harness(format!("there is no {id}")));
    let cases: [&'static Entry; 2] = [find(id)?, find(fixtures::PASSES)?];
    let mut outcomes = lab.run(REFERENCE, &cases, None);
    outcomes.sort_by_key(|outcome| outcome.id != id);
    let passed = outcomes.pop().filter(|last| last.status == Status::Pass);
    demand!(
        passed.is_some(),
        "the case beside {id} did not pass: {outcomes:?}"
    );
    outcomes
        .pop()
        .ok_or_else(|| Failure::new(format!("nothing came of {id}")))
}

fn crash(lab: &Lab<'_>) -> Outcome {
    let outcome = beside_a_pass(lab, fixtures::CRASHES)?;
    same!(
        Status::Fail,
        outcome.status,
        "a case whose process dies, reported"
    );
    demand!(
        outcome.message.contains("killed by SIG"),
        "the text does not say what killed it: {}",
        outcome.message
    );
    Ok(())
}

fn hang(lab: &Lab<'_>) -> Outcome {
    let start = Instant::now();
    let outcome = beside_a_pass(lab, fixtures::HANGS)?;
    same!(
        Status::Fail,
        outcome.status,
        "a case that never ends, reported"
    );
    demand!(
        outcome.message.contains("no end after"),
        "the text does not say that it took too long: {}",
        outcome.message
    );
    demand!(
        start.elapsed() < Duration::from_secs(30),
        "it took {} s to stop a case that may take one",
        start.elapsed().as_secs()
    );
    let alive = processes_with(fixtures::HANGS)?;
    demand!(alive.is_empty(), "its processes are still there: {alive:?}");
    Ok(())
}

/// The processes whose command line contains `text`, after a moment for them to end.
fn processes_with(text: &str) -> Result<Vec<String>, Failure> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let line = fs::read_to_string(format!("/proc/{name}/cmdline")).unwrap_or_default();
            if name.parse::<u32>().is_ok() && line.contains(text) {
                found.push(format!("{name}: {}", line.replace('\0', " ")));
            }
        }
        if found.is_empty() || Instant::now() > end {
            return Ok(found);
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn assertion_count(lab: &Lab<'_>) -> Outcome {
    let outcome = lab.one(REFERENCE, fixtures::ASSERTS_NOTHING)?;
    same!(
        Status::Error,
        outcome.status,
        "a case that asserts nothing, reported"
    );
    same!(0, outcome.assertions, "its assertions");
    Ok(())
}

fn accounting(lab: &Lab<'_>) -> Outcome {
    let out = lab.directory("accounting")?;
    let place = out.to_string_lossy();
    let run = [
        "run",
        "--embedded",
        EXISTS_LIES,
        "--only",
        "GD-LIF-00*",
        "--out",
        &place,
    ];
    let said = Lab::program(&run)?;
    same!(Some(1), said.code, "the exit status ({})", said.err);
    let results = results(&fs::read_to_string(out.join("results.json"))?)?;
    let totals = results.totals;
    let released = catalogue()
        .iter()
        .filter(|entry| is_released(entry))
        .count();
    same!(
        released,
        totals.all,
        "the cases that results.json accounts for"
    );
    let counts = Status::ALL.map(|status| totals.count(status));
    same!(
        totals.all,
        counts.iter().sum::<usize>(),
        "the sum of its statuses"
    );
    demand!(
        totals.fail > 0 && totals.pass > 0,
        "not all statuses are seen: {totals:?}"
    );
    let [pass, fail, error, not_applicable, not_run, xfail, xpass] = counts;
    let identity = format!(
        "{} = {pass} pass + {fail} fail + {error} error + {not_applicable} n/a + {not_run} not \
         run + {xfail} xfail + {xpass} xpass",
        totals.all
    );
    demand!(
        said.out.lines().any(|line| line == identity),
        "the terminal does not say `{identity}`"
    );
    let bad = fail + xpass;
    let junit = fs::read_to_string(out.join("junit.xml"))?;
    // One more says that the run is not complete, which makes it fail.
    for (part, count) in [
        ("<testcase ", released + 1),
        ("<failure ", bad + 1),
        ("<error ", error),
        ("<skipped ", not_applicable + not_run + xfail),
    ] {
        same!(count, junit.matches(part).count(), "`{part}` in junit.xml");
    }
    let html = fs::read_to_string(out.join("report.html"))?;
    for (class, count) in [
        ("pass", pass),
        ("fail", bad),
        ("error", error),
        ("na", not_applicable),
        ("notrun", not_run),
        ("xfail", xfail),
    ] {
        let row = format!("<details class=\"case {class}\"");
        same!(
            count,
            html.matches(&row).count(),
            "`{class}` in report.html"
        );
    }
    Ok(())
}

fn unknown_filter(_: &Lab<'_>) -> Outcome {
    for filter in [
        ["--only", "GD-LIF-999"],
        ["--only", "exists"],
        ["--group", "nosuch"],
        ["--profile", "nosuch"],
    ] {
        let run = [&["run", "--embedded", REFERENCE][..], &filter].concat();
        let said = Lab::program(&run)?;
        same!(Some(4), said.code, "the exit status with {filter:?}");
        demand!(
            said.err.contains(filter[1]),
            "the message does not name `{}`: {}",
            filter[1],
            said.err
        );
    }
    Ok(())
}

fn dirty_start(lab: &Lab<'_>) -> Outcome {
    let scratch = lab.directory("dirty")?;
    let place = scratch.to_string_lossy();
    // What the killed run leaves of its own goes away with the lab.
    let work = lab.work.to_string_lossy();
    let hang = [
        "run",
        "--images",
        &work,
        "--embedded",
        "faulty-deadlocks",
        "--only",
        "GD-LIF-012",
        "--scratch",
        &place,
    ];
    let mut killed = Lab::command(&hang).stdout(Stdio::null()).spawn()?;
    let end = Instant::now() + Duration::from_secs(30);
    let tree = |name: &str| {
        let roots = fs::read_dir(&scratch).into_iter().flatten().flatten();
        roots
            .map(|root| root.path().join(name))
            .any(|path| path.exists())
    };
    while !tree("graph/faulty-deadlocks/layers") {
        demand!(Instant::now() < end, "the run to be killed made no store");
        thread::sleep(Duration::from_millis(10));
    }
    killed.kill()?;
    killed.wait()?;
    let alive = processes_with(&place)?;
    demand!(alive.is_empty(), "a killed run leaves processes: {alive:?}");
    demand!(tree("graph"), "the killed run left nothing to start with");
    let clean = [
        "run",
        "--embedded",
        REFERENCE,
        "--only",
        "GD-LIF-012",
        "--scratch",
        &place,
    ];
    let said = Lab::program(&clean)?;
    same!(
        Some(0),
        said.code,
        "the exit status of the next run ({})",
        said.out
    );
    Ok(())
}

fn teardown_failure(lab: &Lab<'_>) -> Outcome {
    let (outcome, kept) = thread::scope(|scope| {
        let mounter = scope.spawn(|| mount_on_kept(lab.scratch.path(0)));
        let outcome = beside_a_pass(lab, fixtures::CANNOT_BE_REMOVED);
        (outcome, mounter.join())
    });
    let kept = kept.map_err(|_| Failure::harness("the thread that mounts panicked"))??;
    nix::mount::umount(&kept)?;
    let root = kept.parent().unwrap_or(&kept);
    fs::remove_dir_all(root)?;
    let outcome = outcome?;
    same!(
        Status::Fail,
        outcome.status,
        "a case that cannot be cleaned up, reported"
    );
    demand!(
        outcome.message.contains("cannot be removed"),
        "the text does not say that: {}",
        outcome.message
    );
    Ok(())
}

/// Waits for the case that wants to be mounted on, and does it.
fn mount_on_kept(scratch: &Path) -> Result<PathBuf, Failure> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        for root in fs::read_dir(scratch)? {
            let kept = root?.path().join(fixtures::KEPT);
            if kept.is_dir() {
                let none = None::<&str>;
                mount(Some(&kept), &kept, none, MsFlags::MS_BIND, none)?;
                fs::write(kept.with_file_name(fixtures::MOUNTED), "")?;
                return Ok(kept);
            }
        }
        demand!(
            Instant::now() < end,
            "the case made no directory to mount on"
        );
        thread::sleep(Duration::from_millis(2));
    }
}

fn results(text: &str) -> Result<Results, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::new(format!("these are no results: {error}: {text}")))
}
