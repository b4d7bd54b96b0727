// SPDX-License-Identifier: Apache-2.0
//! The methods whose implementation is not merged yet.
#![allow(
    clippy::all,
    clippy::pedantic,
    dropping_references,
    reason = "replaced soon"
)]

use std::{
    io::{Read, Write},
    path::PathBuf,
};

use super::*;
use crate::{Error, ErrorKind};

fn pending(what: &str) -> Error {
    Error::new(ErrorKind::NotSupported, format!("{what} is not merged yet"))
}

impl Store {
    /// Pairs for people: roots, driver, options, and what the driver reports.
    ///
    /// # Errors
    /// TODO
    pub fn status(&self) -> Result<Vec<(String, String)>> {
        Err(pending("status"))
    }
    /// The version of this library.
    ///
    /// # Errors
    /// TODO
    pub fn version(&self) -> Result<Vec<(String, String)>> {
        Err(pending("version"))
    }
    /// Makes an empty layer.
    ///
    /// # Errors
    /// TODO
    pub fn create_layer(&self, new: NewLayer) -> Result<Layer> {
        drop((new,));
        Err(pending("create_layer"))
    }
    /// Makes a layer and fills it from a tar stream, compressed or not; also returns the bytes of the uncompressed stream.
    ///
    /// # Errors
    /// TODO
    pub fn put_layer(&self, new: NewLayer, stream: impl Read + Send) -> Result<(Layer, u64)> {
        drop((new, stream));
        Err(pending("put_layer"))
    }
    /// Unpacks a tar stream into an existing layer; returns the bytes of the uncompressed stream.
    ///
    /// # Errors
    /// TODO
    pub fn apply_diff(&self, id: &str, stream: impl Read + Send) -> Result<u64> {
        drop((id, stream));
        Err(pending("apply_diff"))
    }
    /// Makes an image.
    ///
    /// # Errors
    /// TODO
    pub fn create_image(&self, new: NewImage) -> Result<Image> {
        drop((new,));
        Err(pending("create_image"))
    }
    /// Makes a container with a layer of its own on the image's top layer.
    ///
    /// # Errors
    /// TODO
    pub fn create_container(&self, new: NewContainer) -> Result<Container> {
        drop((new,));
        Err(pending("create_container"))
    }
    /// Makes a layer in the driver alone, without a record; returns its id.
    ///
    /// # Errors
    /// TODO
    pub fn create_driver_layer(&self, new: NewLayer) -> Result<String> {
        drop((new,));
        Err(pending("create_driver_layer"))
    }
    /// All layers, also those of read-only stores.
    ///
    /// # Errors
    /// TODO
    pub fn layers(&self) -> Result<Vec<Layer>> {
        Err(pending("layers"))
    }
    /// All images, also those of read-only stores.
    ///
    /// # Errors
    /// TODO
    pub fn images(&self) -> Result<Vec<Image>> {
        Err(pending("images"))
    }
    /// All containers.
    ///
    /// # Errors
    /// TODO
    pub fn containers(&self) -> Result<Vec<Container>> {
        Err(pending("containers"))
    }
    /// Lists several kinds as of one point in time.
    ///
    /// # Errors
    /// TODO
    pub fn multi_list(&self, options: MultiListOptions) -> Result<MultiListResult> {
        drop((options,));
        Err(pending("multi_list"))
    }
    /// Ids of all layers that the driver has, recorded or not.
    ///
    /// # Errors
    /// TODO
    pub fn driver_layers(&self) -> Result<Vec<String>> {
        Err(pending("driver_layers"))
    }
    /// A layer by id, name or unique id prefix.
    ///
    /// # Errors
    /// TODO
    pub fn layer(&self, id: &str) -> Result<Layer> {
        drop((id,));
        Err(pending("layer"))
    }
    /// An image by id, name or unique id prefix.
    ///
    /// # Errors
    /// TODO
    pub fn image(&self, id: &str) -> Result<Image> {
        drop((id,));
        Err(pending("image"))
    }
    /// A container by id, name, id of its layer, or unique id prefix.
    ///
    /// # Errors
    /// TODO
    pub fn container(&self, id: &str) -> Result<Container> {
        drop((id,));
        Err(pending("container"))
    }
    /// The container whose layer has that id or name.
    ///
    /// # Errors
    /// TODO
    pub fn container_by_layer(&self, layer: &str) -> Result<Container> {
        drop((layer,));
        Err(pending("container_by_layer"))
    }
    /// Layers that were filled from a stream with this digest.
    ///
    /// # Errors
    /// TODO
    pub fn layers_by_compressed_digest(&self, digest: &Digest) -> Result<Vec<Layer>> {
        drop((digest,));
        Err(pending("layers_by_compressed_digest"))
    }
    /// Layers whose uncompressed stream has this digest.
    ///
    /// # Errors
    /// TODO
    pub fn layers_by_uncompressed_digest(&self, digest: &Digest) -> Result<Vec<Layer>> {
        drop((digest,));
        Err(pending("layers_by_uncompressed_digest"))
    }
    /// Layers whose chunked stream has a table of contents with this digest.
    ///
    /// # Errors
    /// TODO
    pub fn layers_by_toc_digest(&self, digest: &Digest) -> Result<Vec<Layer>> {
        drop((digest,));
        Err(pending("layers_by_toc_digest"))
    }
    /// Images whose top layer, or a mapped copy of it, is that one.
    ///
    /// # Errors
    /// TODO
    pub fn images_by_top_layer(&self, layer: &str) -> Result<Vec<Image>> {
        drop((layer,));
        Err(pending("images_by_top_layer"))
    }
    /// Images that are found by this digest.
    ///
    /// # Errors
    /// TODO
    pub fn images_by_digest(&self, digest: &Digest) -> Result<Vec<Image>> {
        drop((digest,));
        Err(pending("images_by_digest"))
    }
    /// Whether a layer, image or container is found by this text.
    ///
    /// # Errors
    /// TODO
    pub fn exists(&self, id: &str) -> Result<bool> {
        drop((id,));
        Err(pending("exists"))
    }
    /// The id of a layer, image or container, by id, name or unique prefix.
    ///
    /// # Errors
    /// TODO
    pub fn lookup(&self, what: &str) -> Result<String> {
        drop((what,));
        Err(pending("lookup"))
    }
    /// The names of a layer, image or container.
    ///
    /// # Errors
    /// TODO
    pub fn names(&self, id: &str) -> Result<Vec<String>> {
        drop((id,));
        Err(pending("names"))
    }
    /// Replaces the names of a layer, image or container.
    ///
    /// # Errors
    /// TODO
    pub fn set_names(&self, id: &str, names: &[String]) -> Result<()> {
        drop((id, names));
        Err(pending("set_names"))
    }
    /// Puts names before those of a layer, image or container.
    ///
    /// # Errors
    /// TODO
    pub fn add_names(&self, id: &str, names: &[String]) -> Result<()> {
        drop((id, names));
        Err(pending("add_names"))
    }
    /// Takes names from a layer, image or container.
    ///
    /// # Errors
    /// TODO
    pub fn remove_names(&self, id: &str, names: &[String]) -> Result<()> {
        drop((id, names));
        Err(pending("remove_names"))
    }
    /// The metadata of a layer, image or container.
    ///
    /// # Errors
    /// TODO
    pub fn metadata(&self, id: &str) -> Result<String> {
        drop((id,));
        Err(pending("metadata"))
    }
    /// Replaces the metadata of a layer, image or container.
    ///
    /// # Errors
    /// TODO
    pub fn set_metadata(&self, id: &str, metadata: &str) -> Result<()> {
        drop((id, metadata));
        Err(pending("set_metadata"))
    }
    /// Removes a container with its layer, or an image record, or a layer; without the checks of the other methods.
    ///
    /// # Errors
    /// TODO
    pub fn delete(&self, id: &str) -> Result<()> {
        drop((id,));
        Err(pending("delete"))
    }
    /// Removes a layer that nothing uses.
    ///
    /// # Errors
    /// TODO
    pub fn delete_layer(&self, id: &str) -> Result<()> {
        drop((id,));
        Err(pending("delete_layer"))
    }
    /// Removes an image that no container uses, and those of its layers that nothing else uses; returns their ids. Without `commit` it only says which.
    ///
    /// # Errors
    /// TODO
    pub fn delete_image(&self, id: &str, commit: bool) -> Result<Vec<String>> {
        drop((id, commit));
        Err(pending("delete_image"))
    }
    /// Removes a container with its layer and directories.
    ///
    /// # Errors
    /// TODO
    pub fn delete_container(&self, id: &str) -> Result<()> {
        drop((id,));
        Err(pending("delete_container"))
    }
    /// Removes every container, image and layer.
    ///
    /// # Errors
    /// TODO
    pub fn wipe(&self) -> Result<()> {
        Err(pending("wipe"))
    }
    /// Removes what belongs to no record: left by crashes.
    ///
    /// # Errors
    /// TODO
    pub fn garbage_collect(&self) -> Result<()> {
        Err(pending("garbage_collect"))
    }
    /// Frees what the driver holds of the system; with `force`, unmounts what is mounted. Returns the layers that are still mounted.
    ///
    /// # Errors
    /// TODO
    pub fn shutdown(&self, force: bool) -> Result<Vec<String>> {
        drop((force,));
        Err(pending("shutdown"))
    }
    /// Mounts a layer or container.
    ///
    /// # Errors
    /// TODO
    pub fn mount(&self, id: &str, options: &MountOptions) -> Result<PathBuf> {
        drop((id, options));
        Err(pending("mount"))
    }
    /// Takes back one mount, or with `force` all, of a layer, container or mount point; says whether it is still mounted.
    ///
    /// # Errors
    /// TODO
    pub fn unmount(&self, id: &str, force: bool) -> Result<bool> {
        drop((id, force));
        Err(pending("unmount"))
    }
    /// How often a layer or container is mounted.
    ///
    /// # Errors
    /// TODO
    pub fn mounted(&self, id: &str) -> Result<u32> {
        drop((id,));
        Err(pending("mounted"))
    }
    /// Mounts an image's top layer read-only.
    ///
    /// # Errors
    /// TODO
    pub fn mount_image(&self, id: &str, options: &MountOptions) -> Result<PathBuf> {
        drop((id, options));
        Err(pending("mount_image"))
    }
    /// Takes back a mount of an image; says whether it is still mounted.
    ///
    /// # Errors
    /// TODO
    pub fn unmount_image(&self, id: &str, force: bool) -> Result<bool> {
        drop((id, force));
        Err(pending("unmount_image"))
    }
    /// What differs between two layers; without `from`, between a layer and its parent.
    ///
    /// # Errors
    /// TODO
    pub fn changes(&self, from: Option<&str>, to: &str) -> Result<Vec<Change>> {
        drop((from, to));
        Err(pending("changes"))
    }
    /// The size of what differs.
    ///
    /// # Errors
    /// TODO
    pub fn diff_size(&self, from: Option<&str>, to: &str) -> Result<u64> {
        drop((from, to));
        Err(pending("diff_size"))
    }
    /// Writes what differs as a tar stream; returns the bytes before compression.
    ///
    /// # Errors
    /// TODO
    pub fn diff(
        &self,
        from: Option<&str>,
        to: &str,
        options: DiffOptions,
        out: &mut (dyn Write + Send),
    ) -> Result<u64> {
        drop((from, to, options, out));
        Err(pending("diff"))
    }
    /// The recorded size of a layer's uncompressed stream; -1 when it is not known.
    ///
    /// # Errors
    /// TODO
    pub fn layer_size(&self, id: &str) -> Result<i64> {
        drop((id,));
        Err(pending("layer_size"))
    }
    /// The size of an image's layers and big data.
    ///
    /// # Errors
    /// TODO
    pub fn image_size(&self, id: &str) -> Result<u64> {
        drop((id,));
        Err(pending("image_size"))
    }
    /// The size of a container's layer, big data and directories.
    ///
    /// # Errors
    /// TODO
    pub fn container_size(&self, id: &str) -> Result<u64> {
        drop((id,));
        Err(pending("container_size"))
    }
    /// Owners of the directories above a layer's mount point that its id maps do not contain.
    ///
    /// # Errors
    /// TODO
    pub fn layer_parent_owners(&self, id: &str) -> Result<ParentOwners> {
        drop((id,));
        Err(pending("layer_parent_owners"))
    }
    /// The same for a container's layer.
    ///
    /// # Errors
    /// TODO
    pub fn container_parent_owners(&self, id: &str) -> Result<ParentOwners> {
        drop((id,));
        Err(pending("container_parent_owners"))
    }
    /// The keys of a layer's items.
    ///
    /// # Errors
    /// TODO
    pub fn list_layer_big_data(&self, id: &str) -> Result<Vec<String>> {
        drop((id,));
        Err(pending("list_layer_big_data"))
    }
    /// A layer's item.
    ///
    /// # Errors
    /// TODO
    pub fn layer_big_data(&self, id: &str, key: &str) -> Result<Vec<u8>> {
        drop((id, key));
        Err(pending("layer_big_data"))
    }
    /// Stores a layer's item.
    ///
    /// # Errors
    /// TODO
    pub fn set_layer_big_data(&self, id: &str, key: &str, data: &[u8]) -> Result<()> {
        drop((id, key, data));
        Err(pending("set_layer_big_data"))
    }
    /// The keys of an image's items.
    ///
    /// # Errors
    /// TODO
    pub fn list_image_big_data(&self, id: &str) -> Result<Vec<String>> {
        drop((id,));
        Err(pending("list_image_big_data"))
    }
    /// An image's item.
    ///
    /// # Errors
    /// TODO
    pub fn image_big_data(&self, id: &str, key: &str) -> Result<Vec<u8>> {
        drop((id, key));
        Err(pending("image_big_data"))
    }
    /// The size of an image's item.
    ///
    /// # Errors
    /// TODO
    pub fn image_big_data_size(&self, id: &str, key: &str) -> Result<u64> {
        drop((id, key));
        Err(pending("image_big_data_size"))
    }
    /// The digest of an image's item.
    ///
    /// # Errors
    /// TODO
    pub fn image_big_data_digest(&self, id: &str, key: &str) -> Result<Digest> {
        drop((id, key));
        Err(pending("image_big_data_digest"))
    }
    /// Stores an image's item; the digest of a manifest comes from `manifest_digest`, or else is SHA-256.
    ///
    /// # Errors
    /// TODO
    pub fn set_image_big_data(
        &self,
        id: &str,
        key: &str,
        data: &[u8],
        manifest_digest: Option<ManifestDigest<'_>>,
    ) -> Result<()> {
        drop((id, key, data, manifest_digest));
        Err(pending("set_image_big_data"))
    }
    /// The keys of a container's items.
    ///
    /// # Errors
    /// TODO
    pub fn list_container_big_data(&self, id: &str) -> Result<Vec<String>> {
        drop((id,));
        Err(pending("list_container_big_data"))
    }
    /// A container's item.
    ///
    /// # Errors
    /// TODO
    pub fn container_big_data(&self, id: &str, key: &str) -> Result<Vec<u8>> {
        drop((id, key));
        Err(pending("container_big_data"))
    }
    /// The size of a container's item.
    ///
    /// # Errors
    /// TODO
    pub fn container_big_data_size(&self, id: &str, key: &str) -> Result<u64> {
        drop((id, key));
        Err(pending("container_big_data_size"))
    }
    /// The digest of a container's item.
    ///
    /// # Errors
    /// TODO
    pub fn container_big_data_digest(&self, id: &str, key: &str) -> Result<Digest> {
        drop((id, key));
        Err(pending("container_big_data_digest"))
    }
    /// Stores a container's item.
    ///
    /// # Errors
    /// TODO
    pub fn set_container_big_data(&self, id: &str, key: &str, data: &[u8]) -> Result<()> {
        drop((id, key, data));
        Err(pending("set_container_big_data"))
    }
    /// A directory of the caller that goes with the image.
    ///
    /// # Errors
    /// TODO
    pub fn image_directory(&self, id: &str) -> Result<PathBuf> {
        drop((id,));
        Err(pending("image_directory"))
    }
    /// The same, until the next restart.
    ///
    /// # Errors
    /// TODO
    pub fn image_run_directory(&self, id: &str) -> Result<PathBuf> {
        drop((id,));
        Err(pending("image_run_directory"))
    }
    /// A directory of the caller that goes with the container.
    ///
    /// # Errors
    /// TODO
    pub fn container_directory(&self, id: &str) -> Result<PathBuf> {
        drop((id,));
        Err(pending("container_directory"))
    }
    /// The same, until the next restart.
    ///
    /// # Errors
    /// TODO
    pub fn container_run_directory(&self, id: &str) -> Result<PathBuf> {
        drop((id,));
        Err(pending("container_run_directory"))
    }
    /// Writes a file in the container's directory.
    ///
    /// # Errors
    /// TODO
    pub fn set_container_directory_file(&self, id: &str, file: &str, data: &[u8]) -> Result<()> {
        drop((id, file, data));
        Err(pending("set_container_directory_file"))
    }
    /// Reads a file in the container's directory.
    ///
    /// # Errors
    /// TODO
    pub fn container_directory_file(&self, id: &str, file: &str) -> Result<Vec<u8>> {
        drop((id, file));
        Err(pending("container_directory_file"))
    }
    /// Writes a file in the container's run directory.
    ///
    /// # Errors
    /// TODO
    pub fn set_container_run_directory_file(
        &self,
        id: &str,
        file: &str,
        data: &[u8],
    ) -> Result<()> {
        drop((id, file, data));
        Err(pending("set_container_run_directory_file"))
    }
    /// Reads a file in the container's run directory.
    ///
    /// # Errors
    /// TODO
    pub fn container_run_directory_file(&self, id: &str, file: &str) -> Result<Vec<u8>> {
        drop((id, file));
        Err(pending("container_run_directory_file"))
    }
}
