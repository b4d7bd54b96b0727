// SPDX-License-Identifier: Apache-2.0
//! Group SLF: what the suite says of drivers that leak, lie, or offer the least.

use std::collections::BTreeSet;

use super::{
    Lab, REFERENCE, fixtures,
    mutants::{FINDS_NOTHING, covered},
    suite::EXISTS,
};
use crate::{
    Entry, Level, Status,
    case::{Outcome, demand, same},
    catalogue, entry,
    report::is_released,
};

pub(super) fn leak(lab: &Lab<'_>) -> Outcome {
    let own = lab.one(REFERENCE, fixtures::LEAKS)?;
    same!(
        Status::Fail,
        own.status,
        "a case that leaves a file open, reported"
    );
    for (driver, id) in [
        ("faulty-leaks-mount", "GD-LEK-001"),
        ("faulty-leaks-descriptor", "GD-LEK-002"),
        ("faulty-leaks-loop-device", "GD-LEK-003"),
        ("faulty-leaves-thread", "GD-LEK-005"),
        ("faulty-leaves-process", "GD-LEK-005"),
        ("faulty-litters-tmp", "GD-LEK-006"),
    ] {
        // A case that is about something else.
        let outcome = lab.one(driver, EXISTS)?;
        same!(
            Status::Fail,
            outcome.status,
            "`{driver}` in a case that is not about leaks"
        );
        demand!(
            outcome.leaks.iter().any(|leak| leak.id == id),
            "`{driver}` is not found to break {id}: {:?}",
            outcome.leaks
        );
    }
    Ok(())
}

pub(super) fn liar(lab: &Lab<'_>) -> Outcome {
    let outcomes = lab.with_liar();
    let gated = |entry: &&Entry| is_released(entry) && entry.level == Level::Capability;
    let gates: BTreeSet<_> = catalogue()
        .iter()
        .filter(gated)
        .filter_map(|entry| Some(entry.gate?.name))
        .collect();
    demand!(!gates.is_empty(), "no case is about a capability");
    let covered = covered();
    for gate in gates {
        // What a file system keeps by itself holds for a driver that does nothing, too.
        let found = covered.iter().filter_map(|id| entry(id)?.gate);
        let failed = found.into_iter().any(|of| of.name == gate)
            || outcomes.iter().any(|outcome| {
                let of_gate = entry(&outcome.id).and_then(|entry| entry.gate);
                of_gate.is_some_and(|of| of.name == gate) && outcome.status == Status::Fail
            });
        demand!(
            failed,
            "no case notices that a driver declares `{gate}` and does nothing"
        );
    }
    Ok(())
}

pub(super) fn honest_minimal(lab: &Lab<'_>) -> Outcome {
    // What takes long does not depend on what is declared, and the reference driver runs it.
    let released: Vec<_> = catalogue()
        .iter()
        .filter(|entry| is_released(entry) && entry.level != Level::Recorded)
        .filter(|entry| !entry.is_in("slow") && !entry.is_in("crash"))
        .collect();
    let outcomes = lab.run("reference-minimal", &released, None);
    same!(released.len(), outcomes.len(), "the cases that were run");
    let unexpected: Vec<_> = outcomes
        .iter()
        .filter(|outcome| {
            let gate = entry(&outcome.id).and_then(|entry| entry.gate);
            // What a tree is like is declared, since it cannot be refused.
            let gated = gate.is_some_and(|gate| gate.profile != "tree");
            match outcome.status {
                Status::NotApplicable => false,
                Status::Pass => gated,
                _ => true,
            }
        })
        .map(|outcome| {
            format!(
                "{} {} {}",
                outcome.id,
                outcome.status.word(),
                outcome.message
            )
        })
        .collect();
    demand!(
        unexpected.is_empty(),
        "a driver that declares nothing and keeps to that: {}",
        unexpected.join("; ")
    );
    Ok(())
}

/// A case that no faulty driver fails may be one that cannot fail.
pub(super) fn mutants(lab: &Lab<'_>) -> Outcome {
    let covered = covered();
    let unbroken: BTreeSet<_> = lab
        .with_liar()
        .iter()
        // What does not apply to it is about plugin files, and it is linked in.
        .filter(|outcome| !matches!(outcome.status, Status::Fail | Status::NotApplicable))
        .map(|outcome| outcome.id.as_str())
        .collect();
    let mandatory = catalogue()
        .iter()
        .filter(|entry| is_released(entry) && entry.level == Level::Mandatory);
    let without: Vec<_> = mandatory
        .filter(|entry| unbroken.contains(entry.id) && !covered.contains(entry.id))
        .map(|entry| entry.id)
        .collect();
    let excused: BTreeSet<_> = FINDS_NOTHING.iter().map(|(id, _)| *id).collect();
    let unexcused: Vec<_> = without.iter().filter(|id| !excused.contains(*id)).collect();
    demand!(
        unexcused.is_empty(),
        "no faulty driver fails these mandatory cases, and no reason is given: {unexcused:?}"
    );
    let needless: Vec<_> = excused.intersection(&covered).collect();
    demand!(
        needless.is_empty(),
        "cases are excused that find a fault: {needless:?}"
    );
    Ok(())
}
