// SPDX-License-Identifier: Apache-2.0
//! Walks directory trees below a descriptor: no name is ever resolved from the root of the host.

use std::{
    collections::HashSet,
    ffi::OsStr,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{
        Access, AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, openat, openat2,
        statat,
    },
    io::Errno,
};

use crate::{Error, ErrorKind, IoContext, Result};

/// Directories of a path that stay open; those nearer to the root are opened again when needed.
const KEPT_OPEN: usize = 64;
/// What Linux accepts as one path; deeper trees cannot be reached by any other tool.
const PATH_LIMIT: usize = 4095;

/// The attributes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) links: u64,
    pub(super) inode: (u64, u64),
    pub(super) device: (u32, u32),
    pub(super) seconds: i64,
    pub(super) nanoseconds: u32,
}

impl Meta {
    pub(super) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.mode)
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    /// Whether overlay shows nothing in its place.
    pub(super) fn is_overlay_whiteout(&self) -> bool {
        self.kind() == FileType::CharacterDevice && self.device == (0, 0)
    }
}

impl From<Stat> for Meta {
    #[expect(
        clippy::cast_sign_loss,
        clippy::cast_possible_truncation,
        reason = "sizes and nanoseconds from the kernel are in range"
    )]
    #[expect(
        clippy::useless_conversion,
        reason = "the field types differ between architectures"
    )]
    fn from(stat: Stat) -> Self {
        let device = stat.st_rdev.into();
        Self {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            links: stat.st_nlink.into(),
            inode: (stat.st_dev.into(), stat.st_ino.into()),
            device: (rustix::fs::major(device), rustix::fs::minor(device)),
            seconds: stat.st_mtime.into(),
            nanoseconds: stat.st_mtime_nsec as u32,
        }
    }
}

/// A name in a directory and its inode number.
pub(super) type Named = (Box<[u8]>, u64);

/// The descriptors of the directories on the way to where a walk is.
pub(super) struct DirStack {
    root_path: PathBuf,
    root: OwnedFd,
    below: Vec<Level>,
    path: Vec<u8>,
}

struct Level {
    fd: Option<OwnedFd>,
    /// The length of the path of the directory above.
    parent_length: usize,
}

impl DirStack {
    pub(super) fn open(root: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(rustix::fs::CWD, root, flags, Mode::empty())
            .at("cannot open the directory", root)?;
        Ok(Self {
            root_path: root.to_path_buf(),
            root: fd,
            below: Vec::new(),
            path: Vec::new(),
        })
    }

    /// The directory where the walk is, relative to the root; empty for the root.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// The path of `name` in that directory, relative to the root.
    pub(super) fn path_of(&self, name: &[u8]) -> Vec<u8> {
        join(&self.path, name)
    }

    /// The path of `name` on the host, for messages.
    pub(super) fn host_path(&self, name: &[u8]) -> PathBuf {
        self.root_path
            .join(OsStr::from_bytes(&self.path))
            .join(OsStr::from_bytes(name))
    }

    pub(super) fn depth(&self) -> usize {
        self.below.len()
    }

