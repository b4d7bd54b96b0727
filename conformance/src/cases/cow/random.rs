// SPDX-License-Identifier: Apache-2.0
//! Random changes that make sense for the tree as it is.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use fastrand::Rng;

use crate::{
    ops::Op,
    tar_file::{Entry, TarFile},
};

/// The time of everything in a stream: whole seconds since 1970.
const TAR_TIME: i64 = 1_650_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Directory,
    File,
    /// What can be made, moved and removed, but not written to.
    Other,
}

#[derive(Clone, Debug)]
struct Node {
    kind: Kind,
    /// Names of the same file have the same number.
    file: u32,
    has_xattrs: bool,
}

/// What is where, as far as choosing the next change needs it.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
    files: u32,
    /// Files with a number below this one were made in a parent.
    inherited: u32,
    /// Whether linked files of a parent stay linked when one name is written to.
    keeps_links: bool,
}

impl Tree {
    pub(super) fn new(keeps_links: bool) -> Self {
        Self {
            keeps_links,
            ..Self::default()
        }
    }

    /// The same as the tree of a child.
    pub(super) fn inherit(&self) -> Self {
        Self {
            inherited: self.files,
            ..self.clone()
        }
    }

    /// Whether the path is a directory.
    pub(super) fn is_directory(&self, path: &Path) -> bool {
        self.nodes
            .get(path)
            .is_some_and(|node| node.kind == Kind::Directory)
    }

    fn pick(&self, rng: &mut Rng, fits: impl Fn(&Path, &Node) -> bool) -> Option<PathBuf> {
        let fitting: Vec<_> = self
            .nodes
            .iter()
            .filter(|(path, node)| fits(path, node))
            .collect();
        rng.choice(fitting).map(|(path, _)| path.clone())
    }

    /// Whether a write would part this name from the others of the same file.
    fn is_bound(&self, node: &Node) -> bool {
        !self.keeps_links
            && node.file < self.inherited
            && self
                .nodes
                .values()
                .filter(|other| other.file == node.file)
                .count()
                > 1
    }

    fn file(&self, rng: &mut Rng) -> Option<PathBuf> {
        self.pick(rng, |_, node| {
            node.kind == Kind::File && !self.is_bound(node)
        })
    }

    fn any(&self, rng: &mut Rng) -> Option<PathBuf> {
        self.pick(rng, |_, node| !self.is_bound(node))
    }

    fn directory(&self, rng: &mut Rng) -> Option<PathBuf> {
        self.pick(rng, |_, node| node.kind == Kind::Directory)
    }

    /// A path in an existing directory; few names, so that they come back after a removal.
    fn place(&self, rng: &mut Rng) -> PathBuf {
        let below = |path: &Path, node: &Node| {
            node.kind == Kind::Directory && path.components().count() < 4
        };
        let parent = self.pick(rng, below).filter(|_| rng.u8(..4) > 0);
        let name = char::from(b'a' + rng.u8(..12)).to_string();
        parent.unwrap_or_default().join(name)
    }

    fn free_place(&self, rng: &mut Rng) -> Option<PathBuf> {
        let place = self.place(rng);
        (!self.nodes.contains_key(&place)).then_some(place)
    }

