// SPDX-License-Identifier: Apache-2.0
//! The room that layers take and give back.

use std::{
    fs, io,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::statvfs::statvfs;
use plywood::ErrorKind;

use crate::{
    Target,
    case::{Failure, Outcome, demand},
    cases::asks::Traces,
    excuses,
    scratch::{Size, pool},
    target::layer_id,
};

const MIB: u64 = 1 << 20;

pub(in crate::cases) fn random(target: &Target, bytes: u64) -> Result<Vec<u8>, Failure> {
    let mut data = vec![0; usize::try_from(bytes)?];
    target.rng().fill(&mut data);
    Ok(data)
}

/// Bytes and inodes in use, once the file system has caught up.
fn used(target: &Target) -> Result<(u64, u64), Failure> {
    let point = target.small_filesystem()?.mount_point();
    nix::unistd::syncfs(fs::File::open(point)?)?;
    let stat = statvfs(point)?;
    let bytes = match pool::used(point)? {
        Some(bytes) => bytes,
        None => (stat.blocks() - stat.blocks_free()) * stat.fragment_size(),
    };
    Ok((bytes, stat.files().saturating_sub(stat.files_free())))
}

pub(super) fn freed(target: &mut Target) -> Outcome {
    let small = target.small(Size::mib(96))?;
    let data = random(&small, 8 * MIB)?;
    let fill = |id: &str, parent: Option<&str>| -> Outcome {
        small.create_writable(id, parent)?;
        small.within(id, |path| -> Outcome {
            fs::write(path.join("data"), &data)?;
            for number in 0..200 {
                fs::write(path.join(format!("small-{number}")), "x")?;
            }
            Ok(())
        })
    };
    // The file system's own structures and the store's files are there from now on.
    fill("warm", None)?;
    small.delete("warm")?;
    let before = used(&small)?;
    for round in 0..3 {
        small.step(&format!("round {round}"))?;
        fill("base", None)?;
        fill("child", Some("base"))?;
        let full = used(&small)?;
        demand!(
            full.0 >= before.0 + 15 * MIB,
            "two layers of 8 MiB raised the use from {} to {} bytes only",
            before.0,
            full.0
        );
        small.delete("child")?;
        small.delete("base")?;
    }
    small.driver.recover()?;
    // Some file systems free in the background.
    let end = Instant::now() + Duration::from_secs(5);
    let mut after = used(&small)?;
    let too_much = |after: (u64, u64)| after.0 > before.0 + MIB || after.1 > before.1 + 20;
    while too_much(after) && Instant::now() < end {
        thread::sleep(Duration::from_millis(50));
        after = used(&small)?;
    }
    demand!(
        after.0 <= before.0 + MIB,
        "before there were {} bytes in use, and after everything was removed {}",
        before.0,
        after.0
    );
    demand!(
        after.1 <= before.1 + 20,
        "before there were {} inodes in use, and after everything was removed {}",
        before.1,
        after.1
    );
    small.close()?;
    Ok(())
}

pub(super) fn usage(target: &mut Target) -> Outcome {
    let near = |what: &str, seen: u64, expected: u64| -> Outcome {
        demand!(
            seen.abs_diff(expected) <= expected / 10,
            "{what}: {seen} bytes are reported, and {expected} were written"
        );
        Ok(())
    };
    let of = |id: &str| -> Result<u64, Failure> { Ok(target.driver.usage(&layer_id(id))?.bytes) };
    let data = random(target, 10 * MIB)?;
    target.create_writable("base", None)?;
    target.within("base", |path| -> Outcome {
        fs::write(path.join("data"), &data)?;
        fs::hard_link(path.join("data"), path.join("link"))?;
        fs::create_dir(path.join("d"))?;
        Ok(fs::hard_link(path.join("data"), path.join("d/link"))?)
    })?;
    near("10 MiB with three names", of("base")?, 10 * MIB)?;
    let inodes = target.driver.usage(&layer_id("base"))?.inodes;
    demand!(
        (2..=4).contains(&inodes),
        "a file, a directory and the root take {inodes} inodes"
    );
    target.step("a child")?;
    target.create_writable("child", Some("base"))?;
    // Without sharing, the child really takes the room of its parent's content again.
    let inherited = if target.driver.capabilities().space_sharing {
        0
    } else {
        10 * MIB
    };
    let empty = of("child")?;
    demand!(
        empty.abs_diff(inherited) <= MIB,
        "a child without content of its own takes {empty} bytes instead of about {inherited}"
    );
    target.within("child", |path| -> Outcome {
        Ok(fs::write(
            path.join("more"),
            &data[..usize::try_from(4 * MIB)?],
        )?)
    })?;
    near(
        "4 MiB written into the child",
        of("child")? - inherited,
        4 * MIB,
    )?;
    near("the parent after that", of("base")?, 10 * MIB)?;
    target.step("what changes against the parent, which is the same for every driver")?;
    near(
        "the size of the child's diff",
        target.diff_size(None, "child")?,
        4 * MIB,
    )?;
    target.within("child", |path| -> Outcome {
        Ok(fs::remove_file(path.join("more"))?)
    })?;
    let shrunk = of("child")?;
    demand!(
        shrunk.abs_diff(inherited) <= MIB,
        "after the file was deleted, the child takes {shrunk} bytes instead of about {inherited}"
    );
    Ok(())
}

fn btrfs(arguments: &[&str], path: &Path) -> Result<String, Failure> {
    let output = Command::new("btrfs")
        .arg("subvolume")
        .args(arguments)
        .arg(path)
        .output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::not_run("there is no `btrfs`: install btrfs-progs"));
        }
        output => output?,
    };
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(Failure::harness(format!(
        "btrfs subvolume {arguments:?}: {}",
        text.trim()
    )))
}

pub(super) fn nested_subvolumes(target: &mut Target) -> Outcome {
    let small = match target.on(target.filesystem_of("btrfs", Size::mib(128))?) {
        Err(error) if error.kind() == ErrorKind::DriverUnavailable => {
            return Err(Failure::not_applicable(
                excuses::NOT_ON_BTRFS,
                format!("the driver does not work on btrfs: {error}"),
            ));
        }
        other => other?,
    };
    small.create_writable("base", None)?;
    let point = small.small_filesystem()?.mount_point().to_owned();
    let traces = Traces::of(&small)?;
    let subvolumes =
        || -> Result<usize, Failure> { Ok(btrfs(&["list", "-a"], &point)?.lines().count()) };
    let before = subvolumes()?;
    small.create_writable("one", Some("base"))?;
    let inside = small.driver.unpack_target(&layer_id("one"))?.directory;
    small.step("subvolumes in subvolumes")?;
    for name in ["sub", "sub/sub", "sub/sub/sub"] {
        btrfs(&["create"], &inside.join(name))?;
        fs::write(inside.join(name).join("file"), name)?;
    }
    small.step("a read-only snapshot")?;
    let source = inside.join("sub/sub");
    let source = source
        .to_str()
        .ok_or_else(|| Failure::harness("the scratch has a strange name"))?;
    fs::create_dir(inside.join("d"))?;
    btrfs(&["snapshot", "-r", source], &inside.join("d/frozen"))?;
    demand!(subvolumes()? >= before + 4, "the subvolumes were not made");
    small.delete("one")?;
    demand!(
        !small.driver.exists(&layer_id("one"))?,
        "the layer exists after its removal"
    );
    traces.nothing_new(&small, "a layer with subvolumes in it")?;
    let after = subvolumes()?;
    demand!(
        after == before,
        "there were {before} subvolumes before, and {after} after the removal"
    );
    small.close()?;
    Ok(())
}
