// SPDX-License-Identifier: Apache-2.0
//! Compares two whole trees by attributes, the way containers/storage does for drivers without
//! layers of their own.

use std::{
    cmp::Ordering,
    collections::HashSet,
    ffi::OsString,
    fs::File,
    io::{BufRead as _, BufReader},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{ChangeKind, IdMaps, NativeChange, to_container};
use rustix::fs::FileType;

use super::{
    tree::{DirStack, Meta, Named},
    walk::{Change, DiffMaps, change_path},
};
use crate::{IoContext, Result};

/// The bit that the comparison takes for "directory"; block devices and sockets have it too.
const DIRECTORY_BIT: u32 = 0o040_000;

/// Compares the trees below two directories.
pub(super) fn compare(tree: &Path, parent: &Path, maps: &DiffMaps<'_>) -> Result<Vec<Change>> {
    let mut comparer = Comparer::open(tree, parent, maps)?;
    comparer.enter(Sides::Both, true)?;
    comparer.run()?;
    Ok(comparer.finish())
}

/// Compares only the paths that a driver names.
pub(super) fn compare_named(
    tree: &Path,
    parent: &Path,
    native: &[NativeChange],
    maps: &DiffMaps<'_>,
) -> Result<Vec<Change>> {
    let mut comparer = Comparer::open(tree, parent, maps)?;
    let mut named: Vec<&NativeChange> = native.iter().collect();
    named.sort();
    for change in named {
        comparer.named(change)?;
    }
    comparer.add_parents();
    Ok(comparer.finish())
}

/// Which trees have a directory at the place of the walk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sides {
    New,
    Both,
}

struct Frame {
    children: std::vec::IntoIter<Child>,
    sides: Sides,
    /// The number of changes when the directory was entered.
    before: usize,
    /// Whether the directory itself is in the list already.
    recorded: bool,
}

struct Child {
    name: Box<[u8]>,
    new: bool,
    old: bool,
}

struct Comparer<'a> {
    new: DirStack,
    old: DirStack,
    maps: &'a DiffMaps<'a>,
    frames: Vec<Frame>,
    changes: Vec<Change>,
    /// In a list of a driver: everything below this path has been compared.
    covered: Option<PathBuf>,
}

impl<'a> Comparer<'a> {
    fn open(tree: &Path, parent: &Path, maps: &'a DiffMaps<'a>) -> Result<Self> {
        Ok(Self {
            new: DirStack::open(tree)?,
            old: DirStack::open(parent)?,
            maps,
            frames: Vec::new(),
            changes: Vec::new(),
            covered: None,
        })
    }

    fn finish(mut self) -> Vec<Change> {
        self.changes.sort();
        self.changes.dedup_by(|next, kept| next.path == kept.path);
        self.changes
    }

    fn record(&mut self, path: &[u8], kind: ChangeKind) {
        self.changes.push(Change {
            path: change_path(path),
            kind,
        });
    }

    /// Starts with the children of the directory where the stacks are.
    fn enter(&mut self, sides: Sides, recorded: bool) -> Result<()> {
        let before = self.changes.len();
        let new = self.new.names()?;
        let children = match sides {
            Sides::New => new
                .into_iter()
                .map(|(name, _)| Child {
                    name,
                    new: true,
                    old: false,
                })
                .collect(),
            Sides::Both => {
                let same_device = self.new.device()? == self.old.device()?;
                merge(new, self.old.names()?, same_device)
            }
        };
        self.frames.push(Frame {
            children: children.into_iter(),
            sides,
            before,
            recorded,
        });
        Ok(())
    }

    fn leave(&mut self) {
        let Some(frame) = self.frames.pop() else {
            return;
        };
        if !frame.recorded && self.changes.len() > frame.before {
            let path = self.new.path().to_vec();
            self.record(&path, ChangeKind::Modify);
        }
        self.new.pop();
        if frame.sides == Sides::Both {
            self.old.pop();
        }
    }

