// SPDX-License-Identifier: Apache-2.0
//! Where the store of a user without privileges is by default.

use std::{fs, os::unix::fs::MetadataExt, path::PathBuf};

use super::{env::Environment, origin::Origin};
use crate::{Error, ErrorKind, Result};

/// `${XDG_DATA_HOME:-$HOME/.local/share}/containers/storage`.
pub(super) fn graph_root(env: &Environment) -> Result<(PathBuf, Origin)> {
    let (data, origin) = if let Some(data) = env.path("XDG_DATA_HOME") {
        (data, Origin::Environment("XDG_DATA_HOME".to_owned()))
    } else {
        let home = env.path("HOME").ok_or_else(|| {
            Error::new(ErrorKind::Config, "cannot determine user's homedir")
                .hint("set HOME or XDG_DATA_HOME, or name the directory with --graph")
        })?;
        (home.join(".local/share"), Origin::Default)
    };
    Ok((data.join("containers/storage"), origin))
}

/// `$XDG_RUNTIME_DIR/containers`, else `/run/user/UID/containers`, else
/// `$TMPDIR/storage-run-UID/containers`.
///
/// The last two directories may be made by anybody, so one that belongs to someone else is not
/// used.
pub(super) fn run_root(env: &Environment) -> Result<(PathBuf, Origin)> {
    if let Some(dir) = env.path("XDG_RUNTIME_DIR") {
        let origin = Origin::Environment("XDG_RUNTIME_DIR".to_owned());
        return Ok((dir.join("containers"), origin));
    }
    let uid = env.rootless_uid();
    let owned = |path: &PathBuf| fs::symlink_metadata(path).map(|m| m.is_dir() && is_own(env, &m));
    let dir = env.run_user.join(uid.to_string());
    if owned(&dir).unwrap_or(false) {
        return Ok((dir.join("containers"), Origin::Default));
    }
    let tmp = env.path("TMPDIR").unwrap_or_else(|| "/tmp".into());
    let dir = tmp.join(format!("storage-run-{uid}"));
    // A directory that is not there yet is made (0700) when the store is opened.
    if let Ok(false) = owned(&dir) {
        let shown = dir.display().to_string();
        return Err(Error::new(
            ErrorKind::Config,
            format!("the run directory does not belong to the user {uid}: `{shown}`"),
        )
        .subject(shown)
        .hint("set XDG_RUNTIME_DIR, or name the directory with --run"));
    }
    Ok((dir.join("containers"), Origin::Default))
}

/// In a user namespace the user's own files belong to its root.
fn is_own(env: &Environment, found: &fs::Metadata) -> bool {
    found.uid() == env.uid || found.uid() == env.rootless_uid()
}
