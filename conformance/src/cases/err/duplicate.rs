// SPDX-License-Identifier: Apache-2.0
//! What is there already, what is in use, and what is done twice.

use std::fs;

use plywood::{
    ErrorKind,
    layers::UnmountOptions,
    sdk::{CreateRequest, DriverErrorCode, LayerKind, MountRequest, Removed},
};

use super::UNKNOWN;
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    cases::{
        asks::{self, Traces},
        lifecycle::sample,
    },
    target::{layer_id, new_layer},
};

const DUPLICATE: [ErrorKind; 1] = [ErrorKind::DuplicateId];
const EXISTS: [DriverErrorCode; 1] = [DriverErrorCode::ALREADY_EXISTS];

pub(super) fn same(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    target.create_writable("empty", None)?;
    for id in ["one", "empty"] {
        target.step(&format!("create `{id}` again"))?;
        let before = target.manifest(id)?;
        let traces = Traces::of(target)?;
        asks::refused(
            "creating a layer that exists",
            target.create(id, None),
            &DUPLICATE,
        )?;
        let put = target.put(id, None, &sample());
        asks::refused("putting a layer that exists", put, &DUPLICATE)?;
        let request = CreateRequest::new(layer_id(id), None);
        let created = target.driver.unguarded().create(&request);
        asks::driver_refused("a layer that exists", created, &EXISTS)?;
        let again = target.reopened()?;
        let created = again.driver.unguarded().create(&request);
        asks::driver_refused("a layer that another instance made", created, &EXISTS)?;
        traces.unchanged(target, "refused layers")?;
        asks::equal("the existing layer changed", &before, &target.manifest(id)?)?;
    }
    Ok(())
}

pub(super) fn other_arguments(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.put("other", None, &sample())?;
    target.put("one", Some("base"), &sample())?;
    target.create_writable("child", Some("one"))?;
    let (before, child) = (target.manifest("one")?, target.manifest("child")?);
    let traces = Traces::of(target)?;
    let driver = target.driver.unguarded();
    for parent in [None, Some("base"), Some("other"), Some("child")] {
        for kind in [LayerKind::ReadOnly, LayerKind::ReadWrite] {
            target.step(&format!("on {parent:?}, {kind:?}"))?;
            let mut new = new_layer("one", parent);
            new.kind = kind;
            asks::refused(
                "creating a layer that exists",
                target.create_with(&new),
                &DUPLICATE,
            )?;
            let mut request = CreateRequest::new(layer_id("one"), parent.map(layer_id));
            request.kind = kind;
            asks::driver_refused("a layer that exists", driver.create(&request), &EXISTS)?;
            if target.driver.capabilities().staging {
                adopted_over(target, &request)?;
            }
        }
    }
    if target.driver.capabilities().template {
        let mut request = CreateRequest::new(layer_id("one"), None);
        request.template = Some(layer_id("other"));
        asks::driver_refused(
            "a copy with an id that exists",
            driver.create(&request),
            &EXISTS,
        )?;
    }
    traces.unchanged(target, "refused layers")?;
    asks::equal(
        "the existing layer changed",
        &before,
        &target.manifest("one")?,
    )?;
    asks::equal("its child changed", &child, &target.manifest("child")?)
}

/// What is staged cannot become a layer that exists; it stays staged.
fn adopted_over(target: &Target, request: &CreateRequest) -> Outcome {
    let driver = target.driver.unguarded();
    let staged = driver.stage(&CreateRequest::new(
        layer_id("staged"),
        request.parent.clone(),
    ))?;
    fs::write(staged.target.directory.join("intruder"), "x")?;
    asks::driver_refused(
        "adopting over a layer that exists",
        driver.adopt(&staged.token, request),
        &EXISTS,
    )?;
    demand!(
        staged.target.directory.join("intruder").exists(),
        "after a refused adoption the staged content is gone"
    );
    Ok(driver.discard(&staged.token)?)
}

pub(super) fn own_parent(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    let before = target.manifest("one")?;
    let traces = Traces::of(target)?;
    target.step("an id that is not there")?;
    let kinds = [
        ErrorKind::InvalidArgument,
        ErrorKind::LayerUnknown,
        ErrorKind::ParentUnknown,
    ];
    asks::refused(
        "a layer on itself",
        target.create("self", Some("self")),
        &kinds,
    )?;
    let put = target.put("self", Some("self"), &sample());
    asks::refused("putting a layer on itself", put, &kinds)?;
    let mut request = CreateRequest::new(layer_id("self"), Some(layer_id("self")));
    asks::refused(
        "a layer on itself",
        target.driver.create(&request),
        &[ErrorKind::InvalidArgument],
    )?;
    let codes = [
        DriverErrorCode::INVALID_ARGUMENT,
        DriverErrorCode::NOT_FOUND,
    ];
    let driver = target.driver.unguarded();
    asks::driver_refused("a layer on itself", driver.create(&request), &codes)?;
    target.step("a copy of itself")?;
    request.parent = None;
    request.template = Some(layer_id("self"));
    let kinds = [ErrorKind::InvalidArgument, ErrorKind::NotSupported];
    asks::refused("a copy of itself", target.driver.create(&request), &kinds)?;
    target.step("one that is there")?;
    let request = CreateRequest::new(layer_id("one"), Some(layer_id("one")));
    let codes = [
        DriverErrorCode::INVALID_ARGUMENT,
        DriverErrorCode::ALREADY_EXISTS,
    ];
    asks::driver_refused(
        "an existing layer on itself",
        driver.create(&request),
        &codes,
    )?;
    traces.unchanged(target, "refused layers")?;
    asks::equal(
        "the existing layer changed",
        &before,
        &target.manifest("one")?,
    )
}

