// SPDX-License-Identifier: Apache-2.0
//! What processes left that were killed.

use std::path::Path;

use plywood_plugin_sdk::{
    DriverErrorCode, Result,
    toolkit::{self, temp_dir},
};

use crate::{
    dataset::Datasets,
    places::{Names, Purpose},
};

/// A home and its datasets.
#[derive(Debug)]
pub(crate) struct Stale<'a> {
    pub(crate) datasets: &'a Datasets,
    pub(crate) parent: &'a str,
    /// The datasets below which other stores have layers, of which snapshots may be left.
    pub(crate) image_stores: &'a [String],
    pub(crate) names: &'a Names,
    /// Where the lock files are.
    pub(crate) tempdirs: &'a Path,
}

impl Stale<'_> {
    /// Reclaims everything whose owner is dead; returns the names of the places.
    ///
    /// # Behavior
    /// - What somebody still uses stays, without a place, until a later recovery.
    pub(crate) fn reclaim(&self) -> Result<Vec<String>> {
        let mut reclaimed = temp_dir::recover_with(self.tempdirs, |place| {
            let name = place.file_name().and_then(|name| name.to_str());
            name.and_then(|name| name.rsplit('-').next())
                .map_or(Ok(()), |digits| self.destroy(digits).map(drop))
        })?;
        // A command that outlived the process that began it finished after its lock was gone.
        for name in self.datasets.children(self.parent)? {
            if let Some(digits) = self.names.digits(&name)
                && !toolkit::is_there(&self.tempdirs.join(format!("lock-{digits}")))?
                && self.destroy(digits)?
            {
                reclaimed.push(name);
            }
        }
        Ok(reclaimed)
    }

    /// Destroys everything with a number; `false` when something is in use.
    pub(crate) fn destroy(&self, digits: &str) -> Result<bool> {
        for purpose in [Purpose::Stage, Purpose::Trash] {
            let name = self.names.name(purpose, digits);
            match self.datasets.destroy(&format!("{}/{name}", self.parent)) {
                Err(error) if error.code == DriverErrorCode::BUSY => return Ok(false),
                other => other?,
            }
        }
        let others = self.image_stores.iter().map(String::as_str);
        for parent in std::iter::once(self.parent).chain(others) {
            for snapshot in self.datasets.snapshots(parent, digits)? {
                self.datasets.release_snapshot(&snapshot)?;
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::command::fake::Script;

    #[test]
    fn what_has_no_owner_is_destroyed_and_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let tempdirs = root.path().join("tempdirs");
        fs::create_dir(&tempdirs).unwrap();
        let names = Names::of(root.path());
        let (one, other) = (
            names.name(Purpose::Stage, "1"),
            names.name(Purpose::Trash, "2"),
        );
        let trash = names.name(Purpose::Trash, "1");
        fs::write(tempdirs.join("lock-2"), "").unwrap();
        let missing = "!cannot open 'x': dataset does not exist";
        let script = Script::new(&[
            // The place with a lock file that nobody holds.
            (
                &format!("zfs destroy -r p/{}", names.name(Purpose::Stage, "2")),
                missing,
            ),
            (&format!("zfs destroy -r p/{other}"), ""),
            ("zfs list -H -o name -t snapshot -d 2 p", "p/a@2\np/b@3\n"),
            ("zfs destroy -d p/a@2", ""),
            // The dataset without one.
            (
                "zfs list -H -o name -t filesystem -d 1 p",
                &format!("p\np/a\np/{one}\np/plywood:0:stage:9\n"),
            ),
            (&format!("zfs destroy -r p/{one}"), ""),
            (&format!("zfs destroy -r p/{trash}"), missing),
            ("zfs list -H -o name -t snapshot -d 2 p", "p/b@3\n"),
        ]);
        let stale = Stale {
            datasets: &Datasets::impatient(script.clone()),
            parent: "p",
            image_stores: &[],
            names: &names,
            tempdirs: &tempdirs,
        };
        assert_eq!(stale.reclaim().unwrap(), ["temp-dir-2".to_owned(), one]);
        script.finish();
    }

    #[test]
    fn what_is_in_use_stays_for_a_later_recovery() {
        let root = tempfile::tempdir().unwrap();
        let names = Names::of(root.path());
        let stage = names.name(Purpose::Stage, "1");
        let trash = names.name(Purpose::Trash, "1");
        let list = "zfs list -H -o name -t filesystem -d 1 p";
        let listed = format!("p\np/{trash}\n");
        let missing = "!cannot open 'x': dataset does not exist";
        let busy = "!cannot destroy 'x': dataset is busy";
        let script = Script::new(&[
            (list, &listed),
            (&format!("zfs destroy -r p/{stage}"), missing),
            (&format!("zfs destroy -r p/{trash}"), busy),
            (list, &listed),
            (&format!("zfs destroy -r p/{stage}"), missing),
            (&format!("zfs destroy -r p/{trash}"), ""),
            ("zfs list -H -o name -t snapshot -d 2 p", ""),
            (
                "zfs list -H -o name -t snapshot -d 2 q/other",
                "q/other/a@1\n",
            ),
            ("zfs destroy -d q/other/a@1", ""),
        ]);
        let stale = Stale {
            datasets: &Datasets::impatient(script.clone()),
            parent: "p",
            image_stores: &["q/other".to_owned()],
            names: &names,
            tempdirs: &root.path().join("tempdirs"),
        };
        assert_eq!(stale.reclaim().unwrap(), Vec::<String>::new());
        assert_eq!(stale.reclaim().unwrap(), [trash]);
        script.finish();
    }
}
