// SPDX-License-Identifier: Apache-2.0
//! Making images.

use super::{BigDataItem, Image, NewImage, Store};
use crate::{
    Result,
    images::{ImagesView, ImagesWrite},
    locking::order::{Held, RoLayers},
    records::names::{NamesChange, deduplicate},
};

impl Store {
    /// Makes an image.
    ///
    /// # Behavior
    /// - With the id of an image in a read-only store, that one is copied, and what is given here
    ///   is added to it or replaces it.
    ///
    /// # Errors
    /// `LayerUnknown`, `DuplicateId`, `DuplicateName`, `InvalidArgument`, `InvalidBigDataName`.
    ///
    /// # Locking
    /// The layers stay locked for reading, so that the image's layer cannot vanish meanwhile.
    pub fn create_image(&self, mut new: NewImage) -> Result<Image> {
        let Some(layer) = new.layer.take() else {
            let mut held = Held::nothing();
            let (mut images, _) = self.images.write(&mut held)?;
            return create(&mut images, new);
        };
        let store = self.layer_store()?;
        let mut held = Held::nothing();
        let (layers, mut held) = store.read(&mut held)?;
        new.layer = Some(layers.lookup(&layer)?);
        let held: &mut Held<'_, RoLayers> = &mut held;
        let (mut images, _) = self.images.write(held)?;
        create(&mut images, new)
    }
}

fn create(images: &mut ImagesWrite<'_>, mut new: NewImage) -> Result<Image> {
    let original = match &new.id {
        Some(id) => images
            .get(id)
            .ok()
            .filter(|found| found.read_only && found.id == *id),
        None => None,
    };
    let Some(original) = original else {
        return images.create(new);
    };
    let given = std::mem::take(&mut new.names);
    let names = deduplicate(original.names.iter().cloned().chain(given.iter().cloned()));
    let new = merged(images, &original, new)?;
    let image = images.create(NewImage {
        names: given,
        ..new
    })?;
    images.change_names(&image.id, &names, NamesChange::Add)?;
    images.get(&image.id)
}

/// What is given in addition to what the original has.
fn merged(images: &ImagesView<'_>, original: &Image, mut new: NewImage) -> Result<NewImage> {
    let mut big_data = Vec::with_capacity(original.big_data_names.len() + new.big_data.len());
    for key in &original.big_data_names {
        big_data.push(BigDataItem {
            key: key.clone(),
            data: images.big_data(&original.id, key)?,
            digest: original.big_data_digests.get(key).cloned(),
        });
    }
    big_data.append(&mut new.big_data);
    let mut names_history = original.names_history.clone();
    names_history.append(&mut new.names_history);
    let metadata = match new.metadata {
        metadata if metadata.is_empty() => original.metadata.clone(),
        metadata => metadata,
    };
    Ok(NewImage {
        big_data,
        names_history,
        metadata,
        created: new.created.or_else(|| Some(original.created.clone())),
        digest: new.digest.or_else(|| original.digest.clone()),
        ..new
    })
}
