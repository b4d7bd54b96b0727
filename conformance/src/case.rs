// SPDX-License-Identifier: Apache-2.0
//! What a case is in code, and how it says what it saw.

use std::{
    error::Error as StdError,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{Site, Target};

/// What a case's code returns.
pub(crate) type Outcome = Result<(), Failure>;

/// A part of a case that runs in a process of its own on the same store.
pub(crate) type Role = fn(&Site, &[String]) -> Outcome;

/// How a case begins.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Body {
    /// With the driver opened on a fresh store.
    Open(fn(&mut Target) -> Outcome),
    /// With nothing but an empty root: the case opens the driver itself.
    Bare(fn(&Site) -> Outcome),
}

/// One property that a driver must have; what it asserts stands in the catalogue.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The permanent id.
    pub id: &'static str,
    pub(crate) body: Body,
    pub(crate) roles: &'static [(&'static str, Role)],
    /// Whether `fsync` and its like wait until the disk has it.
    pub(crate) waits: bool,
}

/// A case that gets the open driver.
pub(crate) const fn case(id: &'static str, body: fn(&mut Target) -> Outcome) -> Case {
    Case {
        id,
        body: Body::Open(body),
        roles: &[],
        waits: false,
    }
}

/// A case that opens the driver itself.
pub(crate) const fn bare(id: &'static str, body: fn(&Site) -> Outcome) -> Case {
    Case {
        id,
        body: Body::Bare(body),
        roles: &[],
        waits: false,
    }
}

impl Case {
    /// With parts that [`Site::peer`] starts by name.
    pub(crate) const fn roles(mut self, roles: &'static [(&'static str, Role)]) -> Self {
        self.roles = roles;
        self
    }

    /// About what a disk holds, has room for or takes its time with: what is made durable is waited
    /// for. In every other case such calls succeed at once, which no process can tell from a disk
    /// that is fast.
    pub(crate) const fn on_disk(mut self) -> Self {
        self.waits = true;
        self
    }

    /// The part of that name.
    pub(crate) fn role(&self, name: &str) -> Option<Role> {
        let mut roles = self.roles.iter();
        roles.find(|role| role.0 == name).map(|role| role.1)
    }
}

/// What kind of end a case came to when it did not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Failed,
    Harness,
    NotRun,
    NotApplicable,
}

/// Why a case did not pass.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) ending: Ending,
    pub(crate) text: String,
    pub(crate) expected: Option<String>,
    pub(crate) actual: Option<String>,
    /// The second gate for which the case does not apply.
    pub(crate) excuse: Option<String>,
}

impl Failure {
    /// The property does not hold.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self::of(Ending::Failed, text)
    }

    /// The suite could not do its own work.
    pub(crate) fn harness(text: impl Into<String>) -> Self {
        Self::of(Ending::Harness, text)
    }

    /// The machine lacks something; the text says what, and how to get it.
    pub(crate) fn not_run(text: impl Into<String>) -> Self {
        Self::of(Ending::NotRun, text)
    }

    /// The property is about the case's own capability, which this driver does not declare.
    pub(crate) fn undeclared(text: impl Into<String>) -> Self {
        Self::of(Ending::NotApplicable, text)
    }

    /// The case does not apply for the reason of that name, which its row in the catalogue names.
    pub(crate) fn not_applicable(excuse: &str, text: impl Into<String>) -> Self {
        let mut failure = Self::of(Ending::NotApplicable, text);
        failure.excuse = Some(excuse.to_owned());
        failure
    }

    /// Two values that should have been the same.
    pub(crate) fn differs(what: String, expected: String, actual: String) -> Self {
        let mut failure = Self::new(what);
        failure.expected = Some(expected);
        failure.actual = Some(actual);
        failure
    }

    fn of(ending: Ending, text: impl Into<String>) -> Self {
        Self {
            ending,
            text: text.into(),
            expected: None,
            actual: None,
            excuse: None,
        }
    }
}

impl<E: StdError> From<E> for Failure {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::new(text)
    }
}

static ASSERTIONS: AtomicU32 = AtomicU32::new(0);

/// Counts one assertion of this process's case.
pub(crate) fn count_assertion() {
    count_assertions(1);
}

/// Counts what another process of the case asserted.
pub(crate) fn count_assertions(number: u32) {
    ASSERTIONS.fetch_add(number, Ordering::Relaxed);
}

/// How many assertions were made so far.
pub(crate) fn assertions() -> u32 {
    ASSERTIONS.load(Ordering::Relaxed)
}

/// Fails unless the condition holds.
macro_rules! demand {
    ($condition:expr, $($text:tt)+) => {{
        $crate::case::count_assertion();
        if !$condition {
            return Err($crate::case::Failure::new(format!($($text)+)));
        }
    }};
}
pub(crate) use demand;

/// Fails unless both values are equal; the text says what they are.
macro_rules! same {
    ($expected:expr, $actual:expr, $($text:tt)+) => {{
        $crate::case::count_assertion();
        let (expected, actual) = (&$expected, &$actual);
        if expected != actual {
            return Err($crate::case::Failure::differs(
                format!($($text)+),
                format!("{expected:?}"),
                format!("{actual:?}"),
            ));
        }
    }};
}
pub(crate) use same;
