// SPDX-License-Identifier: Apache-2.0
//! What a layer changes against its parent: a sorted list of paths and kinds, and its size.

use std::{
    collections::HashSet,
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{ChangeKind, DiffView, IdMaps, NativeChange, WhiteoutForm};
use rustix::fs::FileType;

use super::{
    compare,
    lowers::{Found, Lowers, OPAQUE_NAME, WHITEOUT_PREFIX, is_overlay},
    tree::{DirStack, Meta, SizeSum, Walk, not_self_contained},
};
use crate::{Error, ErrorKind, Result};

/// One changed path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Change {
    /// The path inside the layer, with a leading `/`.
    pub path: PathBuf,
    /// What happened.
    pub kind: ChangeKind,
}

/// Who owns the files of a layer and of its parent on the host.
#[derive(Clone, Copy, Debug)]
pub struct DiffMaps<'a> {
    /// The maps of the layer.
    pub layer: &'a IdMaps,
    /// The maps of its parent.
    pub parent: &'a IdMaps,
}

/// The changes that `view` shows, parents before their children.
///
/// # Behavior
/// - The names of each directory are sorted.
/// - Directories above an addition or a deletion are reported as modified.
/// - Sockets are reported, though a tar cannot hold them.
///
/// # Errors
/// [`ErrorKind::NotSupported`] for [`DiffView::Mounted`], and for an upper directory with
/// `metacopy` or `redirect` marks: it does not hold all that the layer shows. Input failures with
/// their path.
///
/// # Compatibility
/// The kinds are those of `OverlayChanges` and `ChangesDirs` in containers/storage
/// (`pkg/archive`), which print them in a less regular order.
pub fn changes(view: &DiffView, maps: &DiffMaps<'_>) -> Result<Vec<Change>> {
    match view {
        DiffView::Upper {
            upper,
            lowers,
            whiteouts,
        } => UpperChanges::new(upper, lowers, *whiteouts, maps)?.collect(),
        DiffView::Trees {
            tree,
            parent: Some(parent),
        } => compare::compare(tree, parent, maps),
        DiffView::Trees { tree, parent: None } => all_added(tree),
        _ => Err(unsupported_view()),
    }
}

/// The changes at the paths of a driver's own list.
///
/// # Behavior
/// - Every path is compared in both trees: what is equal is not reported, whatever the list says.
/// - A directory that is listed as added or deleted but is in both trees is compared with all its
///   content; one that is listed as modified without.
/// - The result has the form of [`changes`] of the two trees.
///
/// # Errors
/// Input failures with their path.
pub fn changes_from_native(
    tree: &Path,
    parent: &Path,
    native: &[NativeChange],
    maps: &DiffMaps<'_>,
) -> Result<Vec<Change>> {
    compare::compare_named(tree, parent, native, maps)
}

/// The bytes of what `view` adds or changes; each inode counts once.
///
/// # Behavior
/// Apparent sizes of everything but directories; symlinks count the length of their target.
///
/// # Errors
/// Those of [`changes`].
pub fn diff_size(view: &DiffView, maps: &DiffMaps<'_>) -> Result<u64> {
    let mut sum = SizeSum::default();
    match view {
        DiffView::Upper { upper: tree, .. } | DiffView::Trees { tree, parent: None } => {
            let mut walk = Walk::open(tree)?;
            while let Some((_, meta)) = walk.next()? {
                sum.add(&meta);
            }
        }
        DiffView::Trees {
            tree,
            parent: Some(parent),
        } => return size_of(tree, &compare::compare(tree, parent, maps)?),
        _ => return Err(unsupported_view()),
    }
    Ok(sum.total)
}

/// The bytes of what `changes` add to `tree` or modify in it; each inode counts once.
///
/// # Errors
/// Input failures with their path.
pub fn size_of(tree: &Path, changes: &[Change]) -> Result<u64> {
    let mut sum = SizeSum::default();
    let mut nodes = Nodes::open(tree)?;
    for change in changes {
        if change.kind != ChangeKind::Delete
            && let Some((_, meta)) = nodes.find(&change.path)?
        {
            sum.add(&meta);
        }
    }
    Ok(sum.total)
}

pub(super) fn unsupported_view() -> Error {
    Error::new(
        ErrorKind::NotSupported,
        "the layer's changes can be read only from its mounted tree",
    )
}

/// A relative path as a change has it.
pub(super) fn change_path(path: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(path.len() + 1);
    bytes.push(b'/');
    bytes.extend_from_slice(path);
    PathBuf::from(OsString::from_vec(bytes))
}

