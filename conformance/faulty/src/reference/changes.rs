// SPDX-License-Identifier: Apache-2.0
//! The paths in which two trees differ.

use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, OsStr},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use plywood_plugin_sdk::{ChangeKind, IoContext, NativeChange, Result};
use rustix::{
    fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat},
    io::Errno,
};

/// A directory in both trees; in the new one alone when `old` is `None`.
struct Pair {
    new: OwnedFd,
    old: Option<OwnedFd>,
    path: PathBuf,
}

/// A directory that is still to be looked at.
struct Child {
    name: CString,
    in_both: bool,
}

/// Lists what is different in `new`, sorted; everything when there is no `old`.
pub(super) fn between(new: &Path, old: Option<&Path>) -> Result<Vec<NativeChange>> {
    let open = |path: &Path| directory(CWD, path).at("cannot open", path);
    let root = Rc::new(Pair {
        new: open(new)?,
        old: old.map(open).transpose()?,
        path: PathBuf::new(),
    });
    let mut changes = Vec::new();
    let mut waiting: Vec<(Rc<Pair>, Option<Child>)> = vec![(root, None)];
    while let Some((pair, child)) = waiting.pop() {
        let here = match child {
            None => pair,
            Some(child) => Rc::new(pair.child(&child).at("cannot open", new)?),
        };
        let children = here
            .compare(&mut changes)
            .at("cannot compare", new.join(&here.path))?;
        let children = children.into_iter();
        waiting.extend(children.map(|child| (Rc::clone(&here), Some(child))));
    }
    changes.sort();
    Ok(changes)
}

impl Pair {
    fn child(&self, child: &Child) -> Result<Self, Errno> {
        let name = OsStr::from_bytes(child.name.to_bytes());
        let old = self.old.as_ref().filter(|_| child.in_both);
        Ok(Self {
            new: directory(&self.new, name)?,
            old: old.map(|old| directory(old, name)).transpose()?,
            path: self.path.join(name),
        })
    }

    /// Adds what differs here; returns the directories to go on with.
    fn compare(&self, changes: &mut Vec<NativeChange>) -> io::Result<Vec<Child>> {
        let new = entries(&self.new)?;
        let mut old = self
            .old
            .as_ref()
            .map(entries)
            .transpose()?
            .unwrap_or_default();
        let mut children = Vec::new();
        let mut push = |name: &CStr, kind| {
            let path = self.path.join(OsStr::from_bytes(name.to_bytes()));
            changes.push(NativeChange { path, kind });
        };
        for (name, stat) in new {
            let before = old.remove(&name);
            let in_both = before
                .as_ref()
                .is_some_and(|before| kind(before) == kind(&stat));
            match &before {
                None => push(&name, ChangeKind::Add),
                Some(before) if self.differs(&name, &stat, before)? => {
                    push(&name, ChangeKind::Modify);
                }
                Some(_) => {}
            }
            if kind(&stat) == FileType::Directory {
                children.push(Child { name, in_both });
            }
        }
        for name in old.keys() {
            push(name, ChangeKind::Delete);
        }
        Ok(children)
    }

    fn differs(&self, name: &CStr, new: &Stat, old: &Stat) -> io::Result<bool> {
        let is_dir = kind(new) == FileType::Directory;
        let facts = |stat: &Stat| {
            let of_content = (!is_dir).then_some((stat.st_size, stat.st_rdev));
            let time = (stat.st_mtime, stat.st_mtime_nsec);
            (stat.st_mode, stat.st_uid, stat.st_gid, of_content, time)
        };
        if facts(new) != facts(old) {
            return Ok(true);
        }
        let Some(before) = &self.old else {
            return Ok(true);
        };
        if xattrs(&self.new, name)? != xattrs(before, name)? {
            return Ok(true);
        }
        match kind(new) {
            FileType::RegularFile => {
                Ok(!same_content(file(&self.new, name)?, file(before, name)?)?)
            }
            FileType::Symlink => {
                let target = |at| fs::readlinkat(at, name, Vec::new());
                Ok(target(&self.new)? != target(before)?)
            }
            _ => Ok(false),
        }
    }
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn directory(at: impl std::os::fd::AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(at, path, flags, Mode::empty())
}

fn file(at: &OwnedFd, name: &CStr) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(fs::openat(at, name, flags, Mode::empty())?.into())
}

fn entries(directory: &OwnedFd) -> io::Result<BTreeMap<CString, Stat>> {
    let mut found = BTreeMap::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            let stat = fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            found.insert(name.to_owned(), stat);
        }
    }
    Ok(found)
}

fn xattrs(at: &OwnedFd, name: &CStr) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let path = Path::new("/proc/self/fd").join(at.as_raw_fd().to_string());
    let path = path.join(OsStr::from_bytes(name.to_bytes()));
    // The kernel's limits: no list and no value is larger.
    let mut buffer = vec![0; 64 << 10];
    let listed = match fs::llistxattr(&path, &mut buffer[..]) {
        Err(Errno::OPNOTSUPP) => 0,
        other => other?,
    };
    let names = buffer[..listed].split(|byte| *byte == 0);
    let names: Vec<Vec<u8>> = names
        .filter(|name| !name.is_empty())
        .map(Into::into)
        .collect();
    let mut found = BTreeMap::new();
    for name in names {
        let size = fs::lgetxattr(&path, &name[..], &mut buffer[..])?;
        found.insert(name, buffer[..size].to_vec());
    }
    Ok(found)
}

fn same_content(mut new: File, mut old: File) -> io::Result<bool> {
    let (mut one, mut other) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let got = fill(&mut new, &mut one)?;
        if got != fill(&mut old, &mut other)? || one[..got] != other[..got] {
            return Ok(false);
        }
        if got == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
