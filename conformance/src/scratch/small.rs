// SPDX-License-Identifier: Apache-2.0
//! File systems of a case's own: to be filled, made read-only, cut off, or started again from what
//! a power cut left.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::{Mounted, image_beside, mount_image, pool, without};
use crate::{Site, case::Failure};

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
