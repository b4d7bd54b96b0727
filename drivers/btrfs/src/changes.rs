// SPDX-License-Identifier: Apache-2.0
//! What differs between two layers, by the generation numbers of the file system.
//!
//! Both layers come from one subvolume, which one of them may be. Where they split is known as a
//! transaction number, and every inode has the number of the transaction that changed it last. So:
//!
//! - an inode that was there at the split and changed since is named by all its paths;
//! - an inode that is newer stands in a directory that changed since;
//! - a directory that changed since is compared with the directory of the same number at the same
//!   path of the other layer, entry by entry. If there is none, a directory above it differs.
//!
//! This names everything that differs, and more: an access time, an equal content that was written
//! again. Core compares what is named.

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{ChangeKind, IoContext, NativeChange, Result};
use rustix::{
    fs::{Dir, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::{
    frozen::Frozen,
    items::Inode,
    lineage::{self, Split},
    subvolume,
    sys::{self, FIRST_INODE},
    tree::{self, Changed, Names, as_path, join},
};

/// A layer that is compared.
struct Layer<'a> {
    path: &'a Path,
    subvolume: OwnedFd,
}

impl<'a> Layer<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let subvolume = subvolume::open(path)?;
        Ok(Self { path, subvolume })
    }

    fn info(&self) -> Result<sys::Info> {
        sys::info(&self.subvolume).at("cannot inspect", self.path)
    }
}

/// One of the two layers.
struct Side<'a> {
    subvolume: &'a OwnedFd,
    changed: Changed,
    /// The kind of a name that only this side has.
    only: ChangeKind,
}

/// How far the times of one clock may be from the order of events, in seconds.
const CLOCK: u64 = 2;

impl Side<'_> {
    /// Whether nothing has happened to a directory, here and on the side where it is `inode`, but
    /// that it was read.
    fn only_read(&self, number: u64, inode: &Inode, split: Split) -> io::Result<bool> {
        if let Some(mine) = self.changed.old.get(&number) {
            let before = inode.changed_at.saturating_add(CLOCK) < split.time;
            return Ok(before && inode.looks_like(mine));
        }
        let mine = tree::inode(self.subvolume, number)?;
        let mine = mine.filter(|mine| mine.transaction <= split.transaction);
        Ok(mine.is_some_and(|mine| inode.looks_like(&mine)))
    }
}

/// The paths by which `layer` may differ from `parent`, sorted.
pub(crate) fn list(layer: &Path, parent: &Path, places: &Path) -> Result<Vec<NativeChange>> {
    let (new, old) = (Layer::open(layer)?, Layer::open(parent)?);
    let split = lineage::split(&new.subvolume, &new.info()?, &old.info()?);
    let mut found = Found::default();
    if let Some(split) = split.at("cannot trace", layer)? {
        let frozen = Frozen::of(layer, places)?;
        let compared = found.compare(&frozen, &old, split, places);
        // What cannot be removed now is removed by the next recovery.
        compared.and(frozen.close())?;
        for layer in [&new, &old] {
            let nested = found.nested(&layer.subvolume);
            nested.at("cannot look into", layer.path)?;
        }
        Ok(found.sorted())
    } else {
        whole(layer, parent)
    }
}

/// The names in the roots of two layers, which stand for all that is below them.
pub(crate) fn whole(layer: &Path, parent: &Path) -> Result<Vec<NativeChange>> {
    let mut found = Found::default();
    for (path, kind) in [(layer, ChangeKind::Add), (parent, ChangeKind::Delete)] {
        let all = found.everything(&subvolume::open(path)?, kind);
        all.at("cannot read", path)?;
    }
    Ok(found.sorted())
}

/// Changes by path.
#[derive(Default)]
struct Found(BTreeMap<Vec<u8>, ChangeKind>);

impl Found {
    fn add(&mut self, path: Vec<u8>, kind: ChangeKind) {
        let found = self.0.entry(path).or_insert(kind);
        // What came or went is compared with all that is in it.
        if *found == ChangeKind::Modify {
            *found = kind;
        }
    }

    fn sorted(self) -> Vec<NativeChange> {
        let changes = self.0.into_iter().map(|(path, kind)| NativeChange {
            path: as_path(path),
            kind,
        });
        changes.collect()
    }

    /// Compares a layer, frozen already, with another one that it split from after `since`.
    fn compare(
        &mut self,
        frozen: &Frozen,
        old: &Layer<'_>,
        split: Split,
        places: &Path,
    ) -> Result<()> {
        // The snapshot has committed what is known about the other layer, too.
        let other = if old.info()?.generation > split.transaction {
            Some(Frozen::of(old.path, places)?)
        } else {
            None
        };
        let compared = self.sides(frozen, (old, other.as_ref()), split);
        let compared = compared.at("cannot find the changes against", old.path);
        compared.and(other.map_or(Ok(()), Frozen::close))
    }

