// SPDX-License-Identifier: Apache-2.0
//! Copies the bytes of one file by the cheapest way that the file system offers.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::{self, SeekFrom, Stat},
    io::Errno,
};

/// Copies the content of `from` into the empty file `to`; holes stay holes.
///
/// # Behavior
/// - `cloning` says whether sharing extents is still worth a try; it is cleared when the file
///   system cannot.
pub(super) fn copy(
    from: &OwnedFd,
    to: &OwnedFd,
    stat: &Stat,
    cloning: &AtomicBool,
) -> io::Result<()> {
    let size = u64::try_from(stat.st_size).map_err(|_| Errno::INVAL)?;
    if size == 0 {
        return Ok(());
    }
    if cloning.load(Ordering::Relaxed) {
        match fs::ioctl_ficlone(to, from) {
            Ok(()) => return Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::NOSYS) => {
                cloning.store(false, Ordering::Relaxed);
            }
            // Only this pair does not fit, for instance by the btrfs attribute `C`.
            Err(Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // A copy of the whole would fill the holes on tmpfs and ext4.
    let allocated = u64::try_from(stat.st_blocks).map_or(0, |blocks| blocks.saturating_mul(512));
    if allocated >= size {
        copy_range(from, to, 0, size)?;
    } else {
        copy_extents(from, to, size)?;
    }
    Ok(())
}

fn copy_extents(from: &OwnedFd, to: &OwnedFd, size: u64) -> io::Result<()> {
    fs::ftruncate(to, size)?;
    let mut position = 0;
    while position < size {
        let start = match fs::seek(from, SeekFrom::Data(position)) {
            Ok(start) => start,
            // No data up to the end.
            Err(Errno::NXIO) => break,
            Err(error) => return Err(error.into()),
        };
        let end = fs::seek(from, SeekFrom::Hole(start))?.min(size);
        if end <= start {
            break;
        }
        copy_range(from, to, start, end)?;
        position = end;
    }
    Ok(())
}

/// Copies the bytes from `start` to `end`, or to the end of a file that became shorter.
fn copy_range(from: &OwnedFd, to: &OwnedFd, start: u64, end: u64) -> io::Result<()> {
    let (mut read_at, mut write_at) = (start, start);
    while read_at < end {
        let length = usize::try_from(end - read_at).unwrap_or(usize::MAX);
        match fs::copy_file_range(from, Some(&mut read_at), to, Some(&mut write_at), length) {
            Ok(0) => break,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::XDEV | Errno::NOSYS | Errno::OPNOTSUPP | Errno::INVAL | Errno::PERM) => {
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    // Some file systems answer 0 to copy_file_range though there is more to read.
    let mut buffer = Vec::new();
    while read_at < end {
        if buffer.is_empty() {
            buffer.resize(128 * 1024, 0);
        }
        let length = usize::try_from(end - read_at).map_or(buffer.len(), |l| l.min(buffer.len()));
        let got = rustix::io::retry_on_intr(|| {
            rustix::io::pread(from.as_fd(), &mut buffer[..length], read_at)
        })?;
        if got == 0 {
            break;
        }
        let mut rest = &buffer[..got];
        while !rest.is_empty() {
            let put = rustix::io::retry_on_intr(|| rustix::io::pwrite(to, rest, read_at))?;
            if put == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[put..];
            read_at += put as u64;
        }
    }
    Ok(())
}
