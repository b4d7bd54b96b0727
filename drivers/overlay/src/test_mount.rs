// SPDX-License-Identifier: Apache-2.0
//! Overlay mounts that exist for one test.

use std::{
    fs::{self, File},
    io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, UnmountFlags, fsconfig_create,
        fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, unmount,
    },
};

/// An overlay of directories below one directory, gone when dropped.
#[derive(Debug)]
pub(crate) enum TestMount {
    /// Attached nowhere: nothing to see for others, nothing left after a crash.
    Detached(OwnedFd),
    /// At a directory, on kernels before 5.2 and where a filter hides the newer calls.
    Attached(PathBuf),
}

impl TestMount {
    /// Mounts `lowers` and `upper` with the directory `work`, all below `dir`.
    pub(crate) fn new(
        dir: &Path,
        lowers: &[&str],
        upper: &str,
        options: &[&str],
    ) -> io::Result<Self> {
        // Paths through a descriptor: the names in a real path may need quoting.
        let ground = File::open(dir)?;
        let at = |name: &str| format!("/proc/self/fd/{}/{name}", ground.as_raw_fd());
        let lowers: Vec<String> = lowers.iter().map(|name| at(name)).collect();
        let directories = [
            ("lowerdir", lowers.join(":")),
            ("upperdir", at(upper)),
            ("workdir", at("work")),
        ];
        match detached(&directories, options) {
            Err(Errno::NOSYS | Errno::PERM) => {}
            other => return Ok(Self::Detached(other?)),
        }
        let target = dir.join("merged");
        fs::create_dir(&target)?;
        let directories = directories.map(|(key, value)| format!("{key}={value}"));
        let data: Vec<&str> = directories
            .iter()
            .map(String::as_str)
            .chain(options.iter().copied())
            .collect();
        let data = std::ffi::CString::new(data.join(",")).map_err(|_| Errno::INVAL)?;
        let shown = at("merged");
        mount(
            "overlay",
            shown,
            "overlay",
            MountFlags::empty(),
            data.as_c_str(),
        )?;
        Ok(Self::Attached(target))
    }

    /// Where its files are seen.
    pub(crate) fn path(&self) -> PathBuf {
        match self {
            Self::Detached(fd) => format!("/proc/self/fd/{}", fd.as_raw_fd()).into(),
            Self::Attached(path) => path.clone(),
        }
    }
}

impl Drop for TestMount {
    fn drop(&mut self) {
        if let Self::Attached(target) = self {
            // When it fails the mount stays, and removing the test's directory reports it.
            let _ = unmount(target.as_path(), UnmountFlags::DETACH);
        }
    }
}

fn detached(directories: &[(&str, String)], options: &[&str]) -> Result<OwnedFd, Errno> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in directories {
        fsconfig_set_string(&context, *key, value.as_str())?;
    }
    for option in options {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value)?,
            None => fsconfig_set_flag(&context, *option)?,
        }
    }
    fsconfig_create(&context)?;
    fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )
}