fn all_added(tree: &Path) -> Result<Vec<Change>> {
    let mut walk = Walk::open(tree)?;
    let mut changes = Vec::new();
    while let Some((name, _)) = walk.next()? {
        changes.push(Change {
            path: change_path(&walk.dirs.path_of(&name)),
            kind: ChangeKind::Add,
        });
    }
    changes.sort();
    Ok(changes)
}

/// Finds nodes by path, one after the other, in a tree.
pub(super) struct Nodes {
    pub(super) dirs: DirStack,
}

impl Nodes {
    pub(super) fn open(tree: &Path) -> Result<Self> {
        Ok(Self {
            dirs: DirStack::open(tree)?,
        })
    }

    /// Goes to the directory of `path`; the last name and the node's attributes.
    pub(super) fn find<'p>(&mut self, path: &'p Path) -> Result<Option<(&'p [u8], Meta)>> {
        let path = path.as_os_str().as_bytes();
        let path = path.strip_prefix(b"/").unwrap_or(path);
        let (parent, name) = super::lowers::split(path);
        if !self.go_to(parent)? || name.is_empty() {
            return Ok(None);
        }
        Ok(self.dirs.stat(name)?.map(|meta| (name, meta)))
    }

    /// The attributes of the directory that `path` is in.
    pub(super) fn directory_of(&mut self, path: &Path) -> Result<Option<Meta>> {
        let path = path.as_os_str().as_bytes();
        let path = path.strip_prefix(b"/").unwrap_or(path);
        if !self.go_to(super::lowers::split(path).0)? {
            return Ok(None);
        }
        self.dirs.stat(b".")
    }

    fn go_to(&mut self, parent: &[u8]) -> Result<bool> {
        loop {
            let here = self.dirs.path();
            let rest = match parent.strip_prefix(here) {
                Some(b"") => return Ok(true),
                Some(rest) if here.is_empty() => rest,
                Some([b'/', rest @ ..]) => rest,
                _ => {
                    self.dirs.pop();
                    continue;
                }
            };
            let name = rest.split(|byte| *byte == b'/').next().unwrap_or(rest);
            let name = name.to_vec();
            if !self.dirs.push(&name)? {
                return Ok(false);
            }
        }
    }
}

/// What an upper directory says about one of its nodes.
pub(super) enum UpperKind {
    /// A name that lower layers have is gone.
    Whiteout,
    /// A mark that is no file of the layer.
    Mark,
    /// A directory that hides what lower layers have there.
    Opaque,
    /// Anything else.
    Plain,
}

/// A walk of an upper directory together with the layers below it.
pub(super) struct UpperWalk {
    pub(super) walk: Walk,
    lowers: Lowers,
    form: WhiteoutForm,
    /// For each directory on the way, the layers below that have it.
    below: Vec<Vec<usize>>,
}

impl UpperWalk {
    pub(super) fn open(upper: &Path, lowers: &[PathBuf], form: WhiteoutForm) -> Result<Self> {
        let lowers = Lowers::open(lowers, form)?;
        Ok(Self {
            walk: Walk::open(upper)?,
            below: vec![lowers.all()],
            lowers,
            form,
        })
    }

    pub(super) fn next(&mut self) -> Result<Option<(Box<[u8]>, Meta)>> {
        let next = self.walk.next()?;
        self.below.truncate(self.walk.dirs.depth() + 1);
        Ok(next)
    }

    /// What the layers below have for the node that was returned last.
    pub(super) fn find_below(&mut self, name: &[u8], meta: &Meta) -> Result<Found> {
        let path = self.walk.dirs.path_of(name);
        let among = self.below.last().map_or(&[][..], Vec::as_slice);
        let mut found = self.lowers.find(&path, among, meta.is_dir())?;
        if meta.is_dir() {
            self.below.push(std::mem::take(&mut found.directories));
        }
        Ok(found)
    }

    pub(super) fn kind(&mut self, name: &[u8], meta: &Meta) -> Result<UpperKind> {
        let dirs = &mut self.walk.dirs;
        if is_overlay(self.form) {
            if meta.is_overlay_whiteout() {
                return Ok(UpperKind::Whiteout);
            }
            if self.is_opaque(name, meta)? {
                return Ok(UpperKind::Opaque);
            }
        } else if self.form == WhiteoutForm::Literal {
            if name == OPAQUE_NAME {
                return Ok(UpperKind::Mark);
            }
            if name.starts_with(WHITEOUT_PREFIX) {
                return Ok(UpperKind::Whiteout);
            }
            if meta.is_dir() && dirs.stat(&super::tree::join(name, OPAQUE_NAME))?.is_some() {
                return Ok(UpperKind::Opaque);
            }
        }
        Ok(UpperKind::Plain)
    }

