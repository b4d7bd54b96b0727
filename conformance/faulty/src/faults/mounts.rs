// SPDX-License-Identifier: Apache-2.0
//! Mounts that are not what was asked for, and limits.

use std::{fs, path::PathBuf, sync::PoisonError};

use plywood_plugin_sdk::{
    CreateRequest, Driver as _, DriverError, DriverErrorCode, IoContext, LayerId, MountPlan,
    MountRequest, Result, Staged, toolkit::options,
};

use super::{
    CorruptsSecondMount, HalvesQuota, IgnoresMountOptions, IgnoresNosuid, IgnoresQuota,
    IgnoresReadOnly,
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
