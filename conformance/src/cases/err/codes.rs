// SPDX-License-Identifier: Apache-2.0
//! Errors themselves, and that declarations and refusals fit each other.

use std::collections::BTreeMap;

use plywood::{
    ErrorKind,
    sdk::{
        self, CreateRequest, Driver, DriverError, DriverErrorCode, LayerKind, MountPlan,
        MountRequest,
    },
};

use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    cases::{
        asks::{self, Traces},
        lifecycle::sample,
    },
    gates::GATES,
    target::layer_id,
};

/// What operations that must fail answer.
fn failures(driver: &dyn Driver) -> Result<BTreeMap<&'static str, DriverError>, Failure> {
    let (unknown, one) = (layer_id("unknown"), layer_id("one"));
    let mut optional = CreateRequest::new(layer_id("new"), None);
    optional.storage_options = BTreeMap::from([("no-such-option".to_owned(), "1".to_owned())]);
    let mut endless = CreateRequest::new(layer_id("new"), None);
    endless.storage_options = BTreeMap::from([("x".repeat(60_000), "y".repeat(60_000))]);
    let orphan = CreateRequest::new(layer_id("new"), Some(unknown.clone()));
    let mut mount = MountRequest::default();
    mount.options = vec![format!("no-such-option={}", "z".repeat(60_000))];
    let plan = MountRequest::default();
    let answers: Vec<(&str, Option<DriverError>)> = vec![
        ("create on an unknown parent", driver.create(&orphan).err()),
        (
            "create what exists",
            driver.create(&CreateRequest::new(one.clone(), None)).err(),
        ),
        (
            "create with an unknown option",
            driver.create(&optional).err(),
        ),
        (
            "create with an endless option",
            driver.create(&endless).err(),
        ),
        (
            "mount_plan of an unknown layer",
            driver.mount_plan(&unknown, &plan).err(),
        ),
        (
            "mount_plan with an endless option",
            driver.mount_plan(&one, &mount).err(),
        ),
        (
            "unpack_target of an unknown layer",
            driver.unpack_target(&unknown).err(),
        ),
        (
            "diff_view of an unknown layer",
            driver.diff_view(&unknown, None).err(),
        ),
        (
            "content_roots of an unknown layer",
            driver.content_roots(&unknown).err(),
        ),
        (
            "metadata of an unknown layer",
            driver.metadata(&unknown).err(),
        ),
        ("usage of an unknown layer", driver.usage(&unknown).err()),
        ("sync of an unknown layer", driver.sync(&unknown).err()),
        (
            "sync_staged of an unknown token",
            driver.sync_staged("no-such-token").err(),
        ),
        (
            "adopt of an unknown token",
            driver
                .adopt("no-such-token", &CreateRequest::new(layer_id("new"), None))
                .err(),
        ),
        (
            "native_changes of an unknown layer",
            driver.native_changes(&unknown, None).err(),
        ),
    ];
    let mut found = BTreeMap::new();
    for (what, error) in answers {
        let error =
            error.ok_or_else(|| Failure::new(format!("{what} must fail, and succeeded")))?;
        found.insert(what, error);
    }
    Ok(found)
}

