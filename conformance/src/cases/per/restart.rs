// SPDX-License-Identifier: Apache-2.0
//! Other processes, and other states of a process.

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    time::{Duration, SystemTime},
};

use nix::sys::stat::{Mode, umask};
use plywood::{ErrorKind, layers::UnmountOptions, sdk::MountRequest};

use super::{populate, snapshot, unchanged, unmount_all, usable};
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, case, demand, same},
    cases::{con::mounted, lifecycle::sample},
    target::layer_id,
    wire,
};

pub(in crate::cases) const CASES: &[Case] = &[
    bare("GD-PER-001", restart).roles(&[("populate", fill), ("look", look)]),
    bare("GD-PER-002", other_state).roles(&[("build", build), ("look", look)]),
    bare("GD-PER-003", while_mounted).roles(&[("leave", leave_mounted), ("go-on", go_on)]),
    bare("GD-PER-004", reboot).roles(&[("leave", leave_mounted), ("look", look)]),
    case("GD-PER-010", other_process).roles(&[("change", change)]),
    case("GD-PER-012", clock_set_back),
];

const SEEN: &str = "seen";

/// Makes the store, and notes what it looks like.
fn fill(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    populate(&target)?;
    Ok(fs::write(site.root.join(SEEN), snapshot(&target)?)?)
}

/// Finds the store as it was noted, and can use it.
fn look(site: &Site, _: &[String]) -> Outcome {
    let before = fs::read_to_string(site.root.join(SEEN))?;
    let target = site.open()?;
    unchanged(&before, &target, "in another process")?;
    usable(&target, "top")
}

fn restart(site: &Site) -> Outcome {
    site.in_peer("populate", &[])?;
    site.in_peer("look", &[])?;
    let before = fs::read_to_string(site.root.join(SEEN))?;
    let target = site.open()?;
    unchanged(&before, &target, "in a third process")?;
    demand!(
        before.lines().count() > 10,
        "there was nothing to look at: {before}"
    );
    target.close()?;
    Ok(())
}

/// Makes the store under a umask.
fn build(site: &Site, arguments: &[String]) -> Outcome {
    let mode = arguments
        .first()
        .and_then(|text| u32::from_str_radix(text, 8).ok());
    let mode = mode.ok_or_else(|| Failure::harness("the process was started without its umask"))?;
    umask(Mode::from_bits_truncate(mode));
    let target = site.open()?;
    populate(&target)?;
    fs::write(site.root.join(SEEN), snapshot(&target)?)?;
    usable(&target, "child")
}

/// Runs a role in an odd environment.
fn odd(site: &Site, role: &str, arguments: &[&str], directory: &str) -> Outcome {
    let (mut command, messages) = site.role(role, arguments)?;
    command
        .env_clear()
        .env("PATH", "/nonexistent")
        .env("TMPDIR", "/nonexistent")
        .env("LC_ALL", "tr_TR.UTF-8")
        .env("TZ", "Pacific/Kiritimati")
        .current_dir(directory);
    let status = command.status()?;
    let verdict = wire::read(&messages)?.verdict;
    demand!(
        status.signal().is_none() && verdict.is_some(),
        "`{role}` with a strange environment, in `{directory}`, ended as {status}"
    );
    match verdict {
        Some(verdict) if verdict.status != wire::Status::Pass => Err(Failure::new(format!(
            "`{role}` with a strange environment, in `{directory}`: {}",
            verdict.message
        ))),
        _ => Ok(()),
    }
}

fn other_state(site: &Site) -> Outcome {
    let mut seen = Vec::new();
    for mask in ["022", "000", "077", "777"] {
        let own = site.at(site.scratch(&format!("umask-{mask}"))?);
        odd(&own, "build", &[mask], "/")?;
        odd(&own, "look", &[], "/proc/self")?;
        seen.push((mask, fs::read_to_string(own.root.join(SEEN))?));
        let target = own.open()?;
        target.close()?;
    }
    let (_, usual) = &seen[0];
    for (mask, other) in &seen {
        let differing: Vec<_> = other
            .lines()
            .zip(usual.lines())
            .filter(|(one, two)| one != two)
            .map(|(one, _)| one)
            .collect();
        demand!(
            differing.is_empty() && other.lines().count() == usual.lines().count(),
            "with the umask {mask} layers are not what they are with 022: {differing:#?}"
        );
    }
    Ok(())
}

/// Ends with a layer mounted.
fn leave_mounted(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    populate(&target)?;
    fs::write(site.root.join(SEEN), snapshot(&target)?)?;
    target.create_writable("left", Some("top"))?;
    let path = target.mount("left", &MountRequest::default())?;
    fs::write(path.join("first"), "first")?;
    // Before a reboot that is what a shutdown does.
    nix::unistd::syncfs(fs::File::open(&site.root)?)?;
    Ok(())
}

