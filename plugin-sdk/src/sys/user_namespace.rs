// SPDX-License-Identifier: Apache-2.0
//! User namespaces that hold id maps and no process.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io,
    os::fd::OwnedFd,
    ptr,
};

use crate::{IdMap, IdMaps};

/// What the child needs to return from one function.
const STACK: usize = 16 << 10;

/// A user namespace with `maps`; an empty list maps every id to itself.
///
/// # Behavior
/// - No process stays behind, and none that could be seen by others is started: the namespace
///   lives as long as the descriptor.
///
/// # Errors
/// `EINVAL` for maps that the kernel refuses (overlapping ranges, more than 340 of them), `EPERM`
/// without the privilege to map these ids.
pub fn with_maps(maps: &IdMaps) -> io::Result<OwnedFd> {
    let child = Child::start()?;
    // The maps of a process that has ended can be written until it is waited for.
    let proc = format!("/proc/{}", child.0);
    fs::write(format!("{proc}/uid_map"), lines(&maps.uids))?;
    fs::write(format!("{proc}/gid_map"), lines(&maps.gids))?;
    Ok(File::open(format!("{proc}/ns/user"))?.into())
}

fn lines(maps: &[IdMap]) -> String {
    if maps.is_empty() {
        return format!("0 0 {}\n", u32::MAX);
    }
    let mut text = String::new();
    for map in maps {
        let IdMap {
            container_id,
            host_id,
            size,
        } = map;
        writeln!(text, "{container_id} {host_id} {size}").expect("writing to memory does not fail");
    }
    text
}

/// A child that has ended, in a user namespace of its own.
struct Child(libc::pid_t);

impl Child {
    #[expect(unsafe_code, reason = "a child that shares memory has no safe wrapper")]
    fn start() -> io::Result<Self> {
        extern "C" fn end(_: *mut libc::c_void) -> libc::c_int {
            0
        }
        // Sharing memory spares the copy of the page tables; nobody is told of the end, so that
        // the program's own handling of children does not see it.
        let flags = libc::CLONE_NEWUSER | libc::CLONE_VM | libc::CLONE_VFORK;
        let mut stack = vec![0_u128; STACK / size_of::<u128>()];
        let top = stack.as_mut_ptr_range().end;
        // SAFETY: the child runs on memory of its own, aligned to 16 bytes as all architectures
        // want it; it touches nothing else and has ended when the call returns.
        let pid = unsafe { libc::clone(end, top.cast(), flags, ptr::null_mut()) };
        if pid < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(pid))
    }
}

impl Drop for Child {
    #[expect(
        unsafe_code,
        reason = "the wrappers do not wait for children without a signal"
    )]
    fn drop(&mut self) {
        // SAFETY: the null pointer is allowed and means that the status is not wanted.
        unsafe { libc::waitpid(self.0, ptr::null_mut(), libc::__WALL) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn maps(ranges: &[(u32, u32, u32)]) -> IdMaps {
        let list: Vec<IdMap> = ranges
            .iter()
            .map(|(container_id, host_id, size)| IdMap {
                container_id: *container_id,
                host_id: *host_id,
                size: *size,
            })
            .collect();
        IdMaps {
            uids: list.clone(),
            gids: list,
        }
    }

    #[test]
    fn lines_are_those_of_the_kernel() {
        let maps = maps(&[(0, 100_000, 10), (10, 5, 1)]);
        assert_eq!(lines(&maps.uids), "0 100000 10\n10 5 1\n");
        assert_eq!(lines(&[]), "0 0 4294967295\n");
    }

    #[test]
    fn root_namespaces_outlive_their_process() {
        let namespace = match with_maps(&maps(&[(0, 100_000, 65_536)])) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
            namespace => namespace.unwrap(),
        };
        let own = fs::read_link("/proc/self/ns/user").unwrap();
        let number = std::os::fd::AsRawFd::as_raw_fd(&namespace);
        let theirs = fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
        assert_ne!(own, theirs);
        assert!(theirs.to_string_lossy().starts_with("user:["));
        let overlapping = maps(&[(0, 100_000, 10), (5, 200_000, 10)]);
        assert!(with_maps(&overlapping).is_err());
    }
}
