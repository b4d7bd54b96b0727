// SPDX-License-Identifier: Apache-2.0
//! Images: names, a top layer, and blobs such as manifests and configurations.
//!
//! What is on disk:
//!
//! ```text
//! GRAPHROOT/D-images/images.lock    locked while images are read or changed; token
//!                    images.json    the records
//!                    ID/            big data items, and `userdata/` of the caller
//! RUNROOT/D-images/ID/userdata/     the caller's, until the next restart
//! ```
//!
//! # Durability
//! Blobs are written before the record that names them; a record is removed before its blobs.

mod access;
mod edit;
mod history;
mod record;
mod table;

pub use access::{ImageStore, ImagesRead, ImagesView, ImagesWrite};
pub use record::{BigDataItem, Image, NewImage};
