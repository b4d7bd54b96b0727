// SPDX-License-Identifier: Apache-2.0
//! File systems that the suite makes for itself, on image files.

pub(crate) mod pool;
mod small;

use std::{
    fmt, fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::statfs,
};
use serde::{Deserialize, Serialize};

use crate::case::Failure;

pub(crate) use small::{Size, SmallFilesystem};

/// What `--scratch` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spec {
    /// A directory that exists.
    Directory(PathBuf),
    /// A file system of that type on an image file, with mount options.
    Loop {
        /// What `mkfs.TYPE` makes.
        fstype: String,
        /// Mount options.
        options: Vec<String>,
    },
    /// A file system in memory.
    Memory,
}

impl Spec {
    /// Whether it is a pool, whose image the kernel itself opens by name.
    ///
    /// # Behavior
    /// - The kernel's threads see no mount that was made in a mount namespace, so the image must
    ///   not lie on one.
    pub(crate) fn is_pool(&self) -> bool {
        matches!(self, Self::Loop { fstype, .. } if fstype == pool::FSTYPE)
    }
}

impl FromStr for Spec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "tmpfs" {
            return Ok(Self::Memory);
        }
        if let Some(path) = text.strip_prefix("dir:") {
            return Ok(Self::Directory(path.into()));
        }
        let Some(what) = text.strip_prefix("loop:") else {
            if text.contains('/') || Path::new(text).is_dir() {
                return Ok(Self::Directory(text.into()));
            }
            return Err(format!(
                "`{text}` is no scratch: use a directory, loop:TYPE[+OPTION...] or tmpfs"
            ));
        };
        let mut parts = what.split('+').map(str::to_owned);
        let fstype = parts.next().unwrap_or_default();
        if fstype.is_empty() || !fstype.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(format!("`{text}` names no file system type"));
        }
        Ok(Self::Loop {
            fstype,
            options: parts.collect(),
        })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => write!(f, "{}", path.display()),
            Self::Memory => f.write_str("tmpfs"),
            Self::Loop { fstype, options } => {
                write!(f, "loop:{fstype}")?;
                options.iter().try_for_each(|option| write!(f, "+{option}"))
            }
        }
    }
}

/// The file system that a case's root lies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    /// How it was asked for.
    pub spec: String,
    /// The kernel's name of its type.
    pub fstype: String,
    /// The bytes of a block.
    pub block: u64,
}

impl Backing {
    /// Looks at the file system under `path`.
    ///
    /// # Errors
    /// What the kernel reports.
    pub fn of(spec: &str, path: &Path) -> io::Result<Self> {
        let stat = statfs(path)?;
        Ok(Self {
            spec: spec.to_owned(),
            fstype: type_name(stat.filesystem_type().0),
            block: u64::try_from(stat.block_size()).unwrap_or(0),
        })
    }
}

/// Names of `statfs(2)`'s magic numbers, as in the kernel's `linux/magic.h`.
fn type_name(magic: nix::libc::__fsword_t) -> String {
    let name = match magic {
        0xef53 => "ext4",
        0x5846_5342 => "xfs",
        0x9123_683e => "btrfs",
        0x0102_1994 => "tmpfs",
        0x794c_7630 => "overlay",
        0x6573_5546 => "fuse",
        0x2fc1_2fc1 => "zfs",
        other => return format!("{other:#x}"),
    };
    name.to_owned()
}

/// A scratch that is ready: a directory with enough room, or several that are alike.
#[derive(Debug)]
pub struct Scratch {
    /// What it is.
    pub backing: Backing,
    spec: Spec,
    places: Vec<Place>,
}

/// Where cases get their roots.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    mounted: Option<Mounted>,
}

impl Place {
    fn make(spec: &Spec, work: &Path, number: usize) -> Result<Self, ScratchError> {
        let failed = |error: io::Error| ScratchError::Failed(format!("{spec}: {error}"));
        let (path, mounted) = match spec {
            Spec::Directory(path) => {
                if !path.is_dir() {
                    return Err(ScratchError::Failed(format!(
                        "`{}` is no directory",
                        path.display()
                    )));
                }
                (path.canonicalize().map_err(failed)?, None)
            }
            Spec::Memory => {
                let point = work.join("scratch-tmpfs");
                let mounted = Mounted::memory(&point, "mode=0755").map_err(failed)?;
                (point, Some(mounted))
            }
            Spec::Loop { fstype, options } => {
                let name = spec.to_string().replace(':', "-");
                let point = work.join(format!("scratch-{name}-{number}"));
                let image = image_beside(&point);
                let mounted = Mounted::image(fstype, options, 16 << 30, &point, image)?;
                (point, Some(mounted))
            }
        };
        Ok(Self { path, mounted })
    }
}

