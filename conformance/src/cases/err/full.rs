// SPDX-License-Identifier: Apache-2.0
//! A full file system.

use std::{fs, io};

use plywood::{
    ErrorKind,
    sdk::{CreateRequest, DriverErrorCode, MountRequest},
};

use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    cases::{asks, lif::random, lifecycle::sample},
    scratch::Size,
    tar_file::TarFile,
    target::layer_id,
};

const FULL: [ErrorKind; 1] = [ErrorKind::NoSpace];

/// A stream that is larger than what is left.
pub(super) fn large_stream(target: &Target) -> Result<Vec<u8>, Failure> {
    let data = random(target, 1 << 20)?;
    let mut tar = TarFile::new().directory("large/");
    for number in 0..6 {
        tar = tar.file(&format!("large/{number}"), &data);
    }
    Ok(tar.done())
}

pub(super) fn enospc(target: &mut Target) -> Outcome {
    let small = target.small(Size::mib(64))?;
    small.put("base", None, &sample())?;
    small.create_writable("child", Some("base"))?;
    for number in 0..3 {
        small.put(
            &format!("victim-{number}"),
            Some("base"),
            &large_stream(&small)?,
        )?;
    }
    let before = small.manifest("base")?;
    for (round, leave) in [0, 64 << 10, 512 << 10].into_iter().enumerate() {
        small.step(&format!("{leave} bytes are left"))?;
        small.small_filesystem()?.fill(leave)?;
        refused(&small, round)?;
        small.small_filesystem()?.unfill()?;
        works_again(&small, round)?;
        asks::equal(
            "a layer changed on a full file system",
            &before,
            &small.manifest("base")?,
        )?;
    }
    small.close()?;
    Ok(())
}

fn refused(small: &Target, round: usize) -> Outcome {
    let stream = large_stream(small)?;
    asks::refused(
        "putting what does not fit",
        small.put("new", Some("base"), &stream),
        &FULL,
    )?;
    asks::refused(
        "applying what does not fit",
        small.apply("child", &stream[..]),
        &FULL,
    )?;
    let made = asks::allowed(
        "creating a layer",
        small.create("small", Some("base")),
        &FULL,
    )?;
    same!(
        made,
        small.driver.exists(&layer_id("small"))?,
        "whether the layer exists, as creating it said"
    );
    let alone = small.driver.unguarded().create(&CreateRequest::new(
        layer_id("alone"),
        Some(layer_id("base")),
    ));
    match alone {
        // It may need a private place for that.
        Ok(()) => {
            let removed = asks::allowed(
                "removing a layer",
                small.driver.remove(&layer_id("alone")),
                &FULL,
            )?;
            let there = small.driver.exists(&layer_id("alone"))?;
            demand!(
                there != removed,
                "whether the layer exists ({there}) is not what its removal said"
            );
        }
        Err(error) => {
            demand!(
                !small.driver.exists(&layer_id("alone"))?,
                "a refused layer exists"
            );
            demand!(
                error.code == DriverErrorCode::NO_SPACE,
                "on a full file system the driver must fail as no-space, and says {error:?}"
            );
            demand!(
                matches!(error.errno, Some(libc::ENOSPC | libc::EDQUOT)),
                "the system's error number is missing: {error:?}"
            );
        }
    }
    mounted(small)?;
    let diff = small.diff("base");
    if asks::allowed("a diff", diff.as_ref().map(drop).map_err(clone), &FULL)? {
        same!(
            sample().len(),
            diff?.len(),
            "bytes of a diff, taken on a full file system"
        );
    }
    // What makes room must work: it is how people get out of it.
    let victim = format!("victim-{round}");
    small.delete(&victim)?;
    demand!(
        !small.driver.exists(&layer_id(&victim))?,
        "a deleted layer exists"
    );
    Ok(())
}

/// Mounting needs little; writing more than there is room fails as it does anywhere.
fn mounted(small: &Target) -> Outcome {
    match small.mount("child", &MountRequest::default()) {
        Ok(path) => {
            let written = fs::write(path.join("too-much"), random(small, 4 << 20)?);
            let text = fs::read_to_string(path.join("plain"));
            asks::allowed("unmounting", small.unmount("child"), &FULL)?;
            demand!(
                written
                    .as_ref()
                    .is_err_and(|error| error.kind() == io::ErrorKind::StorageFull),
                "writing into the mounted layer must fail with ENOSPC, and gave {written:?}"
            );
            same!("plain", text?, "a file of the mounted layer");
        }
        Err(error) => asks::refused::<()>("mounting", Err(error), &FULL)?,
    }
    Ok(())
}

fn clone(error: &plywood::Error) -> plywood::Error {
    plywood::Error::new(error.kind(), error.to_string())
}

/// After room was made, everything that was refused works, and nothing half-made is there.
fn works_again(small: &Target, round: usize) -> Outcome {
    small.unmount("child")?;
    small.driver.recover()?;
    small.driver.remove(&layer_id("alone"))?;
    demand!(
        !small.driver.exists(&layer_id("new"))?,
        "a layer exists that did not fit"
    );
    if small.driver.capabilities().list {
        let listed = small.driver.list()?.into_iter().map(|id| id.to_string());
        let mut recorded: Vec<_> = small.layers()?.into_iter().map(|layer| layer.id).collect();
        recorded.sort();
        let mut listed: Vec<_> = listed.collect();
        listed.sort();
        same!(
            recorded,
            listed,
            "layers that the driver has, beside those that are recorded"
        );
    }
    let stream = large_stream(small)?;
    small.put("new", Some("base"), &stream)?;
    demand!(
        small.manifest("new")?.has("large/5"),
        "a layer is incomplete"
    );
    small.delete("new")?;
    small.apply("child", &stream[..])?;
    let child = small.manifest("child")?;
    demand!(
        child.has("large/5") && child.has("plain"),
        "the layer lacks what was applied: {child}"
    );
    if !small.driver.exists(&layer_id("small"))? {
        small.create("small", Some("base"))?;
    }
    small.delete("small")?;
    small.delete("child")?;
    small.create_writable("child", Some("base"))?;
    small.step(&format!("round {round} is over"))?;
    Ok(())
}
