// SPDX-License-Identifier: Apache-2.0
//! What a case's process tells the suite: lines in a file, which survive however it ends.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, Write as _},
    path::Path,
    sync::{Mutex, OnceLock},
};

use serde::{Deserialize, Serialize};

use crate::case::{Ending, Failure};

/// What came of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Status {
    /// The property holds.
    Pass,
    /// It does not.
    Fail,
    /// The suite itself could not do its work.
    Error,
    /// The driver does not declare what the case is about, and refuses it.
    NotApplicable,
    /// The machine lacks something.
    NotRun,
    /// It does not hold, as the list of known failures says.
    Xfail,
    /// It holds although the list of known failures says that it does not.
    Xpass,
}

impl Status {
    /// All of them, in the order of reports.
    pub const ALL: [Self; 7] = [
        Self::Pass,
        Self::Fail,
        Self::Error,
        Self::NotApplicable,
        Self::NotRun,
        Self::Xfail,
        Self::Xpass,
    ];

    /// The word in reports.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Error => "ERROR",
            Self::NotApplicable => "NOT_APPLICABLE",
            Self::NotRun => "NOT_RUN",
            Self::Xfail => "XFAIL",
            Self::Xpass => "XPASS",
        }
    }
}

/// Something that a case left behind, under the id of the property that it breaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leak {
    /// The case of group LEK whose property it breaks.
    pub id: String,
    /// What was left.
    pub what: String,
}

/// The end of a case as its own process saw it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Verdict {
    pub(crate) status: Status,
    #[serde(default)]
    pub(crate) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) expected: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) actual: Option<String>,
    /// The second gate for which the case does not apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) excuse: Option<String>,
    #[serde(default)]
    pub(crate) assertions: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) leaks: Vec<Leak>,
    /// Something outside the store changed: the machine cannot be trusted any more.
    #[serde(default)]
    pub(crate) host_unsafe: bool,
}

impl Verdict {
    pub(crate) fn new(status: Status, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            expected: None,
            actual: None,
            excuse: None,
            assertions: 0,
            leaks: Vec::new(),
            host_unsafe: false,
        }
    }
}

impl Verdict {
    /// The failure that a process of the case told with it.
    pub(crate) fn failure(self) -> Failure {
        Failure {
            ending: match self.status {
                Status::NotRun => Ending::NotRun,
                Status::NotApplicable => Ending::NotApplicable,
                Status::Error => Ending::Harness,
                _ => Ending::Failed,
            },
            text: self.message,
            expected: self.expected,
            actual: self.actual,
            excuse: self.excuse,
        }
    }
}

impl From<Failure> for Verdict {
    fn from(failure: Failure) -> Self {
        let status = match failure.ending {
            Ending::Failed => Status::Fail,
            Ending::Harness => Status::Error,
            Ending::NotRun => Status::NotRun,
            Ending::NotApplicable => Status::NotApplicable,
        };
        let mut verdict = Self::new(status, failure.text);
        verdict.expected = failure.expected;
        verdict.actual = failure.actual;
        verdict.excuse = failure.excuse;
        verdict
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Line {
    Step(String),
    Measure(String, f64),
    Verdict(Box<Verdict>),
}

static OUT: OnceLock<Mutex<File>> = OnceLock::new();

/// Says where this process's messages go.
pub(crate) fn open(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let set = OUT.set(Mutex::new(file));
    debug_assert!(set.is_ok(), "a process runs one case");
    Ok(())
}

fn send(line: &Line) -> io::Result<()> {
    let Some(out) = OUT.get() else { return Ok(()) };
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    out.lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .write_all(&text)
}

/// Names what the case does next.
pub(crate) fn step(text: &str) -> io::Result<()> {
    send(&Line::Step(text.to_owned()))
}

/// Records a number that is no verdict.
pub(crate) fn measure(name: &str, value: f64) -> io::Result<()> {
    send(&Line::Measure(name.to_owned(), value))
}

pub(crate) fn verdict(verdict: Verdict) -> io::Result<()> {
    send(&Line::Verdict(Box::new(verdict)))
}

/// What a process said, read after its end.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    pub(crate) steps: Vec<String>,
    pub(crate) measures: BTreeMap<String, f64>,
    pub(crate) verdict: Option<Verdict>,
}

/// Reads a message file; one that was never made holds no messages.
pub(crate) fn read(path: &Path) -> io::Result<Messages> {
    let mut messages = Messages::default();
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(messages),
        Err(error) => return Err(error),
    };
    // The last line of a process that was killed may be half.
    for line in text
        .lines()
        .map_while(|line| serde_json::from_str(line).ok())
    {
        match line {
            Line::Step(text) => messages.steps.push(text),
            Line::Measure(name, value) => {
                messages.measures.insert(name, value);
            }
            Line::Verdict(verdict) => messages.verdict = Some(*verdict),
        }
    }
    Ok(messages)
}
