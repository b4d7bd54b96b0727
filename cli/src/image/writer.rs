// SPDX-License-Identifier: Apache-2.0
//! Where a saved image goes: a directory or a tar file that appears whole or not at all.
//!
//! Content is deterministic: no times, no owners, a fixed order.

use std::{
    fs::{self, File},
    io::{self, Seek as _, SeekFrom, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::fs::FlockOperation;
use tempfile::{Builder, NamedTempFile, TempDir};

use super::{ImageError, Place};
use crate::signals::Interruptible;

/// An image that is being written.
pub(crate) enum Writer {
    /// A new directory beside the final place.
    NewDir { staged: TempDir, to: PathBuf },
    /// An OCI layout that exists.
    OldDir { to: PathBuf },
    /// A tar file beside the final place.
    Tar {
        tar: tar::Builder<NamedTempFile>,
        to: PathBuf,
        directories: Vec<String>,
    },
    /// A tar file that goes to standard output at the end.
    Stdout {
        tar: tar::Builder<File>,
        directories: Vec<String>,
    },
}

impl Writer {
    /// Starts writing to `place`.
    pub(crate) fn create(place: &Place) -> Result<Self, ImageError> {
        let to = place.path().to_owned();
        let name = to.display().to_string();
        if matches!(place, Place::OciDir(..)) {
            return Self::directory(to);
        }
        if name == "-" {
            let file = tempfile::tempfile().map_err(ImageError::io("create", "temporary file"))?;
            return Ok(Self::Stdout {
                tar: tar::Builder::new(file),
                directories: Vec::new(),
            });
        }
        if to.symlink_metadata().is_ok() {
            return Err(ImageError::Exists(name));
        }
        let file = Builder::new()
            .prefix(".plywood-")
            .permissions(PermissionsExt::from_mode(0o644))
            .tempfile_in(parent(&to))
            .map_err(ImageError::io("create a file beside", &name))?;
        Ok(Self::Tar {
            tar: tar::Builder::new(file),
            to,
            directories: Vec::new(),
        })
    }

    fn directory(to: PathBuf) -> Result<Self, ImageError> {
        let name = to.display().to_string();
        let is_empty = match fs::read_dir(&to) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => true,
            Err(error) => return Err(ImageError::io("read", &name)(error)),
        };
        if !is_empty {
            if to.join("oci-layout").is_file() {
                return Ok(Self::OldDir { to });
            }
            return Err(ImageError::Exists(name));
        }
        let staged = Builder::new()
            .prefix(".plywood-")
            .permissions(PermissionsExt::from_mode(0o755))
            .tempdir_in(parent(&to))
            .map_err(ImageError::io("create a directory beside", &name))?;
        Ok(Self::NewDir { staged, to })
    }

    /// Keeps others from changing the index of a layout that exists, until the result is dropped.
    #[expect(
        clippy::disallowed_methods,
        reason = "a layout is no store: there is no lock file to share with podman"
    )]
    pub(crate) fn lock(&self) -> Result<Option<File>, ImageError> {
        let Self::OldDir { to } = self else {
            return Ok(None);
        };
        let failed = ImageError::io("lock", to.display().to_string());
        let locked = File::open(to).and_then(|dir| {
            rustix::fs::flock(&dir, FlockOperation::LockExclusive)?;
            Ok(dir)
        });
        locked.map(Some).map_err(failed)
    }

    /// What the layout holds already.
    pub(crate) fn existing(&self, name: &str) -> Result<Option<Vec<u8>>, ImageError> {
        let Self::OldDir { to } = self else {
            return Ok(None);
        };
        match fs::read(to.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::io("read", name)(error)),
        }
    }

    /// An empty file on the file system of the final place, for [`Writer::put_file`].
    pub(crate) fn scratch(&self) -> Result<NamedTempFile, ImageError> {
        let directory = match self {
            Self::NewDir { staged, .. } => staged.path(),
            Self::OldDir { to } => to,
            Self::Tar { to, .. } => parent(to),
            Self::Stdout { .. } => &std::env::temp_dir(),
        };
        Builder::new()
            .prefix(".plywood-")
            .permissions(PermissionsExt::from_mode(0o644))
            .tempfile_in(directory)
            .map_err(ImageError::io(
                "create a file in",
                directory.display().to_string(),
            ))
    }

    /// Writes a file; an existing one of that name is replaced.
    pub(crate) fn put(&mut self, name: &str, bytes: &[u8]) -> Result<(), ImageError> {
        let mut file = self.scratch()?;
        file.write_all(bytes)
            .map_err(ImageError::io("write", name))?;
        self.put_file(name, file)
    }

    /// Gives what was written into a scratch file its name.
    pub(crate) fn put_file(&mut self, name: &str, file: NamedTempFile) -> Result<(), ImageError> {
        let failed = ImageError::io("write", name);
        match self {
            Self::NewDir { staged, .. } => publish(file, &staged.path().join(name)),
            Self::OldDir { to } => publish(file, &to.join(name)),
            Self::Tar {
                tar, directories, ..
            } => append(tar, directories, name, file),
            Self::Stdout { tar, directories } => append(tar, directories, name, file),
        }
        .map_err(failed)
    }

    /// Makes everything durable and visible under its name.
    pub(crate) fn finish(self) -> Result<(), ImageError> {
        match self {
            Self::NewDir { staged, to } => {
                let failed = ImageError::io("create", to.display().to_string());
                publish_dir(staged, &to).map_err(failed)
            }
            Self::OldDir { to } => {
                sync_dir(&to).map_err(ImageError::io("sync", to.display().to_string()))
            }
            Self::Tar { tar, to, .. } => {
                let failed = ImageError::io("write", to.display().to_string());
                publish_file(tar, &to).map_err(failed)
            }
            Self::Stdout { tar, .. } => {
                let copy = || {
                    let mut file = tar.into_inner()?;
                    file.seek(SeekFrom::Start(0))?;
                    let mut out = io::stdout().lock();
                    io::copy(&mut file, &mut out)?;
                    out.flush()
                };
                copy().map_err(ImageError::io("write", "standard output"))
            }
        }
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

/// Syncs and renames, so that a reader of the layout never sees half a file.
fn publish(file: NamedTempFile, to: &Path) -> io::Result<()> {
    let directory = parent(to);
    fs::create_dir_all(directory)?;
    file.as_file().sync_all()?;
    file.persist(to)?;
    sync_dir(directory)
}

fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn publish_dir(staged: TempDir, to: &Path) -> io::Result<()> {
    sync_dir(&staged.path().join("blobs"))?;
    sync_dir(staged.path())?;
    // Over an empty directory this works as well.
    fs::rename(staged.path(), to)?;
    // Its name is gone, so there is nothing to remove any more.
    drop(staged.keep());
    sync_dir(parent(to))
}

fn publish_file(tar: tar::Builder<NamedTempFile>, to: &Path) -> io::Result<()> {
    let file = tar.into_inner()?;
    file.as_file().sync_all()?;
    file.persist_noclobber(to)?;
    sync_dir(parent(to))
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    directories: &mut Vec<String>,
    name: &str,
    mut file: NamedTempFile,
) -> io::Result<()> {
    let mut at = 0;
    while let Some(slash) = name[at..].find('/') {
        at += slash + 1;
        let directory = name[..at].to_owned();
        if !directories.contains(&directory) {
            let mut header = header(0o755, 0);
            header.set_entry_type(tar::EntryType::Directory);
            tar.append_data(&mut header, &directory, io::empty())?;
            directories.push(directory);
        }
    }
    let size = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(0))?;
    tar.append_data(&mut header(0o644, size), name, Interruptible(file))
}

fn header(mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Taken for a missing one it would be replaced, and the images that it names be lost.
    #[test]
    fn an_index_that_cannot_be_read_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("oci-layout"), "{}").unwrap();
        fs::create_dir(dir.path().join("index.json")).unwrap();
        let writer = Writer::create(&Place::OciDir(dir.path().to_owned(), None)).unwrap();
        assert!(writer.existing("index.json").is_err());
        assert!(writer.existing("none").unwrap().is_none());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "as the code under test")]
    fn one_at_a_time_changes_the_index() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("oci-layout"), "{}").unwrap();
        let writer = Writer::create(&Place::OciDir(dir.path().to_owned(), None)).unwrap();
        let held = writer.lock().unwrap();
        let other = File::open(dir.path()).unwrap();
        let try_lock = || rustix::fs::flock(&other, FlockOperation::NonBlockingLockExclusive);
        assert!(try_lock().is_err());
        drop(held);
        try_lock().unwrap();
    }
}
