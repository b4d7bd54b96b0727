// SPDX-License-Identifier: Apache-2.0
//! Twins of the public types with a layout that does not depend on the compiler.
//!
//! Everything here is frozen within a major version of the ABI; see the module above for how to
//! add to it.

use abi_stable::{
    StableAbi,
    std_types::{ROption, RResult, RString, RVec, Tuple2},
};

/// Keys and values that later versions may add.
pub type Extra = RVec<Tuple2<RString, RString>>;

/// The result of every function that crosses the boundary.
pub type AbiResult<T> = RResult<T, AbiError>;

/// A path as bytes, since names need not be UTF-8.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default, PartialEq, Eq)]
pub struct AbiPath {
    pub bytes: RVec<u8>,
}

/// [`DriverError`](crate::DriverError).
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiError {
    pub code: u32,
    pub message: RString,
    pub object: ROption<RString>,
    pub remedy: ROption<RString>,
    pub errno: ROption<i32>,
    pub extra: Extra,
}

/// [`Capabilities`](crate::Capabilities).
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiCapabilities {
    pub bits: u64,
    pub depth_limit: ROption<u32>,
    pub extra: Extra,
}

/// [`IdMap`](crate::IdMap).
#[repr(C)]
#[derive(StableAbi, Clone, Copy, Debug)]
pub struct AbiIdMap {
    pub container_id: u32,
    pub host_id: u32,
    pub size: u32,
}

/// [`IdMaps`](crate::IdMaps).
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiIdMaps {
    pub uids: RVec<AbiIdMap>,
    pub gids: RVec<AbiIdMap>,
}

/// [`OpenRequest`](crate::OpenRequest) without the host.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiOpen {
    pub home: AbiPath,
    pub run_dir: AbiPath,
    pub image_store: ROption<AbiPath>,
    pub options: RVec<RString>,
    pub known_drivers: RVec<RString>,
    pub id_maps: AbiIdMaps,
    pub flags: u64,
    pub extra: Extra,
}

/// [`CreateRequest`](crate::CreateRequest).
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiCreate {
    pub id: RString,
    pub parent: ROption<RString>,
    pub kind: u32,
    pub mount_label: ROption<RString>,
    pub storage_options: Extra,
    pub id_maps: AbiIdMaps,
    pub template: ROption<RString>,
    pub flags: u64,
    pub extra: Extra,
}

/// [`MountRequest`](crate::MountRequest).
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiMount {
    pub label: ROption<RString>,
    pub options: RVec<RString>,
    pub id_maps: AbiIdMaps,
    pub flags: u64,
    pub extra: Extra,
}

/// [`MountPlan`](crate::MountPlan).
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiPlan {
    pub kind: u32,
    pub target: AbiPath,
    pub steps: RVec<AbiStep>,
    pub extra: Extra,
}

/// [`MountStep`](crate::MountStep): the fields that `kind` does not use are empty.
#[repr(C)]
#[derive(StableAbi, Clone, Debug, Default)]
pub struct AbiStep {
    pub kind: u32,
    pub flags: u64,
    pub target: AbiPath,
    pub fstype: RString,
    pub source: AbiPath,
    pub options: RVec<RString>,
    pub lowers: RVec<AbiPath>,
    pub upper: ROption<AbiPath>,
    pub work: ROption<AbiPath>,
    pub label: ROption<RString>,
    pub extra: Extra,
}

/// [`UnpackTarget`](crate::UnpackTarget).
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiTarget {
    pub directory: AbiPath,
    pub whiteouts: u32,
    pub implied_directory_mode: u32,
    pub force_mask: ROption<u32>,
    pub flags: u64,
    pub extra: Extra,
}

/// [`DiffView`](crate::DiffView): `parent` belongs to two trees, `lowers` to an upper directory.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiView {
    pub kind: u32,
    pub tree: AbiPath,
    pub lowers: RVec<AbiPath>,
    pub parent: ROption<AbiPath>,
    pub whiteouts: u32,
    pub flags: u64,
    pub extra: Extra,
}

/// [`NativeChange`](crate::NativeChange).
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiChange {
    pub path: AbiPath,
    pub kind: u32,
}

/// [`Staged`](crate::Staged).
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiStaged {
    pub token: RString,
    pub target: AbiTarget,
    pub extra: Extra,
}

/// [`LayerQuery`](crate::LayerQuery); since 1.1.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiQuery {
    pub digest: ROption<RString>,
    pub toc_digest: ROption<RString>,
    pub reference: ROption<RString>,
    pub extra: Extra,
}

/// [`SourceLayer`](crate::SourceLayer); since 1.1.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiSourceLayer {
    pub directory: AbiPath,
    pub diff: AbiPath,
    pub info: RVec<u8>,
    pub blob: ROption<AbiPath>,
    pub timeout_millis: u64,
    pub extra: Extra,
}

/// [`ExternalDirectory`](crate::ExternalDirectory); since 1.1.
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiExternal {
    pub directory: AbiPath,
    pub diff: AbiPath,
    pub timeout_millis: u64,
    pub extra: Extra,
}

/// [`Usage`](crate::Usage).
#[repr(C)]
#[derive(StableAbi, Clone, Debug)]
pub struct AbiUsage {
    pub bytes: u64,
    pub inodes: u64,
    pub extra: Extra,
}
