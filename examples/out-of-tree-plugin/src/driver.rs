// SPDX-License-Identifier: Apache-2.0
//! Layers, and where they are while they come and go.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, IoContext, LayerId, MountPlan,
    MountRequest, OpenRequest, Plugin, Removed, Result, Staged, UnpackTarget, Usage,
    toolkit::{self, CopyOptions, Held, Places, TempDir, temp_dir},
};

use crate::{
    Reflink,
    probe::{self, Fallback},
};

const LAYERS: &str = "layers";
const PLACES: &str = "places";

/// An open store.
pub(crate) struct Reflinks {
    home: PathBuf,
    run_dir: PathBuf,
    shares_blocks: bool,
    held: Places,
}

impl Reflinks {
    pub(crate) fn open(request: OpenRequest, fallback: Fallback) -> Result<Self> {
        let log = request.log(Reflink::NAME);
        let (home, run_dir) = (request.home, request.run_dir);
        toolkit::create_private_dirs(&home.join(LAYERS))?;
        let shares_blocks = probe::shares_blocks(&home.join(PLACES), fallback)?;
        if !shares_blocks {
            log.warn("this file system cannot share blocks: layers are real copies");
        }
        Ok(Self {
            home,
            run_dir,
            shares_blocks,
            held: Places::default(),
        })
    }

    fn layers(&self) -> PathBuf {
        self.home.join(LAYERS)
    }

    /// A private directory; whatever is in it is removed when it is dropped.
    fn temporary(&self) -> Result<TempDir> {
        TempDir::create_to_build(&self.home.join(PLACES))
    }

    fn place(&self, id: &LayerId) -> PathBuf {
        self.layers().join(id.as_str())
    }

    /// Where a read-only mount of the layer appears.
    fn mount_point(&self, id: &LayerId) -> PathBuf {
        self.run_dir.join(id.as_str())
    }

    fn is_there(&self, id: &LayerId) -> Result<bool> {
        toolkit::is_there(&self.place(id))
    }

    fn tree(&self, id: &LayerId) -> Result<PathBuf> {
        let place = self.place(id);
        // A link that somebody planted is no layer.
        if self.is_there(id)? && !place.is_symlink() {
            return Ok(place);
        }
        Err(DriverError::no_layer(id))
    }

    /// Makes what is at `content` the layer `id`.
    fn publish(&self, content: &Path, id: &LayerId) -> Result<()> {
        // The rename alone would replace a layer that is an empty directory.
        if self.is_there(id)? {
            return Err(DriverError::layer_exists(id));
        }
        let place = self.place(id);
        fs::rename(content, &place).at("cannot publish", &place)?;
        // The layer's record must not outlive its name.
        toolkit::sync_directory(&self.layers())
    }

    /// The new layer's tree in a private place, which is removed again when it is dropped.
    fn make(&self, request: &CreateRequest) -> Result<Held> {
        request.refuse_options()?;
        let source = request.template.as_ref().or(request.parent.as_ref());
        let source = source.map(|id| self.tree(id)).transpose()?;
        let mut place = self.temporary()?;
        let content = place.addition();
        request.make_root(&content)?;
        if let Some(source) = source {
            // Shares blocks wherever the file system lets it.
            toolkit::copy_tree(&source, &content, CopyOptions::everything())?;
        }
        Ok(Held { place, content })
    }
}

impl Driver for Reflinks {
    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.list = true;
        can.read_only_mounts = true;
        can.idmapped_mounts = true;
        can.template = true;
        can.directory_rename = true;
        can.stable_inodes = true;
        can.hard_link_copy_up = true;
        can.holes = true;
        // Not `space_sharing`: `usage` would have to leave out what is shared with the parent.
        can.staging = true;
        can.deferred_removal = true;
        can.sync = true;
        can
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        let shares = self.shares_blocks.to_string();
        Ok(vec![("Shares blocks".to_owned(), shares)])
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        if self.is_there(&request.id)? {
            return Err(DriverError::layer_exists(&request.id));
        }
        let held = self.make(request)?;
        self.publish(&held.content, &request.id)?;
        held.place.close()
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        toolkit::refuse_mounted(id, &self.mount_point(id))?;
        toolkit::remove_layer(&self.home.join(PLACES), &self.place(id))
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        self.is_there(id)
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        toolkit::list_layers(&self.layers())
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
        let (tree, target) = (self.tree(id)?, self.mount_point(id));
        toolkit::tree_plan(Reflink::NAME, tree, target, request, true)
    }

    fn released(&self, id: &LayerId) -> Result<()> {
        toolkit::remove_mount_point(&self.mount_point(id))
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

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        let held = self.make(request)?;
        let target = UnpackTarget::tree(&held.content);
        let token = self.held.hold(held);
        Ok(Staged { token, target })
    }

    fn sync_staged(&self, token: &str) -> Result<()> {
        toolkit::sync_file_system(&self.held.content(token)?)
    }

    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        let content = self.held.content(token)?;
        self.publish(&content, &request.id)?;
        self.held.discard(token)
    }

    fn discard(&self, token: &str) -> Result<()> {
        self.held.discard(token)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        toolkit::refuse_mounted(id, &self.mount_point(id))?;
        let mut place = self.temporary()?;
        let taken = place.take(&self.place(id))?;
        Ok(taken.map(|content| self.held.hold(Held { place, content })))
    }

    fn reap(&self, token: &str) -> Result<()> {
        self.held.discard(token)
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        toolkit::sync_file_system(&self.tree(id)?)
    }

    fn recover(&self) -> Result<Vec<String>> {
        temp_dir::recover(&self.home.join(PLACES))
    }
}
