// SPDX-License-Identifier: Apache-2.0
//! Filling an existing layer from a tar stream.

use std::{io::Read, sync::Arc};

use super::{
    access::LayersWrite,
    create::close,
    intent::Intent,
    looking::Looking,
    options::{LayerStore, Shared, driver_id},
    put::{PutOptions, TarSplit, fill},
    record::NewLayer,
};
use crate::{
    Result,
    locking::order::{Before, Held, Layers, RoLayers},
};

impl LayerStore {
    /// Unpacks a tar stream into a layer; returns the bytes of the uncompressed stream.
    ///
    /// # Errors
    /// `LayerUnknown`, `StoreIsReadOnly`, and those of
    /// [`import`](crate::archive::import::import). The record says nothing of a stream that
    /// failed, but what was unpacked before stays.
    ///
    /// # Locking
    /// Holds the layers lock for as long as it takes: the layer can be seen, and nobody may mount
    /// or remove it meanwhile. [`LayerStore::put`] does not.
    pub fn apply<R, B>(
        &self,
        held: &mut Held<'_, B>,
        what: &str,
        reader: R,
        options: PutOptions<'_>,
    ) -> Result<u64>
    where
        R: Read + Send,
        B: Before<Layers> + Before<RoLayers>,
    {
        let (mut write, _inner) = self.write(held)?;
        write.apply(what, reader, &options)
    }
}

impl LayersWrite<'_> {
    fn apply<R: Read + Send>(
        &mut self,
        what: &str,
        reader: R,
        options: &PutOptions<'_>,
    ) -> Result<u64> {
        let name = self.own(what, "modify layer contents")?;
        let id = driver_id(&name)?;
        let layer = &self.find(&name)?.layer;
        let maps = layer.id_maps.clone();
        let parent = layer.parent.as_deref().map(driver_id).transpose()?;
        let shared = Arc::clone(&self.shared);
        let driver = shared.driver()?;
        let mut intent = Intent::begin(&shared)?;
        let tar_split = TarSplit::create(&mut intent)?;
        let mut looking = Looking::with(driver);
        let target = looking.unpack_target(&id)?;
        let below = || looking.content_of(parent.as_ref());
        let imported = options.import(reader, &target, &maps, &tar_split, below)?;
        tar_split.sync(shared.durability)?;
        shared.sync_layer(driver, &id)?;
        tar_split.publish(&Shared::tar_split(&shared.dir, &id), shared.durability)?;
        if let Some(layer) = self.records().edit(&name) {
            fill(layer, &imported, &NewLayer::default());
        }
        self.save()?;
        close(intent);
        Ok(imported.diff_size)
    }
}
