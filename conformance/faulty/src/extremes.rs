// SPDX-License-Identifier: Apache-2.0
//! Drivers at both ends: one that offers the least and says so, one that claims all and does
//! nothing.

use std::{collections::BTreeMap, fs, path::PathBuf};

use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, ExternalDirectory,
    IoContext, LayerId, MountPlan, MountRequest, NativeChange, OpenRequest, Plugin, Removed,
    Result, Staged, UnpackTarget, Usage,
};

use crate::{
    DEPTH_LIMIT,
    reference::ReferenceDriver,
    wrapper::{Fault, Faulty, Wrapper},
};

/// Offers what every driver must offer, and refuses everything else that can be refused.
#[derive(Debug)]
pub struct Minimal(ReferenceDriver);

impl Plugin for Minimal {
    const NAME: &'static str = "reference-minimal";
    const VENDOR: &'static str = "Plywood conformance";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        let driver = ReferenceDriver::open(Self::NAME, request)?;
        Ok(Box::new(Faulty(Self(driver))))
    }
}

impl Wrapper for Minimal {
    fn driver(&self) -> &ReferenceDriver {
        &self.0
    }
}

fn refused<T>(operation: &str) -> Result<T> {
    Err(DriverError::not_supported(operation))
}

impl Fault for Minimal {
    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        // Facts about trees, which cannot be refused.
        can.depth_limit = Some(DEPTH_LIMIT);
        can.directory_rename = true;
        can.stable_inodes = true;
        can.hard_link_copy_up = true;
        can.holes = true;
        can
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        if request.template.is_some() {
            return refused("templates");
        }
        if let Some(option) = request.storage_options.keys().next() {
            let message = format!("a layer has no option `{option}`");
            let error = DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message);
            return Err(error.object(option));
        }
        self.driver().create(request)
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        if request.read_only {
            return refused("read-only mounts");
        }
        if !request.options.is_empty() {
            return refused("mount options");
        }
        self.driver().mount_plan(id, request)
    }

    fn mount(&self, _: &LayerId, _: &MountRequest) -> Result<PathBuf> {
        refused("mounting by itself")
    }

    fn unmount(&self, _: &LayerId) -> Result<()> {
        refused("mounting by itself")
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        refused("list")
    }

    fn native_changes(&self, _: &LayerId, _: Option<&LayerId>) -> Result<Vec<NativeChange>> {
        refused("native_changes")
    }

    fn stage(&self, _: &CreateRequest) -> Result<Staged> {
        refused("staging")
    }

    fn sync_staged(&self, _: &str) -> Result<()> {
        refused("staging")
    }

    fn adopt(&self, _: &str, _: &CreateRequest) -> Result<()> {
        refused("staging")
    }

    fn discard(&self, _: &str) -> Result<()> {
        refused("staging")
    }

    fn trash(&self, _: &LayerId) -> Result<Option<String>> {
        refused("deferred_removal")
    }

    fn reap(&self, _: &str) -> Result<()> {
        refused("deferred_removal")
    }

    fn sync(&self, _: &LayerId) -> Result<()> {
        refused("sync")
    }

    fn create_external(&self, _: &CreateRequest, _: &ExternalDirectory) -> Result<()> {
        refused("create_external")
    }
}

/// Declares everything and does nothing.
#[derive(Debug)]
pub struct Liar(PathBuf);

impl Plugin for Liar {
    const NAME: &'static str = "faulty-liar";
    const VENDOR: &'static str = "Plywood conformance";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        let place = request.home.join("the-only-one");
        fs::create_dir_all(&place).at("cannot create", &place)?;
        Ok(Box::new(Self(place)))
    }
}

impl Driver for Liar {
    fn capabilities(&self) -> Capabilities {
        Capabilities::from_bits(u64::MAX, None)
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn create(&self, _: &CreateRequest) -> Result<()> {
        Ok(())
    }

    fn remove(&self, _: &LayerId) -> Result<Removed> {
        Ok(Removed::Now)
    }

    fn exists(&self, _: &LayerId) -> Result<bool> {
        Ok(true)
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        Ok(Vec::new())
    }

    fn metadata(&self, _: &LayerId) -> Result<BTreeMap<String, String>> {
        Ok(BTreeMap::new())
    }

    fn usage(&self, _: &LayerId) -> Result<Usage> {
        Ok(Usage::default())
    }

    fn mount_plan(&self, _: &LayerId, _: &MountRequest) -> Result<MountPlan> {
        Ok(MountPlan::Directory(self.0.clone()))
    }

    fn unpack_target(&self, _: &LayerId) -> Result<UnpackTarget> {
        Ok(UnpackTarget::tree(&self.0))
    }

    fn diff_view(&self, _: &LayerId, _: Option<&LayerId>) -> Result<DiffView> {
        Ok(DiffView::Trees {
            tree: self.0.clone(),
            parent: None,
        })
    }

    fn content_roots(&self, _: &LayerId) -> Result<Vec<PathBuf>> {
        Ok(Vec::new())
    }

    fn native_changes(&self, _: &LayerId, _: Option<&LayerId>) -> Result<Vec<NativeChange>> {
        Ok(Vec::new())
    }

    fn stage(&self, _: &CreateRequest) -> Result<Staged> {
        Ok(Staged {
            token: "staged".to_owned(),
            target: UnpackTarget::tree(&self.0),
        })
    }

    fn sync_staged(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn adopt(&self, _: &str, _: &CreateRequest) -> Result<()> {
        Ok(())
    }

    fn discard(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn trash(&self, _: &LayerId) -> Result<Option<String>> {
        Ok(Some("trashed".to_owned()))
    }

    fn reap(&self, _: &str) -> Result<()> {
        Ok(())
    }

    fn sync(&self, _: &LayerId) -> Result<()> {
        Ok(())
    }

    fn create_external(&self, _: &CreateRequest, _: &ExternalDirectory) -> Result<()> {
        Ok(())
    }
}
