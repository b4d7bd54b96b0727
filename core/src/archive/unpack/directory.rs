// SPDX-License-Identifier: Apache-2.0
//! Directories of the target: opened below its root, and kept open for a while.

use std::{
    cell::Cell,
    ffi::CString,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

use plywood_plugin_sdk::toolkit;
use rustix::{
    fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat},
    io::{Errno, Result},
};

use crate::archive::names;

/// How many directories stay open; siblings and parents of what is being unpacked.
const OPEN_DIRECTORIES: usize = 32;

/// How often a lookup is repeated when the kernel says that a rename got in its way.
const RETRIES: usize = 64;

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);

/// An open directory below the root.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
    /// Whether a default ACL changes the mode of what is created here.
    pub(super) has_default_acl: bool,
    /// Who owns what this process creates here, once known: a set-group-ID bit or a mount option
    /// may choose another group than the process's.
    new_owner: Cell<Option<(u32, u32)>>,
}

impl Directory {
    pub(super) fn new(fd: OwnedFd) -> Self {
        let acl = rustix::fs::fgetxattr(&fd, "system.posix_acl_default", &mut [0_u8; 0][..]);
        Self {
            fd,
            has_default_acl: acl.is_ok(),
            new_owner: Cell::new(None),
        }
    }

    /// Who owns what was just created here; `stat` is called on the first such file.
    pub(super) fn new_owner(&self, stat: impl FnOnce() -> Result<Stat>) -> Result<(u32, u32)> {
        if let Some(owner) = self.new_owner.get() {
            return Ok(owner);
        }
        let stat = stat()?;
        let owner = (stat.st_uid, stat.st_gid);
        self.new_owner.set(Some(owner));
        Ok(owner)
    }

    /// The path of `name` in this directory for calls that take no descriptor; the last component
    /// is not followed by calls that do not follow links.
    pub(super) fn proc_path(&self, name: &[u8]) -> Vec<u8> {
        let prefix = format!("/proc/self/fd/{}/", self.fd.as_raw_fd());
        [prefix.as_bytes(), name].concat()
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The directories in use.
#[derive(Debug)]
pub(super) struct Directories {
    root: Rc<Directory>,
    /// The most recently used one is the last.
    open: Vec<(Vec<u8>, Rc<Directory>)>,
}

impl Directories {
    pub(super) fn new(root: OwnedFd) -> Self {
        Self {
            root: Rc::new(Directory::new(root)),
            open: Vec::with_capacity(OPEN_DIRECTORIES),
        }
    }

    pub(super) fn root(&self) -> &Rc<Directory> {
        &self.root
    }

    /// Opens the directory at `path`, which may lead through symbolic links inside the root.
    pub(super) fn open(&mut self, path: &[u8]) -> Result<Rc<Directory>> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some(index) = self.open.iter().rposition(|(known, _)| known == path) {
            self.open[index..].rotate_left(1);
            let (_, directory) = self.open.last().expect("just found");
            return Ok(Rc::clone(directory));
        }
        let fd = self.resolve(path, DIRECTORY)?;
        Ok(self.remember(path, Directory::new(fd)))
    }

    /// Opens the directory at `path`, but not through a link in its last component.
    pub(super) fn open_itself(&mut self, path: &[u8]) -> Result<OwnedFd> {
        self.resolve(path, DIRECTORY | OFlags::NOFOLLOW)
    }

    pub(super) fn remember(&mut self, path: &[u8], directory: Directory) -> Rc<Directory> {
        if self.open.len() >= OPEN_DIRECTORIES {
            self.open.remove(0);
        }
        let directory = Rc::new(directory);
        self.open.push((path.to_vec(), Rc::clone(&directory)));
        directory
    }

    /// Forgets all but the root: a path may name another directory now.
    pub(super) fn forget(&mut self) {
        self.open.clear();
    }

    /// The kernel keeps the lookup below the root, whatever links say.
    fn resolve(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let mut tries = 0;
        loop {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if tries < RETRIES => tries += 1,
                answer => return answer,
            }
        }
    }
}

/// Opens the directory `name` itself.
pub(super) fn open_child(parent: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    rustix::fs::openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
}

/// Removes `name`, with all that is below it when it is a directory.
///
/// Links are removed, never followed. What is not there is fine.
pub(super) fn remove_tree(parent: impl AsFd, name: &[u8]) -> Result<()> {
    let name = CString::new(name).map_err(|_| Errno::INVAL)?;
    match toolkit::remove_tree_at(parent, &name) {
        Err(Errno::NOTDIR) => Ok(()),
        answer => answer,
    }
}

/// Removes everything below `directory` that `keep` does not hold, by path below the root.
pub(super) fn clear(directory: impl AsFd, path: &[u8], keep: &names::NameSet) -> Result<()> {
    let directory = directory.as_fd();
    for (name, kind) in children(directory)? {
        let child = if path.is_empty() {
            name.clone()
        } else {
            [path, b"/", &name].concat()
        };
        if !keep.contains(&child) {
            remove_tree(directory, &name)?;
        } else if kind == FileType::Directory {
            clear(open_child(directory, &name)?, &child, keep)?;
        }
    }
    Ok(())
}

fn children(directory: impl AsFd) -> Result<Vec<(Vec<u8>, FileType)>> {
    let directory = directory.as_fd();
    let mut found = Vec::new();
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let mut kind = entry.file_type();
        if kind == FileType::Unknown {
            let stat = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?;
            kind = FileType::from_raw_mode(stat.st_mode);
        }
        found.push((name.to_vec(), kind));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream reaches any depth through its own links, and then replaces the top.
    #[test]
    fn what_is_replaced_may_be_deeper_than_files_can_be_opened() {
        let root = tempfile::tempdir().unwrap();
        let top = rustix::fs::open(root.path(), DIRECTORY, Mode::empty()).unwrap();
        let mut at = top.try_clone().unwrap();
        for _ in 0..1500 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open_child(&at, b"d").unwrap();
        }
        remove_tree(&top, b"d").unwrap();
        remove_tree(&top, b"d").unwrap();
        assert_eq!(children(&top).unwrap(), []);
    }
}
