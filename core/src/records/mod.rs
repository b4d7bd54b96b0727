// SPDX-License-Identifier: Apache-2.0
//! What the three record stores share: JSON arrays in the form that Go programs read and write,
//! tables with their indexes, names, ids and times.

mod cache;
mod flags;
mod id_maps;
mod ids;
mod json;
pub(crate) mod names;
mod table;
mod timestamp;

pub(crate) use cache::Cache;
pub use flags::Flags;
pub(crate) use id_maps::{id_map_list, take_id_maps};
pub(crate) use ids::{check_new_id, new_id};
pub(crate) use json::{MemberError, Members, decode_text};
pub use json::{Unknown, to_go_json};
pub(crate) use table::{Lookup, Record, Table, Taken, parse_records};
pub use timestamp::Timestamp;

use crate::{durable::Durability, locking::Patience};

/// How record files are written and locked.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordOptions {
    /// What a finished change survives.
    pub durability: Durability,
    /// How long the lock is waited for.
    pub patience: Patience,
}