pub(super) fn stable(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    let found = failures(target.driver.unguarded())?;
    for (what, error) in &found {
        demand!(
            error.code != DriverErrorCode::OTHER && error.code.word() != "unknown",
            "{what}: the code {:?} says nothing; {error}",
            error.code
        );
        let length = error.message.len();
        demand!(
            (1..=4096).contains(&length),
            "{what}: the message has {length} bytes"
        );
        demand!(
            !error.message.chars().any(char::is_control),
            "{what}: the message has control characters: {:?}",
            error.message
        );
        for (name, text) in [("object", &error.object), ("remedy", &error.remedy)] {
            let length = text.as_ref().map_or(0, String::len);
            demand!(length <= 4096, "{what}: the {name} has {length} bytes");
        }
        let named = |text: &str| {
            error.message.contains(text)
                || error
                    .object
                    .as_deref()
                    .is_some_and(|object| object.contains(text))
        };
        if what.ends_with("unknown layer") && error.code == DriverErrorCode::NOT_FOUND {
            demand!(
                named("unknown"),
                "{what}: neither message nor object names the layer: {error:?}"
            );
        }
        demand!(
            error
                .errno
                .is_none_or(|number| (1..=4095).contains(&number)),
            "{what}: {:?} is no system error number",
            error.errno
        );
    }
    target.step("the same codes when asked again, and from another instance")?;
    let codes =
        |found: &BTreeMap<&'static str, DriverError>| -> BTreeMap<&'static str, DriverErrorCode> {
            found
                .iter()
                .map(|(what, error)| (*what, error.code))
                .collect()
        };
    let expected = codes(&found);
    same!(
        expected,
        codes(&failures(target.driver.unguarded())?),
        "codes, asked again"
    );
    let again = target.reopened()?;
    same!(
        expected,
        codes(&failures(again.driver.unguarded())?),
        "codes from another instance"
    );
    target.step("as core hands them on")?;
    let error = target.driver.metadata(&layer_id("unknown")).err();
    let error = error.ok_or_else(|| Failure::new("an unknown layer has facts"))?;
    same!(
        ErrorKind::LayerUnknown,
        error.kind(),
        "the kind of an unknown layer's error"
    );
    demand!(
        error.to_string().contains(target.driver.name()),
        "core's error does not name the driver: {error}"
    );
    Ok(())
}

pub(super) fn undeclared(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    let (id, request) = (layer_id("one"), CreateRequest::new(layer_id("two"), None));
    // The layer that the questions about capabilities are asked of.
    target
        .driver
        .create(&CreateRequest::new(layer_id("gate"), None))?;
    let before = target.manifest("one")?;
    let traces = Traces::of(target)?;
    let can = target.driver.capabilities().clone();
    for gate in GATES.iter().filter(|gate| !(gate.declared)(&can)) {
        target.step(&format!("the driver is asked for {}", gate.name))?;
        if let Some(refused) = gate.refused {
            refused(target)?;
            traces.unchanged(target, &format!("the refused {}", gate.name))?;
        }
    }
    target.step("core refuses what is not declared")?;
    let (driver, token) = (&target.driver, "no-such-token");
    let mut copy = request.clone();
    copy.template = Some(id.clone());
    let mount = |change: fn(&mut MountRequest)| {
        let mut request = MountRequest::default();
        change(&mut request);
        driver.mount_plan(&id, &request).map(drop)
    };
    let operations: [Operation<'_, plywood::Error>; 13] = [
        ("list", can.list, &|| driver.list().map(drop)),
        ("sync", can.sync, &|| driver.sync(&id)),
        ("native_changes", can.native_changes, &|| {
            driver.native_changes(&id, None).map(drop)
        }),
        ("stage", can.staging, &|| driver.stage(&request).map(drop)),
        ("sync_staged", can.staging && can.sync, &|| {
            driver.sync_staged(token)
        }),
        ("adopt", can.staging, &|| driver.adopt(token, &request)),
        ("discard", can.staging, &|| driver.discard(token)),
        ("trash", can.deferred_removal, &|| {
            driver.trash(&id).map(drop)
        }),
        ("reap", can.deferred_removal, &|| driver.reap(token)),
        ("a template", can.template, &|| driver.create(&copy)),
        ("a read-only mount", can.read_only_mounts, &|| {
            mount(|request| request.read_only = true)
        }),
        ("mount options", can.mount_options, &|| {
            mount(|request| request.options = vec!["nodev".to_owned()])
        }),
        ("a label", can.mount_labels, &|| {
            mount(|request| request.label = Some("system_u:object_r:x_t:s0".to_owned()))
        }),
    ];
    for (name, declared, call) in operations {
        if !declared {
            asks::refused(
                &format!("{name}, which is not declared,"),
                call(),
                &[ErrorKind::NotSupported],
            )?;
        }
    }
    traces.unchanged(target, "what core refused")?;
    demand!(
        target.driver.exists(&id)?,
        "a refused operation removed the layer"
    );
    asks::equal(
        "a refused operation changed the layer",
        &before,
        &target.manifest("one")?,
    )
}

