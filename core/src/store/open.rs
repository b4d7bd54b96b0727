// SPDX-License-Identifier: Apache-2.0
//! Opening a store and choosing its driver.

use std::{
    fs, path,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use plywood_plugin_sdk::OpenRequest;

use super::{DriverChoice, Store, StoreOptions, make_dir};
use crate::{
    Error, ErrorKind, IoContext, RecordOptions, Result,
    containers::ContainerStore,
    images::ImageStore,
    layers::{LayerStore, LayerStoreOptions},
    locking::{
        Access, Patience, StoreLock, Token, WriteGuard,
        order::{Graph, Held, Nothing, Userns},
    },
    plugin::{
        DEFAULT_PRIORITY, DriverHandle, Named, Registry, SelectRequest, select, tracing_host,
    },
};

/// What depends on the driver, and is made anew after somebody has shut the store down.
pub(super) struct Live {
    driver: Option<DriverHandle>,
    /// The driver was handed over and cannot be opened here.
    given: bool,
    /// The token of `storage.lock` when the driver was opened.
    seen: Token,
    /// Made at first use: commands that need no layers do not touch their directories.
    layers: Option<LayerStore>,
}

impl Store {
    /// Opens a store, making what is missing of its directories and lock files.
    ///
    /// # Behavior
    /// - The driver is chosen and opened here. When the store has records of a driver that cannot
    ///   be opened, the store opens without it; see [`Store::driver_choice`].
    ///
    /// # Errors
    /// `Config` for missing roots, `DriverMismatch`, `DriverUnavailable`, and what the file system
    /// reports.
    ///
    /// # Locking
    /// Takes `storage.lock` for writing while the driver is opened.
    pub fn open(options: StoreOptions) -> Result<Self> {
        Self::open_with(options, None)
    }

    /// Opens a store with a driver of the program itself, whose name is that of the handle.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with_driver(options: StoreOptions, driver: DriverHandle) -> Result<Self> {
        Self::open_with(options, Some(driver))
    }

    fn open_with(mut options: StoreOptions, given: Option<DriverHandle>) -> Result<Self> {
        check_supported(&options)?;
        options.graph_root = absolute(&options.graph_root, "graph")?;
        options.run_root = absolute(&options.run_root, "run")?;
        make_dir(&options.run_root)?;
        make_dir(&options.graph_root)?;
        let patience = Patience {
            timeout: options.lock_timeout,
        };
        let open_lock = |name| options.graph_root.join(name);
        let graph_lock =
            StoreLock::<Graph>::open_with(&open_lock("storage.lock"), Access::ReadWrite, patience)?;
        drop(StoreLock::<Userns>::open(
            &open_lock("userns.lock"),
            Access::ReadWrite,
        )?);

        let registry = Registry::discover(options.plugins.clone());
        let (live, choice) = {
            let mut held = Held::nothing();
            let (guard, _) = graph_lock.write(&mut held)?;
            let seen = guard.token()?;
            let is_given = given.is_some();
            let (driver, choice) = match given {
                Some(driver) => {
                    let choice = chosen(&driver, "given by the program".to_owned());
                    (Some(driver), choice)
                }
                None => choose(&registry, &options)?,
            };
            let live = Live {
                driver,
                given: is_given,
                seen,
                layers: None,
            };
            (live, choice)
        };

        let records = RecordOptions {
            durability: options.durability,
            patience,
        };
        let below = |root: &Path, what: &str| root.join(format!("{}-{what}", choice.name));
        let others = read_only_roots(live.driver.as_ref())?;
        let image_dirs: Vec<PathBuf> = others.iter().map(|root| below(root, "images")).collect();
        let images = ImageStore::open(&below(&options.graph_root, "images"), &image_dirs, records)?;
        let run_containers = below(&options.run_root, "containers");
        make_dir(&run_containers)?;
        let containers = ContainerStore::open(
            &below(&options.graph_root, "containers"),
            &run_containers,
            records,
        )?;
        make_dir(&below(&options.run_root, "locks"))?;
        Ok(Self {
            options,
            choice,
            graph_lock,
            live: Mutex::new(live),
            registry,
            sources: Mutex::default(),
            images,
            containers,
        })
    }

    pub(super) fn run_dir(&self, what: &str) -> PathBuf {
        self.options
            .run_root
            .join(format!("{}-{what}", self.choice.name))
    }

    pub(super) fn graph_dir(&self, what: &str) -> PathBuf {
        self.options
            .graph_root
            .join(format!("{}-{what}", self.choice.name))
    }

    /// The layers, with the driver as it was last opened.
    pub(super) fn layer_store(&self) -> Result<LayerStore> {
        let mut live = self.live();
        if let Some(layers) = &live.layers {
            return Ok(layers.clone());
        }
        let mut options = LayerStoreOptions::new(self.graph_dir("layers"), self.run_dir("layers"));
        options.driver.clone_from(&live.driver);
        options.durability = self.options.durability;
        options.patience = Patience {
            timeout: self.options.lock_timeout,
        };
        options.source_timeout = self.source_timeout();
        options.read_only_stores = read_only_roots(live.driver.as_ref())?
            .into_iter()
            .map(|root| root.join(format!("{}-layers", self.choice.name)))
            .collect();
        let layers = LayerStore::open(options)?;
        live.layers = Some(layers.clone());
        Ok(layers)
    }

    /// The driver, or why there is none.
    pub(super) fn driver(&self) -> Result<DriverHandle> {
        self.live().driver.clone().ok_or_else(|| self.no_driver())
    }

    /// The driver, when there is one.
    pub(super) fn driver_if_any(&self) -> Option<DriverHandle> {
        self.live().driver.clone()
    }

    fn no_driver(&self) -> Error {
        let failure = self.choice.failure.as_deref().unwrap_or("it is not open");
        Error::new(
            ErrorKind::DriverUnavailable,
            format!("driver `{}` cannot be used: {failure}", self.choice.name),
        )
        .subject(&*self.choice.name)
        .hint("install the driver's plugin; `plywood driver list` shows where it is searched")
    }

    /// Locks the store as a whole, and opens the driver again when somebody has shut it down.
    pub(super) fn lock_graph<'held>(
        &self,
        held: &'held mut Held<'_, Nothing>,
    ) -> Result<(WriteGuard<'held, Graph>, Held<'held, Graph>)> {
        let (guard, held) = self.graph_lock.write(held)?;
        let token = guard.token()?;
        let mut live = self.live();
        if live.seen != token && !live.given && live.driver.is_some() {
            let request = open_request(&self.options, &self.registry, &self.choice.name);
            live.driver = Some(self.registry.open(&self.choice.name, request)?);
            live.layers = None;
            live.seen = token;
        }
        drop(live);
        Ok((guard, held))
    }

    /// A thread that panicked while it held the mutex left it as it was before.
    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_supported(options: &StoreOptions) -> Result<()> {
    let refuse = |what: &str| {
        Err(Error::new(
            ErrorKind::NotSupported,
            format!("{what} is not supported by this release"),
        ))
    };
    if options.graph_root.as_os_str().is_empty() || options.run_root.as_os_str().is_empty() {
        return Err(Error::new(
            ErrorKind::Config,
            "no storage runroot or graphroot specified: missing necessary StoreOptions",
        ));
    }
    if options.transient_store {
        return refuse("a transient store");
    }
    if options.image_store.is_some() {
        return refuse("a separate image store");
    }
    Ok(())
}

