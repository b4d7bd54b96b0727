// SPDX-License-Identifier: Apache-2.0
//! Layers as subvolumes.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::{PermissionsExt, lchown},
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, IoContext,
    LayerId, LayerKind, MountPlan, MountRequest, NativeChange, OpenRequest, Removed, Result,
    Staged, UnpackTarget, Usage,
    toolkit::{self, CopyOptions, Held, Places, TempDir, temp_dir},
};

use crate::{
    changes,
    config::Config,
    frozen,
    items::QuotaMode,
    quota, subvolume,
    sys::{self, Access, Key, Range},
};

/// Mode of a base layer's root.
const ROOT_MODE: u32 = 0o555;

/// Where layers are while they are being made or removed.
const PLACES: &str = "tempdirs";

/// A btrfs store.
pub(crate) struct BtrfsDriver {
    config: Config,
    home: PathBuf,
    run_dir: PathBuf,
    places: Places,
    /// Whether the file system answers what only the host's root may ask.
    may_search: bool,
    /// Whether subvolumes can be shown with other ids.
    may_map_ids: bool,
}

/// Where a layer is.
struct Place {
    path: PathBuf,
    /// In this store's home, and not in an image store's.
    own: bool,
}

impl Place {
    /// Makes a new subvolume of the layer.
    ///
    /// What is in another store may be on another file system, or have been copied there as plain
    /// directories: it is copied then, which takes time and room.
    fn clone_to(&self, content: &Path) -> Result<()> {
        if self.own {
            return subvolume::snapshot(&self.path, content, Access::ReadWrite);
        }
        if subvolume::is_subvolume(&self.path)? {
            match subvolume::snapshot(&self.path, content, Access::ReadWrite) {
                Err(error) if error.errno == Some(libc::EXDEV) => {}
                other => return other,
            }
        }
        subvolume::create(content)?;
        toolkit::copy_tree(&self.path, content, CopyOptions::everything())
    }
}

impl BtrfsDriver {
    pub(crate) fn open(request: OpenRequest) -> Result<Self> {
        let config = Config::parse(&request.options, &request.known_drivers)?;
        if request.image_store.is_some() {
            return Err(DriverError::new(
                DriverErrorCode::INVALID_ARGUMENT,
                "btrfs: a separate image store is not supported",
            )
            .remedy("leave `imagestore` out of [storage]"));
        }
        refuse_other_file_systems(&request.home)?;
        let subvolumes = request.home.join("subvolumes");
        toolkit::make_directories(&subvolumes, 0o700)?;
        let may_search = may_search(&subvolumes)?;
        if !may_search {
            let log = request.log("btrfs");
            log.debug("not the host's root: no limits, and changes are found by comparing");
        }
        Ok(Self {
            config,
            may_map_ids: toolkit::can_map_ids(&subvolumes)?,
            home: request.home,
            run_dir: request.run_dir,
            places: Places::default(),
            may_search,
        })
    }

    fn subvolumes(&self) -> PathBuf {
        self.home.join("subvolumes")
    }

    fn path(&self, id: &LayerId) -> PathBuf {
        self.subvolumes().join(id.as_str())
    }

    fn quota_file(&self, id: &LayerId) -> PathBuf {
        self.home.join("quotas").join(id.as_str())
    }

    fn tempdirs(&self) -> PathBuf {
        self.home.join(PLACES)
    }

    /// Where the layer is: in the home, or in the first image store that has it.
    fn locate(&self, id: &LayerId) -> Result<Option<Place>> {
        let own = self.path(id);
        if is_dir(&own)? {
            return Ok(Some(Place {
                path: own,
                own: true,
            }));
        }
        for home in self.image_stores() {
            let path = home.join("subvolumes").join(id.as_str());
            if is_dir(&path)? {
                return Ok(Some(Place { path, own: false }));
            }
        }
        Ok(None)
    }

    fn place(&self, id: &LayerId) -> Result<Place> {
        self.locate(id)?.ok_or_else(|| DriverError::no_layer(id))
    }

