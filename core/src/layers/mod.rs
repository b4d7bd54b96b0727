// SPDX-License-Identifier: Apache-2.0
//! Layers: their records, their content through a driver, and their mounts.
//!
//! What is on disk, besides what the driver keeps:
//!
//! ```text
//! GRAPHROOT/D-layers/layers.lock             locked while layers are read or changed; token
//!                    layers.json             the records
//!                    volatile-layers.json    records of others that need not survive a crash
//!                    ID.tar-split.gz         what the stream was besides its files
//!                    ID/                     big data items
//!                    tmp/                    what is being added or removed at the moment
//! RUNROOT/D-layers/mountpoints.lock          locked while mounts are read or changed; token
//!                  mountpoints.json          what is mounted where, how often
//! ```
//!
//! # Durability
//! Content is made before its record and removed after it, so that no record without content and
//! none marked incomplete is visible while the lock is free. What a crash leaves beside the records
//! is named in `tmp/` and removed by the next writer.

/// Marks a point between two durable steps of an operation.
///
/// The tests stop the process there, by listening to this target.
macro_rules! step {
    ($name:literal) => {
        tracing::trace!(target: "plywood::step", step = $name)
    };
}

mod access;
mod apply;
mod changes;
mod create;
mod delete;
mod diff;
mod edit;
mod external;
mod gc;
mod intent;
mod looking;
mod mapped;
mod mounts;
mod options;
mod owners;
mod put;
mod read;
mod record;
mod state;
mod sweep;

pub use access::{LayersRead, LayersView, LayersWrite};
pub use delete::Reaper;
pub use diff::DiffOptions;
pub(crate) use external::record_of;
pub use mounts::{UnmountOptions, Unmounted};
pub use options::{LayerStore, LayerStoreOptions};
pub use put::{PutCheck, PutOptions};
pub use record::{Layer, NewLayer};
