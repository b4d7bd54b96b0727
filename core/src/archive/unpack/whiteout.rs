// SPDX-License-Identifier: Apache-2.0
//! Deletions: from their form in a tar to the one on disk.

use std::{
    os::fd::{AsFd, AsRawFd},
    rc::Rc,
};

use plywood_plugin_sdk::WhiteoutForm;
use rustix::{
    fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, XattrFlags},
    io::Errno,
};

use super::{Content, Unpacker, directory};
use crate::{
    IoContext, Result,
    archive::{
        error::{ArchiveError, printable},
        header::EntryType,
        names,
        reader::Entry,
    },
};

/// Marks a deletion.
pub(super) const PREFIX: &[u8] = b".wh.";
/// Marks a directory whose lower entries are hidden.
const OPAQUE: &[u8] = b".wh..wh..opq";
/// AUFS's own files.
const METADATA: &[u8] = b".wh..wh.";
/// AUFS's files with several names.
const LINKS: &[u8] = b".wh..wh.plnk";

/// More than any layer has; each one is an open file.
const MAX_AUFS_LINKS: usize = 256;

/// Whether `path` is one of AUFS's own files in the root.
pub(super) fn is_metadata(path: &[u8]) -> bool {
    path.starts_with(METADATA)
}

/// The name that a whiteout deletes.
fn deleted<'n>(entry: &Entry, base: &'n [u8]) -> Result<&'n [u8]> {
    let name = &base[PREFIX.len()..];
    if matches!(name, b"" | b"." | b"..") {
        let name = printable(&entry.name);
        return Err(ArchiveError::InvalidWhiteout { name }.into());
    }
    Ok(name)
}

/// Refuses a whiteout that would be kept as it is and names nothing that could be deleted; what
/// reads it later would delete something else.
pub(super) fn check_literal(entry: &Entry, base: &[u8]) -> Result<()> {
    if base.starts_with(PREFIX) && base != OPAQUE {
        deleted(entry, base)?;
    }
    Ok(())
}

