// SPDX-License-Identifier: Apache-2.0
//! Layers that are not there.

use plywood::{
    ErrorKind,
    layers::PutOptions,
    sdk::{CreateRequest, DiffView, DriverErrorCode, LayerKind, MountRequest, Removed},
};

use super::{PARENT_UNKNOWN, UNKNOWN};
use crate::{
    Target,
    case::{Outcome, demand, same},
    cases::{
        asks::{self, Traces},
        lifecycle::sample,
    },
    target::{layer_id, new_layer},
};

const NOT_FOUND: [DriverErrorCode; 1] = [DriverErrorCode::NOT_FOUND];

pub(super) fn mount(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    let traces = Traces::of(target)?;
    let id = layer_id("unknown");
    let mut read_only = MountRequest::default();
    read_only.read_only = target.driver.capabilities().read_only_mounts;
    for request in [MountRequest::default(), read_only] {
        asks::refused(
            "mounting an unknown layer",
            target.mount("unknown", &request),
            &UNKNOWN,
        )?;
        let driver = target.driver.unguarded();
        let plan = driver.mount_plan(&id, &request);
        asks::driver_refused("the mount plan of an unknown layer", plan, &NOT_FOUND)?;
        // A driver whose plans core carries out refuses to mount at all.
        let codes = [DriverErrorCode::NOT_FOUND, DriverErrorCode::NOT_SUPPORTED];
        asks::driver_refused(
            "mounting an unknown layer",
            driver.mount(&id, &request),
            &codes,
        )?;
    }
    traces.unchanged(target, "a refused mount")?;
    demand!(
        !target.driver.exists(&id)?,
        "the refused mount made a layer"
    );
    target.step("a layer that was there")?;
    target.create("gone", Some("one"))?;
    target.delete("gone")?;
    let plan = target
        .driver
        .unguarded()
        .mount_plan(&layer_id("gone"), &MountRequest::default());
    asks::driver_refused("the mount plan of a removed layer", plan, &NOT_FOUND)?;
    traces.unchanged(target, "a refused mount of a removed layer")
}

pub(super) fn remove(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    let before = target.manifest("one")?;
    let traces = Traces::of(target)?;
    let id = layer_id("unknown");
    same!(
        Removed::AlreadyGone,
        target.driver.remove(&id)?,
        "the answer to removing an unknown layer"
    );
    if target.driver.capabilities().deferred_removal {
        same!(
            None,
            target.driver.trash(&id)?,
            "the answer to trashing an unknown layer"
        );
        target.driver.reap("no-such-token")?;
    }
    target.driver.released(&id)?;
    asks::refused(
        "deleting the record of an unknown layer",
        target.delete("unknown"),
        &UNKNOWN,
    )?;
    traces.unchanged(target, "removing what is not there")?;
    asks::equal("another layer changed", &before, &target.manifest("one")?)
}

pub(super) fn compare(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    target.create("two", Some("one"))?;
    let traces = Traces::of(target)?;
    for (from, to) in [
        (None, "unknown"),
        (Some("one"), "unknown"),
        (Some("unknown"), "two"),
        (Some("unknown"), "unknown"),
    ] {
        let what = |what: &str| format!("{what} from {from:?} to `{to}`");
        asks::refused(&what("changes"), target.changes_between(from, to), &UNKNOWN)?;
        asks::refused(&what("a diff"), target.diff_between(from, to), &UNKNOWN)?;
        asks::refused(
            &what("the size of a diff"),
            target.diff_size(from, to),
            &UNKNOWN,
        )?;
        let (from, to) = (from.map(layer_id), layer_id(to));
        let view = target.driver.unguarded().diff_view(&to, from.as_ref());
        // Core finds out about a missing parent when it mounts the two.
        if !(to.as_str() == "two" && view == Ok(DiffView::Mounted)) {
            asks::driver_refused(&what("a view"), view, &NOT_FOUND)?;
        }
        if target.driver.capabilities().native_changes {
            let list = target.driver.unguarded().native_changes(&to, from.as_ref());
            asks::driver_refused(&what("the driver's list of changes"), list, &NOT_FOUND)?;
        }
    }
    traces.unchanged(target, "refused comparisons")
}

pub(super) fn apply(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    let traces = Traces::of(target)?;
    asks::refused(
        "applying to an unknown layer",
        target.apply("unknown", &sample()[..]),
        &UNKNOWN,
    )?;
    let place = target
        .driver
        .unguarded()
        .unpack_target(&layer_id("unknown"));
    asks::driver_refused("where to unpack into an unknown layer", place, &NOT_FOUND)?;
    demand!(
        !target.driver.exists(&layer_id("unknown"))?,
        "applying made a layer"
    );
    traces.unchanged(target, "a refused application")?;
    same!(1, target.layers()?.len(), "how many layers are recorded");
    Ok(())
}

