// SPDX-License-Identifier: Apache-2.0
//! A file system that becomes read-only under an open driver.

use plywood::{
    ErrorKind,
    plugin::DriverHandle,
    sdk::{CreateRequest, DriverErrorCode, MountRequest},
};

use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    cases::{asks, lifecycle::sample},
    manifest::Manifest,
    scratch::Size,
    target::layer_id,
};

const READ_ONLY: [ErrorKind; 1] = [ErrorKind::ReadOnlyFilesystem];

pub(super) fn erofs(target: &mut Target) -> Outcome {
    let small = target.small(Size::mib(64))?;
    small.put("base", None, &sample())?;
    small.create_writable("child", Some("base"))?;
    let before = small.manifest("child")?;
    let (site, small) = small.close()?;
    let small = small.ok_or_else(|| Failure::harness("no file system"))?;
    // The store's lock files are open for writing, which keeps the kernel from remounting; the
    // driver alone has nothing open.
    let driver = site.driver()?;
    small.remount(true)?;
    let refused = at_runtime(&driver);
    let opened = opened_read_only(&site);
    drop(driver);
    small.remount(false)?;
    refused?;
    opened?;
    writable_again(&site, &before)?;
    drop(small);
    Ok(())
}

fn at_runtime(driver: &DriverHandle) -> Outcome {
    let (base, child) = (layer_id("base"), layer_id("child"));
    let request = CreateRequest::new(layer_id("new"), Some(base.clone()));
    asks::refused("creating a layer", driver.create(&request), &READ_ONLY)?;
    let answer = driver.unguarded().create(&request);
    demand!(
        answer.as_ref().err().and_then(|error| error.errno) == Some(libc::EROFS),
        "the system's error number is missing: {answer:?}"
    );
    asks::driver_refused("a layer", answer, &[DriverErrorCode::READ_ONLY])?;
    if driver.capabilities().staging {
        asks::refused("staging a layer", driver.stage(&request), &READ_ONLY)?;
    }
    asks::refused("removing a layer", driver.remove(&child), &READ_ONLY)?;
    if driver.capabilities().deferred_removal {
        asks::refused("trashing a layer", driver.trash(&child), &READ_ONLY)?;
    }
    demand!(!driver.exists(&request.id)?, "the refused layer exists");
    for id in [&base, &child] {
        demand!(
            driver.exists(id)?,
            "layer `{id}` is gone, or the driver says so"
        );
    }
    if driver.capabilities().list {
        same!(2, driver.list()?.len(), "how many layers are listed");
    }
    for id in [&base, &child] {
        driver.metadata(id)?;
        driver.usage(id)?;
        driver.content_roots(id)?;
    }
    asks::allowed(
        "a view of the changes",
        driver.diff_view(&child, Some(&base)),
        &READ_ONLY,
    )?;
    // It may need a directory for the mount that is not there.
    asks::allowed(
        "a mount plan",
        driver.mount_plan(&child, &MountRequest::default()),
        &READ_ONLY,
    )?;
    asks::allowed("where to unpack", driver.unpack_target(&child), &READ_ONLY)?;
    asks::allowed(
        "tidying up after a mount",
        driver.released(&child),
        &READ_ONLY,
    )?;
    asks::allowed("recovery", driver.recover(), &READ_ONLY)?;
    demand!(
        driver.poisoned().is_none(),
        "the driver panicked: {:?}",
        driver.poisoned()
    );
    driver.close()?;
    Ok(())
}

/// A store on a read-only file system is refused, or opens and refuses what writes.
fn opened_read_only(site: &Site) -> Outcome {
    let driver = match site.driver() {
        Err(error) => return asks::refused::<()>("opening the driver", Err(error), &READ_ONLY),
        Ok(driver) => driver,
    };
    let used = match Target::with(site.clone(), driver.clone()) {
        Err(error) => asks::refused::<()>("opening the store", Err(error), &READ_ONLY),
        Ok(target) => asks::refused("creating a layer", target.create("new", None), &READ_ONLY)
            .and_then(|()| asks::refused("deleting a layer", target.delete("child"), &READ_ONLY)),
    };
    driver.close()?;
    used
}

fn writable_again(site: &Site, before: &Manifest) -> Outcome {
    let target = site.open()?;
    asks::equal("a layer changed", before, &target.manifest("child")?)?;
    same!(2, target.layers()?.len(), "how many layers are recorded");
    target.create("new", Some("base"))?;
    target.delete("new")?;
    target.delete("child")?;
    demand!(
        !target.driver.exists(&layer_id("child"))?,
        "the layer exists after its removal"
    );
    demand!(
        target.manifest("base")?.has("plain"),
        "the parent lost content"
    );
    target.close()?;
    Ok(())
}
