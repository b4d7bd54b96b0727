// SPDX-License-Identifier: Apache-2.0
//! Removal of whole trees.

use std::{
    ffi::{CStr, CString},
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::{IoContext, Result, sys::protection};

/// How deep a tree is walked; what is deeper is moved up first, so that neither descriptors nor
/// the stack run out.
const DEEPEST: usize = 64;

/// Removes a file or a directory with everything below it, following no symbolic link; what is
/// not there is no error.
///
/// # Behavior
/// - Directories that their owner may not enter (the kernel's `work/work`, layers of an
///   unprivileged user) are made accessible first.
/// - Immutable and append-only files and read-only subvolumes lose that protection first, where
///   the caller may do so.
/// - A mount at or below `path` is not entered: the removal fails with `EBUSY`.
/// - The depth of the tree does not matter.
///
/// # Errors
/// What cannot be removed; the rest of the tree may be gone by then.
pub fn remove_tree(path: &Path) -> Result<()> {
    match remove(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path).at("cannot make accessible", path)?;
            remove(path).at("cannot remove", path)
        }
        other => other.at("cannot remove", path),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let name = CString::new(name.as_bytes())?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    Ok(remove_at(parent.as_fd(), &name, Protected::Removed)?)
}

/// What happens to files that are protected against removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protected {
    Kept,
    Removed,
}

/// As [`remove_tree`], for `name` in an open directory, without making anything accessible or
/// taking protections off.
///
/// # Errors
/// What cannot be removed; the rest of the tree may be gone by then.
pub fn remove_tree_at(parent: impl AsFd, name: &CStr) -> Result<(), Errno> {
    remove_at(parent.as_fd(), name, Protected::Kept)
}

fn remove_at(parent: BorrowedFd<'_>, name: &CStr, protected: Protected) -> Result<(), Errno> {
    let unlinked = rustix::fs::unlinkat(parent, name, AtFlags::empty());
    let top = match unlinked {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux says EISDIR, POSIX says EPERM; a file that may not be removed says that, too.
        Err(error @ (Errno::ISDIR | Errno::PERM)) => match open_child(parent, name) {
            Err(Errno::NOTDIR | Errno::LOOP) if protected == Protected::Removed => {
                unprotect(None, parent, name);
                return gone(rustix::fs::unlinkat(parent, name, AtFlags::empty()));
            }
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(error),
            other => other?,
        },
        Err(error) => return Err(error),
    };
    let mut remover = Remover {
        top: &top,
        moved: 0,
        protected,
    };
    loop {
        let before = remover.moved;
        remover.empty(Dir::read_from(&top)?, 0)?;
        if remover.moved == before {
            break;
        }
    }
    remover.insist(None, parent, name, || {
        gone(rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR))
    })
}

/// Takes protections off `name` and, when it belongs to the tree, the directory that it is in;
/// says whether there were any.
fn unprotect(owner: Option<BorrowedFd<'_>>, directory: BorrowedFd<'_>, name: &CStr) -> bool {
    let mut taken = owner.is_some_and(|owner| protection::take_off(owner) == Ok(true));
    let Ok(found) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else {
        return taken;
    };
    // Opening anything else would do something.
    if matches!(
        FileType::from_raw_mode(found.st_mode),
        FileType::RegularFile | FileType::Directory
    ) {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(directory, name, flags, Mode::empty());
        taken |= opened.is_ok_and(|file| protection::take_off(file) == Ok(true));
    }
    taken
}

/// Opens a directory, but no mount: what is mounted belongs to somebody else.
fn open_child(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        Err(Errno::XDEV) => Err(Errno::BUSY),
        other => other,
    }
}

/// Somebody else may have been faster.
fn gone(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NOENT) => Ok(()),
        other => other,
    }
}

struct Remover<'a> {
    top: &'a OwnedFd,
    /// How many directories were moved to the top.
    moved: u64,
    protected: Protected,
}

impl Remover<'_> {
    /// Does `work`, which removes or moves `name`; once more without protections when they are
    /// what keeps it from that.
    fn insist(
        &self,
        owner: Option<BorrowedFd<'_>>,
        directory: BorrowedFd<'_>,
        name: &CStr,
        work: impl Fn() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        match work() {
            Err(Errno::PERM | Errno::ROFS)
                if self.protected == Protected::Removed && unprotect(owner, directory, name) =>
            {
                work()
            }
            other => other,
        }
    }

    /// As [`Self::insist`], for what is inside the tree.
    fn insist_in(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        work: impl Fn() -> Result<(), Errno>,
    ) -> Result<(), Errno> {
        self.insist(Some(directory), directory, name, work)
    }

    /// Removes everything in `directory`, or moves it up.
    fn empty(&mut self, mut listing: Dir, depth: usize) -> Result<(), Errno> {
        while let Some(entry) = listing.read() {
            let entry = entry?;
            let directory = listing.fd()?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let mut kind = entry.file_type();
            if kind == FileType::Unknown {
                match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Err(Errno::NOENT) => continue,
                    found => kind = FileType::from_raw_mode(found?.st_mode),
                }
            }
            if kind != FileType::Directory {
                self.insist_in(directory, name, || {
                    gone(rustix::fs::unlinkat(directory, name, AtFlags::empty()))
                })?;
            } else if depth >= DEEPEST {
                self.move_up(directory, name)?;
            } else {
                let name = name.to_owned();
                match open_child(directory, &name) {
                    Err(Errno::NOENT) => continue,
                    child => self.empty(Dir::new(child?)?, depth + 1)?,
                }
                self.insist_in(directory, &name, || {
                    gone(rustix::fs::unlinkat(directory, &name, AtFlags::REMOVEDIR))
                })?;
            }
        }
        Ok(())
    }

    fn move_up(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let new = format!(".deep-{}", self.moved);
            let moved = self.insist_in(directory, name, || {
                rustix::fs::renameat(directory, name, self.top, &new)
            });
            match moved {
                // That name is in use.
                Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => {}
                other => return gone(other),
            }
        }
    }
}

