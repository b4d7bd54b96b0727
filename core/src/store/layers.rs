// SPDX-License-Identifier: Apache-2.0
//! Making layers and moving their content.

use std::io::{Read, Write};

use plywood_plugin_sdk::{CreateRequest, LayerId};

use super::{Change, DiffOptions, Layer, NewLayer, ParentOwners, Store};
use crate::{
    Error, ErrorKind, Result,
    layers::{LayersView, PutOptions},
    locking::order::{Held, RoLayers},
    records::{check_new_id, new_id},
};

impl Store {
    /// Makes an empty layer.
    ///
    /// # Errors
    /// `LayerUnknown` for the parent, `ParentIsContainer`, `DuplicateId`, `DuplicateName`,
    /// `InvalidArgument`, and what the driver reports.
    ///
    /// # Durability
    /// The records are written once, after the driver's work.
    pub fn create_layer(&self, new: NewLayer) -> Result<Layer> {
        let new = self.with_default_maps(new);
        let store = self.layer_store()?;
        let mut held = Held::nothing();
        let (mut layers, mut held) = store.write(&mut held)?;
        let parent = new.parent.as_deref();
        let parent = parent.map(|parent| layers.lookup(parent)).transpose()?;
        self.check_parent(parent.as_deref(), &mut held)?;
        layers.create(&new)
    }

    /// Makes a layer and fills it from a tar stream, compressed or not; also returns the bytes of
    /// the uncompressed stream.
    ///
    /// # Errors
    /// As [`Store::create_layer`], and `InvalidArchive`.
    ///
    /// # Durability
    /// The layer appears whole or not at all.
    pub fn put_layer(&self, new: NewLayer, stream: impl Read + Send) -> Result<(Layer, u64)> {
        self.put_layer_with(new, stream, PutOptions::default())
    }

    /// As [`Store::put_layer`], with limits, progress and a way to stop.
    ///
    /// # Errors
    /// As [`Store::put_layer`].
    pub fn put_layer_with(
        &self,
        new: NewLayer,
        stream: impl Read + Send,
        options: PutOptions<'_>,
    ) -> Result<(Layer, u64)> {
        let new = self.with_default_maps(new);
        let callers = options.check;
        let check =
            |layers: &LayersView<'_>, parent: Option<&str>, held: &mut Held<'_, RoLayers>| {
                self.check_parent(parent, held)?;
                callers.map_or(Ok(()), |check| check(layers, parent, held))
            };
        let options = PutOptions {
            check: Some(&check),
            ..options
        };
        let mut held = Held::nothing();
        self.layer_store()?.put(&mut held, &new, stream, options)
    }

    /// Unpacks a tar stream into an existing layer; returns the bytes of the uncompressed stream.
    ///
    /// # Errors
    /// `LayerUnknown`, `StoreIsReadOnly`, `InvalidArchive`.
    pub fn apply_diff(&self, what: &str, stream: impl Read + Send) -> Result<u64> {
        let mut held = Held::nothing();
        let options = PutOptions::default();
        self.layer_store()?.apply(&mut held, what, stream, options)
    }

    /// Makes a layer in the driver alone, without a record; returns its id.
    ///
    /// # Errors
    /// `InvalidArgument`, `DriverUnavailable`, and what the driver reports.
    pub fn create_driver_layer(&self, new: NewLayer) -> Result<String> {
        let driver = self.driver()?;
        let id = match &new.id {
            Some(id) => id.clone(),
            None => new_id()?,
        };
        check_new_id(&id)?;
        let driver_id = |id: &str| {
            LayerId::new(id).map_err(|error| {
                Error::new(ErrorKind::InvalidArgument, error.to_string()).subject(id)
            })
        };
        let store = self.layer_store()?;
        let mut held = Held::nothing();
        let (layers, _) = store.write(&mut held)?;
        // A parent may be known to the driver alone.
        let parent = new.parent.as_deref().map(|parent| {
            let known = layers.lookup(parent);
            driver_id(known.as_deref().unwrap_or(parent))
        });
        let mut request = CreateRequest::new(driver_id(&id)?, parent.transpose()?);
        request.kind = new.kind;
        request.mount_label = new.mount_label;
        request.storage_options = new.storage_options;
        request.id_maps = new.id_maps;
        driver.create(&request)?;
        drop(layers);
        Ok(id)
    }

    /// What differs between two layers; without `from`, between a layer and its parent.
    ///
    /// # Errors
    /// `LayerUnknown`, and what reading the layers reports.
    pub fn changes(&self, from: Option<&str>, to: &str) -> Result<Vec<Change>> {
        let mut held = Held::nothing();
        self.layer_store()?.changes(&mut held, from, to)
    }

    /// The size of what differs.
    ///
    /// # Errors
    /// As [`Store::changes`].
    pub fn diff_size(&self, from: Option<&str>, to: &str) -> Result<u64> {
        let mut held = Held::nothing();
        self.layer_store()?.diff_size(&mut held, from, to)
    }

    /// Writes what differs as a tar stream; returns the bytes before compression.
    ///
    /// # Behavior
    /// - Against its own parent, a layer that was filled from a stream gives that stream back; a
    ///   layer that refers to a layer source gives the source's.
    ///
    /// # Errors
    /// As [`Store::changes`]; `NotSupported` for a compression that cannot be written.
    pub fn diff(
        &self,
        from: Option<&str>,
        to: &str,
        options: DiffOptions,
        out: &mut (dyn Write + Send),
    ) -> Result<u64> {
        let mut held = Held::nothing();
        let store = self.layer_store()?;
        store.diff(&mut held, from, to, options, out)
    }

    /// The recorded size of a layer's uncompressed stream; -1 when it is not known.
    ///
    /// # Errors
    /// `LayerUnknown`.
    pub fn layer_size(&self, what: &str) -> Result<i64> {
        self.with_layers(|layers| layers.size(what))
    }

    /// Owners of the directories above a layer's mount point that its id maps do not contain.
    ///
    /// # Errors
    /// `LayerUnknown`, `LayerNotMounted`.
    pub fn layer_parent_owners(&self, what: &str) -> Result<ParentOwners> {
        self.with_layers(|layers| {
            let (uids, gids) = layers.parent_owners(what)?;
            Ok(ParentOwners { uids, gids })
        })
    }

    /// The same for a container's layer.
    ///
    /// # Errors
    /// `ContainerUnknown`, and as [`Store::layer_parent_owners`].
    pub fn container_parent_owners(&self, what: &str) -> Result<ParentOwners> {
        let container = self.container(what)?;
        self.layer_parent_owners(&container.layer)
    }

    /// A base layer without id maps of its own gets the store's.
    pub(super) fn with_default_maps(&self, mut new: NewLayer) -> NewLayer {
        if new.parent.is_none() && new.id_maps.is_empty() {
            new.id_maps = self.options.id_maps.clone();
        }
        new
    }

    /// Nothing stands on a container's layer.
    pub(super) fn check_parent(
        &self,
        parent: Option<&str>,
        held: &mut Held<'_, RoLayers>,
    ) -> Result<()> {
        let Some(parent) = parent else { return Ok(()) };
        let (containers, _) = self.containers.read(held)?;
        match containers.by_layer(parent) {
            Some(container) => Err(Error::new(
                ErrorKind::ParentIsContainer,
                "would-be parent layer is a container",
            )
            .subject(&*container.id)),
            None => Ok(()),
        }
    }
}
