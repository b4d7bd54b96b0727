// SPDX-License-Identifier: Apache-2.0
//! What core and drivers hand each other: owned data only.

use std::{collections::BTreeMap, fmt, path::PathBuf, sync::Arc};

use crate::LayerId;

/// A range of ids: `size` container ids from `container_id` are host ids from `host_id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdMap {
    /// First id inside the container.
    pub container_id: u32,
    /// First id on the host.
    pub host_id: u32,
    /// Number of ids.
    pub size: u32,
}

/// The user and group id maps of a layer; empty lists mean no mapping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdMaps {
    /// User ids.
    pub uids: Vec<IdMap>,
    /// Group ids.
    pub gids: Vec<IdMap>,
}

impl IdMaps {
    /// Whether nothing is mapped.
    pub fn is_empty(&self) -> bool {
        self.uids.is_empty() && self.gids.is_empty()
    }

    /// The host's user and group id of the container's root; 0 where nothing is mapped.
    ///
    /// Returns `None` when a map is given but has no entry for container id 0.
    pub fn root(&self) -> Option<(u32, u32)> {
        Some((to_host(&self.uids, 0)?, to_host(&self.gids, 0)?))
    }

    /// What is wrong with the maps, in words: they must be ones that the kernel takes for a user
    /// namespace, so that every id has one meaning.
    pub fn problem(&self) -> Option<String> {
        let named = [("user", &self.uids), ("group", &self.gids)];
        named.into_iter().find_map(|(name, maps)| {
            problem(maps).map(|problem| format!("the {name} id map {problem}"))
        })
    }
}

/// The kernel takes no more ranges.
const MOST_RANGES: usize = 340;

fn problem(maps: &[IdMap]) -> Option<String> {
    if maps.len() > MOST_RANGES {
        return Some(format!(
            "has {} ranges, and at most {MOST_RANGES} are allowed",
            maps.len()
        ));
    }
    // The last id of 32 bits stands for no id.
    let past = |first: u32, size: u32| first.checked_add(size).is_none();
    for (index, map) in maps.iter().enumerate() {
        let IdMap {
            container_id,
            host_id,
            size,
        } = *map;
        let range = format!("{container_id}:{host_id}:{size}");
        if size == 0 {
            return Some(format!("has an empty range, `{range}`"));
        }
        if past(container_id, size) || past(host_id, size) {
            return Some(format!("has a range that ends past the last id, `{range}`"));
        }
        let overlap =
            |one: u32, other: u32, other_size: u32| one < other + other_size && other < one + size;
        let clash = maps[..index].iter().any(|other| {
            overlap(container_id, other.container_id, other.size)
                || overlap(host_id, other.host_id, other.size)
        });
        if clash {
            return Some(format!("has a range that overlaps with another, `{range}`"));
        }
    }
    None
}

/// The host id of `container_id`; the same id when `maps` is empty, `None` when it is not mapped.
pub fn to_host(maps: &[IdMap], container_id: u32) -> Option<u32> {
    if maps.is_empty() {
        return Some(container_id);
    }
    maps.iter().find_map(|map| {
        let offset = container_id
            .checked_sub(map.container_id)
            .filter(|o| *o < map.size)?;
        map.host_id.checked_add(offset)
    })
}

/// The container id of `host_id`; the same id when `maps` is empty, `None` when it is not mapped.
pub fn to_container(maps: &[IdMap], host_id: u32) -> Option<u32> {
    if maps.is_empty() {
        return Some(host_id);
    }
    maps.iter().find_map(|map| {
        let offset = host_id.checked_sub(map.host_id).filter(|o| *o < map.size)?;
        map.container_id.checked_add(offset)
    })
}

/// How much a log message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed that the operator must see.
    Error,
    /// Something is not as it should be.
    Warn,
    /// Something worth knowing.
    Info,
    /// For developers.
    Debug,
}

/// What the host offers to a driver; logs go here, never to standard output or error.
pub trait Host: Send + Sync {
    /// Takes a message from the driver.
    fn log(&self, level: LogLevel, target: &str, message: &str);
}

/// Everything a driver gets when it is opened on a store.
#[derive(Clone)]
#[non_exhaustive]
pub struct OpenRequest {
    /// The driver's own directory, `GRAPHROOT/NAME`; it may not exist yet.
    pub home: PathBuf,
    /// The driver's directory for what a restart may forget, `RUNROOT/NAME`.
    pub run_dir: PathBuf,
    /// A separate store for image layers: the other store's graph root.
    pub image_store: Option<PathBuf>,
    /// `key=value` options as given, in order, also those of other drivers.
    pub options: Vec<String>,
    /// Names that may stand as a prefix in `options` without being an error.
    pub known_drivers: Vec<String>,
    /// The store's own id maps.
    pub id_maps: IdMaps,
    /// Whether the process runs in a user namespace without being the host's root.
    pub rootless: bool,
    /// Where log messages go.
    pub host: Arc<dyn Host>,
}

