// SPDX-License-Identifier: Apache-2.0
//! Which subvolume is a snapshot of which.

use std::{io, os::fd::OwnedFd};

use crate::{
    items::{self, Root, kind},
    sys::{self, Info, Key, ROOT_TREE, Range, UUID_TREE, Uuid},
};

/// A subvolume, and when it was split off what it is a snapshot of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Generation {
    uuid: Uuid,
    split: Split,
}

/// When two subvolumes went different ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Split {
    /// The transaction; everything that differs was written by later ones.
    pub(crate) transaction: u64,
    /// The time in seconds since 1970.
    pub(crate) time: u64,
}

/// The longest line of snapshots that is followed.
const LONGEST: usize = 4096;

/// When two subvolumes went different ways; `None` when they do not come from one, or when what
/// connects them has been deleted.
pub(crate) fn split(file: &OwnedFd, one: &Info, other: &Info) -> io::Result<Option<Split>> {
    let one = line(file, one)?;
    let other = line(file, other)?;
    Ok(split_of(&one, &other))
}

fn split_of(one: &[Generation], other: &[Generation]) -> Option<Split> {
    for (index, ancestor) in one.iter().enumerate() {
        let same = |it: &Generation| it.uuid == ancestor.uuid;
        if let Some(found) = other.iter().position(same) {
            // When the first of both lines left the ancestor, the other was still a part of it.
            let left = |line: &[Generation], at: usize| Some(line.get(at.checked_sub(1)?)?.split);
            let splits = [left(one, index), left(other, found)];
            return splits.into_iter().flatten().min();
        }
    }
    None
}

/// A subvolume, what it is a snapshot of, what that is a snapshot of, and so on.
///
/// The last one may be deleted already: its children still name it.
fn line(file: &OwnedFd, info: &Info) -> io::Result<Vec<Generation>> {
    let mut line = vec![Generation {
        uuid: info.uuid,
        split: Split {
            transaction: info.created,
            time: info.created_at,
        },
    }];
    let mut parent = info.parent_uuid;
    while parent != Uuid::default() && line.len() < LONGEST {
        let root = match find(file, &parent)? {
            Some(id) => root(file, id)?,
            None => None,
        };
        line.push(Generation {
            uuid: parent,
            split: root.map_or_else(Split::default, |root| Split {
                transaction: root.created,
                time: root.created_at,
            }),
        });
        parent = root.map_or(Uuid::default(), |root| root.parent_uuid);
    }
    Ok(line)
}

/// The id of the subvolume with a UUID.
fn find(file: &OwnedFd, uuid: &Uuid) -> io::Result<Option<u64>> {
    let (object, offset) = items::uuid_key(uuid);
    let key = Key {
        object,
        kind: kind::UUID_SUBVOLUME,
        offset,
    };
    let range = Range {
        tree: UUID_TREE,
        first: key,
        last: key,
        since: 0,
    };
    let mut found = None;
    sys::search(file, &range, |_, data| {
        found = items::subvolume_ids(data).next();
    })?;
    Ok(found)
}

/// The subvolume of an id, which may be destroyed and not yet gone.
pub(crate) fn root(file: &OwnedFd, id: u64) -> io::Result<Option<Root>> {
    let key = |offset: u64| Key {
        object: id,
        kind: kind::ROOT,
        offset,
    };
    let range = Range {
        tree: ROOT_TREE,
        first: key(0),
        last: key(u64::MAX),
        since: 0,
    };
    let mut found = None;
    sys::search(file, &range, |_, data| found = Root::parse(data))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(transaction: u64) -> Split {
        Split {
            transaction,
            time: 1000 + transaction,
        }
    }

    fn line(generations: &[(u8, u64)]) -> Vec<Generation> {
        generations
            .iter()
            .map(|&(uuid, created)| Generation {
                uuid: [uuid; 16],
                split: at(created),
            })
            .collect()
    }

    #[test]
    fn lines_split_where_the_first_of_them_left() {
        let parent = line(&[(1, 10)]);
        let child = line(&[(2, 20), (1, 10)]);
        let grandchild = line(&[(3, 30), (2, 20), (1, 10)]);
        let sibling = line(&[(4, 25), (1, 10)]);
        assert_eq!(split_of(&child, &parent), Some(at(20)));
        assert_eq!(split_of(&parent, &child), Some(at(20)));
        assert_eq!(split_of(&grandchild, &parent), Some(at(20)));
        assert_eq!(split_of(&grandchild, &child), Some(at(30)));
        assert_eq!(split_of(&child, &sibling), Some(at(20)));
        assert_eq!(split_of(&sibling, &grandchild), Some(at(20)));
        assert_eq!(split_of(&child, &line(&[(9, 1)])), None);
        assert_eq!(split_of(&child, &child), None);
    }

    #[test]
    fn two_snapshots_of_what_was_deleted_still_have_it_in_common() {
        let one = line(&[(2, 20), (1, 0)]);
        let other = line(&[(3, 30), (1, 0)]);
        assert_eq!(split_of(&one, &other), Some(at(20)));
    }
}
