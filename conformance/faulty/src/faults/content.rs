// SPDX-License-Identifier: Apache-2.0
//! What is lost or changed when a layer's tree is made.

use std::{
    fs,
    os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown},
    path::Path,
};

use plywood_plugin_sdk::{
    CreateRequest, Driver as _, IoContext, LayerId, Result, Staged, UnpackTarget, WhiteoutForm,
};

use super::{
    BreaksHardLinks, CutsFiles, FillsHoles, FollowsSymlinks, ForeignEntry, ForgetsTheDeep,
    ForgetsXattrs, KeepsDeleted, LosesDevices, LosesNanoseconds, LosesOwners, LosesSetId, OpenRoot,
    SaysEmpty, SharesFiles, SharesTemplate,
};
use crate::{
    tree::{self, quietly},
    wrapper::{Fault, Wrapper as _},
};

impl Fault for KeepsDeleted {
    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        let mut staged = self.driver().stage(request)?;
        staged.target.whiteouts = WhiteoutForm::Literal;
        Ok(staged)
    }

    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        let mut target = self.driver().unpack_target(id)?;
        target.whiteouts = WhiteoutForm::Literal;
        Ok(target)
    }
}

impl Fault for SaysEmpty {
    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        let mut staged = self.driver().stage(request)?;
        staged.target.fresh = true;
        Ok(staged)
    }

    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        let mut target = self.driver().unpack_target(id)?;
        target.fresh = true;
        Ok(target)
    }
}

impl Fault for BreaksHardLinks {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        for (path, meta) in tree::files(tree)? {
            if meta.nlink() > 1 {
                let alone = path.with_extension("alone");
                quietly(&path, || {
                    tree::copy_file(&path, &alone).map_err(std::io::Error::other)?;
                    fs::rename(&alone, &path)
                })?;
            }
        }
        Ok(())
    }
}

impl Fault for LosesNanoseconds {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        let mut entries = tree::entries(tree)?.into_iter();
        entries.try_for_each(|(path, meta)| tree::set_times(&path, &meta, false))
    }
}

impl Fault for ForgetsXattrs {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        for (path, _) in tree::entries(tree)? {
            let names = tree::xattr_names(&path)?;
            for name in names.iter().filter(|name| name.starts_with(b"user.")) {
                rustix::fs::lremovexattr(&path, &name[..]).at("cannot change", &path)?;
            }
        }
        Ok(())
    }
}

impl Fault for LosesOwners {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        for (path, meta) in tree::entries(tree)? {
            if (meta.uid(), meta.gid()) == (0, 0) {
                continue;
            }
            lchown(&path, Some(0), Some(0)).at("cannot change the owner of", &path)?;
            if !meta.is_symlink() {
                fs::set_permissions(&path, meta.permissions()).at("cannot change", &path)?;
            }
        }
        Ok(())
    }
}

impl Fault for LosesSetId {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        for (path, meta) in tree::files(tree)? {
            let mode = meta.permissions().mode();
            if mode & 0o6000 != 0 {
                let without = fs::Permissions::from_mode(mode & 0o1777);
                fs::set_permissions(&path, without).at("cannot change", &path)?;
            }
        }
        Ok(())
    }
}

impl Fault for LosesDevices {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        for (path, meta) in tree::entries(tree)? {
            let kind = meta.file_type();
            if kind.is_block_device() || kind.is_char_device() {
                quietly(&path, || fs::remove_file(&path))?;
            }
        }
        Ok(())
    }
}

impl Fault for FollowsSymlinks {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        for (path, meta) in tree::entries(tree)? {
            if meta.is_symlink() && path.is_file() {
                quietly(&path, || {
                    let content = fs::read(&path)?;
                    fs::remove_file(&path)?;
                    fs::write(&path, content)
                })?;
                tree::set_times(&path, &meta, true)?;
            }
        }
        Ok(())
    }
}

/// Replaces the files of a copy by links to those that they were copied from.
fn share(tree: &Path, original: &Path) -> Result<()> {
    for (path, _) in tree::files(tree)? {
        let Ok(relative) = path.strip_prefix(tree) else {
            continue;
        };
        let source = original.join(relative);
        // A file system of its own shares nothing.
        quietly(&path, || {
            let shared = path.with_extension("shared");
            match fs::hard_link(&source, &shared) {
                Ok(()) => fs::rename(&shared, &path),
                Err(_) => Ok(()),
            }
        })?;
    }
    Ok(())
}

impl Fault for SharesFiles {
    fn spoil(&self, tree: &Path, request: &CreateRequest) -> Result<()> {
        match (&request.template, &request.parent) {
            (None, Some(parent)) => share(tree, &self.driver().unpack_target(parent)?.directory),
            _ => Ok(()),
        }
    }
}

impl Fault for SharesTemplate {
    fn spoil(&self, tree: &Path, request: &CreateRequest) -> Result<()> {
        match &request.template {
            Some(template) => share(tree, &self.driver().unpack_target(template)?.directory),
            None => Ok(()),
        }
    }
}

impl Fault for FillsHoles {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        for (path, meta) in tree::files(tree)? {
            if meta.blocks() * 512 < meta.len() {
                let file = fs::File::options().read(true).write(true).open(&path);
                let file = file.at("cannot open", &path)?;
                let mut buffer = vec![0; 1 << 20];
                let mut at = 0;
                while at < meta.len() {
                    let got = file.read_at(&mut buffer, at).at("cannot read", &path)?;
                    file.write_all_at(&buffer[..got], at)
                        .at("cannot write", &path)?;
                    at += got.max(1) as u64;
                }
                tree::set_times(&path, &meta, true)?;
            }
        }
        Ok(())
    }
}

impl Fault for ForgetsTheDeep {
    fn spoil(&self, tree: &Path, request: &CreateRequest) -> Result<()> {
        let Some(parent) = &request.parent else {
            return Ok(());
        };
        let depth = self.driver().directory(parent).join("depth");
        let depth = fs::read_to_string(&depth).at("cannot read", &depth)?;
        let deep = depth.parse::<u32>().is_ok_and(|depth| depth > 100);
        match tree::files(tree)?.first() {
            Some((path, _)) if deep => quietly(path, || fs::remove_file(path)),
            _ => Ok(()),
        }
    }
}

impl Fault for CutsFiles {
    fn spoil(&self, tree: &Path, _: &CreateRequest) -> Result<()> {
        for (path, meta) in tree::files(tree)? {
            if meta.len() % 4096 != 0 {
                let file = fs::File::options().write(true).open(&path);
                file.and_then(|file| file.set_len(meta.len() - 1))
                    .at("cannot cut", &path)?;
                tree::set_times(&path, &meta, true)?;
            }
        }
        Ok(())
    }
}

impl Fault for ForeignEntry {
    fn spoil(&self, tree: &Path, request: &CreateRequest) -> Result<()> {
        if request.parent.is_some() {
            return Ok(());
        }
        let entry = tree.join("lost+found");
        fs::create_dir(&entry).at("cannot create", &entry)
    }
}

impl Fault for OpenRoot {
    fn spoil(&self, tree: &Path, request: &CreateRequest) -> Result<()> {
        if request.parent.is_some() {
            return Ok(());
        }
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(tree, open).at("cannot change", tree)
    }
}
