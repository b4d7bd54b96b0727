// SPDX-License-Identifier: Apache-2.0
//! The file system that the home is on.

use std::path::Path;

use plywood_plugin_sdk::{IoContext, Result};

/// A file system by the number that `statfs` gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backing(u64);

/// Numbers and names of containers/storage, `drivers/driver_linux.go`.
const NAMES: [(u64, &str); 20] = [
    (0x6175_6673, "aufs"),
    (0x9123_683e, "btrfs"),
    (0x28cd_3d45, "cramfs"),
    (0xf15f, "ecryptfs"),
    (0xe0f5_e1e2, "erofs"),
    (0xef53, "extfs"),
    (0xf2f5_2010, "f2fs"),
    (0x4750_4653, "gpfs"),
    (0x72b6, "jffs2"),
    (0x3153_464a, "jfs"),
    (0x6969, "nfs"),
    (0x794c_7630, "overlayfs"),
    (0x8584_58f6, "ramfs"),
    (0x5265_4973, "reiserfs"),
    (0x517b, "smb"),
    (0x7371_7368, "squashfs"),
    (0x0102_1994, "tmpfs"),
    (0xa501_fcf5, "vxfs"),
    (0x5846_5342, "xfs"),
    (0x2fc1_2fc1, "zfs"),
];

/// Network file systems, on which the kernel's overlay does not work in a user namespace.
const NETWORK: [u64; 20] = [
    0x6969,
    0x517b,
    0x6163_6673,
    0x5346_414f,
    0x00c3_6400,
    0xff53_4d42,
    0x1983_0326,
    0x4750_4653,
    0x0131_11a8,
    0x6b41_4653,
    0x0bd0_0bd0,
    0x564c,
    0x6e66_7364,
    0x7461_636f,
    0xaad7_aaea,
    0x7c7c_6673,
    0xfe53_4d42,
    0xbeef_dead,
    0x786f_4256,
    0xa501_fcf5,
];

impl Backing {
    /// The file system at `path`.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let found = rustix::fs::statfs(path).at("cannot stat the file system of", path)?;
        // The kernel's type is signed on some machines; the numbers have 32 bits.
        Ok(Self(
            u64::try_from(found.f_type & 0xffff_ffff).unwrap_or_default(),
        ))
    }

    /// The name that people know.
    pub(crate) fn name(self) -> &'static str {
        let found = NAMES.iter().find(|(number, _)| *number == self.0);
        found.map_or("<unknown>", |(_, name)| name)
    }

    /// Whether the kernel's overlay cannot write on it.
    pub(crate) fn refuses_overlay(self) -> bool {
        matches!(self.name(), "aufs" | "overlayfs" | "ecryptfs")
    }

    pub(crate) fn is_network(self) -> bool {
        NETWORK.contains(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_systems_have_the_names_of_containers_storage() {
        assert_eq!(Backing(0xef53).name(), "extfs");
        assert_eq!(Backing(0x0102_1994).name(), "tmpfs");
        assert_eq!(Backing(1).name(), "<unknown>");
        assert!(Backing(0x794c_7630).refuses_overlay());
        assert!(Backing(0x6969).is_network() && !Backing(0xef53).is_network());
        assert_ne!(
            Backing::of(Path::new("/proc")).unwrap(),
            Backing::of(Path::new("/")).unwrap()
        );
    }
}
