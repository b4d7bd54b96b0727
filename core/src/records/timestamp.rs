// SPDX-License-Identifier: Apache-2.0
//! Times as the records hold them.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, ErrorKind, Result};

const ZERO: &str = "0001-01-01T00:00:00Z";

/// A time in RFC 3339 form, kept as the text that was given or read.
///
/// Times that the store takes itself are in UTC with as many of nine fraction digits as needed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(String);

impl Timestamp {
    /// The current time.
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().to_string())
    }

    /// Go's zero time, which stands for "not known".
    pub fn zero() -> Self {
        Self(ZERO.to_owned())
    }

    /// Checks that `text` is an RFC 3339 time and keeps it as it is.
    ///
    /// # Errors
    /// `InvalidArgument` when it is not.
    pub fn parse(text: &str) -> Result<Self> {
        match text.parse::<jiff::Timestamp>() {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(error) => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("not an RFC 3339 time: `{text}`"),
            )
            .subject(text)
            .caused_by(error)),
        }
    }

    /// The time as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The instant; `None` when the text of a record is not understood.
    pub fn instant(&self) -> Option<jiff::Timestamp> {
        self.0.parse().ok()
    }

    /// Whether this is the zero time.
    pub fn is_zero(&self) -> bool {
        self.0 == ZERO
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::zero()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_given_time_keeps_its_text() {
        for text in [
            "2026-11-21T22:28:20.952311062Z",
            "2026-11-21T22:28:20+02:00",
            ZERO,
        ] {
            assert_eq!(Timestamp::parse(text).unwrap().as_str(), text);
        }
        assert!(Timestamp::parse("yesterday").is_err());
    }

    #[test]
    fn fractions_are_trimmed_as_go_does() {
        let time: jiff::Timestamp = "2026-11-21T22:28:20.140245540Z".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-21T22:28:20.14024554Z");
        let whole: jiff::Timestamp = "2026-11-21T22:28:20.000Z".parse().unwrap();
        assert_eq!(whole.to_string(), "2026-11-21T22:28:20Z");
        assert!(Timestamp::now().instant().is_some());
    }
}
