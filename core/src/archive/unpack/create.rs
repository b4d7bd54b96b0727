// SPDX-License-Identifier: Apache-2.0
//! Creates files, directories, links and devices, replacing what is in their place.

use std::{
    os::fd::{AsFd, AsRawFd, OwnedFd},
    rc::Rc,
};

use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use super::{Content, Unpacker, attributes, directory, directory::Directory};
use crate::{
    IoContext, Result,
    archive::{
        error::{ArchiveError, printable},
        header::EntryType,
        names,
        reader::{Entry, Piece},
    },
};

/// Where an entry goes.
struct Place<'p> {
    path: &'p [u8],
    directory: &'p Directory,
    base: &'p [u8],
}

impl Unpacker<'_> {
    /// Creates `entry` at `path`, in the `directory` of that path.
    pub(super) fn create(
        &mut self,
        entry: &Entry,
        path: &[u8],
        directory: &Rc<Directory>,
        content: &mut dyn Content,
    ) -> Result<()> {
        let (_, base) = names::split(path);
        let place = Place {
            path,
            directory,
            base,
        };
        match entry.kind {
            EntryType::File => self.file(entry, &place, content),
            EntryType::Directory => self.directory_entry(entry, &place),
            EntryType::SymbolicLink => self.symbolic_link(entry, &place),
            EntryType::HardLink => self.hard_link(entry, &place),
            EntryType::CharacterDevice | EntryType::BlockDevice | EntryType::Fifo => {
                if self.target.force_mask.is_some() {
                    self.file(entry, &place, content)
                } else {
                    self.node(entry, &place)
                }
            }
            EntryType::GlobalHeader => Ok(()),
            EntryType::Other(type_flag) => {
                let name = printable(&entry.name);
                Err(ArchiveError::UnhandledType { name, type_flag }.into())
            }
        }
    }

    /// Runs `make`; when something is in its place, removes that and runs it again.
    fn make<T>(
        &mut self,
        place: &Place<'_>,
        mut make: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<T> {
        match make() {
            Err(Errno::EXIST) => {}
            answer => return answer.at("cannot create", self.path(place.path)),
        }
        self.remove(place.directory, place.base, place.path)?;
        make().at("cannot create", self.path(place.path))
    }

    fn file(&mut self, entry: &Entry, place: &Place<'_>, content: &mut dyn Content) -> Result<()> {
        let mode = self.target.force_mask.unwrap_or(entry.mode);
        let created = Mode::from_raw_mode(mode & 0o777);
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = self.make(place, || {
            rustix::fs::openat(place.directory, place.base, flags, created)
        })?;
        self.fill(&fd, entry, place.path, content)?;
        let owner = self.owner(entry)?;
        if self.target.force_mask.is_some() {
            self.set_override(&fd, &attributes::override_value(entry, owner), place.path)?;
        } else {
            let now = place.directory.new_owner(|| rustix::fs::fstat(&fd));
            if now.at("cannot read attributes of", self.path(place.path))? != owner {
                self.change_owner(&fd, owner, place.path)?;
            }
        }
        if self.mode_is_uncertain(place.directory, mode) {
            self.change_mode(&fd, mode, place.path)?;
        }
        self.set_file_extras(&fd, entry, place.path)
    }

    /// Owner, mode, extended attributes and times of a file about which nothing is known.
    pub(super) fn file_attributes(
        &mut self,
        fd: &OwnedFd,
        entry: &Entry,
        path: &[u8],
    ) -> Result<()> {
        let owner = self.owner(entry)?;
        let mode = self.target.force_mask.unwrap_or(entry.mode);
        if self.target.force_mask.is_some() {
            self.set_override(fd, &attributes::override_value(entry, owner), path)?;
        } else {
            self.change_owner(fd, owner, path)?;
        }
        self.change_mode(fd, mode, path)?;
        self.set_file_extras(fd, entry, path)
    }

    /// A capability must be set after the owner, and times after everything.
    fn set_file_extras(&mut self, fd: &OwnedFd, entry: &Entry, path: &[u8]) -> Result<()> {
        self.set_attributes(entry, path, |key, value| {
            rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty())
        })?;
        rustix::fs::futimens(fd, &attributes::times(entry))
            .at("cannot set times of", self.path(path))
    }

    /// Writes the content; holes stay holes.
    pub(super) fn fill(
        &self,
        fd: &OwnedFd,
        entry: &Entry,
        path: &[u8],
        content: &mut dyn Content,
    ) -> Result<()> {
        if entry.size == 0 || entry.kind != EntryType::File {
            return Ok(());
        }
        let mut position = 0;
        let mut ends_in_hole = false;
        let mut seek = false;
        while let Some(piece) = content.next()? {
            match piece {
                Piece::Data(mut bytes) => {
                    while !bytes.is_empty() {
                        let written = if seek {
                            rustix::io::pwrite(fd, bytes, position)
                        } else {
                            rustix::io::write(fd, bytes)
                        };
                        let count = match written {
                            Err(Errno::INTR) => continue,
                            answer => answer.at("cannot write", self.path(path))?,
                        };
                        bytes = &bytes[count..];
                        position += count as u64;
                    }
                    ends_in_hole = false;
                }
                Piece::Hole(length) => {
                    position += length;
                    ends_in_hole = true;
                    seek = true;
                }
            }
        }
        if ends_in_hole {
            rustix::fs::ftruncate(fd, position).at("cannot extend", self.path(path))?;
        }
        Ok(())
    }

    fn directory_entry(&mut self, entry: &Entry, place: &Place<'_>) -> Result<()> {
        let mode = self.target.force_mask.unwrap_or(entry.mode);
        let mode = Mode::from_raw_mode(mode & 0o777);
        let make = || rustix::fs::mkdirat(place.directory, place.base, mode);
        let open = || directory::open_child(place.directory, place.base);
        let mut was_deleted = false;
        let fd = match make() {
            Ok(()) => open(),
            // A directory that is there already is merged with.
            Err(Errno::EXIST) => match open() {
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    was_deleted = self.take_whiteout(place.directory, place.base, place.path)?;
                    self.remove(place.directory, place.base, place.path)?;
                    make().and_then(|()| open())
                }
                answer => {
                    // It may be open under another path too, and its group may change now.
                    self.directories.forget();
                    answer
                }
            },
            Err(error) => Err(error),
        };
        let fd = fd.at("cannot make directory", self.path(place.path))?;
        if was_deleted {
            self.mark_opaque(&fd, place.path)?;
        }
        self.directory_attributes(&fd, entry, place.path)?;
        self.directory_times
            .push((place.path.into(), attributes::times(entry)));
        self.directories.remember(place.path, Directory::new(fd));
        Ok(())
    }

    fn symbolic_link(&mut self, entry: &Entry, place: &Place<'_>) -> Result<()> {
        self.make(place, || {
            rustix::fs::symlinkat(entry.link.as_slice(), place.directory, place.base)
        })?;
        if self.target.force_mask.is_none() {
            self.own_new(entry, place)?;
        }
        self.set_attributes_by_name(entry, place)?;
        self.set_times_by_name(&attributes::times(entry), place)
    }

    fn node(&mut self, entry: &Entry, place: &Place<'_>) -> Result<()> {
        let kind = match entry.kind {
            EntryType::CharacterDevice => FileType::CharacterDevice,
            EntryType::BlockDevice => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        if kind != FileType::Fifo && self.in_user_namespace {
            tracing::debug!(path = %self.path(place.path).display(), "device skipped");
            return Ok(());
        }
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        self.make(place, || {
            rustix::fs::mknodat(place.directory, place.base, kind, mode, device)
        })?;
        self.own_new(entry, place)?;
        if self.mode_is_uncertain(place.directory, entry.mode) {
            self.change_mode_by_name(entry.mode, place)?;
        }
        self.set_attributes_by_name(entry, place)?;
        self.set_times_by_name(&attributes::times(entry), place)
    }

    /// A link entry's own header counts for the file that it names, as in containers/storage.
    fn hard_link(&mut self, entry: &Entry, place: &Place<'_>) -> Result<()> {
        let invalid = || {
            let (name, target) = (printable(&entry.name), printable(&entry.link));
            ArchiveError::InvalidHardLink { name, target }
        };
        let target = names::inside(&entry.link).ok_or_else(invalid)?;
        if target.is_empty() {
            return Err(invalid().into());
        }
        self.link(entry, &target, place)?;
        let read = || rustix::fs::statat(place.directory, place.base, AtFlags::SYMLINK_NOFOLLOW);
        let stat = read().at("cannot read attributes of", self.path(place.path))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = self.target.force_mask.unwrap_or(entry.mode);
        let owner = self.owner(entry)?;
        let changes_owner = self.target.force_mask.is_none() && (stat.st_uid, stat.st_gid) != owner;
        if changes_owner {
            self.change_owner_by_name(owner, place)?;
        }
        if kind == FileType::Symlink {
            return self.set_attributes_by_name(entry, place);
        }
        // Changing the owner clears the set-id bits.
        if changes_owner || stat.st_mode & 0o7777 != mode {
            self.change_mode_by_name(mode, place)?;
        }
        self.set_attributes_by_name(entry, place)?;
        let times = attributes::times(entry);
        if has_times(&stat, &times) {
            return Ok(());
        }
        self.set_times_by_name(&times, place)
    }

    fn link(&mut self, entry: &Entry, target: &[u8], place: &Place<'_>) -> Result<()> {
        let mut tries = 0;
        loop {
            let spot = (place.directory, place.base);
            let answer = if let Some(answer) = self.link_aufs(entry, target, spot) {
                answer?
            } else {
                let (above, name) = names::split(target);
                let from = self.directories.open(above);
                from.and_then(|from| {
                    let flags = AtFlags::empty();
                    rustix::fs::linkat(&from, name, place.directory, place.base, flags)
                })
            };
            match answer {
                Err(Errno::EXIST) if tries == 0 => {
                    tries += 1;
                    self.remove(place.directory, place.base, place.path)?;
                }
                answer => {
                    let action = format!("cannot link to {:?} as", printable(target));
                    return answer.at(&action, self.path(place.path));
                }
            }
        }
    }

    fn own_new(&mut self, entry: &Entry, place: &Place<'_>) -> Result<()> {
        let owner = self.owner(entry)?;
        let stat = || rustix::fs::statat(place.directory, place.base, AtFlags::SYMLINK_NOFOLLOW);
        let now = place.directory.new_owner(stat);
        if now.at("cannot read attributes of", self.path(place.path))? == owner {
            return Ok(());
        }
        self.change_owner_by_name(owner, place)
    }

    fn change_owner_by_name(&self, (uid, gid): (u32, u32), place: &Place<'_>) -> Result<()> {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let (directory, base) = (place.directory.as_fd(), place.base);
        let answer = rustix::fs::chownat(directory, base, Some(uid), Some(gid), flags);
        self.tolerate_chown(answer, place.path)
    }

    /// `fchmodat` follows links, and its flag against that needs Linux 6.6: so by descriptor.
    fn change_mode_by_name(&self, mode: u32, place: &Place<'_>) -> Result<()> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(place.directory, place.base, flags, Mode::empty())
            .at("cannot open", self.path(place.path))?;
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        rustix::fs::chmod(path, Mode::from_raw_mode(mode))
            .at("cannot change mode of", self.path(place.path))
    }

    fn set_attributes_by_name(&mut self, entry: &Entry, place: &Place<'_>) -> Result<()> {
        let path = place.directory.proc_path(place.base);
        self.set_attributes(entry, place.path, |key, value| {
            rustix::fs::lsetxattr(path.as_slice(), key, value, XattrFlags::empty())
        })
    }

    fn set_times_by_name(&self, times: &Timestamps, place: &Place<'_>) -> Result<()> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(place.directory, place.base, times, flags)
            .at("cannot set times of", self.path(place.path))
    }
}

fn has_times(stat: &Stat, times: &Timestamps) -> bool {
    let is = |seconds, nanoseconds, time: &Timespec| {
        (seconds, nanoseconds) == (time.tv_sec, u64::try_from(time.tv_nsec).unwrap_or_default())
    };
    is(stat.st_mtime, stat.st_mtime_nsec, &times.last_modification)
        && is(stat.st_atime, stat.st_atime_nsec, &times.last_access)
}
