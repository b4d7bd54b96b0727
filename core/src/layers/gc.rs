// SPDX-License-Identifier: Apache-2.0
//! Garbage collection: what no record knows.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use plywood_plugin_sdk::{LayerId, toolkit::remove_tree};

use super::{access::LayersWrite, delete::Reaper, intent::Intent};
use crate::{Error, IoContext, Result};

const TAR_SPLIT: &str = ".tar-split.gz";

impl LayersWrite<'_> {
    /// Removes everything below the layer store's directory and the driver's home that belongs to
    /// no recorded layer; returns what it was, for people.
    ///
    /// # Behavior
    /// - What other processes stage at the moment is left alone: their staging places are locked,
    ///   and everything else is made while the layers lock is held.
    ///
    /// # Errors
    /// What listing reports; what cannot be deleted is reported by the [`Reaper`].
    pub fn garbage_collect(&mut self) -> Result<(Vec<String>, Reaper)> {
        self.fresh()?;
        self.sweep()?;
        let mut reclaimed = std::mem::take(&mut self.shared.state().reclaimed);
        let (found, reaper) = self.collect_unrecorded()?;
        reclaimed.extend(found);
        Ok((reclaimed, reaper))
    }

    /// Layers that have content and no record, when crashes have been cleaned up after.
    pub(crate) fn without_record(&mut self) -> Result<BTreeSet<LayerId>> {
        self.fresh()?;
        self.sweep()?;
        self.unrecorded()
    }

    fn unrecorded(&self) -> Result<BTreeSet<LayerId>> {
        let mut ids = BTreeSet::new();
        if let Some(driver) = &self.shared.driver
            && driver.capabilities().list
        {
            ids.extend(driver.list()?);
        }
        ids.extend(files_of_layers(&self.shared.dir)?);
        ids.retain(|id| self.table.get(id.as_str()).is_none());
        Ok(ids)
    }

    pub(super) fn collect_unrecorded(&mut self) -> Result<(Vec<String>, Reaper)> {
        let shared = Arc::clone(&self.shared);
        let mut reclaimed = Vec::new();
        let ids = self.unrecorded()?;
        reclaimed.extend(
            ids.iter()
                .map(|id| format!("layer {id}, which has no record")),
        );
        let mut unfinished =
            temporary_files(&shared.dir, &["layers.json", "volatile-layers.json"])?;
        unfinished.extend(self.unfinished_mount_records()?);
        for path in unfinished {
            match remove_tree(&path) {
                Ok(()) => reclaimed.push(path.display().to_string()),
                Err(error) => tracing::warn!(%error, "a temporary file stays"),
            }
        }
        if ids.is_empty() {
            return Ok((reclaimed, Reaper::default()));
        }
        let ids: Vec<LayerId> = ids.into_iter().collect();
        let intent = Intent::begin(&shared)?;
        for id in &ids {
            intent.note(id)?;
        }
        Ok((reclaimed, shared.move_away(&ids, intent)))
    }
}

/// Ids of 64 hex digits that have a tar-split record or big data.
fn files_of_layers(dir: &Path) -> Result<BTreeSet<LayerId>> {
    let mut ids = BTreeSet::new();
    for name in names_in(dir)? {
        let id = name.strip_suffix(TAR_SPLIT).unwrap_or(&name);
        let is_drawn = id.len() == 64 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_drawn {
            ids.extend(LayerId::new(id).ok());
        }
    }
    Ok(ids)
}

/// Versions of record files that were never finished. Nobody is writing one, since that is done
/// while the lock of the records is held for writing.
pub(super) fn temporary_files(dir: &Path, of: &[&str]) -> Result<Vec<PathBuf>> {
    let is_ours = |name: &str| {
        let rest = name.strip_prefix(".tmp-").unwrap_or_default();
        of.iter()
            .filter_map(|file| rest.strip_prefix(file))
            .any(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
    };
    let names = names_in(dir)?.into_iter();
    Ok(names
        .filter(|name| is_ours(name))
        .map(|name| dir.join(name))
        .collect())
}

fn names_in(dir: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io("cannot list", dir, error)),
        Ok(entries) => entries,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry.at("cannot list", dir)?.file_name().into_string().ok());
    }
    Ok(names)
}
