// SPDX-License-Identifier: Apache-2.0
//! Driver names, which become directory and file names.

use std::{ffi::OsStr, fmt, str::FromStr};

use super::PluginError;

const PREFIX: &str = "libplywood_driver_";
const SUFFIX: &str = ".so";
const MAX_LENGTH: usize = 32;

/// Ends of the directories in which a store keeps the records that belong to a driver.
const RECORDS: [&str; 3] = ["-layers", "-images", "-containers"];

/// The name of a driver: `[a-z][a-z0-9-]{0,31}`, checked before it becomes part of a path.
///
/// Names that end like a store's record directories (`-layers`, `-images`, `-containers`) are
/// refused: `G/overlay-layers` is no driver's home.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DriverName(String);

impl DriverName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the driver's plugin file.
    pub fn file_name(&self) -> String {
        format!("{PREFIX}{}{SUFFIX}", self.0.replace('-', "_"))
    }

    /// The driver whose plugin file has this name.
    pub fn of_file_name(file_name: &OsStr) -> Option<Self> {
        let stem = file_name
            .to_str()?
            .strip_prefix(PREFIX)?
            .strip_suffix(SUFFIX)?;
        if stem.contains('-') {
            return None;
        }
        stem.replace('_', "-").parse().ok()
    }
}

impl FromStr for DriverName {
    type Err = PluginError;

    fn from_str(text: &str) -> Result<Self, PluginError> {
        let grammar = text.len() <= MAX_LENGTH
            && text.starts_with(|c: char| c.is_ascii_lowercase())
            && text
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !RECORDS.iter().any(|records| text.ends_with(records));
        if grammar {
            Ok(Self(text.to_owned()))
        } else {
            Err(PluginError::Name {
                name: text.to_owned(),
            })
        }
    }
}

impl fmt::Display for DriverName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_the_plugin_directory() {
        for bad in [
            "",
            "..",
            "../x",
            "a/b",
            "A",
            "1a",
            "-a",
            "a_b",
            "a.b",
            "\u{e9}",
            "a\n",
            &"a".repeat(33),
        ] {
            assert!(bad.parse::<DriverName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn names_and_file_names_translate_both_ways() {
        for (name, file) in [
            ("overlay", "libplywood_driver_overlay.so"),
            ("a-b-1", "libplywood_driver_a_b_1.so"),
        ] {
            let name: DriverName = name.parse().unwrap();
            assert_eq!(name.file_name(), file);
            assert_eq!(DriverName::of_file_name(file.as_ref()), Some(name));
        }
        for other in [
            "libplywood_driver_.so",
            "libplywood_driver_a-b.so",
            "liba.so",
        ] {
            assert_eq!(DriverName::of_file_name(other.as_ref()), None, "{other}");
        }
    }
}
