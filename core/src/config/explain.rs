// SPDX-License-Identifier: Apache-2.0
//! Every effective value with its origin.

use super::origin::Origin;

/// A value that is in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// The key, with the names of its tables.
    pub key: String,
    /// The value in words.
    pub value: String,
    /// Where it comes from; several for a list that was appended to.
    pub origins: Vec<Origin>,
}