    fn find(&self, id: &LayerId) -> Result<PathBuf> {
        Ok(self.place(id)?.path)
    }

    /// The limit of a new layer in bytes.
    fn limit(&self, request: &CreateRequest) -> Result<Option<u64>> {
        let given = self.config.limit(&request.storage_options)?;
        let default = match request.kind {
            LayerKind::ReadWrite if self.config.size > 0 => Some(self.config.size),
            _ => None,
        };
        let limit = given.or(default);
        if limit.is_some() && !self.may_search {
            let message = "a limit of a layer's size needs the host's root";
            return Err(DriverError::new(DriverErrorCode::NOT_SUPPORTED, message)
                .object("size")
                .remedy("leave the size out, or run as root outside a user namespace"));
        }
        Ok(limit)
    }

    /// Makes the layer's subvolume in a private place.
    fn make(&self, request: &CreateRequest) -> Result<Held> {
        let limit = self.limit(request)?;
        let source = request.template.as_ref().or(request.parent.as_ref());
        let source = source.map(|id| self.place(id)).transpose()?;
        let (uid, gid) = request.id_maps.root().ok_or_else(|| {
            DriverError::new(
                DriverErrorCode::INVALID_ARGUMENT,
                "the id maps have no entry for the root user",
            )
        })?;
        let mut place = TempDir::create_to_build(&self.tempdirs())?;
        let content = place.addition();
        if let Some(source) = source {
            source.clone_to(&content)?;
        } else {
            subvolume::create(&content)?;
            let mode = fs::Permissions::from_mode(ROOT_MODE);
            fs::set_permissions(&content, mode).at("cannot set the mode of", &content)?;
            if (uid, gid) != (0, 0) {
                lchown(&content, Some(uid), Some(gid))
                    .at("cannot change the owner of", &content)?;
            }
        }
        if let Some(limit) = limit {
            quota::limit(&content, limit)?;
        }
        Ok(Held { place, content })
    }

    fn refuse_existing(&self, id: &LayerId) -> Result<()> {
        if !toolkit::is_there(&self.path(id))? {
            return Ok(());
        }
        Err(DriverError::layer_exists(id))
    }

    /// Makes the subvolume in a private place the layer that `request` asks for; an existing layer
    /// is not touched.
    fn publish(&self, content: &Path, request: &CreateRequest) -> Result<()> {
        // The rename alone would replace an empty directory.
        self.refuse_existing(&request.id)?;
        let path = self.path(&request.id);
        // 1. The layer; the file system knows its limit already.
        fs::rename(content, &path).at("cannot publish", &path)?;
        // 2. The file from which containers/storage takes the limit when it mounts.
        let written = self.write_limit(request).and_then(|()| {
            if self.config.sync {
                toolkit::sync_directory(&self.subvolumes())?;
            }
            Ok(())
        });
        written.or_else(|error| {
            fs::rename(&path, content).at("cannot take back", &path)?;
            self.forget_limit(&request.id)?;
            Err(error)
        })
    }

    fn write_limit(&self, request: &CreateRequest) -> Result<()> {
        let Some(limit) = self.limit(request)? else {
            // An interrupted removal may have left one.
            return self.forget_limit(&request.id);
        };
        let path = self.quota_file(&request.id);
        toolkit::make_directories(&self.home.join("quotas"), 0o700)?;
        fs::write(&path, limit.to_string()).at("cannot write", &path)?;
        let mode = fs::Permissions::from_mode(0o644);
        fs::set_permissions(&path, mode).at("cannot set the mode of", &path)
    }

    fn forget_limit(&self, id: &LayerId) -> Result<()> {
        let path = self.quota_file(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.at("cannot remove", &path),
        }
    }

