// SPDX-License-Identifier: Apache-2.0
//! Where layers are, and how they come and go.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, lchown},
    path::{Path, PathBuf},
    time::Duration,
};

use plywood_plugin_sdk::{
    CreateRequest, DriverError, DriverErrorCode, IoContext, LayerId, LayerKind, Result,
    UnpackTarget,
    toolkit::{
        self, CopiedXattrs, CopyOptions, Held, Places, TempDir, layer_store::LayerDirectory,
        mountinfo, temp_dir,
    },
};

use super::{
    DEPTH_LIMIT,
    options::{Config, Limits},
    volume::{self, Volume, Volumes},
};

/// A layer's tree, unless it has a volume.
pub(super) const TREE: &str = "tree";
const DEPTH: &str = "depth";
const LAYERS: &str = "layers";
const PLACES: &str = "tempdirs";
/// Mode of a base layer's root.
const ROOT_MODE: u32 = 0o555;

/// The layers of a store.
#[derive(Debug)]
pub(super) struct Layers {
    name: &'static str,
    pub(super) home: PathBuf,
    config: Config,
    /// What the directory of a layer is called.
    pub(super) directory: fn(&LayerId) -> String,
    /// What is staged, and what waits to be deleted.
    pub(super) places: Places,
    pub(super) volumes: Volumes,
}

impl Layers {
    pub(super) fn open(name: &'static str, home: PathBuf, config: Config) -> Result<Self> {
        make_dirs(&home.join(LAYERS))?;
        Ok(Self {
            name,
            home,
            config,
            directory: LayerId::to_string,
            places: Places::default(),
            volumes: Volumes::default(),
        })
    }

    pub(super) fn own(&self, id: &LayerId) -> PathBuf {
        self.home.join(LAYERS).join((self.directory)(id))
    }

    pub(super) fn is_own(&self, id: &LayerId) -> bool {
        self.own(id).is_dir()
    }

    pub(super) fn places_dir(&self) -> PathBuf {
        self.home.join(PLACES)
    }

    /// How long a layer source is waited for.
    pub(super) fn patience(&self) -> Duration {
        self.config.layer_stores.timeout
    }

    /// Tells a layer source that a layer no longer refers to it.
    pub(super) fn release(&self, source: Option<PathBuf>) {
        let source = source.map(|source| LayerDirectory::new(source, self.patience()));
        // Uses are counted for the source's benefit: the layer is gone in any case.
        source.map(|source| source.notify_release().ok());
    }

    pub(super) fn image_stores(&self) -> Vec<PathBuf> {
        let stores = self.config.image_stores.iter();
        stores.map(|store| store.join(self.name)).collect()
    }

    /// The layer's directory: in the home, or in the first image store that has it.
    pub(super) fn look_for(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        let theirs = self.image_stores().into_iter();
        let theirs = theirs.map(|home| home.join(LAYERS).join((self.directory)(id)));
        for directory in std::iter::once(self.own(id)).chain(theirs) {
            if is_there(&directory)? {
                return Ok(Some(directory));
            }
        }
        Ok(None)
    }

    pub(super) fn find(&self, id: &LayerId) -> Result<PathBuf> {
        let found = self.look_for(id)?;
        found.ok_or_else(|| DriverError::no_layer(id))
    }

    /// The same, for a layer that has lost nothing.
    pub(super) fn find_whole(&self, id: &LayerId) -> Result<PathBuf> {
        let directory = self.find(id)?;
        if is_there(&directory.join(TREE))? || directory.join(super::volume::IMAGE).exists() {
            return Ok(directory);
        }
        let message = format!("layer `{id}` has lost its tree");
        Err(DriverError::new(DriverErrorCode::CORRUPT, message)
            .object(directory.display().to_string()))
    }

    /// The layer's tree, for this process.
    pub(super) fn tree(&self, id: &LayerId) -> Result<PathBuf> {
        self.tree_in(&self.find_whole(id)?)
    }

