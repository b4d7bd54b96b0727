// SPDX-License-Identifier: Apache-2.0
//! Status, version and the end of using a store.

use super::Store;
use crate::{
    Error, ErrorKind, Result,
    layers::{UnmountOptions, Unmounted},
    locking::order::Held,
};

impl Store {
    /// What the driver reports about itself, as pairs for people.
    ///
    /// # Behavior
    /// - A driver that could not be opened is a pair, `Driver Unavailable`.
    ///
    /// # Errors
    /// What the driver reports.
    pub fn status(&self) -> Result<Vec<(String, String)>> {
        if let Some(driver) = self.driver_if_any() {
            return driver.status();
        }
        let failure = self.choice.failure.clone().unwrap_or_default();
        Ok(vec![("Driver Unavailable".to_owned(), failure)])
    }

    /// The version of this library.
    ///
    /// # Errors
    /// None at present.
    pub fn version(&self) -> Result<Vec<(String, String)>> {
        let version = env!("CARGO_PKG_VERSION").to_owned();
        Ok(vec![("Version".to_owned(), version)])
    }

    /// Frees what the driver holds of the system.
    ///
    /// # Behavior
    /// - With `force`, everything that is mounted is unmounted first; the ids of those layers are
    ///   returned.
    /// - Other processes open the driver again at their next mount, and so does this one.
    ///
    /// # Errors
    /// `LayerUsedByContainer` when layers are mounted and `force` is not given; what unmounting
    /// reports. The driver stays open then.
    ///
    /// # Locking
    /// `storage.lock` and the layers are locked meanwhile.
    pub fn shutdown(&self, force: bool) -> Result<Vec<String>> {
        let mut held = Held::nothing();
        let (graph, mut held) = self.lock_graph(&mut held)?;
        let store = self.layer_store()?;
        let (mut layers, _) = store.write(&mut held)?;
        let mut mounted = layers.mounted_layers()?;
        if force {
            mounted.append(&mut layers.stray_mounts(&[self.graph_root(), self.run_root()])?);
        }
        if !mounted.is_empty() && !force {
            return Err(Error::new(
                ErrorKind::LayerUsedByContainer,
                "a layer is mounted: layer is in use by a container",
            )
            .subject(mounted.join(" "))
            .hint("unmount what is mounted, or shut down with force"));
        }
        let mut failure = None;
        for id in &mounted {
            let options = UnmountOptions {
                force: true,
                only_if_mounted: false,
            };
            match layers.unmount(id, options) {
                Ok(Unmounted::Gone | Unmounted::StillMounted) => {}
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
        // 1. Everyone learns that the driver has to be opened again; this process too, since it
        //    does not remember the token.
        graph.record_write()?;
        // 2. Only then is it closed.
        if let Some(driver) = self.driver_if_any() {
            driver.close()?;
        }
        Ok(mounted)
    }
}