pub(super) fn parent(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    let traces = Traces::of(target)?;
    asks::refused(
        "a layer on an unknown parent",
        target.create("child", Some("unknown")),
        &PARENT_UNKNOWN,
    )?;
    let put = target.put("child", Some("unknown"), &sample());
    asks::refused("putting a layer on an unknown parent", put, &PARENT_UNKNOWN)?;
    traces.unchanged(target, "core's refusals")?;
    let driver = target.driver.unguarded();
    for kind in [LayerKind::ReadOnly, LayerKind::ReadWrite] {
        let mut request = CreateRequest::new(layer_id("child"), Some(layer_id("unknown")));
        request.kind = kind;
        let what = format!("a layer ({kind:?}) on an unknown parent");
        asks::driver_refused(&what, driver.create(&request), &NOT_FOUND)?;
        if target.driver.capabilities().staging {
            let what = format!("staging {what}");
            asks::driver_refused(&what, driver.stage(&request), &NOT_FOUND)?;
        }
        demand!(
            !target.driver.exists(&request.id)?,
            "{what} was refused and exists"
        );
    }
    traces.unchanged(target, "the driver's refusals")
}

pub(super) fn template(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    let traces = Traces::of(target)?;
    let mut new = new_layer("copy", Some("one"));
    new.template = Some("unknown".to_owned());
    asks::refused(
        "a copy of an unknown template",
        target.create_with(&new),
        &UNKNOWN,
    )?;
    let put = target.put_with(&new, &sample()[..], PutOptions::default());
    asks::refused("putting a copy of an unknown template", put, &UNKNOWN)?;
    let mut request = CreateRequest::new(layer_id("copy"), Some(layer_id("one")));
    request.template = Some(layer_id("unknown"));
    let declared = target.driver.capabilities().template;
    // What has no templates may say that first.
    let (kinds, codes) = if declared {
        (
            vec![ErrorKind::LayerUnknown],
            vec![DriverErrorCode::NOT_FOUND],
        )
    } else {
        (
            vec![ErrorKind::NotSupported],
            vec![DriverErrorCode::NOT_SUPPORTED, DriverErrorCode::NOT_FOUND],
        )
    };
    asks::refused(
        "a copy of an unknown template",
        target.driver.create(&request),
        &kinds,
    )?;
    let driver = target.driver.unguarded();
    asks::driver_refused(
        "a copy of an unknown template",
        driver.create(&request),
        &codes,
    )?;
    if target.driver.capabilities().staging {
        asks::driver_refused(
            "staging a copy of an unknown template",
            driver.stage(&request),
            &codes,
        )?;
    }
    demand!(!target.driver.exists(&request.id)?, "a refused copy exists");
    traces.unchanged(target, "a refused copy")
}

pub(super) fn questions(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    let traces = Traces::of(target)?;
    let (driver, id, can) = (
        target.driver.unguarded(),
        layer_id("unknown"),
        target.driver.capabilities(),
    );
    asks::driver_refused(
        "facts about an unknown layer",
        driver.metadata(&id),
        &NOT_FOUND,
    )?;
    asks::driver_refused(
        "the usage of an unknown layer",
        driver.usage(&id),
        &NOT_FOUND,
    )?;
    asks::driver_refused(
        "the content of an unknown layer",
        driver.content_roots(&id),
        &NOT_FOUND,
    )?;
    if can.sync {
        asks::driver_refused(
            "making an unknown layer durable",
            driver.sync(&id),
            &NOT_FOUND,
        )?;
    }
    if can.staging {
        let request = CreateRequest::new(layer_id("new"), None);
        let adopted = driver.adopt("no-such-token", &request);
        asks::driver_refused("adopting what was never staged", adopted, &NOT_FOUND)?;
        driver.discard("no-such-token")?;
        if can.sync {
            let synced = driver.sync_staged("no-such-token");
            asks::driver_refused("making durable what was never staged", synced, &NOT_FOUND)?;
        }
        demand!(
            !driver.exists(&request.id)?,
            "adopting nothing made a layer"
        );
    }
    asks::refused(
        "facts about an unknown layer",
        target.driver.metadata(&id),
        &UNKNOWN,
    )?;
    asks::refused(
        "the usage of an unknown layer",
        target.driver.usage(&id),
        &UNKNOWN,
    )?;
    traces.unchanged(target, "questions about an unknown layer")
}