    /// Works until the frames that are there now are done.
    fn run(&mut self) -> Result<()> {
        while let Some(frame) = self.frames.last_mut() {
            match frame.children.next() {
                Some(child) => self.child(&child)?,
                None => self.leave(),
            }
        }
        Ok(())
    }

    fn child(&mut self, child: &Child) -> Result<()> {
        let name = &child.name;
        let new = if child.new {
            self.new.stat(name)?
        } else {
            None
        };
        let old = if child.old {
            self.old.stat(name)?
        } else {
            None
        };
        let path = self.new.path_of(name);
        match (new, old) {
            (None, None) => {}
            (None, Some(_)) => self.record(&path, ChangeKind::Delete),
            (Some(new), None) => {
                self.record(&path, ChangeKind::Add);
                if new.is_dir() && self.new.push(name)? {
                    self.enter(Sides::New, true)?;
                }
            }
            (Some(new), Some(old)) => {
                let differs = self.differs(name, &new, &old)?;
                if differs {
                    self.record(&path, ChangeKind::Modify);
                }
                if new.is_dir() && self.new.push(name)? {
                    let both = old.is_dir() && self.old.push(name)?;
                    self.enter(if both { Sides::Both } else { Sides::New }, differs)?;
                }
            }
        }
        Ok(())
    }

    fn differs(&mut self, name: &[u8], new: &Meta, old: &Meta) -> Result<bool> {
        if attributes_differ(new, old, self.maps) {
            return Ok(true);
        }
        if new.kind() == FileType::RegularFile
            && new.nanoseconds != old.nanoseconds
            && self.contents_differ(name)?
        {
            return Ok(true);
        }
        if new.kind() == FileType::Symlink
            && self.new.read_link(name)? != self.old.read_link(name)?
        {
            return Ok(true);
        }
        Ok(self.new.xattrs(name, is_compared)? != self.old.xattrs(name, is_compared)?)
    }

    /// Compares the bytes of a file where times cannot tell: those from a stream are whole seconds,
    /// and a change in the same second has a fraction.
    fn contents_differ(&mut self, name: &[u8]) -> Result<bool> {
        let (Some((new, _)), Some((old, _))) =
            (self.new.open_file(name)?, self.old.open_file(name)?)
        else {
            return Ok(true);
        };
        let mut sides = [File::from(new), File::from(old)].map(BufReader::new);
        loop {
            let [new, old] = &mut sides;
            let (left, right) = (
                new.fill_buf().at("cannot read", self.new.host_path(name))?,
                old.fill_buf().at("cannot read", self.old.host_path(name))?,
            );
            let count = left.len().min(right.len());
            if left[..count] != right[..count] || (count == 0 && left.len() != right.len()) {
                return Ok(true);
            }
            if count == 0 {
                return Ok(false);
            }
            new.consume(count);
            old.consume(count);
        }
    }