/// An operation: what it is called, whether what it needs is declared, and the call.
type Operation<'a, E> = (&'a str, bool, &'a dyn Fn() -> Result<(), E>);

pub(super) fn declared(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("one", Some("base"))?;
    let driver = target.driver.unguarded();
    let can = target.driver.capabilities().clone();
    let (id, base) = (layer_id("one"), layer_id("base"));
    let operations: [Operation<'_, DriverError>; 13] = [
        ("list", can.list, &|| driver.list().map(drop)),
        ("read_only_mounts", can.read_only_mounts, &|| {
            planned(driver, |request| request.read_only = true)
        }),
        ("mount_options", can.mount_options, &|| {
            planned(driver, |request| request.options = vec!["nodev".to_owned()])
        }),
        ("mount_labels", can.mount_labels, &|| {
            let label = "system_u:object_r:container_file_t:s0";
            planned(driver, |request| request.label = Some(label.to_owned()))
        }),
        ("volatile_mounts", can.volatile_mounts, &|| {
            planned(driver, |request| request.volatile = true)
        }),
        ("native_changes", can.native_changes, &|| {
            driver.native_changes(&id, Some(&base)).map(drop)
        }),
        ("staging", can.staging, &|| staged(driver, can.sync)),
        ("deferred_removal", can.deferred_removal, &|| thrown(driver)),
        ("sync", can.sync, &|| driver.sync(&id)),
        ("size_quota", can.size_quota, &|| {
            limited(driver, "size", "64m")
        }),
        ("inode_quota", can.inode_quota, &|| {
            limited(driver, "inodes", "1000")
        }),
        ("template", can.template, &|| {
            let mut request = CreateRequest::new(layer_id("copy"), Some(base.clone()));
            request.template = Some(id.clone());
            made(driver, &request)
        }),
        ("cheap_usage", can.cheap_usage, &|| {
            driver.usage(&id).map(drop)
        }),
    ];
    for (name, _, call) in operations.iter().filter(|(_, declared, _)| *declared) {
        target.step(name)?;
        let answer = call();
        demand!(
            answer.as_ref().err().map(|error| error.code) != Some(DriverErrorCode::NOT_SUPPORTED),
            "{name} is declared, and refused as not supported: {answer:?}"
        );
        // A label needs a security module; everything else must work.
        if *name != "mount_labels" {
            answer?;
        }
    }
    demand!(
        target.manifest("one")?.has("plain"),
        "the layer lost content"
    );
    Ok(())
}

fn planned(driver: &dyn Driver, change: impl FnOnce(&mut MountRequest)) -> sdk::Result<()> {
    let id = layer_id("one");
    let mut request = MountRequest::default();
    change(&mut request);
    if let MountPlan::ByDriver { .. } = driver.mount_plan(&id, &request)? {
        driver.mount(&id, &request)?;
        driver.unmount(&id)?;
    }
    driver.released(&id)
}

fn made(driver: &dyn Driver, request: &CreateRequest) -> sdk::Result<()> {
    driver.create(request)?;
    driver.remove(&request.id).map(drop)
}

fn limited(driver: &dyn Driver, key: &str, value: &str) -> sdk::Result<()> {
    let mut request = CreateRequest::new(layer_id("limited"), Some(layer_id("base")));
    request.kind = LayerKind::ReadWrite;
    request.storage_options = BTreeMap::from([(key.to_owned(), value.to_owned())]);
    made(driver, &request)
}

fn staged(driver: &dyn Driver, sync: bool) -> sdk::Result<()> {
    let request = CreateRequest::new(layer_id("staged"), Some(layer_id("base")));
    driver.discard(&driver.stage(&request)?.token)?;
    let staged = driver.stage(&request)?;
    if sync {
        driver.sync_staged(&staged.token)?;
    }
    driver.adopt(&staged.token, &request)?;
    driver.remove(&request.id).map(drop)
}

fn thrown(driver: &dyn Driver) -> sdk::Result<()> {
    let id = layer_id("thrown");
    driver.create(&CreateRequest::new(id.clone(), None))?;
    let token = driver.trash(&id)?;
    driver.reap(&token.ok_or_else(|| DriverError::no_layer(&id))?)
}
