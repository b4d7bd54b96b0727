// SPDX-License-Identifier: Apache-2.0
//! Directories that nobody else looks into.

use std::{
    fs::{self, DirBuilder},
    io,
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

/// Whether anything is at `path`, a link that leads nowhere included.
///
/// # Errors
/// What cannot be looked at is not taken for absent.
pub fn is_there(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error).at("cannot stat", path),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
    }

    #[test]
    fn what_cannot_be_looked_at_is_not_absent() {
        let root = tempfile::tempdir().unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink("nowhere", &link).unwrap();
        assert_eq!(is_there(&link), Ok(true));
        for absent in ["none", "none/below", "link/below"] {
            assert_eq!(is_there(&root.path().join(absent)), Ok(false), "{absent}");
        }
        assert!(is_there(&root.path().join("n".repeat(300))).is_err());
    }
}
