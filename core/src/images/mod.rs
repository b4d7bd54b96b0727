// SPDX-License-Identifier: Apache-2.0
//! Images: names, a top layer, and blobs such as manifests and configurations.

mod record;

pub use record::{BigDataItem, Image, NewImage};
