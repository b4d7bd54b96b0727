// SPDX-License-Identifier: Apache-2.0
//! Layers that refer to a directory of a layer source: a copy of its files, which is shown only
//! while the source answers.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use plywood_plugin_sdk::{
    DriverError, IoContext, Result,
    toolkit::{
        self, CopiedXattrs, CopyOptions,
        layer_store::{LayerDirectory, MARK},
    },
};

const OPAQUE: &str = "trusted.overlay.opaque";

/// The directory that the layer in `directory` refers to.
pub(super) fn of(directory: &Path) -> Result<Option<PathBuf>> {
    let file = directory.join(MARK);
    match fs::read_to_string(&file) {
        Ok(text) => Ok(Some(text.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(DriverError::io("cannot read", &file, &error)),
    }
}

/// Makes the layer in `directory` refer to `source`.
pub(super) fn refer(directory: &Path, source: &Path) -> Result<()> {
    let file = directory.join(MARK);
    fs::write(&file, source.as_os_str().as_encoded_bytes()).at("cannot write", &file)
}

/// Makes sure that what the layer in `directory` refers to can be reached within `limit`.
pub(super) fn reach(directory: &Path, limit: Duration) -> Result<()> {
    match of(directory)? {
        Some(source) => LayerDirectory::new(source, limit).check(),
        None => Ok(()),
    }
}

/// Lays the files of `diff` over those of `tree`, as overlay shows them; `spare` is a new directory
/// beside `tree`.
pub(super) fn lay_over(diff: &Path, tree: &Path, spare: &Path) -> Result<()> {
    fs::create_dir(spare).at("cannot create", spare)?;
    let options = CopyOptions::everything();
    toolkit::copy_tree(diff, spare, options)?;
    move_over((diff, spare), tree)?;
    toolkit::remove_tree(spare)
}

/// Moves what is in `copy` over what is in `to`; `original` has the marks and the attributes.
fn move_over((original, copy): (&Path, &Path), to: &Path) -> Result<()> {
    for entry in fs::read_dir(original).at("cannot read", original)? {
        let entry = entry.at("cannot read", original)?;
        let name = entry.file_name();
        let (source, target) = (entry.path(), to.join(&name));
        let meta = entry.metadata().at("cannot stat", &source)?;
        let merged = meta.is_dir() && target.is_dir() && !target.is_symlink();
        if !merged || is_opaque(&source)? {
            toolkit::remove_tree(&target)?;
        }
        let copied = copy.join(&name);
        if meta.is_dir() {
            if !target.exists() {
                fs::create_dir(&target).at("cannot create", &target)?;
            }
            move_over((&source, &copied), &target)?;
        } else if !(meta.file_type().is_char_device() && meta.rdev() == 0) {
            fs::rename(&copied, &target).at("cannot move to", &target)?;
        }
    }
    let options = CopyOptions {
        xattrs: CopiedXattrs::AllButOverlay,
        ..CopyOptions::default()
    };
    toolkit::copy_attributes(original, to, options)
}

fn is_opaque(directory: &Path) -> Result<bool> {
    let mut value = [0; 1];
    match rustix::fs::lgetxattr(directory, OPAQUE, &mut value) {
        Ok(length) => Ok(value[..length] == *b"y"),
        Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP) => Ok(false),
        Err(error) => Err(DriverError::io("cannot read", directory, &error.into())),
    }
}