    /// The limit that the layer's file says.
    fn recorded_limit(&self, id: &LayerId) -> Result<Option<u64>> {
        let path = self.quota_file(id);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.at("cannot read", &path)?,
        };
        let limit = text.trim().parse().map_err(|_| {
            let message = format!("`{}` holds no number of bytes", path.display());
            DriverError::new(DriverErrorCode::CORRUPT, message)
                .object(path.display().to_string())
                .remedy("remove the file to lift the limit, or write a number into it")
        })?;
        Ok(Some(limit))
    }

    /// Sees to it that the layer's limit holds, also when containers/storage has changed it or
    /// quotas were off for a while.
    fn enforce_limit(&self, id: &LayerId, path: &Path) -> Result<()> {
        match self.recorded_limit(id)? {
            Some(limit) if limit >= self.config.min_space && self.may_search => {
                quota::limit(path, limit)
            }
            _ => Ok(()),
        }
    }

    /// Makes everything durable once `exists` has found what is meant.
    fn sync_home(&self, exists: impl FnOnce() -> Result<PathBuf>) -> Result<()> {
        if !self.config.sync {
            return Err(DriverError::not_supported("sync"));
        }
        exists()?;
        toolkit::sync_file_system(&self.home)
    }

    /// Deletes what is in a private place, and the place.
    fn discard_place(&self, token: &str) -> Result<()> {
        match self.places.take(token) {
            Ok(held) => {
                subvolume::free(&held.content)?;
                held.place.close()
            }
            Err(error) if error.code == DriverErrorCode::NOT_FOUND => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn is_dir(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).at("cannot stat", path),
    }
}

/// Looks before anything is made there.
fn refuse_other_file_systems(home: &Path) -> Result<()> {
    let mut existing = home;
    while fs::metadata(existing).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
        match existing.parent() {
            Some(above) if !above.as_os_str().is_empty() => existing = above,
            _ => break,
        }
    }
    if subvolume::is_btrfs(existing)? {
        return Ok(());
    }
    let message = format!("`{}` is not on a btrfs file system", home.display());
    Err(
        DriverError::new(DriverErrorCode::INCOMPATIBLE_FILESYSTEM, message)
            .object(home.display().to_string())
            .remedy("mount a btrfs file system there, or use another driver such as overlay"),
    )
}

fn may_search(directory: &Path) -> Result<bool> {
    let file = subvolume::open(directory)?;
    let nothing = Range {
        tree: 0,
        first: Key::first(u64::MAX),
        last: Key::last(u64::MAX),
        since: 0,
    };
    match sys::search(&file, &nothing, |_, _| {}) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(false),
        Err(error) => Err(error).at("cannot search the tree of", directory),
    }
}

