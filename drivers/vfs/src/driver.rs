// SPDX-License-Identifier: Apache-2.0
//! Layers as plain trees.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, lchown},
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, IoContext,
    LayerId, MountPlan, MountRequest, MountStep, MountSteps, OpenRequest, Removed, Result,
    UnpackTarget, Usage, toolkit,
};

use crate::{
    config::Config,
    copy::{CopyOptions, copy_tree},
};

/// Mode of a base layer's root, before the umask.
const ROOT_MODE: u32 = 0o555;

/// A vfs store.
pub(crate) struct VfsDriver {
    config: Config,
    home: PathBuf,
    run_dir: PathBuf,
}

impl VfsDriver {
    pub(crate) fn open(request: OpenRequest) -> Result<Self> {
        let config = Config::parse(&request.options, &request.known_drivers)?;
        if request.image_store.is_some() {
            return Err(DriverError::new(
                DriverErrorCode::NOT_SUPPORTED,
                "vfs: a separate image store is not supported",
            )
            .remedy("leave `imagestore` out of [storage]"));
        }
        let this = Self {
            config,
            home: request.home,
            run_dir: request.run_dir,
        };
        make_dirs(&this.trees(), 0o700)?;
        Ok(this)
    }

    fn trees(&self) -> PathBuf {
        self.home.join("dir")
    }

    /// Where the layer's tree is: in the home, or in the first image store that has it.
    fn find(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        let own = self.trees().join(id.as_str());
        let stores = self.config.image_stores.iter();
        let theirs = stores.map(|store| store.join("vfs/dir").join(id.as_str()));
        for tree in std::iter::once(own).chain(theirs) {
            match fs::symlink_metadata(&tree) {
                Ok(found) if found.is_dir() => return Ok(Some(tree)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(DriverError::io("cannot stat", &tree, &error)),
            }
        }
        Ok(None)
    }

    fn tree(&self, id: &LayerId) -> Result<PathBuf> {
        self.find(id)?.ok_or_else(|| {
            DriverError::new(
                DriverErrorCode::NOT_FOUND,
                format!("layer `{id}` does not exist"),
            )
            .object(id.as_str())
        })
    }

    /// Makes the layer's tree at `place`, which does not exist.
    fn make(&self, place: &Path, request: &CreateRequest) -> Result<()> {
        if let Some(option) = request.storage_options.keys().next() {
            return Err(DriverError::new(
                DriverErrorCode::INVALID_ARGUMENT,
                "--storage-opt is not supported for vfs",
            )
            .object(option));
        }
        fs::DirBuilder::new()
            .mode(ROOT_MODE)
            .create(place)
            .at("cannot create", place)?;
        let source = request.template.as_ref().or(request.parent.as_ref());
        if let Some(source) = source {
            let options = CopyOptions {
                ignore_chown_errors: self.config.ignore_chown_errors,
            };
            return copy_tree(&self.tree(source)?, place, options);
        }
        let (uid, gid) = request.id_maps.root().ok_or_else(|| {
            DriverError::new(
                DriverErrorCode::INVALID_ARGUMENT,
                "the id maps have no entry for the root user",
            )
        })?;
        if (uid, gid) != (0, 0) {
            lchown(place, Some(uid), Some(gid)).at("cannot change the owner of", place)?;
        }
        Ok(())
    }
}

fn make_dirs(path: &Path, mode: u32) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .at("cannot create", path)
}

fn remove_tree(path: &Path) -> Result<Removed> {
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(Removed::Now),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Removed::AlreadyGone),
        Err(error) => Err(DriverError::io("cannot remove", path, &error)),
    }
}

impl Driver for VfsDriver {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.list = true;
        capabilities.read_only_mounts = true;
        capabilities.volatile_mounts = true;
        capabilities.idmapped_mounts = true;
        capabilities.template = true;
        capabilities.image_stores = true;
        capabilities
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        let tree = self.trees().join(request.id.as_str());
        if fs::symlink_metadata(&tree).is_ok() {
            return Err(DriverError::new(
                DriverErrorCode::ALREADY_EXISTS,
                format!("layer `{}` exists", request.id),
            )
            .object(request.id.as_str()));
        }
        // No id starts with a dot, so this can neither be a layer nor be listed.
        let place = self.trees().join(format!(".new-{}", request.id));
        remove_tree(&place)?;
        let made = self
            .make(&place, request)
            .and_then(|()| fs::rename(&place, &tree).at("cannot publish", &tree));
        if made.is_err() {
            remove_tree(&place)?;
        }
        made
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        remove_tree(&self.trees().join(id.as_str()))
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(self.find(id)?.is_some())
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        let trees = self.trees();
        let mut ids = Vec::new();
        for entry in fs::read_dir(&trees).at("cannot read", &trees)? {
            let entry = entry.at("cannot read", &trees)?;
            let name = entry.file_name().into_string().ok();
            let is_dir = entry.file_type().at("cannot stat", entry.path())?.is_dir();
            if let Some(id) = name
                .and_then(|name| LayerId::new(name).ok())
                .filter(|_| is_dir)
            {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        self.tree(id).map(|_| BTreeMap::new())
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        toolkit::tree_usage(&self.tree(id)?)
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let tree = self.tree(id)?;
        let (read_only, others): (Vec<_>, Vec<_>) =
            request.options.iter().partition(|option| *option == "ro");
        if let Some(option) = others.first() {
            return Err(DriverError::new(
                DriverErrorCode::INVALID_ARGUMENT,
                "vfs driver does not support mount options",
            )
            .object(option.as_str()));
        }
        if !request.read_only && read_only.is_empty() && tree.starts_with(&self.home) {
            return Ok(MountPlan::Directory(tree));
        }
        let target = self.run_dir.join(id.as_str());
        make_dirs(&target, 0o700)?;
        Ok(MountPlan::Mounts(MountSteps {
            steps: vec![MountStep::Bind {
                source: tree,
                target: target.clone(),
                read_only: true,
            }],
            target,
        }))
    }

    fn released(&self, id: &LayerId) -> Result<()> {
        let target = self.run_dir.join(id.as_str());
        match fs::remove_dir(&target) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(DriverError::io("cannot remove", &target, &error))
            }
            _ => Ok(()),
        }
    }

    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        let tree = self.tree(id)?;
        let fresh = fs::read_dir(&tree)
            .at("cannot read", &tree)?
            .next()
            .is_none();
        let mut target = UnpackTarget::tree(tree);
        target.ignore_chown_errors = self.config.ignore_chown_errors;
        target.fresh = fresh;
        Ok(target)
    }

    fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView> {
        Ok(DiffView::Trees {
            tree: self.tree(id)?,
            parent: parent.map(|parent| self.tree(parent)).transpose()?,
        })
    }

    fn content_roots(&self, id: &LayerId) -> Result<Vec<PathBuf>> {
        Ok(vec![self.tree(id)?])
    }

    fn image_stores(&self) -> Vec<PathBuf> {
        let stores = self.config.image_stores.iter();
        stores.map(|store| store.join("vfs")).collect()
    }
}
