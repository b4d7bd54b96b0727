// SPDX-License-Identifier: Apache-2.0
//! A complete graph driver: every layer is a directory that starts as a copy of its parent.
//!
//! `cargo build` makes `libplywood_driver_minimal.so`; `plywood --plugin-dir target/debug
//! --storage-driver minimal` uses it.

use std::{collections::BTreeMap, fs, os::unix::fs as unix, path::PathBuf, process::Command};

use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, IoContext,
    LayerId, Log, MountPlan, MountRequest, OpenRequest, Plugin, Removed, Result, UnpackTarget,
    Usage, export_driver, toolkit,
};

/// Names the driver and opens it.
#[derive(Clone, Copy, Debug)]
pub struct Minimal;

impl Plugin for Minimal {
    const NAME: &'static str = "minimal";
    const VENDOR: &'static str = "Plywood examples";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        let log = request.log(Self::NAME);
        let home = request.home;
        fs::create_dir_all(&home).at("cannot create", &home)?;
        Ok(Box::new(Copies { home, log }))
    }
}

export_driver!(Minimal);

struct Copies {
    home: PathBuf,
    log: Log,
}

impl Copies {
    /// The layer's directory. Ids are safe to join: core and the plugin glue have checked them.
    fn tree(&self, id: &LayerId) -> Result<PathBuf> {
        let tree = self.home.join(id.as_str());
        if self.exists(id)? {
            return Ok(tree);
        }
        Err(DriverError::no_layer(id))
    }

    fn fill(&self, place: &PathBuf, request: &CreateRequest) -> Result<()> {
        if let Some(option) = request.storage_options.keys().next() {
            let message = format!("minimal: unknown option `{option}`");
            return Err(DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message));
        }
        let Some(parent) = &request.parent else {
            fs::create_dir(place).at("cannot create", place)?;
            let root = request.id_maps.root().ok_or_else(|| {
                DriverError::new(DriverErrorCode::INVALID_ARGUMENT, "root is not mapped")
            });
            let (uid, gid) = root?;
            return unix::chown(place, Some(uid), Some(gid)).at("cannot change owner of", place);
        };
        let parent = self.tree(parent)?;
        let mut copy = Command::new("cp");
        copy.args(["-a", "--reflink=auto", "--"]).arg(&parent);
        let copied = copy.arg(place).output().at("cannot run cp for", &parent)?;
        if copied.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&copied.stderr).trim().to_owned();
        Err(DriverError::new(DriverErrorCode::IO, text))
    }
}

impl Driver for Copies {
    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.list = true;
        can.idmapped_mounts = true;
        can
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        Ok(vec![("Home".into(), self.home.display().to_string())])
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        if self.exists(&request.id)? {
            return Err(DriverError::layer_exists(&request.id));
        }
        // No id begins with a dot. What an interrupted call left there is replaced.
        let place = self.home.join(format!(".new-{}", request.id));
        toolkit::remove_tree(&place)?;
        let made = self.fill(&place, request).and_then(|()| {
            fs::rename(&place, self.home.join(request.id.as_str())).at("cannot publish", &place)
        });
        if made.is_err() {
            toolkit::remove_tree(&place)?;
        }
        self.log
            .debug(format_args!("create {}: {made:?}", request.id));
        made
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        if !self.exists(id)? {
            return Ok(Removed::AlreadyGone);
        }
        toolkit::remove_tree(&self.home.join(id.as_str()))?;
        Ok(Removed::Now)
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        let tree = self.home.join(id.as_str());
        tree.try_exists().at("cannot look at", &tree)
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        let names = fs::read_dir(&self.home).at("cannot read", &self.home)?;
        let names = names.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| LayerId::new(name).ok()).collect())
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let tree = self.tree(id)?.display().to_string();
        Ok(BTreeMap::from([("Directory".to_owned(), tree)]))
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        toolkit::tree_usage(&self.tree(id)?)
    }

    fn mount_plan(&self, id: &LayerId, _request: &MountRequest) -> Result<MountPlan> {
        // Read-only mounts, options and labels are not declared, so core refuses them.
        self.tree(id).map(MountPlan::Directory)
    }

    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        self.tree(id).map(UnpackTarget::tree)
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
}
