// SPDX-License-Identifier: Apache-2.0
//! What a layer occupies, as the pool accounts for it.

use plywood_plugin_sdk::{DriverError, DriverErrorCode, Result, Usage};

use crate::{command::Failure, dataset::Datasets};

/// What the dataset `name` occupies beyond what it has in common with its origin.
///
/// # Behavior
/// - Bytes are those on disk, after compression.
/// - The pool accounts when it writes, so what is in memory is written first.
pub(crate) fn of(datasets: &Datasets, name: &str) -> Result<Usage> {
    read(datasets, name).map_err(|failure| failure.about(name))?
}

fn read(datasets: &Datasets, name: &str) -> Result<Result<Usage>, Failure> {
    let pool = name.split('/').next().unwrap_or(name);
    datasets.zpool(&["sync", pool])?;
    let found = datasets.properties(name, &["usedbydataset", "origin"])?;
    let Ok(bytes) = found[0].parse() else {
        let message = format!("zfs gives no number for `usedbydataset`: `{}`", found[0]);
        return Ok(Err(
            DriverError::new(DriverErrorCode::IO, message).object(name)
        ));
    };
    let all = objects(datasets, name)?;
    match found[1].as_str() {
        // What a dataset with nothing but its root takes is not content.
        "-" | "" => Ok(Ok(Usage {
            bytes: if all > 1 { bytes } else { 0 },
            inodes: all,
        })),
        origin => Ok(Ok(Usage {
            bytes,
            inodes: all.saturating_sub(objects(datasets, origin)?),
        })),
    }
}

/// The number of files, directories and so on in a dataset or snapshot: every owner's.
fn objects(datasets: &Datasets, name: &str) -> Result<u64, Failure> {
    // Of a snapshot, which is mounted nowhere, one program at a time can do that.
    let output = datasets.patiently(&["userspace", "-Hnp", "-o", "objused", name])?;
    let text = String::from_utf8_lossy(&output);
    Ok(text
        .lines()
        .filter_map(|line| line.trim().parse::<u64>().ok())
        .sum())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::fake::Script;

    #[test]
    fn a_child_has_what_its_origin_has_not() {
        let script = Script::new(&[
            ("zpool sync tank", ""),
            (
                "zfs list -Hp -o usedbydataset,origin tank/c/x",
                "4096\ttank/c/y@7\n",
            ),
            ("zfs userspace -Hnp -o objused tank/c/x", "6\n2\n1\n"),
            ("zfs userspace -Hnp -o objused tank/c/y@7", "5\n2\n"),
            ("zpool sync tank", ""),
            ("zfs list -Hp -o usedbydataset,origin tank/c/y", "9\t-\n"),
            ("zfs userspace -Hnp -o objused tank/c/y", "7\n"),
        ]);
        let datasets = Datasets::impatient(script.clone());
        let usage = of(&datasets, "tank/c/x").unwrap();
        assert_eq!((usage.bytes, usage.inodes), (4096, 2));
        let usage = of(&datasets, "tank/c/y").unwrap();
        assert_eq!((usage.bytes, usage.inodes), (9, 7));
        script.finish();
    }

    #[test]
    fn another_program_that_counts_is_waited_for() {
        let busy = "!cannot get used/quota for tank/c/y@7: dataset is busy";
        let script = Script::new(&[
            ("zpool sync tank", ""),
            (
                "zfs list -Hp -o usedbydataset,origin tank/c/x",
                "9\ttank/c/y@7\n",
            ),
            ("zfs userspace -Hnp -o objused tank/c/x", "7\n"),
            ("zfs userspace -Hnp -o objused tank/c/y@7", busy),
            ("zfs userspace -Hnp -o objused tank/c/y@7", "5\n"),
        ]);
        let usage = of(&Datasets::new(script.clone()), "tank/c/x").unwrap();
        assert_eq!((usage.bytes, usage.inodes), (9, 2));
        script.finish();
    }

    #[test]
    fn a_dataset_with_nothing_in_it_has_no_content() {
        let script = Script::new(&[
            ("zpool sync tank", ""),
            (
                "zfs list -Hp -o usedbydataset,origin tank/c/y",
                "24576\t-\n",
            ),
            ("zfs userspace -Hnp -o objused tank/c/y", "1\n"),
        ]);
        let usage = of(&Datasets::impatient(script.clone()), "tank/c/y").unwrap();
        assert_eq!((usage.bytes, usage.inodes), (0, 1));
        script.finish();
    }
}
