// SPDX-License-Identifier: Apache-2.0
//! The entries of a stream, as a reader that is not core's sees them.

use std::{collections::BTreeMap, io::Read as _};

use tar::{Archive, EntryType};

use crate::case::Failure;

/// One entry, with what its extended header says.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) name: Vec<u8>,
    pub(super) kind: EntryType,
    pub(super) link: Vec<u8>,
    pub(super) records: BTreeMap<String, Vec<u8>>,
    pub(super) data: Vec<u8>,
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
        entry.read_to_end(&mut data)?;
        items.push(Item {
            name,
            kind,
            link,
            records,
            data,
            mtime,
        });
    }
    Ok(items)
}
