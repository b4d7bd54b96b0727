// SPDX-License-Identifier: Apache-2.0
//! What the kernel and the file system of the home can do, found by test mounts and remembered in
//! the run directory until the next boot.
//!
//! # Compatibility
//! The tests and the names of the files are those of containers/storage, `drivers/overlay/check.go`
//! and `cachedFeatureRecord`, so either tool uses what the other has found.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{DriverError, DriverErrorCode, IoContext, Result, toolkit::TempDir};
use rustix::{
    fs::{CWD, FileType, Mode, XattrFlags},
    io::Errno,
};

use crate::{backing::Backing, test_mount::TestMount};

/// What is tested in one home.
#[derive(Debug)]
pub(crate) struct Probe<'a> {
    pub(crate) home: &'a Path,
    pub(crate) run_dir: &'a Path,
    pub(crate) backing: Backing,
    /// `mountopt` as configured.
    pub(crate) mount_options: &'a str,
    pub(crate) userxattr: bool,
}

/// An answer that a file in the run directory gives.
type Remembered = (bool, String);

fn remembered(run_dir: &Path, feature: &str) -> Option<Remembered> {
    [true, false].into_iter().find_map(|answer| {
        let text = fs::read(run_dir.join(format!("{feature}-{answer}"))).ok()?;
        Some((answer, String::from_utf8_lossy(&text).into_owned()))
    })
}

fn remember(run_dir: &Path, feature: &str, answer: bool, text: &str) -> Result<()> {
    let name = format!("{feature}-{answer}");
    // Options may hold what no file name can; such an answer is found anew each time.
    if name.contains('/') || name.len() > 255 {
        return Ok(());
    }
    let path = run_dir.join(name);
    fs::write(&path, text).at("cannot write", &path)
}

/// A directory for one test, removed with everything in it; after a crash, by whoever opens the
/// store next.
struct Ground {
    place: TempDir,
    dir: PathBuf,
}

impl Ground {
    fn new(home: &Path, dirs: &[&str]) -> Result<Self> {
        let mut place = TempDir::create(&home.join("tempdirs"))?;
        let dir = place.addition();
        for sub in std::iter::once("").chain(dirs.iter().copied()) {
            let path = dir.join(sub);
            fs::create_dir(&path).at("cannot create", &path)?;
        }
        Ok(Self { place, dir })
    }

    fn mount(&self, lowers: &[&str], upper: &str, options: &[&str]) -> io::Result<TestMount> {
        TestMount::new(&self.dir, lowers, upper, options)
    }

    fn end(self) -> Result<()> {
        self.place.close()
    }
}