    /// The descriptor of the directory where the walk is.
    pub(super) fn top(&mut self) -> Result<BorrowedFd<'_>> {
        let reopened = match self.below.last() {
            Some(Level { fd: None, .. }) => Some(self.reopen()?),
            _ => None,
        };
        let Some(level) = self.below.last_mut() else {
            return Ok(self.root.as_fd());
        };
        if reopened.is_some() {
            level.fd = reopened;
        }
        Ok(level.fd.as_ref().unwrap_or(&self.root).as_fd())
    }

    fn reopen(&self) -> Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        openat2(
            &self.root,
            self.path.as_slice(),
            flags,
            Mode::empty(),
            resolve,
        )
        .at("cannot open the directory", self.host_path(b""))
    }

    /// The device of the directory where the walk is.
    pub(super) fn device(&mut self) -> Result<u64> {
        let stat = rustix::fs::fstat(self.top()?)
            .at("cannot read the attributes of", self.host_path(b""))?;
        Ok(Meta::from(stat).inode.0)
    }

    /// Goes into the directory `name`; false when it is not there or is no directory any more.
    pub(super) fn push(&mut self, name: &[u8]) -> Result<bool> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let opened = openat(self.top()?, name, flags, Mode::empty());
        let fd = match opened {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(false),
            Err(errno) => return Err(errno).at("cannot open the directory", self.host_path(name)),
        };
        let parent_length = self.path.len();
        self.path = join(&self.path, name);
        if self.path.len() > PATH_LIMIT {
            return Err(Errno::NAMETOOLONG).at("cannot walk", self.host_path(b""));
        }
        self.below.push(Level {
            fd: Some(fd),
            parent_length,
        });
        if self.below.len() > KEPT_OPEN {
            let hidden = self.below.len() - KEPT_OPEN - 1;
            self.below[hidden].fd = None;
        }
        Ok(true)
    }

    /// Leaves the directory.
    pub(super) fn pop(&mut self) {
        if let Some(level) = self.below.pop() {
            self.path.truncate(level.parent_length);
        }
    }

    /// The names in the directory, sorted.
    pub(super) fn names(&mut self) -> Result<Vec<Named>> {
        let listed = list(self.top()?);
        listed.at("cannot read the directory", self.host_path(b""))
    }

    /// The attributes of `name` itself; `None` when it is not there any more.
    pub(super) fn stat(&mut self, name: &[u8]) -> Result<Option<Meta>> {
        match statat(self.top()?, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno).at("cannot read the attributes of", self.host_path(name)),
        }
    }

    /// The target of the symlink `name`; `None` when it is none any more.
    pub(super) fn read_link(&mut self, name: &[u8]) -> Result<Option<Vec<u8>>> {
        match rustix::fs::readlinkat(self.top()?, name, Vec::new()) {
            Ok(target) => Ok(Some(target.into_bytes())),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(errno) => Err(errno).at("cannot read the symlink", self.host_path(name)),
        }
    }

    /// Opens the regular file `name`; `None` when it is none any more.
    pub(super) fn open_file(&mut self, name: &[u8]) -> Result<Option<(OwnedFd, Meta)>> {
        // NONBLOCK: what was a file a moment ago may be a FIFO now.
        let flags =
            OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = match openat(self.top()?, name, flags, Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(None),
            Err(errno) => return Err(errno).at("cannot open", self.host_path(name)),
        };
        let stat =
            rustix::fs::fstat(&fd).at("cannot read the attributes of", self.host_path(name))?;
        let meta = Meta::from(stat);
        Ok((meta.kind() == FileType::RegularFile).then_some((fd, meta)))
    }

    /// The extended attributes of `name` whose names `wanted` accepts, sorted.
    pub(super) fn xattrs(
        &mut self,
        name: &[u8],
        wanted: fn(&[u8]) -> bool,
    ) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let read = XattrPath::new(self.top()?, name).read(wanted);
        read.at(
            "cannot read the extended attributes of",
            self.host_path(name),
        )
    }
}

/// `directory` and `name` with a slash between.
pub(super) fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + name.len() + 1);
    path.extend_from_slice(directory);
    if !directory.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

