// SPDX-License-Identifier: Apache-2.0
//! What must be refused, and how.

use plywood::{
    ErrorKind,
    sdk::{CreateRequest, MountRequest, Removed},
};

use super::lifecycle::sample;
use crate::{
    Case, Target,
    case::{Outcome, case, demand},
    target::layer_id,
};

pub(super) const CASES: &[Case] = &[
    case("GD-ERR-001", get_unknown),
    case("GD-ERR-002", remove_unknown),
    case("GD-ERR-005", missing_parent),
    case("GD-ERR-006", duplicate),
    case("GD-ERR-021", undeclared),
];

fn get_unknown(target: &mut Target) -> Outcome {
    let error = target.mount("unknown", &MountRequest::default()).err();
    let kind = error.as_ref().map(plywood::Error::kind);
    demand!(kind == Some(ErrorKind::LayerUnknown), "core says {error:?}");
    let error = target
        .driver
        .mount_plan(&layer_id("unknown"), &MountRequest::default())
        .err();
    let kind = error.as_ref().map(plywood::Error::kind);
    demand!(
        kind == Some(ErrorKind::LayerUnknown),
        "the driver says {error:?}"
    );
    Ok(())
}

fn remove_unknown(target: &mut Target) -> Outcome {
    let removed = target.driver.remove(&layer_id("unknown"))?;
    demand!(removed == Removed::AlreadyGone, "it says {removed:?}");
    Ok(())
}

fn missing_parent(target: &mut Target) -> Outcome {
    let request = CreateRequest::new(layer_id("child"), Some(layer_id("unknown")));
    demand!(target.driver.create(&request).is_err(), "it was accepted");
    demand!(
        !target.driver.exists(&layer_id("child"))?,
        "something was left"
    );
    Ok(())
}

fn duplicate(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    let before = target.manifest("one")?;
    let error = target
        .driver
        .create(&CreateRequest::new(layer_id("one"), None))
        .err();
    let kind = error.as_ref().map(plywood::Error::kind);
    demand!(
        kind == Some(ErrorKind::DuplicateId),
        "the driver says {error:?}"
    );
    let differences = before.differences(&target.manifest("one")?);
    demand!(differences.is_empty(), "the layer changed: {differences:?}");
    Ok(())
}

fn undeclared(target: &mut Target) -> Outcome {
    target.create("one", None)?;
    let (id, request) = (layer_id("one"), CreateRequest::new(layer_id("two"), None));
    let can = target.driver.capabilities().clone();
    let driver = &target.driver;
    let calls = [
        (can.list, "list", driver.list().err()),
        (can.sync, "sync", driver.sync(&id).err()),
        (
            can.native_changes,
            "native_changes",
            driver.native_changes(&id, None).err(),
        ),
        (
            can.staging,
            "stage",
            if can.staging {
                None
            } else {
                driver.stage(&request).err()
            },
        ),
        (
            can.deferred_removal,
            "trash",
            if can.deferred_removal {
                None
            } else {
                driver.trash(&id).err()
            },
        ),
    ];
    for (declared, name, error) in calls {
        let refused = error.as_ref().map(plywood::Error::kind) == Some(ErrorKind::NotSupported);
        demand!(
            declared || refused,
            "{name} is not declared and answered {error:?}"
        );
        demand!(
            !declared || !refused,
            "{name} is declared and was refused: {error:?}"
        );
    }
    demand!(
        target.driver.exists(&id)?,
        "a refused operation removed the layer"
    );
    Ok(())
}
