// SPDX-License-Identifier: Apache-2.0
//! Cases that are in no catalogue: each ends in one known way.

use std::{
    fs::File,
    os::fd::IntoRawFd as _,
    process,
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};

use crate::{
    Case, Entry, Level, Target,
    case::{Failure, Outcome, case, demand},
};

pub(crate) const PASSES: &str = "GD-FIX-001";
pub(crate) const FAILS: &str = "GD-FIX-002";
pub(crate) const NOT_RUN: &str = "GD-FIX-003";
pub(crate) const CRASHES: &str = "GD-FIX-004";
pub(crate) const HANGS: &str = "GD-FIX-005";
pub(crate) const LEAKS: &str = "GD-FIX-006";
pub(crate) const ASSERTS_NOTHING: &str = "GD-FIX-007";
pub(crate) const CANNOT_BE_REMOVED: &str = "GD-FIX-008";
pub(crate) const PANICS: &str = "GD-FIX-009";

/// The directory that [`CANNOT_BE_REMOVED`] makes, to be mounted on.
pub(crate) const KEPT: &str = "kept";
/// The file that tells it so.
pub(crate) const MOUNTED: &str = "mounted";

const CASES: &[Case] = &[
    case(PASSES, passes),
    case(FAILS, fails),
    case(NOT_RUN, not_run),
    case(CRASHES, crashes),
    case(HANGS, hangs),
    case(LEAKS, leaks),
    case(ASSERTS_NOTHING, asserts_nothing),
    case(CANNOT_BE_REMOVED, cannot_be_removed),
    case(PANICS, panics),
];

/// The code of a fixture.
pub(crate) fn find(id: &str) -> Option<Case> {
    CASES.iter().find(|case| case.id == id).copied()
}

/// What the catalogue would say of a fixture.
pub(crate) fn entry(id: &str) -> Option<&'static Entry> {
    static ENTRIES: OnceLock<Vec<Entry>> = OnceLock::new();
    let entries = ENTRIES.get_or_init(|| {
        let entry = |case: &Case| Entry {
            id: case.id,
            name: "fixture",
            level: Level::Mandatory,
            gate: None,
            excuse: None,
            needs: Vec::new(),
            groups: Vec::new(),
            timeout: Duration::from_secs(if case.id == HANGS { 1 } else { 60 }),
            since: None,
            asserts: "ends in its own way",
        };
        CASES.iter().map(entry).collect()
    });
    entries.iter().find(|entry| entry.id == id)
}

fn passes(_: &mut Target) -> Outcome {
    demand!(true, "this cannot fail");
    Ok(())
}

fn fails(_: &mut Target) -> Outcome {
    demand!(false, "this fails always");
    Ok(())
}

fn not_run(_: &mut Target) -> Outcome {
    Err(Failure::not_run("the machine lacks a thing that none has"))
}

fn crashes(_: &mut Target) -> Outcome {
    // A first process of a namespace is not killed by its own signals, but by what the kernel
    // does about an illegal instruction, which is how this ends.
    process::abort();
}

fn hangs(_: &mut Target) -> Outcome {
    loop {
        thread::park();
    }
}

fn leaks(target: &mut Target) -> Outcome {
    demand!(target.root.is_dir(), "there is no root");
    let _left_open = File::open(&target.root)?.into_raw_fd();
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "the type of all cases")]
fn asserts_nothing(_: &mut Target) -> Outcome {
    Ok(())
}

fn panics(_: &mut Target) -> Outcome {
    panic!("a case that panics");
}

/// Leaves what even root cannot remove, with the help of whoever runs the suite.
fn cannot_be_removed(target: &mut Target) -> Outcome {
    let kept = target.scratch(KEPT)?;
    let end = Instant::now() + Duration::from_secs(30);
    while !kept.with_file_name(MOUNTED).exists() {
        demand!(
            Instant::now() < end,
            "nobody mounts at `{}`",
            kept.display()
        );
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
