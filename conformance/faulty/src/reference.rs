// SPDX-License-Identifier: Apache-2.0
//! The correct driver: layers are whole trees.
//!
//! ```text
//! layers/<id>/            0700; made in a private place and renamed
//! layers/<id>/depth       how many layers it stood on when it was made
//! layers/<id>/tree/       the layer's tree, which started as a copy of its parent's; or
//! layers/<id>/volume      a file system with the tree, for a layer with a limit
//! layers/<id>/point/      where that is mounted for a moment
//! tempdirs/               what is being made or removed; absent when nothing is
//! ```

mod changes;
mod external;
mod layers;
mod options;
mod volume;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, ExternalDirectory,
    IoContext, LayerId, MountPlan, MountRequest, MountStep, MountSteps, NativeChange, OpenRequest,
    Plugin, Removed, Result, Staged, UnpackTarget, Usage,
    toolkit::{self, Held, TempDir, layer_store::LayerDirectory},
};
use rustix::mount::{MountFlags, MountPropagationFlags, mount_bind, mount_change, mount_remount};

use layers::Layers;

/// How many layers a layer may stand on.
pub const DEPTH_LIMIT: u32 = 128;

/// The correct driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reference;

impl Plugin for Reference {
    const NAME: &'static str = "reference";
    const VENDOR: &'static str = "Plywood conformance";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        Ok(Box::new(ReferenceDriver::open(Self::NAME, request)?))
    }
}

/// An open store of the correct driver.
#[derive(Debug)]
pub(crate) struct ReferenceDriver {
    layers: Layers,
    run_dir: PathBuf,
    has_volumes: bool,
}

impl ReferenceDriver {
    /// Opens a store for the driver called `name`.
    pub(crate) fn open(name: &'static str, request: OpenRequest) -> Result<Self> {
        let config = options::Config::parse(name, &request.options, &request.known_drivers)?;
        let has_volumes = volume::available();
        if config.size > 0 && !has_volumes {
            return Err(no_volumes("size"));
        }
        Ok(Self {
            layers: Layers::open(name, request.home, config)?,
            run_dir: request.run_dir,
            has_volumes,
        })
    }

    /// Lets `directory` say what the directory of a layer is called, which is its id otherwise.
    pub(crate) fn name_directories(&mut self, directory: fn(&LayerId) -> String) {
        self.layers.directory = directory;
    }

    /// Where everything of the store is.
    pub(crate) fn home(&self) -> &Path {
        &self.layers.home
    }

    /// Where what is mounted is shown.
    pub(crate) fn run_dir(&self) -> &Path {
        &self.run_dir
    }

    /// Where the layer is when it is in the home.
    pub(crate) fn directory(&self, id: &LayerId) -> PathBuf {
        self.layers.own(id)
    }

    /// Where what is being made or removed is.
    pub(crate) fn places(&self) -> PathBuf {
        self.layers.places_dir()
    }

    fn view(&self, id: &LayerId) -> PathBuf {
        self.run_dir.join((self.layers.directory)(id))
    }

    fn make_view(&self, id: &LayerId) -> Result<PathBuf> {
        let view = self.view(id);
        layers::make_dirs(&view)?;
        Ok(view)
    }

    /// Makes a layer in a private place, which takes as long as copying takes.
    fn make(&self, request: &CreateRequest) -> Result<Held> {
        let limits = options::layer_limits(&request.storage_options)?;
        if let Some(option) = limits.any()
            && !self.has_volumes
        {
            return Err(no_volumes(option));
        }
        self.layers.make(request, limits)
    }

    /// Moves a layer into a private place.
    fn take(&self, id: &LayerId) -> Result<Option<Held>> {
        let directory = self.layers.own(id);
        // What else has the name is moved as it is.
        if layers::is_there(&directory)? {
            self.layers.volumes.forget(&directory)?;
            self.refuse_mounted(id, &directory)?;
        }
        let mut place = TempDir::create(&self.layers.places_dir())?;
        match place.take(&directory)? {
            Some(content) => Ok(Some(Held { place, content })),
            None => place.close().map(|()| None),
        }
    }

