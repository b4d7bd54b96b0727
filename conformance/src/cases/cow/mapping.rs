// SPDX-License-Identifier: Apache-2.0
//! A file in memory.
#![expect(unsafe_code, reason = "mmap has no safe form")]

use std::{fs::File, io, os::fd::AsRawFd as _, ptr};

/// A shared, readable mapping of a file's first bytes.
pub(super) struct Mapping {
    start: *mut libc::c_void,
    length: usize,
}

impl Mapping {
    /// Maps `length` bytes, which the file has and keeps.
    pub(super) fn shared(file: &File, length: usize) -> io::Result<Self> {
        // SAFETY: the kernel chooses the place, so nothing that is in use is replaced.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start, length })
    }

    /// What it shows now, as text.
    pub(super) fn text(&self) -> String {
        let start = self.start.cast::<u8>();
        let bytes = (0..self.length).map(|offset| {
            // SAFETY: `offset` is below the length that was mapped.
            let byte = unsafe { start.add(offset) };
            // SAFETY: the place is mapped as long as `self` lives; others change it through the
            // file, hence volatile.
            unsafe { byte.read_volatile() }
        });
        String::from_utf8_lossy(&bytes.collect::<Vec<_>>()).into_owned()
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this is the place that was mapped, and nothing refers to it any more.
        let done = unsafe { libc::munmap(self.start, self.length) };
        debug_assert_eq!(done, 0, "the place is mapped");
    }
}
