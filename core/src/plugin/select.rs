// SPDX-License-Identifier: Apache-2.0
//! Which driver a store gets.

use std::path::Path;

use plywood_plugin_sdk::OpenRequest;

use super::{DriverHandle, PluginError, Registry, registry::OpenError};
use crate::{Error, ErrorKind, Result};

/// A driver that may be chosen without being named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preference {
    /// The driver.
    pub name: &'static str,
    /// Whether its directory in a store makes it the store's driver; a last resort does not, so
    /// that what it once left does not keep a better driver away.
    pub claims_store: bool,
}

/// The order in which containers/storage tries drivers (`drivers/driver_linux.go`, `Priority`).
pub const DEFAULT_PRIORITY: [Preference; 4] = [
    Preference::claiming("overlay"),
    Preference::claiming("btrfs"),
    Preference::claiming("zfs"),
    Preference {
        name: "vfs",
        claims_store: false,
    },
];

/// The layer source that serves the key `additionallayerstores` of storage.conf.
pub const DEFAULT_LAYER_SOURCE: &str = "additional-layer-store";

impl Preference {
    const fn claiming(name: &'static str) -> Self {
        Self {
            name,
            claims_store: true,
        }
    }
}

/// A driver that somebody named, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The driver.
    pub name: String,
    /// Where it is named, for instance `--storage-driver` or `STORAGE_DRIVER`.
    pub place: String,
}

/// What decides about the driver of a store.
#[derive(Clone, Copy)]
pub struct SelectRequest<'a> {
    /// The store.
    pub graph_root: &'a Path,
    /// The driver that the command line, the environment or the configuration names.
    pub named: Option<&'a Named>,
    /// `driver_priority` of the configuration; empty for [`DEFAULT_PRIORITY`].
    pub priority: &'a [String],
    /// Makes the request that opens the driver of a name.
    pub open_request: &'a dyn Fn(&str) -> OpenRequest,
}

impl std::fmt::Debug for SelectRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SelectRequest")
            .field("graph_root", &self.graph_root)
            .field("named", &self.named)
            .field("priority", &self.priority)
            .finish_non_exhaustive()
    }
}

/// The chosen driver.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The open driver.
    pub driver: DriverHandle,
    /// Why it was chosen, for people.
    pub reason: String,
}

/// Chooses and opens the driver of a store.
///
/// # Behavior
/// - A named driver is used or it fails; nothing else is tried.
/// - Otherwise the driver whose directory is in the store; when it fails, nothing else is tried,
///   since the store's content would seem to vanish.
/// - Otherwise the first of the priority list, then the first other driver, that can work there.
///   A driver that is not installed or does not suit the host is passed over and appears in the
///   reason; one that is refused ends the search.
///
/// # Compatibility
/// `drivers/driver.go`, `New`: also the sentence about several drivers.
///
/// # Errors
/// The driver's, or [`ErrorKind::DriverMismatch`] for a store with directories of several drivers.
pub fn select(registry: &Registry, request: &SelectRequest<'_>) -> Result<Selected> {
    let open = |name: &str| registry.try_open(name, (request.open_request)(name));
    choose(request, &registry.names(), open)
}

fn choose(
    request: &SelectRequest<'_>,
    installed: &[String],
    open: impl Fn(&str) -> Result<DriverHandle, OpenError>,
) -> Result<Selected> {
    if let Some(named) = request.named {
        return Ok(Selected {
            driver: open(&named.name)?,
            reason: format!("named by {}", named.place),
        });
    }
    if let Some(name) = prior_driver(request, installed)? {
        let directory = request.graph_root.join(&name);
        return Ok(Selected {
            driver: open(&name)?,
            reason: format!("the store has `{}`", directory.display()),
        });
    }
    first_suitable(request, installed, open)
}

/// The driver whose directory is in the store.
fn prior_driver(request: &SelectRequest<'_>, installed: &[String]) -> Result<Option<String>> {
    let known = candidates(request, installed);
    let present: Vec<&str> = known
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| name.parse::<super::DriverName>().is_ok())
        .filter(|name| request.graph_root.join(name).symlink_metadata().is_ok())
        .collect();
    let claims = |name: &str| {
        known
            .iter()
            .any(|(known, claims)| *known == name && *claims)
    };
    let Some(first) = present.iter().find(|name| claims(name)) else {
        return Ok(None);
    };
    if present.len() > 1 {
        return Err(Error::new(
            ErrorKind::DriverMismatch,
            format!(
                "{} contains several valid graphdrivers: {}; Please cleanup or explicitly choose \
                 storage driver (-s <DRIVER>)",
                request.graph_root.display(),
                present.join(", ")
            ),
        )
        .subject(request.graph_root.display().to_string()));
    }
    Ok(Some((*first).to_owned()))
}

/// Names in order of preference, and whether a directory of that name claims the store.
fn candidates<'a>(request: &SelectRequest<'a>, installed: &'a [String]) -> Vec<(&'a str, bool)> {
    let mut names: Vec<(&str, bool)> = request
        .priority
        .iter()
        .map(|name| (name.as_str(), true))
        .collect();
    let listed = |names: &[(&str, bool)], name: &str| names.iter().any(|(known, _)| *known == name);
    let customised = !names.is_empty();
    for preference in &DEFAULT_PRIORITY {
        if !listed(&names, preference.name) {
            names.push((preference.name, preference.claims_store && !customised));
        }
    }
    for name in installed {
        if !listed(&names, name) {
            names.push((name, !customised));
        }
    }
    names
}

fn first_suitable(
    request: &SelectRequest<'_>,
    installed: &[String],
    open: impl Fn(&str) -> Result<DriverHandle, OpenError>,
) -> Result<Selected> {
    let mut passed_over = Vec::new();
    for (name, _) in candidates(request, installed) {
        match open(name) {
            Ok(driver) => {
                let mut reason = if passed_over.is_empty() {
                    "first of the priority list".to_owned()
                } else {
                    "first of the priority list that can be used".to_owned()
                };
                if !passed_over.is_empty() {
                    reason = format!("{reason} ({})", passed_over.join("; "));
                }
                return Ok(Selected { driver, reason });
            }
            Err(OpenError::Plugin(
                error @ (PluginError::Missing { .. } | PluginError::Name { .. }),
            )) => {
                tracing::debug!(driver = name, "passed over: {error}");
                passed_over.push(format!("{name}: not installed"));
            }
            Err(OpenError::Driver { error, .. }) if error.means_unsuitable() => {
                tracing::debug!(driver = name, "passed over: {error}");
                passed_over.push(format!("{name}: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::new(
        ErrorKind::DriverUnavailable,
        "no supported storage backend found",
    )
    .subject(request.graph_root.display().to_string())
    .hint(passed_over.join("; ")))
}

#[cfg(test)]
mod tests;
