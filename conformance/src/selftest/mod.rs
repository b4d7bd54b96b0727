// SPDX-License-Identifier: Apache-2.0
//! The suite tested: host cases, drivers with a fault each, and a driver without any.

mod drivers;
pub(crate) mod fixtures;
mod lab;
mod loading;
mod mutants;
mod suite;

pub(crate) use self::{
    lab::Lab,
    mutants::{Caught, REFERENCE, catch_all, matrix, reference},
};
use crate::case::Outcome;

/// A property of the suite or of the host itself: a case of level `H`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HostCase {
    /// The permanent id.
    pub(crate) id: &'static str,
    /// Runs in the suite's own process, which starts others as it needs them.
    pub(crate) body: fn(&Lab<'_>) -> Outcome,
}

/// A host case.
const fn host(id: &'static str, body: fn(&Lab<'_>) -> Outcome) -> HostCase {
    HostCase { id, body }
}

/// Every host case, sorted by id.
pub(crate) fn all() -> Vec<HostCase> {
    let mut cases = [loading::CASES, suite::CASES].concat();
    cases.sort_by_key(|case| case.id);
    cases
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::{Level, catalogue};

    #[test]
    fn what_is_written_is_marked_and_the_other_way_round() {
        let written: BTreeSet<_> = super::all().into_iter().map(|case| case.id).collect();
        for entry in catalogue()
            .iter()
            .filter(|entry| entry.level == Level::Host)
        {
            assert_eq!(
                entry.since.is_some(),
                written.contains(entry.id),
                "`since` of {} in catalogue.tsv does not fit the code",
                entry.id
            );
        }
    }
}
