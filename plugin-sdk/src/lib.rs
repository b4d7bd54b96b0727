// SPDX-License-Identifier: Apache-2.0
//! Everything a third party needs to write a Plywood graph driver.
//!
//! A driver manages layers below its home directory and *says* where they are; core mounts them,
//! unpacks and packs tars, computes digests and differences. So a driver is short, and every
//! feature of core works with every driver.
//!
//! # Examples
//!
//! A driver in 60 lines of code: each layer is a directory that starts as a copy of its parent. The whole
//! example, with the remaining refinements, is `examples/minimal-driver`.
//!
//! ```
//! use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};
//!
//! use plywood_plugin_sdk::*;
//!
//! pub struct Copying;
//!
//! impl Plugin for Copying {
//!     const NAME: &'static str = "copying";
//!     const VENDOR: &'static str = "Example";
//!     const VERSION: &'static str = "0.1.0";
//!
//!     fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
//!         request.log(Self::NAME).debug("opening");
//!         fs::create_dir_all(&request.home).at("cannot create", &request.home)?;
//!         Ok(Box::new(Home(request.home)))
//!     }
//! }
//!
//! struct Home(PathBuf);
//!
//! impl Home {
//!     fn tree(&self, id: &LayerId) -> Result<PathBuf> {
//!         let tree = self.0.join(id.as_str()); // an id is one harmless path component
//!         if tree.is_dir() { Ok(tree) } else { Err(DriverError::no_layer(id)) }
//!     }
//! }
//!
//! impl Driver for Home {
//!     fn capabilities(&self) -> Capabilities {
//!         Capabilities::default() // nothing beyond the methods below
//!     }
//!     fn status(&self) -> Result<Vec<(String, String)>> {
//!         Ok(vec![("Home".into(), self.0.display().to_string())])
//!     }
//!     fn create(&self, request: &CreateRequest) -> Result<()> {
//!         let tree = self.0.join(request.id.as_str());
//!         match &request.parent {
//!             _ if tree.exists() => Err(DriverError::layer_exists(&request.id)),
//!             None => fs::create_dir(&tree).at("cannot create", &tree),
//!             Some(parent) => {
//!                 let mut copy = Command::new("cp");
//!                 let status = copy.arg("-a").args([self.tree(parent)?, tree.clone()]).status();
//!                 if status.at("cannot run cp for", &tree)?.success() { return Ok(()) }
//!                 toolkit::remove_tree(&tree)?; // a method that fails leaves nothing behind
//!                 Err(DriverError::new(DriverErrorCode::IO, "cp failed").object(request.id.as_str()))
//!             }
//!         }
//!     }
//!     fn remove(&self, id: &LayerId) -> Result<Removed> {
//!         if !self.exists(id)? { return Ok(Removed::AlreadyGone) }
//!         toolkit::remove_tree(&self.0.join(id.as_str())).map(|()| Removed::Now)
//!     }
//!     fn exists(&self, id: &LayerId) -> Result<bool> {
//!         Ok(self.tree(id).is_ok())
//!     }
//!     fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
//!         self.tree(id).map(|_| BTreeMap::new())
//!     }
//!     fn usage(&self, id: &LayerId) -> Result<Usage> {
//!         toolkit::tree_usage(&self.tree(id)?)
//!     }
//!     fn mount_plan(&self, id: &LayerId, _: &MountRequest) -> Result<MountPlan> {
//!         self.tree(id).map(MountPlan::Directory)
//!     }
//!     fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
//!         self.tree(id).map(UnpackTarget::tree)
//!     }
//!     fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView> {
//!         let parent = parent.map(|parent| self.tree(parent)).transpose()?;
//!         Ok(DiffView::Trees { tree: self.tree(id)?, parent })
//!     }
//!     fn content_roots(&self, id: &LayerId) -> Result<Vec<PathBuf>> {
//!         Ok(vec![self.tree(id)?])
//!     }
//! }
//! # struct Quiet;
//! # impl Host for Quiet {
//! #     fn log(&self, _: LogLevel, target: &str, _: &str) { assert_eq!(target, "copying"); }
//! # }
//! # let root = tempfile::tempdir().unwrap();
//! # let request = OpenRequest::new(root.path().join("home"), root.path(), std::sync::Arc::new(Quiet));
//! # let driver = Copying::open(request).unwrap();
//! # let (base, top) = (LayerId::new("base").unwrap(), LayerId::new("top").unwrap());
//! # driver.create(&CreateRequest::new(base.clone(), None)).unwrap();
//! # fs::write(driver.unpack_target(&base).unwrap().directory.join("file"), "text").unwrap();
//! # driver.create(&CreateRequest::new(top.clone(), Some(base))).unwrap();
//! # let MountPlan::Directory(tree) = driver.mount_plan(&top, &MountRequest::default()).unwrap()
//! # else { panic!("it is a directory") };
//! # assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), "text");
//! # assert_eq!(driver.remove(&top).unwrap(), Removed::Now);
//! # assert_eq!(driver.remove(&top).unwrap(), Removed::AlreadyGone);
//! ```
//!
//! To make it a plugin, put one line into a crate of the type `cdylib` whose library is called
//! `plywood_driver_copying`:
//!
//! ```text
//! plywood_plugin_sdk::export_driver!(my_crate::Copying);
//! ```
//!
//! and name the directory with the `.so` in `plywood --plugin-dir`. To link it into a program,
//! write [`embed_driver!`] there instead.
//!
//! # What to know
//!
//! - Core calls from several threads. What it holds during a call is described at [`Driver`].
//! - Declare in [`Capabilities`] what is beyond the required methods, and nothing else: core never
//!   calls what is not declared, and the conformance suite tests what is.
//! - Fail with a [`DriverError`] whose code fits; an error that
//!   [means unsuitable](DriverError::means_unsuitable) lets core try another driver at open.
//! - Write nothing to standard output or error, use [`Log`]. A panic becomes an error, and core
//!   refuses the driver for writes from then on.
//! - [`toolkit`] has what several drivers need: temporary directories that survive crashes in an
//!   orderly way, removal and measuring of trees.

