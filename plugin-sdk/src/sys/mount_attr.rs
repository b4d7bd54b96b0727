// SPDX-License-Identifier: Apache-2.0
//! Attributes of a mount that is not attached yet, by `mount_setattr(2)`.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use rustix::mount::MountAttrFlags;

/// The kernel's argument.
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

/// Adds `attributes` to the mount that `mount` is the root of, as `open_tree(2)` returns it.
///
/// # Errors
/// `ENOSYS` before Linux 5.12.
pub fn add(mount: impl AsFd, attributes: MountAttrFlags) -> io::Result<()> {
    let argument = MountAttr {
        set: u64::from(attributes.bits()),
        clear: 0,
        propagation: 0,
        userns: 0,
    };
    set(mount, &argument)
}

/// Shows the files of the mount with the ids that `namespace` gives them: an id on disk is one
/// inside the user namespace.
///
/// # Errors
/// `EINVAL` where the file system cannot be shown so, `ENOSYS` before Linux 5.12.
pub fn map_ids(mount: impl AsFd, namespace: impl AsFd) -> io::Result<()> {
    let descriptor = namespace.as_fd().as_raw_fd();
    let argument = MountAttr {
        set: u64::from(MountAttrFlags::MOUNT_ATTR_IDMAP.bits()),
        clear: 0,
        propagation: 0,
        userns: u64::from(descriptor.unsigned_abs()),
    };
    set(mount, &argument)
}

#[expect(unsafe_code, reason = "no library wraps this system call")]
fn set(mount: impl AsFd, argument: &MountAttr) -> io::Result<()> {
    // SAFETY: the path is a terminated string, the argument is of the size that is given, and the
    // kernel only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_fd().as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            std::ptr::from_ref(argument),
            size_of::<MountAttr>(),
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_answers_for_a_descriptor_that_is_no_mount() {
        let file = tempfile::tempfile().unwrap();
        let error = add(&file, MountAttrFlags::MOUNT_ATTR_RDONLY).unwrap_err();
        let number = error.raw_os_error().unwrap();
        assert!(
            [libc::EINVAL, libc::EPERM, libc::ENOSYS].contains(&number),
            "{error}"
        );
    }
}
