// SPDX-License-Identifier: Apache-2.0
//! Making containers.

use plywood_plugin_sdk::{IdMaps, LayerKind};

use super::{Container, Image, Layer, NewContainer, NewLayer, Store};
use crate::{
    Error, ErrorKind, Result,
    images::ImagesRead,
    layers::LayersView,
    locking::order::{Held, RoImages, RoLayers},
};

type LockedImage<'held> = (
    Option<ImagesRead<'held>>,
    Option<Image>,
    Held<'held, RoImages>,
);

impl Store {
    /// Makes a container with a layer of its own on the image's top layer.
    ///
    /// # Errors
    /// `ImageUnknown`, `LayerUnknown` for the image's layer, `DuplicateId`, `DuplicateName`,
    /// `InvalidArgument`, `NotSupported` for id maps that the driver cannot show, and what the
    /// driver reports. Nothing is left behind.
    ///
    /// # Locking
    /// Layers, images and containers are locked together, so that nobody removes the image while
    /// the container is made.
    ///
    /// # Durability
    /// The layer is made before the container's record; each file of records is written once.
    pub fn create_container(&self, mut new: NewContainer) -> Result<Container> {
        let flags = new.recorded_flags()?;
        let layer_store = self.layer_store()?;
        let reaper;
        let error;
        {
            let mut held = Held::nothing();
            let (mut layers, mut held) = layer_store.write(&mut held)?;
            let (_images, image, mut held) = self.image_of(new.image.as_deref(), &mut held)?;
            let (mut containers, _) = self.containers.write(&mut held)?;
            containers.check_free(&new)?;

            let parent = match &image {
                Some(image) => self.top_layer_for(&layers, image, &new.id_maps)?,
                None => None,
            };
            let label = flags.text(crate::containers::MOUNT_LABEL);
            let layer = layers.create(&NewLayer {
                id: new.layer.take(),
                parent: parent.map(|layer| layer.id),
                mount_label: Some(label).filter(|label| !label.is_empty()),
                kind: LayerKind::ReadWrite,
                storage_options: std::mem::take(&mut new.storage_options),
                volatile: new.volatile,
                id_maps: self.layer_maps(&new.id_maps),
                ..NewLayer::default()
            })?;
            new.image = image.map(|image| image.id);
            match containers.create(new, &layer.id) {
                Ok(container) => return Ok(container),
                // What is recorded keeps its layer.
                Err(failure) if containers.may_be_recorded(&layer.id) => return Err(failure),
                Err(failure) => {
                    reaper = layers.delete(&[&layer.id]);
                    error = failure;
                }
            }
        }
        if let Err(cleanup) = reaper.and_then(crate::layers::Reaper::run) {
            tracing::warn!(
                ?cleanup,
                "the layer of a container that was not made stays behind"
            );
        }
        Err(error)
    }

    /// The image, with the images locked when there is one.
    fn image_of<'held>(
        &self,
        what: Option<&str>,
        held: &'held mut Held<'_, RoLayers>,
    ) -> Result<LockedImage<'held>> {
        let Some(what) = what else {
            return Ok((None, None, held.part().deeper()));
        };
        let (images, held) = self.images.read(held)?;
        let image = images.get(what)?;
        Ok((Some(images), Some(image), held))
    }

    /// Whether mounts show layers with the id maps of containers.
    fn shows_id_maps(&self) -> bool {
        self.driver_if_any()
            .is_some_and(|driver| driver.capabilities().idmapped_mounts)
    }

    /// The maps of a container's layer: none where the mount shows them.
    fn layer_maps(&self, id_maps: &IdMaps) -> IdMaps {
        if self.shows_id_maps() {
            IdMaps::default()
        } else {
            id_maps.clone()
        }
    }

    /// The layer that stands for the image when a container has these id maps.
    fn top_layer_for(
        &self,
        layers: &LayersView<'_>,
        image: &Image,
        id_maps: &IdMaps,
    ) -> Result<Option<Layer>> {
        if image.top_layer.is_none() {
            return Ok(None);
        }
        let idmapped = self.shows_id_maps();
        let mut first = None;
        for id in image.layers() {
            let Ok(layer) = layers.get(id) else { continue };
            if layer.id_maps == *id_maps || (idmapped && layer.id_maps.is_empty()) {
                return Ok(Some(layer));
            }
            first.get_or_insert(layer);
        }
        let what = image.top_layer.clone().unwrap_or_default();
        match first {
            None => Err(Error::new(ErrorKind::LayerUnknown, "layer not known")
                .subject(what)
                .hint("the image's top layer is missing; remove the image and pull it again")),
            Some(_) => Err(Error::new(
                ErrorKind::NotSupported,
                "no layer of the image has these id maps, and the driver cannot show it with them",
            )
            .subject(what)
            .hint("use a driver whose directories can be idmapped")),
        }
    }
}