    fn sides(
        &mut self,
        frozen: &Frozen,
        (old, other): (&Layer<'_>, Option<&Frozen>),
        split: Split,
    ) -> io::Result<()> {
        let new = Side {
            subvolume: &frozen.subvolume,
            changed: Changed::find(&frozen.subvolume, split.transaction)?,
            only: ChangeKind::Add,
        };
        let changed = other.map(|other| Changed::find(&other.subvolume, split.transaction));
        let old = Side {
            subvolume: other.map_or(&old.subvolume, |other| &other.subvolume),
            changed: changed.transpose()?.unwrap_or_default(),
            only: ChangeKind::Delete,
        };
        self.of(&new, &old, split)?;
        self.of(&old, &new, split)
    }

    /// Adds what changed on one side.
    fn of(&mut self, side: &Side<'_>, other: &Side<'_>, split: Split) -> io::Result<()> {
        let mut names = Names::new(side.subvolume);
        for (&number, inode) in &side.changed.old {
            if !inode.is_dir() {
                for path in names.paths(number)? {
                    self.add(path, ChangeKind::Modify);
                }
                continue;
            }
            // Who reads a tree changes the access time of all its directories.
            if other.only_read(number, inode, split)? {
                continue;
            }
            let Some(path) = names.directory(number)? else {
                continue;
            };
            self.entries(number, &path, side, other)?;
            if number != FIRST_INODE {
                self.add(path, ChangeKind::Modify);
            }
        }
        Ok(())
    }

    /// Compares the names in a directory that both sides have.
    fn entries(
        &mut self,
        number: u64,
        path: &[u8],
        side: &Side<'_>,
        other: &Side<'_>,
    ) -> io::Result<()> {
        let Some(mine) = open_directory(side.subvolume, path, number)? else {
            return Ok(());
        };
        let Some(theirs) = open_directory(other.subvolume, path, number)? else {
            return Ok(());
        };
        let mut theirs = entries(&theirs)?;
        for (name, inode) in entries(&mine)? {
            let kind = match theirs.remove(&name) {
                None => side.only,
                // Numbers given since the split may be given on both sides.
                Some(same) if same == inode && !side.changed.new.contains(&inode) => continue,
                Some(_) => ChangeKind::Add,
            };
            self.add(join(path, &name), kind);
        }
        for name in theirs.into_keys() {
            self.add(join(path, &name), other.only);
        }
        Ok(())
    }

    /// Adds the subvolumes inside a layer, which its snapshots do not contain.
    fn nested(&mut self, subvolume: &OwnedFd) -> io::Result<()> {
        for child in sys::children(subvolume)? {
            self.add(sys::child_path(subvolume, &child)?, ChangeKind::Add);
        }
        Ok(())
    }

    /// Adds the names in the root.
    fn everything(&mut self, subvolume: &OwnedFd, kind: ChangeKind) -> io::Result<()> {
        for name in entries(subvolume)?.into_keys() {
            self.add(name, kind);
        }
        Ok(())
    }
}

/// Opens the directory at `path` if its inode has that number.
fn open_directory(root: &OwnedFd, path: &[u8], number: u64) -> io::Result<Option<OwnedFd>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let path = if path.is_empty() { b"." } else { path };
    let opened = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve);
    let directory = match opened {
        Ok(directory) => directory,
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let found = rustix::fs::fstat(&directory)?.st_ino;
    Ok((found == number).then_some(directory))
}

/// The names in a directory and the numbers of their inodes.
fn entries(directory: impl AsFd) -> io::Result<BTreeMap<Vec<u8>, u64>> {
    let mut found = BTreeMap::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.insert(name.to_vec(), entry.ino());
        }
    }
    Ok(found)
}

/// The paths of everything in a tree, as added.
pub(crate) fn everything(tree: &Path) -> Result<Vec<NativeChange>> {
    let mut found = Vec::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(directory) = waiting.pop() {
        let at = tree.join(&directory);
        for entry in fs::read_dir(&at).at("cannot read", &at)? {
            let entry = entry.at("cannot read", &at)?;
            let path = directory.join(entry.file_name());
            if entry.file_type().at("cannot stat", entry.path())?.is_dir() {
                waiting.push(path.clone());
            }
            found.push(NativeChange {
                path,
                kind: ChangeKind::Add,
            });
        }
    }
    found.sort();
    Ok(found)
}
