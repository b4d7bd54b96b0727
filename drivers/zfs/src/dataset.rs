// SPDX-License-Identifier: Apache-2.0
//! Datasets by their names.

use std::{fmt, sync::Arc, time::Duration};

use plywood_plugin_sdk::{DriverError, DriverErrorCode, Result, toolkit};

use crate::{
    command::{self, Failure, Meaning, Runner},
    holders, places,
};

/// How long a dataset that is in use is waited for.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

/// How many clones are made independent of a dataset that is destroyed.
const MOST_CLONES: usize = 1024;

/// What works on datasets.
#[derive(Clone)]
pub(crate) struct Datasets {
    runner: Arc<dyn Runner>,
    patience: Duration,
}

impl fmt::Debug for Datasets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Datasets").finish_non_exhaustive()
    }
}

/// The properties of something new.
fn properties(quota: Option<u64>) -> Vec<String> {
    let quota = quota.map(|bytes| format!("quota={bytes}"));
    let all = std::iter::once("mountpoint=legacy".to_owned()).chain(quota);
    all.flat_map(|property| ["-o".to_owned(), property])
        .collect()
}

/// Output as text; all that is asked for here has the character set of dataset names.
fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

impl Datasets {
    pub(crate) fn new(runner: Arc<dyn Runner>) -> Self {
        Self {
            runner,
            patience: PATIENCE,
        }
    }

    /// The same for what can wait: nothing that is in use is waited for.
    pub(crate) fn in_a_hurry(&self) -> Self {
        Self {
            runner: Arc::clone(&self.runner),
            patience: Duration::ZERO,
        }
    }

    #[cfg(test)]
    pub(crate) fn impatient(runner: Arc<dyn Runner>) -> Self {
        Self {
            runner,
            patience: Duration::ZERO,
        }
    }

    /// Runs `zfs`.
    pub(crate) fn zfs(&self, arguments: &[&str]) -> Result<Vec<u8>, Failure> {
        command::run(&*self.runner, "zfs", arguments)
    }

    /// Runs `zpool`.
    pub(crate) fn zpool(&self, arguments: &[&str]) -> Result<Vec<u8>, Failure> {
        command::run(&*self.runner, "zpool", arguments)
    }

    /// Runs `zfs` until nothing is in its way, or for as long as is bearable.
    pub(crate) fn patiently(&self, arguments: &[&str]) -> Result<Vec<u8>, Failure> {
        let is_busy = |failure: &Failure| failure.meaning == Meaning::Busy;
        toolkit::while_busy(self.patience, is_busy, || self.zfs(arguments))
    }

    /// Whether a dataset is there.
    pub(crate) fn exists(&self, name: &str) -> Result<bool> {
        match self.zfs(&["list", "-H", "-o", "name", "-t", "filesystem", name]) {
            Ok(_) => Ok(true),
            Err(failure) if failure.meaning == Meaning::Missing => Ok(false),
            Err(failure) => Err(failure.about(name)),
        }
    }

    /// Properties of a dataset, in the order of `wanted`, numbers in bytes.
    pub(crate) fn properties(&self, name: &str, wanted: &[&str]) -> Result<Vec<String>, Failure> {
        let output = self.zfs(&["list", "-Hp", "-o", &wanted.join(","), name])?;
        let line = text(&output);
        let mut values: Vec<String> = line
            .trim_end_matches('\n')
            .split('\t')
            .map(str::to_owned)
            .collect();
        values.resize(wanted.len(), String::new());
        Ok(values)
    }

    /// The last parts of the names of the file systems directly below `name`.
    pub(crate) fn children(&self, name: &str) -> Result<Vec<String>> {
        let arguments = [
            "list",
            "-H",
            "-o",
            "name",
            "-t",
            "filesystem",
            "-d",
            "1",
            name,
        ];
        let output = self
            .zfs(&arguments)
            .map_err(|failure| failure.about(name))?;
        let lines = text(&output);
        let below = lines.lines().filter_map(|line| {
            let child = line.strip_prefix(name)?.strip_prefix('/')?;
            Some(child.to_owned())
        });
        Ok(below.collect())
    }

    /// Makes an empty dataset.
    pub(crate) fn create(&self, name: &str, quota: Option<u64>) -> Result<()> {
        let properties = properties(quota);
        let mut arguments = vec!["create"];
        arguments.extend(properties.iter().map(String::as_str));
        arguments.push(name);
        self.zfs(&arguments)
            .map_err(|failure| failure.about(name))?;
        Ok(())
    }

    /// Makes a clone of what `source` is now; `number` names the snapshot in between, which goes
    /// away with its last clone.
    pub(crate) fn clone_of(
        &self,
        source: &str,
        number: &str,
        name: &str,
        quota: Option<u64>,
    ) -> Result<()> {
        let snapshot = format!("{source}@{number}");
        let arguments = ["snapshot", &snapshot];
        self.zfs(&arguments)
            .map_err(|failure| failure.about(source))?;
        let properties = properties(quota);
        let mut arguments = vec!["clone"];
        arguments.extend(properties.iter().map(String::as_str));
        arguments.extend([snapshot.as_str(), name]);
        let cloned = self.zfs(&arguments).map_err(|failure| failure.about(name));
        let released = self.release_snapshot(&snapshot);
        if cloned.is_ok() && released.is_err() {
            // The first error is the one that tells why.
            drop(self.destroy(name));
        }
        cloned.and(released)
    }

