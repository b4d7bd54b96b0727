// SPDX-License-Identifier: Apache-2.0
//! Removal of whole trees.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use crate::{IoContext, Result};

/// Removes a file or a directory with everything below it, following no symbolic link; what is
/// not there is no error.
///
/// # Behavior
/// - Directories that their owner may not enter (the kernel's `work/work`, layers of an
///   unprivileged user) are made accessible first.
/// - A mount below `path` is not entered by force: the removal fails with `EBUSY`.
///
/// # Errors
/// What cannot be removed; the rest of the tree may be gone by then.
pub fn remove_tree(path: &Path) -> Result<()> {
    match remove(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path).at("cannot make accessible", path)?;
            remove(path).at("cannot remove", path)
        }
        other => other.at("cannot remove", path),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Gives the owner all permissions on every directory below `path`.
fn open_up(path: &Path) -> io::Result<()> {
    let mut pending = vec![path.to_owned()];
    while let Some(directory) = pending.pop() {
        let found = fs::symlink_metadata(&directory)?;
        if !found.is_dir() {
            continue;
        }
        if found.permissions().mode() & 0o700 != 0o700 {
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        }
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_files_and_nothing_are_removed_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (tree, kept) = (root.path().join("tree"), root.path().join("kept"));
        fs::create_dir_all(tree.join("work/work")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&kept, tree.join("link")).unwrap();
        fs::set_permissions(tree.join("work/work"), fs::Permissions::from_mode(0o000)).unwrap();

        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        remove_tree(&kept.join("file")).unwrap();
        assert!(!tree.exists() && kept.exists() && !kept.join("file").exists());
    }

    #[test]
    fn closed_directories_are_opened_up() {
        let root = tempfile::tempdir().unwrap();
        let closed = root.path().join("a/b");
        fs::create_dir_all(closed.join("c")).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        open_up(root.path()).unwrap();
        assert_eq!(
            fs::metadata(&closed).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
}
