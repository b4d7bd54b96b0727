// SPDX-License-Identifier: Apache-2.0
//! Directories of layers that are in use for a while.

use std::path::PathBuf;

use plywood_plugin_sdk::{DiffView, LayerId, UnpackTarget};

use crate::{Result, plugin::DriverHandle};

/// Asks a driver where files are, and lets it know when that is no longer needed: when this value
/// is dropped.
pub(super) struct Looking {
    driver: DriverHandle,
    directories: Vec<PathBuf>,
}

impl Looking {
    /// At nothing yet.
    pub(super) fn with(driver: &DriverHandle) -> Self {
        Self {
            driver: driver.clone(),
            directories: Vec::new(),
        }
    }

    /// Where a diff is unpacked into a layer.
    pub(super) fn unpack_target(&mut self, id: &LayerId) -> Result<UnpackTarget> {
        let target = self.driver.unpack_target(id)?;
        self.directories.push(target.directory.clone());
        Ok(target)
    }

    /// How the changes of a layer can be read.
    pub(super) fn diff_view(&mut self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView> {
        let view = self.driver.diff_view(id, parent)?;
        if let DiffView::Trees { tree, parent } = &view {
            let trees = std::iter::once(tree).chain(parent).cloned();
            self.directories.extend(trees);
        }
        Ok(view)
    }

    /// Where the files of a layer are found.
    pub(super) fn content_roots(&mut self, id: &LayerId) -> Result<Vec<PathBuf>> {
        let roots = self.driver.content_roots(id)?;
        self.directories.extend(roots.iter().cloned());
        Ok(roots)
    }

    /// Where the files of a parent are found.
    pub(super) fn content_of(&mut self, parent: Option<&LayerId>) -> Result<Vec<PathBuf>> {
        parent.map_or(Ok(Vec::new()), |parent| self.content_roots(parent))
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        for directory in &self.directories {
            if let Err(error) = self.driver.let_go(directory) {
                tracing::warn!(directory = %directory.display(), ?error, "a layer stays open");
            }
        }
    }
}
