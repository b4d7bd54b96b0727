// SPDX-License-Identifier: Apache-2.0
//! Which files are read, in which order.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::env::Environment;
use crate::{Error, ErrorKind, IoContext, Result};

/// A file of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// The system's main file: its root directories are those of the host's root.
    pub(super) system_main: bool,
}

impl Source {
    fn plain(path: PathBuf) -> Self {
        Self {
            path,
            system_main: false,
        }
    }
}

/// The user's configuration directory.
pub(super) fn user_config(env: &Environment) -> Option<PathBuf> {
    env.path("XDG_CONFIG_HOME")
        .or_else(|| env.path("HOME").map(|home| home.join(".config")))
}

/// The files of `storage.conf`, the weakest first.
pub(super) fn storage_conf(env: &Environment) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    if let Some(path) = env.path("CONTAINERS_STORAGE_CONF") {
        sources.push(Source::plain(existing(path, "CONTAINERS_STORAGE_CONF")?));
    } else {
        let user = user_config(env).map(|dir| dir.join("containers"));
        let system = [env.etc.join("containers"), env.usr_share.join("containers")];
        let candidates = user
            .iter()
            .map(|dir| (dir, false))
            .chain(system.iter().map(|dir| (dir, true)));
        for (dir, system_main) in candidates {
            let path = dir.join("storage.conf");
            if exists(&path)? {
                sources.push(Source { path, system_main });
                break;
            }
        }
        sources.extend(drop_ins(env, user.as_deref())?);
    }
    if let Some(path) = env.path("CONTAINERS_STORAGE_CONF_OVERRIDE") {
        let name = "CONTAINERS_STORAGE_CONF_OVERRIDE";
        sources.push(Source::plain(existing(path, name)?));
    }
    Ok(sources)
}

/// The drop-ins: a name in a later directory hides the same name in an earlier one, and what
/// remains is applied in the order of the names.
fn drop_ins(env: &Environment, user: Option<&Path>) -> Result<Vec<Source>> {
    let uid = env.rootless_uid();
    let mut found: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for base in [&env.usr_share, &env.etc] {
        let base = base.join("containers");
        collect(&base.join("storage.conf.d"), &mut found)?;
        if uid == 0 {
            collect(&base.join("storage.rootful.conf.d"), &mut found)?;
        } else {
            let dir = base.join("storage.rootless.conf.d");
            collect(&dir, &mut found)?;
            collect(&dir.join(uid.to_string()), &mut found)?;
        }
    }
    if let Some(user) = user {
        collect(&user.join("storage.conf.d"), &mut found)?;
    }
    Ok(found.into_values().map(Source::plain).collect())
}

fn collect(dir: &Path, found: &mut BTreeMap<OsString, PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            return Ok(());
        }
        other => other.at("cannot list", dir)?,
    };
    for entry in entries {
        let path = entry.at("cannot list", dir)?.path();
        let is_conf = path.extension().is_some_and(|ext| ext == "conf");
        if is_conf && path.is_file() {
            let name = path.file_name().unwrap_or_default().to_owned();
            found.insert(name, path);
        }
    }
    Ok(())
}

fn exists(path: &Path) -> Result<bool> {
    path.try_exists()
        .at("cannot inspect", path)
        .map_err(|error| {
            if error.kind() == ErrorKind::Permission {
                error.hint("HOME or XDG_CONFIG_HOME names a directory of another user; correct it")
            } else {
                error
            }
        })
}

fn existing(path: PathBuf, variable: &str) -> Result<PathBuf> {
    if exists(&path)? {
        return Ok(path);
    }
    let shown = path.display().to_string();
    Err(Error::new(
        ErrorKind::Config,
        format!("open {shown}: no such file or directory"),
    )
    .subject(shown)
    .hint(format!(
        "the environment variable {variable} names this file"
    )))
}
