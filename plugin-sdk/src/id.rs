// SPDX-License-Identifier: Apache-2.0
//! Identifiers that are checked once, when they are made.

use std::{fmt, str::FromStr};

/// The longest layer id, in bytes.
pub const MAX_ID_LENGTH: usize = 128;

/// The id of a layer, safe to use as a single path component.
///
/// # Behavior
/// - Grammar: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`, not ending in `.`.
/// - Core checks ids before a driver sees them, and the plugin glue checks them again, so a driver
///   may join one to its home directory without further care.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerId(String);

/// Why a text is no [`LayerId`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a usable layer id: {reason}")]
pub struct InvalidId {
    /// The refused text.
    pub text: String,
    /// The rule that it breaks.
    pub reason: &'static str,
}

impl LayerId {
    /// Checks `text` against the grammar.
    ///
    /// # Errors
    /// [`InvalidId`] names the rule that `text` breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
        let text = text.into();
        match broken_rule(&text) {
            None => Ok(Self(text)),
            Some(reason) => Err(InvalidId { text, reason }),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn broken_rule(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    let word = |b: &u8| b.is_ascii_alphanumeric() || *b == b'_';
    match (bytes.first(), bytes.last()) {
        (None, _) => Some("it is empty"),
        _ if bytes.len() > MAX_ID_LENGTH => Some("it is longer than 128 bytes"),
        (Some(first), _) if !word(first) => {
            Some("its first character is not a letter, a digit or `_`")
        }
        (_, Some(b'.')) => Some("it ends in `.`"),
        _ if !bytes.iter().all(|b| word(b) || *b == b'.' || *b == b'-') => {
            Some("only letters, digits, `_`, `.` and `-` may occur in it")
        }
        _ => None,
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for LayerId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for LayerId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_stay_one_path_component_are_accepted() {
        for ok in ["a", "_x", "0", "a.b-c_d", &"f".repeat(128)] {
            assert_eq!(LayerId::new(ok).map(|id| id.to_string()), Ok(ok.to_owned()));
        }
    }

    #[test]
    fn ids_that_could_leave_the_home_are_refused() {
        let long = "f".repeat(129);
        for bad in [
            "", ".", "..", "../x", "x/y", "a\n", "-a", ".a", "a.", "a:b", "a,b", "\u{e9}", &long,
        ] {
            assert!(LayerId::new(bad).is_err(), "{bad:?} was accepted");
        }
    }
}