    /// The tree of the layer in `directory`.
    pub(super) fn tree_in(&self, directory: &Path) -> Result<PathBuf> {
        match self.volumes.of(directory)? {
            Some(volume) => Ok(volume.tree()),
            None => Ok(directory.join(TREE)),
        }
    }

    pub(super) fn list(&self) -> Result<Vec<LayerId>> {
        let directory = self.home.join(LAYERS);
        let mut ids = Vec::new();
        for entry in fs::read_dir(&directory).at("cannot read", &directory)? {
            let entry = entry.at("cannot read", &directory)?;
            let is_dir = entry.file_type().at("cannot stat", entry.path())?.is_dir();
            let name = entry.file_name().into_string().ok();
            let id = name.and_then(|name| LayerId::new(name).ok());
            ids.extend(id.filter(|_| is_dir));
        }
        ids.sort();
        Ok(ids)
    }

    pub(super) fn status(&self) -> Result<Vec<(String, String)>> {
        let home = fs::canonicalize(&self.home).at("cannot resolve", &self.home)?;
        let mounts = mountinfo::mounts()?;
        let below = home.ancestors().find_map(|dir| mountinfo::at(&mounts, dir));
        let stores = self.config.image_stores.iter();
        let stores: Vec<_> = stores.map(|store| store.display().to_string()).collect();
        let pairs = [
            ("Home", home.display().to_string()),
            (
                "Backing Filesystem",
                below.map_or_else(String::new, |m| m.fstype.clone()),
            ),
            ("Default Size", self.config.size.to_string()),
            ("Image Stores", stores.join(",")),
        ];
        Ok(pairs.map(|(key, value)| (key.to_owned(), value)).into())
    }

    pub(super) fn refuse_existing(&self, id: &LayerId) -> Result<()> {
        if is_there(&self.own(id))? {
            return Err(DriverError::layer_exists(id));
        }
        Ok(())
    }

