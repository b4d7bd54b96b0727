// SPDX-License-Identifier: Apache-2.0
//! What keeps even root from deleting a file: flags of the inode, and read-only subvolumes.

use std::os::fd::AsFd;

use rustix::{
    fs::IFlags,
    io::Errno,
    ioctl::{Getter, Setter, ioctl, opcode},
};

/// The inode of every subvolume's root on btrfs.
const SUBVOLUME_ROOT: u64 = 256;
const SUBVOLUME_READ_ONLY: u64 = 1 << 1;

/// Takes protections off an open file or directory; says whether there were any.
///
/// # Errors
/// What the kernel reports, for instance that only privileged users may do it. A file system that
/// knows no protections is no error.
pub fn take_off(file: impl AsFd) -> Result<bool, Errno> {
    let writable = make_subvolume_writable(&file)?;
    let flags = match rustix::fs::ioctl_getflags(&file) {
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(writable),
        other => other?,
    };
    let protections = IFlags::IMMUTABLE | IFlags::APPEND;
    if !flags.intersects(protections) {
        return Ok(writable);
    }
    rustix::fs::ioctl_setflags(&file, flags - protections)?;
    Ok(true)
}

/// Makes a read-only subvolume of btrfs writable; says whether it was one.
fn make_subvolume_writable(file: impl AsFd) -> Result<bool, Errno> {
    if rustix::fs::fstat(&file)?.st_ino != SUBVOLUME_ROOT {
        return Ok(false);
    }
    let flags = match subvolume_flags(&file) {
        // Another file system, which has an inode of that number.
        Err(Errno::NOTTY | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => return Ok(false),
        other => other?,
    };
    if flags & SUBVOLUME_READ_ONLY == 0 {
        return Ok(false);
    }
    set_subvolume_flags(&file, flags & !SUBVOLUME_READ_ONLY)?;
    Ok(true)
}

#[expect(unsafe_code, reason = "no library wraps this call of btrfs")]
fn subvolume_flags(file: impl AsFd) -> Result<u64, Errno> {
    const GET: u32 = opcode::read::<u64>(0x94, 25);
    // SAFETY: the call of that number writes one 64-bit number.
    let call = unsafe { Getter::<GET, u64>::new() };
    // SAFETY: as above.
    unsafe { ioctl(file, call) }
}

#[expect(unsafe_code, reason = "no library wraps this call of btrfs")]
fn set_subvolume_flags(file: impl AsFd, flags: u64) -> Result<(), Errno> {
    const SET: u32 = opcode::write::<u64>(0x94, 26);
    // SAFETY: the call of that number reads one 64-bit number.
    let call = unsafe { Setter::<SET, u64>::new(flags) };
    // SAFETY: as above.
    unsafe { ioctl(file, call) }
}
