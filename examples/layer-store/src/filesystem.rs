// SPDX-License-Identifier: Apache-2.0
//! The folder of layers as a file system.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fmt::Write as _,
    fs::{self, File, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, MetadataExt},
    },
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use data_encoding::BASE64;
use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenAccMode, OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};
use rustix::fs::{Mode, OFlags};

use crate::{
    layers::Layers,
    nodes::{Node, Nodes},
};

/// The kernel's number for "not known", which listings may have.
const UNKNOWN: INodeNo = INodeNo(0xffff_ffff);

/// How long the kernel may remember what is on disk: layers do not change.
const LONG: Duration = Duration::from_hours(1);

/// What is open.
#[derive(Clone, Debug)]
enum Open {
    File(Arc<File>),
    Text(Arc<str>),
    Directory(Arc<[(FileType, OsString)]>),
}

#[derive(Debug)]
struct State {
    nodes: Nodes,
    open: HashMap<u64, Open>,
    last: u64,
    /// How often each layer is in use.
    uses: BTreeMap<String, u64>,
}

/// The file system.
#[derive(Debug)]
pub(crate) struct LayerStore {
    layers: Layers,
    state: Mutex<State>,
    started: SystemTime,
}

impl LayerStore {
    pub(crate) fn new(layers: Layers) -> Self {
        Self {
            layers,
            state: Mutex::new(State {
                nodes: Nodes::new(),
                open: HashMap::new(),
                last: 0,
                uses: BTreeMap::new(),
            }),
            started: SystemTime::now(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self, number: INodeNo) -> Result<Node, Errno> {
        self.state().nodes.get(number.0).ok_or(Errno::ESTALE)
    }

    fn on_disk(&self, number: INodeNo) -> Result<PathBuf, Errno> {
        match self.node(number)? {
            Node::OnDisk(path) => Ok(path),
            _ => Err(Errno::ENODATA),
        }
    }

    /// What `name` is in `parent`.
    fn child(&self, parent: &Node, name: &OsStr) -> Result<Node, Errno> {
        if let Node::OnDisk(path) = parent {
            return Ok(Node::OnDisk(path.join(name)));
        }
        let name = name.to_str().ok_or(Errno::ENOENT)?;
        let layer = |name: &str| {
            let found = self.layers.find(name);
            found.map(|_| Node::Layer(name.to_owned()))
        };
        let found = match parent {
            // No encoding has this length.
            Node::Root if name == "status" => Some(Node::Status),
            Node::Root => layer(name).or_else(|| is_reference(name).then_some(Node::Reference)),
            Node::Reference => layer(name),
            Node::Layer(digest) if ["diff", "info", "blob"].contains(&name) => {
                let path = self.layers.find(digest).ok_or(Errno::ENOENT)?;
                Some(Node::OnDisk(path.join(name)))
            }
            _ => None,
        };
        found.ok_or(Errno::ENOENT)
    }

    fn attributes(&self, number: u64, node: &Node) -> Result<FileAttr, Errno> {
        let (kind, perm) = match node {
            Node::OnDisk(path) => return Ok(from_disk(number, &fs::symlink_metadata(path)?)),
            Node::Status => (FileType::RegularFile, 0o444),
            _ => (FileType::Directory, 0o755),
        };
        Ok(FileAttr {
            ino: INodeNo(number),
            size: 0,
            blocks: 0,
            atime: self.started,
            mtime: self.started,
            ctime: self.started,
            crtime: self.started,
            kind,
            perm,
            nlink: if kind == FileType::Directory { 2 } else { 1 },
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }

    fn look_up(&self, parent: INodeNo, name: &OsStr) -> Result<(Duration, FileAttr), Errno> {
        let above = self.node(parent)?;
        let node = self.child(&above, name)?;
        let path = Path::new(&parent.0.to_string()).join(name);
        let number = self.state().nodes.found(&path, &node)?;
        let attributes = self.attributes(number, &node).inspect_err(|_| {
            self.state().nodes.forget(number, 1);
        })?;
        let long = matches!(node, Node::OnDisk(_));
        Ok((if long { LONG } else { Duration::ZERO }, attributes))
    }

    fn keep(&self, open: Open) -> FileHandle {
        let mut state = self.state();
        state.last += 1;
        let handle = state.last;
        state.open.insert(handle, open);
        FileHandle(handle)
    }

    fn opened(&self, handle: FileHandle) -> Result<Open, Errno> {
        let found = self.state().open.get(&handle.0).cloned();
        found.ok_or(Errno::EBADF)
    }

    fn status(&self) -> Result<String, Errno> {
        let layers = self.layers.list()?;
        let state = self.state();
        let mut text = String::new();
        for digest in layers {
            let uses = state.uses.get(&digest).copied().unwrap_or(0);
            writeln!(text, "{digest} {uses}").map_err(|_| Errno::EIO)?;
        }
        Ok(text)
    }

    fn open_file(&self, number: INodeNo, flags: OpenFlags) -> Result<FileHandle, Errno> {
        if flags.acc_mode() != OpenAccMode::O_RDONLY {
            return Err(Errno::EROFS);
        }
        let open = match self.node(number)? {
            Node::Status => Open::Text(self.status()?.into()),
            Node::OnDisk(path) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?;
                Open::File(Arc::new(file.into()))
            }
            _ => return Err(Errno::EISDIR),
        };
        Ok(self.keep(open))
    }

    fn open_directory(&self, number: INodeNo) -> Result<FileHandle, Errno> {
        let mut names = vec![
            (FileType::Directory, ".".into()),
            (FileType::Directory, "..".into()),
        ];
        let directories = |names: Vec<String>| {
            let names = names.into_iter().map(OsString::from);
            names.map(|name| (FileType::Directory, name))
        };
        match self.node(number)? {
            Node::Root => {
                names.extend(directories(self.layers.list()?));
                names.push((FileType::RegularFile, "status".into()));
            }
            Node::Reference => names.extend(directories(self.layers.list()?)),
            Node::Layer(_) => {
                names.push((FileType::Directory, "diff".into()));
                names.push((FileType::RegularFile, "info".into()));
                names.push((FileType::RegularFile, "blob".into()));
            }
            Node::Status => return Err(Errno::ENOTDIR),
            Node::OnDisk(path) => {
                for entry in fs::read_dir(path)? {
                    let entry = entry?;
                    let kind = FileType::from_std(entry.file_type()?);
                    names.push((kind.ok_or(Errno::EIO)?, entry.file_name()));
                }
            }
        }
        Ok(self.keep(Open::Directory(names.into())))
    }

    /// Counts that a layer is used once more, or once less.
    fn count(&self, digest: &str, change: impl FnOnce(u64) -> u64) {
        let mut state = self.state();
        let uses = state.uses.entry(digest.to_owned()).or_insert(0);
        *uses = change(*uses);
    }
}

/// Whether a name in the root is an image's name, encoded.
fn is_reference(name: &str) -> bool {
    let decoded = BASE64.decode(name.as_bytes());
    decoded.is_ok_and(|text| !text.is_empty() && str::from_utf8(&text).is_ok())
}

fn from_disk(number: u64, found: &Metadata) -> FileAttr {
    let time = |seconds: i64, nanoseconds: i64| {
        let whole = Duration::from_secs(seconds.unsigned_abs());
        let base = if seconds < 0 {
            SystemTime::UNIX_EPOCH - whole
        } else {
            SystemTime::UNIX_EPOCH + whole
        };
        base + Duration::from_nanos(nanoseconds.unsigned_abs())
    };
    let kind = FileType::from_std(found.file_type()).unwrap_or(FileType::RegularFile);
    FileAttr {
        ino: INodeNo(number),
        size: found.size(),
        blocks: found.blocks(),
        atime: time(found.atime(), found.atime_nsec()),
        mtime: time(found.mtime(), found.mtime_nsec()),
        ctime: time(found.ctime(), found.ctime_nsec()),
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: u16::try_from(found.mode() & 0o7777).unwrap_or(0),
        nlink: u32::try_from(found.nlink()).unwrap_or(u32::MAX),
        uid: found.uid(),
        gid: found.gid(),
        // The kernel wants the 32-bit form, which 64-bit programs see widened.
        rdev: u32::try_from(found.rdev()).unwrap_or(u32::MAX),
        blksize: u32::try_from(found.blksize()).unwrap_or(4096),
        flags: 0,
    }
}

/// What is at `offset` of an open file.
fn read(open: &Open, offset: u64, size: u32) -> Result<Vec<u8>, Errno> {
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    match open {
        Open::File(file) => {
            let mut bytes = vec![0; size];
            let mut filled = 0;
            while filled < size {
                match file.read_at(&mut bytes[filled..], offset + filled as u64) {
                    Ok(0) => break,
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error.into()),
                }
            }
            bytes.truncate(filled);
            Ok(bytes)
        }
        Open::Text(text) => {
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(text.len());
            let end = start.saturating_add(size).min(text.len());
            Ok(text.as_bytes()[start..end].to_vec())
        }
        Open::Directory(_) => Err(Errno::EISDIR),
    }
}

/// Answers a question about extended attributes, which is asked without room for the answer first.
fn answer(reply: ReplyXattr, size: u32, value: Result<Vec<u8>, Errno>) {
    let value = match value {
        Ok(value) => value,
        Err(error) => return reply.error(error),
    };
    match u32::try_from(value.len()) {
        Ok(length) if size == 0 => reply.size(length),
        Ok(length) if length <= size => reply.data(&value),
        _ => reply.error(Errno::ERANGE),
    }
}

impl Filesystem for LayerStore {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.look_up(parent, name) {
            Ok((time, attributes)) => reply.entry(&time, &attributes, Generation(0)),
            Err(error) => reply.error(error),
        }
    }

    fn forget(&self, _: &Request, number: INodeNo, times: u64) {
        self.state().nodes.forget(number.0, times);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let node = self.node(number);
        match node.and_then(|node| self.attributes(number.0, &node)) {
            Ok(attributes) => reply.attr(&Duration::ZERO, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let target = self
            .on_disk(number)
            .and_then(|path| Ok(fs::read_link(path)?));
        match target {
            Ok(target) => reply.data(target.as_os_str().as_bytes()),
            Err(error) => reply.error(error),
        }
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let node = self.node(parent).and_then(|node| self.child(&node, name));
        match node {
            Ok(Node::Layer(digest)) => {
                self.count(&digest, |uses| uses.saturating_sub(1));
                reply.error(Errno::ENOENT);
            }
            Ok(_) => reply.error(Errno::EROFS),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        match self.node(parent) {
            Ok(Node::Layer(digest)) if name == "use" => {
                self.count(&digest, |uses| uses + 1);
                reply.error(Errno::ENOENT);
            }
            Ok(_) => reply.error(Errno::EROFS),
            Err(error) => reply.error(error),
        }
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.open_file(number, flags) {
            Ok(handle) => {
                // Nobody knows the length of the status before it is written.
                let status = matches!(self.opened(handle), Ok(Open::Text(_)));
                reply.opened(
                    handle,
                    if status {
                        FopenFlags::FOPEN_DIRECT_IO
                    } else {
                        FopenFlags::FOPEN_KEEP_CACHE
                    },
                );
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self
            .opened(handle)
            .and_then(|open| read(&open, offset, size))
        {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.state().open.remove(&handle.0);
        reply.ok();
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.open_directory(number) {
            Ok(handle) => reply.opened(handle, FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let Ok(Open::Directory(names)) = self.opened(handle) else {
            return reply.error(Errno::EBADF);
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, (kind, name)) in names.iter().enumerate().skip(start) {
            if reply.add(UNKNOWN, index as u64 + 1, *kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.state().open.remove(&handle.0);
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match rustix::fs::statvfs(self.layers.path()) {
            Ok(found) => reply.statfs(
                found.f_blocks,
                0,
                0,
                found.f_files,
                0,
                u32::try_from(found.f_bsize).unwrap_or(4096),
                u32::try_from(found.f_namemax).unwrap_or(255),
                u32::try_from(found.f_frsize).unwrap_or(4096),
            ),
            Err(error) => reply.error(io::Error::from(error).into()),
        }
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self.on_disk(number).and_then(|path| {
            let mut value = vec![0; 1 << 16];
            let length = rustix::fs::lgetxattr(path, name, &mut value).map_err(io::Error::from)?;
            value.truncate(length);
            Ok(value)
        });
        answer(reply, size, value);
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self.on_disk(number).and_then(|path| {
            let mut names = vec![0; 1 << 16];
            let length = rustix::fs::llistxattr(path, &mut names).map_err(io::Error::from)?;
            names.truncate(length);
            Ok(names)
        });
        // What is not on disk has none.
        let names = names.or_else(|_| Ok(Vec::new()));
        answer(reply, size, names);
    }
}