    /// A change; `None` when the one that was drawn does not fit the tree.
    pub(super) fn next(&self, rng: &mut Rng) -> Option<Op> {
        Some(match rng.u8(..26) {
            0..=3 => {
                let place = self.place(rng);
                match self.nodes.get(&place) {
                    Some(node) if node.kind == Kind::Other || self.is_bound(node) => return None,
                    _ => Op::Write(place, data(rng)),
                }
            }
            4 => Op::Append(self.file(rng)?, data(rng)),
            5 => Op::WriteAt(self.file(rng)?, rng.u64(..20_000), data(rng)),
            6 => Op::Truncate(self.file(rng)?, rng.u64(..20_000)),
            7 => Op::PunchHole(self.file(rng)?, rng.u64(..8000), rng.u64(1..8000)),
            8 | 9 => Op::Mkdir(self.place(rng)),
            10 => Op::Symlink(self.free_place(rng)?, self.place(rng)),
            11 => {
                let existing = self.pick(rng, |_, node| {
                    node.kind != Kind::Directory && !self.is_bound(node)
                });
                Op::Link(self.place(rng), existing?)
            }
            12 => Op::Fifo(self.place(rng)),
            13 => Op::Device(self.place(rng), rng.u32(1..200), rng.u32(..1000)),
            14 => {
                let modes = [0o600, 0o644, 0o755, 0o700, 0o4755, 0o2775, 0o1777, 0o444];
                let path = self.pick(rng, |_, node| {
                    node.kind != Kind::Other && !self.is_bound(node)
                });
                Op::Chmod(path?, rng.choice(modes)?)
            }
            15 => Op::Chown(self.any(rng)?, rng.u32(..70_000), rng.u32(..70_000)),
            16 => Op::Mtime(
                self.any(rng)?,
                rng.i64(..2_000_000_000),
                rng.u32(..1_000_000_000),
            ),
            17 | 18 => {
                let path = self.pick(rng, |_, node| {
                    node.kind != Kind::Other && !self.is_bound(node)
                });
                let name = rng.choice(["user.a", "user.b", "trusted.c"])?.to_owned();
                if rng.bool() {
                    Op::SetXattr(path?, name, data(rng).into_iter().take(100).collect())
                } else {
                    Op::RemoveXattr(path?, name)
                }
            }
            19 | 20 => {
                let from = self.pick(rng, |_, node| !self.is_bound(node))?;
                let to = self.place(rng);
                // One name of a file over another one does nothing at all.
                let same = |path: &Path| self.nodes.get(path).map(|node| node.file);
                if to.starts_with(&from) || same(&from) == same(&to) {
                    return None;
                }
                Op::Rename(from, to)
            }
            21..=23 => Op::Unlink(self.pick(rng, |_, node| node.kind != Kind::Directory)?),
            24 => Op::Rmdir(self.directory(rng)?),
            _ => Op::RemoveTree(self.directory(rng)?),
        })
    }