impl Probe<'_> {
    /// Refuses when overlay does not work on the home.
    pub(crate) fn overlay(&self) -> Result<()> {
        const FEATURE: &str = "overlay";
        match remembered(self.run_dir, FEATURE) {
            Some((true, _)) => return Ok(()),
            Some((false, text)) => {
                let path = self.run_dir.join("overlay-false");
                return Err(
                    DriverError::new(DriverErrorCode::INCOMPATIBLE_FILESYSTEM, text)
                        .object(self.home.display().to_string())
                        .remedy(format!(
                            "remove `{}` to test again, or set `mount_program` to fuse-overlayfs",
                            path.display()
                        )),
                );
            }
            None => {}
        }
        let tested = self.test_overlay();
        match &tested {
            Ok(()) => remember(self.run_dir, FEATURE, true, "")?,
            // These say nothing about the kernel.
            Err(error) if !error.means_unsuitable() => {}
            Err(error) => remember(self.run_dir, FEATURE, false, &error.message)?,
        }
        tested
    }

    fn test_overlay(&self) -> Result<()> {
        let ground = Ground::new(
            self.home,
            &["lower1", "lower2", "lower2/subdir", "upper", "work"],
        )?;
        let tested = self.test_overlay_on(&ground);
        ground.end()?;
        tested
    }

    fn test_overlay_on(&self, ground: &Ground) -> Result<()> {
        let name = self.backing.name();
        if !has_d_type(&ground.dir)? {
            let message = format!(
                "overlay: the backing {name} filesystem is formatted without d_type support, \
                 which leads to incorrect behavior"
            );
            return Err(self.incompatible(message).remedy(match name {
                "xfs" => "reformat the filesystem with `mkfs.xfs -n ftype=1`, or use vfs",
                _ => "move the graph root to another filesystem, or use vfs",
            }));
        }
        let file = ground.dir.join("lower2/subdir/file");
        fs::write(&file, b"").at("cannot write", &file)?;
        let whiteout = ground.dir.join("upper/whiteout");
        rustix::fs::mknodat(
            CWD,
            &whiteout,
            FileType::CharacterDevice,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .map_err(|error| {
            let text = format!("unable to create kernel-style whiteout: {error}");
            self.incompatible(text)
        })?;
        match ground.mount(&["lower1", "lower2"], "upper", &self.own_options()) {
            Ok(mount) => {
                let gone = mount.path().join("subdir");
                fs::remove_dir_all(&gone).map_err(|error| {
                    let text = format!(
                        "kernel returned `{error}` when we tried to delete an item in the merged directory"
                    );
                    self.incompatible(text)
                })?;
                // The kernel must have written the form that exports understand.
                let left = ground.dir.join("upper/subdir");
                let found = fs::symlink_metadata(&left).at("cannot stat", &left)?;
                if !found.file_type().is_char_device() || found.rdev() != 0 {
                    let text = "the kernel does not write whiteouts as devices".to_owned();
                    return Err(self.incompatible(text));
                }
                Ok(())
            }
            Err(error) if error.raw_os_error() == Some(Errno::NODEV.raw_os_error()) => {
                let text = "'overlay' not found as a supported filesystem on this host. Please \
                            ensure kernel is new enough and has overlay support loaded.";
                Err(DriverError::new(DriverErrorCode::PREREQUISITES, text)
                    .remedy("run `modprobe overlay`, or install fuse-overlayfs"))
            }
            Err(error) => {
                let home = self.home.display();
                let text = format!("'overlay' is not supported over {name} at \"{home}\": {error}");
                Err(self.incompatible(text).remedy(
                    "set `mount_program` to fuse-overlayfs, or move the graph root to another filesystem",
                ))
            }
        }
    }

    fn incompatible(&self, message: String) -> DriverError {
        DriverError::new(DriverErrorCode::INCOMPATIBLE_FILESYSTEM, message)
            .object(self.home.display().to_string())
    }

    fn own_options(&self) -> Vec<&str> {
        self.userxattr.then_some("userxattr").into_iter().collect()
    }

    /// The configured options, without those that are flags of the mount.
    fn all_options(&self) -> Vec<&str> {
        let mut options = self.own_options();
        let configured = self.mount_options.split(',').map(str::trim);
        options.extend(configured.filter(|one| !one.is_empty() && !crate::mount::is_flag(one)));
        options
    }

    fn xattr(&self, name: &str) -> String {
        let prefix = if self.userxattr { "user" } else { "trusted" };
        format!("{prefix}.overlay.{name}")
    }

    /// Whether a change of attributes alone leaves the data below, with the configured options.
    pub(crate) fn metacopy(&self) -> Result<bool> {
        let feature = format!("metacopy({})", self.mount_options);
        if let Some((answer, _)) = remembered(self.run_dir, &feature) {
            return Ok(answer);
        }
        let ground = Ground::new(self.home, &["l1", "l2", "work"])?;
        let tested = self.test_metacopy(&ground);
        ground.end()?;
        let answer = tested?;
        remember(self.run_dir, &feature, answer, "")?;
        Ok(answer)
    }

    fn test_metacopy(&self, ground: &Ground) -> Result<bool> {
        let file = ground.dir.join("l1/f");
        fs::write(&file, [0xff]).at("cannot write", &file)?;
        fs::set_permissions(&file, PermissionsExt::from_mode(0o700)).at("cannot change", &file)?;
        let mount = match ground.mount(&["l1"], "l2", &self.all_options()) {
            Ok(mount) => mount,
            // An option that this kernel does not know: nothing of it is in effect.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                return Ok(false);
            }
            Err(error) => {
                let text = format!(
                    "failed to mount overlay for metacopy check with \"{}\" options: {error}",
                    self.mount_options
                );
                return Err(DriverError::new(DriverErrorCode::IO, text)
                    .object(self.mount_options)
                    .remedy("correct `mountopt` in storage.conf"));
            }
        };
        let shown = mount.path().join("f");
        fs::set_permissions(&shown, PermissionsExt::from_mode(0o600))
            .at("cannot change", &shown)?;
        let copy = ground.dir.join("l2/f");
        match get_xattr(&copy, &self.xattr("metacopy")) {
            Ok(mark) => Ok(mark.is_some()),
            Err(error) => Err(error).at("cannot read attributes of", &copy),
        }
    }

    /// Why `diff` cannot be read as the layer's changes, with the configured options; `None` when
    /// it can.
    pub(crate) fn native_diff(&self) -> Result<Option<String>> {
        let feature = format!("native-diff({})", self.mount_options);
        if let Some((answer, text)) = remembered(self.run_dir, &feature) {
            return Ok((!answer).then_some(text));
        }
        let dirs = ["l1", "l1/d", "l1/d1", "l2", "l2/d", "l3", "work"];
        let ground = Ground::new(self.home, &dirs)?;
        let tested = self.test_native_diff(&ground);
        ground.end()?;
        let text = tested?.map(|reason| {
            format!(
                "Not using native diff for overlay, this may cause degraded performance for \
                 building images: {reason}"
            )
        });
        remember(
            self.run_dir,
            &feature,
            text.is_none(),
            text.as_deref().unwrap_or_default(),
        )?;
        Ok(text)
    }

    fn test_native_diff(&self, ground: &Ground) -> Result<Option<String>> {
        let below = ground.dir.join("l2/d");
        let opaque = self.xattr("opaque");
        rustix::fs::setxattr(&below, &opaque, b"y", XattrFlags::empty())
            .at("cannot mark as opaque", &below)?;
        let mount = match ground.mount(&["l2", "l1"], "l3", &self.all_options()) {
            Ok(mount) => mount,
            Err(error) => return Ok(Some(format!("failed to mount overlay: {error}"))),
        };
        let file = mount.path().join("d/f");
        fs::write(&file, b"").at("cannot write", &file)?;
        let copy = ground.dir.join("l3/d");
        if get_xattr(&copy, &opaque)
            .at("cannot read attributes of", &copy)?
            .as_deref()
            == Some(b"y")
        {
            let text =
                "opaque flag erroneously copied up, consider update to kernel 4.8 or later to fix";
            return Ok(Some(text.to_owned()));
        }
        let renamed = fs::rename(mount.path().join("d1"), mount.path().join("d2"));
        match renamed {
            Ok(()) => {}
            // Renames of lower directories are left to user space: the changes are whole.
            Err(error) if error.raw_os_error() == Some(Errno::XDEV.raw_os_error()) => {
                return Ok(None);
            }
            Err(error) => {
                return Ok(Some(format!(
                    "failed to rename dir in merged directory: {error}"
                )));
            }
        }
        let copy = ground.dir.join("l3/d2");
        let redirect =
            get_xattr(&copy, &self.xattr("redirect")).at("cannot read attributes of", &copy)?;
        Ok(redirect.map(|_| "kernel has CONFIG_OVERLAY_FS_REDIRECT_DIR enabled".to_owned()))
    }

    /// Whether layers can be shown with other owners, if that was found out before.
    ///
    /// The test needs a user namespace; containers/storage does it when it mounts for one.
    pub(crate) fn known_shifting(run_dir: &Path) -> Option<bool> {
        remembered(run_dir, "idmapped-lower-dir").map(|(answer, _)| answer)
    }

    /// Whether the mount option `volatile` is understood.
    pub(crate) fn volatile(&self) -> Result<bool> {
        const FEATURE: &str = "volatile";
        if let Some((answer, _)) = remembered(self.run_dir, FEATURE) {
            return Ok(answer);
        }
        let ground = Ground::new(self.home, &["lower", "upper", "work"])?;
        let mut options = self.own_options();
        options.push("volatile");
        let answer = ground.mount(&["lower"], "upper", &options).is_ok();
        ground.end()?;
        remember(self.run_dir, FEATURE, answer, "")?;
        Ok(answer)
    }
}

