// SPDX-License-Identifier: Apache-2.0
//! Finding and listing.

use super::{Container, Image, Layer, MultiListOptions, MultiListResult, Store};
use crate::{
    Digest, Error, ErrorKind, Result,
    locking::order::{Held, RoImages, RoLayers},
};

impl Store {
    /// All layers, also those of read-only stores.
    ///
    /// # Errors
    /// What reading the records reports.
    pub fn layers(&self) -> Result<Vec<Layer>> {
        let store = self.layer_store()?;
        let mut held = Held::nothing();
        let (layers, _) = store.read(&mut held)?;
        Ok(layers.list())
    }

    /// All images, also those of read-only stores.
    ///
    /// # Errors
    /// What reading the records reports.
    pub fn images(&self) -> Result<Vec<Image>> {
        self.with_images(|images| Ok(images.list()))
    }

    /// All containers.
    ///
    /// # Errors
    /// What reading the records reports.
    pub fn containers(&self) -> Result<Vec<Container>> {
        self.with_containers(|containers| Ok(containers.list().cloned().collect()))
    }

    /// Lists several kinds as of one point in time.
    ///
    /// # Errors
    /// What reading the records reports.
    ///
    /// # Locking
    /// All locks of what is asked for are held together.
    pub fn multi_list(&self, options: MultiListOptions) -> Result<MultiListResult> {
        let layer_store = if options.layers {
            Some(self.layer_store()?)
        } else {
            None
        };
        let mut result = MultiListResult::default();
        let mut held = Held::nothing();
        let (layers, mut held) = match &layer_store {
            Some(store) => {
                let (layers, held) = store.read(&mut held)?;
                (Some(layers), held)
            }
            None => (None, held.part().deeper::<RoLayers>()),
        };
        let (images, mut held) = if options.images {
            let (images, held) = self.images.read(&mut held)?;
            (Some(images), held)
        } else {
            (None, held.part().deeper::<RoImages>())
        };
        if options.containers {
            let (containers, _) = self.containers.read(&mut held)?;
            result.containers = containers.list().cloned().collect();
        }
        if let Some(layers) = layers {
            result.layers = layers.list();
        }
        if let Some(images) = images {
            result.images = images.list();
        }
        Ok(result)
    }

    /// Ids of all layers that the driver has, recorded or not.
    ///
    /// # Errors
    /// `NotSupported` when the driver cannot list, `DriverUnavailable`.
    pub fn driver_layers(&self) -> Result<Vec<String>> {
        let driver = self.driver()?;
        let mut ids: Vec<String> = driver.list()?.iter().map(ToString::to_string).collect();
        ids.sort();
        Ok(ids)
    }

    /// A layer by id, name or unique id prefix.
    ///
    /// # Errors
    /// `LayerUnknown`.
    pub fn layer(&self, what: &str) -> Result<Layer> {
        self.with_layers(|layers| layers.get(what))
    }

    /// An image by id, name or unique id prefix.
    ///
    /// # Errors
    /// `ImageUnknown`.
    pub fn image(&self, what: &str) -> Result<Image> {
        self.with_images(|images| images.get(what))
    }

    /// A container by id, name, id of its layer, or unique id prefix.
    ///
    /// # Errors
    /// `ContainerUnknown`.
    pub fn container(&self, what: &str) -> Result<Container> {
        self.with_containers(|containers| containers.get(what).cloned())
    }

    /// The container whose layer has that id, name or unique id prefix.
    ///
    /// # Errors
    /// `LayerUnknown`, `ContainerUnknown`.
    pub fn container_by_layer(&self, layer: &str) -> Result<Container> {
        let id = self.with_layers(|layers| layers.lookup(layer))?;
        self.with_containers(|containers| {
            containers.by_layer(&id).cloned().ok_or_else(|| {
                Error::new(ErrorKind::ContainerUnknown, "container not known").subject(layer)
            })
        })
    }

    /// Layers that were filled from a stream with this digest.
    ///
    /// # Errors
    /// `LayerUnknown` when there is none.
    pub fn layers_by_compressed_digest(&self, digest: &Digest) -> Result<Vec<Layer>> {
        self.with_layers(|layers| some_layers(layers.by_compressed_digest(digest), digest))
    }

    /// Layers whose uncompressed stream has this digest.
    ///
    /// # Errors
    /// `LayerUnknown` when there is none.
    pub fn layers_by_uncompressed_digest(&self, digest: &Digest) -> Result<Vec<Layer>> {
        self.with_layers(|layers| some_layers(layers.by_diff_digest(digest), digest))
    }

    /// Layers whose chunked stream has a table of contents with this digest.
    ///
    /// # Errors
    /// `LayerUnknown` when there is none.
    pub fn layers_by_toc_digest(&self, digest: &Digest) -> Result<Vec<Layer>> {
        self.with_layers(|layers| some_layers(layers.by_toc_digest(digest), digest))
    }

    /// Images whose top layer, or a mapped copy of it, is that one.
    ///
    /// # Errors
    /// `LayerUnknown`.
    pub fn images_by_top_layer(&self, layer: &str) -> Result<Vec<Image>> {
        let id = self.with_layers(|layers| layers.lookup(layer))?;
        self.with_images(|images| Ok(images.by_layer(&id)))
    }

    /// Images that are found by this digest; none is no error.
    ///
    /// # Errors
    /// What reading the records reports.
    pub fn images_by_digest(&self, digest: &Digest) -> Result<Vec<Image>> {
        self.with_images(|images| Ok(images.by_digest(digest)))
    }
}

fn some_layers(layers: Vec<Layer>, digest: &Digest) -> Result<Vec<Layer>> {
    if layers.is_empty() {
        return Err(Error::new(
            ErrorKind::LayerUnknown,
            format!("locating layers with digest \"{digest}\": layer not known"),
        )
        .subject(digest.as_str()));
    }
    Ok(layers)
}
