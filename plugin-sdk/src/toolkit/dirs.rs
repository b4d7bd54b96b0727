// SPDX-License-Identifier: Apache-2.0
//! Directories: private ones, and what survives a power cut.

use std::{
    fs::{DirBuilder, File},
    os::unix::fs::DirBuilderExt,
    path::Path,
};

use crate::{IoContext, Result};

/// Makes `path` and what is missing above it, for the owner alone (0700); what exists stays as it
/// is.
///
/// # Errors
/// What the file system reports.
pub fn create_private_dirs(path: &Path) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .at("cannot create", path)
}

/// Makes everything durable that was written so far to the file system of `path`.
///
/// # Errors
/// What the file system reports, also about earlier writes.
pub fn sync_filesystem(path: &Path) -> Result<()> {
    let open = File::open(path).at("cannot open", path)?;
    rustix::fs::syncfs(&open).at("cannot sync the file system of", path)
}

/// Makes the names in `directory` durable: what was made, renamed or removed there.
///
/// # Errors
/// What the file system reports.
pub fn sync_directory(directory: &Path) -> Result<()> {
    let synced = File::open(directory).and_then(|open| open.sync_all());
    synced.at("cannot sync", directory)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[test]
    fn every_directory_that_is_made_is_private() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        let path = root.path().join("a/b");
        create_private_dirs(&path).unwrap();
        create_private_dirs(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&root.path().join("a")), 0o700);
        assert_eq!(mode(root.path()), 0o755);
        sync_directory(&path).unwrap();
        sync_filesystem(&path).unwrap();
        let missing = sync_directory(&path.join("missing")).unwrap_err();
        assert!(missing.message.contains("missing"), "{missing}");
    }
}
