// SPDX-License-Identifier: Apache-2.0
//! Which system calls change what is on disk or mounted, and what each is about.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use super::sys::Registers;

/// What a call does to the file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It needs space: a full disk refuses it.
    Allocates,
    /// It changes something without needing space.
    Changes,
}

/// Where the arguments say what is changed, and under which condition the call counts.
#[derive(Clone, Copy, Debug)]
enum Subject {
    /// The argument is a path.
    Path(usize),
    /// A directory descriptor, and a path relative to it.
    At(usize, usize),
    /// An open file; only those on a file system count.
    File(usize),
    /// `open` with its flags in this argument, the path as in `At` or `Path`.
    Open { at: Option<usize>, flags: usize },
    /// `openat2`.
    OpenHow,
    /// `ioctl`.
    Ioctl,
    /// `fsconfig`, which has an effect only when it makes or changes a superblock.
    Fsconfig,
    /// Nothing that has a name.
    Nothing,
}

/// One system call of the table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) name: &'static str,
    pub(super) effect: Effect,
    subject: Subject,
}

/// `O_CREAT | O_TRUNC`: an `open` without these changes nothing.
const MAKES: u32 = (libc::O_CREAT | libc::O_TRUNC).cast_unsigned();

macro_rules! table {
    ($($(#[$when:meta])* $number:path, $name:literal, $effect:ident, $subject:expr;)*) => {
        /// Every call that can change something; the filter hands the tracer the index.
        pub(super) const TABLE: &[Call] = &[$(
            $(#[$when])*
            Call {
                number: number($number),
                name: $name,
                effect: Effect::$effect,
                subject: $subject,
            },
        )*];
    };
}

pub(super) const fn number(number: libc::c_long) -> u32 {
    assert!(number >= 0 && number < 0x1000, "no such system call");
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range was just checked"
    )]
    let number = number.cast_unsigned() as u32;
    number
}

/// Numbers that are the same everywhere and that libc does not name on every target.
const FCHMODAT2: libc::c_long = 452;
const SETXATTRAT: libc::c_long = 463;
const REMOVEXATTRAT: libc::c_long = 466;

use Subject::{At, File as OpenFile, Fsconfig, Ioctl, Nothing, Open, OpenHow, Path as Named};

table! {
    libc::SYS_openat, "openat", Allocates, Open { at: Some(0), flags: 2 };
    libc::SYS_openat2, "openat2", Allocates, OpenHow;
    libc::SYS_mkdirat, "mkdirat", Allocates, At(0, 1);
    libc::SYS_mknodat, "mknodat", Allocates, At(0, 1);
    libc::SYS_linkat, "linkat", Allocates, At(2, 3);
    libc::SYS_symlinkat, "symlinkat", Allocates, At(1, 2);
    libc::SYS_renameat, "renameat", Allocates, At(2, 3);
    libc::SYS_renameat2, "renameat2", Allocates, At(2, 3);
    libc::SYS_unlinkat, "unlinkat", Changes, At(0, 1);
    libc::SYS_write, "write", Allocates, OpenFile(0);
    libc::SYS_pwrite64, "pwrite64", Allocates, OpenFile(0);
    libc::SYS_writev, "writev", Allocates, OpenFile(0);
    libc::SYS_pwritev, "pwritev", Allocates, OpenFile(0);
    libc::SYS_pwritev2, "pwritev2", Allocates, OpenFile(0);
    libc::SYS_copy_file_range, "copy_file_range", Allocates, OpenFile(2);
    libc::SYS_sendfile, "sendfile", Allocates, OpenFile(0);
    libc::SYS_splice, "splice", Allocates, OpenFile(2);
    libc::SYS_fallocate, "fallocate", Allocates, OpenFile(0);
    libc::SYS_io_uring_enter, "io_uring_enter", Changes, Nothing;
    libc::SYS_ftruncate, "ftruncate", Changes, OpenFile(0);
    libc::SYS_truncate, "truncate", Changes, Named(0);
    libc::SYS_fchmod, "fchmod", Changes, OpenFile(0);
    libc::SYS_fchmodat, "fchmodat", Changes, At(0, 1);
    FCHMODAT2, "fchmodat2", Changes, At(0, 1);
    libc::SYS_fchown, "fchown", Changes, OpenFile(0);
    libc::SYS_fchownat, "fchownat", Changes, At(0, 1);
    libc::SYS_utimensat, "utimensat", Changes, At(0, 1);
    libc::SYS_setxattr, "setxattr", Allocates, Named(0);
    libc::SYS_lsetxattr, "lsetxattr", Allocates, Named(0);
    libc::SYS_fsetxattr, "fsetxattr", Allocates, OpenFile(0);
    SETXATTRAT, "setxattrat", Allocates, At(0, 1);
    libc::SYS_removexattr, "removexattr", Changes, Named(0);
    libc::SYS_lremovexattr, "lremovexattr", Changes, Named(0);
    libc::SYS_fremovexattr, "fremovexattr", Changes, OpenFile(0);
    REMOVEXATTRAT, "removexattrat", Changes, At(0, 1);
    libc::SYS_mount, "mount", Changes, Named(1);
    libc::SYS_umount2, "umount2", Changes, Named(0);
    libc::SYS_fsconfig, "fsconfig", Changes, Fsconfig;
    libc::SYS_move_mount, "move_mount", Changes, At(2, 3);
    libc::SYS_mount_setattr, "mount_setattr", Changes, At(0, 1);
    libc::SYS_ioctl, "ioctl", Allocates, Ioctl;
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open, "open", Allocates, Open { at: None, flags: 1 };
    #[cfg(target_arch = "x86_64")]
    libc::SYS_creat, "creat", Allocates, Named(0);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mkdir, "mkdir", Allocates, Named(0);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod, "mknod", Allocates, Named(0);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_link, "link", Allocates, Named(1);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink, "symlink", Allocates, Named(1);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rename, "rename", Allocates, Named(1);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_unlink, "unlink", Changes, Named(0);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_rmdir, "rmdir", Changes, Named(0);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod, "chmod", Changes, Named(0);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chown, "chown", Changes, Named(0);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lchown, "lchown", Changes, Named(0);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utime, "utime", Changes, Named(0);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_utimes, "utimes", Changes, Named(0);
    #[cfg(target_arch = "x86_64")]
    libc::SYS_futimesat, "futimesat", Changes, At(0, 1);
}

/// `FSCONFIG_CMD_CREATE` and what follows it: making or reconfiguring a superblock.
const FSCONFIG_CREATE: u64 = 6;

impl Call {
    /// The argument and the mask of it that the filter tests before it stops the process.
    pub(super) fn tested_flags(&self) -> Option<(u32, u32)> {
        match self.subject {
            Open { flags: 1, .. } => Some((1, MAKES)),
            Open { .. } => Some((2, MAKES)),
            _ => None,
        }
    }

    /// Whether this very call changes a file system, and what of it.
    ///
    /// `thread` is stopped at the call's entry.
    pub(super) fn occurs(&self, thread: i32, registers: &Registers) -> Option<String> {
        let arguments = registers.arguments();
        let path = |dir: Option<usize>, path: usize| {
            Some(show(thread, dir.map(|dir| arguments[dir]), arguments[path]))
        };
        match self.subject {
            Named(argument) => path(None, argument),
            At(dir, argument) => path(Some(dir), argument),
            Open { at, .. } => path(at, usize::from(at.is_some())),
            OpenHow => {
                let flags = u64::from_ne_bytes(memory(thread, arguments[2])?);
                (flags & u64::from(MAKES) != 0).then(|| path(Some(0), 1))?
            }
            OpenFile(argument) => file(thread, arguments[argument]),
            Ioctl => changing_request(arguments[1])
                .then(|| descriptor(thread, arguments[0]).unwrap_or_default())
                .map(|path| path.display().to_string()),
            Fsconfig => (arguments[1] >= FSCONFIG_CREATE).then(|| "a new mount".to_owned()),
            Nothing => Some(String::new()),
        }
    }
}

/// Requests of `ioctl` that change a file system: clones, flags, and everything of btrfs, ext4,
/// xfs, zfs and loop devices that is not reading alone.
fn changing_request(request: u64) -> bool {
    const READ_ONLY: u64 = 2;
    let (kind, direction) = ((request >> 8) & 0xff, (request >> 30) & 3);
    match kind {
        // 'f' (flags, fs-verity, encryption), 'X' (freeze, attributes), btrfs and the clones.
        0x66 | 0x58 | 0x94 => direction != READ_ONLY,
        // Loop devices and zfs number theirs without a direction.
        0x4c => true,
        0x5a => !ZFS_WITHOUT_EFFECT.contains(&(request & 0xff)),
        _ => false,
    }
}

/// The requests of zfs after which a store is what it was (`enum zfs_ioc` of OpenZFS's
/// `include/sys/fs/zfs.h`): those that only read, in the order of their numbers, then writing
/// what was changed before, and the pool's own log of commands.
const ZFS_WITHOUT_EFFECT: &[u64] = &[
    // POOL_CONFIGS, POOL_STATS, POOL_TRYIMPORT, POOL_GET_HISTORY
    0x04, 0x05, 0x06, 0x0a, //
    // OBJSET_STATS, OBJSET_ZPLPROPS, DATASET_LIST_NEXT, SNAPSHOT_LIST_NEXT
    0x12, 0x13, 0x14, 0x15, //
    // ERROR_LOG, DSOBJ_TO_DSNAME, OBJ_TO_PATH, POOL_GET_PROPS, GET_FSACL
    0x20, 0x24, 0x25, 0x27, 0x29, //
    // USERSPACE_ONE, USERSPACE_MANY, GET_HOLDS, OBJSET_RECVD_PROPS, NEXT_OBJ, DIFF
    0x2d, 0x2e, 0x32, 0x33, 0x35, 0x36, //
    // OBJ_TO_STATS, SPACE_WRITTEN, SPACE_SNAPS, SEND_PROGRESS, SEND_SPACE, GET_BOOKMARKS
    0x38, 0x39, 0x3a, 0x3e, 0x41, 0x44, //
    // POOL_SYNC, LOG_HISTORY
    0x47, 0x3f,
];

/// The file behind a descriptor when it is on a file system; the standard streams carry the
/// report of the run, not its work.
fn file(thread: i32, number: u64) -> Option<String> {
    const OUTSIDE: [&str; 4] = ["/proc/", "/sys/", "/dev/", "/memfd:"];
    if number <= 2 {
        return None;
    }
    let path = descriptor(thread, number)?;
    let text = path.to_string_lossy();
    let counts = path.is_absolute() && !OUTSIDE.iter().any(|prefix| text.starts_with(prefix));
    counts.then(|| text.into_owned())
}

fn descriptor(thread: i32, number: u64) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{thread}/fd/{}", low(number))).ok()
}

/// A descriptor is a C `int`: the upper half of the register holds nothing.
fn low(number: u64) -> u64 {
    number & u64::from(u32::MAX)
}

fn memory<const N: usize>(thread: i32, address: u64) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    let memory = File::open(format!("/proc/{thread}/mem")).ok()?;
    memory.read_exact_at(&mut bytes, address).ok()?;
    Some(bytes)
}

/// The path that a call names, as far as it can be read.
fn show(thread: i32, dir: Option<u64>, address: u64) -> String {
    let name = text(thread, address);
    let base = match dir.map(low) {
        Some(number) if number == u64::from(libc::AT_FDCWD.cast_unsigned()) => None,
        Some(number) => descriptor(thread, number),
        None => None,
    };
    match base {
        Some(base) if name.is_empty() => base.display().to_string(),
        Some(base) => base.join(Path::new(&name)).display().to_string(),
        None => name,
    }
}

fn text(thread: i32, address: u64) -> String {
    let mut bytes = vec![0; 4096];
    let read = File::open(format!("/proc/{thread}/mem"))
        .and_then(|memory| memory.read_at(&mut bytes, address))
        .unwrap_or(0);
    bytes.truncate(read);
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(read);
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
