// SPDX-License-Identifier: Apache-2.0
//! Files that are replaced as a whole or not at all.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{self, Write},
    os::fd::OwnedFd,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Mode, OFlags};

use crate::{Error, ErrorKind, IoContext, Result};

/// What a write survives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// A power cut: the file and its directory are synchronised.
    #[default]
    Full,
    /// The death of the process only.
    None,
}

/// Replaces `path` by a file with these bytes.
///
/// # Errors
/// What the file system reports; the old file is untouched then.
///
/// # Durability
/// As asked for.
///
/// # Compatibility
/// As containers/storage does it, plus the synchronisation of the directory.
pub fn write_file(path: &Path, bytes: &[u8], durability: Durability) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes).at("cannot write", path)?;
    file.commit(durability)
}

/// Makes what was created, renamed or removed in `directory` survive a power cut.
///
/// # Errors
/// What `fsync(2)` reports.
pub fn sync_dir(directory: &Path) -> Result<()> {
    open_dir(directory)
        .and_then(rustix::fs::fsync)
        .at("cannot synchronise directory", directory)
}

/// A new version of a file, invisible until it is committed.
///
/// # Behavior
/// - It is written to `.tmp-NAMEDIGITS` (0600) beside the file; dropping it without a commit
///   removes that.
#[derive(Debug)]
#[must_use = "it is removed unless it is committed"]
pub struct AtomicFile {
    file: File,
    directory: OwnedFd,
    /// Empty once there is nothing left to remove.
    temporary: OsString,
    /// The last component of `target`.
    name: OsString,
    target: PathBuf,
}

impl AtomicFile {
    /// Begins a new version of `path`.
    ///
    /// # Errors
    /// What the file system reports.
    pub fn create(path: &Path) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("not the name of a file: `{}`", path.display()),
            )
        })?;
        let parent = parent_of(path);
        let directory = open_dir(parent).at("cannot open directory", parent)?;
        loop {
            let temporary = temporary_name(name).at("cannot name a temporary file for", path)?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            match rustix::fs::openat(&directory, &temporary, flags, Mode::from(0o600)) {
                Ok(file) => {
                    return Ok(Self {
                        file: file.into(),
                        directory,
                        temporary,
                        name: name.to_owned(),
                        target: path.to_owned(),
                    });
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error).at("cannot create a temporary file for", path),
            }
        }
    }

    /// The file that is being written, for instance to copy into it.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Puts the new version in place.
    ///
    /// # Errors
    /// What the file system reports. The old file is in place unless only the synchronisation of
    /// the directory failed.
    ///
    /// # Durability
    /// [`Durability::Full`]: content first, then the rename, then the directory.
    pub fn commit(mut self, durability: Durability) -> Result<()> {
        let target = self.target.clone();
        if durability == Durability::Full {
            rustix::fs::fdatasync(&self.file).at("cannot synchronise", &target)?;
        }
        // The mode of the open call went through the umask.
        rustix::fs::fchmod(&self.file, Mode::from(0o600)).at("cannot set the mode of", &target)?;
        tracing::trace!(target: "plywood::step", step = "durable.written");
        rustix::fs::renameat(
            &self.directory,
            &self.temporary,
            &self.directory,
            &self.name,
        )
        .at("cannot replace", &target)?;
        tracing::trace!(target: "plywood::step", step = "durable.replaced");
        self.temporary.clear();
        if durability == Durability::Full {
            let parent = parent_of(&target);
            rustix::fs::fsync(&self.directory).at("cannot synchronise directory", parent)?;
        }
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if self.temporary.is_empty() {
            return;
        }
        let removed = rustix::fs::unlinkat(&self.directory, &self.temporary, AtFlags::empty());
        if let Err(error) = removed {
            tracing::warn!(
                file = %parent_of(&self.target).join(&self.temporary).display(),
                %error,
                "cannot remove a temporary file"
            );
        }
    }
}

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn open_dir(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// `.tmp-NAMEDIGITS`; a name that is too long to be extended is cut.
fn temporary_name(name: &OsStr) -> io::Result<OsString> {
    const LONGEST: usize = 255 - ".tmp-".len() - "4294967295".len();
    let number = getrandom::u32().map_err(io::Error::other)?;
    let mut temporary = OsString::from(".tmp-");
    let bytes = name.as_bytes();
    temporary.push(OsStr::from_bytes(&bytes[..bytes.len().min(LONGEST)]));
    temporary.push(number.to_string());
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn entries(dir: &Path) -> usize {
        fs::read_dir(dir).unwrap().count()
    }

    #[test]
    fn a_file_is_replaced_with_mode_0600() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("layers.json");
        for (text, durability) in [("[]", Durability::Full), ("[{}]", Durability::None)] {
            write_file(&path, text.as_bytes(), durability).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        assert_eq!(entries(dir.path()), 1);
    }

    #[test]
    fn nothing_is_left_of_what_is_not_committed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        write_file(&path, b"old", Durability::None).unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"new").unwrap();
        assert_eq!(entries(dir.path()), 2);
        drop(file);
        assert_eq!(fs::read(&path).unwrap(), b"old");

        fs::create_dir(dir.path().join("d")).unwrap();
        let refused = write_file(&dir.path().join("d"), b"x", Durability::Full).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Io);
        assert_eq!(entries(dir.path()), 2);
    }

    #[test]
    fn the_longest_name_can_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("n".repeat(255));
        write_file(&path, b"x", Durability::Full).unwrap();
        assert_eq!(fs::read(path).unwrap(), b"x");
    }

    #[test]
    fn a_missing_directory_is_named() {
        let error = write_file(Path::new("/nowhere/at/all"), b"", Durability::Full).unwrap_err();
        assert_eq!(error.to_string(), "cannot open directory `/nowhere/at`");
    }
}