fn absolute(path: &Path, what: &str) -> Result<PathBuf> {
    path::absolute(path).at(&format!("cannot resolve the {what} root"), path)
}

fn open_request(options: &StoreOptions, registry: &Registry, name: &str) -> OpenRequest {
    let mut request = OpenRequest::new(
        options.graph_root.join(name),
        options.run_root.join(name),
        tracing_host(),
    );
    request.image_store.clone_from(&options.image_store);
    request.options.clone_from(&options.driver_options);
    request.known_drivers = registry.names();
    request.id_maps = options.id_maps.clone();
    request.rootless = options.rootless;
    request
}

fn chosen(driver: &DriverHandle, reason: String) -> DriverChoice {
    DriverChoice {
        name: driver.name().to_owned(),
        reason,
        origin: Some(driver.origin().clone()),
        failure: None,
    }
}

fn choose(
    registry: &Registry,
    options: &StoreOptions,
) -> Result<(Option<DriverHandle>, DriverChoice)> {
    let named = options.driver.as_ref().map(|name| Named {
        name: name.clone(),
        place: match &options.driver_origin {
            Some(origin) => origin.to_string(),
            None => "the program".to_owned(),
        },
    });
    if named.is_none()
        && let Some(name) = unknown_owner(registry, options)?
    {
        let reason = format!("the store has records of `{name}`");
        return Ok((None, missing(&name, reason, "its driver is not installed")));
    }
    let request = SelectRequest {
        graph_root: &options.graph_root,
        named: named.as_ref(),
        priority: &options.driver_priority,
        open_request: &|name| open_request(options, registry, name),
    };
    match select(registry, &request) {
        Ok(selected) => {
            let choice = chosen(&selected.driver, selected.reason);
            Ok((Some(selected.driver), choice))
        }
        Err(error) if error.kind() == ErrorKind::DriverMismatch => Err(error),
        Err(error) => {
            let owner = match named {
                Some(named) => Some(named.name).filter(|name| has_records(options, name)),
                None => known_names(registry, options)
                    .into_iter()
                    .find(|name| has_records(options, name)),
            };
            let Some(name) = owner else { return Err(error) };
            tracing::warn!(driver = name, ?error, "the store opens without its driver");
            let reason = format!("the store has records of `{name}`");
            Ok((None, missing(&name, reason, &error.to_string())))
        }
    }
}

