// SPDX-License-Identifier: Apache-2.0
//! What failed works once its cause is gone: nothing of the failure stays in the way.

use std::{collections::BTreeMap, fs};

use plywood::{
    ErrorKind,
    sdk::{CreateRequest, DriverErrorCode, MountRequest},
};

use super::{PARENT_UNKNOWN, UNKNOWN, full::large_stream};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    cases::{asks, lifecycle::sample},
    scratch::Size,
    target::{layer_id, new_layer},
};

pub(super) fn succeeds(target: &mut Target) -> Outcome {
    missing(target)?;
    existing(target)?;
    streams(target)?;
    options(target)?;
    blocked(target)?;
    full(target)
}

fn missing(target: &Target) -> Outcome {
    target.step("what was missing is there")?;
    asks::refused(
        "a layer on an unknown parent",
        target.create("child", Some("base")),
        &PARENT_UNKNOWN,
    )?;
    let put = target.put("put", Some("base"), &sample());
    asks::refused("putting a layer on an unknown parent", put, &PARENT_UNKNOWN)?;
    let request = CreateRequest::new(layer_id("alone"), Some(layer_id("base")));
    let alone = target.driver.create(&request);
    asks::refused("the driver's layer on an unknown parent", alone, &UNKNOWN)?;
    asks::refused(
        "mounting an unknown layer",
        target.mount("base", &MountRequest::default()),
        &UNKNOWN,
    )?;
    asks::refused(
        "applying to an unknown layer",
        target.apply("base", &sample()[..]),
        &UNKNOWN,
    )?;
    target.create("base", None)?;
    target.apply("base", &sample()[..])?;
    target.within("base", |_| Ok::<_, Failure>(()))?;
    target.create("child", Some("base"))?;
    target.put("put", Some("base"), &sample())?;
    target.driver.create(&request)?;
    target.driver.remove(&request.id)?;
    Ok(())
}

fn existing(target: &Target) -> Outcome {
    target.step("what was in the way is gone")?;
    let request = CreateRequest::new(layer_id("taken"), Some(layer_id("base")));
    target.driver.create(&request)?;
    let again = target.driver.create(&request);
    asks::refused("a layer that exists", again, &[ErrorKind::DuplicateId])?;
    if target.driver.capabilities().staging {
        let staged = target.driver.stage(&request)?;
        fs::write(staged.target.directory.join("mine"), "x")?;
        let over = target.driver.adopt(&staged.token, &request);
        asks::refused(
            "adopting over a layer that exists",
            over,
            &[ErrorKind::DuplicateId],
        )?;
        target.driver.remove(&request.id)?;
        target.driver.adopt(&staged.token, &request)?;
        let place = target.driver.unpack_target(&request.id)?.directory;
        demand!(
            place.join("mine").exists(),
            "after a refused adoption, the next one lost the content"
        );
    }
    target.driver.remove(&request.id)?;
    Ok(())
}

fn streams(target: &Target) -> Outcome {
    target.step("streams that were broken are whole")?;
    let whole = sample();
    for (what, broken) in [
        ("cut off", whole[..whole.len() / 2].to_vec()),
        ("no tar", vec![b'x'; 4096]),
    ] {
        let put = target.put("streamed", Some("base"), &broken);
        demand!(put.is_err(), "a stream that is {what} was accepted");
        demand!(
            !target.driver.exists(&layer_id("streamed"))?,
            "a layer exists whose stream was {what}"
        );
        target.put("streamed", Some("base"), &whole)?;
        demand!(
            target.manifest("streamed")?.has("d/e/deep"),
            "the layer is incomplete"
        );
        same!(
            whole.len(),
            target.diff("streamed")?.len(),
            "bytes of its diff"
        );
        target.delete("streamed")?;
        target.create("applied", None)?;
        demand!(
            target.apply("applied", &broken[..]).is_err(),
            "a stream that is {what} was applied"
        );
        target.apply("applied", &whole[..])?;
        demand!(
            target.manifest("applied")?.has("d/e/deep"),
            "the layer is incomplete"
        );
        target.delete("applied")?;
    }
    Ok(())
}

fn options(target: &Target) -> Outcome {
    target.step("options that were wrong are left out")?;
    let mut new = new_layer("optional", Some("base"));
    new.storage_options = BTreeMap::from([("no-such-option".to_owned(), "1".to_owned())]);
    let kinds = [ErrorKind::InvalidArgument, ErrorKind::NotSupported];
    asks::refused(
        "a layer with an unknown option",
        target.create_with(&new),
        &kinds,
    )?;
    new.storage_options.clear();
    target.create_with(&new)?;
    let mut request = MountRequest::default();
    request.options = vec!["no-such-option".to_owned()];
    let kinds = [
        ErrorKind::InvalidArgument,
        ErrorKind::NotSupported,
        ErrorKind::Driver,
    ];
    asks::refused(
        "a mount with an unknown option",
        target.mount("optional", &request),
        &kinds,
    )?;
    target.within("optional", |path| -> Outcome {
        demand!(path.join("plain").exists(), "the layer is empty");
        Ok(())
    })?;
    target.delete("optional")?;
    Ok(())
}

/// Something else lies where the driver puts its layer.
fn blocked(target: &Target) -> Outcome {
    target.step("a mounted layer is not mounted any more")?;
    target.create_writable("busy", Some("base"))?;
    let mut read_only = MountRequest::default();
    read_only.read_only = target.driver.capabilities().read_only_mounts;
    let path = target.mount("busy", &read_only)?;
    if plywood::mount::is_mounted(&path)? {
        let removed = target.driver.unguarded().remove(&layer_id("busy"));
        if removed.is_err() {
            asks::driver_refused(
                "removing a mounted layer",
                removed,
                &[DriverErrorCode::BUSY],
            )?;
        }
        if read_only.read_only {
            let writable = target.mount("busy", &MountRequest::default());
            asks::refused(
                "mounting it for writing as well",
                writable,
                &[ErrorKind::Busy],
            )?;
        }
    }
    target.unmount("busy")?;
    if target.driver.exists(&layer_id("busy"))? {
        target.within("busy", |path| -> Outcome {
            Ok(fs::write(path.join("file"), "x")?)
        })?;
    }
    target.delete("busy")?;
    Ok(())
}

fn full(target: &Target) -> Outcome {
    target.step("a full file system has room again")?;
    let small = target.small(Size::mib(48))?;
    small.put("base", None, &sample())?;
    let stream = large_stream(&small)?;
    small.small_filesystem()?.fill(128 << 10)?;
    for _ in 0..2 {
        let put = small.put("new", Some("base"), &stream);
        asks::refused("putting what does not fit", put, &[ErrorKind::NoSpace])?;
    }
    small.small_filesystem()?.unfill()?;
    small.put("new", Some("base"), &stream)?;
    demand!(
        small.manifest("new")?.has("large/5"),
        "the layer is incomplete"
    );
    small.close()?;
    Ok(())
}