    /// A mount in the layer belongs to somebody, and so does one of the layer.
    fn refuse_mounted(&self, id: &LayerId, directory: &Path) -> Result<()> {
        let directory = fs::canonicalize(directory).at("cannot resolve", directory)?;
        let view = self.view(id);
        let mounts = toolkit::mountinfo::mounts()?;
        let busy = mounts
            .iter()
            .map(|mount| &mount.target)
            .find(|target| target.starts_with(&directory) || **target == view);
        let Some(busy) = busy else { return Ok(()) };
        let message = format!("something is mounted at `{}`", busy.display());
        Err(DriverError::new(DriverErrorCode::BUSY, message)
            .object(id.as_str())
            .remedy("unmount it first"))
    }

    /// Shows the layer at `view`, whole or not at all.
    fn show(&self, id: &LayerId, view: &Path, flags: MountFlags) -> Result<()> {
        volume::detach(view)?;
        let directory = self.layers.find(id)?;
        match self.layers.volumes.of(&directory)? {
            Some(volume) => volume.mount_at(view)?,
            None => mount_bind(directory.join(layers::TREE), view).at("cannot mount at", view)?,
        }
        let flags = flags | MountFlags::BIND;
        mount_change(view, MountPropagationFlags::PRIVATE)
            .and_then(|()| mount_remount(view, flags, ""))
            .at("cannot restrict the mount at", view)
            .inspect_err(|_| {
                // The first failure says more than one of undoing it.
                drop(volume::detach(view));
            })
    }

    fn flags(&self, id: &LayerId, request: &MountRequest) -> Result<MountFlags> {
        if request.label.is_some() {
            return Err(DriverError::not_supported("labels on mounts"));
        }
        let mut flags = options::mount_flags(&request.options)?;
        if request.read_only || !self.layers.is_own(id) {
            flags |= MountFlags::RDONLY;
        }
        Ok(flags)
    }
}

fn refuse_id_maps(request: &MountRequest) -> Result<()> {
    if request.id_maps.is_empty() {
        return Ok(());
    }
    Err(DriverError::not_supported(
        "id maps together with a limit or mount options",
    ))
}

fn no_volumes(option: &str) -> DriverError {
    DriverError::new(
        DriverErrorCode::NOT_SUPPORTED,
        "a layer cannot be limited here",
    )
    .object(option)
    .remedy("loop devices and the program mkfs.ext4 are needed")
}

