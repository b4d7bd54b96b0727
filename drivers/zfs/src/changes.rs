// SPDX-License-Identifier: Apache-2.0
//! What differs between two layers, by `zfs diff`.
//!
//! Both layers come from one snapshot. `zfs diff` says what either of them has changed since; what
//! is named by one of the two lists may differ, and nothing else does. Two things it does not say:
//!
//! - It names a file once, and calls it removed when the name that it was given last is gone. A file
//!   with several names is looked up by its number in the whole tree.
//! - It does not say which names came into a directory or went: a directory that it names is
//!   compared with that of the other layer, entry by entry. Clones keep the numbers of files.
//!
//! This names everything that differs, and more: core compares what is named.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    os::{
        fd::OwnedFd,
        unix::{
            ffi::{OsStrExt, OsStringExt},
            fs::DirEntryExt,
        },
    },
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{
    ChangeKind, DriverError, DriverErrorCode, IoContext, Log, NativeChange, Result,
};
use rustix::{
    fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::Errno,
};

use crate::{
    dataset::Datasets,
    difference::{self, Difference},
    lineage, private_view,
};

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::NOFOLLOW)
    .union(OFlags::CLOEXEC);

/// A layer that is compared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer<'a> {
    /// Its dataset.
    pub(crate) name: &'a str,
    /// Its root, where this process sees it.
    pub(crate) tree: &'a Path,
}

/// The paths by which `layer` may differ from `parent`, sorted; `place` is a directory for mounts
/// that nobody else sees.
pub(crate) fn list(
    datasets: &Datasets,
    (layer, parent): (Layer<'_>, Layer<'_>),
    place: &Path,
    log: &Log,
) -> Result<Vec<NativeChange>> {
    let Some(snapshot) = lineage::common(datasets, layer.name, parent.name)? else {
        return whole(layer.tree, parent.tree);
    };
    let differences = differences(datasets, &snapshot, [layer.name, parent.name], place);
    let listed = differences.and_then(|[new, old]| {
        let mut found = Found::default();
        found.side(&new, (layer, parent), Side::New)?;
        found.side(&old, (parent, layer), Side::Old)?;
        Ok(found)
    });
    match listed {
        Ok(found) => Ok(found.sorted()),
        // OpenZFS does not find every name of a file that has had several.
        Err(error) => {
            let name = layer.name;
            log.warn(format!(
                "comparing all of {name}, since zfs cannot tell what changed: {error}"
            ));
            whole(layer.tree, parent.tree)
        }
    }
}

/// What each of `names` has changed since `snapshot`.
fn differences(
    datasets: &Datasets,
    snapshot: &str,
    names: [&str; 2],
    place: &Path,
) -> Result<[Vec<Difference>; 2]> {
    let common = snapshot.split('@').next().unwrap_or(snapshot);
    let mut mounted = names.to_vec();
    if !mounted.contains(&common) {
        mounted.push(common);
    }
    private_view::within(&mounted, place, |directories| {
        let of = |index: usize| {
            let name = names[index];
            let output = datasets.zfs(&["diff", "-FH", snapshot, name]);
            let output = output.map_err(|failure| failure.about(name))?;
            let root = directories[index].as_os_str().as_bytes();
            difference::parse(&output, root)
                .map_err(|message| DriverError::new(DriverErrorCode::IO, message).object(name))
        };
        Ok([of(0)?, of(1)?])
    })
}

/// Which of the two layers has changed something.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    New,
    Old,
}

impl Side {
    /// The kind of a name that only this side has.
    fn only(self) -> ChangeKind {
        match self {
            Self::New => ChangeKind::Add,
            Self::Old => ChangeKind::Delete,
        }
    }

    /// The kind of a name that only the other side has.
    fn missing(self) -> ChangeKind {
        match self {
            Self::New => ChangeKind::Delete,
            Self::Old => ChangeKind::Add,
        }
    }
}

/// Changes by path.
#[derive(Debug, Default)]
struct Found(BTreeMap<Vec<u8>, ChangeKind>);

impl Found {
    fn add(&mut self, path: Vec<u8>, kind: ChangeKind) {
        // The root has no name.
        if path.is_empty() {
            return;
        }
        let found = self.0.entry(path).or_insert(kind);
        // What came or went is compared with all that is in it.
        if *found == ChangeKind::Modify {
            *found = kind;
        }
    }

    fn sorted(self) -> Vec<NativeChange> {
        let changes = self.0.into_iter().map(|(path, kind)| NativeChange {
            path: PathBuf::from(OsString::from_vec(path)),
            kind,
        });
        changes.collect()
    }

