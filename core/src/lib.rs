// SPDX-License-Identifier: Apache-2.0
//! A store for container layers, images and containers, on disk compatible with
//! containers/storage.

pub mod archive;
mod big_data;
mod channel;
pub mod config;
pub mod containers;
mod digest;
pub mod durable;
mod error;
pub mod images;
pub mod layers;
pub mod locking;
pub mod mount;
pub mod plugin;
mod records;
pub mod store;
pub mod tar_split;

pub use digest::Digest;
pub use error::{Error, ErrorKind, IoContext, Result};
pub use plywood_plugin_sdk as sdk;
pub use records::{Flags, RecordOptions, Timestamp, Unknown, to_go_json};
