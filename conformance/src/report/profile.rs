// SPDX-License-Identifier: Apache-2.0
//! Profiles: what a set of cases comes to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Totals, is_released};
use crate::{GATES, Level, Status, catalogue};

/// What a profile comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProfileResult {
    /// Everything passed.
    Success,
    /// Nothing failed, but not everything was run.
    Partial,
    /// Something failed.
    Failed,
    /// The driver declares none of it.
    Undeclared,
}

impl ProfileResult {
    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Failed => "failed",
            Self::Undeclared => "undeclared",
        }
    }
}

/// A profile's cases and what they come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Profile {
    /// What it comes to.
    pub result: ProfileResult,
    /// How its cases ended.
    pub totals: Totals,
    /// Cases that were selected and could not be run.
    pub not_run: Vec<String>,
    /// Whether cases were filtered out.
    pub filtered: bool,
}

/// The profile of a case: `core`, `recorded`, or that of its capability.
pub(crate) fn profile_of(entry: &crate::Entry) -> &'static str {
    match (entry.level, entry.gate) {
        (Level::Recorded, _) => "recorded",
        (_, Some(gate)) => gate.profile,
        _ => "core",
    }
}

pub(super) fn all(
    by_case: &BTreeMap<&'static str, Status>,
    capabilities: &[String],
    selected: &BTreeSet<String>,
) -> BTreeMap<String, Profile> {
    let mut members: BTreeMap<&str, Vec<(&str, Status)>> = BTreeMap::new();
    for entry in catalogue().iter().filter(|entry| is_released(entry)) {
        let status = by_case.get(entry.id).copied().unwrap_or(Status::NotRun);
        let members = members.entry(profile_of(entry)).or_default();
        members.push((entry.id, status));
    }
    let declared = |profile: &str| {
        let mut gates = GATES
            .iter()
            .filter(|gate| gate.profile == profile)
            .peekable();
        gates.peek().is_none() || gates.any(|gate| capabilities.iter().any(|can| can == gate.name))
    };
    members
        .into_iter()
        .map(|(name, cases)| {
            let mut run: Vec<_> = cases.clone();
            run.retain(|(id, _)| selected.contains(*id));
            let totals = Totals::of(run.iter().map(|(_, status)| *status));
            let result = if totals.fail + totals.xpass > 0 {
                ProfileResult::Failed
            } else if !declared(name) {
                ProfileResult::Undeclared
            } else if totals.error + totals.not_run > 0 || run.is_empty() {
                ProfileResult::Partial
            } else {
                ProfileResult::Success
            };
            let not_run = run.iter().filter(|(_, status)| *status == Status::NotRun);
            let profile = Profile {
                result,
                totals,
                not_run: not_run.map(|(id, _)| (*id).to_owned()).collect(),
                filtered: run.len() < cases.len(),
            };
            (name.to_owned(), profile)
        })
        .collect()
}

/// Undeclared capabilities, with the cases behind each.
pub(super) fn undeclared(capabilities: &[String]) -> BTreeMap<String, Vec<String>> {
    let missing = GATES
        .iter()
        .filter(|gate| !capabilities.iter().any(|can| can == gate.name));
    missing
        .map(|gate| {
            let behind = catalogue().iter().filter(|entry| {
                is_released(entry) && entry.gate.is_some_and(|other| other.name == gate.name)
            });
            let ids = behind.map(|entry| entry.id.to_owned()).collect();
            (gate.name.to_owned(), ids)
        })
        .collect()
}
