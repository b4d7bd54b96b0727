// SPDX-License-Identifier: Apache-2.0
//! Notes of what is being made or removed, so that whoever comes after a crash can finish it.
//!
//! A note is an empty file `intent-ID` in a private place below `tmp/`. While the place's lock is
//! held its owner is alive. Once it is not, a layer that is noted but not recorded has nothing that
//! anyone could miss, and everything of it is removed.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use plywood_plugin_sdk::{
    DriverError, LayerId,
    toolkit::temp_dir::{self, TempDir},
};

use super::{
    access::LayersView,
    options::{Shared, is_reserved},
};
use crate::{IoContext, Result};

const NOTE: &str = "intent-";

/// A private place with notes, until it is dropped or the process dies.
#[derive(Debug)]
#[must_use = "dropping it removes the notes"]
pub(super) struct Intent {
    pub(super) place: TempDir,
}

impl Intent {
    pub(super) fn begin(shared: &Shared) -> Result<Self> {
        Ok(Self {
            place: TempDir::create_to_build(&shared.tmp())?,
        })
    }

    /// Notes that something is about to be done to a layer that is not, or soon not, recorded.
    pub(super) fn note(&self, id: &LayerId) -> Result<()> {
        let path = self.place.path().join(format!("{NOTE}{id}"));
        File::create_new(&path)
            .map(drop)
            .or_else(|error| match error.kind() {
                io::ErrorKind::AlreadyExists => Ok(()),
                _ => Err(error),
            })
            .at("cannot create", &path)
    }

    /// Moves the files of a layer beside its record into the place.
    pub(super) fn take_files(&mut self, shared: &Shared, id: &LayerId) -> Result<()> {
        if is_reserved(id.as_str()) {
            return Ok(());
        }
        self.place.take(&Shared::tar_split(&shared.dir, id))?;
        self.place.take(&Shared::data_dir(&shared.dir, id))?;
        Ok(())
    }

    /// Deletes the place with everything in it.
    pub(super) fn close(self) -> Result<()> {
        Ok(self.place.close()?)
    }
}

impl Shared {
    /// Removes what there is of layers that dead processes noted and nobody recorded.
    ///
    /// The layers lock is held for writing. Returns what was reclaimed, for people.
    pub(super) fn recover_intents(&self, view: &LayersView<'_>) -> Result<Vec<String>> {
        let mut reclaimed = Vec::new();
        let places = temp_dir::recover_with(&self.tmp(), |place| {
            for id in noted(place)? {
                if view.table.get(id.as_str()).is_none() && self.discard_unrecorded(&id) {
                    reclaimed.push(format!("what an interrupted operation left of layer {id}"));
                }
            }
            Ok(())
        })?;
        let places = places.into_iter();
        reclaimed.extend(places.map(|place| format!("{}", self.tmp().join(place).display())));
        Ok(reclaimed)
    }

    /// Removes everything of a layer that has no record; says whether there was anything.
    pub(super) fn discard_unrecorded(&self, id: &LayerId) -> bool {
        let mut found = false;
        if let Some(driver) = &self.driver {
            match driver.exists(id) {
                Ok(false) => {}
                _ => match self.with_room(id, || driver.remove(id)) {
                    Ok(_) => found = true,
                    Err(error) => {
                        tracing::warn!(layer = %id, ?error, "an unrecorded layer stays");
                    }
                },
            }
        }
        if is_reserved(id.as_str()) {
            return found;
        }
        let files = [
            Shared::tar_split(&self.dir, id),
            Shared::data_dir(&self.dir, id),
        ];
        for path in files {
            if fs::symlink_metadata(&path).is_err() {
                continue;
            }
            match plywood_plugin_sdk::toolkit::remove_tree(&path) {
                Ok(()) => found = true,
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a leftover stays");
                }
            }
        }
        found
    }
}

fn noted(place: &Path) -> plywood_plugin_sdk::Result<Vec<LayerId>> {
    let failed = |error: io::Error| DriverError::io("cannot list", place, &error);
    let entries = match fs::read_dir(place) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        let id = name.to_str().and_then(|name| name.strip_prefix(NOTE));
        ids.extend(id.and_then(|id| LayerId::new(id).ok()));
    }
    Ok(ids)
}