    /// Compares one named path; the walk goes down to it and comes back.
    fn named(&mut self, change: &NativeChange) -> Result<()> {
        if self
            .covered
            .as_ref()
            .is_some_and(|done| change.path.starts_with(done))
        {
            return Ok(());
        }
        let path = change.path.as_os_str().as_bytes();
        let mut parts = path
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty())
            .peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            if !last && self.descend(part)? {
                continue;
            }
            let kind = if last {
                change.kind
            } else {
                // The directory itself came or went, so all of it is to be compared.
                ChangeKind::Add
            };
            self.named_child(part, kind)?;
            break;
        }
        while self.new.depth() > 0 {
            self.new.pop();
        }
        while self.old.depth() > 0 {
            self.old.pop();
        }
        Ok(())
    }

    /// Goes into a directory that both trees have.
    fn descend(&mut self, name: &[u8]) -> Result<bool> {
        if !self.new.push(name)? {
            return Ok(false);
        }
        if self.old.push(name)? {
            return Ok(true);
        }
        self.new.pop();
        Ok(false)
    }

    fn named_child(&mut self, name: &[u8], kind: ChangeKind) -> Result<()> {
        let path = PathBuf::from(OsString::from_vec(self.new.path_of(name)));
        self.child(&Child {
            name: Box::from(name),
            new: true,
            old: true,
        })?;
        // A directory that is merely modified has its changed children in the list by name; one
        // that came or went as a whole may stand where another one was.
        let in_both = self
            .frames
            .last()
            .is_some_and(|frame| frame.sides == Sides::Both);
        if in_both && kind == ChangeKind::Modify {
            self.frames.clear();
        } else {
            self.covered = Some(path);
            self.run()?;
        }
        Ok(())
    }

    /// Adds the directories above changes, which the walk of whole trees reports too.
    fn add_parents(&mut self) {
        let mut listed: HashSet<PathBuf> = self
            .changes
            .iter()
            .map(|change| change.path.clone())
            .collect();
        for index in 0..self.changes.len() {
            let path = self.changes[index].path.clone();
            for parent in path.ancestors().skip(1) {
                if parent == Path::new("/") || !listed.insert(parent.to_path_buf()) {
                    break;
                }
                self.changes.push(Change {
                    path: parent.to_path_buf(),
                    kind: ChangeKind::Modify,
                });
            }
        }
    }
}

/// The names of both directories, without those that are one inode in both.
fn merge(new: Vec<Named>, old: Vec<Named>, same_device: bool) -> Vec<Child> {
    let mut merged = Vec::with_capacity(new.len().max(old.len()));
    let mut new = new.into_iter().peekable();
    let mut old = old.into_iter().peekable();
    loop {
        let order = match (new.peek(), old.peek()) {
            (None, None) => return merged,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((left, _)), Some((right, _))) => left.cmp(right),
        };
        let from_new = (order != Ordering::Greater).then(|| new.next()).flatten();
        let from_old = (order != Ordering::Less).then(|| old.next()).flatten();
        match (from_new, from_old) {
            (Some((_, left)), Some((_, right))) if same_device && left == right => {}
            (Some((name, _)), other) => merged.push(Child {
                name,
                new: true,
                old: other.is_some(),
            }),
            (None, Some((name, _))) => merged.push(Child {
                name,
                new: false,
                old: true,
            }),
            (None, None) => {}
        }
    }
}

/// Whether two nodes differ in what a tar would carry of them, but for their content.
fn attributes_differ(new: &Meta, old: &Meta, maps: &DiffMaps<'_>) -> bool {
    if new.mode != old.mode || new.device != old.device || owners_differ(new, old, maps) {
        return true;
    }
    // A directory's size and time change with its content, which is compared by itself.
    new.mode & DIRECTORY_BIT == 0 && (new.size != old.size || !same_time(new, old))
}

/// Times from a tar have no nanoseconds.
fn same_time(new: &Meta, old: &Meta) -> bool {
    new.seconds == old.seconds
        && (new.nanoseconds == old.nanoseconds || new.nanoseconds == 0 || old.nanoseconds == 0)
}

pub(super) fn owners_differ(new: &Meta, old: &Meta, maps: &DiffMaps<'_>) -> bool {
    let mut new_owner = (new.uid, new.gid);
    let mut old_owner = (old.uid, old.gid);
    if let Some(mapped) = container_owner(maps.layer, new_owner) {
        new_owner = mapped;
        old_owner = container_owner(maps.parent, old_owner).unwrap_or(old_owner);
    }
    new_owner != old_owner
}

/// The owner as the container sees it; `None` when one of the ids is not mapped.
pub(super) fn container_owner(maps: &IdMaps, owner: (u32, u32)) -> Option<(u32, u32)> {
    Some((
        to_container(&maps.uids, owner.0)?,
        to_container(&maps.gids, owner.1)?,
    ))
}

fn is_compared(name: &[u8]) -> bool {
    name == b"security.capability" || name.starts_with(b"user.")
}
