// SPDX-License-Identifier: Apache-2.0
//! The inodes of a subvolume that changed since a transaction, and their names.

use std::{
    collections::{HashMap, HashSet},
    ffi::OsString,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::PathBuf,
};

use crate::{
    items::{self, Inode, kind},
    sys::{self, FIRST_INODE, Key, Range},
};

/// The last number that an inode can have.
const LAST_INODE: u64 = u64::MAX - 255;

/// Directories that one may be in before something must be wrong.
const DEEPEST: usize = 1 << 16;

fn damaged() -> io::Error {
    io::Error::from_raw_os_error(libc::EUCLEAN)
}

/// Hands every inode that a transaction after `since` changed to `seen`, with its number.
///
/// Blocks are found by their generation, whatever else there is. An inode in such a block may be
/// older; it has its own transaction number, which every change of its data or attributes sets.
/// What is deleted and still open somewhere is left out.
pub(crate) fn changed(
    subvolume: &OwnedFd,
    since: u64,
    mut seen: impl FnMut(u64, Inode),
) -> io::Result<()> {
    let range = Range {
        tree: 0,
        first: Key::first(FIRST_INODE),
        last: Key::last(LAST_INODE),
        since: since.saturating_add(1),
    };
    let mut whole = true;
    sys::search(subvolume, &range, |key, data| {
        if key.kind != kind::INODE {
            return;
        }
        match Inode::parse(data) {
            Some(inode) if inode.transaction > since && inode.links > 0 => seen(key.object, inode),
            Some(_) => {}
            None => whole = false,
        }
    })?;
    if whole { Ok(()) } else { Err(damaged()) }
}

/// What changed in a subvolume.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    /// What was there before.
    pub(crate) old: HashMap<u64, Inode>,
    /// What was not.
    pub(crate) new: HashSet<u64>,
}

impl Changed {
    pub(crate) fn find(subvolume: &OwnedFd, since: u64) -> io::Result<Self> {
        let mut found = Self::default();
        changed(subvolume, since, |number, inode| {
            if inode.generation > since {
                found.new.insert(number);
            } else {
                found.old.insert(number, inode);
            }
        })?;
        Ok(found)
    }
}

/// The inode of a number, if there is one.
pub(crate) fn inode(subvolume: &OwnedFd, number: u64) -> io::Result<Option<Inode>> {
    let key = Key {
        object: number,
        kind: kind::INODE,
        offset: 0,
    };
    let range = Range {
        tree: 0,
        first: key,
        last: key,
        since: 0,
    };
    let mut found = None;
    sys::search(subvolume, &range, |_, data| found = Inode::parse(data))?;
    Ok(found)
}

/// The names of inodes in a subvolume.
pub(crate) struct Names<'a> {
    subvolume: &'a OwnedFd,
    directories: HashMap<u64, Option<Vec<u8>>>,
}

impl<'a> Names<'a> {
    pub(crate) fn new(subvolume: &'a OwnedFd) -> Self {
        Self {
            subvolume,
            directories: HashMap::from([(FIRST_INODE, Some(Vec::new()))]),
        }
    }

    /// The directories and names that an inode has.
    fn references(&self, inode: u64) -> io::Result<Vec<(u64, Vec<u8>)>> {
        let range = Range {
            tree: 0,
            first: Key {
                object: inode,
                kind: kind::INODE_REF,
                offset: 0,
            },
            last: Key {
                object: inode,
                kind: kind::INODE_EXTREF,
                offset: u64::MAX,
            },
            since: 0,
        };
        let mut found = Some(Vec::new());
        sys::search(self.subvolume, &range, |key, data| {
            let names = items::references(key.kind, key.offset, data);
            found = found.take().zip(names).map(|(mut found, names)| {
                found.extend(names);
                found
            });
        })?;
        found.ok_or_else(damaged)
    }

    /// The path of a directory relative to the root; `None` when it has none any more.
    pub(crate) fn directory(&mut self, inode: u64) -> io::Result<Option<Vec<u8>>> {
        let mut climbed: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut at = inode;
        let mut path = loop {
            if let Some(known) = self.directories.get(&at) {
                break known.clone();
            }
            // A directory has one name.
            match self.references(at)?.pop() {
                Some((above, name)) => {
                    climbed.push((at, name));
                    at = above;
                }
                None => break None,
            }
            if climbed.len() > DEEPEST {
                return Err(damaged());
            }
        };
        while let Some((number, name)) = climbed.pop() {
            path = path.map(|above| join(&above, &name));
            self.directories.insert(number, path.clone());
        }
        Ok(path)
    }

    /// The paths of an inode relative to the root.
    pub(crate) fn paths(&mut self, inode: u64) -> io::Result<Vec<Vec<u8>>> {
        let mut paths = Vec::new();
        for (directory, name) in self.references(inode)? {
            if let Some(above) = self.directory(directory)? {
                paths.push(join(&above, &name));
            }
        }
        Ok(paths)
    }
}

/// A path below a directory; the root's is empty.
pub(crate) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + name.len() + 1);
    path.extend_from_slice(directory);
    if !directory.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

/// Bytes as a path.
pub(crate) fn as_path(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}
