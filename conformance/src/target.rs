// SPDX-License-Identifier: Apache-2.0
//! What is under test: a driver on a fresh store of its own.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use plywood::{
    Error, ErrorKind, Result,
    archive::walk::Change,
    layers::{
        DiffOptions, Layer, LayerStore, LayerStoreOptions, NewLayer, PutOptions, UnmountOptions,
    },
    locking::order::Held,
    plugin::{DriverHandle, PluginOptions, Registry, tracing_host},
    sdk::{LayerId, MountRequest, OpenRequest},
};

use crate::manifest::{self, Manifest};

/// Where the driver comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A plugin file.
    Plugin(PathBuf),
    /// A driver that is linked into this program.
    Embedded(String),
}

impl Source {
    /// The driver's name: the one in the file's name, for a plugin.
    ///
    /// # Errors
    /// `InvalidArgument` for a file that is not called like a plugin.
    pub fn name(&self) -> Result<String> {
        match self {
            Self::Embedded(name) => Ok(name.clone()),
            Self::Plugin(path) => path
                .file_name()
                .and_then(|name| name.to_str())
                .and_then(|name| name.strip_prefix("libplywood_driver_")?.strip_suffix(".so"))
                .map(|name| name.replace('_', "-"))
                .ok_or_else(|| {
                    Error::new(
                        ErrorKind::InvalidArgument,
                        format!(
                            "`{}` is not called libplywood_driver_NAME.so",
                            path.display()
                        ),
                    )
                }),
        }
    }

    fn registry(&self) -> Result<Registry> {
        let mut options = PluginOptions::only_embedded();
        if let Self::Plugin(path) = self {
            options.embedded = false;
            options.configured.push(plywood::plugin::ConfiguredPlugin {
                name: self.name()?,
                path: path.clone(),
                sha256: None,
            });
        }
        Ok(Registry::discover(options))
    }

    /// Opens the driver on `root`.
    ///
    /// # Errors
    /// Why the plugin was refused, or what the driver reports.
    pub fn open(&self, root: &Path, options: &[String]) -> Result<DriverHandle> {
        let name = self.name()?;
        let graph = root.join("graph").join(&name);
        let mut request = OpenRequest::new(graph, root.join("run").join(&name), tracing_host());
        request.options = options.to_vec();
        self.registry()?.open(&name, request)
    }
}

/// A driver on a fresh store, with what cases need.
pub struct Target {
    /// Where the store and the case's own files are.
    pub root: PathBuf,
    /// The driver, behind the guard that core puts around every driver.
    pub driver: DriverHandle,
    source: Source,
    options: Vec<String>,
    store: LayerStore,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Opens `source` on the empty directory `root`.
    ///
    /// # Errors
    /// What opening the driver or the store reports.
    pub fn open(source: &Source, root: &Path, options: &[String]) -> Result<Self> {
        let driver = source.open(root, options)?;
        let name = source.name()?;
        let mut store = LayerStoreOptions::new(
            root.join("graph").join(format!("{name}-layers")),
            root.join("run").join(format!("{name}-layers")),
        );
        store.driver = Some(driver.clone());
        Ok(Self {
            root: root.to_path_buf(),
            driver,
            source: source.clone(),
            options: options.to_vec(),
            store: LayerStore::open(store)?,
        })
    }

    /// The same store opened anew, as after a restart of the program.
    pub(crate) fn reopened(&self) -> Result<Self> {
        Self::open(&self.source, &self.root, &self.options)
    }

    /// The driver's home directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("graph").join(self.driver.name())
    }

    pub(crate) fn create(&self, id: &str, parent: Option<&str>) -> Result<Layer> {
        let mut held = Held::nothing();
        let (mut write, _) = self.store.write(&mut held)?;
        write.create(&new_layer(id, parent))
    }

    pub(crate) fn put(&self, id: &str, parent: Option<&str>, tar: &[u8]) -> Result<Layer> {
        let mut held = Held::nothing();
        let new = new_layer(id, parent);
        self.store
            .put(&mut held, &new, tar, PutOptions::default())
            .map(|(layer, _)| layer)
    }

    pub(crate) fn delete(&self, id: &str) -> Result<()> {
        let reaper = {
            let mut held = Held::nothing();
            let (mut write, _) = self.store.write(&mut held)?;
            write.delete(&[id])?
        };
        reaper.run()
    }

    pub(crate) fn mount(&self, id: &str, request: &MountRequest) -> Result<PathBuf> {
        let mut held = Held::nothing();
        let (mut write, _) = self.store.write(&mut held)?;
        write.mount(id, request)
    }

    pub(crate) fn unmount(&self, id: &str) -> Result<()> {
        let mut held = Held::nothing();
        let (mut write, _) = self.store.write(&mut held)?;
        write.unmount(id, UnmountOptions::default()).map(drop)
    }

    pub(crate) fn changes(&self, id: &str) -> Result<Vec<Change>> {
        self.store.changes(&mut Held::nothing(), None, id)
    }

    pub(crate) fn diff(&self, id: &str) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut options = DiffOptions::default();
        options.compression = Some(plywood::archive::Compression::None);
        self.store
            .diff(&mut Held::nothing(), None, id, options, &mut out)?;
        Ok(out)
    }

    /// Mounts a layer, does `work` in it, and unmounts it in any case.
    pub(crate) fn within<T, E: From<Error>>(
        &self,
        id: &str,
        work: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let path = self.mount(id, &MountRequest::default())?;
        let done = work(&path);
        self.unmount(id)?;
        done
    }

    /// Everything there is to see in a mounted layer.
    pub(crate) fn manifest(&self, id: &str) -> Result<Manifest, crate::case::Failure> {
        self.within(id, |path| Ok(manifest::of(path)?))
    }

    /// A directory of the case's own, outside the store.
    pub(crate) fn scratch(&self, name: &str) -> std::io::Result<PathBuf> {
        let path = self.root.join(name);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

fn new_layer(id: &str, parent: Option<&str>) -> NewLayer {
    NewLayer {
        id: Some(id.to_owned()),
        parent: parent.map(str::to_owned),
        ..NewLayer::default()
    }
}

/// The id as drivers get it.
pub(crate) fn layer_id(text: &str) -> LayerId {
    LayerId::new(text).expect("the suite's own ids are valid")
}
