// SPDX-License-Identifier: Apache-2.0
//! Calls that fail, and files that are damaged.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use plywood::{ErrorKind, plugin::DriverHandle, sdk::MountRequest};

use super::{
    cuts::Cuts,
    oracle::{BASE, NEW, Paths, WholeStore, differences, sample, seen},
    store::check_layer,
};
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, demand},
    excuses,
    manifest::Manifest,
    sweep::{self, Action},
    target::layer_id,
};

pub(super) const CASES: &[Case] = &[
    bare("GD-CRA-016", no_space).roles(&[
        ("create", create_role),
        ("put", put_role),
        ("mount", mount_role),
        ("delete", delete_role),
    ]),
    bare("GD-CRA-017", damaged),
];

/// A success, or a refusal that says why; both are fine.
fn refused(answer: plywood::Result<()>) -> Outcome {
    match answer {
        Err(error) if error.kind() != ErrorKind::NoSpace => {
            let kind = error.kind();
            let Failure { text, .. } = error.into();
            Err(Failure::new(format!(
                "a full disk must be reported as such, but this is {kind:?}: {text}"
            )))
        }
        _ => Ok(()),
    }
}

fn starved(site: &Site, operation: impl FnOnce(&Target) -> plywood::Result<()>) -> Outcome {
    let target = site.open()?;
    sweep::begin()?;
    refused(operation(&target))
}

fn create_role(site: &Site, _: &[String]) -> Outcome {
    starved(site, |target| {
        target.create_writable(NEW, Some(BASE)).map(drop)
    })
}

fn put_role(site: &Site, _: &[String]) -> Outcome {
    starved(site, |target| {
        target.put(NEW, Some(BASE), &sample()).map(drop)
    })
}

fn mount_role(site: &Site, _: &[String]) -> Outcome {
    starved(site, |target| {
        target.mount(NEW, &MountRequest::default())?;
        target.unmount(NEW)
    })
}

fn delete_role(site: &Site, _: &[String]) -> Outcome {
    starved(site, |target| target.delete(NEW))
}

/// Whether the layer is there before the operation.
fn finds(role: &str) -> bool {
    matches!(role, "mount" | "delete")
}

/// A store on which operations run out of space.
struct Starving<'a> {
    store: WholeStore<'a>,
    /// What the layer is after the operation of that name, or before it.
    complete: BTreeMap<&'static str, Manifest>,
    tar: Vec<u8>,
    clean: Paths,
}

impl<'a> Starving<'a> {
    fn new(site: &'a Site) -> Result<Self, Failure> {
        let tar = sample();
        let mut complete = BTreeMap::new();
        let store = WholeStore::new(site, |target| {
            target.create_writable(NEW, Some(BASE))?;
            let empty = target.manifest(NEW)?;
            for role in ["create", "mount", "delete"] {
                complete.insert(role, empty.clone());
            }
            target.delete(NEW)?;
            target.put(NEW, Some(BASE), &tar)?;
            complete.insert("put", target.manifest(NEW)?);
            Ok(target.delete(NEW)?)
        })?;
        Ok(Self {
            clean: Paths::of(site)?,
            store,
            complete,
            tar,
        })
    }

    /// Makes the layer for an operation that needs one.
    fn ready(&self, role: &str) -> Outcome {
        if !finds(role) {
            return Ok(());
        }
        let target = self.store.site.open()?;
        target.create_writable(NEW, Some(BASE))?;
        Ok(target.close().map(drop)?)
    }

    /// Now that there is space again, everything is as it should be, and what failed can be done.
    fn settle(&self, role: &str, emptied: bool) -> Outcome {
        self.store.settle(|target| {
            let complete = &self.complete[role];
            let recorded = target.layers()?.iter().any(|layer| layer.id == NEW);
            let may_be_empty = emptied && recorded;
            if !may_be_empty && !check_layer(target, complete)? {
                demand!(role != "mount", "the layer was lost");
                match role {
                    "put" => target.put(NEW, Some(BASE), &self.tar)?,
                    _ => target.create_writable(NEW, Some(BASE))?,
                };
                check_layer(target, complete)?;
            }
            let users = |target: &Target| -> Result<bool, Failure> {
                let layers = target.layers()?;
                Ok(layers
                    .iter()
                    .any(|layer| layer.id == NEW && layer.mount_count > 0))
            };
            while users(target)? {
                target.unmount(NEW)?;
            }
            Ok(target.delete(NEW)?)
        })
    }
}

fn no_space(site: &Site) -> Outcome {
    let starving = Starving::new(site)?;
    for role in ["create", "put", "mount", "delete"] {
        let cuts = Cuts {
            site,
            role,
            arguments: &[],
        };
        starving.ready(role)?;
        cuts.failing(
            |at| Action::FailAt(at, libc::ENOSPC),
            |said| {
                said?;
                if !finds(role) {
                    leaves_nothing(site, &starving.clean)?;
                }
                starving.settle(role, false)?;
                starving.ready(role)
            },
        )?;
        cuts.failing(
            |at| Action::FailFrom(at, libc::ENOSPC),
            |said| {
                said?;
                // Core empties what is to be deleted when a disk that stays full leaves no room
                // for new records.
                starving.settle(role, role == "delete")?;
                starving.ready(role)
            },
        )?;
        if finds(role) {
            starving.settle(role, false)?;
        }
    }
    Ok(())
}

/// When one call alone failed there was room to tidy up: nothing is left for others to reclaim.
fn leaves_nothing(site: &Site, clean: &Paths) -> Outcome {
    let target = site.open()?;
    let recorded = target.layers()?.iter().any(|layer| layer.id == NEW);
    target.close()?;
    if recorded {
        return Ok(());
    }
    clean.unchanged(&Paths::of(site)?)
}

