// SPDX-License-Identifier: Apache-2.0
//! Which changes two trees must give.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use plywood::{archive::walk::Change, sdk::ChangeKind};

use crate::{
    case::{Outcome, demand},
    manifest::Manifest,
};

/// Changes by path, with a leading slash.
pub(super) type Expected = BTreeMap<PathBuf, ChangeKind>;

/// Changes that are written down.
pub(super) fn of(list: &[(&str, ChangeKind)]) -> Expected {
    let pairs = list.iter();
    pairs
        .map(|(path, kind)| (PathBuf::from(path), *kind))
        .collect()
}

/// The changes between two trees in which no path changes its type.
pub(super) fn between(before: &Manifest, after: &Manifest) -> Expected {
    let mut expected = Expected::new();
    let named = |path: &Path| Path::new("/").join(path);
    for (path, facts) in &after.0 {
        match before.0.get(path) {
            None => {
                expected.insert(named(path), ChangeKind::Add);
            }
            Some(old) if facts.changed_from(old) => {
                expected.insert(named(path), ChangeKind::Modify);
            }
            Some(_) => {}
        }
    }
    for path in before.0.keys().filter(|path| !after.0.contains_key(*path)) {
        // What is below a removed directory is not listed by itself.
        if path
            .parent()
            .is_none_or(|parent| after.0.contains_key(parent))
        {
            expected.insert(named(path), ChangeKind::Delete);
        }
    }
    expected.remove(Path::new("/"));
    expected
}

/// Checks a list: every change that is expected and no other, except directories above them.
///
/// A directory above an addition or a deletion must be listed, above a modification it may be.
pub(super) fn check(expected: &Expected, seen: &[Change], what: &str) -> Outcome {
    let listed: Expected = seen
        .iter()
        .map(|change| (change.path.clone(), change.kind))
        .collect();
    demand!(
        listed.len() == seen.len(),
        "{what} list a path twice: {seen:?}"
    );
    for (path, kind) in expected {
        let found = listed.get(path);
        demand!(
            found == Some(kind),
            "{what} have {found:?} for `{}`, not {kind:?}",
            path.display()
        );
        let above = path.parent().unwrap_or(Path::new("/"));
        demand!(
            *kind == ChangeKind::Modify || above == Path::new("/") || listed.contains_key(above),
            "{what} do not have `{}`, which is above {kind:?} of `{}`",
            above.display(),
            path.display()
        );
    }
    for (path, kind) in &listed {
        let above_a_change = || {
            *kind == ChangeKind::Modify
                && expected
                    .keys()
                    .any(|changed| changed.parent().is_some_and(|up| up.starts_with(path)))
        };
        demand!(
            expected.contains_key(path) || above_a_change(),
            "{what} have {kind:?} of `{}`, which did not change",
            path.display()
        );
    }
    Ok(())
}
