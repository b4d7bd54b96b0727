// SPDX-License-Identifier: Apache-2.0
//! What a layer changes against another one.

use std::{io::Write, path::PathBuf};

use plywood_plugin_sdk::{DiffView, IdMaps, LayerId, MountRequest, NativeChange};

use super::{
    access::{LayersView, LayersWrite},
    looking::Looking,
    mounts::UnmountOptions,
    options::{LayerStore, driver_id},
};
use crate::{
    ErrorKind, Result,
    archive::{
        pack,
        walk::{self, Change, DiffMaps},
    },
    locking::order::{Before, Held, Layers, RoLayers},
    plugin::DriverHandle,
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

/// Two layers whose files can be read.
pub(super) struct Comparison<'a> {
    view: &'a DiffView,
    maps: DiffMaps<'a>,
    /// What the driver says has changed, when it can tell.
    native: Option<Vec<NativeChange>>,
}

impl Pair {
    fn find(view: &LayersView<'_>, from: Option<&str>, to: &str) -> Result<Self> {
        let layer = view.find(to)?.layer;
        let own = layer.parent.as_deref();
        let parent = from.or(own).map(|parent| view.find(parent)).transpose()?;
        let parent = parent.map(|found| found.layer);
        Ok(Self {
            layer: driver_id(&layer.id)?,
            layer_maps: layer.id_maps.clone(),
            parent: parent.map(|parent| driver_id(&parent.id)).transpose()?,
            parent_maps: parent.map_or_else(IdMaps::default, |parent| parent.id_maps.clone()),
            is_own: parent.map(|parent| parent.id.as_str()) == own,
        })
    }

    fn comparison<'a>(
        &'a self,
        driver: &DriverHandle,
        view: &'a DiffView,
    ) -> Result<Comparison<'a>> {
        let of_trees = matches!(
            view,
            DiffView::Trees {
                parent: Some(_),
                ..
            }
        );
        let native = if driver.capabilities().native_changes && self.is_own && of_trees {
            Some(driver.native_changes(&self.layer, self.parent.as_ref())?)
        } else {
            None
        };
        Ok(Comparison {
            view,
            maps: DiffMaps {
                layer: &self.layer_maps,
                parent: &self.parent_maps,
            },
            native,
        })
    }
}

impl Comparison<'_> {
    pub(super) fn export(&self, out: &mut (dyn Write + Send)) -> Result<u64> {
        match (&self.native, self.view) {
            (Some(_), DiffView::Trees { tree, .. }) => {
                pack::export_changes(tree, &changes_of(self)?, self.maps.layer, out)
            }
            _ => pack::export(self.view, &self.maps, out),
        }
    }
}

fn changes_of(pair: &Comparison<'_>) -> Result<Vec<Change>> {
    match (&pair.native, pair.view) {
        (
            Some(list),
            DiffView::Trees {
                tree,
                parent: Some(parent),
            },
        ) => walk::changes_from_native(tree, parent, list, &pair.maps),
        _ => walk::changes(pair.view, &pair.maps),
    }
}

fn size_of_changes(pair: &Comparison<'_>) -> Result<u64> {
    match (&pair.native, pair.view) {
        (Some(_), DiffView::Trees { tree, .. }) => walk::size_of(tree, &changes_of(pair)?),
        _ => walk::diff_size(pair.view, &pair.maps),
    }
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
        self.compare(held, from, to, changes_of)
    }

    /// The bytes of what `to` adds or changes against `from` (its parent, when not given).
    ///
    /// # Errors
    /// As [`LayerStore::changes`].
    pub fn diff_size<B>(&self, held: &mut Held<'_, B>, from: Option<&str>, to: &str) -> Result<u64>
    where
        B: Before<Layers> + Before<RoLayers>,
    {
        self.compare(held, from, to, size_of_changes)
    }

    /// Runs `work` on the two layers, mounted for that time when the driver asks for it.
    pub(super) fn compare<B, T>(
        &self,
        held: &mut Held<'_, B>,
        from: Option<&str>,
        to: &str,
        work: impl FnOnce(&Comparison<'_>) -> Result<T>,
    ) -> Result<T>
    where
        B: Before<Layers> + Before<RoLayers>,
    {
        let driver = self.0.driver()?;
        let mut looking = Looking::with(driver);
        let (pair, view) = {
            let (read, _inner) = self.read(held)?;
            let pair = Pair::find(&read, from, to)?;
            let view = looking.diff_view(&pair.layer, pair.parent.as_ref())?;
            (pair, view)
        };
        if view != DiffView::Mounted {
            return work(&pair.comparison(driver, &view)?);
        }
        let mounted = self.mount_pair(held, &pair)?;
        let outcome = pair
            .comparison(driver, &mounted)
            .and_then(|comparison| work(&comparison));
        let released = self.unmount_pair(held, &pair);
        outcome.and_then(|done| released.map(|()| done))
    }

    fn mount_pair<B>(&self, held: &mut Held<'_, B>, pair: &Pair) -> Result<DiffView>
    where
        B: Before<Layers> + Before<RoLayers>,
    {
        let (mut write, _inner) = self.write(held)?;
        let tree = write.mount_to_look(&pair.layer)?;
        let parent = match &pair.parent {
            None => None,
            Some(parent) => match write.mount_to_look(parent) {
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

impl LayersWrite<'_> {
    /// Mounts a layer for reading, or shares the mount that there is.
    fn mount_to_look(&mut self, id: &LayerId) -> Result<PathBuf> {
        let mut request = MountRequest::default();
        request.read_only = self.shared.driver()?.capabilities().read_only_mounts;
        match self.mount(id.as_str(), &request) {
            Err(error) if error.kind() == ErrorKind::Busy => {
                request.read_only = !request.read_only;
                self.mount(id.as_str(), &request)
            }
            other => other,
        }
    }
}
