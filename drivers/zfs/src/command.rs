// SPDX-License-Identifier: Apache-2.0
//! The programs `zfs` and `zpool`, and what their error messages mean.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use plywood_plugin_sdk::{DriverError, DriverErrorCode};
use rustix::io::Errno;

/// What a program has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finished {
    /// It ended with status 0.
    pub(crate) success: bool,
    /// What it printed; names of files need not be text.
    pub(crate) output: Vec<u8>,
    /// What it complained about.
    pub(crate) complaint: String,
}

/// Runs programs; tests put another one in its place.
pub(crate) trait Runner: Send + Sync {
    /// Runs `program` to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<Finished>;
}

/// Where the programs are looked for: `PATH` may be empty, or name directories of somebody else.
const DIRECTORIES: &[&str] = &[
    "/usr/local/sbin",
    "/usr/sbin",
    "/sbin",
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
    "/run/current-system/sw/bin",
];

/// The programs of this machine.
#[derive(Debug)]
pub(crate) struct Programs;

impl Runner for Programs {
    fn run(&self, program: &str, arguments: &[&str]) -> io::Result<Finished> {
        let file = find(program).ok_or_else(|| {
            let text = format!("there is no `{program}` in {}", DIRECTORIES.join(", "));
            io::Error::new(io::ErrorKind::NotFound, text)
        })?;
        let done = Command::new(file)
            .args(arguments)
            // The messages are read.
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .output()?;
        Ok(Finished {
            success: done.status.success(),
            output: done.stdout,
            complaint: String::from_utf8_lossy(&done.stderr).trim().to_owned(),
        })
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let mut places = DIRECTORIES
        .iter()
        .map(|place| Path::new(place).join(program));
    places.find(|file| file.is_file())
}

/// What a failure means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Meaning {
    /// The dataset is not there.
    Missing,
    /// A dataset of that name is there already.
    Exists,
    /// It is mounted somewhere or used in another way.
    Busy,
    /// Other datasets are clones of its snapshots.
    Cloned,
    /// The pool is full, or a quota is exhausted.
    Full,
    /// The process may not do that.
    Forbidden,
    /// The pool cannot be written to.
    ReadOnly,
    /// The program or the kernel module is not installed.
    NotInstalled,
    /// Anything else.
    Other,
}

/// A program that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) meaning: Meaning,
    /// The program and its arguments.
    command: String,
    /// Its own words.
    pub(crate) complaint: String,
}

/// The phrases by which OpenZFS (libzfs's `libzfs_util.c`, and `zfs_main.c`) tells what is wrong;
/// the first that occurs counts.
const PHRASES: &[(&str, Meaning)] = &[
    ("has dependent clones", Meaning::Cloned),
    ("dataset already exists", Meaning::Exists),
    ("dataset is busy", Meaning::Busy),
    ("umount failed", Meaning::Busy),
    ("target is busy", Meaning::Busy),
    ("dataset does not exist", Meaning::Missing),
    ("could not find any snapshots to destroy", Meaning::Missing),
    ("no such pool", Meaning::Missing),
    ("out of space", Meaning::Full),
    ("No space left on device", Meaning::Full),
    ("Disk quota exceeded", Meaning::Full),
    ("quota exceeded", Meaning::Full),
    ("permission denied", Meaning::Forbidden),
    ("Permission denied", Meaning::Forbidden),
    ("pool is read-only", Meaning::ReadOnly),
    ("pool is read only", Meaning::ReadOnly),
    ("read-only", Meaning::ReadOnly),
    ("modules cannot be auto-loaded", Meaning::NotInstalled),
    ("modules are not loaded", Meaning::NotInstalled),
    ("/dev/zfs", Meaning::NotInstalled),
];

impl Failure {
    fn new(program: &str, arguments: &[&str], complaint: String) -> Self {
        let found = PHRASES
            .iter()
            .find(|(phrase, _)| complaint.contains(phrase));
        Self {
            meaning: found.map_or(Meaning::Other, |(_, meaning)| *meaning),
            command: format!("{program} {}", arguments.join(" ")),
            complaint,
        }
    }

