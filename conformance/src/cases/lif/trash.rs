// SPDX-License-Identifier: Apache-2.0
//! Removal in two steps: out of the way at once, deleted later.

use std::{fs, thread, time::Duration};

use nix::{
    errno::Errno,
    mount::{MntFlags, MsFlags, mount, umount2},
};
use plywood::{
    ErrorKind,
    sdk::{CreateRequest, MountRequest, Removed},
};

use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    cases::asks::{self, Traces},
    target::layer_id,
    wire,
};

fn fill(target: &Target, id: &str) -> Result<(), Failure> {
    target
        .driver
        .create(&CreateRequest::new(layer_id(id), None))?;
    let directory = target.driver.unpack_target(&layer_id(id))?.directory;
    Ok(fs::write(directory.join("content"), vec![1; 100_000])?)
}

fn thrown(target: &Target, id: &str) -> Result<String, Failure> {
    let token = target.driver.trash(&layer_id(id))?;
    token.ok_or_else(|| Failure::new("trash says that a layer is gone which is there"))
}

pub(super) fn deferred(target: &mut Target) -> Outcome {
    let id = layer_id("one");
    fill(target, "warm")?;
    target.driver.remove(&layer_id("warm"))?;
    let empty = Traces::of(target)?;
    fill(target, "one")?;
    let token = thrown(target, "one")?;
    target.step("it is gone at once")?;
    demand!(!target.driver.exists(&id)?, "a layer in the trash exists");
    asks::refused(
        "mounting a layer in the trash",
        target.driver.mount_plan(&id, &MountRequest::default()),
        &[ErrorKind::LayerUnknown],
    )?;
    same!(
        None,
        target.driver.trash(&id)?,
        "the answer to trashing it again"
    );
    same!(
        Removed::AlreadyGone,
        target.driver.remove(&id)?,
        "the answer to removing it"
    );
    target.step("its id is free at once")?;
    fill(target, "one")?;
    let second = thrown(target, "one")?;
    demand!(
        token != second,
        "two layers in the trash have the same token"
    );
    target.step("deleted")?;
    for token in [&token, &second, &token, &second] {
        target.driver.reap(token)?;
    }
    empty.unchanged(target, "deferred removal")?;
    after_failure(target)?;
    empty.unchanged(target, "deferred removal that failed in between")
}

/// What fails to be deleted, here since something is mounted in it, can be deleted later.
fn after_failure(target: &Target) -> Outcome {
    target.step("something is mounted in the layer")?;
    fill(target, "one")?;
    let directory = target.driver.unpack_target(&layer_id("one"))?.directory;
    let (point, bystander) = (directory.join("point"), target.scratch("bystander")?);
    fs::create_dir(&point)?;
    fs::write(bystander.join("precious"), "x")?;
    match mount::<_, _, str, str>(Some(&bystander), &point, None, MsFlags::MS_BIND, None) {
        // The kernel mounts nothing below what is attached nowhere itself.
        Err(Errno::EINVAL) if directory.starts_with("/proc/self/fd") => {
            return Ok(target.driver.remove(&layer_id("one")).map(drop)?);
        }
        other => other?,
    }
    let token = target.driver.trash(&layer_id("one"));
    let failed = match &token {
        Ok(Some(token)) => target.driver.reap(token).map(|()| None),
        Ok(None) => Ok(None),
        Err(_) => Ok(Some(())),
    };
    let held = bystander.join("precious").exists();
    unmount_all_of(&bystander)?;
    demand!(held, "deleting a layer deleted what was mounted in it");
    match (token, failed) {
        // The driver may refuse it as long as something is mounted.
        (Err(error), _) => {
            asks::refused::<()>(
                "removing a layer with a mount in it",
                Err(error),
                &[ErrorKind::Busy],
            )?;
            demand!(
                target.driver.exists(&layer_id("one"))?,
                "the refused layer is gone"
            );
            let token = thrown(target, "one")?;
            target.driver.reap(&token)?;
        }
        (Ok(token), failed) => {
            let token = token.ok_or_else(|| Failure::new("trash found no layer"))?;
            if let Err(error) = failed {
                asks::refused::<()>(
                    "deleting a layer with a mount in it",
                    Err(error),
                    &[ErrorKind::Busy],
                )?;
            }
            target.driver.reap(&token)?;
            target.driver.recover()?;
        }
    }
    Ok(())
}

/// Unmounts what shows `source`, wherever its place was moved to.
fn unmount_all_of(source: &std::path::Path) -> Result<(), Failure> {
    let source = fs::canonicalize(source)?;
    let name = source
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let mut places: Vec<&str> = Vec::new();
    for line in table.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if words.get(3).is_some_and(|root| root.ends_with(&name)) {
            places.extend(words.get(4));
        }
    }
    for place in places.iter().rev() {
        umount2(*place, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

pub(super) fn abandoned(target: &mut Target) -> Outcome {
    target.create("keep", None)?;
    fill(target, "warm")?;
    target.driver.remove(&layer_id("warm"))?;
    let before = Traces::of(target)?;
    target.step("a process throws a layer away and is killed")?;
    let mut leaver = target.peer("leaver", &[])?;
    leaver.wait_for_step("thrown away")?;
    demand!(
        !target.driver.exists(&layer_id("one"))?,
        "a layer in another process's trash exists"
    );
    let early = target.driver.recover()?;
    demand!(
        early.is_empty(),
        "the trash of a living process was reclaimed: {early:?}"
    );
    leaver.kill()?;
    let again = target.reopened()?;
    let reclaimed = again.driver.recover()?;
    // A driver may also have done it when it was opened.
    target.measure(
        "reclaimed_places",
        f64::from(u32::try_from(reclaimed.len())?),
    )?;
    let twice = again.driver.recover()?;
    demand!(twice.is_empty(), "something is reclaimed twice: {twice:?}");
    before.unchanged(target, "a process that died before it emptied its trash")?;
    demand!(
        target.driver.exists(&layer_id("keep"))?,
        "reclaiming removed a layer"
    );
    target
        .driver
        .create(&CreateRequest::new(layer_id("one"), None))?;
    target.step("an instance that ends reclaims nothing of others")?;
    let token = thrown(target, "one")?;
    let early = again.driver.recover()?;
    demand!(
        early.is_empty(),
        "the trash of another instance was reclaimed: {early:?}"
    );
    target.driver.reap(&token)?;
    before.unchanged(target, "reaping in the end")
}

/// Throws a layer away and is killed before it can delete it.
pub(super) fn leaver(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    fill(&target, "one")?;
    thrown(&target, "one")?;
    wire::step("thrown away")?;
    loop {
        thread::sleep(Duration::from_mins(1));
    }
}
