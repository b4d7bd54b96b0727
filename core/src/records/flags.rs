// SPDX-License-Identifier: Apache-2.0
//! The `flags` member: any JSON value by name.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use super::to_go_json;
use crate::{Error, ErrorKind, Result};

/// A record's flags: JSON values by name, kept as the text that was read.
///
/// Numbers of any size and values of any shape survive; names are in byte order.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Flags(BTreeMap<String, Box<RawValue>>);

impl Flags {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names and values (as JSON text), in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.get()))
    }

    /// Whether the flag is there, with any value.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The flag's value, when it is there and has the form of `T`.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }

    /// Whether the flag is there and true.
    pub fn is_set(&self, name: &str) -> bool {
        self.get(name).unwrap_or(false)
    }

    /// The flag's text; empty when it is not there or no text.
    pub fn text(&self, name: &str) -> String {
        self.get(name).unwrap_or_default()
    }

    /// Sets a flag.
    ///
    /// # Errors
    /// `InvalidArgument` when `value` has no JSON form.
    pub fn set<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<()> {
        let raw = to_go_json(value)
            .and_then(RawValue::from_string)
            .map_err(|error| {
                Error::new(
                    ErrorKind::InvalidArgument,
                    format!("the value of flag `{name}` has no JSON form"),
                )
                .subject(name)
                .caused_by(error)
            })?;
        self.0.insert(name.to_owned(), raw);
        Ok(())
    }

    /// Removes a flag; says whether it was there.
    pub fn remove(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }
}

impl PartialEq for Flags {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Flags {}

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}
