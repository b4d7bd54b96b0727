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
///
/// # Behavior
/// - Both lines are followed by turns until they meet: between a layer and the parent that it is a
///   clone of that takes one question, however many layers there are below.
pub(crate) fn common(datasets: &Datasets, one: &str, other: &str) -> Result<Option<String>> {
    if one == other {
        return Ok(None);
    }
    let mut lines = [Line::of(one), Line::of(other)];
    while lines.iter().any(|line| !line.ended) {
        let [line, opposite] = &mut lines;
        if let Some((name, left)) = line.follow(datasets)?
            && let Some((_, right)) = opposite.known.iter().find(|(found, _)| found == name)
        {
            return match (left, right) {
                (Some(left), Some(right)) if left != right => {
                    older(datasets, left, right).map(Some)
                }
                (snapshot, None) | (_, snapshot) => Ok(snapshot.clone()),
            };
        }
        lines.swap(0, 1);
    }
    Ok(None)
}

/// A dataset, what it is a clone of, what that is a clone of, and so on, as far as it is known.
struct Line {
    known: Vec<Ancestor>,
    ended: bool,
}

impl Line {
    fn of(name: &str) -> Self {
        Self {
            known: vec![(name.to_owned(), None)],
            ended: false,
        }
    }

    /// Looks one further; `None` at the end.
    fn follow(&mut self, datasets: &Datasets) -> Result<Option<&Ancestor>> {
        if self.ended {
            return Ok(None);
        }
        let name = &self.known[self.known.len() - 1].0;
        let found = datasets.properties(name, &["origin"]);
        let origin = found.map_err(|failure| failure.about(name))?.swap_remove(0);
        let Some((above, _)) = origin.split_once('@') else {
            self.ended = true;
            return Ok(None);
        };
        self.known.push((above.to_owned(), Some(origin)));
        self.ended = self.known.len() == LONGEST;
        Ok(self.known.last())
    }
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
            // A child and its parent, both ways round; what is below the parent is not asked for.
            (&origin("p/child"), "p/base@2\n"),
            (&origin("p/base"), "p/below@1\n"),
            (&origin("p/child"), "p/base@2\n"),
            // A layer and what is two below it.
            (&origin("p/child"), "p/base@2\n"),
            (&origin("p/below"), "-\n"),
            (&origin("p/base"), "p/below@1\n"),
            // Two children of one parent.
            (&origin("p/child"), "p/base@2\n"),
            (&origin("p/other"), "p/base@1\n"),
            ("zfs list -Hp -o createtxg p/base@1", "30\n"),
            ("zfs list -Hp -o createtxg p/base@2", "40\n"),
            // Strangers.
            (&origin("p/base"), "-\n"),
            (&origin("p/x"), "-\n"),
        ]);
        let datasets = Datasets::impatient(script.clone());
        let found = |one: &str, other: &str| common(&datasets, one, other).unwrap();
        assert_eq!(found("p/child", "p/base").as_deref(), Some("p/base@2"));
        assert_eq!(found("p/base", "p/child").as_deref(), Some("p/base@2"));
        assert_eq!(found("p/child", "p/below").as_deref(), Some("p/below@1"));
        assert_eq!(found("p/child", "p/other").as_deref(), Some("p/base@1"));
        assert_eq!(found("p/base", "p/x"), None);
        script.finish();
    }
}