    /// Reads overlay's marks of a directory or file; refuses those that hide where content is.
    fn is_opaque(&mut self, name: &[u8], meta: &Meta) -> Result<bool> {
        if !meta.is_dir() && meta.kind() != FileType::RegularFile {
            return Ok(false);
        }
        let dirs = &mut self.walk.dirs;
        let marks = dirs.xattrs(name, |name| {
            name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
        })?;
        let prefix: &[u8] = match self.form {
            WhiteoutForm::OverlayUserXattr => b"user.overlay.",
            _ => b"trusted.overlay.",
        };
        let mut opaque = false;
        for (mark, value) in marks {
            match mark.strip_prefix(prefix) {
                Some(b"opaque") => opaque = meta.is_dir() && value == b"y",
                Some(b"metacopy" | b"redirect") => {
                    let mark = String::from_utf8_lossy(&mark).into_owned();
                    return Err(not_self_contained(&dirs.host_path(name), &mark));
                }
                _ => {}
            }
        }
        Ok(opaque)
    }
}

/// Collects the changes of an upper directory.
struct UpperChanges<'a> {
    walk: UpperWalk,
    maps: &'a DiffMaps<'a>,
    changes: Vec<Change>,
    /// Directories that are in the list already.
    recorded: HashSet<PathBuf>,
}

impl<'a> UpperChanges<'a> {
    fn new(
        upper: &Path,
        lowers: &[PathBuf],
        form: WhiteoutForm,
        maps: &'a DiffMaps<'a>,
    ) -> Result<Self> {
        Ok(Self {
            maps,
            walk: UpperWalk::open(upper, lowers, form)?,
            changes: Vec::new(),
            recorded: HashSet::new(),
        })
    }

    fn collect(mut self) -> Result<Vec<Change>> {
        while let Some((name, meta)) = self.walk.next()? {
            let kind = self.walk.kind(&name, &meta)?;
            let found = self.walk.find_below(&name, &meta)?.first;
            let path = change_path(&self.walk.walk.dirs.path_of(&name));
            let (path, kind) = match kind {
                UpperKind::Mark => continue,
                UpperKind::Whiteout => (deleted_path(path, &meta), ChangeKind::Delete),
                UpperKind::Opaque if found.is_some() => (path, ChangeKind::Delete),
                _ => match found {
                    None => (path, ChangeKind::Add),
                    Some(below) if unchanged_directory(&meta, &below, self.maps) => continue,
                    Some(_) => (path, ChangeKind::Modify),
                },
            };
            self.record(path, kind, meta.is_dir());
        }
        // What is above an addition is found after siblings that were merely modified.
        self.changes
            .sort_by(|left, right| left.path.cmp(&right.path));
        Ok(self.changes)
    }

    fn record(&mut self, path: PathBuf, kind: ChangeKind, directory: bool) {
        if kind != ChangeKind::Modify {
            for parent in path.ancestors().skip(1) {
                if parent != Path::new("/") && self.recorded.insert(parent.to_path_buf()) {
                    self.changes.push(Change {
                        path: parent.to_path_buf(),
                        kind: ChangeKind::Modify,
                    });
                }
            }
        }
        if directory {
            self.recorded.insert(path.clone());
        }
        self.changes.push(Change { path, kind });
    }
}

/// A literal whiteout names what is deleted after its prefix.
fn deleted_path(path: PathBuf, meta: &Meta) -> PathBuf {
    if meta.is_overlay_whiteout() {
        return path;
    }
    let name = path.file_name().map(OsStrExt::as_bytes);
    match name.and_then(|name| name.strip_prefix(WHITEOUT_PREFIX)) {
        Some(name) => path.with_file_name(std::ffi::OsStr::from_bytes(name)),
        None => path,
    }
}

/// A directory is in the upper directory because of its content, and has not changed itself.
fn unchanged_directory(upper: &Meta, below: &Meta, maps: &DiffMaps<'_>) -> bool {
    upper.is_dir()
        && below.is_dir()
        && !compare::owners_differ(upper, below, maps)
        && upper.size == below.size
        && upper.mode == below.mode
        && upper.seconds == below.seconds
        && (upper.nanoseconds == below.nanoseconds
            || upper.nanoseconds == 0
            || below.nanoseconds == 0)
}
