// SPDX-License-Identifier: Apache-2.0
//! The end of using a driver.

use std::{fs, path::Path};

use plywood::{
    ErrorKind,
    plugin::DriverHandle,
    sdk::{CreateRequest, LayerKind, MountRequest},
    store::{MountOptions, Store},
};

use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    cases::{asks, lifecycle::sample},
    target::{layer_id, new_layer},
};

/// What is mounted below the case's root.
fn mounts_below(root: &Path) -> Result<Vec<String>, Failure> {
    let root = fs::canonicalize(root)?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let places = table.lines().filter_map(|line| line.split(' ').nth(4));
    let below = places.filter(|place| Path::new(place).starts_with(&root));
    Ok(below.map(str::to_owned).collect())
}

pub(super) fn unmounts_all(site: &Site) -> Outcome {
    let before = mounts_below(&site.root)?;
    let store = site.whole_store()?;
    store.put_layer(new_layer("base", None), &sample()[..])?;
    let mut shown = Vec::new();
    for number in 0..5 {
        let id = format!("layer-{number}");
        let mut new = new_layer(&id, Some("base"));
        new.kind = LayerKind::ReadWrite;
        store.create_layer(new)?;
        let path = store.mount(&id, &MountOptions::default())?;
        fs::write(path.join("file"), &id)?;
        shown.push((id, path));
    }
    asks::refused(
        "shutting a store down while layers are mounted, without force,",
        store.shutdown(false),
        &[ErrorKind::LayerUsedByContainer],
    )?;
    for (id, path) in &shown {
        let text = fs::read_to_string(path.join("file"))?;
        same!(
            *id,
            text,
            "a file of a mounted layer, after the shutdown was refused"
        );
    }
    let unmounted = store.shutdown(true)?;
    same!(5, unmounted.len(), "how many layers were unmounted");
    same!(
        before,
        mounts_below(&site.root)?,
        "mounts in the store after its shutdown"
    );
    still_whole(&store)?;
    store.shutdown(true)?;
    same!(
        before,
        mounts_below(&site.root)?,
        "mounts in the store in the end"
    );
    Ok(())
}

/// A store that was shut down opens its driver again by itself.
fn still_whole(store: &Store) -> Outcome {
    for number in 0..5 {
        let id = format!("layer-{number}");
        same!(
            0,
            store.mounted(&id)?,
            "how often `{id}` is mounted after the shutdown"
        );
    }
    let path = store.mount("layer-3", &MountOptions::default())?;
    let text = fs::read_to_string(path.join("file"));
    store.unmount("layer-3", false)?;
    same!(
        "layer-3",
        text?,
        "a file that was written before the shutdown"
    );
    Ok(())
}

pub(super) fn twice(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create("child", Some("base"))?;
    let before = target.manifest("child")?;
    for round in ["first", "second", "third"] {
        target.step(&format!("{round} cleanup"))?;
        target.driver.close()?;
        demand!(
            target.driver.poisoned().is_none(),
            "the driver panicked in the {round} cleanup"
        );
    }
    let again = target.reopened()?;
    asks::equal(
        "the cleanup changed a layer",
        &before,
        &again.manifest("child")?,
    )?;
    again.close()?;
    Ok(())
}

pub(super) fn used_afterwards(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    target
        .driver
        .create(&CreateRequest::new(layer_id("spare"), None))?;
    let before = target.manifest("child")?;
    target.driver.close()?;
    target.step("every operation of the closed instance works or is refused")?;
    for (operation, answer) in asked(&target.driver) {
        let kind = answer.as_ref().err().map(plywood::Error::kind);
        demand!(
            kind != Some(ErrorKind::DriverPoisoned),
            "the driver panicked in {operation} after its cleanup: {answer:?}"
        );
    }
    let spare = target.driver.exists(&layer_id("spare"));
    target.step("mounting through it works or is refused")?;
    match target.mount("child", &MountRequest::default()) {
        Ok(path) => {
            let there = path.join("plain").exists();
            target.unmount("child")?;
            demand!(there, "a layer that was mounted after the cleanup is empty");
        }
        Err(error) => demand!(
            error.kind() != ErrorKind::DriverPoisoned,
            "the driver panicked in a mount after its cleanup: {error:?}"
        ),
    }
    target.step("another process finds everything whole")?;
    target.in_peer("opener", &[])?;
    let again = target.reopened()?;
    asks::equal(
        "the cleanup changed a layer",
        &before,
        &again.manifest("child")?,
    )?;
    if let Ok(there) = spare {
        same!(
            there,
            again.driver.exists(&layer_id("spare"))?,
            "whether a layer exists that was removed"
        );
    }
    for id in ["late", "spare"] {
        again.driver.remove(&layer_id(id))?;
    }
    again.close()?;
    Ok(())
}

/// What a driver answers to everything, as far as it is declared.
fn asked(driver: &DriverHandle) -> Vec<(&'static str, plywood::Result<()>)> {
    let (base, child) = (layer_id("base"), layer_id("child"));
    let mount = MountRequest::default();
    let new = CreateRequest::new(layer_id("late"), Some(base.clone()));
    let mut answers = vec![
        ("create", driver.create(&new)),
        ("exists", driver.exists(&child).map(drop)),
        ("status", driver.status().map(drop)),
        ("metadata", driver.metadata(&child).map(drop)),
        ("usage", driver.usage(&child).map(drop)),
        ("content_roots", driver.content_roots(&child).map(drop)),
        ("diff_view", driver.diff_view(&child, Some(&base)).map(drop)),
        ("unpack_target", driver.unpack_target(&child).map(drop)),
        ("mount_plan", driver.mount_plan(&child, &mount).map(drop)),
        ("released", driver.released(&child)),
        ("recover", driver.recover().map(drop)),
        ("remove", driver.remove(&layer_id("spare")).map(drop)),
    ];
    if driver.capabilities().list {
        answers.push(("list", driver.list().map(drop)));
    }
    answers
}

/// Opens the store anew and looks at it.
pub(super) fn opener(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    let child = target.manifest("child")?;
    demand!(
        child.has("d/e/deep"),
        "after the cleanup in one process, another one finds an empty layer"
    );
    target.close()?;
    Ok(())
}