impl Unpacker<'_> {
    /// Makes a device 0:0, or the mark of an opaque directory.
    pub(super) fn overlay_whiteout(
        &mut self,
        entry: &Entry,
        parent: &[u8],
        base: &[u8],
    ) -> Result<()> {
        let owner = self.owner(entry)?;
        let name = if base == OPAQUE {
            base
        } else {
            deleted(entry, base)?
        };
        // Some tools write whiteouts for a directory and for what was in it.
        if self.directories.open(parent).err() == Some(Errno::NOTDIR) {
            return Ok(());
        }
        let directory = self.directory(parent)?;
        if base == OPAQUE {
            return self.mark_opaque(&directory, parent);
        }
        let path = [parent, b"/", name].concat();
        let path = path.strip_prefix(b"/").unwrap_or(&path);
        let make = || {
            let kind = FileType::CharacterDevice;
            rustix::fs::mknodat(&directory, name, kind, Mode::empty(), 0)
        };
        match make() {
            Err(Errno::EXIST) if self.is_own(path) => {
                return match directory::open_child(&*directory, name) {
                    Ok(own) => self.mark_opaque(&own, path),
                    // It hides what is below by being there.
                    Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
                    Err(error) => Err(error).at("cannot open", self.path(path)),
                };
            }
            Err(Errno::EXIST) => {
                self.remove(&directory, name, path)?;
                make().at("cannot make whiteout", self.path(path))?;
            }
            answer => answer.at("cannot make whiteout", self.path(path))?,
        }
        self.mark_whiteouts_within(&directory, parent)?;
        let stat = || rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let now = directory.new_owner(stat);
        if now.at("cannot read attributes of", self.path(path))? != owner {
            let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
            let flags = AtFlags::SYMLINK_NOFOLLOW;
            let answer = rustix::fs::chownat(&directory, name, Some(uid), Some(gid), flags);
            self.tolerate_chown(answer, path)?;
        }
        Ok(())
    }

    /// Whether what is at `path` came from this stream.
    fn is_own(&self, path: &[u8]) -> bool {
        self.kept.as_ref().is_none_or(|kept| kept.contains(path))
    }

    fn overlay_mark(&self, name: &str) -> String {
        match self.target.whiteouts {
            WhiteoutForm::OverlayUserXattr => format!("user.overlay.{name}"),
            _ => format!("trusted.overlay.{name}"),
        }
    }

    /// Hides everything below the directory at `path`.
    pub(super) fn mark_opaque(&self, directory: impl AsFd, path: &[u8]) -> Result<()> {
        let key = self.overlay_mark("opaque");
        rustix::fs::fsetxattr(directory, key, b"y", XattrFlags::empty())
            .at("cannot mark as opaque", self.path(path))
    }

    /// Lets the kernel look for whiteouts in a directory that has nothing below it; it would list
    /// them there. The mark says that the directory may come from another one, which is not known.
    fn mark_whiteouts_within(&mut self, directory: impl AsFd, path: &[u8]) -> Result<()> {
        if path.is_empty() || path == self.last_marked {
            return Ok(());
        }
        let key = self.overlay_mark("origin");
        match rustix::fs::fsetxattr(directory, key, b"", XattrFlags::CREATE) {
            Err(Errno::EXIST) => {}
            answer => answer.at("cannot mark", self.path(path))?,
        }
        self.last_marked = path.to_vec();
        Ok(())
    }

    /// Removes the whiteout called `name`; whether there was one.
    pub(super) fn take_whiteout(
        &mut self,
        directory: &directory::Directory,
        name: &[u8],
        path: &[u8],
    ) -> Result<bool> {
        let overlay = WhiteoutForm::Overlay;
        if ![overlay, WhiteoutForm::OverlayUserXattr].contains(&self.target.whiteouts) {
            return Ok(false);
        }
        let found = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW);
        let found = found.at("cannot read attributes of", self.path(path))?;
        let kind = FileType::from_raw_mode(found.st_mode);
        let is_whiteout = kind == FileType::CharacterDevice && found.st_rdev == 0;
        if is_whiteout {
            self.remove(directory, name, path)?;
        }
        Ok(is_whiteout)
    }

    /// Removes what a whiteout names, or everything in an opaque directory; what this stream
    /// brought stays in any case.
    pub(super) fn removal(
        &mut self,
        entry: &Entry,
        path: &[u8],
        content: &mut dyn Content,
    ) -> Result<()> {
        if is_metadata(path) && path != OPAQUE {
            return self.aufs_metadata(entry, path, content);
        }
        let (parent, base) = names::split(path);
        let name = if base == OPAQUE {
            None
        } else {
            Some(deleted(entry, base)?)
        };
        let directory = match self.directories.open(parent) {
            // Nothing is there, and nothing must come to be.
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
            answer => answer.at("cannot open", self.path(parent))?,
        };
        let Some(kept) = &self.kept else {
            return Ok(());
        };
        let Some(name) = name else {
            let cleared = directory::clear(&*directory, parent, kept);
            self.directories.forget();
            return cleared.at("cannot clear", self.path(parent));
        };
        let path = [parent, b"/", name].concat();
        let path = path.strip_prefix(b"/").unwrap_or(&path);
        if !kept.contains(path) {
            return self.remove(&directory, name, path);
        }
        let cleared = match directory::open_child(&*directory, name) {
            Ok(own) => directory::clear(own, path, kept),
            Err(Errno::NOTDIR | Errno::LOOP) => Ok(()),
            Err(error) => Err(error),
        };
        self.directories.forget();
        cleared.at("cannot clear", self.path(path))
    }

    /// Keeps a file that later entries link to; it gets no name of its own.
    fn aufs_metadata(
        &mut self,
        entry: &Entry,
        path: &[u8],
        content: &mut dyn Content,
    ) -> Result<()> {
        if !path.starts_with(LINKS) || entry.kind != EntryType::File {
            return Ok(());
        }
        attributes_fit(self.aufs_links.len(), entry)?;
        let root = Rc::clone(self.directories.root());
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(entry.mode & 0o777);
        let fd = rustix::fs::openat(&root, ".", flags, mode)
            .at("cannot make a temporary file in", &self.target.directory)?;
        self.fill(&fd, entry, path, content)?;
        self.file_attributes(&fd, entry, path)?;
        let (_, base) = names::split(path);
        self.aufs_links.insert(base.to_vec(), fd);
        Ok(())
    }

    /// Gives a name to the AUFS file that `target` names; `None` when it names none.
    pub(super) fn link_aufs(
        &mut self,
        entry: &Entry,
        target: &[u8],
        (directory, base): (&directory::Directory, &[u8]),
    ) -> Option<Result<rustix::io::Result<()>>> {
        if self.target.whiteouts != WhiteoutForm::Removal || !target.starts_with(LINKS) {
            return None;
        }
        let Some(fd) = self.aufs_links.get(names::split(target).1) else {
            let name = printable(&entry.name);
            return Some(Err(ArchiveError::InvalidAufsLink { name }.into()));
        };
        let source = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let flags = AtFlags::SYMLINK_FOLLOW;
        Some(Ok(rustix::fs::linkat(
            rustix::fs::CWD,
            source,
            directory,
            base,
            flags,
        )))
    }
}

fn attributes_fit(known: usize, entry: &Entry) -> Result<()> {
    super::attributes::refuse_reserved(entry)?;
    if known >= MAX_AUFS_LINKS {
        let name = printable(&entry.name);
        return Err(ArchiveError::InvalidAufsLink { name }.into());
    }
    Ok(())
}
