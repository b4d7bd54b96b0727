// SPDX-License-Identifier: Apache-2.0
//! What a command gets, and how it is answered.

use std::{ffi::OsStr, io};

use plywood::store::{Store, StoreOptions};

use crate::{
    hints,
    mflag::Values,
    options,
    output::{Output, note},
};

/// The exit code of a command, or why it failed.
pub(crate) type Outcome = anyhow::Result<u8>;

/// What a command does.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Action {
    /// Works on the open store.
    Store(fn(&mut Run<'_>, &Store) -> Outcome),
    /// Needs no store.
    Plain(fn(&mut Run<'_>) -> Outcome),
}

/// Under which name the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Voice {
    /// As `containers-storage`: its texts, to the byte.
    DropIn,
    /// As `plywood`: the same standard output and JSON, errors with causes and hints.
    Own,
}

impl Voice {
    /// The voice for the program's name.
    pub(crate) fn of(program: &OsStr) -> Self {
        let name = std::path::Path::new(program).file_name();
        if name == Some(OsStr::new("containers-storage")) {
            Self::DropIn
        } else {
            Self::Own
        }
    }
}

/// One invocation of a command.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    /// How it speaks.
    pub(crate) voice: Voice,
    /// The command's name as typed.
    pub(crate) name: &'a str,
    /// Flags before the command.
    pub(crate) globals: &'a Values,
    /// Flags and arguments after it.
    pub(crate) values: Values,
    /// Where the answer goes.
    pub(crate) out: &'a mut Output,
}

impl Run<'_> {
    /// Whether JSON is wanted.
    pub(crate) fn json(&self) -> bool {
        self.values.is("--json")
    }

    /// The arguments as text.
    pub(crate) fn args(&self) -> Vec<String> {
        self.values.words()
    }

    /// The arguments as text when there must be some; the table guarantees the first.
    pub(crate) fn arg(&self, at: usize) -> String {
        self.values
            .args
            .get(at)
            .map(|arg| arg.to_string_lossy().into_owned())
            .unwrap_or_default()
    }

    /// What the store is opened with.
    pub(crate) fn options(&self) -> plywood::Result<StoreOptions> {
        options::load(self.globals, &self.values)
    }

    /// What was found. Why there is nothing is told under our own name only: containers-storage
    /// says it by its exit code.
    pub(crate) fn found<T>(&self, found: plywood::Result<T>) -> Option<T> {
        found
            .inspect_err(|error| {
                if self.voice == Voice::Own {
                    hints::report_missing(error);
                }
            })
            .ok()
    }

    /// Reports the failure of one of several items; `line` is what containers-storage prints.
    pub(crate) fn item_failed(&self, line: &str, error: &plywood::Error) {
        match self.voice {
            Voice::DropIn => note(line),
            Voice::Own => hints::report_line(line, error),
        }
    }
}

/// Why the program ends early without a text: standard output was closed.
pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}
