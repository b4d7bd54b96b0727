// SPDX-License-Identifier: Apache-2.0
//! Mounts that are not what was asked for, and limits.

use std::{
    env, fs,
    os::fd::IntoRawFd as _,
    path::{Path, PathBuf},
    sync::PoisonError,
};

use plywood_plugin_sdk::{
    CreateRequest, Driver as _, DriverError, DriverErrorCode, IdMaps, IoContext, LayerId,
    MountPlan, MountRequest, MountStep, MountSteps, Result, Staged,
    toolkit::{self, CopiedXattrs, CopyOptions, options},
};

use rustix::mount::{UnmountFlags, mount_bind, unmount};

use super::{
    CorruptsSecondMount, DetachedView, FailsIdlePut, HalvesQuota, IgnoresBusy, IgnoresIdMaps,
    IgnoresInodeLimit, IgnoresMountOptions, IgnoresNosuid, IgnoresQuota, IgnoresReadOnly,
    InventsTrees, MountsElsewhere, NeedsRunDir, PrivateView, RestlessInodes, ShortPaths,
    VolatileOnce,
};
use crate::{
    tree,
    wrapper::{Fault, Wrapper as _},
};

fn changed(request: &MountRequest, change: impl FnOnce(&mut MountRequest)) -> MountRequest {
    let mut request = request.clone();
    change(&mut request);
    request
}

impl Fault for IgnoresReadOnly {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let writable = changed(request, |request| request.read_only = false);
        self.driver().mount_plan(id, &writable)
    }

    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<PathBuf> {
        let writable = changed(request, |request| request.read_only = false);
        self.driver().mount(id, &writable)
    }
}

fn only_known(request: &MountRequest) -> MountRequest {
    let known = ["ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime"];
    changed(request, |request| {
        request
            .options
            .retain(|option| known.contains(&option.as_str()));
    })
}

impl Fault for IgnoresMountOptions {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        self.driver().mount_plan(id, &only_known(request))
    }

    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<PathBuf> {
        self.driver().mount(id, &only_known(request))
    }
}

fn without_restrictions(request: &MountRequest) -> MountRequest {
    let dropped = ["nosuid", "nodev", "noexec"];
    changed(request, |request| {
        request
            .options
            .retain(|option| !dropped.contains(&option.as_str()));
    })
}

impl Fault for IgnoresNosuid {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        self.driver().mount_plan(id, &without_restrictions(request))
    }

    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<PathBuf> {
        self.driver().mount(id, &without_restrictions(request))
    }
}

impl Fault for MountsElsewhere {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let plan = self.driver().mount_plan(id, request)?;
        let MountPlan::Directory(source) = plan else {
            return Ok(plan);
        };
        let target = env::temp_dir().join(format!("faulty-view-{id}"));
        fs::create_dir_all(&target).at("cannot create", &target)?;
        Ok(MountPlan::Mounts(MountSteps {
            steps: vec![MountStep::Bind {
                source,
                target: target.clone(),
                read_only: false,
            }],
            target,
        }))
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    toolkit::remove_tree(to)?;
    fs::create_dir_all(to).at("cannot create", to)?;
    let options = CopyOptions {
        xattrs: CopiedXattrs::All,
        ..CopyOptions::default()
    };
    toolkit::copy_tree(from, to, options)
}

impl Fault for PrivateView {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let plan = self.driver().mount_plan(id, request)?;
        let MountPlan::Directory(tree) = plan else {
            return Ok(plan);
        };
        let name = format!("{id}-{}", std::process::id());
        let view = self.driver().run_dir().join(name);
        if !view.exists() {
            copy(&tree, &view)?;
        }
        Ok(MountPlan::Directory(view))
    }
}

impl Fault for RestlessInodes {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let plan = self.driver().mount_plan(id, request)?;
        if let MountPlan::Directory(tree) = &plan {
            let again = tree.with_file_name("again");
            copy(tree, &again)?;
            fs::rename(tree, tree.with_file_name("before")).at("cannot move", tree)?;
            fs::rename(&again, tree).at("cannot move", &again)?;
            toolkit::remove_tree(&tree.with_file_name("before"))?;
        }
        Ok(plan)
    }
}

impl Fault for NeedsRunDir {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let (home, run_dir) = (self.driver().home(), self.driver().run_dir());
        let made = home.join("run-dir-was-made");
        if made.exists() {
            fs::read_dir(run_dir).at("cannot read", run_dir)?;
        }
        fs::create_dir_all(run_dir).at("cannot create", run_dir)?;
        fs::write(&made, "").at("cannot write", &made)?;
        self.driver().mount_plan(id, request)
    }
}

impl Fault for ShortPaths {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        if self.driver().directory(id).as_os_str().len() > 512 {
            let message = "the path of the layer is too long";
            return Err(DriverError::new(DriverErrorCode::OTHER, message));
        }
        self.driver().mount_plan(id, request)
    }
}

impl DetachedView {
    fn detached(&self, tree: &Path) -> Result<PathBuf> {
        let point = self.driver().run_dir().join("point");
        fs::create_dir_all(&point).at("cannot create", &point)?;
        mount_bind(tree, &point).at("cannot mount at", &point)?;
        let root = fs::File::open(&point).at("cannot open", &point);
        unmount(&point, UnmountFlags::DETACH).at("cannot unmount", &point)?;
        // One for each mount stays open.
        let root = root?.into_raw_fd();
        Ok(format!("/proc/self/fd/{root}/.").into())
    }
}

