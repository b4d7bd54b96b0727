// SPDX-License-Identifier: Apache-2.0
//! The keys of `storage.conf`.

use super::document::Kind;

/// What becomes of a known key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// It is used.
    Yes,
    /// It is known to containers/storage and has no effect, there or here.
    None,
}

pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) used: Use,
}

const fn key(name: &'static str, kind: Kind) -> Key {
    Key {
        name,
        kind,
        used: Use::Yes,
    }
}

const fn idle(name: &'static str, kind: Kind) -> Key {
    Key {
        name,
        kind,
        used: Use::None,
    }
}

pub(super) const DRIVER: &str = "storage.driver";
pub(super) const DRIVER_PRIORITY: &str = "storage.driver_priority";
pub(super) const RUN_ROOT: &str = "storage.runroot";
pub(super) const GRAPH_ROOT: &str = "storage.graphroot";
pub(super) const IMAGE_STORE: &str = "storage.imagestore";
pub(super) const ROOTLESS_PATH: &str = "storage.rootless_storage_path";
pub(super) const TRANSIENT: &str = "storage.transient_store";
pub(super) const AUTO_NS_USER: &str = "storage.options.root-auto-userns-user";
pub(super) const AUTO_NS_MIN: &str = "storage.options.auto-userns-min-size";
pub(super) const AUTO_NS_MAX: &str = "storage.options.auto-userns-max-size";
pub(super) const DISABLE_VOLATILE: &str = "storage.options.disable-volatile";
pub(super) const PULL_OPTIONS: &str = "storage.options.pull_options";

/// Keys that become options of drivers, in the order in which they are handed over; a later
/// option wins. The second name is the option's.
pub(super) const DRIVER_OPTIONS: &[(&str, &str)] = &[
    ("storage.options.additionalimagestores", "imagestore"),
    (
        "storage.options.additionallayerstores",
        "additionallayerstore",
    ),
    ("storage.options.size", "size"),
    ("storage.options.mount_program", "mount_program"),
    ("storage.options.skip_mount_home", "skip_mount_home"),
    ("storage.options.ignore_chown_errors", "ignore_chown_errors"),
    ("storage.options.force_mask", "force_mask"),
    ("storage.options.mountopt", "mountopt"),
    ("storage.options.btrfs.min_space", "btrfs.min_space"),
    ("storage.options.btrfs.size", "btrfs.size"),
    ("storage.options.btrfs.sync", "btrfs.sync"),
    (
        "storage.options.overlay.ignore_chown_errors",
        "overlay.ignore_chown_errors",
    ),
    (
        "storage.options.overlay.mount_program",
        "overlay.mount_program",
    ),
    ("storage.options.overlay.mountopt", "overlay.mountopt"),
    ("storage.options.overlay.size", "overlay.size"),
    ("storage.options.overlay.inodes", "overlay.inodes"),
    (
        "storage.options.overlay.skip_mount_home",
        "overlay.skip_mount_home",
    ),
    ("storage.options.overlay.force_mask", "overlay.force_mask"),
    (
        "storage.options.overlay.use_composefs",
        "overlay.use_composefs",
    ),
    ("storage.options.overlay.sync", "overlay.sync"),
    (
        "storage.options.vfs.ignore_chown_errors",
        "vfs.ignore_chown_errors",
    ),
    ("storage.options.vfs.sync", "vfs.sync"),
    ("storage.options.zfs.fsname", "zfs.fsname"),
    ("storage.options.zfs.mountopt", "zfs.mountopt"),
    ("storage.options.zfs.size", "zfs.size"),
];

const KEYS: &[Key] = &[
    key(DRIVER, Kind::Text),
    key(DRIVER_PRIORITY, Kind::List),
    key(RUN_ROOT, Kind::Text),
    key(GRAPH_ROOT, Kind::Text),
    key(IMAGE_STORE, Kind::Text),
    key(ROOTLESS_PATH, Kind::Text),
    key(TRANSIENT, Kind::Flag),
    key(AUTO_NS_USER, Kind::Text),
    key(AUTO_NS_MIN, Kind::Number),
    key(AUTO_NS_MAX, Kind::Number),
    key(DISABLE_VOLATILE, Kind::Flag),
    key(PULL_OPTIONS, Kind::Map),
    key("storage.options.additionalimagestores", Kind::List),
    key("storage.options.additionallayerstores", Kind::List),
    key("storage.options.force_mask", Kind::Number),
    idle("storage.options.use_composefs", Kind::Text),
    idle("storage.options.imagestore", Kind::Text),
    idle("storage.options.remap-uids", Kind::Text),
    idle("storage.options.remap-gids", Kind::Text),
    idle("storage.options.remap-user", Kind::Text),
    idle("storage.options.remap-group", Kind::Text),
];

/// The key called `name`; letters may be of either case, as in Go's decoder.
pub(super) fn find(name: &str) -> Option<Key> {
    let same = |known: &str| known.eq_ignore_ascii_case(name);
    if let Some(found) = KEYS.iter().find(|key| same(key.name)) {
        return Some(Key { ..*found });
    }
    DRIVER_OPTIONS
        .iter()
        .find(|(known, _)| same(known))
        .map(|(known, _)| key(known, Kind::Text))
}
