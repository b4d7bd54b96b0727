// SPDX-License-Identifier: Apache-2.0
//! Layers as datasets.

use std::{
    collections::BTreeMap,
    fs,
    os::{
        fd::AsFd,
        unix::fs::{PermissionsExt, fchown},
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    changes::{self, Layer},
    command::Programs,
    config::{self, Config},
    dataset::Datasets,
    looks::{self, Looks},
    mounts, parent,
    places::{Names, Purpose},
    shared::{Found, ImageStores},
    stale::Stale,
    usage,
};
use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, IoContext,
    LayerId, Log, MountPlan, MountRequest, MountStep, MountSteps, NativeChange, OpenRequest,
    Removed, Result, Staged, UnpackTarget, Usage,
    toolkit::{self, CopyOptions, Held, Places, TempDir},
};

/// Mode of a base layer's root.
const ROOT_MODE: u32 = 0o555;

/// Where it is written down who makes or removes something.
const PLACES: &str = "tempdirs";
/// Below the home: where layers are mounted, as containers/storage has it.
const MOUNTS: &str = "graph";

/// Present while the kernel enforces or could enforce SELinux.
const SELINUX: &str = "/sys/fs/selinux/enforce";

/// A zfs store.
pub(crate) struct ZfsDriver {
    config: Config,
    datasets: Datasets,
    home: PathBuf,
    /// The dataset below which layers are.
    parent: String,
    image_stores: ImageStores,
    names: Names,
    places: Places,
    looks: Looks,
    /// Whether mounts take labels: without SELinux the kernel would pass over them.
    takes_labels: bool,
    log: Log,
}

impl ZfsDriver {
    pub(crate) fn open(request: OpenRequest) -> Result<Self> {
        let config = Config::parse(&request.options, &request.known_drivers)?;
        if request.image_store.is_some() {
            return Err(DriverError::new(
                DriverErrorCode::INVALID_ARGUMENT,
                "zfs: a separate image store is not supported",
            )
            .remedy("leave `imagestore` out of [storage]"));
        }
        let datasets = Datasets::new(Arc::new(Programs));
        let parent = match &config.parent {
            Some(parent) => parent.clone(),
            None => parent::of(&request.home)?,
        };
        parent::check_device()?;
        parent::check(&datasets, &parent)?;
        let image_stores = ImageStores::find(&config.image_stores)?;
        toolkit::make_directories(&request.home, 0o700)?;
        // Where layers are mounted; so the first mount adds nothing to the home.
        toolkit::make_directories(&request.home.join(MOUNTS), 0o755)?;
        let home = fs::canonicalize(&request.home).at("cannot resolve", &request.home)?;
        Ok(Self {
            config,
            datasets,
            names: Names::of(&home),
            log: request.log("zfs"),
            home: request.home,
            parent,
            image_stores,
            places: Places::default(),
            looks: Looks::default(),
            takes_labels: Path::new(SELINUX).exists(),
        })
    }

    fn dataset(&self, id: &LayerId) -> String {
        format!("{}/{id}", self.parent)
    }

    fn target(&self, id: &LayerId) -> PathBuf {
        self.home.join(MOUNTS).join(id.as_str())
    }

    fn tempdirs(&self) -> PathBuf {
        self.home.join(PLACES)
    }

    /// Where the layer is: in this store, or in the first image store that has it.
    fn locate(&self, id: &LayerId) -> Result<Option<Found>> {
        let dataset = self.dataset(id);
        if self.datasets.exists(&dataset)? {
            return Ok(Some(Found { dataset, own: true }));
        }
        self.image_stores.locate(&self.datasets, id)
    }

    fn place(&self, id: &LayerId) -> Result<Found> {
        self.locate(id)?.ok_or_else(|| DriverError::no_layer(id))
    }

    /// Shows a layer of this store to core until it lets go.
    fn look_at_own(&self, id: &LayerId) -> Result<PathBuf> {
        self.looks
            .open(&self.dataset(id))
            .map_err(|error| missing_layer(error, id))
    }

