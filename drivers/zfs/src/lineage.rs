// SPDX-License-Identifier: Apache-2.0
//! Which dataset is a clone of which.

use plywood_plugin_sdk::{DriverError, DriverErrorCode, Result};

use crate::dataset::Datasets;

/// The longest line of clones that is followed.
const LONGEST: usize = 4096;

/// A dataset, and the snapshot of it by which the line left it; the first one is still there.
type Ancestor = (String, Option<String>);

/// The snapshot at which two datasets were the same for the last time; `None` when they have no
/// common origin.
pub(crate) fn common(datasets: &Datasets, one: &str, other: &str) -> Result<Option<String>> {
    let (one, other) = (line(datasets, one)?, line(datasets, other)?);
    for (name, left) in &one {
        let Some((_, right)) = other.iter().find(|(found, _)| found == name) else {
            continue;
        };
        return match (left, right) {
            (Some(left), Some(right)) if left != right => older(datasets, left, right).map(Some),
            (snapshot, None) | (_, snapshot) => Ok(snapshot.clone()),
        };
    }
    Ok(None)
}

/// A dataset, what it is a clone of, what that is a clone of, and so on.
fn line(datasets: &Datasets, name: &str) -> Result<Vec<Ancestor>> {
    let mut line: Vec<Ancestor> = vec![(name.to_owned(), None)];
    while line.len() < LONGEST {
        let name = &line[line.len() - 1].0;
        let found = datasets.properties(name, &["origin"]);
        let origin = found.map_err(|failure| failure.about(name))?.swap_remove(0);
        match origin.split_once('@') {
            Some((above, _)) => line.push((above.to_owned(), Some(origin))),
            None => break,
        }
    }
    Ok(line)
}

/// The older one of two snapshots of a dataset.
fn older(datasets: &Datasets, one: &str, other: &str) -> Result<String> {
    let transaction = |snapshot: &str| -> Result<u64> {
        let found = datasets.properties(snapshot, &["createtxg"]);
        let found = found.map_err(|failure| failure.about(snapshot))?;
        found[0].parse().map_err(|_| {
            let message = format!("zfs gives no number for `createtxg`: `{}`", found[0]);
            DriverError::new(DriverErrorCode::IO, message).object(snapshot)
        })
    };
    let first = transaction(one)? <= transaction(other)?;
    Ok(if first { one } else { other }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::fake::Script;

    #[test]
    fn datasets_split_at_the_older_snapshot_of_what_they_have_in_common() {
        let origin = |name: &str| format!("zfs list -Hp -o origin {name}");
        let script = Script::new(&[
            // A child and its parent.
            (&origin("p/child"), "p/base@2\n"),
            (&origin("p/base"), "-\n"),
            (&origin("p/base"), "-\n"),
            // Two children of one parent.
            (&origin("p/child"), "p/base@2\n"),
            (&origin("p/base"), "-\n"),
            (&origin("p/other"), "p/base@1\n"),
            (&origin("p/base"), "-\n"),
            ("zfs list -Hp -o createtxg p/base@2", "40\n"),
            ("zfs list -Hp -o createtxg p/base@1", "30\n"),
            // Strangers.
            (&origin("p/base"), "-\n"),
            (&origin("p/x"), "-\n"),
        ]);
        let datasets = Datasets::impatient(script.clone());
        let found = |one: &str, other: &str| common(&datasets, one, other).unwrap();
        assert_eq!(found("p/child", "p/base").as_deref(), Some("p/base@2"));
        assert_eq!(found("p/child", "p/other").as_deref(), Some("p/base@1"));
        assert_eq!(found("p/base", "p/x"), None);
        script.finish();
    }
}
