// SPDX-License-Identifier: Apache-2.0
//! What a store is opened with.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use plywood_plugin_sdk::{IdMap, IdMaps};
use serde::Serialize;

use super::{
    env::Environment,
    origin::Origin,
    resolve::{self, Loaded},
};
use crate::{Result, durable::Durability, plugin::PluginOptions};

/// Where a store is and how it is used.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// The directory for what a restart may forget (run root).
    pub run_root: PathBuf,
    /// The directory for everything else (graph root).
    pub graph_root: PathBuf,
    /// A separate store for image layers.
    pub image_store: Option<PathBuf>,
    /// The driver's name; without one it is chosen.
    pub driver: Option<String>,
    /// Who named the driver.
    pub driver_origin: Option<Origin>,
    /// `key=value` options of drivers, in order; a later one wins.
    pub driver_options: Vec<String>,
    /// The layer sources that are asked, in order; when empty, the one for additional layer stores,
    /// if the options name some.
    pub layer_sources: Vec<String>,
    /// The order in which drivers are tried; the built-in one when empty.
    pub driver_priority: Vec<String>,
    /// The store's own id maps.
    pub id_maps: IdMaps,
    /// The user whose subordinate ids automatic id maps are taken from.
    pub root_auto_ns_user: Option<String>,
    /// Least size of an automatic id map.
    pub auto_userns_min_size: Option<u32>,
    /// Greatest size of an automatic id map.
    pub auto_userns_max_size: Option<u32>,
    /// Options for pulling.
    pub pull_options: BTreeMap<String, String>,
    /// Mounts never give up durability.
    pub disable_volatile: bool,
    /// Containers are forgotten at a restart.
    pub transient_store: bool,
    /// The process runs in a user namespace without being the host's root.
    pub rootless: bool,
    /// Plugins: where they are looked for and what they must be.
    pub plugins: PluginOptions,
    /// How long a lock is waited for; forever when `None`.
    pub lock_timeout: Option<Duration>,
    /// What commits survive.
    pub durability: Durability,
}

/// What the caller fixes, for instance by flags; empty fields are left to the configuration.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--graph`.
    pub graph_root: Option<PathBuf>,
    /// `--run`.
    pub run_root: Option<PathBuf>,
    /// `--storage-driver`.
    pub driver: Option<String>,
    /// `--storage-opt`.
    pub driver_options: Vec<String>,
    /// `--image-store`.
    pub image_store: Option<PathBuf>,
    /// `--transient-store`.
    pub transient_store: bool,
    /// `--plugin-dir`: searched before all others but the files that Plywood's own file names.
    pub plugin_dirs: Vec<PathBuf>,
}

impl Overrides {
    /// Whether the configuration supplies nothing but a missing root directory.
    pub fn replace_configuration(&self) -> bool {
        self.graph_root.is_some()
            || self.run_root.is_some()
            || self.driver.is_some()
            || !self.driver_options.is_empty()
    }
}

impl StoreOptions {
    /// Options from the configuration files, the environment and what the caller fixes.
    ///
    /// # Behavior
    /// - When the caller gives a root directory, a driver or a driver option, the configuration
    ///   supplies nothing but the missing root directory.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for what cannot be read or understood, with
    /// file and line.
    pub fn load(overrides: &Overrides) -> Result<Self> {
        Ok(Self::explain(overrides)?.options)
    }

    /// As [`StoreOptions::load`], with the origin of every value and remarks.
    ///
    /// # Errors
    /// As [`StoreOptions::load`].
    pub fn explain(overrides: &Overrides) -> Result<Loaded> {
        resolve::load(&Environment::of_process(), overrides)
    }

    /// What the command `config` prints.
    ///
    /// # Compatibility
    /// The members and their order are those of containers/storage.
    pub fn report(&self) -> impl Serialize + '_ {
        Report {
            runroot: self.run_root.to_string_lossy().into_owned(),
            root: self.graph_root.to_string_lossy().into_owned(),
            imagestore: self
                .image_store
                .as_ref()
                .map(|path| path.to_string_lossy().into_owned()),
            driver: self.driver.as_deref(),
            driver_priority: &self.driver_priority,
            driver_options: &self.driver_options,
            uidmap: maps(&self.id_maps.uids),
            gidmap: maps(&self.id_maps.gids),
            root_auto_ns_user: self.root_auto_ns_user.as_deref(),
            auto_userns_min_size: self.auto_userns_min_size,
            auto_userns_max_size: self.auto_userns_max_size,
            pull_options: &self.pull_options,
            disable_volatile: self.disable_volatile,
            transient_store: self.transient_store,
        }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    runroot: String,
    root: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    imagestore: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    driver: Option<&'a str>,
    #[serde(rename = "driver-priority", skip_serializing_if = "<[_]>::is_empty")]
    driver_priority: &'a [String],
    #[serde(rename = "driver-options", skip_serializing_if = "<[_]>::is_empty")]
    driver_options: &'a [String],
    #[serde(skip_serializing_if = "Vec::is_empty")]
    uidmap: Vec<ReportedMap>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gidmap: Vec<ReportedMap>,
    #[serde(skip_serializing_if = "Option::is_none")]
    root_auto_ns_user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auto_userns_min_size: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auto_userns_max_size: Option<u32>,
    #[serde(rename = "PullOptions", skip_serializing_if = "BTreeMap::is_empty")]
    pull_options: &'a BTreeMap<String, String>,
    #[serde(rename = "disable-volatile", skip_serializing_if = "is_false")]
    disable_volatile: bool,
    #[serde(skip_serializing_if = "is_false")]
    transient_store: bool,
}

#[derive(Serialize)]
struct ReportedMap {
    container_id: u32,
    host_id: u32,
    size: u32,
}

fn maps(maps: &[IdMap]) -> Vec<ReportedMap> {
    let reported = |map: &IdMap| ReportedMap {
        container_id: map.container_id,
        host_id: map.host_id,
        size: map.size,
    };
    maps.iter().map(reported).collect()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the serialiser passes a reference"
)]
fn is_false(value: &bool) -> bool {
    !value
}
