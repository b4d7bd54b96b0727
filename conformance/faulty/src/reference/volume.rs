// SPDX-License-Identifier: Apache-2.0
//! Layers with a limit: an ext4 file system with just that room in a file.
//!
//! The file system is mounted without a name: it is attached, opened and detached at once, and
//! lives as long as its descriptor. So nothing stays when the process dies, neither the mount nor
//! the loop device, which the kernel gives up with its last user.

use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::fd::{AsRawFd as _, OwnedFd},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use plywood_plugin_sdk::{DriverError, DriverErrorCode, IoContext, Result, Usage};
use rustix::{
    fs::{CWD, Mode, OFlags},
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

use super::options::Limits;

/// The file in a layer's directory.
pub(super) const IMAGE: &str = "volume";
/// The directory beside it where it is mounted for a moment.
const POINT: &str = "point";

const BLOCK: u64 = 4096;
/// What ext4 keeps back for itself at most, in blocks.
const RESERVED: u64 = 4096;
/// The bytes of a layer whose inodes alone are limited.
const UNLIMITED: u64 = 96 << 20;
/// Blocks of a group of ext4, inodes of a block, and inodes that ext4 keeps for itself.
const GROUP: u64 = 8 * BLOCK;
const INODES: u64 = 16;
const RESERVED_INODES: u64 = 10;

/// The volumes that are open, by the directories of their layers.
#[derive(Debug, Default)]
pub(super) struct Volumes(Mutex<HashMap<PathBuf, Arc<Volume>>>);

/// A mounted volume. The fields are dropped in this order.
#[derive(Debug)]
pub(super) struct Volume {
    root: OwnedFd,
    device: Device,
}

/// A loop device that goes away with its last user.
#[derive(Debug)]
struct Device {
    path: PathBuf,
    _file: File,
}

/// Whether this machine and this process can have volumes.
pub(super) fn available() -> bool {
    let control = File::options()
        .read(true)
        .write(true)
        .open("/dev/loop-control");
    control.is_ok()
        && ["mkfs.ext4", "losetup"].iter().all(|tool| {
            let tried = command(tool).arg("-V").output();
            tried.is_ok_and(|tried| tried.status.success())
        })
}

impl Volumes {
    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Volume>>> {
        // Each change of the map is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The volume of the layer in `directory`; `None` when the layer has none.
    pub(super) fn of(&self, directory: &Path) -> Result<Option<Arc<Volume>>> {
        let image = directory.join(IMAGE);
        if !image.try_exists().at("cannot look at", &image)? {
            return Ok(None);
        }
        let mut open = self.lock();
        if let Some(volume) = open.get(directory) {
            return Ok(Some(Arc::clone(volume)));
        }
        let volume = Arc::new(Volume::open(directory)?);
        open.insert(directory.to_owned(), Arc::clone(&volume));
        Ok(Some(volume))
    }

    /// Closes the volume of the layer in `directory`, if it is open.
    pub(super) fn forget(&self, directory: &Path) -> Result<()> {
        let volume = self.lock().remove(directory);
        drop(volume);
        detach(&directory.join(POINT))
    }

    /// Closes all.
    pub(super) fn clear(&self) {
        self.lock().clear();
    }
}

impl Volume {
    /// Makes the volume of a layer that can take what `limits` says beside what it starts with.
    ///
    /// With a limit of inodes alone it takes [`UNLIMITED`] bytes, since the inodes of ext4 are
    /// spread over its groups and each has some.
    ///
    /// # Errors
    ///
    /// `INVALID_ARGUMENT` for so few inodes that ext4 would have a tenth less or more.
    pub(super) fn create(directory: &Path, limits: Limits, start: &Usage) -> Result<()> {
        let image = directory.join(IMAGE);
        let point = directory.join(POINT);
        fs::create_dir(&point).at("cannot create", &point)?;
        let limit = limits.size.filter(|size| *size > 0).unwrap_or(UNLIMITED);
        let held = start.bytes.div_ceil(BLOCK) + start.inodes;
        let wanted = limit.div_ceil(BLOCK) + held;
        // The first file system shows what its own tables take.
        let mut total = wanted + wanted / 8 + 512;
        for _ in 0..3 {
            let inodes = match limits.inodes {
                Some(limit) if limit > 0 => Some(inodes(limit, start.inodes, total)?),
                _ => None,
            };
            format(&image, total, inodes)?;
            let free = free_blocks(&image)?;
            let usable = free.saturating_sub(RESERVED.min(total / 50));
            if usable >= wanted && usable - wanted <= wanted / 100 + 8 {
                return Ok(());
            }
            total = (total + wanted).saturating_sub(usable);
        }
        Ok(())
    }

    fn open(directory: &Path) -> Result<Self> {
        let point = directory.join(POINT);
        // A process that died left it there.
        detach(&point)?;
        let device = Device::attach(&directory.join(IMAGE))?;
        device.mount_at(&point)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, &point, flags, Mode::empty()).at("cannot open", &point);
        detach(&point)?;
        let root = root?;
        match rustix::fs::unlinkat(&root, "lost+found", rustix::fs::AtFlags::REMOVEDIR) {
            Ok(()) | Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTEMPTY) => {}
            Err(error) => return Err(DriverError::io("cannot tidy", &point, &error.into())),
        }
        Ok(Self { root, device })
    }

    /// The layer's tree, for this process.
    pub(super) fn tree(&self) -> PathBuf {
        // With the dot it is a directory for those who follow no links.
        format!("/proc/self/fd/{}/.", self.root.as_raw_fd()).into()
    }

    /// Makes what was written durable.
    pub(super) fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.root).at("cannot sync", &self.device.path)
    }

    /// Shows the volume at `target`.
    pub(super) fn mount_at(&self, target: &Path) -> Result<()> {
        self.device.mount_at(target)
    }
}

