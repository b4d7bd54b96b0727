// SPDX-License-Identifier: Apache-2.0
//! Overlay mounts that exist for one test.

use std::{
    ffi::CString,
    fs, io,
    os::fd::{AsRawFd, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags},
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
        match Self::detached(dir, lowers, upper, options) {
            Err(Errno::NOSYS | Errno::PERM) => Self::attached(dir, lowers, upper, options),
            other => Ok(other?),
        }
    }

    fn detached(dir: &Path, lowers: &[&str], upper: &str, options: &[&str]) -> Result<Self, Errno> {
        let ground = Ground::open(dir)?;
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in ground.directories(lowers, upper) {
            fsconfig_set_string(&context, key, value)?;
        }
        for option in options {
            match option.split_once('=') {
                Some((key, value)) => fsconfig_set_string(&context, key, value)?,
                None => fsconfig_set_flag(&context, *option)?,
            }
        }
        fsconfig_create(&context)?;
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        fsmount(&context, flags, MountAttrFlags::empty()).map(Self::Detached)
    }

    fn attached(dir: &Path, lowers: &[&str], upper: &str, options: &[&str]) -> io::Result<Self> {
        let ground = Ground::open(dir)?;
        let target = dir.join("merged");
        fs::create_dir(&target)?;
        let directories = ground.directories(lowers, upper);
        let mut data: Vec<String> = directories
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        data.extend(options.iter().map(|&option| option.to_owned()));
        let data = CString::new(data.join(",")).map_err(|_| Errno::INVAL)?;
        let (flags, shown) = (MountFlags::empty(), ground.path("merged"));
        mount("overlay", shown, "overlay", flags, data.as_c_str())?;
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

/// The directory of a test, through a descriptor: the names in a real path may need quoting.
struct Ground(OwnedFd);

impl Ground {
    fn open(dir: &Path) -> Result<Self, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(dir, flags, Mode::empty()).map(Self)
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/self/fd/{}/{name}", self.0.as_raw_fd())
    }

    fn directories(&self, lowers: &[&str], upper: &str) -> [(&'static str, String); 3] {
        let lowers: Vec<String> = lowers.iter().map(|name| self.path(name)).collect();
        [
            ("lowerdir", lowers.join(":")),
            ("upperdir", self.path(upper)),
            ("workdir", self.path("work")),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type New = fn(&Path, &[&str], &str, &[&str]) -> io::Result<TestMount>;

    #[test]
    fn root_both_ways_show_the_same_and_leave_nothing() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let detached: New =
            |dir, lowers, upper, options| Ok(TestMount::detached(dir, lowers, upper, options)?);
        for new in [detached, TestMount::attached] {
            let root = tempfile::tempdir().unwrap();
            let dir = root.path().join("a:b,c\\d e");
            for name in ["one", "two/sub", "upper", "work"] {
                fs::create_dir_all(dir.join(name)).unwrap();
            }
            let mount = new(&dir, &["one", "two"], "upper", &["volatile"]).unwrap();
            assert!(mount.path().join("sub").is_dir());
            fs::write(mount.path().join("file"), "x").unwrap();
            drop(mount);
            assert_eq!(fs::read(dir.join("upper/file")).unwrap(), b"x");
            let error = new(&dir, &["nothing"], "upper", &[]).unwrap_err();
            assert!(error.raw_os_error().is_some(), "{error}");
            fs::remove_dir_all(&dir).unwrap();
        }
    }
}
