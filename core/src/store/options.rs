// SPDX-License-Identifier: Apache-2.0
//! What a store is opened with, and what some of its operations take and give.

use std::{collections::BTreeMap, path::PathBuf};

use plywood_plugin_sdk::IdMaps;

use crate::{containers::Container, images::Image, layers::Layer, plugin::Origin};

/// Where a store is and how it is used.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// The directory for what a restart may forget (run root).
    pub run_root: PathBuf,
    /// The directory for everything else (graph root).
    pub graph_root: PathBuf,
    /// A separate store for image layers.
    pub image_store: Option<PathBuf>,
    /// The driver's name; without one it is chosen.
    pub driver: Option<String>,
    /// `key=value` options of drivers, in order.
    pub driver_options: Vec<String>,
    /// The order in which drivers are tried.
    pub driver_priority: Vec<String>,
    /// The store's own id maps.
    pub id_maps: IdMaps,
    /// Options for pulling.
    pub pull_options: BTreeMap<String, String>,
    /// Mounts never give up durability.
    pub disable_volatile: bool,
    /// The process runs in a user namespace without being the host's root.
    pub rootless: bool,
}

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
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent choice"
)]
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
