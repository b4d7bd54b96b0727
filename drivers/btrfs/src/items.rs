// SPDX-License-Identifier: Apache-2.0
//! Items of the file system's trees (`linux/btrfs_tree.h`), as bytes.
//!
//! # Compatibility
//! Items are little-endian on disk whatever the machine is, and later kernels only append fields.

use crate::sys::Uuid;

/// Kinds of items.
pub(crate) mod kind {
    pub(crate) const INODE: u8 = 1;
    pub(crate) const INODE_REF: u8 = 12;
    pub(crate) const INODE_EXTREF: u8 = 13;
    pub(crate) const ROOT: u8 = 132;
    pub(crate) const QGROUP_STATUS: u8 = 240;
    pub(crate) const QGROUP_INFO: u8 = 242;
    pub(crate) const QGROUP_LIMIT: u8 = 244;
    pub(crate) const UUID_SUBVOLUME: u8 = 251;
}

fn u16_at(item: &[u8], at: usize) -> Option<u16> {
    let bytes = item.get(at..at.checked_add(2)?)?;
    Some(u16::from_le_bytes(bytes.try_into().ok()?))
}

fn u32_at(item: &[u8], at: usize) -> Option<u32> {
    let bytes = item.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?))
}

fn u64_at(item: &[u8], at: usize) -> Option<u64> {
    let bytes = item.get(at..at.checked_add(8)?)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// An inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Inode {
    /// The transaction that made it.
    pub(crate) generation: u64,
    /// The transaction that changed it last.
    pub(crate) transaction: u64,
    pub(crate) size: u64,
    pub(crate) links: u32,
    pub(crate) mode: u32,
    /// When its attributes or, of a directory, its names changed last, in seconds since 1970.
    pub(crate) changed_at: u64,
    /// All of it but the number of the last transaction and the access time.
    image: [u8; INODE_LENGTH],
}

const INODE_LENGTH: usize = 160;

impl Inode {
    pub(crate) fn parse(item: &[u8]) -> Option<Self> {
        let mut image: [u8; INODE_LENGTH] = item.get(..INODE_LENGTH)?.try_into().ok()?;
        image[8..16].fill(0);
        image[112..124].fill(0);
        Some(Self {
            generation: u64_at(item, 0)?,
            transaction: u64_at(item, 8)?,
            size: u64_at(item, 16)?,
            links: u32_at(item, 40)?,
            mode: u32_at(item, 52)?,
            changed_at: u64_at(item, 124)?,
            image,
        })
    }

    /// Whether two directories of one origin look as if nothing had happened to either but that
    /// it was read.
    ///
    /// The item counts every change of a directory's names and attributes (`sequence`), so that is
    /// sure when one of them is known not to have changed. Equal changes to both, within the
    /// milliseconds in which times stand still, look like none.
    pub(crate) fn looks_like(&self, other: &Self) -> bool {
        self.image == other.image
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// Names of an inode in one directory, from `INODE_REF` (whose key has the directory) or
/// `INODE_EXTREF` (whose entries have it).
pub(crate) fn references(kind: u8, offset: u64, item: &[u8]) -> Option<Vec<(u64, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < item.len() {
        let (directory, length) = match kind {
            kind::INODE_EXTREF => {
                let directory = u64_at(item, at)?;
                at += 8;
                (directory, u16_at(item, at + 8)?)
            }
            _ => (offset, u16_at(item, at + 8)?),
        };
        at += 10;
        let name = item.get(at..at + usize::from(length))?;
        at += name.len();
        found.push((directory, name.to_vec()));
    }
    Some(found)
}

/// The root of a subvolume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Root {
    /// Of what it is a snapshot of; zeros for nothing.
    pub(crate) parent_uuid: Uuid,
    /// The transaction that made it.
    pub(crate) created: u64,
    /// When that was, in seconds since 1970.
    pub(crate) created_at: u64,
}

impl Root {
    pub(crate) fn parse(item: &[u8]) -> Option<Self> {
        Some(Self {
            parent_uuid: item.get(263..279)?.try_into().ok()?,
            created: u64_at(item, 303)?,
            created_at: u64_at(item, 339)?,
        })
    }
}

/// The offset half and the object half of the key that finds a subvolume by its UUID.
pub(crate) fn uuid_key(uuid: &Uuid) -> (u64, u64) {
    let halves = uuid.split_at(8);
    let half = |bytes: &[u8]| u64_at(bytes, 0).expect("half of 16 bytes");
    (half(halves.0), half(halves.1))
}

/// The subvolumes that an item of the UUID tree names.
pub(crate) fn subvolume_ids(item: &[u8]) -> impl Iterator<Item = u64> + '_ {
    item.chunks_exact(8).filter_map(|chunk| u64_at(chunk, 0))
}

