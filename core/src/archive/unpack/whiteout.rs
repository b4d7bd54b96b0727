// SPDX-License-Identifier: Apache-2.0
//! Deletions: from their form in a tar to the one on disk.

use std::{os::fd::AsRawFd, rc::Rc};

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
            let key = match self.target.whiteouts {
                WhiteoutForm::OverlayUserXattr => "user.overlay.opaque",
                _ => "trusted.overlay.opaque",
            };
            return rustix::fs::fsetxattr(&directory, key, b"y", XattrFlags::empty())
                .at("cannot mark as opaque", self.path(parent));
        }
        let path = [parent, b"/", name].concat();
        let path = path.strip_prefix(b"/").unwrap_or(&path);
        let make = || {
            let kind = FileType::CharacterDevice;
            rustix::fs::mknodat(&directory, name, kind, Mode::empty(), 0)
        };
        match make() {
            Err(Errno::EXIST) if !self.target.fresh => {
                self.remove(&directory, name, path)?;
                make().at("cannot make whiteout", self.path(path))?;
            }
            answer => answer.at("cannot make whiteout", self.path(path))?,
        }
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

    /// Removes what a whiteout names, or everything in an opaque directory that this stream did
    /// not bring.
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
        let directory = self.directory(parent)?;
        if base != OPAQUE {
            let name = deleted(entry, base)?;
            return self.remove(&directory, name, path);
        }
        self.directories.forget();
        match &self.kept {
            Some(kept) => {
                directory::clear(&*directory, parent, kept).at("cannot clear", self.path(parent))
            }
            None => Ok(()),
        }
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