/// Why there is no scratch.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The machine lacks a tool or a file system.
    #[error("{0}")]
    Unavailable(String),
    /// It should have worked.
    #[error("{0}")]
    Failed(String),
}

impl Scratch {
    /// Makes what `spec` names; image files go to `work`.
    ///
    /// # Errors
    /// [`ScratchError`].
    pub fn make(spec: &Spec, work: &Path) -> Result<Self, ScratchError> {
        let place = Place::make(spec, work, 0)?;
        let backing = Backing::of(&spec.to_string(), &place.path)
            .map_err(|error| ScratchError::Failed(format!("{spec}: {error}")))?;
        Ok(Self {
            backing,
            spec: spec.clone(),
            places: vec![place],
        })
    }

    /// Makes more file systems of the kind until each of `jobs` cases at once has one for itself.
    ///
    /// # Behavior
    /// - What one case makes durable then costs nothing of what others have written: a btrfs that
    ///   eight cases share takes more than twice as long.
    /// - Memory, directories and pools stay shared: they gain nothing, or cost more than that.
    ///
    /// # Errors
    /// [`ScratchError`]; what could be made is used.
    pub fn widen(&mut self, jobs: usize, work: &Path) -> Result<(), ScratchError> {
        match &self.spec {
            Spec::Loop { .. } if !self.spec.is_pool() => {}
            _ => return Ok(()),
        }
        let spec = &self.spec;
        let made: Vec<_> = thread::scope(|scope| {
            let makers: Vec<_> = (self.places.len()..jobs)
                .map(|number| scope.spawn(move || Place::make(spec, work, number)))
                .collect();
            let failed = |_| Err(ScratchError::Failed(format!("{spec}: a thread panicked")));
            let made = makers
                .into_iter()
                .map(|it| it.join().unwrap_or_else(failed));
            made.collect()
        });
        let mut result = Ok(());
        for place in made {
            match place {
                Ok(place) => self.places.push(place),
                Err(error) => result = Err(error),
            }
        }
        result
    }

    /// Where the cases of one of the jobs get their roots.
    #[must_use]
    pub fn path(&self, job: usize) -> &Path {
        &self.places[job % self.places.len()].path
    }

    /// Whether it lies on an image file.
    pub(crate) fn has_image(&self) -> bool {
        matches!(self.spec, Spec::Loop { .. })
    }

    /// Whether the suite made it.
    pub fn is_own(&self) -> bool {
        self.places.iter().all(|place| place.mounted.is_some())
    }
}

/// A case that cannot have its file system.
fn without(error: ScratchError) -> Failure {
    match error {
        ScratchError::Unavailable(text) => Failure::not_run(text),
        ScratchError::Failed(text) => Failure::harness(text),
    }
}

/// A mount that goes away with this value; the kernel detaches its loop device with it.
#[derive(Debug)]
pub(crate) struct Mounted {
    point: PathBuf,
    image: Option<PathBuf>,
    /// The pool that is on the image.
    pool: Option<String>,
}

impl Mounted {
    pub(crate) fn memory(point: &Path, options: &str) -> io::Result<Self> {
        fs::create_dir_all(point)?;
        mount(
            Some("tmpfs"),
            point,
            Some("tmpfs"),
            MsFlags::empty(),
            Some(options),
        )?;
        Ok(Self {
            point: point.to_owned(),
            image: None,
            pool: None,
        })
    }

    fn image(
        fstype: &str,
        options: &[String],
        bytes: u64,
        point: &Path,
        image: PathBuf,
    ) -> Result<Self, ScratchError> {
        let failed = |what: &str, error: &dyn fmt::Display| {
            ScratchError::Failed(format!("{what} {fstype} on a loop device: {error}"))
        };
        fs::create_dir_all(point).map_err(|error| failed("preparing", &error))?;
        let file = fs::File::create(&image).map_err(|error| failed("preparing", &error))?;
        file.set_len(bytes)
            .map_err(|error| failed("preparing", &error))?;
        let pool = if fstype == pool::FSTYPE {
            Some(pool::create(&image, point, options)?)
        } else {
            make_filesystem(fstype, &image)?;
            mount_image(fstype, options, &image, point)?;
            None
        };
        let mounted = Self {
            point: point.to_owned(),
            image: Some(image),
            pool,
        };
        fs::set_permissions(point, fs::Permissions::from_mode(0o755))
            .map_err(|error| failed("preparing", &error))?;
        Ok(mounted)
    }
}

