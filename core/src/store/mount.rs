// SPDX-License-Identifier: Apache-2.0
//! Mounting layers, containers and images.

use std::path::PathBuf;

use plywood_plugin_sdk::MountRequest;

use super::{MountOptions, Store};
use crate::{
    Error, ErrorKind, Result,
    layers::{LayersView, UnmountOptions, Unmounted},
    locking::order::Held,
};

impl Store {
    /// Mounts a layer or container, or counts one more use of its mount.
    ///
    /// # Behavior
    /// - For a container, the options, id maps and volatility recorded for it apply.
    ///
    /// # Errors
    /// `LayerUnknown`, `StoreIsReadOnly`, and what the driver or the kernel reports.
    ///
    /// # Locking
    /// `storage.lock` is held as long as it takes, so that nobody shuts the store down meanwhile.
    pub fn mount(&self, what: &str, options: &MountOptions) -> Result<PathBuf> {
        let mut request = MountRequest::default();
        request.read_only = options.read_only;
        request.label.clone_from(&options.label);
        let container = self.with_containers(|containers| Ok(containers.find(what).cloned()))?;
        let layer = match &container {
            Some(container) => {
                request.options = container.mount_options();
                request.id_maps = container.id_maps.clone();
                request.label = request.label.or_else(|| container.mount_label());
                request.volatile = container.is_volatile() && self.may_be_volatile();
                container.layer.as_str()
            }
            None => what,
        };
        request.options.extend(options.options.iter().cloned());
        self.mount_layer(layer, &request)
    }

    /// Mounts an image's top layer read-only, or counts one more use of that mount.
    ///
    /// # Errors
    /// `ImageUnknown`, `LayerUnknown`, `InvalidArgument` for an option that asks for writing, and
    /// what the driver or the kernel reports.
    ///
    /// # Locking
    /// As [`Store::mount`].
    pub fn mount_image(&self, what: &str, options: &MountOptions) -> Result<PathBuf> {
        if options.options.iter().any(|option| option == "rw") {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                "\"rw\" option not supported: an image is mounted read-only",
            )
            .subject("rw"));
        }
        let layer = self.image_layer(what)?;
        let mut request = MountRequest::default();
        request.read_only = true;
        request.label.clone_from(&options.label);
        request.options.clone_from(&options.options);
        self.mount_layer(&layer, &request)
    }

    fn mount_layer(&self, layer: &str, request: &MountRequest) -> Result<PathBuf> {
        let mut held = Held::nothing();
        let (_graph, mut held) = self.lock_graph(&mut held)?;
        let store = self.layer_store()?;
        let (mut layers, _) = store.write(&mut held)?;
        layers.mount(layer, request)
    }

    /// Takes back one mount, or with `force` all, of a layer, container or mount point; says
    /// whether it is still mounted.
    ///
    /// # Errors
    /// `LayerUnknown`, and what the driver or the kernel reports.
    pub fn unmount(&self, what: &str, force: bool) -> Result<bool> {
        let layer = self.layer_of(what)?;
        self.unmount_layer(&layer, force)
    }

    /// Takes back a mount of an image; says whether it is still mounted.
    ///
    /// # Errors
    /// `ImageUnknown`, `LayerUnknown`, and what the driver or the kernel reports.
    pub fn unmount_image(&self, what: &str, force: bool) -> Result<bool> {
        let layer = self.image_layer(what)?;
        self.unmount_layer(&layer, force)
    }

    fn unmount_layer(&self, layer: &str, force: bool) -> Result<bool> {
        let options = UnmountOptions {
            force,
            only_if_mounted: false,
        };
        let store = self.layer_store()?;
        let mut held = Held::nothing();
        let (mut layers, _) = store.write(&mut held)?;
        Ok(layers.unmount(layer, options)? == Unmounted::StillMounted)
    }

    /// How often a layer or container is mounted.
    ///
    /// # Errors
    /// `LayerUnknown`.
    pub fn mounted(&self, what: &str) -> Result<u32> {
        let layer = self.layer_of(what)?;
        self.with_layers(|layers| layers.mounted(&layer))
    }

    /// The layer of a container, or else what was given.
    fn layer_of(&self, what: &str) -> Result<String> {
        self.with_containers(|containers| {
            let layer = containers.find(what).map(|found| found.layer.clone());
            Ok(layer.unwrap_or_else(|| what.to_owned()))
        })
    }

    /// The layer that shows an image without id maps.
    fn image_layer(&self, what: &str) -> Result<String> {
        let image = self.image(what)?;
        self.with_layers(|layers| {
            let plain = |id: &&str| layers.get(id).is_ok_and(|layer| layer.id_maps.is_empty());
            let found = image.layers().find(plain).map(str::to_owned);
            found.ok_or_else(|| no_plain_layer(layers, what, image.top_layer.as_deref()))
        })
    }

    fn may_be_volatile(&self) -> bool {
        !self.options.disable_volatile
            && self
                .driver_if_any()
                .is_some_and(|driver| driver.capabilities().volatile_mounts)
    }
}

fn no_plain_layer(layers: &LayersView<'_>, image: &str, top: Option<&str>) -> Error {
    if top.is_some_and(|top| layers.exists(top)) {
        return Error::new(
            ErrorKind::NotSupported,
            "every layer of the image has id maps, and an image is mounted without",
        )
        .subject(image);
    }
    Error::new(ErrorKind::LayerUnknown, "layer not known").subject(image)
}
