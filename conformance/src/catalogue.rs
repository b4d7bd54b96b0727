// SPDX-License-Identifier: Apache-2.0
//! The catalogue: every case's id, text, level and needs, as a table beside the code.

use std::{sync::OnceLock, time::Duration};

use sha2::{Digest as _, Sha256};

use crate::{
    excuses::{self, Excuse},
    gates::{self, Gate},
};

const TABLE: &str = include_str!("../catalogue.tsv");

/// Whom a case binds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Every driver.
    Mandatory,
    /// A driver that declares the capability.
    Capability,
    /// The host and the suite themselves: `selftest` runs it.
    Host,
    /// Nobody: what is measured is recorded.
    Recorded,
}

impl Level {
    /// The catalogue's short form.
    pub fn word(self) -> &'static str {
        match self {
            Self::Mandatory => "M",
            Self::Capability => "cap",
            Self::Host => "H",
            Self::Recorded => "R",
        }
    }
}

/// One row of the catalogue.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The permanent id, `GD-GROUP-NNN`.
    pub id: &'static str,
    /// A short name.
    pub name: &'static str,
    /// Whom it binds.
    pub level: Level,
    /// The capability that it is about.
    pub gate: Option<&'static Gate>,
    /// Another reason for which it may not apply.
    pub excuse: Option<&'static Excuse>,
    /// What the machine must offer.
    pub needs: Vec<&'static str>,
    /// Sets of cases, for instance `quick` and `slow`.
    pub groups: Vec<&'static str>,
    /// How long it may take.
    pub timeout: Duration,
    /// The first version of the suite that has it; `None` while it is only planned.
    pub since: Option<&'static str>,
    /// What is asserted.
    pub asserts: &'static str,
}

impl Entry {
    /// The three letters of its group.
    pub fn group(&self) -> &'static str {
        &self.id[3..6]
    }

    /// Whether it belongs to the set of that name.
    pub fn is_in(&self, set: &str) -> bool {
        self.groups.contains(&set)
    }
}

/// Every row, also the planned ones, sorted by group as in the table.
///
/// # Panics
/// When the table that is compiled in is malformed, which a test rules out.
pub fn catalogue() -> &'static [Entry] {
    static PARSED: OnceLock<Vec<Entry>> = OnceLock::new();
    PARSED.get_or_init(|| {
        TABLE
            .lines()
            .skip(1)
            .map(|line| parse(line).unwrap_or_else(|| panic!("malformed row: {line}")))
            .collect()
    })
}

/// The row of a case.
pub fn entry(id: &str) -> Option<&'static Entry> {
    let mut all = catalogue().iter();
    all.find(|entry| entry.id == id)
        .or_else(|| crate::selftest::fixtures::entry(id))
}

/// The SHA-256 of the table, in hex: what a certificate names.
pub fn catalogue_sha256() -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(TABLE))
}

fn parse(line: &'static str) -> Option<Entry> {
    let fields: Vec<&'static str> = line.split('\t').collect();
    let [
        id,
        name,
        level,
        gate,
        needs,
        groups,
        timeout,
        since,
        asserts,
    ] = fields[..]
    else {
        return None;
    };
    let (gate, excuse) = match gate.split_once('/') {
        None => (gate, None),
        Some((gate, excuse)) => (gate, Some(excuses::find(excuse)?)),
    };
    let list = |text: &'static str| match text {
        "-" => Vec::new(),
        text => text.split(',').collect(),
    };
    Some(Entry {
        id,
        name,
        level: match level {
            "M" => Level::Mandatory,
            "cap" => Level::Capability,
            "H" => Level::Host,
            "R" => Level::Recorded,
            _ => return None,
        },
        gate: match gate {
            "-" => None,
            gate => Some(gates::find(gate)?),
        },
        excuse,
        needs: list(needs),
        groups: list(groups),
        timeout: Duration::from_secs(timeout.parse().ok()?),
        since: (since != "-").then_some(since),
        asserts,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_unique_and_well_formed() {
        let mut seen = BTreeSet::new();
        for entry in catalogue() {
            assert!(seen.insert(entry.id), "{} is there twice", entry.id);
            let parts: Vec<&str> = entry.id.split('-').collect();
            assert!(
                matches!(parts[..], ["GD", group, number]
                if group.len() == 3 && number.len() == 3 && number.parse::<u16>().is_ok()),
                "{}",
                entry.id
            );
            assert!(!entry.asserts.is_empty(), "{}", entry.id);
        }
        assert_eq!(seen.len(), 451);
    }

    #[test]
    fn a_gate_and_its_level_go_together() {
        for entry in catalogue() {
            if entry.level == Level::Capability {
                assert!(entry.gate.is_some(), "{}", entry.id);
            }
        }
    }

    #[test]
    fn what_is_written_is_marked_and_the_other_way_round() {
        let written: BTreeSet<_> = crate::all().into_iter().map(|case| case.id).collect();
        for entry in catalogue()
            .iter()
            .filter(|entry| entry.level != Level::Host)
        {
            assert_eq!(
                entry.since.is_some(),
                written.contains(entry.id),
                "`since` of {} in catalogue.tsv does not fit the code",
                entry.id
            );
        }
        for id in written {
            assert!(entry(id).is_some(), "{id} is not in the catalogue");
        }
    }
}
