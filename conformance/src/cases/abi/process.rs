// SPDX-License-Identifier: Apache-2.0
//! What a driver does to the process that it is in.

use std::{
    fs,
    path::Path,
    process::Stdio,
    thread,
    time::{Duration, Instant},
};

use plywood::{
    Result,
    plugin::load_plugin,
    sdk::{CreateRequest, MountRequest},
};

use super::{
    file_of, life,
    state::{State, company, descriptors, timers},
};
use crate::{
    Case, Site, Target,
    case::{Outcome, bare, case, demand, same},
    manifest,
    target::layer_id,
};

pub(in crate::cases) const CASES: &[Case] = &[
    bare("GD-ABI-011", load_alone).roles(&[("load", load)]),
    bare("GD-ABI-024", no_background),
    case("GD-ABI-026", state_untouched),
    bare("GD-ABI-027", empty_environment).roles(&[("live", live)]),
    bare("GD-ABI-028", no_output).roles(&[("live", live)]),
];

/// How long threads and processes that were told to end may take.
const GRACE: Duration = Duration::from_millis(500);

fn load_alone(site: &Site) -> Outcome {
    file_of(site)?;
    // In a process of its own: in this one the plugin may be loaded already.
    site.in_peer("load", &[])?;
    demand!(
        fs::read_dir(&site.root)?.all(|entry| entry.is_ok_and(|e| e.file_name() == "canary")),
        "loading the plugin made something beside the store"
    );
    Ok(())
}

fn load(site: &Site, _: &[String]) -> Outcome {
    let path = file_of(site)?;
    let places = ["/tmp", "/dev/shm", "/run"].map(Path::new);
    let names = |place: &Path| -> std::io::Result<Vec<_>> {
        let entries = fs::read_dir(place)?;
        entries.map(|entry| Ok(entry?.file_name())).collect()
    };
    let seen = || -> std::io::Result<_> {
        let mounts = fs::read_to_string("/proc/self/mountinfo")?;
        let files: Vec<_> = places
            .iter()
            .filter_map(|place| names(place).ok())
            .collect();
        Ok((State::now()?, descriptors()?, company()?, mounts, files))
    };
    let before = seen()?;
    let tree = manifest::of(&site.root)?;
    let loaded = load_plugin(path)?;
    demand!(!loaded.name().is_empty(), "it has no name");
    let after = seen()?;
    let changes = before.0.changes(&after.0);
    demand!(
        changes.is_empty(),
        "loading changed the process: {changes:?}"
    );
    same!(before.1, after.1, "the open files before and after loading");
    same!(
        before.2,
        after.2,
        "threads and children before and after loading"
    );
    same!(before.3, after.3, "the mounts before and after loading");
    same!(
        before.4,
        after.4,
        "the files in {places:?} before and after loading"
    );
    let differences = tree.differences(&manifest::of(&site.root)?);
    demand!(
        differences.is_empty(),
        "loading changed files: {differences:?}"
    );
    Ok(())
}

fn no_background(site: &Site) -> Outcome {
    let (before, clocks) = (company()?, timers());
    let target = site.open()?;
    life(&target, "one")?;
    target.close()?;
    let end = Instant::now() + GRACE;
    let mut after = company()?;
    while after != before && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
        after = company()?;
    }
    same!(
        before,
        after,
        "threads and child processes before opening and after closing"
    );
    same!(clocks, timers(), "timers before opening and after closing");
    Ok(())
}

type Operation = (&'static str, fn(&Target) -> Result<()>);

/// Every method that a driver of any kind has, in an order in which each can work.
const OPERATIONS: &[Operation] = &[
    ("status", |t| t.driver.status().map(drop)),
    ("create", |t| {
        t.driver.create(&CreateRequest::new(layer_id("a"), None))
    }),
    ("create on a parent", |t| {
        t.driver
            .create(&CreateRequest::new(layer_id("b"), Some(layer_id("a"))))
    }),
    ("exists", |t| t.driver.exists(&layer_id("b")).map(drop)),
    ("list", |t| {
        let can = t.driver.capabilities().list;
        can.then(|| t.driver.list()).transpose().map(drop)
    }),
    ("metadata", |t| t.driver.metadata(&layer_id("b")).map(drop)),
    ("usage", |t| t.driver.usage(&layer_id("b")).map(drop)),
    ("unpack_target", |t| {
        t.driver.unpack_target(&layer_id("b")).map(drop)
    }),
    ("mount_plan", |t| {
        t.driver
            .mount_plan(&layer_id("b"), &MountRequest::default())?;
        t.driver.released(&layer_id("b"))
    }),
    ("diff_view", |t| {
        t.driver
            .diff_view(&layer_id("b"), Some(&layer_id("a")))
            .map(drop)
    }),
    ("content_roots", |t| {
        t.driver.content_roots(&layer_id("b")).map(drop)
    }),
    ("recover", |t| t.driver.recover().map(drop)),
    ("remove", |t| t.driver.remove(&layer_id("b")).map(drop)),
    ("a failing operation", |t| {
        t.driver.usage(&layer_id("unknown")).err();
        t.driver.remove(&layer_id("a")).map(drop)
    }),
    ("mounting and unmounting", |t| {
        t.create("c", None)?;
        t.mount("c", &MountRequest::default())?;
        t.unmount("c")?;
        t.delete("c")
    }),
];

fn state_untouched(target: &mut Target) -> Outcome {
    for (name, operation) in OPERATIONS {
        target.step(name)?;
        let before = State::now()?;
        operation(target)?;
        let changes = before.changes(&State::now()?);
        demand!(
            changes.is_empty(),
            "`{name}` changed the process: {changes:?}"
        );
    }
    target.step("opening and closing")?;
    let before = State::now()?;
    let other = target.at(target.scratch("other")?).open()?;
    other.close()?;
    let changes = before.changes(&State::now()?);
    demand!(
        changes.is_empty(),
        "opening or closing changed the process: {changes:?}"
    );
    Ok(())
}

fn live(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    life(&target, "one")?;
    target.close()?;
    Ok(())
}

fn empty_environment(site: &Site) -> Outcome {
    let (mut command, messages) = site.role("live", &[])?;
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    crate::site::Peer::start(command, messages)?.join()?;
    // What the other process asserted is its own; that it came to its end is asserted here.
    demand!(site.home()?.is_dir(), "the driver made no home");
    Ok(())
}

fn no_output(site: &Site) -> Outcome {
    let (mut command, messages) = site.role("live", &[])?;
    let (out, err) = (site.root.join("stdout"), site.root.join("stderr"));
    command.stdout(Stdio::from(fs::File::create(&out)?));
    command.stderr(Stdio::from(fs::File::create(&err)?));
    crate::site::Peer::start(command, messages)?.join()?;
    for (name, path) in [("output", out), ("error", err)] {
        let written = fs::read(path)?;
        let text = String::from_utf8_lossy(&written);
        demand!(
            written.is_empty(),
            "it wrote to standard {name}: `{}`; messages go to the host's log",
            text.trim_end()
        );
    }
    Ok(())
}
