// SPDX-License-Identifier: Apache-2.0
//! Removing layers, images and containers safely.

use std::collections::{BTreeSet, HashSet};

use plywood_plugin_sdk::LayerId;

use super::{Container, Store, remove_orphan};
use crate::{
    Error, ErrorKind, Result,
    containers::{ContainersView, ContainersWrite},
    images::{Image, ImagesView, ImagesWrite},
    layers::{LayersView, LayersWrite, Reaper},
    locking::order::Held,
};

impl Store {
    /// Removes a container with its layer, or an image record (its layers stay), or a layer.
    ///
    /// # Behavior
    /// - What something else uses is refused, as by the methods for one kind.
    ///
    /// # Compatibility
    /// containers/storage removes without these checks.
    ///
    /// # Errors
    /// `LayerUnknown` when nothing is found, and those of the methods for one kind.
    pub fn delete(&self, what: &str) -> Result<()> {
        self.change_all(|layers, images, containers| {
            if let Some(container) = containers.find(what).cloned() {
                return delete_container(layers, containers, &container);
            }
            if let Some(image) = images.find_own(what).cloned() {
                check_image_unused(&image, containers)?;
                images.delete(&image.id)?;
                return Ok(Reaper::default());
            }
            if layers.exists(what) {
                return delete_layer(layers, images, containers, what);
            }
            Err(Error::new(ErrorKind::LayerUnknown, "layer not known").subject(what))
        })
    }

    /// Removes a layer that nothing uses.
    ///
    /// # Errors
    /// `NotALayer`, `LayerHasChildren`, `LayerUsedByImage`, `LayerUsedByContainer`,
    /// `StoreIsReadOnly`.
    ///
    /// # Compatibility
    /// The name of a layer is resolved before the checks; containers/storage skips them then.
    pub fn delete_layer(&self, what: &str) -> Result<()> {
        self.change_all(|layers, images, containers| {
            if !layers.exists(what) {
                return Err(
                    Error::new(ErrorKind::NotALayer, "identifier is not a layer").subject(what),
                );
            }
            delete_layer(layers, images, containers, what)
        })
    }

    /// Removes an image that no container uses, and those of its layers that nothing else uses;
    /// returns the ids of the layers.
    ///
    /// # Behavior
    /// - Without `commit` it only says which layers would go.
    ///
    /// # Errors
    /// `NotAnImage`, also for an image of a read-only store; `ImageUsedByContainer`. What removing
    /// the image's data reports, when image and layers are gone.
    ///
    /// # Durability
    /// The image's record is removed first, then its layers' in one rewrite, then their content: a
    /// crash leaves layers without an image, never an image without layers.
    pub fn delete_image(&self, what: &str, commit: bool) -> Result<Vec<String>> {
        let mut doomed = Vec::new();
        self.change_all(|layers, images, containers| {
            let Some(image) = images.find_own(what).cloned() else {
                return Err(
                    Error::new(ErrorKind::NotAnImage, "identifier is not an image").subject(what),
                );
            };
            check_image_unused(&image, containers)?;
            doomed = layers_to_remove(&image, layers, images, containers);
            if !commit {
                return Ok(Reaper::default());
            }
            let mut data = images.delete(&image.id);
            if let Err(error) = &data
                && error.kind() == ErrorKind::NoSpace
                && images.may_be_recorded(&image.id)
            {
                layers.make_room(&doomed.iter().cloned().collect(), error);
                data = images.delete(&image.id);
            }
            // Without its record the image is gone: its layers go too, even if its data stays.
            if data.is_err() && images.may_be_recorded(&image.id) {
                return data.map(|()| Reaper::default());
            }
            // A mapped layer that is recorded in the image alone is no longer there.
            let present: Vec<&String> = doomed
                .iter()
                .filter(|id| layers.lookup(id).is_ok_and(|found| found == **id))
                .collect();
            let reaper = layers.delete(&present)?;
            data.map(|()| reaper)
        })?;
        Ok(doomed)
    }

