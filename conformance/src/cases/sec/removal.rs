// SPDX-License-Identifier: Apache-2.0
//! What is planted among the driver's own files is neither followed nor emptied.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use plywood::{
    plugin::DriverHandle,
    sdk::{MountPlan, MountRequest, MountStep, toolkit::mountinfo},
};

use super::Victim;
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, case, demand},
    cases::lifecycle::sample,
    excuses,
    target::layer_id,
};

pub(in crate::cases) const CASES: &[Case] = &[
    case("GD-SEC-011", foreign_mount).roles(&[("delete", delete)]),
    case("GD-SEC-012", layer_is_a_link),
    case("GD-SEC-013", planted_places),
];

fn bind(source: &Path, place: &Path) -> Outcome {
    mount::<Path, Path, str, str>(Some(source), place, None, MsFlags::MS_BIND, None)?;
    Ok(())
}

/// The same; false where the place is in a mount that belongs to no namespace.
fn can_bind(source: &Path, place: &Path) -> Result<bool, Failure> {
    match mount::<Path, Path, str, str>(Some(source), place, None, MsFlags::MS_BIND, None) {
        Ok(()) => Ok(true),
        Err(nix::Error::EINVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Where the victim is mounted now.
fn shown(victim: &Victim, below: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mounts = mountinfo::mounts()?.into_iter();
    let root = victim.place.file_name();
    Ok(mounts
        .filter(|mount| mount.root.file_name() == root && mount.target.starts_with(below))
        .map(|mount| mount.target)
        .collect())
}

/// Takes away what the case itself mounted, wherever it went.
fn take_away(victim: &Victim, below: &Path) -> Outcome {
    for place in shown(victim, below)? {
        umount2(&place, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

fn foreign_mount(target: &mut Target) -> Outcome {
    let victim = Victim::new(target)?;
    let root = target.root.clone();
    for through_mount in [true, false] {
        target.step(if through_mount {
            "somebody mounts in the mounted layer, and it is removed"
        } else {
            "somebody mounts where the layer's files are kept, and it is removed"
        })?;
        target.put("base", None, &sample())?;
        target.create_writable("layer", Some("base"))?;
        let id = layer_id("layer");
        if through_mount {
            let path = target.mount("layer", &MountRequest::default())?;
            bind(&victim.place, &path.join("d"))?;
            // It may refuse, or let go of both.
            let _unmounted = target.unmount("layer");
        } else {
            let place = target.driver.unpack_target(&id)?.directory.join("planted");
            fs::create_dir(&place)?;
            if !can_bind(&victim.place, &place)? {
                // The driver shows it where nobody can mount anything.
                target.delete("layer")?;
                target.delete("base")?;
                continue;
            }
        }
        // What could not be moved away is noted, and found when the process is gone that tried.
        target.in_peer("delete", &[])?;
        victim.intact("a layer with a foreign mount in it was removed")?;
        take_away(&victim, &root)?;
        target.in_peer("delete", &["for good"])?;
        demand!(
            !target.driver.exists(&id)?,
            "the layer stays for ever after something was mounted in it"
        );
        victim.intact("it was removed for good")?;
        target.delete("base")?;
    }
    Ok(())
}

/// Removes the layer, which may be refused, and tidies up what others left.
fn delete(site: &Site, arguments: &[String]) -> Outcome {
    let target = site.open()?;
    if target.layers()?.iter().any(|layer| layer.id == "layer") {
        let _refused = target.delete("layer");
    }
    target.create("tidy", None)?;
    target.delete("tidy")?;
    let recovered = target.driver.recover();
    if !arguments.is_empty() {
        recovered?;
    }
    Ok(())
}

/// Directories in the home that are called like the layer.
fn own_directories(driver: &DriverHandle, home: &Path, id: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut found = vec![driver.unpack_target(&layer_id(id))?.directory];
    let mut waiting = vec![(home.to_owned(), 0)];
    while let Some((directory, depth)) = waiting.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            if entry.file_name() == *id {
                found.push(entry.path());
            } else if depth < 2 {
                waiting.push((entry.path(), depth + 1));
            }
        }
    }
    // What a driver shows without a place has no name that could be given to something else.
    found.retain(|place| place.starts_with(home));
    found.sort();
    found.dedup();
    Ok(found)
}

fn layer_is_a_link(target: &mut Target) -> Outcome {
    let victim = Victim::new(target)?;
    target.create("probe-layer", None)?;
    let places = own_directories(&target.driver, &target.home(), "probe-layer")?;
    target.delete("probe-layer")?;
    if places.is_empty() {
        return Err(Failure::not_applicable(
            excuses::NO_DIRECTORY,
            "nothing in the home is called like a layer",
        ));
    }
    for (number, _) in places.iter().enumerate() {
        target.create("probe-layer", None)?;
        // Names inside may be drawn anew each time.
        let places = own_directories(&target.driver, &target.home(), "probe-layer")?;
        let Some(place) = places.get(number) else {
            continue;
        };
        let what = format!("the layer's directory `{}` is a link", place.display());
        target.step(&what)?;
        // Beside it, since the home may be a mount of its own; no id begins like that.
        let aside = place.with_file_name(".aside");
        fs::rename(place, &aside)?;
        symlink(&victim.place, place)?;
        let id = layer_id("probe-layer");
        // Each may be refused; none may follow.
        let _answer = target.driver.exists(&id);
        let _answer = target.driver.usage(&id);
        let _answer = target.driver.remove(&id);
        victim.intact(&format!("{what}, and the layer was removed"))?;
        if place.is_symlink() {
            fs::remove_file(place)?;
            fs::rename(&aside, place)?;
        }
        target.delete("probe-layer")?;
        victim.intact(&format!("{what}, and was removed for good"))?;
    }
    Ok(())
}

/// Places that a plan writes to or mounts at.
fn places_of(plan: &MountPlan) -> Vec<PathBuf> {
    let mut found = match plan {
        MountPlan::Directory(path) | MountPlan::ByDriver { target: path } => vec![path.clone()],
        MountPlan::Mounts(steps) => vec![steps.target.clone()],
        _ => Vec::new(),
    };
    if let MountPlan::Mounts(steps) = plan {
        for step in &steps.steps {
            match step {
                MountStep::Overlay(overlay) => {
                    found.extend(
                        [&overlay.upper, &overlay.work]
                            .into_iter()
                            .flatten()
                            .cloned(),
                    );
                }
                MountStep::Bind { source, target, .. } => {
                    found.extend([source.clone(), target.clone()]);
                }
                MountStep::Filesystem { target, .. } => found.push(target.clone()),
                _ => {}
            }
        }
    }
    found.sort();
    found.dedup();
    found
}

fn planted_places(target: &mut Target) -> Outcome {
    let victim = Victim::new(target)?;
    target.put("base", None, &sample())?;
    target.create_writable("layer", Some("base"))?;
    let plan = |target: &Target| {
        let driver = &target.driver;
        driver.mount_plan(&layer_id("layer"), &MountRequest::default())
    };
    let places = places_of(&plan(target)?);
    let mut planted = 0;
    for place in places
        .iter()
        .filter(|place| place.starts_with(&target.root))
    {
        let what = format!("`{}` is a link to a directory of the host", place.display());
        target.step(&what)?;
        let aside = place.with_file_name(".aside");
        if fs::rename(place, &aside).is_err() {
            // Nothing is there before it is mounted.
            continue;
        }
        symlink(&victim.place, place)?;
        planted += 1;
        let mounted = target.mount("layer", &MountRequest::default());
        let over = shown_over(&victim)?;
        victim.intact(&what)?;
        demand!(!over, "{what}, and the layer was mounted over it");
        if let Ok(path) = mounted {
            let real = fs::canonicalize(&path)?;
            demand!(
                !real.starts_with(&victim.place),
                "{what}, and the layer is shown as `{}`",
                path.display()
            );
            target.unmount("layer")?;
        }
        victim.intact(&what)?;
        match fs::symlink_metadata(place) {
            Ok(meta) if meta.is_symlink() => {
                fs::remove_file(place)?;
                fs::rename(&aside, place)?;
            }
            // The driver put something of its own there.
            _ => fs::remove_dir_all(&aside)?,
        }
    }
    demand!(planted > 0, "none of {places:?} could be replaced");
    let manifest = target.manifest("layer")?;
    demand!(
        manifest.has("plain"),
        "the layer is not whole any more: {manifest}"
    );
    Ok(())
}

/// Whether something is mounted at or below the victim.
fn shown_over(victim: &Victim) -> Result<bool, Failure> {
    let mounts = mountinfo::mounts()?;
    Ok(mounts
        .iter()
        .any(|mount| mount.target.starts_with(&victim.place)))
}