impl Fault for DetachedView {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        match self.driver().mount_plan(id, request)? {
            MountPlan::Directory(tree) => self.detached(&tree).map(MountPlan::Directory),
            plan => Ok(plan),
        }
    }
}

impl Fault for IgnoresBusy {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        self.driver().mount_plan(id, request)?;
        Ok(MountPlan::ByDriver {
            target: self.driver().run_dir().join(id.as_str()),
        })
    }

    fn unmount(&self, id: &LayerId) -> Result<()> {
        let target = self.driver().run_dir().join(id.as_str());
        // That it is in use is what is ignored.
        let _ignored = unmount(&target, UnmountFlags::empty());
        Ok(())
    }

    fn released(&self, id: &LayerId) -> Result<()> {
        drop(self.driver().released(id));
        Ok(())
    }
}

impl Fault for FailsIdlePut {
    fn released(&self, id: &LayerId) -> Result<()> {
        let used = self.driver().run_dir().join(format!("used-{id}"));
        let asked = fs::read(&used).at("cannot read", &used)?;
        fs::remove_file(&used).at("cannot remove", &used)?;
        // Whoever unmounts asks for the plan first, in one way or in both.
        if asked == b"w" || asked == b"wr" {
            let message = format!("layer `{id}` is not mounted");
            return Err(DriverError::new(DriverErrorCode::OTHER, message));
        }
        self.driver().released(id)
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let plan = self.driver().mount_plan(id, request)?;
        let used = self.driver().run_dir().join(format!("used-{id}"));
        let mut asked = fs::read(&used).unwrap_or_default();
        asked.push(if request.read_only { b'r' } else { b'w' });
        fs::create_dir_all(self.driver().run_dir()).at("cannot create", &used)?;
        fs::write(&used, asked).at("cannot write", &used)?;
        Ok(plan)
    }
}

impl VolatileOnce {
    fn mark(&self, id: &LayerId) -> PathBuf {
        self.driver().home().join(format!("volatile-{id}"))
    }
}

impl Fault for VolatileOnce {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let mark = self.mark(id);
        let own = std::process::id().to_string();
        match fs::read_to_string(&mark) {
            Ok(by) if by != own => {
                let message = format!("process {by} did not unmount layer `{id}`");
                return Err(DriverError::new(DriverErrorCode::CORRUPT, message));
            }
            _ if request.volatile => fs::write(&mark, own).at("cannot write", &mark)?,
            _ => {}
        }
        self.driver().mount_plan(id, request)
    }

    fn released(&self, id: &LayerId) -> Result<()> {
        let mark = self.mark(id);
        if fs::read_to_string(&mark).is_ok_and(|by| by == std::process::id().to_string()) {
            fs::remove_file(&mark).at("cannot remove", &mark)?;
        }
        self.driver().released(id)
    }
}

impl Fault for InventsTrees {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let directory = self.driver().directory(id);
        if directory.is_dir() {
            let tree = directory.join("tree");
            fs::create_dir_all(&tree).at("cannot create", &tree)?;
        }
        self.driver().mount_plan(id, request)
    }
}

impl Fault for CorruptsSecondMount {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let calls = {
            let mut seen = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            seen.push(id.clone());
            seen.iter().filter(|seen| *seen == id).count()
        };
        // The plan is asked for when a layer is mounted and when it is unmounted.
        if calls == 3 {
            let tree = self.driver().unpack_target(id)?.directory;
            for (path, _) in tree::files(&tree)? {
                let file = fs::File::options().write(true).open(&path);
                file.and_then(|file| file.set_len(0))
                    .at("cannot empty", &path)?;
            }
        }
        self.driver().mount_plan(id, request)
    }
}

impl Fault for IgnoresIdMaps {
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        if request.id_maps.is_empty() {
            return self.driver().mount_plan(id, request);
        }
        Ok(MountPlan::ByDriver {
            target: self.driver().run_dir().join(id.as_str()),
        })
    }

    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<PathBuf> {
        let unmapped = changed(request, |request| request.id_maps = IdMaps::default());
        self.driver().mount(id, &unmapped)
    }
}

fn limited(request: &CreateRequest, change: impl Fn(u64) -> Option<u64>) -> Result<CreateRequest> {
    let mut request = request.clone();
    if let Some(size) = request.storage_options.remove("size") {
        let bytes = options::size(&size)
            .map_err(|message| DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message))?;
        if let Some(bytes) = change(bytes) {
            let size = bytes.to_string();
            request.storage_options.insert("size".to_owned(), size);
        }
    }
    Ok(request)
}

impl Fault for IgnoresQuota {
    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.driver().create(&limited(request, |_| None)?)
    }

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        self.driver().stage(&limited(request, |_| None)?)
    }
}

impl Fault for HalvesQuota {
    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.driver()
            .create(&limited(request, |bytes| Some(bytes / 2))?)
    }

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        self.driver()
            .stage(&limited(request, |bytes| Some(bytes / 2))?)
    }
}

impl Fault for IgnoresInodeLimit {
    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.driver().create(&without_inodes(request))
    }

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        self.driver().stage(&without_inodes(request))
    }
}

fn without_inodes(request: &CreateRequest) -> CreateRequest {
    let mut request = request.clone();
    request.storage_options.remove("inodes");
    request
}