fn list(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<Named>> {
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(16 << 10);
    // A descriptor that was read before stands at the end.
    rustix::fs::seek(directory, rustix::fs::SeekFrom::Start(0))?;
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((Box::from(name), entry.ino()));
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Names a node for the extended attribute calls, which have no form with a directory descriptor.
struct XattrPath(Vec<u8>);

impl XattrPath {
    fn new(directory: BorrowedFd<'_>, name: &[u8]) -> Self {
        let mut path = format!("/proc/self/fd/{}/", directory.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        Self(path)
    }

    fn read(&self, wanted: fn(&[u8]) -> bool) -> rustix::io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
        let list = match self.sized(|path, buffer| rustix::fs::llistxattr(path, buffer)) {
            Ok(list) => list,
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(Errno::NOENT) => {
                // The node disappeared; unless it is /proc that is not there.
                rustix::fs::access("/proc/self/fd", Access::EXISTS)?;
                return Ok(Vec::new());
            }
            Err(errno) => return Err(errno),
        };
        let mut found = Vec::new();
        for name in list.split(|byte| *byte == 0) {
            if name.is_empty() || !wanted(name) {
                continue;
            }
            match self.sized(|path, buffer| rustix::fs::lgetxattr(path, name, buffer)) {
                Ok(value) => found.push((name.to_vec(), value)),
                Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::NOENT) => {}
                Err(Errno::TOOBIG) => tracing::warn!(
                    name = %name.escape_ascii(),
                    "leaving out an extended attribute that is too large to be read"
                ),
                Err(errno) => return Err(errno),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    fn sized(
        &self,
        call: impl Fn(&[u8], &mut [u8]) -> rustix::io::Result<usize>,
    ) -> rustix::io::Result<Vec<u8>> {
        let mut small = [0; 512];
        match call(&self.0, &mut small) {
            Ok(length) => return Ok(small[..length].to_vec()),
            Err(Errno::RANGE) => {}
            Err(errno) => return Err(errno),
        }
        // The kernel's limit for a list and for a value.
        let mut large = vec![0; 64 << 10];
        let length = call(&self.0, &mut large)?;
        large.truncate(length);
        Ok(large)
    }
}

/// A walk through a tree: names sorted within each directory, directories before their content.
pub(super) struct Walk {
    pub(super) dirs: DirStack,
    frames: Vec<std::vec::IntoIter<Named>>,
    enter: Option<Box<[u8]>>,
}

impl Walk {
    pub(super) fn open(root: &Path) -> Result<Self> {
        let mut dirs = DirStack::open(root)?;
        let names = dirs.names()?;
        Ok(Self {
            dirs,
            frames: vec![names.into_iter()],
            enter: None,
        })
    }

    /// The next node's name in `dirs` and its attributes.
    ///
    /// What disappears during the walk is passed over.
    pub(super) fn next(&mut self) -> Result<Option<(Box<[u8]>, Meta)>> {
        if let Some(name) = self.enter.take()
            && self.dirs.push(&name)?
        {
            let names = self.dirs.names()?;
            self.frames.push(names.into_iter());
        }
        while let Some(frame) = self.frames.last_mut() {
            let Some((name, _)) = frame.next() else {
                self.frames.pop();
                self.dirs.pop();
                continue;
            };
            let Some(meta) = self.dirs.stat(&name)? else {
                continue;
            };
            if meta.is_dir() {
                self.enter = Some(name.clone());
            }
            return Ok(Some((name, meta)));
        }
        Ok(None)
    }
}

/// Adds up sizes, each inode with several names once.
#[derive(Default)]
pub(super) struct SizeSum {
    seen: HashSet<(u64, u64)>,
    pub(super) total: u64,
}

impl SizeSum {
    pub(super) fn add(&mut self, meta: &Meta) {
        if !meta.is_dir() && (meta.links < 2 || self.seen.insert(meta.inode)) {
            self.total = self.total.saturating_add(meta.size);
        }
    }
}

/// An upper directory that does not hold what the layer shows.
pub(super) fn not_self_contained(path: &Path, mark: &str) -> Error {
    Error::new(
        ErrorKind::NotSupported,
        format!(
            "cannot read changes from the upper directory: `{}` has the overlay mark {mark}",
            path.display()
        ),
    )
    .subject(path.display().to_string())
    .hint("compare the mounted trees instead, as with metacopy=on or redirect_dir=on")
}