    /// The error of a driver, about `object`.
    pub(crate) fn about(&self, object: &str) -> DriverError {
        let (code, remedy) = match self.meaning {
            Meaning::Missing => (DriverErrorCode::NOT_FOUND, None),
            Meaning::Exists => (DriverErrorCode::ALREADY_EXISTS, None),
            Meaning::Busy => (
                DriverErrorCode::BUSY,
                Some("unmount it where it is mounted, and try again"),
            ),
            Meaning::Cloned => (
                DriverErrorCode::BUSY,
                Some("remove the layers that were made from it first"),
            ),
            Meaning::Full => (
                DriverErrorCode::NO_SPACE,
                Some("remove what is not needed, or raise the quota of the parent dataset"),
            ),
            Meaning::Forbidden => (DriverErrorCode::PERMISSION, Some("run as root")),
            Meaning::ReadOnly => (DriverErrorCode::READ_ONLY, Some("import the pool writable")),
            Meaning::NotInstalled => (
                DriverErrorCode::PREREQUISITES,
                Some("install OpenZFS (zfsutils-linux and zfs-dkms on Debian) and load its module"),
            ),
            Meaning::Other => (DriverErrorCode::IO, None),
        };
        let mut error = DriverError::new(code, self.to_string()).object(object);
        if self.meaning == Meaning::Forbidden {
            error.errno = Some(Errno::ACCESS.raw_os_error());
        }
        if let Some(remedy) = remedy {
            error = error.remedy(remedy);
        }
        error
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` failed: {}", self.command, self.complaint)
    }
}

/// Runs a program and gives back what it printed.
pub(crate) fn run(
    runner: &dyn Runner,
    program: &str,
    arguments: &[&str],
) -> Result<Vec<u8>, Failure> {
    match runner.run(program, arguments) {
        Ok(done) if done.success => Ok(done.output),
        Ok(done) => Err(Failure::new(program, arguments, done.complaint)),
        Err(error) => {
            let mut failure = Failure::new(program, arguments, error.to_string());
            if error.kind() == io::ErrorKind::NotFound {
                failure.meaning = Meaning::NotInstalled;
                failure.complaint = format!("the '{program}' command is not available: {error}");
            }
            Err(failure)
        }
    }
}

#[cfg(test)]
pub(crate) mod fake {
    //! A runner that answers what it was told to.

    use std::{
        collections::VecDeque,
        io,
        sync::{Arc, Mutex},
    };

    use super::{Finished, Runner};

    /// Expected command lines, each with its answer.
    #[derive(Debug, Default)]
    pub(crate) struct Script(Mutex<VecDeque<(String, Finished)>>);

    impl Script {
        /// Takes lines of `COMMAND`, and what that prints or, after `!`, complains about.
        pub(crate) fn new(lines: &[(&str, &str)]) -> Arc<Self> {
            let answer = |text: &str| match text.strip_prefix('!') {
                None => Finished {
                    success: true,
                    output: text.as_bytes().to_vec(),
                    complaint: String::new(),
                },
                Some(complaint) => Finished {
                    success: false,
                    output: Vec::new(),
                    complaint: complaint.to_owned(),
                },
            };
            let lines = lines
                .iter()
                .map(|(line, text)| ((*line).to_owned(), answer(text)));
            Arc::new(Self(Mutex::new(lines.collect())))
        }

        /// Fails unless every line was used.
        pub(crate) fn finish(&self) {
            assert!(self.0.lock().unwrap().is_empty(), "{self:?}");
        }
    }

    impl Runner for Script {
        fn run(&self, program: &str, arguments: &[&str]) -> io::Result<Finished> {
            let given = format!("{program} {}", arguments.join(" "));
            let next = self.0.lock().unwrap().pop_front();
            let (expected, answer) = next.unwrap_or_else(|| panic!("not expected: {given}"));
            assert_eq!(given, expected);
            Ok(answer)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complaints_are_understood() {
        for (complaint, meaning) in [
            (
                "cannot open 'tank/c/x': dataset does not exist",
                Meaning::Missing,
            ),
            (
                "cannot create 'tank/c/x': dataset already exists",
                Meaning::Exists,
            ),
            ("cannot destroy 'tank/c/x': dataset is busy", Meaning::Busy),
            (
                "cannot unmount '/m': pool or dataset is busy",
                Meaning::Busy,
            ),
            (
                "cannot destroy 'tank/c/x': filesystem has dependent clones\nuse '-R' to destroy \
                 the following datasets:\ntank/c/y",
                Meaning::Cloned,
            ),
            ("cannot create 'tank/c/x': out of space", Meaning::Full),
            (
                "cannot create 'tank/c/x': permission denied",
                Meaning::Forbidden,
            ),
            (
                "cannot create 'tank/c/x': pool is read-only",
                Meaning::ReadOnly,
            ),
            ("cannot create 'x': bad property", Meaning::Other),
        ] {
            let failure = Failure::new("zfs", &["x"], complaint.to_owned());
            assert_eq!(failure.meaning, meaning, "{complaint}");
            let error = failure.about("x");
            assert_eq!(error.object.as_deref(), Some("x"));
            assert!(error.message.contains(complaint));
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_a_prerequisite() {
        let failure = run(&Programs, "no-such-zfs-program", &["list"]).unwrap_err();
        let error = failure.about("tank");
        assert_eq!(error.code, DriverErrorCode::PREREQUISITES);
        assert!(error.means_unsuitable());
    }
}
