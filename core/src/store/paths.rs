// SPDX-License-Identifier: Apache-2.0
//! Directories of records, and what the three record stores need for them.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use crate::{Error, ErrorKind, IoContext, Result};

/// Makes a directory and its missing parents, mode 0700 under the umask.
pub(crate) fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .at("cannot create directory", path)
}

/// The directory of a record inside `dir`.
///
/// # Errors
/// `InvalidArgument` for the id of another tool's record that would lead out of `dir`.
pub(crate) fn record_dir(dir: &Path, id: &str) -> Result<PathBuf> {
    if id.is_empty() || id == "." || id == ".." || id.contains(['/', '\0']) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("the recorded id {id:?} cannot be the name of a directory"),
        )
        .subject(id));
    }
    Ok(dir.join(id))
}

/// Removes a directory with everything in it; one that is not there is no error.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("cannot remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Directories in `dir` whose names are full ids that no record has.
pub(crate) fn orphans(dir: &Path, known: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut orphans = Vec::new();
    for entry in fs::read_dir(dir).at("cannot read directory", dir)? {
        let entry = entry.at("cannot read directory", dir)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_id = name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if is_id && is_dir && !known(name) {
            orphans.push(entry.path());
        }
    }
    orphans.sort();
    Ok(orphans)
}

/// Adds what an ambiguous prefix may have meant.
pub(crate) fn with_candidates(error: Error, what: &str, candidates: &[String]) -> Error {
    if candidates.is_empty() {
        return error;
    }
    error.hint(format!(
        "{what:?} is the beginning of several ids: {}",
        candidates.join(", ")
    ))
}
