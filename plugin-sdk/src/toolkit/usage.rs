// SPDX-License-Identifier: Apache-2.0
//! What a tree of files occupies.

use std::{collections::HashSet, fs, io, os::unix::fs::MetadataExt, path::Path};

use crate::{IoContext, Result, Usage};

/// Adds up what lies in `directory`, itself included.
///
/// # Behavior
/// - Bytes are apparent sizes of everything but directories, of each inode once.
/// - What disappears meanwhile is left out.
///
/// # Errors
/// When a directory that is there cannot be read.
///
/// # Compatibility
/// The numbers of containers/storage, `directory.Usage`.
pub fn tree_usage(directory: &Path) -> Result<Usage> {
    tree_usage_with(directory, &|| Ok(()))
}

/// The same, with a call of `going_on` for each directory, which may end it.
///
/// # Errors
/// As [`tree_usage`], and those of `going_on`.
pub fn tree_usage_with(directory: &Path, going_on: &dyn Fn() -> Result<()>) -> Result<Usage> {
    let mut seen = HashSet::new();
    let mut usage = Usage::default();
    let root = fs::symlink_metadata(directory).at("cannot stat", directory)?;
    seen.insert((root.dev(), root.ino()));
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        going_on()?;
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            other => other.at("cannot read", &directory)?,
        };
        for entry in entries {
            let entry = entry.at("cannot read", &directory)?;
            let found = match entry.metadata() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.at("cannot stat", entry.path())?,
            };
            if !seen.insert((found.dev(), found.ino())) {
                continue;
            }
            if found.is_dir() {
                waiting.push(entry.path());
            } else {
                usage.bytes += found.len();
            }
        }
    }
    usage.inodes = seen.len() as u64;
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_inode_counts_once() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("d");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("a"), b"12345").unwrap();
        fs::hard_link(dir.join("a"), root.path().join("b")).unwrap();
        std::os::unix::fs::symlink("abc", dir.join("s")).unwrap();
        let usage = tree_usage(root.path()).unwrap();
        assert_eq!((usage.bytes, usage.inodes), (8, 4));
    }
}
