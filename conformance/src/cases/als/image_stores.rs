// SPDX-License-Identifier: Apache-2.0
//! Whole stores that are read and never written.

use std::{fs, path::Path};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use plywood::{Error, ErrorKind, sdk::MountRequest};

use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    excuses, manifest,
    ops::Op,
    tar_file::TarFile,
    target::layer_id,
};

/// A store with two layers that was closed.
fn exported(target: &Target) -> Result<Site, Failure> {
    let site = target.at(target.scratch("exported")?);
    let store = site.open()?;
    let tar = TarFile::new()
        .directory("d/")
        .file("d/low", b"low")
        .file("low", b"low")
        .done();
    store.put("low", None, &tar)?;
    store.put(
        "high",
        Some("low"),
        &TarFile::new().file("high", b"high").done(),
    )?;
    Ok(store.close()?.0)
}

/// A store of its own that has the layers of `exported` too.
fn user(target: &Target, exported: &Site) -> Result<Target, Failure> {
    let mut site = target.at(target.scratch("user")?);
    let graph = exported.root.join("graph");
    let option = format!("{}.imagestore={}", site.source.name()?, graph.display());
    site.options.push(option);
    Ok(site.open()?)
}

/// A directory that is shown read-only where it is, for as long as this value lives.
struct ReadOnly<'a>(&'a Path);

impl<'a> ReadOnly<'a> {
    fn new(path: &'a Path) -> Result<Self, Failure> {
        let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount::<_, _, str, str>(Some(path), path, None, flags, None)?;
        let this = Self(path);
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount::<str, _, str, str>(None, path, None, flags, None)?;
        Ok(this)
    }
}

impl Drop for ReadOnly<'_> {
    fn drop(&mut self) {
        // What stays mounted is found after the case.
        let _unmounted = umount2(self.0, MntFlags::UMOUNT_NOFOLLOW);
    }
}

pub(super) fn never_written(target: &mut Target) -> Outcome {
    let exported = exported(target)?;
    let before = manifest::of(&exported.root)?;
    target.step("use its layers")?;
    use_layers(target, &exported, "first")?;
    let differences = before.differences(&manifest::of(&exported.root)?);
    demand!(
        differences.is_empty(),
        "using the layers of another store has changed that store: {}",
        differences.join("; ")
    );
    target.step("use its layers where nothing can be written")?;
    let graph = exported.root.join("graph");
    let read_only = ReadOnly::new(&graph)?;
    let used = use_layers(target, &exported, "second");
    drop(read_only);
    used
}

fn use_layers(target: &Target, exported: &Site, child: &str) -> Outcome {
    let store = user(target, exported)?;
    let seen = store.layers()?;
    let high = seen.iter().find(|layer| layer.id == "high");
    demand!(
        high.is_some_and(|layer| layer.read_only),
        "the other store's layer is not listed as read-only: {seen:?}"
    );
    demand!(
        store.driver.exists(&layer_id("high"))?,
        "the driver does not find the layer"
    );
    let mut request = MountRequest::default();
    request.read_only = store.driver.capabilities().read_only_mounts;
    store.within_as("high", &request, |root| -> Outcome {
        same!(
            b"low".to_vec(),
            fs::read(root.join("d/low"))?,
            "a file of the other store"
        );
        Ok(())
    })?;
    store.create_writable(child, Some("high"))?;
    let ops = [
        Op::Append("high".into(), b" and more".to_vec()),
        Op::Unlink("low".into()),
        Op::Write("d/new".into(), b"new".to_vec()),
    ];
    store.within(child, |root| -> Outcome {
        Ok(crate::ops::apply(root, &ops)?)
    })?;
    same!(
        4,
        store.changes(child)?.len(),
        "the number of changes of a child: three and `d`"
    );
    let tar = store.diff(child)?;
    let sibling = format!("{child}-again");
    store.put(&sibling, Some("high"), &tar)?;
    let expected = store.manifest(child)?.exported();
    let differences = expected.differences(&store.manifest(&sibling)?.exported());
    demand!(
        differences.is_empty(),
        "a diff on a layer of another store gives another tree: {}",
        differences.join("; ")
    );
    demand!(
        store.diff("high")?.len() >= 1024,
        "the other store's layer has no diff"
    );
    store.delete(child)?;
    store.delete(&sibling)?;
    store.close()?;
    Ok(())
}

pub(super) fn nothing_removed(target: &mut Target) -> Outcome {
    let exported = exported(target)?;
    let before = manifest::of(&exported.root)?;
    let store = user(target, &exported)?;
    for id in ["high", "low"] {
        let answer = store.delete(id);
        let kind = answer.as_ref().err().map(Error::kind);
        demand!(
            kind == Some(ErrorKind::StoreIsReadOnly),
            "removing a layer of another store gave {answer:?}"
        );
        // The driver alone may refuse it or say that there is none of its own.
        let answer = store.driver.unguarded().remove(&layer_id(id));
        demand!(
            store.driver.exists(&layer_id(id))?,
            "the driver removed a layer of another store: {answer:?}"
        );
        let tar = TarFile::new().file("forced", b"in").done();
        let answer = store.apply(id, &tar[..]);
        let kind = answer.as_ref().err().map(Error::kind);
        demand!(
            kind == Some(ErrorKind::StoreIsReadOnly),
            "filling a layer of another store gave {answer:?}"
        );
    }
    store.close()?;
    let differences = before.differences(&manifest::of(&exported.root)?);
    demand!(
        differences.is_empty(),
        "refused operations have changed the other store: {}",
        differences.join("; ")
    );
    Ok(())
}

pub(super) fn own_layers_alone(target: &mut Target) -> Outcome {
    if !target.driver.capabilities().image_stores {
        return Err(Failure::not_applicable(
            excuses::NO_IMAGE_STORES,
            "`image_stores` is not declared",
        ));
    }
    let exported = exported(target)?;
    let store = user(target, &exported)?;
    store.create("own", Some("high"))?;
    let listed: Vec<String> = store
        .driver
        .list()?
        .iter()
        .map(ToString::to_string)
        .collect();
    same!(["own"], *listed, "the driver's list");
    let mut recorded: Vec<(String, bool)> = store
        .layers()?
        .into_iter()
        .map(|layer| (layer.id, layer.read_only))
        .collect();
    recorded.sort();
    let expected = [("high", true), ("low", true), ("own", false)];
    same!(
        expected.map(|(id, read_only)| (id.to_owned(), read_only)),
        *recorded,
        "the store's list"
    );
    store.close()?;
    Ok(())
}
