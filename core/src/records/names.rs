// SPDX-License-Identifier: Apache-2.0
//! The rules for lists of names.

use std::collections::HashSet;

/// How a list of names changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NamesChange {
    /// The given names replace the old ones.
    Set,
    /// The given names come first, then the old ones.
    Add,
    /// The given names go.
    Remove,
}

/// Drops repetitions; the first occurrence stays.
pub(crate) fn deduplicate(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut seen = HashSet::new();
    names
        .into_iter()
        .filter(|name| seen.insert(name.clone()))
        .collect()
}

/// The list that results when `given` is applied to `old`.
pub(crate) fn changed(old: &[String], given: &[String], change: NamesChange) -> Vec<String> {
    match change {
        NamesChange::Set => deduplicate(given.iter().cloned()),
        NamesChange::Add => deduplicate(given.iter().chain(old).cloned()),
        NamesChange::Remove => {
            let gone: HashSet<&String> = given.iter().collect();
            deduplicate(old.iter().filter(|name| !gone.contains(name)).cloned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn added_names_come_first_and_none_repeats() {
        let list =
            |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
        for (change, given, result) in [
            (NamesChange::Set, "x y x", "x y"),
            (NamesChange::Add, "x a x", "x a b"),
            (NamesChange::Remove, "a z", "b"),
            (NamesChange::Set, "", ""),
        ] {
            let new = changed(&list("a b"), &list(given), change);
            assert_eq!(new, list(result), "{change:?} {given}");
        }
    }
}
