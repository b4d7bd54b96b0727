// SPDX-License-Identifier: Apache-2.0
//! What layers, images and containers have in common: ids, names, metadata.

use super::Store;
use crate::{
    Error, ErrorKind, Result, containers::ContainersView, images::ImagesView, layers::LayersView,
    locking::order::Held, records::names::NamesChange,
};

impl Store {
    /// Whether a layer, image or container is found by this text.
    ///
    /// # Errors
    /// What reading the records reports.
    pub fn exists(&self, what: &str) -> Result<bool> {
        let found = self.first_of(
            |layers| Ok(layers.exists(what).then_some(())),
            |images| Ok(images.find(what).map(drop)),
            |containers| Ok(containers.find(what).map(drop)),
        )?;
        Ok(found.is_some())
    }

    /// The id of a layer, image or container, by id, name or unique id prefix.
    ///
    /// # Errors
    /// `LayerUnknown` when nothing is found.
    pub fn lookup(&self, what: &str) -> Result<String> {
        self.first_of(
            |layers| found(layers.exists(what), || layers.lookup(what)),
            |images| Ok(images.find(what).map(|image| image.id.clone())),
            |containers| Ok(containers.find(what).map(|container| container.id.clone())),
        )?
        .ok_or_else(|| nothing_has(what))
    }

    /// The names of a layer, image or container.
    ///
    /// # Errors
    /// `LayerUnknown` when nothing is found.
    pub fn names(&self, what: &str) -> Result<Vec<String>> {
        self.first_of(
            |layers| found(layers.exists(what), || layers.names(what)),
            |images| Ok(images.find(what).map(|image| image.names.clone())),
            |containers| {
                Ok(containers
                    .find(what)
                    .map(|container| container.names.clone()))
            },
        )?
        .ok_or_else(|| nothing_has(what))
    }

    /// The metadata of a layer, image or container.
    ///
    /// # Errors
    /// `NotAnId` when nothing is found.
    pub fn metadata(&self, what: &str) -> Result<String> {
        self.first_of(
            |layers| found(layers.exists(what), || layers.metadata(what)),
            |images| Ok(images.find(what).map(|image| image.metadata.clone())),
            |containers| {
                Ok(containers
                    .find(what)
                    .map(|container| container.metadata.clone()))
            },
        )?
        .ok_or_else(|| no_id(what))
    }

    /// Replaces the metadata of a layer, image or container.
    ///
    /// # Errors
    /// `NotAnId` when nothing is found; `StoreIsReadOnly` for what is in a read-only store.
    pub fn set_metadata(&self, what: &str, metadata: &str) -> Result<()> {
        {
            let store = self.layer_store()?;
            let mut held = Held::nothing();
            let (mut layers, _) = store.write(&mut held)?;
            if layers.exists(what) {
                return layers.set_metadata(what, metadata);
            }
        }
        {
            let mut held = Held::nothing();
            let (mut images, _) = self.images.write(&mut held)?;
            if images.find(what).is_some() {
                return images.set_metadata(what, metadata);
            }
        }
        let mut held = Held::nothing();
        let (mut containers, _) = self.containers.write(&mut held)?;
        if containers.find(what).is_some() {
            return containers.set_metadata(what, metadata);
        }
        Err(no_id(what))
    }

    /// Replaces the names of a layer, image or container.
    ///
    /// # Behavior
    /// - A name that another object of the kind has moves here.
    /// - An image of a read-only store is copied into this one first.
    ///
    /// # Errors
    /// `LayerUnknown` when nothing is found; `StoreIsReadOnly` for a layer of a read-only store.
    pub fn set_names(&self, what: &str, names: &[String]) -> Result<()> {
        self.change_names(what, names, NamesChange::Set)
    }

    /// Puts names before those of a layer, image or container.
    ///
    /// # Behavior
    /// - As [`Store::set_names`].
    ///
    /// # Errors
    /// As [`Store::set_names`].
    pub fn add_names(&self, what: &str, names: &[String]) -> Result<()> {
        self.change_names(what, names, NamesChange::Add)
    }

    /// Takes names from a layer, image or container.
    ///
    /// # Errors
    /// As [`Store::set_names`].
    pub fn remove_names(&self, what: &str, names: &[String]) -> Result<()> {
        self.change_names(what, names, NamesChange::Remove)
    }

    fn change_names(&self, what: &str, names: &[String], change: NamesChange) -> Result<()> {
        {
            let store = self.layer_store()?;
            let mut held = Held::nothing();
            let (mut layers, _) = store.write(&mut held)?;
            if layers.exists(what) {
                return match change {
                    NamesChange::Set => layers.set_names(what, names),
                    NamesChange::Add => layers.add_names(what, names),
                    NamesChange::Remove => layers.remove_names(what, names),
                };
            }
        }
        {
            let mut held = Held::nothing();
            let (mut images, _) = self.images.write(&mut held)?;
            if let Ok(image) = images.get(what) {
                if image.read_only {
                    images.pull_up(&image)?;
                }
                return images.change_names(&image.id, names, change);
            }
        }
        let mut held = Held::nothing();
        let (mut containers, _) = self.containers.write(&mut held)?;
        if containers.find(what).is_some() {
            return containers.change_names(what, names, change);
        }
        Err(nothing_has(what))
    }

    /// Asks the layers, then the images, then the containers, each under its own lock.
    fn first_of<T>(
        &self,
        of_layers: impl FnOnce(&LayersView<'_>) -> Result<Option<T>>,
        of_images: impl FnOnce(&ImagesView<'_>) -> Result<Option<T>>,
        of_containers: impl FnOnce(&ContainersView) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        if let Some(answer) = self.with_layers(of_layers)? {
            return Ok(Some(answer));
        }
        if let Some(answer) = self.with_images(of_images)? {
            return Ok(Some(answer));
        }
        self.with_containers(of_containers)
    }

    /// Runs `ask` while the layers are locked for reading.
    pub(super) fn with_layers<T>(
        &self,
        ask: impl FnOnce(&LayersView<'_>) -> Result<T>,
    ) -> Result<T> {
        let store = self.layer_store()?;
        let mut held = Held::nothing();
        let (layers, _) = store.read(&mut held)?;
        ask(&layers)
    }

    /// Runs `ask` while the images are locked for reading.
    pub(super) fn with_images<T>(
        &self,
        ask: impl FnOnce(&ImagesView<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut held = Held::nothing();
        let (images, _) = self.images.read(&mut held)?;
        ask(&images)
    }

    /// Runs `ask` while the containers are locked for reading.
    pub(super) fn with_containers<T>(
        &self,
        ask: impl FnOnce(&ContainersView) -> Result<T>,
    ) -> Result<T> {
        let mut held = Held::nothing();
        let (containers, _) = self.containers.read(&mut held)?;
        ask(&containers)
    }
}

fn found<T>(exists: bool, answer: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    if exists { answer().map(Some) } else { Ok(None) }
}

fn nothing_has(what: &str) -> Error {
    Error::new(ErrorKind::LayerUnknown, "layer not known").subject(what)
}

fn no_id(what: &str) -> Error {
    Error::new(
        ErrorKind::NotAnId,
        "identifier is not a layer, image, or container",
    )
    .subject(what)
}
