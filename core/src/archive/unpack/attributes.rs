// SPDX-License-Identifier: Apache-2.0
//! Owners, modes, times and extended attributes of what is unpacked.

use rustix::fs::{Timespec, Timestamps};

use plywood_plugin_sdk::{IdMap, to_host};

use crate::{
    Result,
    archive::{
        error::{ArchiveError, printable},
        header::{EntryType, Time},
        reader::Entry,
    },
};

/// Where a file's own attributes are kept when all files are stored with one mode.
pub(super) const OVERRIDE_ATTRIBUTE: &str = "user.containers.override_stat";

/// The last second that 64 bits of nanoseconds can hold.
const MAX_SECONDS: i64 = i64::MAX / 1_000_000_000;

/// The host's id for `id` in the entry called `name`.
pub(super) fn host_id(maps: &[IdMap], id: i64, name: &[u8]) -> Result<u32> {
    // The largest number means "leave as it is" to the kernel.
    let Some(valid) = u32::try_from(id).ok().filter(|id| *id != u32::MAX) else {
        let name = printable(name);
        return Err(ArchiveError::InvalidId { name, id }.into());
    };
    to_host(maps, valid).ok_or_else(|| {
        let name = printable(name);
        ArchiveError::UnmappedId { name, id }.into()
    })
}

/// Refuses what an overlay mount would take for its own marks, also after the kernel has cut the
/// numbers of a device to the 12 and 20 bits that it has for them.
pub(super) fn refuse_reserved(entry: &Entry) -> Result<()> {
    let name = || printable(&entry.name);
    let (major, minor) = entry.device;
    let is_device = matches!(
        entry.kind,
        EntryType::CharacterDevice | EntryType::BlockDevice
    );
    if is_device && (major >= 1 << 12 || minor >= 1 << 20) {
        let name = name();
        return Err(ArchiveError::InvalidDevice { name, major, minor }.into());
    }
    if entry.kind == EntryType::CharacterDevice && entry.device == (0, 0) {
        return Err(ArchiveError::ReservedDevice { name: name() }.into());
    }
    let mut keys = entry.attributes.keys();
    let is_reserved =
        |key: &&Vec<u8>| key.starts_with(b"trusted.overlay.") || key.starts_with(b"user.overlay.");
    match keys.find(is_reserved) {
        Some(key) => {
            let attribute = printable(key);
            Err(ArchiveError::ReservedAttribute {
                name: name(),
                attribute,
            }
            .into())
        }
        None => Ok(()),
    }
}

/// The times to set; never a last access before the last change.
///
/// Times that Go's `os.Chtimes` cannot take become the epoch (`pkg/system/chtimes.go`); symbolic
/// links are set by another call there, without that limit.
pub(super) fn times(entry: &Entry) -> Timestamps {
    let accessed = entry.atime.unwrap_or_default().max(entry.mtime);
    let clamp = |time: Time| {
        let fits = (0..MAX_SECONDS).contains(&time.seconds);
        if fits || entry.kind == EntryType::SymbolicLink {
            time
        } else {
            Time::default()
        }
    };
    let spec = |time: Time| Timespec {
        tv_sec: time.seconds,
        tv_nsec: time.nanoseconds.into(),
    };
    Timestamps {
        last_access: spec(clamp(accessed)),
        last_modification: spec(clamp(entry.mtime)),
    }
}

/// The value of the override attribute: `UID:GID:0MODE:TYPE`.
pub(super) fn override_value(entry: &Entry, (uid, gid): (u32, u32)) -> String {
    let (major, minor) = entry.device;
    let kind = match entry.kind {
        EntryType::Directory => "dir".to_owned(),
        EntryType::SymbolicLink => "symlink".to_owned(),
        EntryType::Fifo => "pipe".to_owned(),
        EntryType::BlockDevice => format!("block-{major}-{minor}"),
        EntryType::CharacterDevice => format!("char-{major}-{minor}"),
        _ => "file".to_owned(),
    };
    format!("{uid}:{gid}:0{:o}:{kind}", entry.mode)
}

/// Attributes that the host decides.
pub(super) fn is_ignored(attribute: &[u8]) -> bool {
    attribute == b"security.selinux"
}