impl OpenRequest {
    /// A request for `home` and `run_dir` with nothing else set.
    pub fn new(home: impl Into<PathBuf>, run_dir: impl Into<PathBuf>, host: Arc<dyn Host>) -> Self {
        Self {
            home: home.into(),
            run_dir: run_dir.into(),
            image_store: None,
            options: Vec::new(),
            known_drivers: Vec::new(),
            id_maps: IdMaps::default(),
            rootless: false,
            host,
        }
    }
}

impl fmt::Debug for OpenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenRequest")
            .field("home", &self.home)
            .field("run_dir", &self.run_dir)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// Whether a layer is meant to be written through a mount.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LayerKind {
    /// An image's layer: filled once, then only read.
    #[default]
    ReadOnly,
    /// A container's layer.
    ReadWrite,
}

/// The layer to make.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateRequest {
    /// Its id, which does not exist yet.
    pub id: LayerId,
    /// The layer below it.
    pub parent: Option<LayerId>,
    /// What it is for.
    pub kind: LayerKind,
    /// The SELinux label of its mounts.
    pub mount_label: Option<String>,
    /// Per-layer options, for instance `size`; an unknown one is an error.
    pub storage_options: BTreeMap<String, String>,
    /// Who owns its files on the host.
    pub id_maps: IdMaps,
    /// A layer whose content it starts with (needs the `template` capability).
    pub template: Option<LayerId>,
}

impl CreateRequest {
    /// A read-only layer on `parent` with nothing else set.
    pub fn new(id: LayerId, parent: Option<LayerId>) -> Self {
        Self {
            id,
            parent,
            kind: LayerKind::default(),
            mount_label: None,
            storage_options: BTreeMap::new(),
            id_maps: IdMaps::default(),
            template: None,
        }
    }
}

/// How a layer is to be mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountRequest {
    /// Without a place to write.
    pub read_only: bool,
    /// The SELinux label.
    pub label: Option<String>,
    /// Extra options for the file system; an unknown one is an error, never ignored.
    pub options: Vec<String>,
    /// What is written need not survive a crash.
    pub volatile: bool,
    /// The container's id maps.
    pub id_maps: IdMaps,
}

/// How the kernel is asked to show a layer; core does the asking.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountPlan {
    /// The layer is a plain directory; nothing has to be mounted.
    Directory(PathBuf),
    /// Core executes the steps in order and undoes them in reverse.
    Mounts(MountSteps),
    /// The driver mounts by itself: core calls [`Driver::mount`](crate::Driver::mount) and
    /// [`Driver::unmount`](crate::Driver::unmount).
    ByDriver {
        /// Where the layer appears.
        target: PathBuf,
    },
}

/// Mounts to make for one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountSteps {
    /// Where the layer appears in the end: the target of the last step.
    pub target: PathBuf,
    /// At least one step.
    pub steps: Vec<MountStep>,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MountStep {
    /// An overlay of directories.
    Overlay(OverlayMount),
    /// A file system with a source, for instance a zfs dataset.
    Filesystem {
        /// The kernel's name of the type.
        fstype: String,
        /// What is mounted.
        source: String,
        /// Where.
        target: PathBuf,
        /// Options in the form of `mount(8)`.
        options: Vec<String>,
        /// The mount is read-only; the file system itself is if the options have `ro`.
        read_only: bool,
    },
    /// A directory shown at another place.
    Bind {
        /// The directory.
        source: PathBuf,
        /// Where it is shown.
        target: PathBuf,
        /// Shown read-only.
        read_only: bool,
    },
}

/// An overlay mount, with every directory by itself: nothing is escaped and no length is limited.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OverlayMount {
    /// Relative directories below are relative to this one.
    pub base: PathBuf,
    /// Read-only layers, nearest first; relative to `base` or absolute.
    pub lowers: Vec<PathBuf>,
    /// The writable directory; without it the mount is read-only.
    pub upper: Option<PathBuf>,
    /// The kernel's work directory; given exactly when `upper` is.
    pub work: Option<PathBuf>,
    /// Where.
    pub target: PathBuf,
    /// Further options, `key` or `key=value`; flags such as `nodev` are understood.
    pub options: Vec<String>,
    /// The SELinux label, as `context=`.
    pub label: Option<String>,
}

