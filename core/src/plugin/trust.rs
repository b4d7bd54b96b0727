// SPDX-License-Identifier: Apache-2.0
//! Who could have changed a plugin: loading one gives its author everything the program may do.

use std::{
    fs::{File, Metadata},
    io::{self, Read, Seek},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use data_encoding::HEXLOWER;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::{PluginError, Suspect, elf};

const WRITABLE_BY_OTHERS: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// Checks a plugin file as far as that is possible without loading it; returns its canonical path.
///
/// # Behavior
/// - A regular file that, like every directory above it, belongs to root or the caller and cannot
///   be written by others; a directory further up may be sticky.
/// - A complete shared object for this machine.
/// - Its SHA-256 is the pinned one when there is a pin.
pub(super) fn check(path: &Path, pin: Option<&str>) -> Result<PathBuf, PluginError> {
    let look = |source: io::Error| PluginError::Look {
        path: path.to_owned(),
        source,
    };
    let canonical = path.canonicalize().map_err(look)?;
    let kind = canonical.symlink_metadata().map_err(look)?;
    check_kind(&canonical, &kind)?;
    // Something else may stand there by now: opening a FIFO must not hang, and what is open is
    // what is checked. After the ownership check only root or the caller could exchange it.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOFOLLOW;
    let file: File = rustix::fs::open(&canonical, flags, Mode::empty())
        .map_err(|errno| look(errno.into()))?
        .into();
    let metadata = file.metadata().map_err(look)?;
    check_kind(&canonical, &metadata)?;
    check_owners(&canonical, &metadata)?;
    elf::check(&file, metadata.len()).map_err(|problem| PluginError::Elf {
        path: canonical.clone(),
        problem,
    })?;
    if let Some(pin) = pin {
        check_pin(&canonical, file, pin)?;
    }
    Ok(canonical)
}

fn check_kind(path: &Path, metadata: &Metadata) -> Result<(), PluginError> {
    let kind = metadata.file_type();
    let kind = if kind.is_file() {
        return Ok(());
    } else if kind.is_dir() {
        "a directory"
    } else if kind.is_fifo() {
        "a FIFO"
    } else if kind.is_socket() {
        "a socket"
    } else {
        "a device"
    };
    Err(PluginError::NotAFile {
        path: path.to_owned(),
        kind,
    })
}

fn check_owners(path: &Path, metadata: &Metadata) -> Result<(), PluginError> {
    let untrusted = |suspect| PluginError::Untrusted {
        path: path.to_owned(),
        suspect,
    };
    let caller = rustix::process::geteuid().as_raw();
    suspect(path, metadata, 0, caller).map_or(Ok(()), |suspect| Err(untrusted(suspect)))?;
    for (steps_up, directory) in path.ancestors().skip(1).enumerate() {
        let metadata = directory
            .symlink_metadata()
            .map_err(|source| PluginError::Look {
                path: directory.to_owned(),
                source,
            })?;
        // In a sticky directory others cannot replace what is not theirs, but they can add
        // files, so the directory that is searched for plugins may not be one.
        let allowed = if steps_up > 0 { STICKY } else { 0 };
        if let Some(suspect) = suspect(directory, &metadata, allowed, caller) {
            return Err(untrusted(suspect));
        }
    }
    Ok(())
}

fn suspect(path: &Path, metadata: &Metadata, allowed: u32, caller: u32) -> Option<Suspect> {
    let (path, uid, mode) = (path.to_owned(), metadata.uid(), metadata.mode() & 0o7777);
    if uid != 0 && uid != caller {
        Some(Suspect::Owner { path, uid })
    } else if mode & WRITABLE_BY_OTHERS != 0 && mode & allowed == 0 {
        Some(Suspect::Writable { path, mode })
    } else {
        None
    }
}

fn check_pin(path: &Path, mut file: File, pin: &str) -> Result<(), PluginError> {
    let found = file
        .rewind()
        .and_then(|()| sha256(file))
        .map_err(|source| PluginError::Look {
            path: path.to_owned(),
            source,
        })?;
    let expected = pin.strip_prefix("sha256:").unwrap_or(pin);
    if found.eq_ignore_ascii_case(expected) {
        return Ok(());
    }
    Err(PluginError::Digest {
        path: path.to_owned(),
        expected: expected.to_owned(),
        found,
    })
}

/// The SHA-256 of the rest of `file`, in hex.
pub(super) fn sha256(mut file: impl Read) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(HEXLOWER.encode(&hash.finalize())),
            Ok(length) => hash.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
