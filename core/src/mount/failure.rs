// SPDX-License-Identifier: Apache-2.0
//! What the kernel says about a mount.

use std::{fmt, io, path::Path};

use rustix::io::Errno;

use crate::{Error, ErrorKind};

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failure {
    /// The call and its argument.
    doing: String,
    errno: Errno,
    /// The kernel's own words.
    words: Vec<String>,
    /// What the caller should be told instead of what follows from the number.
    hint: Option<&'static str>,
}

impl Failure {
    pub(super) fn new(doing: impl Into<String>, errno: Errno) -> Self {
        Self {
            doing: doing.into(),
            errno,
            words: Vec::new(),
            hint: None,
        }
    }

    pub(super) fn words(mut self, words: Vec<String>) -> Self {
        self.words = words;
        self
    }

    pub(super) fn hint(mut self, hint: &'static str) -> Self {
        self.hint = Some(hint);
        self
    }

    /// The kernel does not know the call, or a filter does not let it through: another interface
    /// may work.
    pub(super) fn is_missing_call(&self) -> bool {
        matches!(self.errno, Errno::NOSYS | Errno::PERM) && self.words.is_empty()
    }

    /// Somebody else has the file system to itself.
    pub(super) fn is_busy(&self) -> bool {
        self.errno == Errno::BUSY
    }

    pub(super) fn at(self, action: &str, target: &Path) -> Error {
        let hint = self.hint.or(match self.errno {
            Errno::LOOP => {
                Some("one directory of the layers is inside another one, or named twice")
            }
            Errno::BUSY => Some("another mount writes to the same layer"),
            Errno::STALE => Some("the layer was written to with other overlay features, or moved"),
            Errno::NODEV => Some("load the kernel's module for this file system"),
            Errno::INVAL if self.words.is_empty() => Some("the kernel's log (dmesg) says more"),
            _ => None,
        });
        let kind = match self.errno {
            Errno::PERM | Errno::ACCESS => ErrorKind::Permission,
            Errno::BUSY => ErrorKind::Busy,
            Errno::TOOBIG | Errno::NODEV => ErrorKind::NotSupported,
            _ => ErrorKind::Io,
        };
        let error = Error::new(kind, format!("{action} `{}`: {self}", target.display()))
            .subject(target.display().to_string())
            .caused_by(io::Error::from(self.errno));
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.doing)?;
        for words in &self.words {
            write!(f, ": {words}")?;
        }
        Ok(())
    }
}