impl Device {
    fn attach(image: &Path) -> Result<Self> {
        let image = fs::canonicalize(image).at("cannot resolve", image)?;
        // What is found may be given up by its last user before it is opened here.
        for _ in 0..10 {
            let mut attach = command("losetup");
            attach.args(["--find", "--show", "--nooverlap"]).arg(&image);
            let path = PathBuf::from(run(&mut attach)?.trim());
            let open = File::options().read(true).write(true).open(&path);
            let file = open.at("cannot open", &path)?;
            if backing_file(&path).is_some_and(|backing| backing == image) {
                // It is in use, so the kernel detaches it when it no longer is.
                run(command("losetup").arg("--detach").arg(&path))?;
                return Ok(Self { path, _file: file });
            }
        }
        let message = format!("no loop device stays with `{}`", image.display());
        Err(DriverError::new(DriverErrorCode::BUSY, message))
    }

    fn mount_at(&self, target: &Path) -> Result<()> {
        mount(&self.path, target, "ext4", MountFlags::empty(), None)
            .at("cannot mount a volume at", target)
    }
}

fn backing_file(device: &Path) -> Option<PathBuf> {
    let name = device.file_name()?;
    let path = Path::new("/sys/block").join(name).join("loop/backing_file");
    Some(fs::read_to_string(path).ok()?.trim_end().into())
}

/// Takes every mount at `point` away; what is not mounted is no error.
pub(super) fn detach(point: &Path) -> Result<()> {
    loop {
        match unmount(point, UnmountFlags::DETACH) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(DriverError::io("cannot unmount", point, &error.into())),
        }
    }
}

/// How many inodes a file system of `blocks` blocks has that takes up to `limit` new ones beside
/// the `held`: each group has whole blocks of them.
fn inodes(limit: u64, held: u64, blocks: u64) -> Result<u64> {
    let groups = blocks.div_ceil(GROUP);
    let wanted = limit.saturating_add(held).saturating_add(RESERVED_INODES);
    let each = wanted / groups / INODES * INODES;
    let usable = (each * groups).saturating_sub(held + RESERVED_INODES);
    if usable >= limit - limit / 10 {
        return Ok(each * groups);
    }
    let message = format!("a layer of this size cannot be limited to {limit} inodes");
    Err(DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message)
        .object("inodes")
        .remedy("use more inodes, or less bytes"))
}

fn format(image: &Path, blocks: u64, inodes: Option<u64>) -> Result<()> {
    let file = File::create(image).at("cannot create", image)?;
    file.set_len(blocks * BLOCK).at("cannot size", image)?;
    let mut make = command("mkfs.ext4");
    make.args([
        "-q", "-F", "-b", "4096", "-m", "0", "-i", "8192", "-I", "256",
    ]);
    make.args(["-O", "^has_journal,^resize_inode"]);
    make.args(["-E", "lazy_itable_init=1,nodiscard"]);
    if let Some(inodes) = inodes {
        make.args(["-N", &inodes.to_string()]);
    }
    run(make.arg(image)).map(drop)
}

fn free_blocks(image: &Path) -> Result<u64> {
    let mut bytes = [0; 4];
    let file = File::open(image).at("cannot open", image)?;
    // `s_free_blocks_count_lo` of the superblock; 32 bits are 16 TiB.
    let read = file.read_exact_at(&mut bytes, 1024 + 12);
    read.at("cannot read", image)?;
    Ok(u32::from_le_bytes(bytes).into())
}

/// A tool of the system; somebody else's may lie in the directories of `PATH`.
fn command(tool: &str) -> Command {
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(Path::new);
    let mut found = places.into_iter().map(|place| place.join(tool));
    let path = found.find(|path| path.exists());
    let mut command = Command::new(path.unwrap_or_else(|| places[0].join(tool)));
    command.env_clear();
    command
}

fn run(command: &mut Command) -> Result<String> {
    let tool = command.get_program().to_owned();
    let done = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let message = format!("there is no program `{}`", tool.display());
            return Err(DriverError::new(DriverErrorCode::PREREQUISITES, message)
                .remedy("install e2fsprogs and util-linux"));
        }
        other => other.at("cannot run", &tool)?,
    };
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&done.stderr);
    let code = if said.contains("No space left") {
        DriverErrorCode::NO_SPACE
    } else {
        DriverErrorCode::IO
    };
    let message = format!("{} failed: {}", tool.display(), said.trim());
    Err(DriverError::new(code, message))
}
