// SPDX-License-Identifier: Apache-2.0
//! Layers in the making and layers on their way out, in private places that whoever comes after a
//! crash reclaims.

use std::{fs, path::Path};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, IoContext, LayerId, Result,
    toolkit::{self, Held, TempDir, temp_dir},
};

use crate::{
    layout::{Attributes, Layout, Place, absent, sync_dir},
    link::Chain,
};

/// Where the places are.
pub(crate) const PLACES: &str = "tempdirs";

impl Layout {
    /// Makes a place with an empty `diff` in it.
    pub(crate) fn stage(&self, attributes: &Attributes) -> Result<Held> {
        let mut place = TempDir::create_to_build(&self.home.join(PLACES))?;
        let content = place.addition();
        attributes.make_diff(&content)?;
        Ok(Held { place, content })
    }

    /// Makes the layer `id` of what is staged.
    ///
    /// # Behavior
    /// - The layer is built in the private place and appears whole by one rename.
    /// - When it fails, what was staged stays staged.
    pub(crate) fn adopt(
        &self,
        held: &mut Held,
        id: &LayerId,
        attributes: &Attributes,
        chain: Option<&Chain>,
    ) -> Result<()> {
        let dir = held.place.addition();
        let published = self.publish(&held.content, &dir, id, attributes, chain);
        published.or_else(|error| {
            let home = self.home.clone();
            let own = true;
            held.place.spend_reserve();
            unpublish(&held.content, &Place { dir, home, own }).and(Err(error))
        })
    }

    fn publish(
        &self,
        staged: &Path,
        dir: &Path,
        id: &LayerId,
        attributes: &Attributes,
        chain: Option<&Chain>,
    ) -> Result<()> {
        // 1. Everything but the files and the link, with `link` and `lower` on disk.
        let link = self.build_parts(dir, None, attributes, chain)?;
        // 2. The files, over the empty directory.
        let diff = dir.join("diff");
        fs::rename(staged, &diff).at("cannot move into place", &diff)?;
        if self.durable {
            sync_dir(dir)?;
        }
        // 3. The layer.
        let layer = self.dir(id);
        fs::rename(dir, &layer).at("cannot publish", &layer)?;
        // 4. Its link. Before, a crash would leave a link that names nothing, which breaks the
        //    link repair of 1.43; a layer without a link can be repaired by everyone.
        let linked = self.make_link(&link, id).and_then(|()| {
            if self.durable {
                sync_dir(&self.links())?;
                sync_dir(&self.home)?;
            }
            Ok(())
        });
        linked.or_else(|error| {
            fs::rename(&layer, dir).at("cannot take back", &layer)?;
            Err(error)
        })
    }

    /// Deletes the places of dead processes, and the links of layers that were built there and
    /// never published; returns the names of the places.
    pub(crate) fn recover_places(&self) -> Result<Vec<String>> {
        temp_dir::recover_with(&self.home.join(PLACES), |place| {
            let entries = match fs::read_dir(place) {
                Err(error) if absent(&error) => return Ok(()),
                other => other.at("cannot list", place)?,
            };
            for entry in entries {
                let dir = entry.at("cannot list", place)?.path();
                let home = self.home.clone();
                let own = true;
                let built = Place { dir, home, own };
                let Some(link) = built.read_link()? else {
                    continue;
                };
                // A file of that name in a layer's content, too, comes by here; only a link that
                // leads nowhere belongs to nobody.
                let link = self.links().join(link.as_str());
                if fs::metadata(&link).is_err_and(|error| absent(&error)) {
                    Self::unlink(&built)?;
                }
            }
            Ok(())
        })
    }

    /// Moves a layer out of the way; `None` when there is none.
    pub(crate) fn trash(&self, place: &Place) -> Result<Option<Held>> {
        if !toolkit::is_there(&place.dir)? {
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
        let mut trash = TempDir::create(&self.home.join(PLACES))?;
        // The link first: one that names nothing breaks the link repair of 1.43.
        let link = place
            .read_link()?
            .map(|link| self.links().join(link.as_str()));
        let taken = link
            .as_ref()
            .map(|link| trash.take(link))
            .transpose()?
            .flatten();
        let additional = fs::read_to_string(place.dir.join("additionallayer")).ok();
        let moved = trash.take(&place.dir).or_else(|error| {
            if let (Some(taken), Some(link)) = (taken, link) {
                fs::rename(&taken, &link).at("cannot put back", &link)?;
            }
            Err(error)
        })?;
        if self.durable {
            sync_dir(&self.home)?;
        }
        if let Some(layer) = additional.filter(|layer| layer.starts_with('/')) {
            // How an additional layer store is told that one of its layers is not needed any more;
            // whatever it answers, there is nothing to be done here.
            drop(fs::remove_dir(layer));
        }
        match moved {
            Some(content) => Ok(Some(Held {
                place: trash,
                content,
            })),
            None => trash.close().map(|()| None),
        }
    }
}

/// Takes back what [`Layout::publish`] did before it failed.
fn unpublish(staged: &Path, place: &Place) -> Result<()> {
    if !toolkit::is_there(&place.dir)? {
        return Ok(());
    }
    if !toolkit::is_there(staged)? {
        fs::rename(place.diff(), staged).at("cannot move back", staged)?;
    }
    take_down(place)
}

/// Removes what was built of a layer.
pub(crate) fn take_down(place: &Place) -> Result<()> {
    Layout::unlink(place)?;
    toolkit::remove_tree(&place.dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What an interruption before the layer appears leaves must not name it.
    #[test]
    fn the_link_is_made_after_the_layer() {
        let root = tempfile::tempdir().unwrap();
        let home = root.path().to_owned();
        let layout = Layout {
            home: home.clone(),
            stores: Vec::new(),
            durable: true,
        };
        fs::create_dir_all(layout.links()).unwrap();
        let id = LayerId::new("layer").unwrap();
        let found = fs::metadata(&home).unwrap();
        let owner = std::os::unix::fs::MetadataExt::uid(&found);
        let group = std::os::unix::fs::MetadataExt::gid(&found);
        let attributes = Attributes {
            outer: (owner, group),
            inner: (owner, group),
            mode: 0o755,
            like: None,
            content: None,
            ignore_chown_errors: false,
        };
        let mut held = layout.stage(&attributes).unwrap();
        let dir = held.place.addition();
        // The rename cannot replace it.
        fs::create_dir_all(layout.dir(&id).join("full")).unwrap();
        let refused = layout.publish(&held.content, &dir, &id, &attributes, None);
        assert!(refused.is_err());
        assert_eq!(fs::read_dir(layout.links()).unwrap().count(), 0);

        // When the link cannot be made, nothing of the layer stays, and the files stay staged.
        fs::rename(dir.join("diff"), &held.content).unwrap();
        toolkit::remove_tree(&layout.dir(&id)).unwrap();
        fs::remove_dir(layout.links()).unwrap();
        assert!(layout.adopt(&mut held, &id, &attributes, None).is_err());
        assert!(!layout.dir(&id).exists() && held.content.is_dir());
        fs::create_dir(layout.links()).unwrap();
        layout.adopt(&mut held, &id, &attributes, None).unwrap();
        let links: Vec<_> = fs::read_dir(layout.links()).unwrap().collect();
        let [Ok(link)] = &links[..] else {
            panic!("{links:?}")
        };
        assert!(link.path().join("").is_dir());
    }
}
