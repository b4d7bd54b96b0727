// SPDX-License-Identifier: Apache-2.0
//! Which drivers there are, and where.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt,
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, EmbeddedDriver, EmbeddedSource, OpenRequest,
    abi::{VERSION, contain},
    inventory,
};

use super::{DriverHandle, DriverName, Origin, PluginError, SourceHandle, loader, probe, trust};
use crate::{Error, Result};

/// Where drivers are looked for, in the order of the fields.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PluginOptions {
    /// Files that the configuration names.
    pub configured: Vec<ConfiguredPlugin>,
    /// Directories of `--plugin-dir`, then those of the configuration.
    pub directories: Vec<PathBuf>,
    /// The value of `PLYWOOD_PLUGIN_PATH`: directories separated by colons. It is ignored when the
    /// program runs with more rights than its caller.
    pub environment: Option<OsString>,
    /// The program, beside which plugins may lie.
    pub executable: Option<PathBuf>,
    /// The system's directories.
    pub system_directories: Vec<PathBuf>,
    /// Whether drivers that are linked in are used, after all others.
    pub embedded: bool,
}

/// A plugin file that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredPlugin {
    /// The driver.
    pub name: String,
    /// The file.
    pub path: PathBuf,
    /// The SHA-256 that the file must have, in hex.
    pub sha256: Option<String>,
}

impl Default for PluginOptions {
    fn default() -> Self {
        let versioned = |prefix: &str| Path::new(prefix).join(versioned_directory());
        Self {
            executable: std::env::current_exe().ok(),
            system_directories: vec![versioned("/usr/local/lib"), versioned("/usr/lib")],
            ..Self::only_embedded()
        }
    }
}

impl PluginOptions {
    /// Nothing but the drivers that are linked in.
    pub fn only_embedded() -> Self {
        Self {
            configured: Vec::new(),
            directories: Vec::new(),
            environment: None,
            executable: None,
            system_directories: Vec::new(),
            embedded: true,
        }
    }
}

/// The directory below `lib`: majors of the plugin ABI can be installed side by side.
fn versioned_directory() -> String {
    format!("plywood/drivers/v{}", VERSION.major)
}

/// Why a place is searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// The configuration names the file.
    Configuration,
    /// `--plugin-dir`, or a directory that the configuration names.
    Option,
    /// `PLYWOOD_PLUGIN_PATH`.
    Environment,
    /// Beside the program, or in the `lib` beside its directory.
    Executable,
    /// The system's directories.
    System,
    /// Linked in.
    Embedded,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Configuration => "configuration",
            Self::Option => "named directory",
            Self::Environment => "PLYWOOD_PLUGIN_PATH",
            Self::Executable => "beside the program",
            Self::System => "system",
            Self::Embedded => "linked in",
        })
    }
}

/// A driver that was found but not opened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FoundDriver {
    /// Its name: for a file, the one that the file's name gives.
    pub name: DriverName,
    /// Why it was looked for there.
    pub source: Source,
    /// Where it is.
    pub origin: Origin,
    /// What is used in its place, when it is not the first of its name.
    pub shadowed_by: Option<Origin>,
    pin: Option<String>,
    embedded: Option<&'static EmbeddedDriver>,
    source_embedded: Option<&'static EmbeddedSource>,
}

impl FoundDriver {
    /// Looks at the file without loading it.
    ///
    /// # Errors
    /// Why it would be refused; a file that passes may still turn out to be incompatible.
    pub fn check(&self) -> Result<(), PluginError> {
        match &self.origin {
            Origin::File(path) => trust::check(path, self.pin.as_deref()).map(drop),
            _ => Ok(()),
        }
    }

    /// Finds out what it is; a file is loaded by a child process that runs `program`.
    pub fn probe(&self, program: &Path) -> probe::Report {
        match (&self.origin, self.embedded) {
            (Origin::File(path), _) => {
                let mut report = match self.check() {
                    Ok(()) => probe::probe_in_child(program, path),
                    Err(refusal) => probe::Report::refused(path, &refusal),
                };
                report.expect_name(&self.name);
                report
            }
            (_, driver) => probe::Report::embedded(driver, self.source_embedded),
        }
    }
}

/// The drivers that can be opened.
///
/// # Behavior
/// - The first driver of a name wins; only that one is ever opened. When it is refused, the next
///   of its name is not tried.
/// - Looking for drivers reads directories and opens nothing.
#[derive(Clone, Debug)]
pub struct Registry {
    options: PluginOptions,
}

impl Registry {
    /// A registry that searches the places in `options`.
    pub fn discover(options: PluginOptions) -> Self {
        Self { options }
    }

