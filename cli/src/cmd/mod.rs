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

use crate::{mflag::Values, output::go_error};

/// Opens a file that a flag names; the sentence on failure is Go's.
fn open_file(path: &Path) -> anyhow::Result<File> {
    File::open(path).map_err(|error| anyhow!("open {}: {}", path.display(), go_error(&error)))
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