    /// Makes a layer's directory in a private place.
    pub(super) fn make(&self, request: &CreateRequest, mut limits: Limits) -> Result<Held> {
        let parent = request.parent.as_ref();
        let parent_tree = parent.map(|id| self.tree(id)).transpose()?;
        let source = request.template.as_ref().map(|id| self.tree(id));
        let source = source.transpose()?.or(parent_tree);
        let mut depth = 0;
        if let Some(parent) = parent {
            depth = depth_in(&self.find(parent)?)?.saturating_add(1);
            if depth > DEPTH_LIMIT {
                let message = format!("the layer would stand on {depth} layers");
                return Err(DriverError::new(DriverErrorCode::TOO_DEEP, message)
                    .object(request.id.as_str())
                    .remedy(format!("use at most {DEPTH_LIMIT}")));
            }
        }
        let (uid, gid) = request.id_maps.root().ok_or_else(|| {
            let message = "the id maps have no entry for the root user";
            DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message)
        })?;
        if request.kind == LayerKind::ReadWrite {
            limits.size = limits.size.or(Some(self.config.size));
        }
        let mut place = TempDir::create_to_build(&self.places_dir())?;
        let content = place.addition();
        let made = make_dirs(&content)
            .and_then(|()| self.fill(&content, source.as_deref(), limits))
            .and_then(|tree| {
                if source.is_none() {
                    set_root(&tree, uid, gid)?;
                }
                let file = content.join(DEPTH);
                fs::write(&file, depth.to_string()).at("cannot write", &file)
            });
        let held = Held { place, content };
        match made {
            Ok(()) => Ok(held),
            Err(error) => {
                self.volumes.forget(&held.content)?;
                held.place.close()?;
                Err(error)
            }
        }
    }

    /// Makes the tree of the layer in `content`.
    fn fill(&self, content: &Path, source: Option<&Path>, limits: Limits) -> Result<PathBuf> {
        if limits.any().is_some() {
            let start = source.map(toolkit::tree_usage).transpose()?;
            Volume::create(content, limits, &start.unwrap_or_default())?;
        } else {
            make_dirs(&content.join(TREE))?;
        }
        let tree = self.tree_in(content)?;
        if let Some(source) = source {
            let options = CopyOptions {
                xattrs: CopiedXattrs::All,
                ..CopyOptions::default()
            };
            toolkit::copy_tree(source, &tree, options)?;
        }
        Ok(tree)
    }

    /// Makes the directory in a private place the layer `id`; an existing layer is not touched.
    pub(super) fn publish(&self, content: &Path, id: &LayerId) -> Result<()> {
        self.refuse_existing(id)?;
        self.volumes.forget(content)?;
        let directory = self.own(id);
        match fs::rename(content, &directory) {
            // A layer's directory is never empty, so that the kernel refuses to replace it.
            Err(error) if is_taken(&error) => return Err(DriverError::layer_exists(id)),
            other => other.at("cannot publish", &directory)?,
        }
        let layers = self.home.join(LAYERS);
        let synced = fs::File::open(&layers).and_then(|dir| dir.sync_all());
        synced.at("cannot sync", &layers).or_else(|error| {
            fs::rename(&directory, content).at("cannot take back", &directory)?;
            Err(error)
        })
    }

    /// Makes the layer in `directory` durable.
    pub(super) fn sync(&self, directory: &Path) -> Result<()> {
        if let Some(volume) = self.volumes.of(directory)? {
            volume.sync()?;
        }
        let home = fs::File::open(&self.home).at("cannot open", &self.home)?;
        rustix::fs::syncfs(&home).at("cannot sync", &self.home)
    }

    pub(super) fn recover(&self) -> Result<Vec<String>> {
        temp_dir::recover_with(&self.places_dir(), |place| {
            let place = match fs::canonicalize(place) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                other => other.at("cannot resolve", place)?,
            };
            let mounts = mountinfo::mounts()?;
            let inside = mounts
                .iter()
                .filter(|mount| mount.target.starts_with(&place));
            inside
                .rev()
                .try_for_each(|mount| volume::detach(&mount.target))
        })
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty
    )
}

/// How many layers the layer in `directory` stood on when it was made.
fn depth_in(directory: &Path) -> Result<u32> {
    let file = directory.join(DEPTH);
    let text = fs::read_to_string(&file).at("cannot read", &file)?;
    text.parse().map_err(|_| {
        let message = format!("`{}` holds no number", file.display());
        DriverError::new(DriverErrorCode::CORRUPT, message)
    })
}

fn set_root(tree: &Path, uid: u32, gid: u32) -> Result<()> {
    lchown(tree, Some(uid), Some(gid)).at("cannot change the owner of", tree)?;
    let mode = fs::Permissions::from_mode(ROOT_MODE);
    fs::set_permissions(tree, mode).at("cannot change the mode of", tree)
}

/// Makes a directory that is nobody else's business, with those above it.
pub(super) fn make_dirs(path: &Path) -> Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    builder.create(path).at("cannot create", path)
}

/// Removes an empty directory; one that is not there is no error.
pub(super) fn remove_dir(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DriverError::io("cannot remove", path, &error))
        }
        _ => Ok(()),
    }
}

/// Whether a directory is there, and not a link to one.
pub(super) fn is_there(directory: &Path) -> Result<bool> {
    match fs::symlink_metadata(directory) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DriverError::io("cannot stat", directory, &error)),
    }
}

/// The place for a tar stream in `tree`.
pub(super) fn target(tree: PathBuf) -> Result<UnpackTarget> {
    let mut entries = fs::read_dir(&tree).at("cannot read", &tree)?;
    let fresh = entries.next().is_none();
    let mut target = UnpackTarget::tree(tree);
    target.fresh = fresh;
    Ok(target)
}
