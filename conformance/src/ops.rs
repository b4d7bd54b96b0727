// SPDX-License-Identifier: Apache-2.0
//! The oracle: the same changes made in a layer and in a flat directory must give the same tree.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, PermissionsExt as _, lchown, symlink},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{AT_FDCWD, FallocateFlags, fallocate},
    sys::{
        stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat},
        time::TimeSpec,
    },
    unistd::{Gid, Uid, setfsgid, setfsuid},
};
use rustix::fs::{OFlags, openat};

use crate::{
    Target,
    case::{Failure, Outcome, demand},
    manifest::{self, Manifest},
};

/// The time that the first settled change gets: whole seconds since 1970.
const EPOCH: i64 = 1_600_000_000;

/// One change to a tree; paths are relative to its root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    /// Makes or empties a file, and writes it.
    Write(PathBuf, Vec<u8>),
    /// Writes into a file that exists.
    WriteAt(PathBuf, u64, Vec<u8>),
    Append(PathBuf, Vec<u8>),
    Truncate(PathBuf, u64),
    PunchHole(PathBuf, u64, u64),
    Mkdir(PathBuf),
    Symlink(PathBuf, PathBuf),
    /// A further name for a file: new name, existing name.
    Link(PathBuf, PathBuf),
    Fifo(PathBuf),
    /// A character device with these numbers.
    Device(PathBuf, u32, u32),
    Socket(PathBuf),
    /// Makes a file as this user and group.
    CreateAs(PathBuf, u32, u32),
    /// Appends as this user, who has no right to keep set-id bits.
    AppendAs(PathBuf, u32, Vec<u8>),
    /// A block device with these numbers.
    BlockDevice(PathBuf, u32, u32),
    Chmod(PathBuf, u32),
    Chown(PathBuf, u32, u32),
    /// Modification time: seconds and nanoseconds.
    Mtime(PathBuf, i64, u32),
    SetXattr(PathBuf, String, Vec<u8>),
    RemoveXattr(PathBuf, String),
    /// From, to.
    Rename(PathBuf, PathBuf),
    Unlink(PathBuf),
    Rmdir(PathBuf),
    RemoveTree(PathBuf),
}

impl Op {
    /// The paths whose times it changes by the way.
    fn touches(&self) -> Vec<&Path> {
        match self {
            Self::Write(path, _)
            | Self::Mkdir(path)
            | Self::Symlink(path, _)
            | Self::Fifo(path)
            | Self::Socket(path)
            | Self::CreateAs(path, ..)
            | Self::Device(path, ..)
            | Self::BlockDevice(path, ..) => vec![path, up(path)],
            Self::Link(path, _)
            | Self::Unlink(path)
            | Self::Rmdir(path)
            | Self::RemoveTree(path) => {
                vec![up(path)]
            }
            Self::WriteAt(path, ..)
            | Self::Append(path, _)
            | Self::AppendAs(path, ..)
            | Self::Truncate(path, _)
            | Self::PunchHole(path, ..) => vec![path],
            Self::Rename(from, to) => vec![up(from), up(to)],
            Self::Chmod(..)
            | Self::Chown(..)
            | Self::Mtime(..)
            | Self::SetXattr(..)
            | Self::RemoveXattr(..) => Vec::new(),
        }
    }
}