/// The driver's own files: what lies in its home and in no layer's content.
fn own_files(site: &Site, driver: &DriverHandle) -> Result<Vec<PathBuf>, Failure> {
    let mut content = Vec::new();
    for id in LAYERS {
        content.push(driver.unpack_target(&layer_id(id))?.directory);
        content.extend(driver.content_roots(&layer_id(id))?);
    }
    let mut found = Vec::new();
    gather(&site.home()?, &content, &mut found)?;
    found.sort();
    Ok(found)
}

fn gather(path: &Path, content: &[PathBuf], found: &mut Vec<PathBuf>) -> io::Result<()> {
    if content.iter().any(|root| root == path) {
        return Ok(());
    }
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            gather(&entry?.path(), content, found)?;
        }
    } else if kind.is_file() || kind.is_symlink() {
        found.push(path.to_owned());
    }
    Ok(())
}

/// A base, a layer on it, and one that has nothing to do with them.
const LAYERS: [&str; 3] = [BASE, "child", "other"];

/// Who is affected by damage to a file: nobody but those that stand on the layer it belongs to.
fn untouched(home: &Path, file: &Path) -> Vec<&'static str> {
    let below = file.strip_prefix(home).unwrap_or(file);
    let names = |id: &str| below.components().any(|part| part.as_os_str() == id);
    match LAYERS.into_iter().find(|id| names(id)) {
        Some(BASE) => vec!["other"],
        Some("child") => vec![BASE, "other"],
        Some(_) => vec![BASE, "child"],
        None => Vec::new(),
    }
}

/// What is done to a file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    Removed,
    Emptied,
    Halved,
    Zeroed,
    Flipped,
}

impl Damage {
    const ALL: [Self; 5] = [
        Self::Removed,
        Self::Emptied,
        Self::Halved,
        Self::Zeroed,
        Self::Flipped,
    ];

    /// Damages the file; false when that changes nothing.
    fn inflict(self, path: &Path, bytes: &[u8]) -> io::Result<bool> {
        let mut new = bytes.to_vec();
        match self {
            Self::Removed => {
                fs::remove_file(path)?;
                return Ok(true);
            }
            Self::Emptied => new.clear(),
            Self::Halved => new.truncate(bytes.len() / 2),
            Self::Zeroed => new.fill(0),
            Self::Flipped => {
                let middle = new.len() / 2;
                if let Some(byte) = new.get_mut(middle) {
                    *byte ^= 0x10;
                }
            }
        }
        fs::write(path, &new)?;
        Ok(new != bytes)
    }
}

fn damaged(site: &Site) -> Outcome {
    let target = site.open()?;
    target.put(BASE, None, &sample())?;
    target.put("child", Some(BASE), &sample())?;
    target.put("other", None, &sample())?;
    let mut expected = BTreeMap::new();
    for id in LAYERS {
        expected.insert(id, target.manifest(id)?);
    }
    let files = own_files(site, &target.driver)?;
    target.close()?;
    if files.is_empty() {
        return Err(Failure::not_applicable(
            excuses::NO_OWN_FILES,
            "the driver keeps no file of its own beside the layers' content",
        ));
    }
    let home = site.home()?;
    for file in &files {
        let link = fs::read_link(file).ok();
        let bytes = if link.is_some() {
            Vec::new()
        } else {
            fs::read(file)?
        };
        for damage in Damage::ALL {
            if link.is_some() && !matches!(damage, Damage::Removed) {
                continue;
            }
            if damage.inflict(file, &bytes)? {
                survives(site, &expected, &untouched(&home, file)).map_err(|failure| {
                    let name = file.strip_prefix(&home).unwrap_or(file).display();
                    let what = format!("{damage:?} was `{name}`");
                    super::oracle::because(failure, &what)
                })?;
            }
            restore(file, link.as_deref(), &bytes)?;
        }
    }
    let driver = site.driver()?;
    let healed = survives(site, &expected, &LAYERS);
    driver.close()?;
    healed.map_err(|failure| super::oracle::because(failure, "everything was put back"))
}

fn restore(file: &Path, link: Option<&Path>, bytes: &[u8]) -> io::Result<()> {
    let Some(link) = link else {
        return fs::write(file, bytes);
    };
    match fs::symlink_metadata(file) {
        Ok(_) => Ok(()),
        Err(_) => std::os::unix::fs::symlink(link, file),
    }
}

/// Every layer shows what it is or says that it is damaged; those of `sound` show what they are.
fn survives(site: &Site, expected: &BTreeMap<&str, Manifest>, sound: &[&str]) -> Outcome {
    let driver = match site.driver() {
        Ok(driver) => driver,
        Err(error) => {
            demand!(
                sound.is_empty(),
                "the driver cannot be opened any more: {error}"
            );
            return Ok(());
        }
    };
    for (id, expected) in expected {
        match seen(&driver, &layer_id(id)) {
            Ok(found) => {
                let found = differences(expected, &found);
                demand!(
                    found.is_empty(),
                    "`{id}` shows a wrong tree and no error: {}",
                    found.join("; ")
                );
            }
            Err(error) => demand!(
                !sound.contains(id),
                "`{id}`, which has nothing to do with it, cannot be mounted: {error}"
            ),
        }
    }
    if driver.capabilities().list {
        let listed = driver.list()?;
        for id in sound {
            demand!(
                listed.contains(&layer_id(id)),
                "`{id}` is not listed any more"
            );
        }
    }
    demand!(
        driver.poisoned().is_none(),
        "the driver panicked: {:?}",
        driver.poisoned()
    );
    driver.close()?;
    Ok(())
}
