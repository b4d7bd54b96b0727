// SPDX-License-Identifier: Apache-2.0
//! Copies a tree with everything that a layer keeps: holes, hard links, owners, modes, times to
//! the nanosecond, devices, sockets, and extended attributes.

use std::{
    collections::HashMap,
    ffi::{CStr, CString, OsStr},
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use rustix::{
    fs::{self, AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, Timespec, Timestamps},
    io::Errno,
};

use crate::{DriverError, IoContext, Result};

mod data;

/// How a tree is copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyOptions {
    /// A file whose owner cannot be set keeps the copier's.
    pub ignore_chown_errors: bool,
    /// Which extended attributes are copied.
    pub xattrs: CopiedXattrs,
}

impl CopyOptions {
    /// Nothing is left out, and every failure is an error.
    pub fn everything() -> Self {
        Self {
            ignore_chown_errors: false,
            xattrs: CopiedXattrs::All,
        }
    }
}

/// Which extended attributes [`copy_tree`] copies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopiedXattrs {
    /// Those that a layer's tar would carry: `user.*` and `security.capability`, of files and
    /// directories.
    #[default]
    OfLayers,
    /// Every one, of everything, but `security.selinux`: labels are the host's affair.
    ///
    /// What only the host's root may set in `security.*` is left out for everyone else.
    All,
    /// The same without overlay's own marks, `trusted.overlay.*` and `user.overlay.*`.
    AllButOverlay,
}

impl CopiedXattrs {
    fn includes(self, name: &[u8]) -> bool {
        match self {
            Self::OfLayers => name == b"security.capability" || name.starts_with(b"user."),
            Self::All => name != b"security.selinux",
            Self::AllButOverlay => {
                let marks: [&[u8]; 2] = [b"trusted.overlay.", b"user.overlay."];
                Self::All.includes(name) && !marks.iter().any(|mark| name.starts_with(mark))
            }
        }
    }
}

/// Copies what is in `from` into the directory `to`, which exists and is empty, and gives `to` the
/// attributes of `from`.
///
/// # Behavior
/// - Symbolic links are copied, never followed; other file systems that are mounted below `from`
///   are copied too.
/// - Files share their extents where the file system can do that.
/// - The depth of the tree does not matter.
///
/// # Errors
/// What the file system reports; `to` is incomplete then.
pub fn copy_tree(from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
    let root = Pair {
        from: open_dir(CWD, from.as_os_str()).at("cannot open", from)?,
        to: open_dir(CWD, to.as_os_str()).at("cannot open", to)?,
        path: PathBuf::new(),
    };
    let device = fs::fstat(&root.from).at("cannot stat", from)?.st_dev;
    let copier = Copier::new(from, to, options, device);
    lock(&copier.queue).waiting.push(Task::Root(root));
    // One thread alone waits for the disk half of the time; more than eight gain nothing.
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8));
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| copier.work());
        }
        copier.work();
    });
    match lock(&copier.queue).failed.take() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Gives the directory `to` the owner, mode, extended attributes and times of the directory
/// `from`, and nothing of what is in it; `from` may be a symbolic link to it.
///
/// # Errors
/// What the file system reports.
pub fn copy_attributes(from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let source = fs::open(from, flags, Mode::empty()).at("cannot open", from)?;
    let target = open_dir(CWD, to.as_os_str()).at("cannot open", to)?;
    let stat = fs::fstat(&source).at("cannot stat", from)?;
    Copier::new(from, to, options, stat.st_dev)
        .attributes(source.as_fd(), target.as_fd(), &stat)
        .at("cannot set attributes of", to)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every critical section leaves the data whole at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A directory and its copy.
struct Pair {
    from: OwnedFd,
    to: OwnedFd,
    /// Relative to the roots.
    path: PathBuf,
}

enum Task {
    Root(Pair),
    /// The parent's descriptors instead of a path: a path may be longer than the kernel takes.
    Child(Arc<Pair>, CString),
}

struct Queue {
    /// Last in, first out: keeps the number of open directories near the depth of the tree.
    waiting: Vec<Task>,
    running: usize,
    failed: Option<DriverError>,
}

struct Copier<'a> {
    options: CopyOptions,
    from: &'a Path,
    to: PathBuf,
    device: u64,
    cloning: AtomicBool,
    /// Where the first name of each inode with several names was put.
    links: Mutex<HashMap<u64, PathBuf>>,
    queue: Mutex<Queue>,
    changed: Condvar,
}

impl<'a> Copier<'a> {
    fn new(from: &'a Path, to: &Path, options: CopyOptions, device: u64) -> Self {
        Self {
            options,
            from,
            to: to.to_owned(),
            device,
            cloning: AtomicBool::new(true),
            links: Mutex::default(),
            queue: Mutex::new(Queue {
                waiting: Vec::new(),
                running: 0,
                failed: None,
            }),
            changed: Condvar::new(),
        }
    }

    fn work(&self) {
        while let Some(task) = self.next() {
            let outcome = self.open(task).and_then(|pair| self.directory(pair));
            let mut queue = lock(&self.queue);
            queue.running -= 1;
            if let Err(error) = outcome {
                queue.failed.get_or_insert(error);
            }
            self.changed.notify_all();
        }
    }

