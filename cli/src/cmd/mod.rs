// SPDX-License-Identifier: Apache-2.0
//! The commands, by what they are about.

pub(crate) mod config;
pub(crate) mod containers;
pub(crate) mod copy;
pub(crate) mod create;
pub(crate) mod data;
pub(crate) mod delete;
pub(crate) mod diff;
pub(crate) mod driver;
pub(crate) mod exists;
pub(crate) mod images;
pub(crate) mod info;
pub(crate) mod layers;
pub(crate) mod metadata;
pub(crate) mod mount;
pub(crate) mod names;
pub(crate) mod own_image;
pub(crate) mod parents;
pub(crate) mod store;
pub(crate) mod words;

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use anyhow::anyhow;
use plywood::{ErrorKind, store::Store};

use crate::{
    hints::one_line,
    mflag::Values,
    output::go_error,
    run::{Run, Voice},
};

/// Opens a file that a flag names; the sentence on failure is Go's.
fn open_file(path: &Path) -> anyhow::Result<File> {
    let failed = |what: &str, error| anyhow!("{what} {}: {}", path.display(), go_error(&error));
    let file = File::open(path).map_err(|error| failed("open", error))?;
    if file.metadata().is_ok_and(|meta| meta.is_dir()) {
        return Err(failed("read", io::ErrorKind::IsADirectory.into()));
    }
    Ok(file)
}

/// Why a stream could not be unpacked.
///
/// # Compatibility
/// As `containers-storage`, with what a driver's helper process puts around the reason there
/// (`drivers/overlay/overlay.go`, `pkg/chrootarchive/diff_unix.go`), since scripts look for it.
fn unpack_failed(run: &Run<'_>, store: &Store, error: plywood::Error) -> anyhow::Error {
    if error.kind() != ErrorKind::InvalidArchive {
        return error.into();
    }
    if run.voice == Voice::Own {
        let from = run.values.path("--file").map_or_else(
            || "standard input".to_owned(),
            |path| format!("`{}`", path.display()),
        );
        return anyhow::Error::new(error).context(format!("cannot unpack {from}"));
    }
    let reason = one_line(&error);
    let is_duplicate = reason.starts_with("duplicates of file paths");
    match store.driver_name() {
        "overlay" if is_duplicate => anyhow!(
            "unpacking failed (error: {reason}; output: )\nexhausting input failed (error: {reason})"
        ),
        "overlay" => {
            anyhow!("unpacking failed (error: exit status 1; output: {reason})")
        }
        "vfs" if !is_duplicate => anyhow!("ApplyLayer stdout:  stderr: {reason} exit status 1"),
        _ => error.into(),
    }
}

/// Creates a file that a flag names.
fn create_file(path: &Path) -> anyhow::Result<File> {
    File::create(path).map_err(|error| anyhow!("open {}: {}", path.display(), go_error(&error)))
}

/// What `--file` names, or standard input.
fn input(values: &Values) -> anyhow::Result<Box<dyn Read + Send>> {
    match values.path("--file") {
        Some(path) => Ok(Box::new(open_file(&path)?)),
        None => Ok(Box::new(io::stdin())),
    }
}

/// All of what `--file` names, or of standard input.
fn input_bytes(values: &Values) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let path = values.path("--file");
    let from = path.as_ref().map_or_else(
        || "/dev/stdin".to_owned(),
        |path| path.display().to_string(),
    );
    input(values)?
        .read_to_end(&mut bytes)
        .map_err(|error| anyhow!("read {from}: {}", go_error(&error)))?;
    Ok(bytes)
}

/// The text of `--metadata`, or what `--metadata-file` holds, which wins.
fn metadata_text(values: &Values) -> anyhow::Result<Option<String>> {
    let Some(path) = values.path("--metadata-file") else {
        return Ok(values.text("--metadata"));
    };
    let mut bytes = Vec::new();
    open_file(&path)?
        .read_to_end(&mut bytes)
        .map_err(|error| anyhow!("read {}: {}", path.display(), go_error(&error)))?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}
