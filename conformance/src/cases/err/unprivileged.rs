// SPDX-License-Identifier: Apache-2.0
//! Processes that may not do what they are asked.

use plywood::{
    ErrorKind,
    sdk::{CreateRequest, DriverErrorCode, MountPlan, MountRequest},
};
use rustix::thread::{CapabilitySet, capabilities, set_capabilities};

use super::UNKNOWN;
use crate::{
    Site, Target,
    case::{Failure, Outcome, demand},
    cases::{
        asks::{self, Traces},
        lifecycle::sample,
    },
    target::layer_id,
    wire,
};

const NOT_PERMITTED: [ErrorKind; 1] = [ErrorKind::Permission];

pub(super) fn refused(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    let mut read_only = MountRequest::default();
    read_only.read_only = target.driver.capabilities().read_only_mounts;
    target.within_as("child", &read_only, |_| Ok::<_, Failure>(()))?;
    let before = target.manifest("child")?;
    let traces = Traces::of(target)?;
    for role in ["no-mounts", "nobody", "stranger"] {
        target.step(role)?;
        target.in_peer(role, &[])?;
        traces.unchanged(target, &format!("the process `{role}`"))?;
        asks::equal("a layer changed", &before, &target.manifest("child")?)?;
    }
    target.step("who may do it can still do it")?;
    target.create("new", Some("base"))?;
    for id in ["new", "child", "base"] {
        target.delete(id)?;
    }
    Ok(())
}

/// Root without the right to mount, which it loses after it opened the store.
pub(super) fn no_mounts(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    let mut held = capabilities(None)?;
    let kept = |set: CapabilitySet| set - CapabilitySet::SYS_ADMIN;
    held.effective = kept(held.effective);
    held.permitted = kept(held.permitted);
    held.inheritable = kept(held.inheritable);
    set_capabilities(None, held)?;
    let mut requests = vec![MountRequest::default()];
    if target.driver.capabilities().read_only_mounts {
        let mut read_only = MountRequest::default();
        read_only.read_only = true;
        requests.push(read_only);
    }
    for request in requests {
        wire::step(&format!("mount, read_only: {}", request.read_only))?;
        let plan = target.driver.mount_plan(&layer_id("child"), &request)?;
        target.driver.released(&layer_id("child"))?;
        let mounted = target.mount("child", &request);
        if matches!(plan, MountPlan::Directory(_)) {
            mounted?;
            target.unmount("child")?;
        } else {
            if mounted.is_ok() {
                target.unmount("child")?;
            }
            asks::refused(
                "mounting without the right to mount",
                mounted,
                &NOT_PERMITTED,
            )?;
        }
    }
    wire::step("what needs no mount works")?;
    demand!(
        target.driver.exists(&layer_id("child"))?,
        "a layer is not found"
    );
    target.driver.metadata(&layer_id("child"))?;
    target.driver.usage(&layer_id("base"))?;
    asks::allowed("the changes", target.changes("child"), &NOT_PERMITTED)?;
    Ok(())
}

fn become_nobody() -> Outcome {
    use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
    let (user, group) = (Uid::from_raw(65_534), Gid::from_raw(65_534));
    setgroups(&[])?;
    setresgid(group, group, group)?;
    Ok(setresuid(user, user, user)?)
}

/// An ordinary user, which it becomes after it opened the store.
pub(super) fn nobody(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    target.layers()?;
    become_nobody()?;
    let (base, child) = (layer_id("base"), layer_id("child"));
    let request = CreateRequest::new(layer_id("new"), Some(base.clone()));
    wire::step("the driver")?;
    let driver = &target.driver;
    let answer = driver.unguarded().create(&request);
    demand!(
        answer
            .as_ref()
            .err()
            .and_then(|error| error.errno)
            .is_some_and(|number| number == libc::EACCES || number == libc::EPERM),
        "the system's error number is missing: {answer:?}"
    );
    asks::driver_refused("a layer", answer, &[DriverErrorCode::PERMISSION])?;
    let answers = [
        ("create", driver.create(&request)),
        ("remove", driver.remove(&child).map(drop)),
        ("exists", driver.exists(&child).map(drop)),
        ("metadata", driver.metadata(&child).map(drop)),
        ("usage", driver.usage(&child).map(drop)),
        (
            "mount_plan",
            driver
                .mount_plan(&child, &MountRequest::default())
                .map(drop),
        ),
        ("unpack_target", driver.unpack_target(&child).map(drop)),
        ("content_roots", driver.content_roots(&child).map(drop)),
    ];
    for (operation, answer) in answers {
        asks::refused(
            &format!("{operation} by an ordinary user"),
            answer,
            &NOT_PERMITTED,
        )?;
    }
    let can = driver.capabilities().clone();
    if can.list {
        asks::refused("list by an ordinary user", driver.list(), &NOT_PERMITTED)?;
    }
    if can.staging {
        asks::refused(
            "stage by an ordinary user",
            driver.stage(&request),
            &NOT_PERMITTED,
        )?;
    }
    if can.deferred_removal {
        asks::refused(
            "trash by an ordinary user",
            driver.trash(&child),
            &NOT_PERMITTED,
        )?;
    }
    core_refuses(&target)
}

fn core_refuses(target: &Target) -> Outcome {
    wire::step("core")?;
    let answers = [
        (
            "creating a layer",
            target.create("new", Some("base")).map(drop),
        ),
        (
            "putting a layer",
            target.put("new", Some("base"), &sample()).map(drop),
        ),
        ("deleting a layer", target.delete("child")),
        (
            "applying to a layer",
            target.apply("child", &sample()[..]).map(drop),
        ),
        (
            "mounting a layer",
            target.mount("child", &MountRequest::default()).map(drop),
        ),
        ("a diff", target.diff("base").map(drop)),
    ];
    for (operation, answer) in answers {
        asks::refused(
            &format!("{operation} by an ordinary user"),
            answer,
            &NOT_PERMITTED,
        )?;
    }
    // It is known from before that there is none.
    asks::refused(
        "mounting an unknown layer",
        target.mount("unknown", &MountRequest::default()),
        &[UNKNOWN[0], NOT_PERMITTED[0]],
    )
}

/// An ordinary user who opens the store of another.
pub(super) fn stranger(site: &Site, _: &[String]) -> Outcome {
    become_nobody()?;
    let kinds = [ErrorKind::Permission, ErrorKind::DriverUnavailable];
    asks::refused("opening another user's driver", site.driver(), &kinds)?;
    asks::refused(
        "opening another user's store",
        site.open().map(|target: Target| drop(target)),
        &kinds,
    )
}