    /// Adds what one side has changed, as `zfs diff` lists it.
    fn side(
        &mut self,
        differences: &[Difference],
        (mine, theirs): (Layer<'_>, Layer<'_>),
        side: Side,
    ) -> Result<()> {
        let mut linked = BTreeSet::new();
        let trees = (mine.tree, theirs.tree);
        for difference in differences {
            match difference {
                Difference::Added(path) => {
                    self.add(path.clone(), side.only());
                    linked.extend(many_names(trees, path)?);
                }
                Difference::Removed(path) => {
                    self.add(path.clone(), side.missing());
                    linked.extend(many_names(trees, path)?);
                }
                Difference::Renamed { old, new } => {
                    self.add(old.clone(), side.missing());
                    self.add(new.clone(), side.only());
                    linked.extend(many_names(trees, old)?);
                    linked.extend(many_names(trees, new)?);
                }
                Difference::Modified { path, is_directory } => {
                    self.add(path.clone(), ChangeKind::Modify);
                    linked.extend(many_names(trees, path)?);
                    if *is_directory {
                        self.entries(path, trees, side)?;
                    }
                }
            }
        }
        if linked.is_empty() {
            return Ok(());
        }
        let mut names = Vec::new();
        names_of(mine.tree, &linked, &mut names)?;
        for path in names {
            self.add(path, ChangeKind::Modify);
        }
        Ok(())
    }

    /// Compares the names in a directory that one side has changed.
    fn entries(&mut self, path: &[u8], (mine, theirs): (&Path, &Path), side: Side) -> Result<()> {
        let read = |tree: &Path| -> Result<Option<BTreeMap<Vec<u8>, u64>>> {
            let opened = open_directory(tree, path).at("cannot open a directory of", tree)?;
            let names = opened.map(|directory| entries(&directory)).transpose();
            names.at("cannot read a directory of", tree)
        };
        // If either is none, a name above it is listed, which stands for all below it.
        let (Some(mine), Some(mut theirs)) = (read(mine)?, read(theirs)?) else {
            return Ok(());
        };
        for (name, number) in mine {
            match theirs.remove(&name) {
                None => self.add(join(path, &name), side.only()),
                Some(same) if same == number => {}
                // Another file of the same name.
                Some(_) => self.add(join(path, &name), ChangeKind::Add),
            }
        }
        for name in theirs.into_keys() {
            self.add(join(path, &name), side.missing());
        }
        Ok(())
    }
}

/// The names in the roots of two layers, which stand for all that is below them.
fn whole(layer: &Path, parent: &Path) -> Result<Vec<NativeChange>> {
    let mut found = Found::default();
    for (tree, kind) in [(layer, ChangeKind::Add), (parent, ChangeKind::Delete)] {
        let root =
            rustix::fs::openat(CWD, tree, DIRECTORY, Mode::empty()).at("cannot open", tree)?;
        let names = entries(&root).at("cannot read", tree)?;
        for name in names.into_keys() {
            found.add(name, kind);
        }
    }
    Ok(found.sorted())
}

/// The paths of everything in a tree, as added.
pub(crate) fn everything(tree: &Path) -> Result<Vec<NativeChange>> {
    let mut found = Vec::new();
    walk(tree, |path, _| {
        let path = PathBuf::from(OsString::from_vec(path));
        found.push(NativeChange {
            path,
            kind: ChangeKind::Add,
        });
    })?;
    found.sort();
    Ok(found)
}

/// The numbers of the files at `path`, in either of two trees, that have other names.
///
/// # Behavior
/// - `zfs diff` takes a file for removed whose last name went, though it has others.
/// - A path that neither tree has leaves open which file is meant, and is an error.
fn many_names((mine, theirs): (&Path, &Path), path: &[u8]) -> Result<Vec<u64>> {
    let mut numbers = Vec::new();
    let mut known = path.is_empty();
    for tree in [mine, theirs] {
        let Some(found) = stat(tree, path).at("cannot stat a file of", tree)? else {
            continue;
        };
        known = true;
        let is_directory = FileType::from_raw_mode(found.st_mode).is_dir();
        if !is_directory && found.st_nlink > 1 {
            numbers.push(found.st_ino);
        }
    }
    if known {
        return Ok(numbers);
    }
    let path = String::from_utf8_lossy(path);
    let message = format!("`zfs diff` names `{path}`, which is in neither layer");
    Err(DriverError::new(DriverErrorCode::IO, message))
}