impl Driver for BtrfsDriver {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.list = true;
        capabilities.read_only_mounts = true;
        capabilities.volatile_mounts = true;
        capabilities.idmapped_mounts = self.may_map_ids;
        capabilities.native_changes = self.may_search;
        capabilities.staging = true;
        capabilities.deferred_removal = true;
        capabilities.sync = self.config.sync;
        capabilities.size_quota = self.may_search;
        capabilities.template = true;
        capabilities.image_stores = true;
        capabilities.directory_rename = true;
        capabilities.stable_inodes = true;
        capabilities.hard_link_copy_up = true;
        capabilities.space_sharing = true;
        capabilities.holes = true;
        capabilities
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        let quotas = if self.may_search {
            let file = subvolume::open(&self.home)?;
            match quota::mode(&file).at("cannot find out about quotas of", &self.home)? {
                None => "off",
                Some(QuotaMode::Full) => "full",
                Some(QuotaMode::Simple) => "simple",
            }
        } else {
            "unavailable"
        };
        let pairs = [
            ("Backing Filesystem", "btrfs".to_owned()),
            ("Quotas", quotas.to_owned()),
            ("Native Changes", self.may_search.to_string()),
        ];
        let pairs = pairs.into_iter();
        Ok(pairs.map(|(key, value)| (key.to_owned(), value)).collect())
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.refuse_existing(&request.id)?;
        let mut held = self.make(request)?;
        self.publish(&held.content, request).or_else(|error| {
            held.place.spend_reserve();
            subvolume::remove(&held.content).and(Err(error))
        })?;
        held.place.close()
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        match self.trash(id)? {
            Some(token) => self.reap(&token).map(|()| Removed::Now),
            None => Ok(Removed::AlreadyGone),
        }
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(self.locate(id)?.is_some())
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        toolkit::list_layers(&self.subvolumes())
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let Place { path, own } = self.place(id)?;
        let mut found = BTreeMap::from([("Subvolume".to_owned(), path.display().to_string())]);
        if own
            && self.may_search
            && let Some(account) = quota::account(&path)?
        {
            found.insert("SizeUsed".to_owned(), account.used.to_string());
            if let Some(limit) = account.limit {
                found.insert("SizeLimit".to_owned(), limit.to_string());
            }
        }
        Ok(found)
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        let path = self.find(id)?;
        if self.may_search && subvolume::is_subvolume(&path)? {
            match frozen::usage(&path, &self.tempdirs()) {
                // The process has given the right up since.
                Err(error) if error.code == DriverErrorCode::PERMISSION => {}
                other => return other,
            }
        }
        toolkit::tree_usage(&path)
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let Place { path, own } = self.place(id)?;
        if own {
            self.enforce_limit(id, &path)?;
        }
        let target = self.run_dir.join(id.as_str());
        toolkit::tree_plan("btrfs", path, target, request, own)
    }

    fn released(&self, id: &LayerId) -> Result<()> {
        toolkit::remove_mount_point(&self.run_dir.join(id.as_str()))
    }

    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        toolkit::tree_target(self.find(id)?)
    }

    fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView> {
        Ok(DiffView::Trees {
            tree: self.find(id)?,
            parent: parent.map(|parent| self.find(parent)).transpose()?,
        })
    }

    fn content_roots(&self, id: &LayerId) -> Result<Vec<PathBuf>> {
        Ok(vec![self.find(id)?])
    }

    fn native_changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<NativeChange>> {
        if !self.may_search {
            return Err(DriverError::not_supported("native_changes"));
        }
        let path = self.find(id)?;
        match parent {
            None => changes::everything(&path),
            Some(parent) => {
                let parent = self.find(parent)?;
                if !subvolume::is_subvolume(&path)? || !subvolume::is_subvolume(&parent)? {
                    return changes::whole(&path, &parent);
                }
                match changes::list(&path, &parent, &self.tempdirs()) {
                    Err(error) if error.code == DriverErrorCode::PERMISSION => {
                        changes::whole(&path, &parent)
                    }
                    other => other,
                }
            }
        }
    }

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        let held = self.make(request)?;
        let target = toolkit::tree_target(held.content.clone())?;
        let token = self.places.hold(held);
        Ok(Staged { token, target })
    }

    fn sync_staged(&self, token: &str) -> Result<()> {
        self.sync_home(|| self.places.content(token))
    }

    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        let held = self.places.take(token)?;
        let published = self.publish(&held.content, request);
        if published.is_ok() {
            return held.place.close();
        }
        self.places.hold(held);
        published
    }

    fn discard(&self, token: &str) -> Result<()> {
        self.discard_place(token)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        let path = self.path(id);
        if !toolkit::is_there(&path)? {
            self.forget_limit(id)?;
            return Ok(None);
        }
        toolkit::refuse_mounted(id, &self.run_dir.join(id.as_str()))?;
        let mut place = TempDir::create(&self.tempdirs())?;
        let taken = subvolume::rename_away(&path, || place.take(&path))?;
        self.forget_limit(id)?;
        match taken {
            Some(content) => Ok(Some(self.places.hold(Held { place, content }))),
            None => place.close().map(|()| None),
        }
    }

    fn reap(&self, token: &str) -> Result<()> {
        self.discard_place(token)
    }

    fn recover(&self) -> Result<Vec<String>> {
        temp_dir::recover_with(&self.tempdirs(), subvolume::remove_content)
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        self.sync_home(|| self.find(id))
    }

    fn image_stores(&self) -> Vec<PathBuf> {
        let stores = self.config.image_stores.iter();
        stores.map(|store| store.join("btrfs")).collect()
    }
}
