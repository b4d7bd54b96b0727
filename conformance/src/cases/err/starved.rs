// SPDX-License-Identifier: Apache-2.0
//! A process that may not open any more files.

use std::{
    fs::{self, File},
    io,
};

use plywood::{
    ErrorKind,
    sdk::{CreateRequest, MountRequest},
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    cases::{asks::Traces, lifecycle::sample},
    target::layer_id,
    wire,
};

/// The most files that one operation may have open at the same time.
const MOST: u64 = 64;

pub(super) fn emfile(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    target.create_writable("other", Some("base"))?;
    let before = target.manifest("child")?;
    // In a process of its own, since the limit is that of the whole process.
    target.in_peer("starved", &[])?;
    crate::cases::asks::equal("a layer changed", &before, &target.manifest("child")?)?;
    same!(
        3,
        target.layers()?.len(),
        "how many layers are recorded in the end"
    );
    Ok(())
}

/// Numbers of open files, in order.
fn open_files() -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        numbers.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u64>().ok()),
        );
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Opens files until the numbers in use are without gaps: a limit then counts what is left.
fn plug_gaps() -> io::Result<Vec<File>> {
    let mut plugs = Vec::new();
    loop {
        let used = open_files()?;
        // The last number is that of the listing itself, or it stands before a gap.
        let gaps = used.last().map_or(0, |last| last + 1) - u64::try_from(used.len()).unwrap_or(0);
        if gaps == 0 {
            return Ok(plugs);
        }
        plugs.push(File::open("/dev/null")?);
    }
}

/// An operation: what it is called, what does it, and what must not have happened when it fails.
type Operation<'a> = (
    &'a str,
    &'a dyn Fn() -> plywood::Result<()>,
    &'a dyn Fn() -> Outcome,
);

pub(super) fn role(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    let full = getrlimit(Resource::Nofile);
    // Everything has happened once, so that nothing is opened for the first time.
    target.put("warm", Some("base"), &sample())?;
    target.manifest("warm")?;
    target.diff("warm")?;
    target.delete("warm")?;
    let (child, new) = (layer_id("child"), layer_id("new"));
    let gone = || -> Outcome {
        demand!(
            !target.driver.exists(&new)?,
            "a layer exists that could not be made"
        );
        same!(
            3,
            target.layers()?.len(),
            "how many layers are recorded after a failure"
        );
        Ok(())
    };
    let there = || -> Outcome {
        demand!(
            target.driver.exists(&child)?,
            "a layer is gone after an operation that failed"
        );
        same!(
            0,
            target.mount_count("child")?,
            "how often a layer is mounted after a failure"
        );
        Ok(())
    };
    let request = CreateRequest::new(new.clone(), Some(layer_id("base")));
    let operations: [Operation<'_>; 9] = [
        ("driver create", &|| target.driver.create(&request), &gone),
        (
            "driver remove",
            &|| target.driver.remove(&new).map(drop),
            &there,
        ),
        (
            "create",
            &|| target.create("new", Some("base")).map(drop),
            &gone,
        ),
        ("delete", &|| target.delete("new"), &there),
        (
            "put",
            &|| target.put("new", Some("base"), &sample()).map(drop),
            &gone,
        ),
        ("diff", &|| target.diff("base").map(drop), &there),
        ("changes", &|| target.changes("child").map(drop), &there),
        (
            "apply",
            &|| target.apply("other", &sample()[..]).map(drop),
            &there,
        ),
        (
            "mount",
            &|| target.mount("child", &MountRequest::default()).map(drop),
            &there,
        ),
    ];
    for (name, operation, unharmed) in operations {
        starve(&target, full, name, operation, unharmed)?;
    }
    starve(
        &target,
        full,
        "unmount",
        &|| target.unmount("child"),
        &|| Ok(()),
    )?;
    there()?;
    target.delete("new")?;
    answers_truly(&target, full)?;
    target.close()?;
    Ok(())
}

/// Runs `operation` with one more file allowed each time, until it works.
fn starve(
    target: &Target,
    full: Rlimit,
    name: &str,
    operation: &dyn Fn() -> plywood::Result<()>,
    unharmed: &dyn Fn() -> Outcome,
) -> Outcome {
    let plugs = plug_gaps()?;
    let before = open_files()?;
    let used = before.last().map_or(0, |last| last + 1);
    // The listing itself had a file open.
    let traces = Traces::of(target)?;
    for more in 0..MOST {
        wire::step(&format!("{name} with {more} more files"))?;
        let limit = Rlimit {
            current: Some(used.saturating_sub(1) + more),
            maximum: full.maximum,
        };
        setrlimit(Resource::Nofile, limit)?;
        let answer = operation();
        setrlimit(Resource::Nofile, full)?;
        let after = open_files()?;
        let left: Vec<_> = after.iter().filter(|file| !before.contains(file)).collect();
        demand!(
            left.is_empty(),
            "{name} with {more} more files ({answer:?}) left files open: {left:?}"
        );
        let Err(error) = answer else {
            target.measure(
                &format!("files_of_{}", name.replace(' ', "_")),
                f64::from(u32::try_from(more)?),
            )?;
            drop(plugs);
            return Ok(());
        };
        let text = Failure::from(error).text;
        demand!(
            text.contains("os error 24") || text.contains("oo many open files"),
            "{name} failed for lack of open files, and its error does not say so: {text}"
        );
        unharmed()?;
        if name.contains("create") || name == "put" {
            traces.nothing_new(target, &format!("a failed {name}"))?;
        }
    }
    Err(Failure::new(format!(
        "{name} does not work with {MOST} more open files"
    )))
}

/// What cannot be looked at is no absent layer.
fn answers_truly(target: &Target, full: Rlimit) -> Outcome {
    let plugs = plug_gaps()?;
    let used = open_files()?.last().map_or(0, |last| last + 1);
    let limit = Rlimit {
        current: Some(used.saturating_sub(1)),
        maximum: full.maximum,
    };
    setrlimit(Resource::Nofile, limit)?;
    let exists = target.driver.exists(&layer_id("child"));
    let listed = target
        .driver
        .capabilities()
        .list
        .then(|| target.driver.list());
    let usage = target.driver.usage(&layer_id("base"));
    setrlimit(Resource::Nofile, full)?;
    drop(plugs);
    demand!(
        exists.as_ref().map_or_else(
            |error| error.kind() != ErrorKind::LayerUnknown,
            |there| *there
        ),
        "without files to open the driver says of a layer that is there: {exists:?}"
    );
    if let Some(Ok(listed)) = listed {
        same!(
            3,
            listed.len(),
            "layers that are listed without files to open"
        );
    }
    if let Ok(usage) = usage {
        demand!(
            usage.bytes > 0,
            "without files to open the driver says that a layer has no content"
        );
    }
    Ok(())
}