fn up(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

/// An operation that failed.
#[derive(Debug, thiserror::Error)]
#[error("{op:?}")]
pub(crate) struct OpError {
    op: Op,
    /// What the kernel said.
    #[source]
    pub(crate) source: io::Error,
}

/// Makes the changes in the tree at `root`, in order, and settles the times that they touched.
///
/// # Errors
/// The first change that the kernel refuses.
pub(crate) fn apply(root: &Path, ops: &[Op]) -> Result<(), OpError> {
    let mut touched: BTreeSet<PathBuf> = BTreeSet::new();
    for op in ops {
        perform(root, op).map_err(|source| OpError {
            op: op.clone(),
            source,
        })?;
        if let Op::Rename(from, to) = op {
            touched = touched.iter().map(|path| moved(path, from, to)).collect();
            // Where overlay has a whiteout it exchanges the two, and xfs gives a directory that is
            // exchanged a new time (`xfs_cross_rename`).
            if fs::symlink_metadata(root.join(to)).is_ok_and(|found| found.is_dir()) {
                touched.insert(to.clone());
            }
        }
        touched.extend(op.touches().into_iter().map(Path::to_owned));
        if let Op::Mtime(path, ..) = op {
            touched.remove(path);
        }
    }
    settle(root, &touched).map_err(|source| OpError {
        op: ops.last().cloned().unwrap_or(Op::Mkdir(PathBuf::new())),
        source,
    })
}

/// Where a path is after `from` was renamed to `to`.
fn moved(path: &Path, from: &Path, to: &Path) -> PathBuf {
    match path.strip_prefix(from) {
        Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
        Ok(rest) => to.join(rest),
        Err(_) => path.to_owned(),
    }
}

/// Gives every touched path a time that depends on its name alone, so that two runs agree.
fn settle(root: &Path, touched: &BTreeSet<PathBuf>) -> io::Result<()> {
    for path in touched.iter().rev() {
        let sum = path.as_os_str().as_bytes().iter().fold(7_i64, |sum, byte| {
            (sum * 31 + i64::from(*byte)) % 100_000_007
        });
        match set_mtime(&root.join(path), EPOCH + sum, sum * 7 % 1_000_000_000) {
            Err(nix::Error::ENOENT | nix::Error::ENOTDIR) => {}
            done => done?,
        }
    }
    Ok(())
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) -> nix::Result<()> {
    let time = TimeSpec::new(seconds, nanoseconds);
    utimensat(
        AT_FDCWD,
        path,
        &time,
        &time,
        UtimensatFlags::NoFollowSymlink,
    )
}

fn perform(root: &Path, op: &Op) -> io::Result<()> {
    let at = |path: &Path| root.join(path);
    let open = |path: &Path| fs::OpenOptions::new().write(true).open(at(path));
    match op {
        Op::Write(path, data) => fs::write(at(path), data),
        Op::WriteAt(path, offset, data) => open(path)?.write_all_at(data, *offset),
        Op::Append(path, data) => {
            let file = fs::OpenOptions::new().append(true).open(at(path))?;
            io::Write::write_all(&mut &file, data)
        }
        Op::Truncate(path, size) => open(path)?.set_len(*size),
        Op::PunchHole(path, offset, length) => {
            let file = open(path)?;
            let mode = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let number = |number: u64| i64::try_from(number).map_err(io::Error::other);
            Ok(fallocate(&file, mode, number(*offset)?, number(*length)?)?)
        }
        Op::Mkdir(path) => fs::create_dir(at(path)),
        Op::Symlink(path, to) => symlink(to, at(path)),
        Op::Link(new, existing) => fs::hard_link(at(existing), at(new)),
        Op::Fifo(path) => node(&at(path), SFlag::S_IFIFO, 0, 0),
        Op::Socket(path) => node(&at(path), SFlag::S_IFSOCK, 0, 0),
        Op::Device(path, major, minor) => node(&at(path), SFlag::S_IFCHR, *major, *minor),
        Op::BlockDevice(path, major, minor) => node(&at(path), SFlag::S_IFBLK, *major, *minor),
        Op::CreateAs(path, uid, gid) => create_as(&at(path), *uid, *gid),
        Op::AppendAs(path, uid, data) => {
            let file = fs::OpenOptions::new().append(true).open(at(path))?;
            as_user(*uid, *uid, || io::Write::write_all(&mut &file, data))
        }
        Op::Chmod(path, mode) => fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)),
        Op::Chown(path, uid, gid) => lchown(at(path), Some(*uid), Some(*gid)),
        Op::Mtime(path, seconds, nanoseconds) => {
            Ok(set_mtime(&at(path), *seconds, i64::from(*nanoseconds))?)
        }
        Op::SetXattr(path, name, value) => Ok(rustix::fs::lsetxattr(
            at(path),
            name.as_str(),
            value,
            rustix::fs::XattrFlags::empty(),
        )?),
        Op::RemoveXattr(path, name) => Ok(rustix::fs::lremovexattr(at(path), name.as_str())?),
        Op::Rename(from, to) => fs::rename(at(from), at(to)),
        Op::Unlink(path) => fs::remove_file(at(path)),
        Op::Rmdir(path) => fs::remove_dir(at(path)),
        Op::RemoveTree(path) => fs::remove_dir_all(at(path)),
    }
}

