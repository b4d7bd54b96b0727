// SPDX-License-Identifier: Apache-2.0
//! What a case may not leave behind: mounts below its root, and open files.

use std::{collections::BTreeSet, fs, io, path::Path};

/// The process's state around a case.
#[derive(Debug)]
pub(crate) struct Baseline {
    mounts: BTreeSet<String>,
    descriptors: usize,
}

impl Baseline {
    pub(crate) fn take() -> io::Result<Self> {
        Ok(Self {
            mounts: mounts()?,
            descriptors: descriptors()?,
        })
    }

    /// What is there now and was not before, in words. The driver's home may stay a mount of its
    /// own until the driver is closed.
    pub(crate) fn leaks(&self, home: &Path) -> io::Result<Vec<String>> {
        let home = home.display().to_string();
        let mut found: Vec<String> = mounts()?
            .difference(&self.mounts)
            .filter(|mount| **mount != home)
            .map(|mount| format!("`{mount}` is still mounted"))
            .collect();
        let now = descriptors()?;
        if now > self.descriptors {
            found.push(format!(
                "{} more open files than before",
                now - self.descriptors
            ));
        }
        Ok(found)
    }
}

fn mounts() -> io::Result<BTreeSet<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table
        .lines()
        .filter_map(|line| line.split(' ').nth(4).map(str::to_owned))
        .collect())
}

fn descriptors() -> io::Result<usize> {
    Ok(fs::read_dir("/proc/self/fd")?.count())
}
