// SPDX-License-Identifier: Apache-2.0
//! What some operations of the store take and give.

use crate::{containers::Container, images::Image, layers::Layer, plugin::Origin};

/// Which driver a store uses, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DriverChoice {
    /// The driver's name.
    pub name: String,
    /// Why this one.
    pub reason: String,
    /// Where it came from; `None` when it could not be opened.
    pub origin: Option<Origin>,
    /// Why it could not be opened: listing, metadata and the like work all the same.
    pub failure: Option<String>,
}

/// How a layer, container or image is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// The SELinux label; without one, the one recorded for the container or layer.
    pub label: Option<String>,
    /// Without a place to write.
    pub read_only: bool,
    /// Extra mount options; an unknown one is an error.
    pub options: Vec<String>,
}

/// What [`Store::multi_list`](super::Store::multi_list) lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MultiListOptions {
    /// Images.
    pub images: bool,
    /// Layers.
    pub layers: bool,
    /// Containers.
    pub containers: bool,
}

/// Lists as of one point in time; what was not asked for is empty.
#[derive(Clone, Debug, Default)]
pub struct MultiListResult {
    /// Images.
    pub images: Vec<Image>,
    /// Layers.
    pub layers: Vec<Layer>,
    /// Containers.
    pub containers: Vec<Container>,
}

/// Owners of the directories above a mount point that a layer's id maps do not contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParentOwners {
    /// User ids.
    pub uids: Vec<u32>,
    /// Group ids.
    pub gids: Vec<u32>,
}