/// How the absence of a lower layer's file is written in a layer's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhiteoutForm {
    /// There are none: the directory is the whole tree, so what is deleted is removed.
    Removal,
    /// Character device 0:0, and `trusted.overlay.opaque=y` on directories.
    Overlay,
    /// The same with `user.overlay.opaque=y`, for mounts in a user namespace.
    OverlayUserXattr,
    /// `.wh.NAME` files as in a tar, for FUSE mount programs.
    Literal,
}

/// Where core unpacks a layer's tar stream, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent property of the place"
)]
pub struct UnpackTarget {
    /// The directory, which exists.
    pub directory: PathBuf,
    /// How deletions are written there.
    pub whiteouts: WhiteoutForm,
    /// Whether the entry for the root (`./`) sets the directory's own attributes.
    pub apply_root: bool,
    /// Mode of directories that the tar implies but does not name, before the umask.
    pub implied_directory_mode: u32,
    /// Whether the process's umask applies to implied directories.
    pub implied_directory_umask: bool,
    /// Failures to change an owner are not errors.
    pub ignore_chown_errors: bool,
    /// Files are stored with this mode, and their own attributes in
    /// `user.containers.override_stat`.
    pub force_mask: Option<u32>,
    /// The directory is empty now (nothing has to be replaced).
    pub fresh: bool,
}

impl UnpackTarget {
    /// A whole tree in `directory`: deletions remove, the root entry is applied.
    pub fn tree(directory: impl Into<PathBuf>) -> Self {
        Self {
            directory: directory.into(),
            whiteouts: WhiteoutForm::Removal,
            apply_root: true,
            implied_directory_mode: 0o755,
            implied_directory_umask: false,
            ignore_chown_errors: false,
            force_mask: None,
            fresh: false,
        }
    }
}

/// How a layer's own changes against its parent can be read.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DiffView {
    /// A directory holds just the changes.
    Upper {
        /// The changes.
        upper: PathBuf,
        /// What lies below, nearest first, each in the same form.
        lowers: Vec<PathBuf>,
        /// How deletions are written in them.
        whiteouts: WhiteoutForm,
    },
    /// Two whole trees must be compared.
    Trees {
        /// The layer.
        tree: PathBuf,
        /// Its parent.
        parent: Option<PathBuf>,
    },
    /// Core mounts both and compares.
    Mounted,
}

/// One changed path of a native list.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NativeChange {
    /// Relative to the layer's root, without a leading `/`; bytes, since names need not be UTF-8.
    pub path: PathBuf,
    /// What happened.
    pub kind: ChangeKind,
}

/// What happened to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChangeKind {
    /// Content or attributes differ.
    Modify,
    /// It is not in the parent.
    Add,
    /// It is only in the parent.
    Delete,
}

/// A private place that will become a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Names the place in [`Driver::adopt`](crate::Driver::adopt) and
    /// [`Driver::discard`](crate::Driver::discard).
    pub token: String,
    /// Where to unpack.
    pub target: UnpackTarget,
}

/// The outcome of a removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It was there.
    Now,
    /// It was not there, which is no error.
    AlreadyGone,
}

/// What a layer occupies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the layer's own content.
    pub bytes: u64,
    /// Inodes of the layer's own content.
    pub inodes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_ones_that_the_kernel_takes() {
        let said = |ranges: &[(u32, u32, u32)]| {
            let uids = ranges
                .iter()
                .map(|(container_id, host_id, size)| IdMap {
                    container_id: *container_id,
                    host_id: *host_id,
                    size: *size,
                })
                .collect();
            let gids = Vec::new();
            IdMaps { uids, gids }.problem()
        };
        for good in [
            &[][..],
            &[(0, 100_000, 65_536)],
            &[(0, 0, u32::MAX)],
            &[(1, 2, 3), (0, 1, 1), (4, 5, 1)],
        ] {
            assert_eq!(said(good), None, "{good:?}");
        }
        for (bad, word) in [
            (&[(0, 1, 0)][..], "empty"),
            (&[(0, u32::MAX, 1)], "past"),
            (&[(u32::MAX - 1, 0, 2)], "past"),
            (&[(0, 10, 5), (4, 100, 1)], "overlaps"),
            (&[(0, 10, 5), (5, 14, 1)], "overlaps"),
            (&[(5, 14, 1), (0, 10, 5)], "overlaps"),
        ] {
            let problem = said(bad).unwrap();
            assert!(problem.contains(word), "{bad:?}: {problem}");
        }
        let many: Vec<_> = (0..341).map(|n| (n, n, 1)).collect();
        assert!(said(&many).unwrap().contains("341"));
    }
}
