// SPDX-License-Identifier: Apache-2.0
//! A complete graph driver: every layer is a directory that starts as a copy of its parent.
//!
//! `cargo build` makes `libplywood_driver_minimal.so`; `plywood --plugin-dir target/debug
//! --storage-driver minimal` uses it. What it keeps on disk:
//!
//! ```text
//! HOME/layers/ID/    the layer's files
//! HOME/tempdirs/     what is being made or removed; reclaimed after a crash
//! ```

use std::{collections::BTreeMap, fs, path::PathBuf};

use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, IoContext, LayerId, Log, MountPlan,
    MountRequest, OpenRequest, Plugin, Removed, Result, UnpackTarget, Usage, export_driver,
    toolkit::{self, CopyOptions, TempDir},
};

/// Names the driver and opens it.
#[derive(Clone, Copy, Debug)]
pub struct Minimal;

impl Plugin for Minimal {
    const NAME: &'static str = "minimal";
    const VENDOR: &'static str = "Plywood examples";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        request.refuse_options(Self::NAME)?;
        let log = request.log(Self::NAME);
        let home = request.home;
        toolkit::create_private_dirs(&home.join("layers"))?;
        Ok(Box::new(Copies { home, log }))
    }
}

export_driver!(Minimal);

struct Copies {
    home: PathBuf,
    log: Log,
}

impl Copies {
    /// Where the layer is or will be. Ids are safe to join: they are checked before they arrive.
    fn place(&self, id: &LayerId) -> PathBuf {
        self.home.join("layers").join(id.as_str())
    }

    /// The directory of a layer that is there; a link that somebody planted is none.
    fn tree(&self, id: &LayerId) -> Result<PathBuf> {
        let place = self.place(id);
        if self.exists(id)? && !place.is_symlink() {
            return Ok(place);
        }
        Err(DriverError::no_layer(id))
    }

    /// A private directory; whatever is in it is removed when it is dropped.
    fn temporary(&self) -> Result<TempDir> {
        TempDir::create_to_build(&self.home.join("tempdirs"))
    }
}

impl Driver for Copies {
    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.list = true;
        can.sync = true;
        can.idmapped_mounts = true;
        can.directory_rename = true;
        can.stable_inodes = true;
        can.hard_link_copy_up = true;
        can.holes = true;
        can
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        Ok(vec![("Home".into(), self.home.display().to_string())])
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        request.refuse_options()?;
        request.refuse_template()?;
        if self.exists(&request.id)? {
            return Err(DriverError::layer_exists(&request.id));
        }
        let (mut temporary, layer) = (self.temporary()?, self.place(&request.id));
        let new = temporary.addition();
        request.make_root(&new)?;
        if let Some(parent) = &request.parent {
            toolkit::copy_tree(&self.tree(parent)?, &new, CopyOptions::everything())?;
        }
        fs::rename(&new, &layer).at("cannot publish", &layer)?;
        self.log.debug(format_args!("created {}", request.id));
        temporary.close()
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        toolkit::remove_layer(&self.home.join("tempdirs"), &self.place(id))
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        toolkit::is_there(&self.place(id))
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        toolkit::list_layers(&self.home.join("layers"))
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let tree = self.tree(id)?.display().to_string();
        Ok(BTreeMap::from([("Directory".to_owned(), tree)]))
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        toolkit::tree_usage(&self.tree(id)?)
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        request.refuse_undeclared(&self.capabilities())?;
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

    fn sync(&self, id: &LayerId) -> Result<()> {
        toolkit::sync_file_system(&self.tree(id)?)
    }

    fn recover(&self) -> Result<Vec<String>> {
        toolkit::temp_dir::recover(&self.home.join("tempdirs"))
    }
}