fn go_on(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    let path = target.mount("left", &MountRequest::default())?;
    let read = fs::read_to_string(path.join("first"));
    demand!(
        read.as_deref().is_ok_and(|text| text == "first"),
        "what another process wrote to the mount it left reads as {read:?}"
    );
    fs::write(path.join("second"), "second")?;
    Ok(target.unmount("left")?)
}

fn while_mounted(site: &Site) -> Outcome {
    site.in_peer("leave", &[])?;
    site.in_peer("go-on", &[])?;
    let target = site.open()?;
    let everything = UnmountOptions {
        force: true,
        ..UnmountOptions::default()
    };
    target.unmount_with("left", everything)?;
    let left = mounted(&target)?;
    demand!(left.is_empty(), "still mounted are {left:?}");
    let manifest = target.manifest("left")?;
    demand!(
        manifest.has("first") && manifest.has("second"),
        "what two processes wrote to one mount is not all there: {manifest}"
    );
    target.delete("left")?;
    unchanged(
        &fs::read_to_string(site.root.join(SEEN))?,
        &target,
        "after a process that left a mount",
    )?;
    target.close()?;
    Ok(())
}

fn reboot(site: &Site) -> Outcome {
    site.in_peer("leave", &[])?;
    unmount_all(site)?;
    fs::remove_dir_all(site.root.join("run"))?;
    let target = site.open()?;
    let layers = target.layers()?;
    demand!(
        layers.iter().all(|layer| layer.mount_count == 0),
        "mounts of before the reboot are still recorded"
    );
    let manifest = target.manifest("left")?;
    demand!(
        manifest.has("first"),
        "what was written before the reboot is not there: {manifest}"
    );
    target.within("left", |path| {
        Ok::<_, Failure>(fs::write(path.join("second"), "second")?)
    })?;
    target.delete("left")?;
    let before = fs::read_to_string(site.root.join(SEEN))?;
    unchanged(&before, &target, "after a reboot")?;
    target.close()?;
    site.in_peer("look", &[])?;
    // The process that looked left its mount of the home, if the driver makes one.
    site.open()?.close()?;
    Ok(())
}

/// Changes the store while another process has it open.
fn change(site: &Site, arguments: &[String]) -> Outcome {
    let target = site.open()?;
    match arguments.first().map(String::as_str) {
        Some("add") => {
            target.put("theirs", Some("base"), &sample())?;
            target.create_writable("written", Some("base"))?;
            target.within("written", |path| {
                Ok::<_, Failure>(fs::write(path.join("new"), "new")?)
            })
        }
        Some("replace") => {
            target.delete("theirs")?;
            target.create("theirs", None).map(drop)?;
            Ok(target.delete("written")?)
        }
        _ => Err(Failure::harness("the process was not told what to do")),
    }
}

fn other_process(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.manifest("base")?;
    demand!(
        !target.driver.exists(&layer_id("theirs"))?,
        "it exists too early"
    );
    target.in_peer("change", &["add"])?;
    demand!(
        target.driver.exists(&layer_id("theirs"))?,
        "a layer that another process made does not exist in this one"
    );
    same!(
        3,
        target.layers()?.len(),
        "the layers after another process made two"
    );
    demand!(
        target.manifest("theirs")?.has("plain") && target.manifest("written")?.has("new"),
        "the content of layers that another process made is not seen"
    );
    target.in_peer("change", &["replace"])?;
    same!(
        2,
        target.layers()?.len(),
        "the layers after another process removed one"
    );
    demand!(
        !target.driver.exists(&layer_id("written"))?,
        "a layer that another process removed exists in this one"
    );
    let mount = target.mount("written", &MountRequest::default());
    let kind = mount.map_err(|error| error.kind());
    same!(
        Err(ErrorKind::LayerUnknown),
        kind,
        "mounting a layer that another process removed"
    );
    let replaced = target.manifest("theirs")?.without_root();
    demand!(
        replaced.0.is_empty(),
        "a layer that another process made anew shows its old content: {replaced}"
    );
    Ok(())
}

/// What a clock that was set back looks like: everything was changed in the future.
fn clock_set_back(target: &mut Target) -> Outcome {
    populate(target)?;
    let future = SystemTime::now() + Duration::from_hours(48);
    let mut waiting = vec![target.root.join("graph")];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        }
        if meta.is_dir() || meta.is_file() {
            let times = fs::FileTimes::new().set_modified(future);
            fs::File::open(&path)?.set_times(times)?;
        }
    }
    let again = target.reopened()?;
    again.create_writable("after", Some("top"))?;
    let unchanged = again.changes("after")?;
    demand!(
        unchanged.is_empty(),
        "a layer that nobody wrote to shows changes: {unchanged:?}"
    );
    again.within("after", |path| {
        Ok::<_, Failure>(fs::write(path.join("written"), "WRITTEN")?)
    })?;
    let paths: Vec<_> = again
        .changes("after")?
        .into_iter()
        .map(|change| change.path.display().to_string())
        .collect();
    same!(
        vec!["/written".to_owned()],
        paths,
        "the changes after a file that seems to come from the future was written to"
    );
    usable(&again, "after")
}