    /// Destroys a snapshot now, or with its last clone; one that is not there is no error.
    pub(crate) fn release_snapshot(&self, snapshot: &str) -> Result<()> {
        match self.patiently(&["destroy", "-d", snapshot]) {
            Err(failure) if failure.meaning != Meaning::Missing => Err(failure.about(snapshot)),
            _ => Ok(()),
        }
    }

    /// The snapshots called `number` of the datasets directly below `parent`.
    pub(crate) fn snapshots(&self, parent: &str, number: &str) -> Result<Vec<String>> {
        let arguments = [
            "list", "-H", "-o", "name", "-t", "snapshot", "-d", "2", parent,
        ];
        let output = self
            .zfs(&arguments)
            .map_err(|failure| failure.about(parent))?;
        let suffix = format!("@{number}");
        let lines = text(&output);
        let found = lines.lines().filter(|line| line.ends_with(&suffix));
        Ok(found.map(str::to_owned).collect())
    }

    /// Renames a dataset; `false` when it is not there.
    pub(crate) fn rename(&self, name: &str, new: &str) -> Result<bool> {
        match self.patiently(&["rename", name, new]) {
            Ok(_) => Ok(true),
            Err(failure) if failure.meaning == Meaning::Missing => Ok(false),
            Err(failure) => Err(explained(&failure, name)),
        }
    }

    /// Destroys a dataset with its snapshots; one that is not there is no error.
    ///
    /// # Behavior
    /// - What is a clone of it lives on by itself, except what is being removed as well.
    pub(crate) fn destroy(&self, name: &str) -> Result<()> {
        self.destroy_at_depth(name, 0)
    }

    fn destroy_at_depth(&self, name: &str, depth: usize) -> Result<()> {
        let mut unexplained = false;
        for _ in 0..MOST_CLONES {
            match self.patiently(&["destroy", "-r", name]) {
                Ok(_) => return Ok(()),
                Err(failure) if failure.meaning == Meaning::Missing => return Ok(()),
                Err(failure) if failure.meaning == Meaning::Cloned => {
                    let clone = self.newest_clone(name)?;
                    let given_up = match clone {
                        Some(_) => depth == MOST_CLONES,
                        None => unexplained,
                    };
                    if given_up {
                        return Err(failure.about(name));
                    }
                    // The last one may just have gone.
                    unexplained = clone.is_none();
                    match clone {
                        Some(clone) if places::is_trash(&clone) => {
                            self.destroy_at_depth(&clone, depth + 1)?;
                        }
                        Some(clone) => self.promote(&clone)?,
                        None => {}
                    }
                }
                Err(failure) => return Err(explained(&failure, name)),
            }
        }
        let message = format!("new clones of `{name}` are made all the time");
        Err(DriverError::new(DriverErrorCode::BUSY, message).object(name))
    }

    /// A clone of the newest snapshot of a dataset that has one.
    ///
    /// # Behavior
    /// - It is cloned from the dataset itself. `zfs destroy` names clones of clones as well, and to
    ///   promote one of those changes nothing for the dataset.
    fn newest_clone(&self, name: &str) -> Result<Option<String>> {
        let arguments = [
            "list",
            "-Hp",
            "-r",
            "-t",
            "snapshot",
            "-s",
            "createtxg",
            "-o",
            "clones",
            name,
        ];
        let output = match self.zfs(&arguments) {
            Err(failure) if failure.meaning == Meaning::Missing => return Ok(None),
            output => output.map_err(|failure| failure.about(name))?,
        };
        let lines = text(&output);
        let newest = lines.lines().rev().flat_map(|line| line.split(','));
        Ok(newest
            .map(str::trim)
            .find(|clone| clone.contains('/') && !is_below(clone, name))
            .map(str::to_owned))
    }

    /// Makes a clone the owner of what it has in common with others.
    fn promote(&self, clone: &str) -> Result<()> {
        match self.zfs(&["promote", clone]) {
            Ok(_) => Ok(()),
            // It was destroyed or renamed meanwhile: the next attempt names what is in the way.
            Err(failure) if failure.meaning == Meaning::Missing => Ok(()),
            Err(failure) => Err(failure.about(clone)),
        }
    }
}

/// A failure, with who is in the way.
fn explained(failure: &Failure, name: &str) -> DriverError {
    let mut error = failure.about(name);
    if failure.meaning == Meaning::Busy
        && let Some(holders) = holders::of(name)
    {
        error.message = format!("{}; {holders}", error.message);
    }
    error
}