fn node(path: &Path, kind: SFlag, major: u32, minor: u32) -> io::Result<()> {
    let device = makedev(u64::from(major), u64::from(minor));
    Ok(mknod(path, kind, Mode::from_bits_retain(0o640), device)?)
}

fn create_as(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    // By a handle of the directory: the user may not pass through those above the store.
    let parent = fs::File::open(path.parent().unwrap_or(path))?;
    let name = path.file_name().unwrap_or_default();
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    as_user(uid, gid, || {
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        openat(&parent, name, flags, mode)?;
        Ok(())
    })
}

/// Does something with the rights of another user, in a thread that ends with it.
fn as_user<T: Send>(uid: u32, gid: u32, work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            setfsgid(Gid::from_raw(gid));
            setfsuid(Uid::from_raw(uid));
            work()
        });
        let done = worker.join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A chain of layers and, beside each, the flat directory that it must equal.
#[derive(Debug)]
pub(crate) struct Chain {
    place: PathBuf,
    /// What was done to each layer, one list for each mount.
    history: Vec<(String, Vec<Vec<Op>>)>,
}

impl Chain {
    /// An empty chain; the flat directories are outside the store.
    pub(crate) fn new(target: &Target) -> io::Result<Self> {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Ok(Self {
            place: target.scratch(&format!("flat-{number}"))?,
            history: Vec::new(),
        })
    }

    /// The newest layer.
    pub(crate) fn top(&self) -> Option<&str> {
        self.history.last().map(|(id, _)| id.as_str())
    }

    /// Adds a layer on top, makes the changes in its mount and in the flat tree, and compares.
    pub(crate) fn grow(&mut self, target: &Target, id: &str, ops: &[Op]) -> Outcome {
        target.create_writable(id, self.top())?;
        target.within(id, |path| -> Outcome { Ok(apply(path, ops)?) })?;
        self.history.push((id.to_owned(), vec![ops.to_vec()]));
        self.check(target, id)
    }

    /// Makes further changes in the newest layer, and compares.
    pub(crate) fn change(&mut self, target: &Target, ops: &[Op]) -> Outcome {
        let Some((id, history)) = self.history.last_mut() else {
            return Err(Failure::harness("the chain has no layer"));
        };
        let id = id.clone();
        target.within(&id, |path| -> Outcome { Ok(apply(path, ops)?) })?;
        history.push(ops.to_vec());
        self.check(target, &id)
    }

    /// Compares a layer with the tree that all changes up to it give.
    pub(crate) fn check(&self, target: &Target, id: &str) -> Outcome {
        let seen = target.manifest(id)?.without_root_time();
        let differences = self.flat(id)?.differences(&seen);
        demand!(
            differences.is_empty(),
            "layer `{id}` is not what the same changes make of a flat directory: {}",
            differences.join("; ")
        );
        Ok(())
    }

    /// Compares every layer.
    pub(crate) fn check_all(&self, target: &Target) -> Outcome {
        for (id, _) in &self.history {
            self.check(target, id)?;
        }
        Ok(())
    }

    /// What a flat directory looks like after all changes up to a layer; its root's own times are
    /// left out, as those of a mount's root are its driver's affair.
    pub(crate) fn flat(&self, id: &str) -> Result<Manifest, Failure> {
        let flat = self.place.join("tree");
        if flat.exists() {
            fs::remove_dir_all(&flat)?;
        }
        fs::create_dir(&flat)?;
        fs::set_permissions(&flat, fs::Permissions::from_mode(0o555))?;
        let depth = self.history.iter().position(|(layer, _)| layer == id);
        let depth = depth.ok_or_else(|| Failure::harness(format!("no layer `{id}`")))?;
        for ops in self.history[..=depth].iter().flat_map(|(_, ops)| ops) {
            apply(&flat, ops)?;
        }
        Ok(manifest::of(&flat)?.without_root_time())
    }
}
