// SPDX-License-Identifier: Apache-2.0
//! The kernel's questions, answered from a [`Tree`].

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::{self, File, Metadata},
    io,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry,
    ReplyOpen, ReplyXattr, Request,
};

use crate::Tree;

/// How long the kernel may believe what it was told; the files do not change.
const VALID: Duration = Duration::from_mins(1);

/// A folder of layers as a file system.
#[derive(Debug)]
pub struct LayerStore {
    tree: Tree,
    /// Files that are open for reading.
    files: Mutex<HashMap<u64, Arc<File>>>,
    next: AtomicU64,
}

impl LayerStore {
    /// Serves the folder `root`.
    ///
    /// # Errors
    /// It cannot be found.
    pub fn new(root: &Path) -> io::Result<Self> {
        Ok(Self {
            tree: Tree::new(root)?,
            files: Mutex::default(),
            next: AtomicU64::new(1),
        })
    }

    fn files(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Arc<File>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The file with the counters, whose size changes.
    fn uses_attributes(&self) -> FileAttr {
        let now = SystemTime::now();
        FileAttr {
            ino: INodeNo(Tree::USES),
            size: self.tree.uses().len() as u64,
            blocks: 1,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind: FileType::RegularFile,
            perm: 0o444,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn entries(&self, directory: u64) -> io::Result<Vec<(u64, FileType, std::ffi::OsString)>> {
        let path = self.tree.path(directory)?;
        let mut entries = vec![
            (directory, FileType::Directory, ".".into()),
            (directory, FileType::Directory, "..".into()),
        ];
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            let found = entry.metadata()?;
            let number = self.tree.number(entry.path(), &found);
            entries.push((number, kind_of(&found), entry.file_name()));
        }
        entries.sort_by(|one, other| one.2.cmp(&other.2));
        Ok(entries)
    }

    fn content(&self, number: u64, handle: u64, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        if number == Tree::USES {
            let text = self.tree.uses().into_bytes();
            let start = usize::try_from(offset)
                .unwrap_or(usize::MAX)
                .min(text.len());
            let end = start.saturating_add(size as usize).min(text.len());
            return Ok(text[start..end].to_vec());
        }
        let file = self.files().get(&handle).cloned();
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let mut bytes = vec![0; size as usize];
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                length => filled += length,
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }
}

fn kind_of(found: &Metadata) -> FileType {
    let kind = found.file_type();
    if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Symlink
    } else if kind.is_char_device() {
        FileType::CharDevice
    } else if kind.is_block_device() {
        FileType::BlockDevice
    } else if kind.is_fifo() {
        FileType::NamedPipe
    } else if kind.is_socket() {
        FileType::Socket
    } else {
        FileType::RegularFile
    }
}

fn attributes(number: u64, found: &Metadata) -> FileAttr {
    let time = |seconds: i64, nanoseconds: i64| {
        let nanoseconds = Duration::from_nanos(nanoseconds.unsigned_abs());
        let seconds_only = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 {
            UNIX_EPOCH - seconds_only + nanoseconds
        } else {
            UNIX_EPOCH + seconds_only + nanoseconds
        }
    };
    FileAttr {
        ino: INodeNo(number),
        size: found.size(),
        blocks: found.blocks(),
        atime: time(found.atime(), found.atime_nsec()),
        mtime: time(found.mtime(), found.mtime_nsec()),
        ctime: time(found.ctime(), found.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind: kind_of(found),
        perm: u16::try_from(found.permissions().mode() & 0o7777).unwrap_or_default(),
        nlink: u32::try_from(found.nlink()).unwrap_or(u32::MAX),
        uid: found.uid(),
        gid: found.gid(),
        rdev: u32::try_from(found.rdev()).unwrap_or_default(),
        blksize: 4096,
        flags: 0,
    }
}

/// A value or a list, with the question for its size answered.
fn answer_bytes(bytes: io::Result<Vec<u8>>, size: u32, reply: ReplyXattr) {
    match bytes {
        Err(error) => reply.error(error.into()),
        Ok(bytes) => match u32::try_from(bytes.len()) {
            Ok(length) if size == 0 => reply.size(length),
            Ok(length) if length <= size => reply.data(&bytes),
            _ => reply.error(Errno::ERANGE),
        },
    }
}

/// Reads what has to be asked for its size first.
fn read_all(ask: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Vec<u8>> {
    loop {
        let mut bytes = vec![0; ask(&mut [])?];
        match ask(&mut bytes) {
            Ok(length) => {
                bytes.truncate(length);
                return Ok(bytes);
            }
            Err(rustix::io::Errno::RANGE) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

impl Filesystem for LayerStore {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if parent.0 == Tree::ROOT && name == Tree::USES_NAME {
            return reply.entry(&Duration::ZERO, &self.uses_attributes(), Generation(0));
        }
        match self.tree.find(parent.0, name) {
            Ok((number, found)) => {
                reply.entry(&VALID, &attributes(number, &found), Generation(0));
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        if number.0 == Tree::USES {
            return reply.attr(&Duration::ZERO, &self.uses_attributes());
        }
        match self.tree.path(number.0).and_then(fs::symlink_metadata) {
            Ok(found) => reply.attr(&VALID, &attributes(number.0, &found)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        match self.tree.path(number.0).and_then(fs::read_link) {
            Ok(target) => reply.data(target.as_os_str().as_bytes()),
            Err(error) => reply.error(error.into()),
        }
    }

    /// Creating `use` in a layer is the notification that it is used.
    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        if name != "use" || !self.tree.is_layer(parent.0) {
            return reply.error(Errno::EROFS);
        }
        match self.tree.add_use(parent.0) {
            Ok(()) => reply.error(Errno::ENOENT),
            Err(error) => reply.error(error.into()),
        }
    }

    /// Removing a layer is the notification that one use of it is over.
    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let found = self.tree.find(parent.0, name);
        match found {
            Ok((number, _)) if self.tree.is_layer(number) => match self.tree.end_use(number) {
                Ok(()) => reply.error(Errno::ENOENT),
                Err(error) => reply.error(error.into()),
            },
            Ok(_) => reply.error(Errno::EROFS),
            Err(error) => reply.error(error.into()),
        }
    }

    fn mknod(
        &self,
        _: &Request,
        _parent: INodeNo,
        _name: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EROFS);
    }

    fn unlink(&self, _: &Request, _parent: INodeNo, _name: &OsStr, reply: ReplyEmpty) {
        reply.error(Errno::EROFS);
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let for_reading = rustix::fs::OFlags::RDONLY.bits().cast_signed();
        let access = rustix::fs::OFlags::RWMODE.bits().cast_signed();
        if flags.0 & access != for_reading {
            return reply.error(Errno::EROFS);
        }
        if number.0 == Tree::USES {
            return reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
        }
        match self.tree.path(number.0).and_then(File::open) {
            Ok(file) => {
                let handle = self.next.fetch_add(1, Ordering::Relaxed);
                self.files().insert(handle, Arc::new(file));
                reply.opened(FileHandle(handle), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.content(number.0, handle.0, offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn release(
        &self,
        _: &Request,
        _number: INodeNo,
        handle: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        drop(self.files().remove(&handle.0));
        reply.ok();
    }

    fn readdir(
        &self,
        _: &Request,
        number: INodeNo,
        _handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let entries = match self.entries(number.0) {
            Ok(entries) => entries,
            Err(error) => return reply.error(error.into()),
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        for (index, (number, kind, name)) in entries.into_iter().enumerate().skip(start) {
            if reply.add(INodeNo(number), index as u64 + 1, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn getxattr(&self, _: &Request, number: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        let value = self
            .tree
            .path(number.0)
            .and_then(|path| read_all(|bytes| rustix::fs::lgetxattr(&path, name, bytes)));
        answer_bytes(value, size, reply);
    }

    fn listxattr(&self, _: &Request, number: INodeNo, size: u32, reply: ReplyXattr) {
        let names = self
            .tree
            .path(number.0)
            .and_then(|path| read_all(|bytes| rustix::fs::llistxattr(&path, bytes)));
        answer_bytes(names, size, reply);
    }
}