pub(super) fn mounted(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    let mut requests = vec![MountRequest::default()];
    if target.driver.capabilities().read_only_mounts {
        let mut read_only = MountRequest::default();
        read_only.read_only = true;
        requests.push(read_only);
    }
    for request in requests {
        target.step(&format!(
            "the driver alone, read_only: {}",
            request.read_only
        ))?;
        target.create_writable("one", Some("base"))?;
        let path = target.mount("one", &request)?;
        let answer = target.driver.remove(&layer_id("one"));
        let there = path.join("plain").exists();
        let exists = target.driver.exists(&layer_id("one"));
        let shown = plywood::mount::is_mounted(&path);
        target.unmount("one")?;
        if answer.is_ok() {
            demand!(
                !exists?,
                "the layer was removed while it was mounted, and still exists"
            );
            demand!(
                !shown?,
                "the layer was removed, and its mount is still there"
            );
        } else {
            asks::refused("removing a mounted layer", answer, &[ErrorKind::Busy])?;
            demand!(
                there && exists?,
                "the refused removal took something of the layer away"
            );
            demand!(
                target.manifest("one")?.has("d/e/deep"),
                "the refused removal damaged the layer"
            );
        }
        target.delete("one")?;
        target.step("core, which unmounts it first")?;
        target.create_writable("one", Some("base"))?;
        let path = target.mount("one", &request)?;
        target.mount("one", &request)?;
        target.delete("one")?;
        demand!(
            !plywood::mount::is_mounted(&path)?,
            "the deleted layer is still mounted"
        );
        demand!(
            !target.driver.exists(&layer_id("one"))?,
            "the deleted layer exists"
        );
        demand!(
            !path.join("plain").exists(),
            "the deleted layer's files are still shown"
        );
    }
    demand!(
        target.manifest("base")?.has("plain"),
        "the parent lost content"
    );
    Ok(())
}

pub(super) fn removed_twice(target: &mut Target) -> Outcome {
    for parent in [None, Some("base")] {
        if parent.is_some() {
            target.put("base", None, &sample())?;
        }
        let id = layer_id("one");
        target
            .driver
            .create(&CreateRequest::new(id.clone(), parent.map(layer_id)))?;
        same!(
            Removed::Now,
            target.driver.remove(&id)?,
            "the answer to the first removal"
        );
        for _ in 0..2 {
            same!(
                Removed::AlreadyGone,
                target.driver.remove(&id)?,
                "the answer to a further removal"
            );
        }
        let other = target.reopened()?.driver.remove(&id)?;
        same!(
            Removed::AlreadyGone,
            other,
            "another instance's answer to removing it again"
        );
    }
    target.create("recorded", None)?;
    target.delete("recorded")?;
    asks::refused(
        "deleting a record twice",
        target.delete("recorded"),
        &UNKNOWN,
    )
}

pub(super) fn unmounted_twice(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("one", Some("base"))?;
    let before = target.manifest("one")?;
    let only = UnmountOptions {
        only_if_mounted: true,
        ..UnmountOptions::default()
    };
    let not_mounted = |when: &str| -> Outcome {
        let answer = target.unmount_with("one", only);
        asks::refused(
            &format!("unmounting {when}, only if mounted,"),
            answer,
            &[ErrorKind::LayerNotMounted],
        )
    };
    target.step("never mounted")?;
    not_mounted("a layer that was never mounted")?;
    target.unmount("one")?;
    target.driver.released(&layer_id("one"))?;
    target.step("mounted twice, unmounted four times")?;
    let path = target.mount("one", &MountRequest::default())?;
    let again = target.mount("one", &MountRequest::default())?;
    same!(path, again, "where the layer is seen");
    target.unmount("one")?;
    let there = path.join("plain").exists();
    target.unmount("one")?;
    demand!(there, "the first of two unmounts took the layer away");
    for _ in 0..2 {
        target.unmount("one")?;
        not_mounted("once more")?;
        target.driver.released(&layer_id("one"))?;
    }
    demand!(
        !plywood::mount::is_mounted(&path)?,
        "the layer is still mounted"
    );
    target.step("an open instance and a new one")?;
    target.mount("one", &MountRequest::default())?;
    target.reopened()?.unmount("one")?;
    not_mounted("what another instance unmounted")?;
    asks::equal("the layer changed", &before, &target.manifest("one")?)?;
    target.delete("one")?;
    asks::refused(
        "unmounting a deleted layer",
        target.unmount("one"),
        &UNKNOWN,
    )?;
    Ok::<_, Failure>(())
}
