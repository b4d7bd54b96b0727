// SPDX-License-Identifier: Apache-2.0
//! Looks up paths in the layers below an upper directory.

use std::{
    ffi::OsStr,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::WhiteoutForm;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use super::tree::{Meta, join};
use crate::{IoContext, Result};

/// What stands before a deleted name in a tar.
pub(super) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// The name in a tar that hides what lower layers have in its directory.
pub(super) const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// With more layers than this, their directories are opened for each look-up.
const KEPT_OPEN: usize = 128;

/// The layers below, nearest first.
pub(super) struct Lowers {
    layers: Vec<Lower>,
    form: WhiteoutForm,
}

struct Lower {
    path: PathBuf,
    fd: Option<OwnedFd>,
}

/// What the layers below have for a path.
pub(super) struct Found {
    /// The first that is not hidden.
    pub(super) first: Option<Meta>,
    /// The layers in which it is a directory whose content may show.
    pub(super) directories: Vec<usize>,
}

impl Lowers {
    pub(super) fn open(paths: &[PathBuf], form: WhiteoutForm) -> Result<Self> {
        let keep = paths.len() <= KEPT_OPEN;
        let layers = paths
            .iter()
            .map(|path| {
                Ok(Lower {
                    fd: keep.then(|| open_root(path)).transpose()?,
                    path: path.clone(),
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self { layers, form })
    }

    /// All layers, for the names in the root.
    pub(super) fn all(&self) -> Vec<usize> {
        (0..self.layers.len()).collect()
    }

    /// Looks for `path` in the layers `among`; `directory` says whether all of them matter.
    ///
    /// # Compatibility
    /// As `OverlayChanges` and `overlayWhiteoutConverter` of containers/storage: symlinks are
    /// followed (here never out of the layer), opaque directories in lower layers are not
    /// regarded, and what is not a directory does not hide the layers below it.
    pub(super) fn find(&self, path: &[u8], among: &[usize], directory: bool) -> Result<Found> {
        let mut found = Found {
            first: None,
            directories: Vec::new(),
        };
        for &index in among {
            let meta = match self.look(&self.layers[index], path)? {
                Look::Hidden => break,
                Look::Absent => continue,
                Look::Found(meta) => meta,
            };
            if meta.is_dir() {
                found.directories.push(index);
            }
            found.first.get_or_insert(meta);
            if !directory {
                break;
            }
        }
        Ok(found)
    }

    fn look(&self, lower: &Lower, path: &[u8]) -> Result<Look> {
        if self.form == WhiteoutForm::Literal {
            let (parent, name) = split(path);
            let whiteout = join(parent, &[WHITEOUT_PREFIX, name].concat());
            if lower.stat(&whiteout)?.is_some() {
                return Ok(Look::Hidden);
            }
        }
        Ok(match lower.stat(path)? {
            None => Look::Absent,
            Some(meta) if is_overlay(self.form) && meta.is_overlay_whiteout() => Look::Hidden,
            Some(meta) => Look::Found(meta),
        })
    }
}

/// What one layer has for a path.
enum Look {
    Absent,
    Hidden,
    Found(Meta),
}

/// Whether whiteouts are character devices 0:0.
pub(super) fn is_overlay(form: WhiteoutForm) -> bool {
    matches!(form, WhiteoutForm::Overlay | WhiteoutForm::OverlayUserXattr)
}

impl Lower {
    fn stat(&self, path: &[u8]) -> Result<Option<Meta>> {
        let opened;
        let root = if let Some(fd) = &self.fd {
            fd
        } else {
            opened = open_root(&self.path)?;
            &opened
        };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let found = openat2(root, path, flags, Mode::empty(), resolve)
            .and_then(|fd| rustix::fs::fstat(&fd));
        match found {
            Ok(stat) => Ok(Some(stat.into())),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(errno) => {
                let path = self.path.join(OsStr::from_bytes(path));
                Err(errno).at("cannot read the attributes of", path)
            }
        }
    }
}

fn open_root(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(rustix::fs::CWD, path, flags, Mode::empty()).at("cannot open the directory", path)
}

/// The directory part, without its slash, and the last name.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memrchr(b'/', path) {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
