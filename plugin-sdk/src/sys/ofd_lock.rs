// SPDX-License-Identifier: Apache-2.0
//! Record locks that belong to an open file description.
//!
//! # Compatibility
//! They exclude the POSIX record locks of Go's containers/storage and are excluded by them, which
//! `flock(2)` and [`std::fs::File::lock`] are not. Unlike a POSIX lock, one is not lost when the
//! process closes another descriptor of the same file, and two descriptions of one process exclude
//! each other.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    libc,
};

/// Who else may hold the lock at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    /// Other shared locks; the descriptor must be readable.
    Shared,
    /// Nobody; the descriptor must be writable.
    Exclusive,
}

/// A lock that stands in the way of another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// What is held.
    pub kind: LockKind,
    /// The process, when the lock is a POSIX one; nobody in particular owns an OFD lock.
    pub pid: Option<i32>,
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "the kernel's constants 0, 1 and 2 are declared wider than the field"
)]
const fn whole_file(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

const fn request(kind: LockKind) -> libc::flock {
    whole_file(match kind {
        LockKind::Shared => libc::F_RDLCK,
        LockKind::Exclusive => libc::F_WRLCK,
    })
}

/// Locks the whole file, waiting as long as it takes; an interrupted wait goes on.
///
/// # Errors
/// What `fcntl(2)` reports, for instance `EBADF` for a descriptor that is not open for writing.
pub fn lock(file: impl AsFd, kind: LockKind) -> io::Result<()> {
    let request = request(kind);
    loop {
        match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLKW(&request)) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Locks the whole file if nobody is in the way; says whether it did.
///
/// # Errors
/// What `fcntl(2)` reports, except that somebody is in the way.
pub fn try_lock(file: impl AsFd, kind: LockKind) -> io::Result<bool> {
    let request = request(kind);
    loop {
        match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&request)) {
            Ok(_) => return Ok(true),
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(false),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Gives the lock up, also for copies of the descriptor that a forked child still has.
///
/// # Errors
/// What `fcntl(2)` reports.
pub fn unlock(file: impl AsFd) -> io::Result<()> {
    let request = whole_file(libc::F_UNLCK);
    fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&request))?;
    Ok(())
}

/// One of the locks that keep `kind` from being taken; `None` when it could be taken now.
///
/// # Errors
/// What `fcntl(2)` reports.
pub fn holder(file: impl AsFd, kind: LockKind) -> io::Result<Option<Holder>> {
    holder_of(file.as_fd(), request(kind))
}

fn holder_of(file: BorrowedFd<'_>, mut answer: libc::flock) -> io::Result<Option<Holder>> {
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut answer))?;
    let kind = match libc::c_int::from(answer.l_type) {
        libc::F_UNLCK => return Ok(None),
        libc::F_RDLCK => LockKind::Shared,
        _ => LockKind::Exclusive,
    };
    Ok(Some(Holder {
        kind,
        pid: (answer.l_pid > 0).then_some(answer.l_pid),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_descriptions_exclude_each_other() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let other = file.reopen().unwrap();
        assert!(try_lock(&file, LockKind::Shared).unwrap());
        assert!(try_lock(&other, LockKind::Shared).unwrap());
        assert!(!try_lock(&other, LockKind::Exclusive).unwrap());
        let found = holder(&other, LockKind::Exclusive).unwrap().unwrap();
        assert_eq!((found.kind, found.pid), (LockKind::Shared, None));

        unlock(&file).unwrap();
        assert!(try_lock(&other, LockKind::Exclusive).unwrap());
        assert!(!try_lock(&file, LockKind::Shared).unwrap());
    }

    #[test]
    fn closing_another_descriptor_keeps_the_lock() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(try_lock(&file, LockKind::Exclusive).unwrap());
        drop(file.reopen().unwrap());
        assert!(!try_lock(file.reopen().unwrap(), LockKind::Shared).unwrap());
    }
}
