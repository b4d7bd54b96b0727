// SPDX-License-Identifier: Apache-2.0
//! What is left behind.

use std::{
    env, fs,
    os::fd::IntoRawFd as _,
    path::Path,
    process::{Command, Stdio},
    sync::PoisonError,
    thread,
};

use plywood_plugin_sdk::{
    CreateRequest, Driver as _, IoContext, LayerId, OpenRequest, Removed, Result, toolkit,
};
use rustix::{
    fs::{Mode, OFlags},
    mount::mount_bind,
};

use super::{
    HoardsMemory, InheritsDescriptor, KeepsHomeMounted, KeepsSpace, LeaksDescriptor,
    LeaksLoopDevice, LeaksMount, LeavesProcess, LeavesThread, LittersGraphRoot, LittersTmp,
};
use crate::wrapper::{Fault, Wrapper as _};

impl Fault for LeaksMount {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        let point = self.driver().run_dir().join("leaked");
        fs::create_dir_all(&point).at("cannot create", &point)?;
        mount_bind(tree, &point).at("cannot mount at", &point)
    }
}

impl Fault for LeaksDescriptor {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        let file = fs::File::open(tree).at("cannot open", tree)?;
        let _leaked = file.into_raw_fd();
        Ok(())
    }
}

impl Fault for InheritsDescriptor {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let file = rustix::fs::open(tree, flags, Mode::empty()).at("cannot open", tree)?;
        let mut all = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(file);
        Ok(())
    }

    fn close(&self) -> Result<()> {
        let mut all = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        all.clear();
        self.driver().close()
    }
}

impl Fault for HoardsMemory {
    fn spoil(&self, _: &Path, _: &CreateRequest) -> Result<()> {
        let mut all = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(vec![1; 64 << 10]);
        Ok(())
    }
}

impl Fault for KeepsHomeMounted {
    fn before_open(request: &mut OpenRequest) -> Result<()> {
        let home = &request.home;
        fs::create_dir_all(home).at("cannot create", home)?;
        toolkit::make_private(home)
    }
}

impl Fault for LeaksLoopDevice {
    fn spoil(&self, _: &Path, request: &CreateRequest) -> Result<()> {
        let image = self.driver().home().join(format!("image-{}", request.id));
        let file = fs::File::create(&image).at("cannot create", &image)?;
        file.set_len(1 << 20).at("cannot size", &image)?;
        let mut attach = Command::new("losetup");
        attach.arg("--find").arg(&image).stderr(Stdio::null());
        attach.status().at("cannot run losetup for", &image)?;
        fs::remove_file(&image).at("cannot remove", &image)
    }
}

impl Fault for LeavesThread {
    fn spoil(&self, _: &Path, _: &CreateRequest) -> Result<()> {
        thread::spawn(|| {
            loop {
                thread::park();
            }
        });
        Ok(())
    }
}

impl Fault for LeavesProcess {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        let mut sleep = Command::new("sleep");
        sleep.arg("600").stdin(Stdio::null()).stdout(Stdio::null());
        let left = sleep.stderr(Stdio::null()).spawn();
        left.map(drop).at("cannot run sleep for", tree)
    }
}

impl Fault for LittersTmp {
    fn spoil(&self, _: &Path, request: &CreateRequest) -> Result<()> {
        let file = env::temp_dir().join(format!("faulty-litter-{}", request.id));
        fs::write(&file, "left behind").at("cannot write", &file)
    }
}

impl Fault for LittersGraphRoot {
    fn spoil(&self, _: &Path, request: &CreateRequest) -> Result<()> {
        let name = format!("faulty-litter-{}", request.id);
        let file = self.driver().home().with_file_name(name);
        fs::write(&file, "left behind").at("cannot write", &file)
    }
}

impl KeepsSpace {
    fn hide(&self, id: &LayerId) -> Result<Removed> {
        let directory = self.driver().directory(id);
        if !directory.is_dir() {
            return Ok(Removed::AlreadyGone);
        }
        let hidden = (0..).map(|n| self.driver().home().join(format!("hidden-{n}")));
        let mut free = hidden.filter(|hidden| !hidden.exists());
        let hidden = free.next().unwrap_or_else(|| directory.clone());
        fs::rename(&directory, &hidden).at("cannot hide", &directory)?;
        Ok(Removed::Now)
    }
}

impl Fault for KeepsSpace {
    fn remove(&self, id: &LayerId) -> Result<Removed> {
        self.hide(id)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        Ok(match self.hide(id)? {
            Removed::Now => Some(id.to_string()),
            Removed::AlreadyGone => None,
        })
    }

    fn reap(&self, token: &str) -> Result<()> {
        self.driver().reap(token)
    }
}
