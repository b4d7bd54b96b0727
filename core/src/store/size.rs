// SPDX-License-Identifier: Apache-2.0
//! How much images and containers occupy.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::Store;
use crate::{
    Error, ErrorKind, IoContext, Result, containers::Lifetime, images::Image, layers::LayersView,
    locking::order::Held,
};

impl Store {
    /// The size of an image's layers, mapped copies included, and of its big data.
    ///
    /// # Behavior
    /// - Recorded sizes are used; a layer without one is measured.
    ///
    /// # Errors
    /// `ImageUnknown`, `LayerUnknown` when a layer of the image is missing, `SizeUnknown`.
    pub fn image_size(&self, what: &str) -> Result<u64> {
        let store = self.layer_store()?;
        let (mut size, unknown) = {
            let mut held = Held::nothing();
            let (layers, mut held) = store.read(&mut held)?;
            let (images, _) = self.images.read(&mut held)?;
            let image = images.get(what)?;
            let (mut size, unknown) = recorded_sizes(&image, &layers)?;
            for key in &image.big_data_names {
                let item = images.big_data_size(&image.id, key).map_err(|error| {
                    error.prefixed(format_args!(
                        "reading size of big data item {key:?} for image {what:?}"
                    ))
                })?;
                size = size.saturating_add(item);
            }
            (size, unknown)
        };
        for id in unknown {
            let measured = self.diff_size(None, &id).map_err(|error| {
                error.prefixed(format_args!(
                    "size/digest of layer with ID {id:?} could not be calculated"
                ))
            })?;
            size = size.saturating_add(measured);
        }
        Ok(size)
    }

    /// The size of what a container changed, of its big data and of its directories.
    ///
    /// # Errors
    /// `ContainerUnknown`, `LayerUnknown`, `SizeUnknown`, and what reading the files reports.
    pub fn container_size(&self, what: &str) -> Result<u64> {
        let (container, directories, mut size) = self.with_containers(|containers| {
            let container = containers.get(what)?.clone();
            let mut size: u64 = 0;
            for key in &container.big_data_names {
                size = size.saturating_add(containers.big_data_size(&container.id, key)?);
            }
            let directories = [
                containers.directory_of(&container, Lifetime::Container)?,
                containers.directory_of(&container, Lifetime::Boot)?,
            ];
            Ok((container, directories, size))
        })?;
        let changed = self.diff_size(None, &container.layer).map_err(|error| {
            error.prefixed(format_args!(
                "determining size of layer with ID {:?}",
                container.layer
            ))
        })?;
        size = size.saturating_add(changed);
        for directory in directories {
            size = size.saturating_add(tree_size(directory)?);
        }
        Ok(size)
    }
}

/// The recorded sizes of an image's layers, and the layers that have none.
fn recorded_sizes(image: &Image, layers: &LayersView<'_>) -> Result<(u64, Vec<String>)> {
    let mut size: u64 = 0;
    let mut unknown = Vec::new();
    let mut seen = HashSet::new();
    for top in image.layers() {
        let mut next = Some(top.to_owned());
        while let Some(id) = next {
            if !seen.insert(id.clone()) {
                break;
            }
            let layer = layers.get(&id).map_err(|_| {
                Error::new(
                    ErrorKind::LayerUnknown,
                    format!("locating layer with ID {id:?}: layer not known"),
                )
                .subject(&*id)
            })?;
            let recorded = layer.diff_digest.as_ref().and(known(layer.diff_size));
            match recorded {
                Some(bytes) => size = size.saturating_add(bytes),
                None => unknown.push(id),
            }
            next = layer.parent;
        }
    }
    Ok((size, unknown))
}

/// A recorded size; one that is left out is 0, a negative one means "not known".
fn known(recorded: Option<i64>) -> Option<u64> {
    u64::try_from(recorded.unwrap_or(0)).ok()
}

/// The bytes of all files in a tree, each inode once; directories themselves do not count, and a
/// tree that is not there has none.
fn tree_size(root: PathBuf) -> Result<u64> {
    let mut size: u64 = 0;
    let mut seen = HashSet::new();
    let mut pending = vec![root];
    while let Some(directory) = pending.pop() {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("cannot read directory", &directory, error)),
        };
        for entry in entries {
            let entry = entry.at("cannot read directory", &directory)?;
            let path = entry.path();
            let Some(data) = metadata(&path)? else {
                continue;
            };
            if data.is_dir() {
                pending.push(path);
            } else if seen.insert((data.dev(), data.ino())) {
                size = size.saturating_add(data.len());
            }
        }
    }
    Ok(size)
}

fn metadata(path: &Path) -> Result<Option<fs::Metadata>> {
    match fs::symlink_metadata(path) {
        Ok(data) => Ok(Some(data)),
        // It was removed meanwhile.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("cannot inspect", path, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_counts_each_file_once_and_no_directories() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/one"), [0; 1000]).unwrap();
        fs::hard_link(dir.path().join("d/one"), dir.path().join("two")).unwrap();
        std::os::unix::fs::symlink("12345", dir.path().join("link")).unwrap();
        assert_eq!(tree_size(dir.path().to_owned()).unwrap(), 1005);
        assert_eq!(tree_size(dir.path().join("none")).unwrap(), 0);
    }
}
