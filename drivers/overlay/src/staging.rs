// SPDX-License-Identifier: Apache-2.0
//! Layers in the making and layers on their way out, in private places that whoever comes after a
//! crash reclaims.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, IoContext, LayerId, Result,
    toolkit::{self, TempDir},
};

use crate::{
    layout::{Attributes, Layout, Place, make_dir, sync_dir},
    link::Chain,
};

/// Where the places are.
pub(crate) const PLACES: &str = "tempdirs";

/// The places that this instance holds, by token.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<HashMap<String, Held>>);

#[derive(Debug)]
struct Held {
    place: TempDir,
    /// The staged `diff`; nothing in a place for what is removed.
    staged: PathBuf,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Held>> {
        // Each operation on the map is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, held: Held) -> String {
        let token = held.place.name();
        self.lock().insert(token.clone(), held);
        token
    }

    fn take(&self, token: &str) -> Result<Held> {
        self.lock().remove(token).ok_or_else(|| unknown(token))
    }

    /// The staged directory of `token`.
    pub(crate) fn staged(&self, token: &str) -> Result<PathBuf> {
        let places = self.lock();
        let held = places.get(token).ok_or_else(|| unknown(token))?;
        Ok(held.staged.clone())
    }

    /// Makes a place with an empty `diff` in it.
    pub(crate) fn stage(&self, home: &Path, attributes: &Attributes) -> Result<(String, PathBuf)> {
        let mut place = TempDir::create(&home.join(PLACES))?;
        let staged = place.addition();
        make_dir(&staged, attributes.mode, attributes.inner)?;
        let token = self.hold(Held {
            place,
            staged: staged.clone(),
        });
        Ok((token, staged))
    }

    /// Gives a place up with everything in it.
    pub(crate) fn discard(&self, token: &str) -> Result<()> {
        self.take(token)?.place.close()
    }

    /// Makes the layer `id` of what is staged.
    ///
    /// # Behavior
    /// - The layer is built in the private place and appears whole by one rename.
    /// - When it fails, what was staged stays staged.
    pub(crate) fn adopt(
        &self,
        layout: &Layout,
        token: &str,
        id: &LayerId,
        attributes: &Attributes,
        chain: Option<&Chain>,
    ) -> Result<()> {
        let mut held = self.take(token)?;
        let dir = held.place.addition();
        let published = publish(layout, &held.staged, &dir, id, attributes, chain);
        match published {
            Ok(()) => held.place.close(),
            Err(error) => {
                let place = Place {
                    dir,
                    home: layout.home.clone(),
                    own: true,
                };
                let undone = unpublish(&held.staged, &place);
                self.hold(held);
                undone.and(Err(error))
            }
        }
    }

    /// Moves a layer out of the way; `None` when there is none.
    pub(crate) fn trash(&self, layout: &Layout, place: &Place) -> Result<Option<String>> {
        if fs::symlink_metadata(&place.dir).is_err() {
            return Ok(None);
        }
        if toolkit::is_mount_point(&place.dir.join("merged"))? {
            let message = format!(
                "the layer is mounted at `{}`",
                place.dir.join("merged").display()
            );
            return Err(DriverError::new(DriverErrorCode::BUSY, message)
                .object(place.dir.display().to_string())
                .remedy("unmount it first"));
        }
        let mut trash = TempDir::create(&layout.home.join(PLACES))?;
        if let Some(link) = place.read_link()? {
            trash.take(&layout.links().join(link.as_str()))?;
        }
        let moved = trash.take(&place.dir)?;
        if layout.durable {
            sync_dir(&layout.home)?;
        }
        let Some(staged) = moved else {
            trash.close()?;
            return Ok(None);
        };
        Ok(Some(self.hold(Held {
            place: trash,
            staged,
        })))
    }
}

fn unknown(token: &str) -> DriverError {
    let message = format!("nothing is staged as `{token}`");
    DriverError::new(DriverErrorCode::NOT_FOUND, message).object(token)
}

fn publish(
    layout: &Layout,
    staged: &Path,
    dir: &Path,
    id: &LayerId,
    attributes: &Attributes,
    chain: Option<&Chain>,
) -> Result<()> {
    // 1. Everything but the files, with `link` and `lower` on disk.
    layout.build(dir, id, attributes, chain)?;
    // 2. The files, over the empty directory.
    let diff = dir.join("diff");
    fs::rename(staged, &diff).at("cannot move into place", &diff)?;
    if layout.durable {
        sync_dir(dir)?;
    }
    // 3. The layer.
    let layer = layout.dir(id);
    fs::rename(dir, &layer).at("cannot publish", &layer)?;
    if layout.durable {
        sync_dir(&layout.home)?;
    }
    Ok(())
}

/// Takes back what [`publish`] did before it failed.
fn unpublish(staged: &Path, place: &Place) -> Result<()> {
    if fs::symlink_metadata(&place.dir).is_err() {
        return Ok(());
    }
    if fs::symlink_metadata(staged).is_err() {
        fs::rename(place.diff(), staged).at("cannot move back", staged)?;
    }
    Layout::unlink(place)?;
    toolkit::remove_tree(&place.dir)
}