    /// Shows a layer to core until it lets go.
    fn look(&self, id: &LayerId) -> Result<Look> {
        match self.look_at_own(id) {
            Ok(tree) => Ok(Look {
                dataset: self.dataset(id),
                tree,
            }),
            Err(error) if looks::is_missing(&error) => {
                let found = self.image_stores.locate(&self.datasets, id)?;
                let dataset = found.ok_or(error)?.dataset;
                let tree = self.looks.open(&dataset);
                let tree = tree.map_err(|error| missing_layer(error, id))?;
                Ok(Look { dataset, tree })
            }
            Err(error) => Err(error),
        }
    }

    /// Shows a layer and its parent.
    fn look_at_both(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<(Look, Option<Look>)> {
        let look = self.look(id)?;
        let parent = parent.map(|parent| self.look(parent)).transpose();
        let parent = parent.inspect_err(|_| self.leave(&look.tree))?;
        Ok((look, parent))
    }

    /// Ends a look.
    fn leave(&self, tree: &Path) {
        self.looks.close(tree);
    }

    /// The private dataset of a place.
    fn private(&self, place: &TempDir, purpose: Purpose) -> (String, String) {
        let name = place.name();
        let digits = name.rsplit('-').next().unwrap_or(&name).to_owned();
        let dataset = format!("{}/{}", self.parent, self.names.name(purpose, &digits));
        (dataset, digits)
    }

    /// Makes the layer's dataset in a private place.
    fn make(&self, request: &CreateRequest) -> Result<Held> {
        let limit = config::limit(&request.storage_options)?;
        let owner = request.root_owner()?;
        let mut place = TempDir::create_to_build(&self.tempdirs())?;
        let (dataset, digits) = self.private(&place, Purpose::Stage);
        let made = match request.template.as_ref().or(request.parent.as_ref()) {
            Some(source) => self.clone_layer(source, &digits, &dataset, limit),
            None => self
                .datasets
                .create(&dataset, limit)
                .and_then(|()| prepare_root(&dataset, owner)),
        };
        match made {
            Ok(()) => Ok(Held {
                place,
                content: PathBuf::from(dataset),
            }),
            Err(error) => {
                place.spend_reserve();
                // What cannot be removed now is removed by the next recovery.
                drop(self.datasets.destroy(&dataset));
                place.close().and(Err(error))
            }
        }
    }

    /// Makes the layer as a clone of one of this store, which is whole from its first moment on;
    /// `false` where there is none to clone.
    fn create_clone(&self, request: &CreateRequest) -> Result<bool> {
        let Some(source) = request.template.as_ref().or(request.parent.as_ref()) else {
            return Ok(false);
        };
        let limit = config::limit(&request.storage_options)?;
        request.root_owner()?;
        let own = self.dataset(source);
        let dataset = self.dataset(&request.id);
        let mut place = TempDir::create_to_build(&self.tempdirs())?;
        let (_, digits) = self.private(&place, Purpose::Stage);
        match self.datasets.clone_of(&own, &digits, &dataset, limit) {
            Ok(()) => place.close().map(|()| true),
            Err(error) => {
                place.spend_reserve();
                place.close()?;
                match error.code {
                    _ if is_about(&error, &own) => Ok(false),
                    DriverErrorCode::ALREADY_EXISTS => Err(DriverError::layer_exists(&request.id)),
                    _ => Err(error),
                }
            }
        }
    }

    fn clone_layer(
        &self,
        source: &LayerId,
        digits: &str,
        dataset: &str,
        limit: Option<u64>,
    ) -> Result<()> {
        let clone_of = |name: &str| self.datasets.clone_of(name, digits, dataset, limit);
        let own = self.dataset(source);
        let found = match clone_of(&own) {
            Err(error) if is_about(&error, &own) => {
                self.image_stores.locate(&self.datasets, source)?
            }
            other => return other,
        };
        let name = found.ok_or_else(|| DriverError::no_layer(source))?.dataset;
        if pool_of(&name) == pool_of(dataset) {
            clone_of(&name)
        } else {
            self.copy_layer(&name, dataset, limit)
        }
    }

    /// Makes the dataset a copy of one of another pool, which cannot be cloned.
    fn copy_layer(&self, source: &str, dataset: &str, limit: Option<u64>) -> Result<()> {
        self.datasets.create(dataset, limit)?;
        let from = self.looks.open(source)?;
        let copied = self.looks.open(dataset).and_then(|to| {
            let copied = toolkit::copy_tree(&from, &to, CopyOptions::everything());
            self.leave(&to);
            copied
        });
        self.leave(&from);
        copied
    }

    /// Makes the private dataset the layer that is asked for.
    fn publish(&self, dataset: &str, id: &LayerId) -> Result<()> {
        match self.datasets.rename(dataset, &self.dataset(id)) {
            Ok(true) => {
                // Not before: what cannot be published stays staged, and is still looked at.
                self.looks.forget(dataset);
                Ok(())
            }
            Ok(false) => {
                let message = format!("the dataset `{dataset}` is not there any more");
                Err(DriverError::new(DriverErrorCode::NOT_FOUND, message).object(dataset))
            }
            Err(error) if error.code == DriverErrorCode::ALREADY_EXISTS => {
                Err(DriverError::layer_exists(id))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes a layer out of sight.
    fn throw_away(&self, id: &LayerId) -> Result<Thrown> {
        let dataset = self.dataset(id);
        toolkit::refuse_mounted(id, &self.target(id))?;
        toolkit::remove_mount_point(&self.target(id))?;
        self.looks.end(&dataset)?;
        let place = match TempDir::create(&self.tempdirs()) {
            Ok(place) => place,
            // Destroying needs no room of the home's file system.
            Err(error) if error.code == DriverErrorCode::NO_SPACE => {
                return self.destroy_at_once(&dataset);
            }
            Err(error) => return Err(error),
        };
        let (trash, _) = self.private(&place, Purpose::Trash);
        match self.datasets.rename(&dataset, &trash) {
            Ok(true) => {
                let content = PathBuf::from(trash);
                Ok(Thrown::Held(self.places.hold(Held { place, content })))
            }
            Ok(false) => place.close().map(|()| Thrown::Missing),
            Err(error) if error.code == DriverErrorCode::NO_SPACE => {
                let destroyed = self.destroy_at_once(&dataset);
                place.close().and(destroyed)
            }
            Err(error) => place.close().and(Err(error)),
        }
    }

    /// Destroys a dataset for which there is no private place.
    fn destroy_at_once(&self, dataset: &str) -> Result<Thrown> {
        if !self.datasets.exists(dataset)? {
            return Ok(Thrown::Missing);
        }
        self.datasets.destroy(dataset).map(|()| Thrown::Destroyed)
    }

    /// Deletes what is in a private place, and the place.
    fn discard_place(&self, token: &str) -> Result<()> {
        let mut held = match self.places.take(token) {
            Ok(held) => held,
            Err(error) if error.code == DriverErrorCode::NOT_FOUND => return Ok(()),
            Err(error) => return Err(error),
        };
        held.place.spend_reserve();
        let dataset = name_of(&held.content);
        self.looks.forget(&dataset);
        match self.datasets.destroy(&dataset) {
            Ok(()) => {}
            // Without a lock file it belongs to nobody, and the next recovery takes it.
            Err(error) if error.code == DriverErrorCode::BUSY => {
                let when = "it is destroyed when nobody uses it any more";
                self.log.warn(format!("{error}; {when}"));
            }
            Err(error) => {
                // It can be tried again.
                self.places.hold(held);
                return Err(error);
            }
        }
        held.place.close()
    }

    /// The options of a mount, and whether it is read-only.
    fn mount_options(&self, request: &MountRequest) -> Result<(Vec<String>, bool)> {
        let (read_only, given): (Vec<_>, Vec<_>) =
            request.options.iter().partition(|option| *option == "ro");
        for option in &given {
            config::check_mount_option(option)?;
        }
        // Given options take the place of the configured ones, as in containers/storage.
        let mut options: Vec<String> = if request.options.is_empty() {
            self.config.mount_options.clone()
        } else {
            given.into_iter().cloned().collect()
        };
        if !options.iter().any(|option| config::is_propagation(option)) {
            // What is mounted in a layer stays in this namespace, and leaves with the layer.
            options.push("private".to_owned());
        }
        if let Some(label) = &request.label {
            if !self.takes_labels {
                return Err(DriverError::not_supported("mount labels").object(label.as_str()));
            }
            options.push(format!("context={label}"));
        }
        Ok((options, request.read_only || !read_only.is_empty()))
    }
}

/// A layer that core, or a comparison, looks at.
struct Look {
    dataset: String,
    tree: PathBuf,
}

impl Look {
    fn layer(&self) -> Layer<'_> {
        Layer {
            name: &self.dataset,
            tree: &self.tree,
        }
    }
}

/// What came of taking a layer out of sight.
enum Thrown {
    /// It is in a private place, to be reaped.
    Held(String),
    /// It is gone altogether.
    Destroyed,
    /// It was not there.
    Missing,
}

/// Whether it failed because the dataset `name` is not there.
fn is_about(error: &DriverError, name: &str) -> bool {
    error.code == DriverErrorCode::NOT_FOUND && error.object.as_deref() == Some(name)
}

fn missing_layer(error: DriverError, id: &LayerId) -> DriverError {
    if looks::is_missing(&error) {
        DriverError::no_layer(id)
    } else {
        error
    }
}

fn pool_of(dataset: &str) -> &str {
    dataset.split('/').next().unwrap_or(dataset)
}

/// The dataset that a place holds, or another path that is text.
fn name_of(content: &Path) -> String {
    content.to_string_lossy().into_owned()
}

/// Gives the root of a new dataset its mode and owner.
fn prepare_root(dataset: &str, (uid, gid): (u32, u32)) -> Result<()> {
    let mount = mounts::detached(dataset)?;
    let root = looks::root(mount.as_fd());
    let root = fs::File::from(root.at("cannot open the root of", dataset)?);
    let mode = fs::Permissions::from_mode(ROOT_MODE);
    root.set_permissions(mode)
        .at("cannot set the mode of", dataset)?;
    fchown(&root, Some(uid), Some(gid)).at("cannot change the owner of", dataset)
}

impl Driver for ZfsDriver {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.list = true;
        capabilities.read_only_mounts = true;
        capabilities.mount_options = true;
        capabilities.mount_labels = self.takes_labels;
        capabilities.volatile_mounts = true;
        capabilities.native_changes = true;
        capabilities.staging = true;
        capabilities.deferred_removal = true;
        capabilities.sync = true;
        capabilities.size_quota = true;
        capabilities.template = true;
        capabilities.image_stores = true;
        capabilities.cheap_usage = true;
        capabilities.directory_rename = true;
        capabilities.stable_inodes = true;
        capabilities.hard_link_copy_up = true;
        capabilities.space_sharing = true;
        capabilities.holes = true;
        capabilities
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        let pool = pool_of(&self.parent);
        // As in containers/storage, a pool that does not answer is something to be told.
        let (pool, health) = match self.datasets.zpool(&["list", "-H", "-o", "health", pool]) {
            Ok(health) => (
                pool.to_owned(),
                String::from_utf8_lossy(&health).trim().to_owned(),
            ),
            Err(failure) => (
                format!("error while getting pool information {failure}"),
                "not available".to_owned(),
            ),
        };
        let wanted = ["used", "available", "quota", "compression"];
        let found = self.datasets.properties(&self.parent, &wanted);
        let [used, available, quota, compression] = found
            .map_err(|failure| failure.about(&self.parent))?
            .try_into()
            .unwrap_or_default();
        let quota = if quota == "0" { "no".to_owned() } else { quota };
        let pairs = [
            ("Zpool", pool),
            ("Zpool Health", health),
            ("Parent Dataset", self.parent.clone()),
            ("Space Used By Parent", used),
            ("Space Available", available),
            ("Parent Quota", quota),
            ("Compression", compression),
        ];
        Ok(pairs.map(|(key, value)| (key.to_owned(), value)).to_vec())
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        if self.create_clone(request)? {
            return Ok(());
        }
        let held = self.make(request)?;
        let dataset = name_of(&held.content);
        let mut place = held.place;
        match self.publish(&dataset, &request.id) {
            Ok(()) => place.close(),
            Err(error) => {
                place.spend_reserve();
                let destroyed = self.datasets.destroy(&dataset);
                destroyed.and(place.close()).and(Err(error))
            }
        }
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        match self.throw_away(id)? {
            Thrown::Held(token) => self.reap(&token).map(|()| Removed::Now),
            Thrown::Destroyed => Ok(Removed::Now),
            Thrown::Missing => Ok(Removed::AlreadyGone),
        }
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(self.locate(id)?.is_some())
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        let names = self.datasets.children(&self.parent)?;
        let mut ids: Vec<_> = names
            .into_iter()
            .filter_map(|name| LayerId::new(name).ok())
            .collect();
        ids.sort();
        Ok(ids)
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let dataset = self.place(id)?.dataset;
        let target = self.target(id).display().to_string();
        Ok(BTreeMap::from([
            ("Mountpoint".to_owned(), target),
            ("Dataset".to_owned(), dataset),
        ]))
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        // Files of a dataset that is mounted are counted whoever else uses it.
        match self.look(id) {
            Ok(look) => {
                let usage = usage::of(&self.datasets, &look.dataset);
                self.leave(&look.tree);
                usage
            }
            // Who may not mount counts when nobody else does.
            Err(error) if error.code == DriverErrorCode::PERMISSION => {
                let counted = self.place(id);
                let counted = counted.and_then(|place| usage::of(&self.datasets, &place.dataset));
                counted.or(Err(error))
            }
            Err(error) => Err(error),
        }
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let (options, read_only) = self.mount_options(request)?;
        let Found {
            dataset: source,
            own,
        } = self.place(id)?;
        let target = self.target(id);
        toolkit::make_directories(&target, 0o755)?;
        Ok(MountPlan::Mounts(MountSteps {
            steps: vec![MountStep::Filesystem {
                fstype: "zfs".to_owned(),
                source,
                target: target.clone(),
                options,
                read_only: read_only || !own,
            }],
            target,
        }))
    }

    fn released(&self, id: &LayerId) -> Result<()> {
        toolkit::remove_mount_point(&self.target(id))
    }

    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        let tree = self.look_at_own(id)?;
        toolkit::tree_target(tree.clone()).inspect_err(|_| self.leave(&tree))
    }

    fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView> {
        let (layer, parent) = self.look_at_both(id, parent)?;
        Ok(DiffView::Trees {
            tree: layer.tree,
            parent: parent.map(|parent| parent.tree),
        })
    }

    fn content_roots(&self, id: &LayerId) -> Result<Vec<PathBuf>> {
        Ok(vec![self.look(id)?.tree])
    }

    fn native_changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<NativeChange>> {
        let (layer, parent) = self.look_at_both(id, parent)?;
        let listed = match &parent {
            None => changes::everything(&layer.tree),
            Some(parent) => {
                let layers = (layer.layer(), parent.layer());
                changes::list(&self.datasets, layers, &self.home, &self.log)
            }
        };
        for look in std::iter::once(&layer).chain(&parent) {
            self.leave(&look.tree);
        }
        listed
    }

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        let held = self.make(request)?;
        let dataset = name_of(&held.content);
        let target = self.looks.open(&dataset).and_then(toolkit::tree_target);
        match target {
            Ok(target) => {
                let token = self.places.hold(held);
                Ok(Staged { token, target })
            }
            Err(error) => {
                let mut place = held.place;
                place.spend_reserve();
                self.looks.forget(&dataset);
                let destroyed = self.datasets.destroy(&dataset);
                destroyed.and(place.close()).and(Err(error))
            }
        }
    }

