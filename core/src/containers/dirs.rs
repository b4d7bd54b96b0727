// SPDX-License-Identifier: Apache-2.0
//! Directories in which callers keep their own files beside a container.

use std::{
    fs, io,
    path::{Component, Path, PathBuf},
};

use super::{Container, ContainersView};
use crate::{
    Error, ErrorKind, Result,
    durable::{self, Durability},
    store::{make_dir, record_dir},
};

/// The name of the caller's directory inside the record's.
pub(crate) const USER_DATA: &str = "userdata";

/// Which of a container's two directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// As long as the container.
    Container,
    /// Until the next restart of the host.
    Boot,
}

impl ContainersView {
    /// The caller's directory of a container, without making it.
    pub(crate) fn directory_of(
        &self,
        container: &Container,
        lifetime: Lifetime,
    ) -> Result<PathBuf> {
        let dir = match lifetime {
            Lifetime::Container => &self.shared.dir,
            Lifetime::Boot => &self.shared.run_dir,
        };
        Ok(record_dir(dir, &container.id)?.join(USER_DATA))
    }

    /// The caller's directory of a container; made (0700) when it is missing.
    ///
    /// # Errors
    /// `ContainerUnknown`, and what making the directory reports.
    pub fn directory(&self, what: &str, lifetime: Lifetime) -> Result<PathBuf> {
        let dir = self.directory_of(self.get(what)?, lifetime)?;
        make_dir(&dir)?;
        Ok(dir)
    }
}

/// Replaces a file in a caller's directory, making directories on the way.
///
/// # Errors
/// `InvalidArgument` for a name that leads out of the directory.
pub(crate) fn write_file(directory: &Path, file: &str, data: &[u8]) -> Result<()> {
    let path = inside(directory, file)?;
    if let Some(parent) = path.parent() {
        make_dir(parent)?;
    }
    durable::write_file(&path, data, Durability::Full)
}

/// Reads a file in a caller's directory.
///
/// # Errors
/// `InvalidArgument` for a name that leads out of the directory, `BigDataMissing` when there is no
/// such file.
pub(crate) fn read_file(directory: &Path, file: &str) -> Result<Vec<u8>> {
    let path = inside(directory, file)?;
    fs::read(&path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Error::new(
            ErrorKind::BigDataMissing,
            format!("open {}: no such file or directory", path.display()),
        )
        .subject(file),
        _ => Error::io("cannot read", &path, error),
    })
}

fn inside(directory: &Path, file: &str) -> Result<PathBuf> {
    let plain = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    let mut parts = Path::new(file).components();
    if file.is_empty() || !parts.all(plain) {
        return Err(Error::new(
            ErrorKind::InvalidArgument,
            format!("not the name of a file inside the container's directory: {file:?}"),
        )
        .subject(file));
    }
    Ok(directory.join(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_stay_inside_their_directory() {
        let dir = tempfile::tempdir().unwrap();
        write_file(dir.path(), "a/b.json", b"x").unwrap();
        assert_eq!(read_file(dir.path(), "a/b.json").unwrap(), b"x");
        for bad in ["", "../x", "/etc/passwd", "a/../../x"] {
            let error = write_file(dir.path(), bad, b"x").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
        }
        let missing = read_file(dir.path(), "no").unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::BigDataMissing);
    }
}
