// SPDX-License-Identifier: Apache-2.0
//! Layers as plain trees.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{DirBuilderExt, PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, IoContext,
    LayerId, MountPlan, MountRequest, OpenRequest, Removed, Result, Staged, UnpackTarget, Usage,
    toolkit::{self, CopyOptions, Held, Places, TempDir, temp_dir},
};

use crate::config::Config;

/// Mode of a base layer's root, whatever the umask.
const ROOT_MODE: u32 = 0o555;

/// Where layers are while they are being made or removed.
const PLACES: &str = "tempdirs";

/// A vfs store.
pub(crate) struct VfsDriver {
    config: Config,
    home: PathBuf,
    run_dir: PathBuf,
    places: Places,
    /// Whether trees can be shown with other ids.
    may_map_ids: bool,
}

impl VfsDriver {
    pub(crate) fn open(request: OpenRequest) -> Result<Self> {
        let config = Config::parse(&request.options, &request.known_drivers)?;
        if request.image_store.is_some() {
            return Err(DriverError::new(
                DriverErrorCode::INVALID_ARGUMENT,
                "vfs: a separate image store is not supported",
            )
            .remedy("leave `imagestore` out of [storage]"));
        }
        let trees = request.home.join("dir");
        toolkit::make_directories(&trees, 0o700)?;
        Ok(Self {
            config,
            may_map_ids: toolkit::can_map_ids(&trees)?,
            home: request.home,
            run_dir: request.run_dir,
            places: Places::default(),
        })
    }

    fn trees(&self) -> PathBuf {
        self.home.join("dir")
    }

    fn own(&self, id: &LayerId) -> PathBuf {
        self.trees().join(id.as_str())
    }