    /// Takes note of a change that was made.
    pub(super) fn note(&mut self, op: &Op) {
        match op {
            Op::Write(path, _) if !self.nodes.contains_key(path) => {
                self.add(path, Kind::File);
            }
            Op::Mkdir(path) => self.add(path, Kind::Directory),
            Op::Symlink(path, _) | Op::Fifo(path) | Op::Device(path, ..) => {
                self.add(path, Kind::Other);
            }
            Op::Link(new, existing) => {
                let node = self.nodes[existing].clone();
                self.nodes.insert(new.clone(), node);
            }
            Op::SetXattr(path, ..) => {
                if let Some(node) = self.nodes.get_mut(path) {
                    node.has_xattrs = true;
                }
            }
            Op::Unlink(path) | Op::Rmdir(path) | Op::RemoveTree(path) => self.remove(path),
            Op::Rename(from, to) => {
                self.remove(to);
                let moved: Vec<_> = self
                    .nodes
                    .keys()
                    .filter(|path| path.starts_with(from))
                    .cloned()
                    .collect();
                for old in moved {
                    let node = self.nodes.remove(&old);
                    let rest = old.strip_prefix(from).unwrap_or(&old);
                    let new = if rest.as_os_str().is_empty() {
                        to.clone()
                    } else {
                        to.join(rest)
                    };
                    self.nodes.extend(node.map(|node| (new, node)));
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, path: &Path, kind: Kind) {
        self.nodes.insert(
            path.to_owned(),
            Node {
                kind,
                file: self.files,
                has_xattrs: false,
            },
        );
        self.files += 1;
    }

    fn remove(&mut self, path: &Path) {
        self.nodes.retain(|other, _| !other.starts_with(path));
    }

    /// A directory whose entry in a stream says everything about it, and so for those above it;
    /// the root is the empty path.
    fn plain_directory(&self, rng: &mut Rng) -> PathBuf {
        let plain = |path: &Path, node: &Node| {
            node.kind == Kind::Directory
                && path
                    .ancestors()
                    .all(|above| self.nodes.get(above).is_none_or(|node| !node.has_xattrs))
        };
        let drawn = self.pick(rng, plain).filter(|_| rng.u8(..3) > 0);
        drawn.unwrap_or_default()
    }

    /// A stream of changes, and the operations that come to the same.
    pub(super) fn stream(&mut self, rng: &mut Rng) -> (Vec<u8>, Vec<Op>) {
        let mut stream = Stream::default();
        for _ in 0..rng.usize(1..6) {
            let parent = self.plain_directory(rng);
            stream.directories(self, &parent);
            let name = char::from(b'a' + rng.u8(..12)).to_string();
            let path = parent.join(name);
            let there = self.nodes.contains_key(&path);
            // What this stream has made is not for it to remove.
            if stream.made.iter().any(|made| made.starts_with(&path)) {
                continue;
            }
            match rng.u8(..4) {
                0 if there => stream.whiteout(self, &path),
                1 if !parent.as_os_str().is_empty() && !stream.wrote_below(&parent) => {
                    stream.opaque(self, &parent);
                }
                2 => stream.symlink(self, &path),
                _ => stream.file(self, &path, data(rng)),
            }
        }
        stream.done()
    }
}

fn data(rng: &mut Rng) -> Vec<u8> {
    let length = if rng.u8(..8) == 0 {
        rng.usize(..20_000)
    } else {
        rng.usize(..200)
    };
    let mut data = vec![0; length];
    rng.fill(&mut data);
    data
}

/// A tar stream and its meaning, in the making.
#[derive(Default)]
struct Stream {
    tar: TarFile,
    ops: Vec<Op>,
    made: Vec<PathBuf>,
    directories: Vec<PathBuf>,
}

impl Stream {
    fn add(&mut self, entry: Entry) {
        self.tar = std::mem::take(&mut self.tar).add(entry.mtime(TAR_TIME));
    }

    fn perform(&mut self, tree: &mut Tree, op: Op) {
        tree.note(&op);
        self.ops.push(op);
    }

    /// Entries for a directory and those above it, as every layer of an image has them.
    fn directories(&mut self, tree: &mut Tree, directory: &Path) {
        let mut above: Vec<_> = directory.ancestors().collect();
        above.reverse();
        for path in above.into_iter().skip(1) {
            if self.directories.iter().any(|known| known == path) {
                continue;
            }
            let name = format!("{}/", path.display());
            self.add(Entry::directory(name).mode(0o750).owner(3, 4));
            self.perform(tree, Op::Chown(path.to_owned(), 3, 4));
            self.perform(tree, Op::Chmod(path.to_owned(), 0o750));
            self.directories.push(path.to_owned());
            self.made.push(path.to_owned());
        }
    }

    fn clear(&mut self, tree: &mut Tree, path: &Path) {
        if tree.is_directory(path) {
            self.perform(tree, Op::RemoveTree(path.to_owned()));
        } else if tree.nodes.contains_key(path) {
            self.perform(tree, Op::Unlink(path.to_owned()));
        }
    }

    fn whiteout(&mut self, tree: &mut Tree, path: &Path) {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let whiteout = path.with_file_name(format!(".wh.{name}"));
        self.add(Entry::file(whiteout.to_string_lossy().as_bytes(), b"").mode(0));
        self.clear(tree, path);
        self.made.push(path.to_owned());
    }

    fn wrote_below(&self, directory: &Path) -> bool {
        let mut made = self.made.iter();
        made.any(|made| made != directory && made.starts_with(directory))
    }

    fn opaque(&mut self, tree: &mut Tree, directory: &Path) {
        let marker = directory.join(".wh..wh..opq");
        self.add(Entry::file(marker.to_string_lossy().as_bytes(), b"").mode(0));
        let children = tree.nodes.keys();
        let children: Vec<_> = children
            .filter(|path| path.parent() == Some(directory))
            .cloned()
            .collect();
        for child in children {
            self.clear(tree, &child);
        }
        self.made.push(directory.join(".wh..wh..opq"));
    }

    fn symlink(&mut self, tree: &mut Tree, path: &Path) {
        self.clear(tree, path);
        let name = path.to_string_lossy();
        self.add(Entry::symlink(name.as_bytes(), "some/where").owner(5, 6));
        self.perform(tree, Op::Symlink(path.to_owned(), "some/where".into()));
        self.perform(tree, Op::Chown(path.to_owned(), 5, 6));
        self.perform(tree, Op::Mtime(path.to_owned(), TAR_TIME, 0));
        self.made.push(path.to_owned());
    }

    fn file(&mut self, tree: &mut Tree, path: &Path, data: Vec<u8>) {
        self.clear(tree, path);
        let name = path.to_string_lossy();
        self.add(Entry::file(name.as_bytes(), &data).mode(0o640).owner(7, 8));
        self.perform(tree, Op::Write(path.to_owned(), data));
        self.perform(tree, Op::Chown(path.to_owned(), 7, 8));
        self.perform(tree, Op::Chmod(path.to_owned(), 0o640));
        self.perform(tree, Op::Mtime(path.to_owned(), TAR_TIME, 0));
        self.made.push(path.to_owned());
    }

    fn done(mut self) -> (Vec<u8>, Vec<Op>) {
        for directory in self.directories {
            self.ops.push(Op::Mtime(directory, TAR_TIME, 0));
        }
        (self.tar.done(), self.ops)
    }
}