    /// Removes a container with its layer and directories.
    ///
    /// # Errors
    /// `NotAContainer`, and what removing reports: the record stays then.
    pub fn delete_container(&self, what: &str) -> Result<()> {
        self.change_all(|layers, _, containers| {
            let Some(container) = containers.find(what).cloned() else {
                return Err(
                    Error::new(ErrorKind::NotAContainer, "identifier is not a container")
                        .subject(what),
                );
            };
            delete_container(layers, containers, &container)
        })
    }

    /// Removes every container, image and layer.
    ///
    /// # Errors
    /// The first failure; what was removed before it is gone.
    pub fn wipe(&self) -> Result<()> {
        self.change_all(|layers, images, containers| {
            containers.wipe()?;
            images.wipe()?;
            layers.wipe()
        })
    }

    /// Removes what belongs to no record, left behind by crashes; says what that was.
    ///
    /// # Errors
    /// `Corrupt` when an image or container needs a layer that lost its record: no layer is
    /// collected then. Otherwise the first failure; the rest is tried all the same.
    pub fn garbage_collect(&self) -> Result<Vec<String>> {
        let mut report = Vec::new();
        let mut failure = None;
        let orphans = {
            let mut held = Held::nothing();
            let (containers, _) = self.containers.write(&mut held)?;
            remove_orphans(containers.orphans(), &mut report)
        };
        failure = failure.or(orphans.err());
        let orphans = {
            let mut held = Held::nothing();
            let (images, _) = self.images.write(&mut held)?;
            remove_orphans(images.orphans(), &mut report)
        };
        failure = failure.or(orphans.err());
        let layer_store = self.layer_store()?;
        let reaper = {
            let mut held = Held::nothing();
            let (mut layers, mut held) = layer_store.write(&mut held)?;
            let (images, mut held) = self.images.read(&mut held)?;
            let (containers, _) = self.containers.read(&mut held)?;
            check_records(&layers.without_record()?, &images, &containers)?;
            let (mut reclaimed, reaper) = layers.garbage_collect()?;
            report.append(&mut reclaimed);
            reaper
        };
        failure = failure.or(reaper.run().err());
        failure.map_or(Ok(report), Err)
    }

    /// Runs `change` with everything locked for changes; what it removed is deleted afterwards.
    fn change_all(
        &self,
        change: impl FnOnce(
            &mut LayersWrite<'_>,
            &mut ImagesWrite<'_>,
            &mut ContainersWrite<'_>,
        ) -> Result<Reaper>,
    ) -> Result<()> {
        let layer_store = self.layer_store()?;
        let reaper = {
            let mut held = Held::nothing();
            let (mut layers, mut held) = layer_store.write(&mut held)?;
            let (mut images, mut held) = self.images.write(&mut held)?;
            let (mut containers, _) = self.containers.write(&mut held)?;
            change(&mut layers, &mut images, &mut containers)?
        };
        // The objects are gone for everyone; bytes that cannot be deleted now are found by the
        // next writer.
        if let Err(error) = reaper.run() {
            tracing::warn!(?error, "something that was removed is not deleted yet");
        }
        Ok(())
    }
}

fn remove_orphans(
    orphans: Result<Vec<std::path::PathBuf>>,
    report: &mut Vec<String>,
) -> Result<()> {
    for orphan in orphans? {
        remove_orphan(&orphan)?;
        report.push(orphan.display().to_string());
    }
    Ok(())
}