pub mod abi;
mod capability;
mod driver;
mod error;
mod id;
mod log;
mod source;
pub mod sys;
pub mod toolkit;
mod types;

pub use capability::Capabilities;
pub use driver::{Driver, Plugin};
pub use error::{DriverError, DriverErrorCode, IoContext, Result};
pub use id::{InvalidId, LayerId, MAX_ID_LENGTH};
pub use log::Log;
pub use source::{
    EmbeddedSource, ExternalDirectory, LayerQuery, LayerSource, SourceLayer, SourcePlugin,
};
pub use types::*;

#[doc(hidden)]
pub use inventory;

/// A driver that is linked into the program, found by core through [`inventory`].
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedDriver {
    /// The driver's name.
    pub name: &'static str,
    /// Who ships it.
    pub vendor: &'static str,
    /// The driver's own version.
    pub version: &'static str,
    /// Opens it.
    pub open: fn(OpenRequest) -> Result<Box<dyn Driver>>,
}

impl EmbeddedDriver {
    /// The description of `P`.
    pub const fn of<P: Plugin>() -> Self {
        Self {
            name: P::NAME,
            vendor: P::VENDOR,
            version: P::VERSION,
            open: P::open,
        }
    }
}

inventory::collect!(EmbeddedDriver);

/// Links a driver into the program that uses this macro.
///
/// Write it in the program itself (not in the driver's crate): naming the driver there keeps the
/// linker from dropping it.
#[macro_export]
macro_rules! embed_driver {
    ($plugin:ty) => {
        $crate::inventory::submit! { $crate::EmbeddedDriver::of::<$plugin>() }
    };
}