    /// Where the layer's tree is: in the home, or in the first image store that has it.
    fn find(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        let own = self.own(id);
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

    /// Makes the layer's tree in a private place, which takes as long as copying takes.
    fn make(&self, request: &CreateRequest) -> Result<Held> {
        if let Some(option) = request.storage_options.keys().next() {
            return Err(DriverError::new(
                DriverErrorCode::INVALID_ARGUMENT,
                "--storage-opt is not supported for vfs",
            )
            .object(option));
        }
        let source = request.template.as_ref().or(request.parent.as_ref());
        let source = source.map(|id| self.tree(id)).transpose()?;
        let (uid, gid) = request.id_maps.root().ok_or_else(|| {
            DriverError::new(
                DriverErrorCode::INVALID_ARGUMENT,
                "the id maps have no entry for the root user",
            )
        })?;
        let mut place = TempDir::create_to_build(&self.home.join(PLACES))?;
        let content = place.addition();
        fs::DirBuilder::new()
            .mode(ROOT_MODE)
            .create(&content)
            .at("cannot create", &content)?;
        if let Some(source) = source {
            let options = CopyOptions {
                ignore_chown_errors: self.config.ignore_chown_errors,
                ..CopyOptions::everything()
            };
            toolkit::copy_tree(&source, &content, options)?;
        } else {
            // It is what containers see as their root.
            let mode = fs::Permissions::from_mode(ROOT_MODE);
            fs::set_permissions(&content, mode).at("cannot change the mode of", &content)?;
            if (uid, gid) != (0, 0) {
                lchown(&content, Some(uid), Some(gid))
                    .at("cannot change the owner of", &content)?;
            }
        }
        Ok(Held { place, content })
    }

    fn refuse_existing(&self, id: &LayerId) -> Result<()> {
        if !toolkit::is_there(&self.own(id))? {
            return Ok(());
        }
        let message = format!("layer `{id}` exists");
        Err(DriverError::new(DriverErrorCode::ALREADY_EXISTS, message).object(id.as_str()))
    }

    /// Makes the tree in a private place the layer `id`; an existing layer is not touched.
    fn publish(&self, content: &Path, id: &LayerId) -> Result<()> {
        // The rename alone would replace an empty layer.
        self.refuse_existing(id)?;
        let tree = self.own(id);
        fs::rename(content, &tree).at("cannot publish", &tree)?;
        if self.config.sync {
            let trees = self.trees();
            toolkit::sync_directory(&trees).or_else(|error| {
                fs::rename(&tree, content).at("cannot take back", &tree)?;
                Err(error)
            })?;
        }
        Ok(())
    }

    /// Makes everything durable once `exists` has found what is meant.
    fn sync_home(&self, exists: impl FnOnce() -> Result<PathBuf>) -> Result<()> {
        if !self.config.sync {
            return Err(DriverError::not_supported("sync"));
        }
        exists()?;
        toolkit::sync_file_system(&self.home)
    }

    fn target(&self, directory: PathBuf) -> Result<UnpackTarget> {
        let mut target = toolkit::tree_target(directory)?;
        target.ignore_chown_errors = self.config.ignore_chown_errors;
        Ok(target)
    }
}

impl Driver for VfsDriver {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.list = true;
        capabilities.read_only_mounts = true;
        capabilities.volatile_mounts = true;
        capabilities.idmapped_mounts = self.may_map_ids;
        capabilities.staging = true;
        capabilities.deferred_removal = true;
        capabilities.sync = self.config.sync;
        capabilities.template = true;
        capabilities.image_stores = true;
        capabilities.directory_rename = true;
        capabilities.stable_inodes = true;
        capabilities.hard_link_copy_up = true;
        capabilities.holes = true;
        capabilities
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.refuse_existing(&request.id)?;
        let held = self.make(request)?;
        self.publish(&held.content, &request.id)?;
        held.place.close()
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        match self.trash(id)? {
            Some(token) => self.reap(&token).map(|()| Removed::Now),
            None => Ok(Removed::AlreadyGone),
        }
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(self.find(id)?.is_some())
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        toolkit::list_layers(&self.trees())
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        self.tree(id).map(|_| BTreeMap::new())
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        toolkit::tree_usage(&self.tree(id)?)
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let tree = self.tree(id)?;
        let writable = tree.starts_with(&self.home);
        let target = self.run_dir.join(id.as_str());
        toolkit::tree_plan("vfs", tree, target, request, writable)
    }

    fn released(&self, id: &LayerId) -> Result<()> {
        toolkit::remove_mount_point(&self.run_dir.join(id.as_str()))
    }

    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        self.target(self.tree(id)?)
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

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        let held = self.make(request)?;
        let target = self.target(held.content.clone())?;
        let token = self.places.hold(held);
        Ok(Staged { token, target })
    }

    fn sync_staged(&self, token: &str) -> Result<()> {
        self.sync_home(|| self.places.content(token))
    }

    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        let held = self.places.take(token)?;
        let published = self.publish(&held.content, &request.id);
        if published.is_ok() {
            return held.place.close();
        }
        self.places.hold(held);
        published
    }

    fn discard(&self, token: &str) -> Result<()> {
        self.places.discard(token)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        let tree = self.own(id);
        if !toolkit::is_there(&tree)? {
            return Ok(None);
        }
        toolkit::refuse_mounted(id, &self.run_dir.join(id.as_str()))?;
        let mut place = TempDir::create(&self.home.join(PLACES))?;
        match place.take(&tree)? {
            Some(content) => Ok(Some(self.places.hold(Held { place, content }))),
            None => place.close().map(|()| None),
        }
    }

    fn reap(&self, token: &str) -> Result<()> {
        self.places.discard(token)
    }

    fn recover(&self) -> Result<Vec<String>> {
        temp_dir::recover(&self.home.join(PLACES))
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        self.sync_home(|| self.tree(id))
    }

    fn image_stores(&self) -> Vec<PathBuf> {
        let stores = self.config.image_stores.iter();
        stores.map(|store| store.join("vfs")).collect()
    }
}
