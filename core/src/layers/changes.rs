// SPDX-License-Identifier: Apache-2.0
//! What a layer changes against another one.

use plywood_plugin_sdk::{DiffView, IdMaps, LayerId, MountRequest};

use super::{
    mounts::UnmountOptions,
    options::{LayerStore, driver_id},
};
use crate::{
    Result,
    archive::walk::{self, Change, DiffMaps},
    locking::order::{Before, Held, Layers, RoLayers},
};

/// Two layers to compare.
struct Pair {
    layer: LayerId,
    layer_maps: IdMaps,
    parent: Option<LayerId>,
    parent_maps: IdMaps,
    /// The one is the recorded parent of the other.
    is_own: bool,
}

impl LayerStore {
    /// The paths that `to` changes against `from` (its parent, when not given), sorted.
    ///
    /// # Errors
    /// `LayerUnknown`, and what reading the layers reports.
    ///
    /// # Locking
    /// The layers lock is held only to find out where things are, and to mount when the driver
    /// cannot do without.
    pub fn changes<B>(
        &self,
        held: &mut Held<'_, B>,
        from: Option<&str>,
        to: &str,
    ) -> Result<Vec<Change>>
    where
        B: Before<Layers> + Before<RoLayers>,
    {
        self.with_view(held, from, to, |view, maps| walk::changes(view, maps))
    }

    /// The bytes of what `to` adds or changes against `from` (its parent, when not given).
    ///
    /// # Errors
    /// As [`LayerStore::changes`].
    pub fn diff_size<B>(&self, held: &mut Held<'_, B>, from: Option<&str>, to: &str) -> Result<u64>
    where
        B: Before<Layers> + Before<RoLayers>,
    {
        self.with_view(held, from, to, |view, maps| walk::diff_size(view, maps))
    }

    /// Runs `work` on the two layers, mounted for that time when the driver asks for it.
    pub(super) fn with_view<B, T>(
        &self,
        held: &mut Held<'_, B>,
        from: Option<&str>,
        to: &str,
        work: impl FnOnce(&DiffView, &DiffMaps<'_>) -> Result<T>,
    ) -> Result<T>
    where
        B: Before<Layers> + Before<RoLayers>,
    {
        let (pair, view) = {
            let (read, _inner) = self.read(held)?;
            let layer = read.find(to)?.layer;
            let own = layer.parent.as_deref();
            let parent = match from {
                Some(from) => Some(read.find(from)?.layer),
                None => own
                    .map(|own| read.find(own))
                    .transpose()?
                    .map(|found| found.layer),
            };
            let pair = Pair {
                layer: driver_id(&layer.id)?,
                layer_maps: layer.id_maps.clone(),
                parent: parent.map(|parent| driver_id(&parent.id)).transpose()?,
                parent_maps: parent
                    .map(|parent| parent.id_maps.clone())
                    .unwrap_or_default(),
                is_own: parent.map(|parent| parent.id.as_str()) == own,
            };
            let driver = self.0.driver()?;
            let view = driver.diff_view(&pair.layer, pair.parent.as_ref())?;
            (pair, view)
        };
        let maps = DiffMaps {
            layer: &pair.layer_maps,
            parent: &pair.parent_maps,
        };
        if view != DiffView::Mounted {
            return work(&view, &maps);
        }
        let mounted = self.mount_pair(held, &pair)?;
        let outcome = work(&mounted, &maps);
        let released = self.unmount_pair(held, &pair);
        outcome.and_then(|done| released.map(|()| done))
    }

    fn mount_pair<B>(&self, held: &mut Held<'_, B>, pair: &Pair) -> Result<DiffView>
    where
        B: Before<Layers> + Before<RoLayers>,
    {
        let read_only = {
            let mut request = MountRequest::default();
            request.read_only = self.0.driver()?.capabilities().read_only_mounts;
            request
        };
        let (mut write, _inner) = self.write(held)?;
        let tree = write.mount(pair.layer.as_str(), &read_only)?;
        let parent = match &pair.parent {
            None => None,
            Some(parent) => match write.mount(parent.as_str(), &read_only) {
                Ok(path) => Some(path),
                Err(error) => {
                    let undone = write.unmount(pair.layer.as_str(), UnmountOptions::default());
                    if let Err(undo) = undone {
                        tracing::warn!(layer = %pair.layer, ?undo, "a mount stays");
                    }
                    return Err(error);
                }
            },
        };
        Ok(DiffView::Trees { tree, parent })
    }

    fn unmount_pair<B>(&self, held: &mut Held<'_, B>, pair: &Pair) -> Result<()>
    where
        B: Before<Layers> + Before<RoLayers>,
    {
        let (mut write, _inner) = self.write(held)?;
        let layers = std::iter::once(&pair.layer).chain(&pair.parent);
        let mut outcome = Ok(());
        for id in layers {
            let released = write.unmount(id.as_str(), UnmountOptions::default());
            outcome = outcome.and(released.map(drop));
        }
        outcome
    }
}
