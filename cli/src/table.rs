// SPDX-License-Identifier: Apache-2.0
//! The one table of commands: parsing, usage, help, completions and man pages all come from it.

mod commands;
mod own;

pub(crate) use commands::COMMANDS;
pub(crate) use own::OWN_COMMANDS;

use crate::{
    mflag::{Flag, Kind},
    run::Action,
};

/// A command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spec {
    /// Its name and aliases; a noun and a verb for our own (`driver list`).
    pub(crate) names: &'static [&'static str],
    /// What follows the name in its usage line.
    pub(crate) arguments: &'static str,
    /// One line.
    pub(crate) about: &'static str,
    /// Least number of arguments.
    pub(crate) min: usize,
    /// Greatest number of arguments; none without a limit.
    pub(crate) max: Option<usize>,
    /// Its flags, beside the global ones.
    pub(crate) flags: &'static [Flag],
    /// What it does.
    pub(crate) action: Action,
}

const fn flag(names: &'static [&'static str], kind: Kind, help: &'static str) -> Flag {
    Flag { names, kind, help }
}

const JSON: Flag = flag(&["--json", "-j"], Kind::Bool, "Prefer JSON output");
const QUIET_IDS: Flag = flag(&["--quiet", "-q"], Kind::Bool, "Only print IDs");

/// Flags that every command takes.
pub(crate) const GLOBALS: &[Flag] = &[
    flag(
        &["--run", "-R"],
        Kind::Text("DIR"),
        "Root of the runtime state tree",
    ),
    flag(
        &["--graph", "-g"],
        Kind::Text("DIR"),
        "Root of the storage tree",
    ),
    flag(
        &["--storage-driver", "-s"],
        Kind::Text("NAME"),
        "Storage driver to use ($STORAGE_DRIVER)",
    ),
    flag(
        &["--storage-opt"],
        Kind::List("OPT"),
        "Set storage driver options ($STORAGE_OPTS)",
    ),
    flag(
        &["--debug", "-D"],
        Kind::Bool,
        "Print debugging information",
    ),
];

/// Further flags that every command takes under the name `plywood`.
pub(crate) const OWN_GLOBALS: &[Flag] = &[
    flag(
        &["--plugin-dir"],
        Kind::List("DIR"),
        "Look for drivers in this directory first",
    ),
    flag(
        &["--log-level"],
        Kind::Text("LEVEL"),
        "Show log messages of this level: error, warn, info, debug, trace",
    ),
];

/// The command called `word` of containers-storage.
pub(crate) fn find(word: &str) -> Option<&'static Spec> {
    COMMANDS.iter().find(|spec| spec.names.contains(&word))
}

/// Our own command at the start of `words`, and of how many words its name is.
pub(crate) fn find_own(words: &[String]) -> Option<(&'static Spec, usize)> {
    OWN_COMMANDS.iter().find_map(|spec| {
        let name: Vec<&str> = spec.names[0].split(' ').collect();
        let same = words.len() >= name.len() && name.iter().zip(words).all(|(a, b)| a == b);
        same.then_some((spec, name.len()))
    })
}

/// Whether `word` starts our own commands only (`driver`, but not `image`).
pub(crate) fn is_own_noun(word: &str) -> bool {
    find(word).is_none()
        && OWN_COMMANDS
            .iter()
            .any(|spec| spec.names[0].split(' ').next() == Some(word))
}