impl Driver for ReferenceDriver {
    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.list = true;
        can.depth_limit = Some(DEPTH_LIMIT);
        can.read_only_mounts = true;
        can.mount_options = true;
        can.volatile_mounts = true;
        can.idmapped_mounts = true;
        can.native_changes = true;
        can.staging = true;
        can.deferred_removal = true;
        can.sync = true;
        can.size_quota = self.has_volumes;
        can.inode_quota = self.has_volumes;
        can.template = true;
        can.image_stores = true;
        can.external_directory = true;
        can.directory_rename = true;
        can.stable_inodes = true;
        can.hard_link_copy_up = true;
        can.holes = true;
        can
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        self.layers.status()
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.layers.refuse_existing(&request.id)?;
        let held = self.make(request)?;
        self.layers.publish(&held.content, &request.id)?;
        held.place.close()
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        let Some(held) = self.take(id)? else {
            return Ok(Removed::AlreadyGone);
        };
        let source = external::of(&held.content)?;
        held.place.close()?;
        self.layers.release(source);
        Ok(Removed::Now)
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(self.layers.look_for(id)?.is_some())
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        self.layers.list()
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let directory = self.layers.find(id)?;
        let shown = directory.display().to_string();
        Ok(BTreeMap::from([("Directory".to_owned(), shown)]))
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        toolkit::tree_usage(&self.layers.tree(id)?)
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let directory = self.layers.find_whole(id)?;
        external::reach(&directory, self.layers.patience())?;
        let flags = self.flags(id, request)?;
        let tree = directory.join(layers::TREE);
        // Core shows directories with id maps; what is mounted here has the layer's own owners.
        if !layers::is_there(&tree)? || !(flags - MountFlags::RDONLY).is_empty() {
            refuse_id_maps(request)?;
            return Ok(MountPlan::ByDriver {
                target: self.view(id),
            });
        }
        if flags.is_empty() {
            return Ok(MountPlan::Directory(tree));
        }
        let target = self.make_view(id)?;
        Ok(MountPlan::Mounts(MountSteps {
            steps: vec![MountStep::Bind {
                source: tree,
                target: target.clone(),
                read_only: true,
            }],
            target,
        }))
    }

    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<PathBuf> {
        refuse_id_maps(request)?;
        let flags = self.flags(id, request)?;
        self.layers.find(id)?;
        let view = self.make_view(id)?;
        self.show(id, &view, flags).inspect_err(|_| {
            // What keeps it there is the next mount's affair.
            drop(fs::remove_dir(&view));
        })?;
        Ok(view)
    }

    fn unmount(&self, id: &LayerId) -> Result<()> {
        volume::detach(&self.view(id))
    }

    fn released(&self, id: &LayerId) -> Result<()> {
        layers::remove_dir(&self.view(id))
    }

    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        layers::target(self.layers.tree(id)?)
    }

    fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView> {
        Ok(DiffView::Trees {
            tree: self.layers.tree(id)?,
            parent: parent.map(|parent| self.layers.tree(parent)).transpose()?,
        })
    }

    fn content_roots(&self, id: &LayerId) -> Result<Vec<PathBuf>> {
        Ok(vec![self.layers.tree(id)?])
    }

    fn native_changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<NativeChange>> {
        let tree = self.layers.tree(id)?;
        let parent = parent.map(|parent| self.layers.tree(parent)).transpose()?;
        changes::between(&tree, parent.as_deref())
    }

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        let held = self.make(request)?;
        let target = self
            .layers
            .tree_in(&held.content)
            .and_then(layers::target)
            .inspect_err(|_| drop(self.layers.volumes.forget(&held.content)))?;
        let token = self.layers.places.hold(held);
        Ok(Staged { token, target })
    }

    fn sync_staged(&self, token: &str) -> Result<()> {
        let content = self.layers.places.content(token)?;
        self.layers.sync(&content)
    }

    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        let held = self.layers.places.take(token)?;
        let published = self.layers.publish(&held.content, &request.id);
        if published.is_ok() {
            return held.place.close();
        }
        self.layers.places.hold(held);
        published
    }

    fn discard(&self, token: &str) -> Result<()> {
        if let Ok(content) = self.layers.places.content(token) {
            self.layers.volumes.forget(&content)?;
        }
        self.layers.places.discard(token)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        let held = self.take(id)?;
        Ok(held.map(|held| self.layers.places.hold(held)))
    }

    fn reap(&self, token: &str) -> Result<()> {
        let content = self.layers.places.content(token).ok();
        let source = content.map(|content| external::of(&content)).transpose()?;
        self.layers.places.discard(token)?;
        self.layers.release(source.flatten());
        Ok(())
    }

    fn recover(&self) -> Result<Vec<String>> {
        self.layers.recover()
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        self.layers.sync(&self.layers.find(id)?)
    }

    fn image_stores(&self) -> Vec<PathBuf> {
        self.layers.image_stores()
    }

    fn create_external(&self, request: &CreateRequest, external: &ExternalDirectory) -> Result<()> {
        if !request.id_maps.is_empty() {
            return Err(DriverError::not_supported("id maps of external layers"));
        }
        self.layers.refuse_existing(&request.id)?;
        let source = LayerDirectory::new(&external.directory, external.timeout);
        source.check()?;
        let held = self.make(request)?;
        let tree = self.layers.tree_in(&held.content)?;
        external::lay_over(&external.diff, &tree, &held.content.join("spare"))?;
        external::refer(&held.content, source.path())?;
        self.layers.publish(&held.content, &request.id)?;
        held.place.close()?;
        // Uses are counted for the source's benefit: the layer is there without.
        source.notify_use().ok();
        Ok(())
    }

    fn external_layer(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        external::of(&self.layers.find(id)?)
    }

    fn close(&self) -> Result<()> {
        self.layers.volumes.clear();
        Ok(())
    }
}
