// SPDX-License-Identifier: Apache-2.0
//! Directories of records, and what the three record stores need for them.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::toolkit;

use crate::{Error, ErrorKind, IoContext, Result, containers::USER_DATA};

/// What the store itself has beside the directories of images and containers.
const OWN_FILES: [&str; 5] = [
    "images.json",
    "images.lock",
    "containers.json",
    "containers.lock",
    "volatile-containers.json",
];

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
/// `InvalidArgument` for the id of another tool's record that would lead out of `dir`, and for one
/// that is the name of a file of the store itself.
pub(crate) fn record_dir(dir: &Path, id: &str) -> Result<PathBuf> {
    let leads_out = id.is_empty() || id == "." || id == ".." || id.contains(['/', '\0']);
    if leads_out || OWN_FILES.contains(&id) {
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
    // A container's directories may have mounts in them, whose content is not to go.
    Ok(toolkit::remove_tree(path)?)
}

/// Makes way for the data of a new record: removes what another record left under its id, but not
/// the caller's own directory.
pub(crate) fn clear_leftovers(path: &Path) -> Result<()> {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("cannot read directory", path, error)),
    };
    let mut empty = true;
    for entry in entries {
        let entry = entry.at("cannot read directory", path)?;
        if entry.file_name() == USER_DATA {
            empty = false;
            continue;
        }
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => remove_tree(&path)?,
            _ => remove_file(&path)?,
        }
    }
    match fs::remove_dir(path) {
        Err(error) if empty && error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("cannot remove", path, error))
        }
        _ => Ok(()),
    }
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("cannot remove", path, error))
        }
        _ => Ok(()),
    }
}

/// Removes an orphan that [`orphans`] found.
pub(crate) fn remove_orphan(path: &Path) -> Result<()> {
    let is_dir = fs::symlink_metadata(path).is_ok_and(|data| data.is_dir());
    if is_dir {
        remove_tree(path)
    } else {
        remove_file(path)
    }
}

/// What in `dir` belongs to no record: directories whose names are full ids that no record has,
/// and files that were to replace others but never did.
///
/// Nobody is writing the latter while the records are locked for changes.
pub(crate) fn orphans(dir: &Path, known: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut orphans = Vec::new();
    for entry in fs::read_dir(dir).at("cannot read directory", dir)? {
        let entry = entry.at("cannot read directory", dir)?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_dir {
            if is_temporary(name) {
                orphans.push(entry.path());
            }
        } else if known(name) {
            orphans.append(&mut temporary_files(&entry.path())?);
        } else if name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit()) {
            orphans.push(entry.path());
        }
    }
    orphans.sort();
    Ok(orphans)
}

fn temporary_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).at("cannot read directory", dir)? {
        let entry = entry.at("cannot read directory", dir)?;
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && entry.file_name().to_str().is_some_and(is_temporary) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// `.tmp-NAMEDIGITS`, as both programs name the next version of a file.
fn is_temporary(name: &str) -> bool {
    name.strip_prefix(".tmp-")
        .and_then(|rest| rest.as_bytes().last())
        .is_some_and(u8::is_ascii_digit)
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
