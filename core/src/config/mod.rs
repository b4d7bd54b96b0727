// SPDX-License-Identifier: Apache-2.0
//! Configuration: `storage.conf`, the environment, and Plywood's own file.
//!
//! # Compatibility
//! Files, their order, keys and the environment are those of containers/storage; see
//! `docs/configuration.md`.

mod document;
mod env;
mod explain;
mod options;
mod origin;
mod plywood_conf;
mod resolve;
mod rootless;
mod schema;
mod search;

pub use env::Environment;
pub use explain::Explained;
pub use options::{Overrides, StoreOptions};
pub use origin::{Note, Origin};
pub use resolve::{Loaded, load};

#[cfg(test)]
mod tests;
