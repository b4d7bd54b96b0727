// SPDX-License-Identifier: Apache-2.0
//! The store: layers, images and containers behind one object.

mod interim;
mod options;

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

pub use options::{
    DriverChoice, MountOptions, MultiListOptions, MultiListResult, ParentOwners, StoreOptions,
};

pub use crate::{
    containers::{Container, NewContainer},
    images::{BigDataItem, Image, NewImage},
    layers::{DiffOptions, Layer, NewLayer},
};
use crate::{Digest, Result, archive::walk::Change, locking::StoreLock};

/// Computes the digest of a manifest from its bytes.
pub type ManifestDigest<'a> = &'a dyn Fn(&[u8]) -> Result<Digest>;
