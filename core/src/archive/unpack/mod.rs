// SPDX-License-Identifier: Apache-2.0
//! Unpacks entries below a directory.
//!
//! Every path is looked up by the kernel with the target as root (`openat2`, `RESOLVE_IN_ROOT`), and
//! the last component is never followed, so that neither `..` nor links lead out. The process's
//! umask is neither used nor changed.

mod attributes;
mod create;
mod directory;
mod whiteout;

use std::{
    collections::HashMap,
    ffi::OsStr,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    rc::Rc,
};

use plywood_plugin_sdk::{IdMaps, UnpackTarget, WhiteoutForm};
use rustix::{
    fs::{Gid, Mode, OFlags, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use self::directory::{Directories, Directory};
use super::{
    error::{ArchiveError, printable},
    header::EntryType,
    names::{self, NameSet},
    reader::{Entry, Piece},
};
use crate::{Error, ErrorKind, IoContext, Result};

/// The content of the entry that is being unpacked.
pub(crate) trait Content {
    /// The next piece, until there is none.
    fn next(&mut self) -> Result<Option<Piece<'_>>>;
}

/// Writes entries into a target.
pub(crate) struct Unpacker<'a> {
    target: &'a UnpackTarget,
    id_maps: &'a IdMaps,
    directories: Directories,
    /// `None` when unknown.
    umask: Option<u32>,
    in_user_namespace: bool,
    /// Set at the end, since creating files changes them.
    directory_times: Vec<(Box<[u8]>, Timestamps)>,
    /// What came from this stream, which its whiteouts do not concern; `None` when everything did.
    kept: Option<NameSet>,
    last_kept_parent: Vec<u8>,
    /// The directory that was marked last for its whiteouts.
    last_marked: Vec<u8>,
    /// Files in the AUFS link directory.
    aufs_links: HashMap<Vec<u8>, OwnedFd>,
    root_entry: Option<Entry>,
}

impl<'a> Unpacker<'a> {
    pub(crate) fn new(target: &'a UnpackTarget, id_maps: &'a IdMaps) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(&target.directory, flags, Mode::empty())
            .at("cannot open", &target.directory)?;
        let needs_kept = !target.fresh && target.whiteouts != WhiteoutForm::Literal;
        Ok(Self {
            target,
            id_maps,
            directories: Directories::new(root),
            umask: current_umask(),
            in_user_namespace: in_user_namespace(),
            directory_times: Vec::new(),
            kept: needs_kept.then(NameSet::default),
            last_kept_parent: Vec::new(),
            last_marked: Vec::new(),
            aufs_links: HashMap::new(),
            root_entry: None,
        })
    }

    /// Unpacks one entry.
    pub(crate) fn entry(&mut self, entry: &Entry, content: &mut dyn Content) -> Result<()> {
        let name = || printable(&entry.name);
        if entry.kind == EntryType::GlobalHeader {
            return Ok(());
        }
        let Some(path) = names::inside(&entry.name) else {
            return Err(ArchiveError::OutsideOfRoot { name: name() }.into());
        };
        if path.is_empty() {
            return self.root(entry);
        }
        let (parent, base) = names::split(&path);
        if base.starts_with(whiteout::PREFIX) || whiteout::is_metadata(&path) {
            match self.target.whiteouts {
                WhiteoutForm::Literal => whiteout::check_literal(entry, base)?,
                WhiteoutForm::Removal => return self.removal(entry, &path, content),
                WhiteoutForm::Overlay | WhiteoutForm::OverlayUserXattr => {
                    if base.starts_with(whiteout::PREFIX) {
                        return self.overlay_whiteout(entry, parent, base);
                    }
                }
                _ => {
                    return Err(Error::new(
                        ErrorKind::NotSupported,
                        "the driver's form of whiteouts is not known",
                    ));
                }
            }
        }
        attributes::refuse_reserved(entry)?;
        let directory = self.directory(parent)?;
        self.keep(&path);
        self.create(entry, &path, &directory, content)
    }

    /// Ends the work: sets the times of directories, and the root's attributes.
    pub(crate) fn finish(mut self) -> Result<()> {
        for (path, times) in std::mem::take(&mut self.directory_times) {
            match self.directories.open_itself(&path) {
                Ok(fd) => {
                    rustix::fs::futimens(&fd, &times)
                        .at("cannot set times of", self.path(&path))?;
                }
                // A later entry took its place.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(error) => return Err(error).at("cannot open", self.path(&path)),
            }
        }
        self.finish_root()
    }

    fn root(&mut self, entry: &Entry) -> Result<()> {
        if entry.kind != EntryType::Directory {
            let name = printable(&entry.name);
            return Err(ArchiveError::RootIsNoDirectory { name }.into());
        }
        attributes::refuse_reserved(entry)?;
        if self.target.apply_root || self.target.force_mask.is_some() {
            self.root_entry = Some(entry.clone());
        }
        Ok(())
    }

    fn finish_root(&mut self) -> Result<()> {
        let root = Rc::clone(self.directories.root());
        let entry = self.root_entry.take();
        if self.target.force_mask.is_some() {
            let value = match &entry {
                Some(entry) => attributes::override_value(entry, self.owner(entry)?),
                None => "0:0:0755:dir".to_owned(),
            };
            return self.set_override(&root, &value, b"");
        }
        if let Some(entry) = entry.filter(|_| self.target.apply_root) {
            self.directory_attributes(&root, &entry, b"")?;
            rustix::fs::futimens(&root, &attributes::times(&entry))
                .at("cannot set times of", &self.target.directory)?;
        }
        Ok(())
    }

    /// The directory at `path`, made with its parents where it is missing.
    fn directory(&mut self, path: &[u8]) -> Result<Rc<Directory>> {
        let (above, name) = names::split(path);
        let mut is_deleted = false;
        let parent = match self.directories.open(path) {
            Err(Errno::NOENT) => self.directory(above)?,
            Err(Errno::NOTDIR) => {
                let parent = self.directory(above)?;
                is_deleted = self.take_whiteout(&parent, name, path)?;
                if !is_deleted {
                    return Err(Errno::NOTDIR).at("cannot open", self.path(path));
                }
                parent
            }
            answer => return answer.at("cannot open", self.path(path)),
        };
        let wanted = self.target.implied_directory_mode;
        rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(wanted))
            .at("cannot make directory", self.path(path))?;
        let fd = directory::open_child(&parent, name).at("cannot open", self.path(path))?;
        if is_deleted {
            self.mark_opaque(&fd, path)?;
        }
        if !self.target.implied_directory_umask {
            let stat = rustix::fs::fstat(&fd).at("cannot read attributes of", self.path(path))?;
            if stat.st_mode & 0o7777 != wanted {
                self.change_mode(&fd, wanted, path)?;
            }
        }
        if let Some((uid, gid)) = self.id_maps.root().filter(|_| !self.id_maps.is_empty()) {
            self.change_owner(&fd, (uid, gid), path)?;
        }
        Ok(self.directories.remember(path, Directory::new(fd)))
    }

    /// Remembers that `path` and the directories above it belong to this stream.
    fn keep(&mut self, path: &[u8]) {
        let Some(kept) = &mut self.kept else {
            return;
        };
        kept.insert(path);
        let (parent, _) = names::split(path);
        if parent == self.last_kept_parent {
            return;
        }
        self.last_kept_parent = parent.to_vec();
        let mut above = parent;
        while !above.is_empty() && kept.insert(above) {
            above = names::split(above).0;
        }
    }

    fn remove(&mut self, directory: &Directory, name: &[u8], path: &[u8]) -> Result<()> {
        self.directories.forget();
        directory::remove_tree(directory, name).at("cannot remove", self.path(path))
    }

    fn owner(&self, entry: &Entry) -> Result<(u32, u32)> {
        let uid = attributes::host_id(&self.id_maps.uids, entry.uid, &entry.name)?;
        let gid = attributes::host_id(&self.id_maps.gids, entry.gid, &entry.name)?;
        Ok((uid, gid))
    }

    fn change_owner(&self, fd: impl AsFd, (uid, gid): (u32, u32), path: &[u8]) -> Result<()> {
        let answer = rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
        self.tolerate_chown(answer, path)
    }

    fn tolerate_chown(&self, answer: rustix::io::Result<()>, path: &[u8]) -> Result<()> {
        match answer {
            Err(error) if self.target.ignore_chown_errors => {
                let path = self.path(path);
                tracing::warn!(%error, path = %path.display(), "ignored: cannot change owner");
                Ok(())
            }
            answer => answer.at("cannot change owner of", self.path(path)),
        }
    }

    fn change_mode(&self, fd: impl AsFd, mode: u32, path: &[u8]) -> Result<()> {
        rustix::fs::fchmod(fd, Mode::from_raw_mode(mode))
            .at("cannot change mode of", self.path(path))
    }

    /// Whether creating with `mode` in `directory` may give another mode.
    fn mode_is_uncertain(&self, directory: &Directory, mode: u32) -> bool {
        mode & 0o7000 != 0
            || directory.has_default_acl
            || self.umask.is_none_or(|umask| mode & umask != 0)
    }

    /// Owner, mode and extended attributes of an open directory; not its times.
    fn directory_attributes(&mut self, fd: impl AsFd, entry: &Entry, path: &[u8]) -> Result<()> {
        let fd = fd.as_fd();
        let stat = rustix::fs::fstat(fd).at("cannot read attributes of", self.path(path))?;
        let owner = self.owner(entry)?;
        let mode = self.target.force_mask.unwrap_or(entry.mode);
        if self.target.force_mask.is_some() {
            self.set_override(fd, &attributes::override_value(entry, owner), path)?;
        } else if (stat.st_uid, stat.st_gid) != owner {
            self.change_owner(fd, owner, path)?;
        }
        if stat.st_mode & 0o7777 != mode || mode & 0o7000 != 0 {
            self.change_mode(fd, mode, path)?;
        }
        self.set_attributes(entry, path, |key, value| {
            rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty())
        })
    }

    fn set_override(&self, fd: impl AsFd, value: &str, path: &[u8]) -> Result<()> {
        let name = attributes::OVERRIDE_ATTRIBUTE;
        rustix::fs::fsetxattr(fd, name, value.as_bytes(), XattrFlags::empty()).at(
            "cannot set user.containers.override_stat of",
            self.path(path),
        )
    }

    /// Sets the entry's extended attributes; those that the file system does not know are skipped.
    fn set_attributes(
        &mut self,
        entry: &Entry,
        path: &[u8],
        set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
    ) -> Result<()> {
        for (key, value) in &entry.attributes {
            if attributes::is_ignored(key) {
                continue;
            }
            match set(key, value) {
                Ok(()) => {}
                Err(error) if self.may_skip_attribute(error) => {
                    let (key, path) = (printable(key), self.path(path));
                    tracing::warn!(%error, key, path = %path.display(), "ignored: cannot set xattr");
                }
                Err(error) => {
                    let action = format!("cannot set extended attribute {:?} of", printable(key));
                    return Err(error).at(&action, self.path(path));
                }
            }
            if key == b"system.posix_acl_default" {
                self.directories.forget();
            }
        }
        Ok(())
    }

    fn may_skip_attribute(&self, error: Errno) -> bool {
        error == Errno::OPNOTSUPP || (error == Errno::PERM && self.in_user_namespace)
    }

    /// The path of an entry on the host, for messages.
    fn path(&self, path: &[u8]) -> PathBuf {
        self.target
            .directory
            .join(Path::new(OsStr::from_bytes(path)))
    }
}

/// The umask of this thread, without the race of setting it to read it.
fn current_umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/thread-self/status").ok()?;
    let umask = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(umask.trim(), 8).ok()
}

/// Whether devices cannot be made: the ids of this process are not those of the host.
fn in_user_namespace() -> bool {
    let Ok(map) = std::fs::read_to_string("/proc/self/uid_map") else {
        return false;
    };
    let mut numbers = map.split_ascii_whitespace();
    let all = ["0", "0", "4294967295"];
    !(all.iter().all(|number| numbers.next() == Some(number)) && numbers.next().is_none())
}
