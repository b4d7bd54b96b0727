// SPDX-License-Identifier: Apache-2.0
//! Opens the recorded files below a layer's directories and checks what is read.

use std::{
    ffi::OsStr,
    io,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use crc_fast::{CrcAlgorithm, Digest as Crc};
use memchr::memmem;
use rustix::{
    fs::{Mode, OFlags, ResolveFlags, openat, openat2},
    io::Errno,
};

use crate::{Error, ErrorKind, IoContext, Result, archive::quote::quote};

/// The directories in which a layer's files are looked for, nearest first.
pub(super) struct Roots(Vec<Root>);

struct Root {
    path: PathBuf,
    fd: OnceLock<OwnedFd>,
}

impl Root {
    fn fd(&self) -> Result<&OwnedFd> {
        if let Some(fd) = self.fd.get() {
            return Ok(fd);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = openat(rustix::fs::CWD, &self.path, flags, Mode::empty())
            .at("cannot open the layer's directory", &self.path)?;
        Ok(self.fd.get_or_init(|| fd))
    }
}

/// An open file and where it was found.
pub(super) struct Opened<'a> {
    fd: OwnedFd,
    root: &'a Path,
}

impl Roots {
    /// Opens the first directory; the others are opened when they are needed.
    pub(super) fn open(paths: &[PathBuf]) -> Result<Self> {
        let roots: Vec<Root> = paths
            .iter()
            .map(|path| Root {
                path: path.clone(),
                fd: OnceLock::new(),
            })
            .collect();
        if let Some(first) = roots.first() {
            first.fd()?;
        }
        Ok(Self(roots))
    }

    /// Opens the file of an entry in the first directory that has it.
    pub(super) fn open_file(&self, name: &[u8]) -> Result<Opened<'_>> {
        let cleaned;
        let mut inside = name;
        if memmem::find(name, b"..").is_some() {
            cleaned = clean(name);
            inside = &cleaned;
        }
        // A regular file's name may carry slashes at both ends in a tar.
        while let [b'/', rest @ ..] | [rest @ .., b'/'] = inside {
            inside = rest;
        }
        if inside.is_empty() {
            inside = b".";
        }
        for root in &self.0 {
            match open_inside(root.fd()?, inside) {
                Ok(fd) => {
                    return Ok(Opened {
                        fd,
                        root: &root.path,
                    });
                }
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(Errno::LOOP) => {
                    return Err(damaged(name, "is a symlink where the record has a file"));
                }
                // Sockets, and devices without a driver: the whiteout 0:0 is one.
                Err(Errno::NXIO | Errno::NODEV) => return Err(not_a_file(name)),
                Err(errno) => {
                    let path = root.path.join(OsStr::from_bytes(inside));
                    return Err(errno).at("cannot open", path);
                }
            }
        }
        Err(damaged(name, "is missing from the layer"))
    }

    /// Fills `place` with the content of a file and checks it.
    pub(super) fn read_whole(&self, name: &[u8], place: &mut [u8], crc: u64) -> Result<()> {
        let file = self.open_file(name)?;
        read_exactly(&file, name, place)?;
        if crc_fast::checksum(CrcAlgorithm::Crc64GoIso, place) != crc {
            return Err(mismatch(name, file.root));
        }
        Ok(())
    }
}

/// A large file on its way: what is left of it and the checksum so far.
pub(super) struct Content {
    name: Vec<u8>,
    left: u64,
    crc: u64,
    sum: Crc,
}

impl Content {
    pub(super) fn new(name: Vec<u8>, size: u64, crc: u64) -> Self {
        Self {
            name,
            left: size,
            crc,
            sum: Crc::new(CrcAlgorithm::Crc64GoIso),
        }
    }

    pub(super) fn name(&self) -> &[u8] {
        &self.name
    }

    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Reads the next bytes; checks the whole after the last.
    pub(super) fn read(&mut self, file: &Opened<'_>, place: &mut [u8]) -> Result<usize> {
        let count = usize::try_from(self.left).map_or(place.len(), |left| left.min(place.len()));
        read_exactly(file, &self.name, &mut place[..count])?;
        self.sum.update(&place[..count]);
        self.left -= count as u64;
        if self.left == 0 && self.sum.finalize() != self.crc {
            return Err(mismatch(&self.name, file.root));
        }
        Ok(count)
    }
}

fn read_exactly(file: &Opened<'_>, name: &[u8], mut place: &mut [u8]) -> Result<()> {
    while !place.is_empty() {
        match rustix::io::read(&file.fd, &mut *place) {
            Ok(0) => return Err(damaged(name, "is shorter than the record says")),
            Ok(count) => place = &mut place[count..],
            Err(Errno::INTR) => {}
            Err(Errno::ISDIR) => return Err(not_a_file(name)),
            Err(errno) => {
                let path = file.root.join(OsStr::from_bytes(name));
                return Err(io::Error::from(errno)).at("cannot read", path);
            }
        }
    }
    Ok(())
}

fn open_inside(root: &OwnedFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    // Without NONBLOCK a FIFO in a file's place would block for ever.
    let flags =
        OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let mut tries = 0;
    loop {
        match openat2(root, name, flags, Mode::empty(), resolve) {
            // The kernel could not rule out a rename of a parent while it resolved "..".
            Err(Errno::AGAIN) if tries < 16 => tries += 1,
            other => return other,
        }
    }
}

/// Removes `.` and resolves `..` by name alone, as containers/storage does.
fn clean(name: &[u8]) -> Vec<u8> {
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join(&b'/')
}

fn mismatch(name: &[u8], root: &Path) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!("file integrity checksum failed for {}", quote(name)),
    )
    .subject(subject(name, Some(root)))
    .hint("the file was changed after the layer was stored; delete the layer and pull it again")
}

fn not_a_file(name: &[u8]) -> Error {
    damaged(name, "is not a regular file any more")
}

fn damaged(name: &[u8], what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("file {} {what}", quote(name)))
        .subject(subject(name, None))
        .hint("the layer was changed after it was stored; delete it and pull it again")
}

fn subject(name: &[u8], root: Option<&Path>) -> String {
    let name = Path::new(OsStr::from_bytes(name));
    let path = root.map_or_else(|| name.to_path_buf(), |root| root.join(name));
    path.display().to_string()
}
