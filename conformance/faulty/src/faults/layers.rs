// SPDX-License-Identifier: Apache-2.0
//! Layers that are mixed up, come back, or go when they should stay.

use std::{
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use plywood_plugin_sdk::{
    CreateRequest, Driver as _, IoContext, LayerId, Removed, Result,
    toolkit::{self, CopiedXattrs, CopyOptions},
};

use super::{
    CutsIds, FoldsCase, FollowsLayerLink, ForgetsOnRestart, ListsDeleted, RemembersDeleted,
    RemovesParent,
};
use crate::wrapper::{Fault, Wrapper as _};

impl Fault for FoldsCase {
    const DIRECTORY: fn(&LayerId) -> String = |id| id.as_str().to_ascii_lowercase();
}

impl Fault for CutsIds {
    const DIRECTORY: fn(&LayerId) -> String = |id| id.as_str().chars().take(64).collect();
}

fn lock<T>(state: &Mutex<T>) -> MutexGuard<'_, T> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fault for ListsDeleted {
    fn remove(&self, id: &LayerId) -> Result<Removed> {
        lock(&self.state).push(id.clone());
        self.driver().remove(id)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        lock(&self.state).push(id.clone());
        self.driver().trash(id)
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        let mut ids = self.driver().list()?;
        ids.extend(lock(&self.state).iter().cloned());
        ids.sort();
        ids.dedup();
        Ok(ids)
    }
}

impl RemovesParent {
    fn remove_parent_of(&self, id: &LayerId) -> Result<()> {
        let made = lock(&self.state);
        let own = made.iter().rfind(|request| request.id == *id);
        match own.and_then(|request| request.parent.as_ref()) {
            Some(parent) => self.driver().remove(parent).map(drop),
            None => Ok(()),
        }
    }
}

impl Fault for RemovesParent {
    fn create(&self, request: &CreateRequest) -> Result<()> {
        lock(&self.state).push(request.clone());
        self.driver().create(request)
    }

    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        lock(&self.state).push(request.clone());
        self.driver().adopt(token, request)
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        self.remove_parent_of(id)?;
        self.driver().remove(id)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        self.remove_parent_of(id)?;
        self.driver().trash(id)
    }
}

const COPY: CopyOptions = CopyOptions {
    ignore_chown_errors: false,
    xattrs: CopiedXattrs::All,
};

impl RemembersDeleted {
    fn memory(&self, id: &LayerId) -> PathBuf {
        self.driver().home().join("memory").join(id.as_str())
    }

    fn remember(&self, id: &LayerId) -> Result<()> {
        let memory = self.memory(id);
        if !self.driver().exists(id)? {
            return Ok(());
        }
        toolkit::remove_tree(&memory)?;
        fs::create_dir_all(&memory).at("cannot create", &memory)?;
        let tree = self.driver().unpack_target(id)?.directory;
        toolkit::copy_tree(&tree, &memory, COPY)
    }
}

impl Fault for RemembersDeleted {
    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.driver().create(request)?;
        let memory = self.memory(&request.id);
        if !memory.is_dir() {
            return Ok(());
        }
        let tree = self.driver().unpack_target(&request.id)?.directory;
        for entry in fs::read_dir(&tree).at("cannot read", &tree)? {
            toolkit::remove_tree(&entry.at("cannot read", &tree)?.path())?;
        }
        toolkit::copy_tree(&memory, &tree, COPY)
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        self.remember(id)?;
        self.driver().remove(id)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        self.remember(id)?;
        self.driver().trash(id)
    }
}

impl FollowsLayerLink {
    fn follow(&self, id: &LayerId) -> Result<()> {
        let directory = self.driver().directory(id);
        match fs::read_link(&directory) {
            Ok(target) => toolkit::remove_tree(&target),
            Err(_) => Ok(()),
        }
    }
}

impl Fault for FollowsLayerLink {
    fn remove(&self, id: &LayerId) -> Result<Removed> {
        self.follow(id)?;
        self.driver().remove(id)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        self.follow(id)?;
        self.driver().trash(id)
    }
}

impl Fault for ForgetsOnRestart {
    fn create(&self, request: &CreateRequest) -> Result<()> {
        lock(&self.state).push(request.id.clone());
        self.driver().create(request)
    }

    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        lock(&self.state).push(request.id.clone());
        self.driver().adopt(token, request)
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        let mut ids = self.driver().list()?;
        ids.retain(|id| lock(&self.state).contains(id));
        Ok(ids)
    }
}