/// An extended attribute; `None` when it is not set or the file system has none.
fn get_xattr(path: &Path, name: &str) -> io::Result<Option<Vec<u8>>> {
    let mut value = vec![0; 256];
    match rustix::fs::lgetxattr(path, name, &mut value) {
        Ok(size) => {
            value.truncate(size);
            Ok(Some(value))
        }
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether reading a directory tells the types of its entries, which the kernel's overlay needs.
fn has_d_type(dir: &Path) -> Result<bool> {
    let opened = rustix::fs::open(
        dir,
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC,
        Mode::empty(),
    )
    .at("cannot open", dir)?;
    for entry in rustix::fs::Dir::new(opened).at("cannot read", dir)? {
        if entry.at("cannot read", dir)?.file_type() == FileType::Unknown {
            return Ok(false);
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_remembered_with_their_text() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(remembered(dir.path(), "native-diff(nodev)"), None);
        remember(dir.path(), "native-diff(nodev)", false, "why").unwrap();
        assert!(dir.path().join("native-diff(nodev)-false").exists());
        let answer = remembered(dir.path(), "native-diff(nodev)");
        assert_eq!(answer, Some((false, "why".to_owned())));
        remember(dir.path(), "metacopy(context=/x)", true, "").unwrap();
        assert_eq!(remembered(dir.path(), "metacopy(context=/x)"), None);
    }

    #[test]
    fn directories_tell_types() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(has_d_type(dir.path()).unwrap());
    }
}
