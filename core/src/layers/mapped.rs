// SPDX-License-Identifier: Apache-2.0
//! Mounts that show a layer with other id maps than it was made with.
//!
//! Such a layer belongs to nobody's maps on disk; an idmapped mount in `idmapped/ID`, beside
//! `mountpoints.json`, shows it with those of one container.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{IdMaps, LayerId, MountPlan, MountRequest, MountStep, to_host};

use super::options::{Shared, driver_id};
use crate::{Error, ErrorKind, IoContext, Result, mount};

/// What a mount has to map, when it has to map anything.
pub(super) fn wanted<'a>(own: &IdMaps, request: &'a MountRequest) -> Option<&'a IdMaps> {
    let asked = &request.id_maps;
    (!asked.is_empty() && asked != own).then_some(asked)
}

impl Shared {
    /// Mounts a layer with `maps`, which are not those that it was made with.
    ///
    /// # Errors
    /// `NotSupported` when the layer has maps of its own, or the driver cannot show it with others;
    /// `Busy` when it is mounted with others; what the kernel says.
    pub(super) fn perform_mapped(
        &self,
        id: &LayerId,
        request: &MountRequest,
        own: &IdMaps,
        maps: &IdMaps,
    ) -> Result<PathBuf> {
        let driver = self.driver()?;
        let refuse = |why: &str| {
            Err(Error::new(
                ErrorKind::NotSupported,
                format!("layer `{id}` cannot be mounted with other id maps: {why}"),
            )
            .subject(id.as_str())
            .hint("make a layer that has these id maps"))
        };
        let plan = driver.mount_plan(id, request)?;
        if matches!(plan, MountPlan::ByDriver { .. }) {
            return driver.mount(id, request);
        }
        if !own.is_empty() {
            return refuse("it has some already");
        }
        if !driver.capabilities().idmapped_mounts {
            return refuse("the driver does not offer that");
        }
        let Some(source) = source(&plan) else {
            return refuse("it is more than one directory");
        };
        let target = self.mapped_target(id);
        if mount::is_mounted(&target)? {
            check_mapped(&target, &source, maps)?;
            return Ok(target);
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&target)
            .at("cannot create directory", &target)?;
        let shown = mount::show_mapped(&source, &target, request.read_only, maps);
        if shown.is_err() {
            self.forget_mapped(&target)?;
        }
        shown.map(|()| target)
    }

    /// Whether a mount that is there may be shared by somebody who wants `maps`.
    pub(super) fn check_maps(
        &self,
        id: &str,
        path: &Path,
        request: &MountRequest,
        maps: Option<&IdMaps>,
    ) -> Result<()> {
        let ours = path.parent() == Some(&self.mapped_targets());
        let Some(maps) = maps else {
            return if ours { Err(busy(path)) } else { Ok(()) };
        };
        let plan = self.driver()?.mount_plan(&driver_id(id)?, request)?;
        match (&plan, source(&plan)) {
            // The driver knows what it has mounted.
            (MountPlan::ByDriver { .. }, _) => Ok(()),
            (_, Some(source)) if ours => check_mapped(path, &source, maps),
            _ => Err(busy(path)),
        }
    }

    /// Takes back what [`Shared::perform_mapped`] did, also when that was never recorded.
    pub(super) fn undo_mapped(&self, id: &LayerId) -> Result<()> {
        let target = self.mapped_target(id);
        if fs::symlink_metadata(&target).is_err() {
            return Ok(());
        }
        mount::unmount(&target)?;
        self.forget_mapped(&target)
    }

    fn forget_mapped(&self, target: &Path) -> Result<()> {
        for directory in [target, &self.mapped_targets()] {
            match fs::remove_dir(directory) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
                    ) =>
                {
                    return Err(Error::io("cannot remove", directory, error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn mapped_targets(&self) -> PathBuf {
        self.mounts_path.with_file_name("idmapped")
    }

    fn mapped_target(&self, id: &LayerId) -> PathBuf {
        self.mapped_targets().join(id.as_str())
    }
}

/// The one directory that a plan shows.
fn source(plan: &MountPlan) -> Option<PathBuf> {
    match plan {
        MountPlan::Directory(path) => Some(path.clone()),
        MountPlan::Mounts(steps) => match &steps.steps[..] {
            [MountStep::Bind { source, .. }] => Some(source.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// Fails unless the mount at `target` shows the root of `source` with `maps`.
fn check_mapped(target: &Path, source: &Path, maps: &IdMaps) -> Result<()> {
    let shown = fs::metadata(target).at("cannot inspect", target)?;
    let stored = fs::metadata(source).at("cannot inspect", source)?;
    let expected = (
        to_host(&maps.uids, stored.uid()),
        to_host(&maps.gids, stored.gid()),
    );
    if expected == (Some(shown.uid()), Some(shown.gid())) {
        return Ok(());
    }
    Err(busy(target))
}

fn busy(path: &Path) -> Error {
    Error::new(
        ErrorKind::Busy,
        format!(
            "the layer is mounted already, with other id maps, at `{}`",
            path.display()
        ),
    )
    .subject(path.display().to_string())
    .hint("unmount it first")
}
