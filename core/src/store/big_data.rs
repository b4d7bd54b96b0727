// SPDX-License-Identifier: Apache-2.0
//! Named blobs of layers, images and containers.

use std::io::Read;

use super::{Image, ManifestDigest, Store};
use crate::{Digest, IoContext, Result, locking::order::Held};

impl Store {
    /// The keys of a layer's items.
    ///
    /// # Errors
    /// `LayerUnknown`.
    pub fn list_layer_big_data(&self, what: &str) -> Result<Vec<String>> {
        self.with_layers(|layers| layers.big_data_names(what))
    }

    /// A layer's item.
    ///
    /// # Errors
    /// `LayerUnknown`, `BigDataMissing`, `InvalidBigDataName`.
    pub fn layer_big_data(&self, what: &str, key: &str) -> Result<Vec<u8>> {
        let mut file = self.with_layers(|layers| layers.big_data(what, key))?;
        let mut data = Vec::new();
        file.read_to_end(&mut data)
            .at("cannot read big data item", key)?;
        Ok(data)
    }

    /// Stores a layer's item.
    ///
    /// # Errors
    /// `LayerUnknown`, `StoreIsReadOnly`, `InvalidBigDataName`.
    pub fn set_layer_big_data(&self, what: &str, key: &str, data: &[u8]) -> Result<()> {
        let store = self.layer_store()?;
        let mut held = Held::nothing();
        let (mut layers, _) = store.write(&mut held)?;
        layers.set_big_data(what, key, data)
    }

    /// The keys of an image's items.
    ///
    /// # Errors
    /// `ImageUnknown`.
    pub fn list_image_big_data(&self, what: &str) -> Result<Vec<String>> {
        self.with_images(|images| Ok(images.get(what)?.big_data_names))
    }

    /// An image's item.
    ///
    /// # Errors
    /// `ImageUnknown`, `BigDataMissing`, `InvalidBigDataName`.
    pub fn image_big_data(&self, what: &str, key: &str) -> Result<Vec<u8>> {
        self.with_images(|images| images.big_data(what, key))
    }

    /// The size of an image's item.
    ///
    /// # Errors
    /// `ImageUnknown`, `SizeUnknown`.
    pub fn image_big_data_size(&self, what: &str, key: &str) -> Result<u64> {
        self.with_images(|images| images.big_data_size(what, key))
    }

    /// The digest of an image's item.
    ///
    /// # Errors
    /// `ImageUnknown`, `DigestUnknown`.
    pub fn image_big_data_digest(&self, what: &str, key: &str) -> Result<Digest> {
        self.with_images(|images| images.big_data_digest(what, key))
    }

    /// Stores an image's item; the digest of a manifest comes from `manifest_digest`, or else is
    /// SHA-256.
    ///
    /// # Errors
    /// `ImageUnknown`, `StoreIsReadOnly`, `InvalidBigDataName`, and what `manifest_digest` returns.
    pub fn set_image_big_data(
        &self,
        what: &str,
        key: &str,
        data: &[u8],
        manifest_digest: Option<ManifestDigest<'_>>,
    ) -> Result<()> {
        let digest = match manifest_digest {
            Some(digest) if Image::key_is_manifest(key) => {
                Some(digest(data).map_err(|error| error.prefixed("digesting manifest"))?)
            }
            _ => None,
        };
        let mut held = Held::nothing();
        let (mut images, _) = self.images.write(&mut held)?;
        images.set_big_data(what, key, data, digest)
    }

    /// The keys of a container's items.
    ///
    /// # Errors
    /// `ContainerUnknown`.
    pub fn list_container_big_data(&self, what: &str) -> Result<Vec<String>> {
        self.with_containers(|containers| Ok(containers.get(what)?.big_data_names.clone()))
    }

    /// A container's item.
    ///
    /// # Errors
    /// `ContainerUnknown`, `BigDataMissing`, `InvalidBigDataName`.
    pub fn container_big_data(&self, what: &str, key: &str) -> Result<Vec<u8>> {
        self.with_containers(|containers| containers.big_data(what, key))
    }

    /// The size of a container's item.
    ///
    /// # Errors
    /// `ContainerUnknown`, `SizeUnknown`.
    pub fn container_big_data_size(&self, what: &str, key: &str) -> Result<u64> {
        self.with_containers(|containers| containers.big_data_size(what, key))
    }

    /// The digest of a container's item.
    ///
    /// # Errors
    /// `ContainerUnknown`, `DigestUnknown`.
    pub fn container_big_data_digest(&self, what: &str, key: &str) -> Result<Digest> {
        self.with_containers(|containers| containers.big_data_digest(what, key))
    }

    /// Stores a container's item.
    ///
    /// # Errors
    /// `ContainerUnknown`, `InvalidBigDataName`.
    pub fn set_container_big_data(&self, what: &str, key: &str, data: &[u8]) -> Result<()> {
        let mut held = Held::nothing();
        let (mut containers, _) = self.containers.write(&mut held)?;
        containers.set_big_data(what, key, data)
    }
}