fn missing(name: &str, reason: String, failure: &str) -> DriverChoice {
    DriverChoice {
        name: name.to_owned(),
        reason,
        origin: None,
        failure: Some(failure.to_owned()),
    }
}

fn known_names(registry: &Registry, options: &StoreOptions) -> Vec<String> {
    let mut names = options.driver_priority.clone();
    names.extend(DEFAULT_PRIORITY.iter().map(|known| known.name.to_owned()));
    names.extend(registry.names());
    names
}

fn has_records(options: &StoreOptions, name: &str) -> bool {
    ["layers", "images", "containers"].iter().any(|what| {
        let dir = options.graph_root.join(format!("{name}-{what}"));
        dir.join(format!("{what}.json")).is_file()
    })
}

/// The driver whose layers are recorded in the store, when no driver of that name is known: to
/// choose another one would make the store's content seem to vanish.
fn unknown_owner(registry: &Registry, options: &StoreOptions) -> Result<Option<String>> {
    let known = known_names(registry, options);
    let root = &options.graph_root;
    let mut owner = None;
    for entry in fs::read_dir(root).at("cannot read directory", root)? {
        let entry = entry.at("cannot read directory", root)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().and_then(|name| name.strip_suffix("-layers")) else {
            continue;
        };
        if !has_records(options, name) {
            continue;
        }
        if known.iter().any(|other| other == name) {
            return Ok(None);
        }
        owner = Some(name.to_owned());
    }
    Ok(owner)
}

/// The graph roots of the read-only stores that the driver's options name.
fn read_only_roots(driver: Option<&DriverHandle>) -> Result<Vec<PathBuf>> {
    match driver {
        Some(driver) => {
            let homes = driver.image_stores()?;
            let root = |home: &PathBuf| home.parent().map(Path::to_owned);
            Ok(homes.iter().filter_map(root).collect())
        }
        None => Ok(Vec::new()),
    }
}
