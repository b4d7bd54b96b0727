// SPDX-License-Identifier: Apache-2.0
//! What a driver declares that it can do.

/// What a driver can do beyond creating, mounting and removing layers; by default nothing.
///
/// # Behavior
/// - What is declared must work; what is not declared must answer
///   [`NOT_SUPPORTED`](crate::DriverErrorCode::NOT_SUPPORTED) and change nothing.
/// - Core asks here first: it refuses or emulates what is not declared and says which.
/// - The answer does not change while a driver is open.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is an independent declaration"
)]
#[non_exhaustive]
pub struct Capabilities {
    /// [`Driver::list`](crate::Driver::list) finds every layer.
    pub list: bool,
    /// The longest chain of parents below a mounted layer; `None` is without limit.
    pub depth_limit: Option<u32>,
    /// Mounts can be read-only.
    pub read_only_mounts: bool,
    /// Extra mount options are passed to the kernel.
    pub mount_options: bool,
    /// A mount takes an SELinux label.
    pub mount_labels: bool,
    /// A mount may give up durability of what is written through it.
    pub volatile_mounts: bool,
    /// Its directories may be shown through idmapped mounts.
    pub idmapped_mounts: bool,
    /// A layer's own changes can be read without comparing two trees.
    pub native_diff: bool,
    /// [`Driver::native_changes`](crate::Driver::native_changes) lists changed paths.
    pub native_changes: bool,
    /// [`Driver::stage`](crate::Driver::stage) and [`Driver::adopt`](crate::Driver::adopt).
    pub staging: bool,
    /// [`Driver::trash`](crate::Driver::trash) and [`Driver::reap`](crate::Driver::reap).
    pub deferred_removal: bool,
    /// [`Driver::sync`](crate::Driver::sync) makes one layer durable.
    pub sync: bool,
    /// A layer can be limited in bytes.
    pub size_quota: bool,
    /// A layer can be limited in inodes.
    pub inode_quota: bool,
    /// A layer can start as a copy of a template layer.
    pub template: bool,
    /// Layers of read-only image stores can be parents.
    pub image_stores: bool,
    /// A layer's content can live in a directory that a layer source gives:
    /// [`Driver::create_external`](crate::Driver::create_external).
    pub external_directory: bool,
    /// [`Driver::usage`](crate::Driver::usage) answers without walking the layer.
    pub cheap_usage: bool,
    /// Directories of a parent can be renamed through a mount; without it, renaming one is `EXDEV`.
    pub directory_rename: bool,
    /// Inode numbers of files stay the same when they are written to and across mounts.
    pub stable_inodes: bool,
    /// Hard links of a parent stay linked when one of them is written to.
    pub hard_link_copy_up: bool,
    /// A child takes no space for its parent's content until it is written to.
    pub space_sharing: bool,
    /// Holes of sparse files stay holes in children.
    pub holes: bool,
}

macro_rules! bits {
    ($($bit:literal $name:ident),* $(,)?) => {
        impl Capabilities {
            /// The declarations as bits, in the order that the plugin boundary fixes.
            pub fn to_bits(&self) -> u64 {
                let mut bits = 0;
                $(if self.$name { bits |= 1 << $bit; })*
                bits
            }

            /// Reads bits; unknown ones (of a newer version) are ignored.
            pub fn from_bits(bits: u64, depth_limit: Option<u32>) -> Self {
                Self { depth_limit, $($name: bits & (1 << $bit) != 0,)* }
            }

            /// The names of what is declared, for reports.
            pub fn names(&self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if self.$name { names.push(stringify!($name)); })*
                names
            }
        }
    };
}

bits! {
    0 list, 1 read_only_mounts, 2 mount_options, 3 mount_labels, 4 volatile_mounts,
    5 idmapped_mounts, 6 native_diff, 7 native_changes, 8 staging, 9 deferred_removal, 10 sync,
    11 size_quota, 12 inode_quota, 13 template, 14 image_stores, 15 external_directory,
    16 cheap_usage, 17 directory_rename, 18 stable_inodes, 19 hard_link_copy_up, 20 space_sharing,
    21 holes,
}
