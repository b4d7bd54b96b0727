// SPDX-License-Identifier: Apache-2.0
//! What is lost between a stream and a layer, and a layer in the wrong store.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{OnceLock, atomic::Ordering},
};

use plywood_plugin_sdk::{
    ChangeKind, CreateRequest, DiffView, Driver as _, DriverError, DriverErrorCode, IoContext,
    LayerId, NativeChange, OpenRequest, Result, Staged, toolkit,
};

use rustix::fs::{AtFlags, CWD, chownat};

use super::{
    AdoptsNothing, ComparesWithItself, OwnsWhatItAdopts, RemembersHome, RestlessChanges,
    UsesFirstHome, VagueDepth,
};
use crate::{
    tree,
    wrapper::{Fault, Wrapper as _},
};

/// Removes everything in a directory.
fn empty(directory: &Path) -> Result<()> {
    for entry in fs::read_dir(directory).at("cannot read", directory)? {
        toolkit::remove_tree(&entry.at("cannot read", directory)?.path())?;
    }
    Ok(())
}

impl Fault for AdoptsNothing {
    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        self.driver().adopt(token, request)?;
        empty(&self.driver().unpack_target(&request.id)?.directory)
    }
}

impl Fault for ComparesWithItself {
    fn diff_view(&self, id: &LayerId, _: Option<&LayerId>) -> Result<DiffView> {
        self.driver().diff_view(id, Some(id))
    }

    fn native_changes(&self, id: &LayerId, _: Option<&LayerId>) -> Result<Vec<NativeChange>> {
        self.driver().native_changes(id, Some(id))
    }
}

impl Fault for RestlessChanges {
    fn native_changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<NativeChange>> {
        let mut changes = self.driver().native_changes(id, parent)?;
        if self.state.fetch_xor(true, Ordering::Relaxed) {
            changes.retain(|change| change.kind != ChangeKind::Delete);
        }
        Ok(changes)
    }
}

impl Fault for OwnsWhatItAdopts {
    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        self.driver().adopt(token, request)?;
        let tree = self.driver().unpack_target(&request.id)?.directory;
        let root = (rustix::fs::Uid::ROOT, rustix::fs::Gid::ROOT);
        for (path, _) in tree::entries(&tree)? {
            chownat(
                CWD,
                &path,
                Some(root.0),
                Some(root.1),
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .at("cannot change the owner of", &path)?;
        }
        Ok(())
    }
}

fn without_code(error: DriverError) -> DriverError {
    if error.code == DriverErrorCode::TOO_DEEP {
        return DriverError::new(DriverErrorCode::INVALID_ARGUMENT, error.message);
    }
    error
}

impl Fault for VagueDepth {
    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.driver().create(request).map_err(without_code)
    }

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        self.driver().stage(request).map_err(without_code)
    }
}

impl Fault for RemembersHome {
    fn before_open(request: &mut OpenRequest) -> Result<()> {
        let note = request.home.join("home");
        if let Ok(text) = fs::read_to_string(&note) {
            request.home = PathBuf::from(text);
            return Ok(());
        }
        fs::create_dir_all(&request.home).at("cannot make", &request.home)?;
        let text = request.home.to_string_lossy().into_owned();
        fs::write(&note, text).at("cannot write", &note)
    }
}

static FIRST_HOME: OnceLock<PathBuf> = OnceLock::new();

impl Fault for UsesFirstHome {
    fn before_open(request: &mut OpenRequest) -> Result<()> {
        let first = FIRST_HOME.get_or_init(|| request.home.clone());
        request.home.clone_from(first);
        Ok(())
    }
}