    /// The next directory; `None` when there will be no more.
    fn next(&self) -> Option<Task> {
        let mut queue = lock(&self.queue);
        loop {
            if queue.failed.is_some() {
                return None;
            }
            if let Some(task) = queue.waiting.pop() {
                queue.running += 1;
                return Some(task);
            }
            if queue.running == 0 {
                return None;
            }
            queue = self
                .changed
                .wait(queue)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open(&self, task: Task) -> Result<Pair> {
        match task {
            Task::Root(pair) => Ok(pair),
            Task::Child(parent, name) => {
                let name = OsStr::from_bytes(name.to_bytes());
                let path = parent.path.join(name);
                Ok(Pair {
                    from: open_dir(parent.from.as_fd(), name)
                        .at("cannot open", self.from.join(&path))?,
                    to: open_dir(parent.to.as_fd(), name).at("cannot open", self.to.join(&path))?,
                    path,
                })
            }
        }
    }

    /// Copies the entries of one directory and then its own attributes: its descendants are
    /// copied later and do not touch them.
    fn directory(&self, pair: Pair) -> Result<()> {
        let pair = Arc::new(pair);
        let from = || self.from.join(&pair.path);
        let mut children = Vec::new();
        for entry in Dir::read_from(&pair.from).at("cannot read", from())? {
            let entry = entry.at("cannot read", from())?;
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            self.entry(&pair, name, &mut children)?;
        }
        let stat = fs::fstat(&pair.from).at("cannot stat", from())?;
        self.attributes(pair.from.as_fd(), pair.to.as_fd(), &stat)
            .at("cannot set attributes of", self.to.join(&pair.path))?;
        if !children.is_empty() {
            let tasks = children
                .into_iter()
                .map(|name| Task::Child(Arc::clone(&pair), name));
            lock(&self.queue).waiting.extend(tasks);
            self.changed.notify_all();
        }
        Ok(())
    }

    fn entry(&self, pair: &Pair, name: &CStr, children: &mut Vec<CString>) -> Result<()> {
        let path = pair.path.join(OsStr::from_bytes(name.to_bytes()));
        let to = || self.to.join(&path);
        let stat = fs::statat(&pair.from, name, AtFlags::SYMLINK_NOFOLLOW)
            .at("cannot stat", self.from.join(&path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                fs::mkdirat(&pair.to, name, Mode::RWXU).at("cannot create", to())?;
                children.push(name.to_owned());
                Ok(())
            }
            FileType::RegularFile => self.file(pair, name, &path, &stat).at("cannot copy", to()),
            FileType::Symlink => self
                .symlink(pair, name, &path, &stat)
                .at("cannot copy", to()),
            _ => self.node(pair, name, &path, &stat).at("cannot copy", to()),
        }
    }

    /// Gives `name` as a further name to an inode that was copied before, or makes it by `make`.
    fn linked(
        &self,
        pair: &Pair,
        name: &CStr,
        path: &Path,
        stat: &Stat,
        make: impl FnOnce() -> io::Result<Option<OwnedFd>>,
    ) -> io::Result<Option<OwnedFd>> {
        if stat.st_nlink < 2 || stat.st_dev != self.device {
            return make();
        }
        // The lock is held until the first name exists, so that a second one can link to it.
        let mut links = lock(&self.links);
        if let Some(first) = links.get(&stat.st_ino) {
            self.link(first, pair, name)?;
            return Ok(None);
        }
        let made = make()?;
        links.insert(stat.st_ino, path.to_owned());
        Ok(made)
    }

    fn link(&self, first: &Path, pair: &Pair, name: &CStr) -> io::Result<()> {
        let flags = AtFlags::empty();
        match fs::linkat(CWD, self.to.join(first), &pair.to, name, flags) {
            // Longer than the kernel takes as one path.
            Err(Errno::NAMETOOLONG) => {
                let mut above = open_dir(CWD, self.to.as_os_str())?;
                for part in first.parent().unwrap_or(Path::new("")) {
                    above = open_dir(above.as_fd(), part)?;
                }
                let last = first.file_name().unwrap_or_default();
                Ok(fs::linkat(above, last, &pair.to, name, flags)?)
            }
            answer => Ok(answer?),
        }
    }

    fn file(&self, pair: &Pair, name: &CStr, path: &Path, stat: &Stat) -> io::Result<()> {
        let made = self.linked(pair, name, path, stat, || {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            Ok(Some(fs::openat(&pair.to, name, flags, mode)?))
        })?;
        let Some(to) = made else { return Ok(()) };
        let from = open_file(pair.from.as_fd(), name)?;
        data::copy(&from, &to, stat, &self.cloning)?;
        self.attributes(from.as_fd(), to.as_fd(), stat)
    }

    fn symlink(&self, pair: &Pair, name: &CStr, path: &Path, stat: &Stat) -> io::Result<()> {
        self.linked(pair, name, path, stat, || {
            let target = fs::readlinkat(&pair.from, name, Vec::new())?;
            fs::symlinkat(target, &pair.to, name)?;
            self.owner_at(pair, name, stat)?;
            self.xattrs_at(pair, name)?;
            fs::utimensat(&pair.to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(None)
        })?;
        Ok(())
    }

    fn node(&self, pair: &Pair, name: &CStr, path: &Path, stat: &Stat) -> io::Result<()> {
        self.linked(pair, name, path, stat, || {
            let kind = FileType::from_raw_mode(stat.st_mode);
            let mode = Mode::from_raw_mode(stat.st_mode);
            fs::mknodat(&pair.to, name, kind, Mode::RUSR | Mode::WUSR, stat.st_rdev)?;
            self.owner_at(pair, name, stat)?;
            fs::chmodat(&pair.to, name, mode, AtFlags::empty())?;
            self.xattrs_at(pair, name)?;
            fs::utimensat(&pair.to, name, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?;
            Ok(None)
        })?;
        Ok(())
    }

    fn owner_at(&self, pair: &Pair, name: &CStr, stat: &Stat) -> io::Result<()> {
        let (uid, gid) = owner(stat);
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        self.tolerated(fs::chownat(&pair.to, name, Some(uid), Some(gid), flags))
    }

    fn tolerated(&self, outcome: Result<(), Errno>) -> io::Result<()> {
        match outcome {
            Err(_) if self.options.ignore_chown_errors => Ok(()),
            other => Ok(other?),
        }
    }

    /// Owner first: changing it takes set-id bits and capabilities away. Times last.
    fn attributes(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        let (uid, gid) = owner(stat);
        self.tolerated(fs::fchown(to, Some(uid), Some(gid)))?;
        fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
        self.xattrs(from, to)?;
        fs::futimens(to, &times(stat))?;
        Ok(())
    }

    fn xattrs(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
        let query = || fs::flistxattr_query(from);
        let names = read_all(query, |buffer| fs::flistxattr(from, buffer));
        self.each_xattr(names, |name| {
            let query = || fs::fgetxattr_query(from, name);
            let value = read_all(query, |buffer| fs::fgetxattr(from, name, buffer))?;
            fs::fsetxattr(to, name, &value, fs::XattrFlags::empty())
        })
    }

    /// The same for what cannot be opened to be read. The kernel has no call that takes a
    /// directory and a name before 6.13, but its list of descriptors is as good.
    fn xattrs_at(&self, pair: &Pair, name: &CStr) -> io::Result<()> {
        if self.options.xattrs == CopiedXattrs::OfLayers {
            return Ok(());
        }
        let (from, to) = (&path_at(&pair.from, name), &path_at(&pair.to, name));
        let query = || fs::llistxattr_query(from);
        let names = read_all(query, |buffer| fs::llistxattr(from, buffer));
        self.each_xattr(names, |name| {
            let query = || fs::lgetxattr_query(from, name);
            let value = read_all(query, |buffer| fs::lgetxattr(from, name, buffer))?;
            fs::lsetxattr(to, name, &value, fs::XattrFlags::empty())
        })
    }

    fn each_xattr(
        &self,
        names: Result<Vec<u8>, Errno>,
        copy: impl Fn(&[u8]) -> Result<(), Errno>,
    ) -> io::Result<()> {
        let names = match names {
            Err(Errno::OPNOTSUPP) => return Ok(()),
            other => other?,
        };
        let which = self.options.xattrs;
        let names = names.split(|byte| *byte == 0);
        for name in names.filter(|name| !name.is_empty() && which.includes(name)) {
            match copy(name) {
                // It went away in between.
                Err(Errno::NODATA) => {}
                // In a user namespace: the host's own attributes, such as `security.ima`.
                Err(Errno::PERM)
                    if name.starts_with(b"security.") && name != b"security.capability" => {}
                other => other?,
            }
        }
        Ok(())
    }
}

fn path_at(directory: &OwnedFd, name: &CStr) -> PathBuf {
    let directory = format!("/proc/self/fd/{}", directory.as_raw_fd());
    Path::new(&directory).join(OsStr::from_bytes(name.to_bytes()))
}

fn owner(stat: &Stat) -> (fs::Uid, fs::Gid) {
    (
        fs::Uid::from_raw(stat.st_uid),
        fs::Gid::from_raw(stat.st_gid),
    )
}

fn times(stat: &Stat) -> Timestamps {
    let time = |seconds: i64, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanoseconds).unwrap_or(0),
    };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn open_dir(at: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(at, name, flags, Mode::empty())
}

/// Opens a file to read it, without changing its access time where that is allowed.
fn open_file(at: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match fs::openat(at, name, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => fs::openat(at, name, flags, Mode::empty()),
        other => other,
    }
}

/// Reads with the size that the kernel names, again when it grew in between.
fn read_all(
    query: impl Fn() -> Result<usize, Errno>,
    read: impl Fn(&mut [u8]) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    loop {
        let mut buffer = vec![0; query()?];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        match read(&mut buffer) {
            Ok(size) => {
                buffer.truncate(size);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
