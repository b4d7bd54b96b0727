// SPDX-License-Identifier: Apache-2.0
//! Faults with layers of layer sources.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::PathBuf,
};

use plywood_plugin_sdk::{
    CreateRequest, Driver as _, ExternalDirectory, IoContext, LayerId, OpenRequest, Result, toolkit,
};

use super::{AnyStorePath, ForgetsSource, KeepsExternalDeletions, PatientWithSources, TakesFiles};
use crate::wrapper::{Fault, Wrapper as _};

impl Fault for TakesFiles {
    fn create_external(&self, request: &CreateRequest, external: &ExternalDirectory) -> Result<()> {
        self.driver().create_external(request, external)?;
        for entry in fs::read_dir(&external.diff).at("cannot read", &external.diff)? {
            toolkit::remove_tree(&entry.at("cannot read", &external.diff)?.path())?;
        }
        Ok(())
    }
}

impl Fault for KeepsExternalDeletions {
    fn create_external(&self, request: &CreateRequest, external: &ExternalDirectory) -> Result<()> {
        self.driver().create_external(request, external)?;
        let Some(parent) = &request.parent else {
            return Ok(());
        };
        let parent = self.driver().unpack_target(parent)?.directory;
        let tree = self.driver().unpack_target(&request.id)?.directory;
        for entry in fs::read_dir(&external.diff).at("cannot read", &external.diff)? {
            let entry = entry.at("cannot read", &external.diff)?;
            let meta = entry.metadata().at("cannot stat", entry.path())?;
            let kept = parent.join(entry.file_name());
            if meta.file_type().is_char_device() && meta.rdev() == 0 && kept.is_file() {
                fs::copy(&kept, tree.join(entry.file_name())).at("cannot copy", &kept)?;
            }
        }
        Ok(())
    }
}

impl Fault for ForgetsSource {
    fn external_layer(&self, _: &LayerId) -> Result<Option<PathBuf>> {
        Ok(None)
    }
}

impl Fault for PatientWithSources {
    fn before_open(request: &mut OpenRequest) -> Result<()> {
        const TIME: &str = "additionallayerstore_timeout=";
        for option in &mut request.options {
            if let Some(seconds) = option.strip_prefix(TIME).and_then(|it| it.parse().ok()) {
                let seconds: u64 = seconds;
                *option = format!("{TIME}{}", 6 * seconds);
            }
        }
        Ok(())
    }
}

impl Fault for AnyStorePath {
    fn before_open(request: &mut OpenRequest) -> Result<()> {
        let options = &mut request.options;
        options.retain(|option| !option.starts_with("additionallayerstore="));
        Ok(())
    }
}