/// Content without a record that something needs is no leftover: the records were lost, and those
/// of the layers below it with them.
fn check_records(
    lost: &BTreeSet<LayerId>,
    images: &ImagesView<'_>,
    containers: &ContainersView,
) -> Result<()> {
    for layer in lost.iter().map(LayerId::as_str) {
        let image = images.own_by_layer(layer).next();
        let owner = match (image, containers.by_layer(layer)) {
            (Some(image), _) => format!("image {}", image.id),
            (None, Some(container)) => format!("container {}", container.id),
            (None, None) => continue,
        };
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("layer {layer} has no record, but {owner} needs it: no layer is collected"),
        )
        .subject(layer)
        .hint("restore the records of the layers from a backup, or delete what needs them first"));
    }
    Ok(())
}

fn check_image_unused(image: &Image, containers: &ContainersView) -> Result<()> {
    match containers.by_image(&image.id) {
        None => Ok(()),
        Some(container) => Err(Error::new(
            ErrorKind::ImageUsedByContainer,
            format!(
                "image used by {}: image is in use by a container",
                container.id
            ),
        )
        .subject(&*image.id)
        .hint(format!("remove container {} first", container.id))),
    }
}

fn delete_layer(
    layers: &mut LayersWrite<'_>,
    images: &mut ImagesWrite<'_>,
    containers: &ContainersView,
    what: &str,
) -> Result<Reaper> {
    let id = layers.lookup(what)?;
    if let Some(child) = layers.children(&id).first() {
        return Err(Error::new(
            ErrorKind::LayerHasChildren,
            format!("used by layer {child}: layer has children"),
        )
        .subject(&*id));
    }
    if let Some(image) = images
        .own_by_layer(&id)
        .find(|image| image.top_layer.as_deref() == Some(&*id))
    {
        return Err(Error::new(
            ErrorKind::LayerUsedByImage,
            format!(
                "layer {id} used by image {}: layer is in use by an image",
                image.id
            ),
        )
        .subject(&*id));
    }
    if let Some(container) = containers.by_layer(&id) {
        return Err(Error::new(
            ErrorKind::LayerUsedByContainer,
            format!(
                "layer {id} used by container {}: layer is in use by a container",
                container.id
            ),
        )
        .subject(&*id));
    }
    let reaper = layers.delete(&[&id])?;
    images.forget_mapped_layers(&[id])?;
    Ok(reaper)
}

/// The layer goes first: when that fails, the record still says that it is there. Then the
/// container's directories, then its record.
fn delete_container(
    layers: &mut LayersWrite<'_>,
    containers: &mut ContainersWrite<'_>,
    container: &Container,
) -> Result<Reaper> {
    let present = layers
        .lookup(&container.layer)
        .is_ok_and(|id| id == container.layer);
    let reaper = if present {
        layers.delete(&[&container.layer])?
    } else {
        Reaper::default()
    };
    containers.delete(&container.id)?;
    Ok(reaper)
}

/// The layers that go with an image: mapped copies of its top layer, then its chain from the top
/// down to the first layer that something else needs.
fn layers_to_remove(
    image: &Image,
    layers: &LayersView<'_>,
    images: &ImagesView<'_>,
    containers: &ContainersView,
) -> Vec<String> {
    let others: HashSet<&str> = images
        .own()
        .filter(|other| other.id != image.id)
        .flat_map(Image::layers)
        .collect();
    let mut doomed: Vec<String> = Vec::new();
    for mapped in &image.mapped_layers {
        let needed = others.contains(&**mapped)
            || containers.by_layer(mapped).is_some()
            || !layers.children(mapped).is_empty();
        if !needed {
            doomed.push(mapped.clone());
        }
    }
    let mut next = image.top_layer.clone();
    while let Some(id) = next.take() {
        let keeps = |child: &String| !doomed.contains(child);
        if others.contains(&*id)
            || containers.by_layer(&id).is_some()
            || layers.children(&id).iter().any(keeps)
            || doomed.contains(&id)
        {
            break;
        }
        // A layer of a read-only store, or one that is missing, ends the walk.
        let Some(layer) = layers.own_record(&id) else {
            break;
        };
        next.clone_from(&layer.parent);
        doomed.push(id);
    }
    doomed
}