    fn sync_staged(&self, token: &str) -> Result<()> {
        looks::sync(&name_of(&self.places.content(token)?))
    }

    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        let held = self.places.take(token)?;
        let published = self.publish(&name_of(&held.content), &request.id);
        if published.is_ok() {
            return held.place.close();
        }
        self.places.hold(held);
        published
    }

    fn discard(&self, token: &str) -> Result<()> {
        self.discard_place(token)
    }

    fn let_go(&self, directory: &Path) -> Result<()> {
        self.looks.close(directory);
        Ok(())
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        Ok(match self.throw_away(id)? {
            Thrown::Held(token) => Some(token),
            Thrown::Destroyed | Thrown::Missing => None,
        })
    }

    fn reap(&self, token: &str) -> Result<()> {
        self.discard_place(token)
    }

    fn recover(&self) -> Result<Vec<String>> {
        let stale = Stale {
            datasets: &self.datasets.in_a_hurry(),
            parent: &self.parent,
            image_stores: self.image_stores.parents(),
            names: &self.names,
            tempdirs: &self.tempdirs(),
        };
        stale.reclaim()
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        looks::sync(&self.dataset(id)).map_err(|error| missing_layer(error, id))
    }

    fn image_stores(&self) -> Vec<PathBuf> {
        let stores = self.config.image_stores.iter();
        stores.map(|store| store.join("zfs")).collect()
    }
}
