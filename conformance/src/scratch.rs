// SPDX-License-Identifier: Apache-2.0
//! File systems that the suite makes for itself, on image files.

pub(crate) mod pool;

use std::{
    fmt, fs, io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    str::FromStr,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::statfs::statfs,
};
use serde::{Deserialize, Serialize};

use crate::{Site, case::Failure};

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

/// How much room a small file system has.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub(crate) u64);

impl Size {
    pub(crate) const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }
}

/// A file system of a case's own, to be filled, made read-only or cut off.
#[derive(Debug)]
pub(crate) struct SmallFilesystem {
    mounted: Mounted,
    fstype: String,
}

impl SmallFilesystem {
    /// Makes one of the type under the case's root, or in memory where that type has no `mkfs`.
    pub(crate) fn make(site: &Site, size: Size) -> Result<Self, Failure> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let point = site.root.join(format!("small-{number}"));
        Self::of_type(site, &site.backing.fstype, &point, size)
    }

    /// Makes one on an image file, also where the case's root is in memory.
    pub(crate) fn on_disk(site: &Site, size: Size) -> Result<Self, Failure> {
        let fstype = match site.backing.fstype.as_str() {
            known @ ("ext4" | "xfs" | "btrfs" | "zfs") => known,
            _ => "ext4",
        };
        Self::of_type(site, fstype, &site.root.join("disk"), size)
    }

    fn of_type(site: &Site, fstype: &str, point: &Path, size: Size) -> Result<Self, Failure> {
        let mounted = match fstype {
            "ext4" | "xfs" | "btrfs" | "zfs" => {
                // What mkfs.xfs and mkfs.btrfs ask for at least.
                let least = match fstype {
                    "xfs" => 300 << 20,
                    "btrfs" => 128 << 20,
                    "zfs" => pool::LEAST,
                    _ => 8 << 20,
                };
                let image = match image_beside(point) {
                    // The kernel opens it on its own, and sees no mounts of the case's.
                    beside if fstype == "zfs" => {
                        let shown = beside.file_name().unwrap_or_default();
                        site.messages.with_file_name(shown)
                    }
                    beside => beside,
                };
                Mounted::image(fstype, &[], size.0.max(least), point, image).map_err(without)?
            }
            _ => Mounted::memory(point, &format!("mode=0755,size={}", size.0))?,
        };
        Ok(Self {
            mounted,
            fstype: fstype.to_owned(),
        })
    }

    /// Where it is mounted.
    pub(crate) fn mount_point(&self) -> &Path {
        &self.mounted.point
    }

    /// Its type.
    pub(crate) fn fstype(&self) -> &str {
        &self.fstype
    }

    /// Its image file, when it has one.
    pub(crate) fn image(&self) -> Option<&Path> {
        self.mounted.image.as_deref()
    }

    /// Takes all room but `leave` bytes, with a file outside the store.
    pub(crate) fn fill(&self, leave: u64) -> io::Result<()> {
        use io::Write as _;
        let mut file = fs::File::create(self.filler())?;
        let mut chunk: usize = 1 << 20;
        let block = vec![0xa5_u8; chunk];
        while chunk >= 4096 {
            if self.room()? < leave + chunk as u64 {
                chunk /= 4;
                continue;
            }
            match file
                .write_all(&block[..chunk])
                .and_then(|()| file.sync_data())
            {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => chunk /= 4,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives the room back that [`Self::fill`] took.
    pub(crate) fn unfill(&self) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let taken = fs::metadata(self.filler())?.blocks() * 512;
        let before = self.room()?;
        fs::remove_file(self.filler())?;
        nix::unistd::syncfs(fs::File::open(self.mount_point())?)?;
        let Some(pool) = &self.mounted.pool else {
            return Ok(());
        };
        pool::settle(pool, || Ok(self.room()? >= before + taken / 2))
    }

    /// How many bytes may be written.
    fn room(&self) -> io::Result<u64> {
        let stat = nix::sys::statvfs::statvfs(self.mount_point())?;
        Ok(stat.blocks_available() * stat.fragment_size())
    }

    fn filler(&self) -> PathBuf {
        self.mount_point().join("filler")
    }

    /// Keeps what is on its disk at this moment: what a power cut now would leave.
    ///
    /// # Behavior
    /// - What was written and has not reached the disk is not in it.
    pub(crate) fn keep_disk(&self) -> io::Result<()> {
        let image = self.on_image()?;
        for _ in 0..64 {
            let before = fs::metadata(image)?.modified()?;
            copy_sparse(image, &kept(image))?;
            // The kernel writes back on its own time; a copy that was made meanwhile is no moment.
            if fs::metadata(image)?.modified()? == before {
                return Ok(());
            }
        }
        Err(io::Error::other("the disk does not come to rest"))
    }

    /// Starts from what [`Self::keep_disk`] kept, as after a power cut; nothing may be open on it.
    pub(crate) fn power_up(&self) -> Result<(), Failure> {
        let image = self.on_image()?;
        let point = self.mount_point();
        let mut mounts = plywood::sdk::toolkit::mountinfo::mounts()?;
        // The innermost first.
        while let Some(mount) = mounts.pop() {
            if mount.target.starts_with(point) {
                umount2(&mount.target, MntFlags::empty())?;
            }
        }
        if let Some(pool) = &self.mounted.pool {
            pool::export(pool)?;
            fs::rename(kept(image), image)?;
            return Ok(pool::import(pool, image)?);
        }
        fs::rename(kept(image), image)?;
        mount_image(&self.fstype, &[], image, point).map_err(without)
    }

    fn on_image(&self) -> io::Result<&Path> {
        let image = self.image();
        image.ok_or_else(|| io::Error::other("a file system in memory has no disk"))
    }

    /// Makes it answer everything with an error from now on, as a disk that is pulled out.
    ///
    /// What was written before is on the disk; ext4 and xfs can do this.
    #[expect(unsafe_code, reason = "no library wraps this call")]
    pub(crate) fn cut_off(&self) -> io::Result<()> {
        const SHUTDOWN: u32 = rustix::ioctl::opcode::read::<u32>(b'X', 125);
        const WITHOUT_FLUSH: u32 = 2;
        let root = fs::File::open(self.mount_point())?;
        nix::unistd::syncfs(&root)?;
        // SAFETY: the call of that number reads one 32-bit number.
        let call = unsafe { rustix::ioctl::Setter::<SHUTDOWN, u32>::new(WITHOUT_FLUSH) };
        // SAFETY: as above.
        unsafe { rustix::ioctl::ioctl(&root, call) }?;
        Ok(())
    }

    /// Unmounts it, with what a driver left mounted in it; the image stays.
    pub(crate) fn unmount(&self) -> io::Result<()> {
        let table = fs::read_to_string("/proc/self/mountinfo")?;
        let point = fs::canonicalize(self.mount_point())
            .or_else(|_| std::path::absolute(self.mount_point()))?;
        let places = table.lines().filter_map(|line| line.split(' ').nth(4));
        let below = places.filter(|place| Path::new(place).starts_with(&point));
        for place in below.collect::<Vec<_>>().into_iter().rev() {
            if Path::new(place) != point {
                umount2(place, MntFlags::MNT_DETACH)?;
            }
        }
        // The kernel may still be closing what was open.
        let mut patience = 100;
        if let Some(pool) = &self.mounted.pool {
            while let Err(error) = pool::export(pool) {
                if patience == 0 {
                    return Err(error);
                }
                patience -= 1;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            return Ok(());
        }
        loop {
            match umount2(&point, MntFlags::empty()) {
                Err(nix::Error::EBUSY) if patience > 0 => patience -= 1,
                done => return Ok(done?),
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// Mounts it (again) from its image.
    pub(crate) fn mount_again(&self) -> Result<(), Failure> {
        let image = self
            .image()
            .ok_or_else(|| Failure::harness("it has no image"))?;
        if let Some(pool) = &self.mounted.pool {
            return Ok(pool::import(pool, image)?);
        }
        let output = Command::new("mount")
            .args(["-t", &self.fstype, "-o", "loop"])
            .args([image, self.mount_point()])
            .output()?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        Err(Failure::harness(format!(
            "mounting {} again: {}",
            self.fstype,
            text.trim()
        )))
    }

    /// Mounts it read-only, or writable again.
    pub(crate) fn remount(&self, read_only: bool) -> io::Result<()> {
        let mut flags = MsFlags::MS_REMOUNT;
        flags.set(MsFlags::MS_RDONLY, read_only);
        mount::<str, _, str, str>(None, self.mount_point(), None, flags, None)?;
        Ok(())
    }
}

fn kept(image: &Path) -> PathBuf {
    image.with_extension("kept")
}

/// Copies what is allocated of a file, which is little of a fresh image.
fn copy_sparse(from: &Path, to: &Path) -> io::Result<()> {
    use rustix::fs::{SeekFrom, seek};
    let (source, target) = (fs::File::open(from)?, fs::File::create(to)?);
    let end = source.metadata()?.len();
    target.set_len(end)?;
    let mut at = 0;
    while at < end {
        let data = match seek(&source, SeekFrom::Data(at)) {
            Err(rustix::io::Errno::NXIO) => break,
            data => data?,
        };
        let hole = seek(&source, SeekFrom::Hole(data))?;
        let (mut read, mut written) = (data, data);
        while read < hole {
            let length = usize::try_from(hole - read).map_err(io::Error::other)?;
            let copied = rustix::fs::copy_file_range(
                &source,
                Some(&mut read),
                &target,
                Some(&mut written),
                length,
            )?;
            if copied == 0 {
                break;
            }
        }
        at = hole;
    }
    Ok(())
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
