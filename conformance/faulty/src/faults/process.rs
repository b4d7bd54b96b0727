// SPDX-License-Identifier: Apache-2.0
//! What a driver must not do to the process that it is in, and to its home.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

use plywood_plugin_sdk::{
    CreateRequest, Driver as _, IoContext, LayerId, OpenRequest, Removed, Result,
};
use rustix::fs::Mode;

use super::{ChangesDirectory, ChangesUmask, OpenHome, SharesState, WritesStdout};
use crate::wrapper::{Fault, Wrapper as _};

impl Fault for OpenHome {
    fn before_open(request: &mut OpenRequest) -> Result<()> {
        let home = &request.home;
        fs::create_dir_all(home).at("cannot create", home)?;
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(home, open).at("cannot change", home)
    }
}

impl Fault for WritesStdout {
    fn spoil(&self, tree: &Path, request: &CreateRequest) -> Result<()> {
        let mut out = io::stdout().lock();
        let written = writeln!(out, "made layer {}", request.id).and_then(|()| out.flush());
        written.at("cannot say that it made", tree)
    }
}

impl Fault for ChangesUmask {
    fn spoil(&self, _: &Path, _: &CreateRequest) -> Result<()> {
        rustix::process::umask(Mode::RWXG | Mode::RWXO);
        Ok(())
    }
}

impl Fault for ChangesDirectory {
    fn spoil(&self, _: &Path, _: &CreateRequest) -> Result<()> {
        let home = self.driver().home();
        env::set_current_dir(home).at("cannot change to", home)
    }
}

/// The layers of all stores.
static LAYERS: Mutex<BTreeSet<LayerId>> = Mutex::new(BTreeSet::new());

fn of_all(work: impl FnOnce(&mut BTreeSet<LayerId>) -> bool) -> bool {
    work(&mut LAYERS.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Fault for SharesState {
    fn spoil(&self, _: &Path, request: &CreateRequest) -> Result<()> {
        of_all(|layers| layers.insert(request.id.clone()));
        Ok(())
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(of_all(|layers| layers.contains(id)) || self.driver().exists(id)?)
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        of_all(|layers| layers.remove(id));
        self.driver().remove(id)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        of_all(|layers| layers.remove(id));
        self.driver().trash(id)
    }
}
