// SPDX-License-Identifier: Apache-2.0
//! Puts back links that were lost.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

use plywood_plugin_sdk::{DriverError, IoContext, LayerId, Result};

use crate::{
    layout::{Layout, Place, sync_dir},
    link::{LINK_DIR, LinkId},
};

impl Layout {
    /// Makes the links that the layers' `link` files name and that are missing, and the `link`
    /// files that are missing or empty and that a link still names.
    ///
    /// # Behavior
    /// - Nothing that is right is touched, so that several processes may do it at once.
    /// - What is no layer (staging places, foreign directories) is skipped.
    ///
    /// # Compatibility
    /// `recreateSymlinks` in containers/storage; 1.43 fails there when it finds `tempdirs`.
    pub(crate) fn recover_links(&self) -> Result<()> {
        let links = self.links();
        match fs::create_dir(&links) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(DriverError::io("cannot create", &links, &error));
            }
            _ => {}
        }
        let mut owners = self.link_owners()?;
        for id in self.list()? {
            let dir = self.dir(&id);
            let home = self.home.clone();
            let place = Place {
                dir,
                home,
                own: true,
            };
            match place.read_link()? {
                Some(link) if !owners.contains_key(&id) || !links.join(link.as_str()).exists() => {
                    make_link(&links, &link, &id)?;
                }
                Some(_) => {}
                None => {
                    if let Some(link) = owners.remove(&id) {
                        write_link(&place.dir, &link)?;
                    }
                }
            }
        }
        if self.durable {
            sync_dir(&links)?;
        }
        Ok(())
    }

    /// Which layer each usable link names.
    fn link_owners(&self) -> Result<HashMap<LayerId, LinkId>> {
        let links = self.links();
        let mut owners = HashMap::new();
        for entry in fs::read_dir(&links).at("cannot read", &links)? {
            let entry = entry.at("cannot read", &links)?;
            let name = entry.file_name();
            let (Some(link), Ok(target)) = (
                LinkId::parse(name.as_encoded_bytes()),
                fs::read_link(entry.path()),
            ) else {
                continue;
            };
            if let Some(id) = layer_of(&target) {
                owners.insert(id, link);
            }
        }
        Ok(owners)
    }
}

/// The layer in `../ID/diff`.
fn layer_of(target: &Path) -> Option<LayerId> {
    let parts: Vec<Component<'_>> = target.components().collect();
    match parts[..] {
        [
            Component::ParentDir,
            Component::Normal(id),
            Component::Normal(diff),
        ] if diff == "diff" => LayerId::new(id.to_str()?).ok(),
        _ => None,
    }
}

/// Makes or corrects one link; a reader sees the old one or the new one.
fn make_link(links: &Path, link: &LinkId, id: &LayerId) -> Result<()> {
    let path = links.join(link.as_str());
    let target: PathBuf = [Path::new(".."), Path::new(id.as_str()), Path::new("diff")]
        .iter()
        .collect();
    match symlink(&target, &path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        other => return other.at("cannot create", &path),
    }
    if fs::read_link(&path).is_ok_and(|found| found == target) {
        return Ok(());
    }
    // Outside `l`, where a reader would take the name for a link.
    let new = links
        .with_file_name(id.as_str())
        .join(format!(".{LINK_DIR}.new"));
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(DriverError::io("cannot remove", &new, &error));
        }
        _ => {}
    }
    symlink(&target, &new).at("cannot create", &new)?;
    fs::rename(&new, &path).at("cannot replace", &path)
}

fn write_link(dir: &Path, link: &LinkId) -> Result<()> {
    let (new, path) = (dir.join(".link.new"), dir.join("link"));
    fs::write(&new, link.as_str())
        .and_then(|()| fs::File::open(&new)?.sync_all())
        .at("cannot write", &new)?;
    fs::rename(&new, &path).at("cannot replace", &path)?;
    sync_dir(dir)
}