/// Whether one dataset is inside another.
fn is_below(name: &str, other: &str) -> bool {
    name.strip_prefix(other)
        .is_some_and(|rest| rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::fake::Script;

    #[test]
    fn a_base_and_a_child_are_made_as_containers_storage_does() {
        let script = Script::new(&[
            ("zfs create -o mountpoint=legacy tank/c/base", ""),
            ("zfs snapshot tank/c/base@17", ""),
            (
                "zfs clone -o mountpoint=legacy -o quota=1024 tank/c/base@17 tank/c/child",
                "",
            ),
            ("zfs destroy -d tank/c/base@17", ""),
        ]);
        let datasets = Datasets::impatient(script.clone());
        datasets.create("tank/c/base", None).unwrap();
        datasets
            .clone_of("tank/c/base", "17", "tank/c/child", Some(1024))
            .unwrap();
        script.finish();
    }

    #[test]
    fn a_clone_that_fails_leaves_no_snapshot() {
        let script = Script::new(&[
            ("zfs snapshot tank/c/base@17", ""),
            (
                "zfs clone -o mountpoint=legacy tank/c/base@17 tank/c/child",
                "!cannot create 'tank/c/child': dataset already exists",
            ),
            ("zfs destroy -d tank/c/base@17", ""),
        ]);
        let datasets = Datasets::impatient(script.clone());
        let error = datasets
            .clone_of("tank/c/base", "17", "tank/c/child", None)
            .unwrap_err();
        assert_eq!(error.code, DriverErrorCode::ALREADY_EXISTS);
        script.finish();
    }

    #[test]
    fn clones_live_on_and_trash_goes_with_what_it_was_made_from() {
        let cloned = "!cannot destroy 'tank/c/x': filesystem has dependent clones\nuse '-R' to \
                      destroy the following datasets:\ntank/c/z\ntank/c/y@3\ntank/c/y";
        let clones = "zfs list -Hp -r -t snapshot -s createtxg -o clones tank/c/x";
        let script = Script::new(&[
            ("zfs destroy -r tank/c/x", cloned),
            (clones, "tank/c/w\n-\ntank/c/x/inner,tank/c/y,tank/c/v\n\n"),
            ("zfs promote tank/c/y", ""),
            ("zfs destroy -r tank/c/x", cloned),
            (clones, "tank/c/plywood:1:trash:2\n"),
            ("zfs destroy -r tank/c/plywood:1:trash:2", ""),
            (
                "zfs destroy -r tank/c/x",
                "!cannot open 'tank/c/x': dataset does not exist",
            ),
        ]);
        Datasets::impatient(script.clone())
            .destroy("tank/c/x")
            .unwrap();
        script.finish();
    }

    #[test]
    fn a_dataset_whose_clones_nobody_can_name_is_not_tried_for_ever() {
        let cloned = "!cannot destroy 'tank/c/x': filesystem has dependent clones";
        let clones = "zfs list -Hp -r -t snapshot -s createtxg -o clones tank/c/x";
        let script = Script::new(&[
            ("zfs destroy -r tank/c/x", cloned),
            (clones, "-\n"),
            ("zfs destroy -r tank/c/x", cloned),
            (clones, "-\n"),
        ]);
        let error = Datasets::impatient(script.clone())
            .destroy("tank/c/x")
            .unwrap_err();
        assert!(error.to_string().contains("dependent clones"), "{error:?}");
        script.finish();
    }

    #[test]
    fn what_is_busy_is_tried_again_and_what_is_missing_is_gone() {
        let busy = "!cannot destroy 'tank/c/x': dataset is busy";
        let script = Script::new(&[
            ("zfs destroy -r tank/c/x", busy),
            ("zfs destroy -r tank/c/x", ""),
            ("zfs destroy -r tank/c/x", busy),
            (
                "zfs rename tank/c/x tank/c/y",
                "!cannot open 'tank/c/x': dataset does not exist",
            ),
        ]);
        let datasets = Datasets::new(script.clone());
        datasets.destroy("tank/c/x").unwrap();
        let datasets = Datasets::impatient(script.clone());
        let error = datasets.destroy("tank/c/x").unwrap_err();
        assert_eq!(error.code, DriverErrorCode::BUSY);
        assert_eq!(datasets.rename("tank/c/x", "tank/c/y"), Ok(false));
        script.finish();
    }

    #[test]
    fn names_and_values_are_read() {
        let script = Script::new(&[
            (
                "zfs list -H -o name -t filesystem -d 1 tank/c",
                "tank/c\ntank/c/a\ntank/c/b\n",
            ),
            ("zfs list -Hp -o used,origin tank/c/a", "1024\t-\n"),
            (
                "zfs list -H -o name -t snapshot -d 2 tank/c",
                "tank/c@7\ntank/c/a@17\ntank/c/b@7\n",
            ),
        ]);
        let datasets = Datasets::impatient(script.clone());
        assert_eq!(datasets.children("tank/c").unwrap(), ["a", "b"]);
        let values = datasets
            .properties("tank/c/a", &["used", "origin"])
            .unwrap();
        assert_eq!(values, ["1024", "-"]);
        let found = datasets.snapshots("tank/c", "7").unwrap();
        assert_eq!(found, ["tank/c@7", "tank/c/b@7"]);
        script.finish();
    }
}