/// How the file system accounts for what subvolumes occupy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QuotaMode {
    /// What is shared counts at every place that refers to it.
    Full,
    /// What is allocated counts where that was done.
    Simple,
}

/// The mode in a status item; `None` when quotas are off.
pub(crate) fn quota_mode(item: &[u8]) -> Option<QuotaMode> {
    let flags = u64_at(item, 16)?;
    if flags & 1 == 0 {
        return None;
    }
    Some(if flags & (1 << 3) == 0 {
        QuotaMode::Full
    } else {
        QuotaMode::Simple
    })
}

/// What a quota group refers to in all, and what nobody else refers to.
pub(crate) fn group_usage(item: &[u8]) -> Option<(u64, u64)> {
    Some((u64_at(item, 8)?, u64_at(item, 24)?))
}

/// The limits of a quota group for both; `None` is without limit.
pub(crate) fn group_limits(item: &[u8]) -> Option<(Option<u64>, Option<u64>)> {
    let flags = u64_at(item, 0)?;
    let limit = |bit: u64, at: usize| {
        let value = u64_at(item, at)?;
        Some((flags & bit != 0 && value != u64::MAX).then_some(value))
    };
    Some((limit(1, 8)?, limit(2, 16)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_have_several_names_in_one_item() {
        let mut item = 2_u64.to_le_bytes().to_vec();
        item.extend([3, 0]);
        item.extend(b"abc");
        item.extend(9_u64.to_le_bytes());
        item.extend([1, 0, b'z']);
        let found = references(kind::INODE_REF, 256, &item).unwrap();
        assert_eq!(found, [(256, b"abc".to_vec()), (256, b"z".to_vec())]);
        for length in 1..item.len() {
            let whole = length == 13;
            let found = references(kind::INODE_REF, 256, &item[..length]);
            assert_eq!(found.is_some(), whole, "{length}");
        }
        let mut item = 300_u64.to_le_bytes().to_vec();
        item.extend(2_u64.to_le_bytes());
        item.extend([1, 0, b'n']);
        let found = references(kind::INODE_EXTREF, 0xbeef, &item).unwrap();
        assert_eq!(found, [(300, b"n".to_vec())]);
    }

    #[test]
    fn short_items_are_no_items() {
        assert_eq!(Inode::parse(&[0; 159]), None);
        assert_eq!(Root::parse(&[0; 310]), None);
        assert_eq!(group_usage(&[0; 31]), None);
        assert_eq!(group_limits(&[0; 23]), None);
        assert_eq!(quota_mode(&[1; 23]), None);
    }

    #[test]
    fn fields_are_found_where_they_are() {
        let mut item = vec![0; 160];
        item[0] = 7;
        item[8] = 9;
        item[16] = 3;
        item[40] = 2;
        item[124] = 5;
        item[52..56].copy_from_slice(&0o040_755_u32.to_le_bytes());
        let inode = Inode::parse(&item).unwrap();
        assert!(inode.is_dir());
        assert_eq!((inode.generation, inode.transaction), (7, 9));
        assert_eq!((inode.size, inode.links, inode.changed_at), (3, 2, 5));

        item[8] = 33;
        item[112..124].fill(1);
        assert!(inode.looks_like(&Inode::parse(&item).unwrap()));
        item[72] = 1;
        assert!(!inode.looks_like(&Inode::parse(&item).unwrap()));

        let mut item = vec![0; 439];
        item[263..279].copy_from_slice(&[5; 16]);
        item[303] = 77;
        item[339] = 78;
        let root = Root::parse(&item).unwrap();
        assert_eq!(root.parent_uuid, [5; 16]);
        assert_eq!((root.created, root.created_at), (77, 78));

        let mut status = [0; 40];
        assert_eq!(quota_mode(&status), None);
        status[16] = 1;
        assert_eq!(quota_mode(&status), Some(QuotaMode::Full));
        status[16] = 9;
        assert_eq!(quota_mode(&status), Some(QuotaMode::Simple));

        let mut limit = [0; 40];
        limit[0] = 2;
        limit[8] = 1;
        limit[16] = 4;
        assert_eq!(group_limits(&limit), Some((None, Some(4))));
        limit[16..24].fill(0xff);
        assert_eq!(group_limits(&limit), Some((None, None)));

        let mut uuid = [0; 16];
        uuid[0] = 1;
        uuid[8] = 2;
        assert_eq!(uuid_key(&uuid), (1, 2));
        let ids: Vec<u64> = subvolume_ids(&[1, 0, 0, 0, 0, 0, 0, 0, 9]).collect();
        assert_eq!(ids, [1]);
    }
}