/// The usual place of the image of what is mounted at `point`.
fn image_beside(point: &Path) -> PathBuf {
    let mut image = point.to_owned().into_os_string();
    image.push(".img");
    PathBuf::from(image)
}

/// Whether an image lies in memory, which what is removed on it must give back.
fn is_in_memory(image: &Path) -> bool {
    let below = image.parent().unwrap_or(image);
    statfs(below).is_ok_and(|stat| type_name(stat.filesystem_type().0) == "tmpfs")
}

fn mount_image(
    fstype: &str,
    options: &[String],
    image: &Path,
    point: &Path,
) -> Result<(), ScratchError> {
    let failed = |error: &dyn fmt::Display| {
        ScratchError::Failed(format!("mounting {fstype} on a loop device: {error}"))
    };
    let mut list = vec!["loop".to_owned()];
    if is_in_memory(image) {
        list.push("discard".to_owned());
    }
    list.extend(options.iter().cloned());
    let output = Command::new("mount")
        .args(["-t", fstype, "-o", &list.join(",")])
        .args([image, point])
        .output()
        .map_err(|error| failed(&error))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("unknown filesystem") {
        return Err(ScratchError::Unavailable(format!(
            "the kernel has no {fstype}: load its module"
        )));
    }
    Err(failed(&text.trim()))
}

fn make_filesystem(fstype: &str, image: &Path) -> Result<(), ScratchError> {
    let quiet: &[&str] = match fstype {
        "ext4" => &["-q", "-F", "-E", "lazy_itable_init=1,nodiscard"],
        "btrfs" => &["-q", "--nodiscard"],
        _ => &["-q"],
    };
    let tool = format!("mkfs.{fstype}");
    let output = Command::new(&tool).args(quiet).arg(image).output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ScratchError::Unavailable(format!(
                "there is no `{tool}`: install the package that has it"
            )));
        }
        output => output.map_err(|error| ScratchError::Failed(format!("{tool}: {error}")))?,
    };
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ScratchError::Failed(format!("{tool}: {text}")))
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // A case's process may have left it busy; its name must go away in any case, and the
        // mount namespace that holds the rest ends with this process.
        let _gone = umount2(&self.point, MntFlags::MNT_DETACH);
        if let Some(pool) = &self.pool {
            let _destroyed = pool::destroy(pool);
        }
        if let Some(image) = &self.image {
            let _removed = fs::remove_file(image);
        }
        let _removed = fs::remove_dir(&self.point);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn scratch_specifications_are_read_and_written() {
        for text in ["/var/tmp", "loop:ext4", "loop:xfs+pquota", "tmpfs"] {
            assert_eq!(text.parse::<Spec>().unwrap().to_string(), text);
        }
        assert_eq!("dir:/x".parse(), Ok(Spec::Directory("/x".into())));
        for text in ["", "nonsense-that-is-no-directory", "loop:", "loop:a b"] {
            assert!(text.parse::<Spec>().is_err(), "{text}");
        }
    }

    #[test]
    fn root_each_job_has_a_file_system_for_itself_which_goes_away_with_the_scratch() {
        let place = tempfile::tempdir().unwrap();
        let spec: Spec = "loop:ext4".parse().unwrap();
        let mut scratch = Scratch::make(&spec, place.path()).unwrap();
        scratch.widen(3, place.path()).unwrap();
        let device = |job| fs::metadata(scratch.path(job)).unwrap().dev();
        assert_ne!(device(0), device(1));
        assert_ne!(device(1), device(2));
        assert_eq!(device(0), device(3));
        drop(scratch);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);

        let mut scratch =
            Scratch::make(&Spec::Directory(place.path().into()), place.path()).unwrap();
        scratch.widen(3, place.path()).unwrap();
        assert_eq!(scratch.path(0), scratch.path(2));
    }

    #[test]
    fn root_what_could_be_made_is_used_when_the_rest_could_not() {
        let place = tempfile::tempdir().unwrap();
        let spec: Spec = "loop:ext4".parse().unwrap();
        let mut scratch = Scratch::make(&spec, place.path()).unwrap();
        fs::write(place.path().join("scratch-loop-ext4-2"), "in the way").unwrap();
        scratch.widen(3, place.path()).unwrap_err();
        assert_ne!(scratch.path(0), scratch.path(1));
        assert_eq!(scratch.path(0), scratch.path(2));
    }
}
