// SPDX-License-Identifier: Apache-2.0
//! The drivers with a fault each, the one without, and which case finds what.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use plywood_conformance_faulty::{FAULTS, FaultInfo};

use super::Lab;
use crate::{Entry, Outcome, Status, catalogue, entry, report::is_released};

/// The driver without a fault.
pub(crate) const REFERENCE: &str = "reference";

/// Mandatory cases that no faulty driver fails, with the reason.
pub(super) const FINDS_NOTHING: &[(&str, &str)] = &[
    ("GD-INI-012", CORE),
    ("GD-IDS-005", IDS),
    ("GD-IDS-006", IDS),
    ("GD-IDS-007", IDS),
    ("GD-IDS-008", IDS),
    ("GD-IDS-009", IDS),
    ("GD-IDS-010", IDS),
    ("GD-IDS-012", IDS),
    ("GD-IDS-013", IDS),
    ("GD-IDS-017", IDS),
    (
        "GD-COW-015",
        "locks are the kernel's, whatever a driver does",
    ),
    ("GD-FID-027", "the file system below the layer answers"),
    ("GD-DIF-026", TAR),
    ("GD-DIF-028", TAR),
    ("GD-SEC-003", TAR),
    ("GD-SEC-004", TAR),
    ("GD-SEC-005", TAR),
    ("GD-SEC-007", TAR),
    ("GD-SEC-014", TAR),
    ("GD-SEC-015", TAR),
    ("GD-SEC-016", TAR),
    (
        "GD-IDM-015",
        "core looks at the directories above the mount by itself",
    ),
    (
        "GD-CON-006",
        "the record of the stream, which core keeps, makes an error of whatever a driver loses",
    ),
];
const TAR: &str = "core reads the tar, and refuses or repairs it before a driver has a part in it";
const CORE: &str = "core refuses it before it asks the driver";
const IDS: &str =
    "the type of ids keeps it from every driver that is linked in; GD-ABI-020 asks plugin files";

/// How long a case may wait for a faulty driver.
const LIMIT: Duration = Duration::from_secs(20);
/// The drivers whose fault is that there is no end to wait for.
const NEVER_END: &[&str] = &["faulty-deadlocks"];

/// What came of a faulty driver.
#[derive(Debug)]
pub(crate) enum Caught {
    /// Each case that must find the fault did.
    By(Vec<Outcome>),
    /// This is why not.
    Not(String),
}

/// Runs, for each fault, the cases that must find it.
pub(crate) fn catch_all<'f>(
    lab: &Lab<'_>,
    faults: &[&'f FaultInfo],
) -> Vec<(&'f FaultInfo, Caught)> {
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..lab.jobs {
            scope.spawn(|| {
                while let Some(fault) = faults.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let caught = catch(lab, fault);
                    all.lock().expect("no holder panics").push((*fault, caught));
                }
            });
        }
    });
    let mut all = all.into_inner().expect("no holder panics");
    let place = |name| faults.iter().position(|fault| fault.name == name);
    all.sort_by_key(|(fault, _)| place(fault.name));
    all
}

fn catch(lab: &Lab<'_>, fault: &FaultInfo) -> Caught {
    let mut cases = Vec::new();
    for id in fault.cases {
        match entry(id).filter(|entry| entry.since.is_some()) {
            Some(entry) => cases.push(entry),
            None => return Caught::Not(format!("{id}, which must find it, is not written")),
        }
    }
    let mut outcomes = lab.run(fault.name, &cases, Some(LIMIT));
    // On a slow machine a case may need its time.
    for outcome in &mut outcomes {
        if !NEVER_END.contains(&fault.name)
            && outcome.message.starts_with("no end after")
            && let Ok(again) = lab.one(fault.name, &outcome.id)
        {
            *outcome = again;
        }
    }
    match outcomes
        .iter()
        .find(|outcome| outcome.status != Status::Fail)
    {
        Some(outcome) => Caught::Not(format!(
            "{} should have failed and was {} {}",
            outcome.id,
            outcome.status.word(),
            outcome.message
        )),
        None => Caught::By(outcomes),
    }
}

/// Runs everything, or what is quick, with the driver without a fault; returns what did not end
/// well.
pub(crate) fn reference(lab: &Lab<'_>, quick: bool) -> (usize, Vec<Outcome>) {
    let all: Vec<&'static Entry> = catalogue()
        .iter()
        .filter(|entry| is_released(entry) && (!quick || entry.is_in("quick")))
        .collect();
    let mut outcomes = lab.run(REFERENCE, &all, None);
    let count = outcomes.len();
    outcomes.retain(|outcome| !matches!(outcome.status, Status::Pass | Status::NotApplicable));
    outcomes.sort_by(|one, other| one.id.cmp(&other.id));
    (count, outcomes)
}

/// The cases that a faulty driver of the table fails.
pub(super) fn covered() -> BTreeSet<&'static str> {
    FAULTS
        .iter()
        .flat_map(|fault| fault.cases)
        .copied()
        .collect()
}

/// The table of faults and cases, in Markdown.
pub(crate) fn matrix() -> String {
    let mut text = String::from(
        "# Faults and the cases that find them\n\n\
         <!-- Written by `plywood-conformance selftest --matrix`. -->\n\n\
         `plywood-conformance selftest` runs the suite against drivers with one fault each. Each \
         must fail the cases that stand beside it; a correct driver, `reference`, must pass \
         everything. Beside these there is `faulty-liar`, which declares everything and does \
         nothing: a mandatory case that neither it nor a driver of this table fails may be one \
         that cannot fail, so GD-SLF-009 allows none but those that are listed at the end.\n\n\
         | driver | fault | cases |\n|---|---|---|\n",
    );
    for fault in FAULTS {
        let cases = fault.cases.join(", ");
        writeln!(text, "| `{}` | {} | {cases} |", fault.name, fault.text)
            .expect("a string takes everything");
    }
    if !FINDS_NOTHING.is_empty() {
        text.push_str("\nNo faulty driver fails these:\n\n| case | why |\n|---|---|\n");
        for (id, why) in FINDS_NOTHING {
            writeln!(text, "| {id} | {why} |").expect("a string takes everything");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_matrix_is_current() {
        let published = include_str!("../../../docs/conformance-mutants.md");
        assert!(
            published == matrix(),
            "write it anew: plywood-conformance selftest --matrix > docs/conformance-mutants.md"
        );
    }

    #[test]
    fn every_case_that_must_find_a_fault_is_in_the_catalogue() {
        for fault in FAULTS {
            for id in fault.cases {
                assert!(entry(id).is_some(), "{}: there is no {id}", fault.name);
            }
        }
    }
}
