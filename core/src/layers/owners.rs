// SPDX-License-Identifier: Apache-2.0
//! Who owns the directories above a mounted layer.

use std::{collections::BTreeSet, fs, os::unix::fs::MetadataExt, path::Path};

use plywood_plugin_sdk::to_container;

use super::access::LayersView;
use crate::{Error, ErrorKind, IoContext, Result};

impl LayersView<'_> {
    /// The user and group ids that own directories above the layer's mount point and that its id
    /// maps have no container id for, sorted.
    ///
    /// # Errors
    /// `LayerUnknown`; `LayerNotMounted` for a layer with id maps that is not mounted; `Corrupt`
    /// when its maps have no entry for container id 0.
    pub fn parent_owners(&self, what: &str) -> Result<(Vec<u32>, Vec<u32>)> {
        let mut layer = self.find(what)?.to_layer();
        self.shared.mounts()?.note(&mut layer);
        let maps = &layer.id_maps;
        if maps.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        let not_mounted =
            || Error::new(ErrorKind::LayerNotMounted, "layer is not mounted").subject(&*layer.id);
        let mount_point = layer.mount_point.as_deref().ok_or_else(not_mounted)?;
        if !fs::exists(mount_point).at("cannot inspect", mount_point)? {
            return Err(not_mounted());
        }
        if maps.root().is_none() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!("reading root ID values for layer \"{}\"", layer.id),
            )
            .subject(&*layer.id));
        }
        let (mut uids, mut gids) = (BTreeSet::new(), BTreeSet::new());
        let above = mount_point.ancestors().skip(1);
        for dir in above.take_while(|dir| *dir != Path::new("/") && *dir != Path::new("")) {
            for found in [fs::metadata(dir), fs::symlink_metadata(dir)] {
                let found = found.at("cannot inspect", dir)?;
                if to_container(&maps.uids, found.uid()).is_none() {
                    uids.insert(found.uid());
                }
                if to_container(&maps.gids, found.gid()).is_none() {
                    gids.insert(found.gid());
                }
            }
        }
        Ok((uids.into_iter().collect(), gids.into_iter().collect()))
    }
}