    /// Everything that is there, ordered by name; the first of a name is the one that is used.
    pub fn list(&self) -> Vec<FoundDriver> {
        let mut by_name: BTreeMap<DriverName, Vec<FoundDriver>> = BTreeMap::new();
        let mut add = |mut found: FoundDriver| {
            let same = by_name.entry(found.name.clone()).or_default();
            if same.iter().any(|other| other.origin == found.origin) {
                return;
            }
            found.shadowed_by = same.first().map(|first| first.origin.clone());
            same.push(found);
        };
        for plugin in &self.options.configured {
            match plugin.name.parse() {
                Ok(name) => add(configured(name, plugin)),
                Err(error) => tracing::warn!("{error}"),
            }
        }
        for (source, directory) in self.directories() {
            files_of(source, &directory).into_iter().for_each(&mut add);
        }
        embedded_drivers(self.options.embedded).for_each(&mut add);
        by_name.into_values().flatten().collect()
    }

    /// The names of all drivers, each once, in order.
    pub fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = self
            .list()
            .into_iter()
            .map(|found| found.name.as_str().to_owned())
            .collect();
        names.dedup();
        names
    }

    /// Opens the driver called `name` on a store.
    ///
    /// # Errors
    /// There is none, it is refused, or it cannot work with that store.
    pub fn open(&self, name: &str, request: OpenRequest) -> Result<DriverHandle> {
        Ok(self.try_open(name, request)?)
    }

    /// The same with an error that tells why.
    pub(super) fn try_open(
        &self,
        name: &str,
        request: OpenRequest,
    ) -> Result<DriverHandle, OpenError> {
        let found = self.find(name)?;
        check_request(&request).map_err(|error| OpenError::Driver {
            name: name.to_owned(),
            error,
        })?;
        let driver = match (&found.origin, found.embedded) {
            (Origin::File(path), _) => {
                let loaded = loader::load(path, Some(name), found.pin.as_deref())?;
                contain("open", || loaded.open(&request))
            }
            (_, Some(embedded)) => contain("open", || (embedded.open)(request)),
            (_, None) => Err(no_kind(name, "driver")),
        };
        let driver = driver.map_err(|error| OpenError::Driver {
            name: name.to_owned(),
            error,
        })?;
        tracing::debug!(driver = name, origin = %found.origin, "driver opened");
        Ok(DriverHandle::new(name.to_owned(), found.origin, driver))
    }

    /// Opens the layer source called `name` for a store.
    ///
    /// # Errors
    /// There is none, it is refused, or it cannot work.
    pub fn open_source(&self, name: &str, request: OpenRequest) -> Result<SourceHandle> {
        let found = self.find(name)?;
        check_request(&request)?;
        let source = match (&found.origin, found.source_embedded) {
            (Origin::File(path), _) => {
                let loaded = loader::load(path, Some(name), found.pin.as_deref())?;
                contain("open", || loaded.open_source(&request))
            }
            (_, Some(embedded)) => contain("open", || (embedded.open)(request)),
            (_, None) => Err(no_kind(name, "layer source")),
        };
        let source = source.map_err(|error| {
            Error::from(error).prefixed(format_args!("cannot open layer source `{name}`"))
        })?;
        tracing::debug!(source = name, origin = %found.origin, "layer source opened");
        Ok(SourceHandle::new(name.to_owned(), found.origin, source))
    }

    /// The driver that [`Registry::open`] would open.
    ///
    /// # Errors
    /// The name is outside the grammar, or no driver has it.
    pub fn find(&self, name: &str) -> Result<FoundDriver, PluginError> {
        let name: DriverName = name.parse()?;
        if let Some(plugin) = self
            .options
            .configured
            .iter()
            .find(|plugin| plugin.name == name.as_str())
        {
            return Ok(configured(name, plugin));
        }
        let file_name = name.file_name();
        let directories = self.directories();
        for (source, directory) in &directories {
            let path = directory.join(&file_name);
            if path.symlink_metadata().is_ok() {
                return Ok(file(name, *source, path));
            }
        }
        embedded_drivers(self.options.embedded)
            .find(|found| found.name == name)
            .ok_or_else(|| PluginError::Missing {
                searched: searched(&file_name, &directories),
                name: name.as_str().to_owned(),
            })
    }

    /// The directories to search, in order.
    pub fn directories(&self) -> Vec<(Source, PathBuf)> {
        let options = &self.options;
        let mut directories = Vec::new();
        let mut add = |source, directory: PathBuf| {
            if directory.is_absolute() {
                directories.push((source, directory));
            } else if let Ok(directory) = directory.canonicalize() {
                directories.push((source, directory));
            }
        };
        for directory in &options.directories {
            add(Source::Option, directory.clone());
        }
        if let Some(list) = &options.environment {
            if loader::is_privileged_execution() {
                tracing::warn!(
                    "PLYWOOD_PLUGIN_PATH is ignored: the program runs with raised rights"
                );
            } else {
                std::env::split_paths(list)
                    // An empty element would mean the working directory.
                    .filter(|directory| directory.is_absolute())
                    .for_each(|directory| add(Source::Environment, directory));
            }
        }
        if let Some(beside) = options.executable.as_deref().and_then(Path::parent) {
            add(Source::Executable, beside.to_owned());
            if let Some(prefix) = beside.parent() {
                add(
                    Source::Executable,
                    prefix.join("lib").join(versioned_directory()),
                );
            }
        }
        for directory in &options.system_directories {
            add(Source::System, directory.clone());
        }
        directories
    }
}

