// SPDX-License-Identifier: Apache-2.0
//! What a case is, and what comes of it.

use std::error::Error as StdError;

use plywood::sdk::Capabilities;
use serde::{Deserialize, Serialize};

use crate::Target;

/// Whether a case applies to a driver.
pub type Gate = fn(&Capabilities) -> bool;

/// One property that a driver must have.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The permanent id.
    pub id: &'static str,
    /// A short name.
    pub name: &'static str,
    /// What is asserted, for reports.
    pub asserts: &'static str,
    /// The capability that it needs; without one it applies to every driver.
    pub gate: Option<Gate>,
    pub(crate) body: fn(&mut Target) -> Result<(), Failure>,
}

/// What came of a case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "status",
    content = "detail",
    rename_all = "SCREAMING_SNAKE_CASE"
)]
pub enum Verdict {
    /// The property holds.
    Pass,
    /// It does not; the text says what was seen.
    Fail(String),
    /// The suite itself could not do its work.
    Error(String),
    /// The driver does not declare what the case is about.
    NotApplicable,
}

/// Why a case did not pass.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
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
        Self(text)
    }
}

/// Fails unless the condition holds.
macro_rules! demand {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::case::Failure::new(format!($($text)+)));
        }
    };
}
pub(crate) use demand;