/// Gives the owner all permissions on every directory below `path`.
fn open_up(path: &Path) -> io::Result<()> {
    let mut pending = vec![path.to_owned()];
    while let Some(directory) = pending.pop() {
        let found = fs::symlink_metadata(&directory)?;
        if !found.is_dir() {
            continue;
        }
        if found.permissions().mode() & 0o700 != 0o700 {
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700))?;
        }
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                pending.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trees_files_and_nothing_are_removed_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let (tree, kept) = (root.path().join("tree"), root.path().join("kept"));
        fs::create_dir_all(tree.join("work/work")).unwrap();
        fs::create_dir(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&kept, tree.join("link")).unwrap();
        fs::set_permissions(tree.join("work/work"), fs::Permissions::from_mode(0o000)).unwrap();

        remove_tree(&tree).unwrap();
        remove_tree(&tree).unwrap();
        remove_tree(&kept.join("file")).unwrap();
        assert!(!tree.exists() && kept.exists() && !kept.join("file").exists());
    }

    #[test]
    fn a_tree_may_be_deeper_than_files_can_be_opened() {
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir(&tree).unwrap();
        fs::create_dir(tree.join(".deep-1")).unwrap();
        fs::write(tree.join(".deep-1/file"), "x").unwrap();
        let mut at = rustix::fs::open(&tree, OFlags::RDONLY, Mode::empty()).unwrap();
        for _ in 0..1500 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = rustix::fs::openat(&at, "d", OFlags::RDONLY, Mode::empty()).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn root_what_is_mounted_in_a_tree_is_not_touched() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let (tree, other) = (root.path().join("tree"), root.path().join("other"));
        let target = tree.join("a/mounted");
        fs::create_dir_all(&target).unwrap();
        fs::create_dir(&other).unwrap();
        fs::write(other.join("precious"), "x").unwrap();
        for target in [&target, &tree] {
            rustix::mount::mount_bind(&other, target).unwrap();
            let refused = remove_tree(&tree).unwrap_err();
            let unmounted = rustix::mount::unmount(target, rustix::mount::UnmountFlags::DETACH);
            unmounted.unwrap();
            assert_eq!(refused.code, crate::DriverErrorCode::BUSY, "{refused}");
            assert!(other.join("precious").exists());
        }
        remove_tree(&tree).unwrap();
    }

    /// Takes the protections off, so that what a failed test leaves can be removed.
    struct Protections(Vec<fs::File>);

    impl Drop for Protections {
        fn drop(&mut self) {
            for file in &self.0 {
                // A failed test says more than what its leftovers say.
                let _ = crate::sys::protection::take_off(file);
            }
        }
    }

    #[test]
    fn root_protected_files_are_removed_with_their_tree() {
        use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let tree = root.path().join("tree");
        fs::create_dir_all(tree.join("frozen/inner")).unwrap();
        fs::write(tree.join("frozen/inner/file"), "x").unwrap();
        fs::write(tree.join("log"), "x").unwrap();
        let mut protected = Protections(Vec::new());
        for (path, flag) in [
            ("frozen/inner/file", IFlags::IMMUTABLE),
            ("frozen/inner", IFlags::IMMUTABLE),
            ("frozen", IFlags::APPEND),
            ("log", IFlags::APPEND),
            ("", IFlags::IMMUTABLE),
        ] {
            let file = fs::File::open(tree.join(path)).unwrap();
            let flags = ioctl_getflags(&file).unwrap();
            ioctl_setflags(&file, flags | flag).unwrap();
            protected.0.push(file);
        }
        let name = CString::new("tree").unwrap();
        let parent = fs::File::open(root.path()).unwrap();
        assert_eq!(remove_tree_at(&parent, &name), Err(Errno::PERM));
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn closed_directories_are_opened_up() {
        let root = tempfile::tempdir().unwrap();
        let closed = root.path().join("a/b");
        fs::create_dir_all(closed.join("c")).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
        open_up(root.path()).unwrap();
        assert_eq!(
            fs::metadata(&closed).unwrap().permissions().mode() & 0o777,
            0o700
        );
    }
}