/// A plugin of that name is linked in, but it is of another kind.
fn no_kind(name: &str, kind: &str) -> DriverError {
    let message = format!("`{name}` is linked in, but is no {kind}");
    DriverError::new(DriverErrorCode::NOT_SUPPORTED, message).object(name)
}

/// What would mean something else after the next `chdir`.
fn check_request(request: &OpenRequest) -> Result<(), DriverError> {
    for path in [&request.home, &request.run_dir] {
        if !path.is_absolute() {
            let message = format!("`{}` is no absolute path", path.display());
            return Err(DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message)
                .object(path.display().to_string())
                .remedy("give the graph root and the run root as absolute paths"));
        }
    }
    Ok(())
}

/// Why a driver was not opened.
#[derive(Debug)]
pub(super) enum OpenError {
    /// There is none, or it is refused.
    Plugin(PluginError),
    /// It was asked and failed.
    Driver { name: String, error: DriverError },
}

impl From<PluginError> for OpenError {
    fn from(error: PluginError) -> Self {
        Self::Plugin(error)
    }
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Plugin(error) => error.into(),
            OpenError::Driver { name, error } => {
                Self::from(error).prefixed(format_args!("cannot open driver `{name}`"))
            }
        }
    }
}

fn configured(name: DriverName, plugin: &ConfiguredPlugin) -> FoundDriver {
    FoundDriver {
        pin: plugin.sha256.clone(),
        ..file(name, Source::Configuration, plugin.path.clone())
    }
}

fn file(name: DriverName, source: Source, path: PathBuf) -> FoundDriver {
    FoundDriver {
        name,
        source,
        origin: Origin::File(path),
        shadowed_by: None,
        pin: None,
        embedded: None,
        source_embedded: None,
    }
}

/// What is linked in, by name: one plugin may be a driver and a layer source.
fn embedded_drivers(wanted: bool) -> impl Iterator<Item = FoundDriver> {
    // The order in which they were linked is no contract.
    let mut found: BTreeMap<DriverName, FoundDriver> = BTreeMap::new();
    let mut entry = |name: &str, set: &dyn Fn(&mut FoundDriver)| {
        let Ok(name) = name.parse::<DriverName>() else {
            return;
        };
        set(found.entry(name.clone()).or_insert(FoundDriver {
            name,
            source: Source::Embedded,
            origin: Origin::Embedded,
            shadowed_by: None,
            pin: None,
            embedded: None,
            source_embedded: None,
        }));
    };
    if wanted {
        for driver in inventory::iter::<EmbeddedDriver> {
            entry(driver.name, &|found| {
                found.embedded.get_or_insert(driver);
            });
        }
        for source in inventory::iter::<EmbeddedSource> {
            entry(source.name, &|found| {
                found.source_embedded.get_or_insert(source);
            });
        }
    }
    found.into_values()
}

fn files_of(source: Source, directory: &Path) -> Vec<FoundDriver> {
    let entries = match directory.read_dir() {
        Ok(entries) => entries,
        Err(error) => {
            tracing::debug!(directory = %directory.display(), "no plugins: {error}");
            return Vec::new();
        }
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let name = DriverName::of_file_name(&entry.file_name())?;
            Some(file(name, source, entry.path()))
        })
        .collect()
}

fn searched(file_name: &str, directories: &[(Source, PathBuf)]) -> String {
    if directories.is_empty() {
        return "no driver of that name is linked in".to_owned();
    }
    let places: Vec<_> = directories
        .iter()
        .map(|(_, directory)| format!("`{}`", directory.display()))
        .collect();
    format!("there is no `{file_name}` in {}", places.join(", "))
}
