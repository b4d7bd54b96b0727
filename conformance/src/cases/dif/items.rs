// SPDX-License-Identifier: Apache-2.0
//! The entries of a stream, as a reader that is not core's sees them.

use std::{
    collections::BTreeMap, ffi::OsStr, io::Read as _, os::unix::ffi::OsStrExt as _, path::PathBuf,
};

use nix::sys::stat::{SFlag, makedev};
use tar::{Archive, EntryType};

use crate::{
    case::Failure,
    manifest::{self, Facts, Manifest},
};

/// One entry, with what its extended header says.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) name: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) link: Vec<u8>,
    pub(super) records: BTreeMap<String, Vec<u8>>,
    pub(super) data: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    device: (u32, u32),
    /// Whole seconds, also negative.
    pub(super) mtime: i64,
}

impl Item {
    /// The path without slashes at its ends.
    pub(super) fn path(&self) -> String {
        let text = String::from_utf8_lossy(&self.name);
        text.trim_matches('/').to_owned()
    }

    /// The names of the extended attributes.
    pub(super) fn xattrs(&self) -> Vec<&str> {
        let names = self.records.keys();
        names
            .filter_map(|key| key.strip_prefix("SCHILY.xattr."))
            .collect()
    }
}

fn bytes_path(name: &[u8]) -> PathBuf {
    let end = name.iter().rposition(|byte| *byte != b'/');
    raw_path(&name[..end.map_or(0, |end| end + 1)])
}

fn raw_path(name: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(name))
}

/// The tree that the entries describe; what is extracted from them must be that.
pub(super) fn tree(items: &[Item]) -> Manifest {
    let mut tree = Manifest::default();
    let mut groups: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for item in items {
        let path = bytes_path(&item.name);
        if item.kind == EntryType::Link {
            let first = bytes_path(&item.link);
            if let Some(facts) = tree.0.get(&first).cloned() {
                tree.0.insert(path.clone(), facts);
            }
            groups.entry(first).or_default().push(path);
            continue;
        }
        let kind = match item.kind {
            EntryType::Directory => SFlag::S_IFDIR,
            EntryType::Symlink => SFlag::S_IFLNK,
            EntryType::Char => SFlag::S_IFCHR,
            EntryType::Block => SFlag::S_IFBLK,
            EntryType::Fifo => SFlag::S_IFIFO,
            _ => SFlag::S_IFREG,
        };
        let device = makedev(item.device.0.into(), item.device.1.into());
        let facts = Facts {
            mode: kind.bits() | item.mode,
            owner: item.owner,
            mtime: i128::from(item.mtime) * 1_000_000_000,
            device: if kind == SFlag::S_IFCHR || kind == SFlag::S_IFBLK {
                device
            } else {
                0
            },
            content: (kind == SFlag::S_IFREG).then(|| manifest::hash(&item.data)),
            target: (kind == SFlag::S_IFLNK).then(|| raw_path(&item.link)),
            link_of: None,
            xattrs: BTreeMap::new(),
        };
        tree.0.insert(path, facts);
    }
    for (first, mut names) in groups {
        names.push(first);
        names.sort();
        for name in &names {
            if let Some(facts) = tree.0.get_mut(name) {
                facts.link_of = names.first().cloned();
            }
        }
    }
    tree
}

/// Reads a whole stream.
pub(super) fn read(stream: &[u8]) -> Result<Vec<Item>, Failure> {
    let mut archive = Archive::new(stream);
    let mut items = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let mut records = BTreeMap::new();
        if let Some(found) = entry.pax_extensions()? {
            for record in found {
                let record = record?;
                let key = String::from_utf8_lossy(record.key_bytes()).into_owned();
                records.insert(key, record.value_bytes().to_vec());
            }
        }
        let seconds = records.get("mtime").map(|value| {
            let text = String::from_utf8_lossy(value).into_owned();
            text.split('.').next().unwrap_or_default().parse::<i64>()
        });
        let mtime = match seconds {
            Some(seconds) => seconds?,
            None => i64::try_from(entry.header().mtime()?)?,
        };
        let mut data = Vec::new();
        let (name, link) = (
            entry.path_bytes().into_owned(),
            entry.link_name_bytes().unwrap_or_default().into_owned(),
        );
        let kind = entry.header().entry_type();
        let number = |key: &str, field: u64| -> Result<u32, Failure> {
            let text = records.get(key).map(|value| String::from_utf8_lossy(value));
            match text {
                Some(text) => Ok(text.parse()?),
                None => Ok(u32::try_from(field)?),
            }
        };
        let header = entry.header();
        let owner = (number("uid", header.uid()?)?, number("gid", header.gid()?)?);
        let mode = header.mode()? & 0o7777;
        let device = (
            header.device_major()?.unwrap_or(0),
            header.device_minor()?.unwrap_or(0),
        );
        entry.read_to_end(&mut data)?;
        items.push(Item {
            name,
            kind,
            link,
            records,
            data,
            mode,
            owner,
            device,
            mtime,
        });
    }
    Ok(items)
}
