// SPDX-License-Identifier: Apache-2.0
//! A reference additional layer store: serves a folder of layers over FUSE, by the protocol that
//! containers/storage and Plywood's layer source `additional-layer-store` speak.
//!
//! ```text
//! FOLDER/DIGEST/{diff/,info,blob}                    what is served, as it is
//! FOLDER/BASE64(REFERENCE)/DIGEST/{diff/,info,blob}
//! MOUNT/...                                          the same, and:
//! MOUNT/uses                                         a line `PATH COUNT` for each layer in use
//! ```
//!
//! # Behavior
//! - Creating `use` in a layer adds a use, removing the layer's directory takes one away; both
//!   answer `ENOENT`, by which the other side knows that uses are counted.
//! - Everything else that would change something is refused with `EROFS`.
//!
//! A store of one's own replaces what is below [`Tree`]: where names come from, and where bytes
//! come from, for instance from a registry when they are read for the first time.

mod reply;
mod tree;

pub use reply::LayerStore;
pub use tree::Tree;