/// Looks at the file at `path`; symbolic links are not followed.
fn stat(tree: &Path, path: &[u8]) -> io::Result<Option<Stat>> {
    let root = rustix::fs::openat(CWD, tree, DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let path = if path.is_empty() { b"." } else { path };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        Ok(file) => Ok(Some(rustix::fs::fstat(file)?)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The paths in a tree of the files that have one of `numbers`.
fn names_of(tree: &Path, numbers: &BTreeSet<u64>, names: &mut Vec<Vec<u8>>) -> Result<()> {
    walk(tree, |path, number| {
        if numbers.contains(&number) {
            names.push(path);
        }
    })
}

/// Visits every name in a tree and the number that it stands for; nothing but directories is read.
fn walk(tree: &Path, mut visit: impl FnMut(Vec<u8>, u64)) -> Result<()> {
    let mut waiting = vec![Vec::new()];
    while let Some(directory) = waiting.pop() {
        let at = tree.join(OsString::from_vec(directory.clone()));
        for entry in fs::read_dir(&at).at("cannot read", &at)? {
            let entry = entry.at("cannot read", &at)?;
            let path = join(&directory, entry.file_name().as_bytes());
            if entry.file_type().at("cannot stat", entry.path())?.is_dir() {
                waiting.push(path.clone());
            }
            visit(path, entry.ino());
        }
    }
    Ok(())
}

/// Opens the directory at `path`, if it is one.
fn open_directory(tree: &Path, path: &[u8]) -> io::Result<Option<OwnedFd>> {
    let root = rustix::fs::openat(CWD, tree, DIRECTORY, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let path = if path.is_empty() { b"." } else { path };
    match rustix::fs::openat2(root, path, DIRECTORY, Mode::empty(), resolve) {
        Ok(directory) => Ok(Some(directory)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The names in a directory and the numbers of their files.
fn entries(directory: &OwnedFd) -> io::Result<BTreeMap<Vec<u8>, u64>> {
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

/// A path below a directory; the root's is empty.
fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = directory.to_vec();
    if !directory.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(tree: &Path) -> Layer<'_> {
        Layer { name: "p/x", tree }
    }

    fn modified(path: &str, is_directory: bool) -> Difference {
        Difference::Modified {
            path: path.into(),
            is_directory,
        }
    }

    #[test]
    fn all_names_of_a_file_and_the_names_in_a_directory_are_found() {
        let (new, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["d/a", "b"] {
            fs::create_dir_all(new.path().join("d")).unwrap();
            fs::write(new.path().join(name), "").unwrap();
        }
        fs::hard_link(new.path().join("b"), new.path().join("d/link")).unwrap();
        fs::create_dir(old.path().join("d")).unwrap();
        fs::write(old.path().join("d/gone"), "").unwrap();
        let mut found = Found::default();
        let differences = [
            modified("b", false),
            modified("d", true),
            modified("", false),
        ];
        let layers = (layer(new.path()), layer(old.path()));
        found.side(&differences, layers, Side::New).unwrap();
        let found: Vec<_> = found.0.into_iter().collect();
        let expected = [
            ("b", ChangeKind::Modify),
            ("d", ChangeKind::Modify),
            ("d/a", ChangeKind::Add),
            ("d/gone", ChangeKind::Delete),
            ("d/link", ChangeKind::Add),
        ];
        assert_eq!(
            found,
            expected.map(|(path, kind)| (path.as_bytes().to_vec(), kind))
        );
    }

    #[test]
    fn what_the_parent_changed_is_seen_from_the_layer() {
        let (new, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (tree, name) in [(&old, "came"), (&old, "is"), (&new, "went"), (&new, "was")] {
            fs::write(tree.path().join(name), "").unwrap();
        }
        let mut found = Found::default();
        let renamed = Difference::Renamed {
            old: b"was".to_vec(),
            new: b"is".to_vec(),
        };
        let differences = [
            Difference::Added(b"came".to_vec()),
            Difference::Removed(b"went".to_vec()),
            renamed,
        ];
        let layers = (layer(old.path()), layer(new.path()));
        found.side(&differences, layers, Side::Old).unwrap();
        let kinds: Vec<_> = found.0.into_values().collect();
        let (add, delete) = (ChangeKind::Add, ChangeKind::Delete);
        assert_eq!(kinds, [delete, delete, add, add]);
    }

    #[test]
    fn a_file_that_has_lost_one_of_its_names_is_found_by_the_others() {
        let (new, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for name in ["one", "two", "three"] {
            fs::write(old.path().join("one"), "").unwrap();
            if name != "one" {
                fs::hard_link(old.path().join("one"), old.path().join(name)).unwrap();
            }
        }
        fs::hard_link(old.path().join("one"), new.path().join("one")).unwrap();
        let mut found = Found::default();
        let layers = (layer(new.path()), layer(old.path()));
        let gone = [Difference::Removed(b"three".to_vec())];
        found.side(&gone, layers, Side::New).unwrap();
        let names: Vec<_> = found.0.into_iter().collect();
        let expected = [("one", ChangeKind::Modify), ("three", ChangeKind::Delete)];
        assert_eq!(
            names,
            expected.map(|(path, kind)| (path.as_bytes().to_vec(), kind))
        );
        // What is nowhere leaves open what is meant.
        let nowhere = [modified("nowhere", false)];
        assert!(Found::default().side(&nowhere, layers, Side::New).is_err());
    }

    #[test]
    fn a_whole_layer_is_named_by_its_root() {
        let (new, old) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(new.path().join("d/e")).unwrap();
        fs::write(old.path().join("f"), "").unwrap();
        let found = whole(new.path(), old.path()).unwrap();
        let found: Vec<_> = found
            .iter()
            .map(|it| (it.path.to_str().unwrap(), it.kind))
            .collect();
        assert_eq!(found, [("d", ChangeKind::Add), ("f", ChangeKind::Delete)]);
        assert_eq!(everything(new.path()).unwrap().len(), 2);
    }
}
