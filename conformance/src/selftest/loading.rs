// SPDX-License-Identifier: Apache-2.0
//! Group ABI, the host's side: what it refuses to load, and what a panic comes to.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{sys::stat::Mode, unistd::mkfifo};
use plywood::{
    Error, ErrorKind,
    plugin::{PluginError, PluginOptions, Registry, load_plugin, tracing_host},
    sdk::{CreateRequest, OpenRequest},
};

use super::{HostCase, Lab, host};
use crate::{
    Status,
    case::{Failure, Outcome, demand, same},
    target::layer_id,
};

pub(super) const CASES: &[HostCase] = &[
    host("GD-ABI-002", missing_symbol),
    host("GD-ABI-006", no_plugin_file),
    host("GD-ABI-007", insecure_file),
    host("GD-ABI-017", panic_becomes_error),
];

/// How long a look at a file may take.
const SOON: Duration = Duration::from_secs(10);

/// The refusal of the file at `path`; a look that hangs is a failure.
fn refusal(path: &Path) -> Result<PluginError, Failure> {
    let (answer, wait) = mpsc::channel();
    let owned = path.to_owned();
    thread::spawn(move || answer.send(load_plugin(&owned).map(drop)));
    let shown = path.display();
    match wait.recv_timeout(SOON) {
        Ok(Err(error)) => Ok(error),
        Ok(Ok(())) => Err(Failure::new(format!("`{shown}` was loaded"))),
        Err(_) => Err(Failure::new(format!("no answer about `{shown}`"))),
    }
}

/// Demands that the refusal names the file, says `why` and has a remedy.
fn says(path: &Path, why: &str) -> Outcome {
    let error = refusal(path)?;
    let text = error.to_string();
    demand!(
        text.contains(why) && text.contains(&path.display().to_string()),
        "the refusal of `{}` should say `{why}` and name it: {text}",
        path.display()
    );
    demand!(
        !error.remedy().is_empty(),
        "the refusal has no remedy: {text}"
    );
    Ok(())
}

/// A shared object that is no plugin: the C library of this process.
fn shared_object(place: &Path) -> Result<PathBuf, Failure> {
    let maps = fs::read_to_string("/proc/self/maps")?;
    let library = maps.lines().find_map(|line| {
        let path = line.split_whitespace().last()?;
        let name = Path::new(path).file_name()?.to_str()?;
        (name.starts_with("libc.so") || name.starts_with("libc-")).then_some(path)
    });
    let library = library.ok_or_else(|| {
        Failure::not_run("this program has no C library in a file of its own to try it with")
    })?;
    let copy = place.join("libplywood_driver_other.so");
    fs::copy(library, &copy)?;
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o644))?;
    Ok(copy)
}

fn missing_symbol(lab: &Lab<'_>) -> Outcome {
    let place = lab.directory("missing-symbol")?;
    let path = shared_object(&place)?;
    says(&path, "does not export the entry symbol")?;
    // The process goes on, and so do drivers in it.
    let beside = lab.one(super::REFERENCE, "GD-LIF-008")?;
    same!(Status::Pass, beside.status, "a case after the refusal");
    Ok(())
}

/// The first bytes of an ELF file with this class, byte order, type and machine.
fn elf(class: u8, order: u8, kind: u16, machine: u16) -> Vec<u8> {
    let mut header = vec![0_u8; 64];
    header[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, order, 1, 0]);
    header[16..18].copy_from_slice(&kind.to_ne_bytes());
    header[18..20].copy_from_slice(&machine.to_ne_bytes());
    header
}

fn no_plugin_file(lab: &Lab<'_>) -> Outcome {
    let place = lab.directory("no-plugin")?;
    let path = place.join("libplywood_driver_other.so");
    let (word, order) = (
        if cfg!(target_pointer_width = "64") {
            2
        } else {
            1
        },
        if cfg!(target_endian = "little") { 1 } else { 2 },
    );
    let whole = fs::read(shared_object(&lab.directory("no-plugin-whole")?)?)?;
    for (content, why) in [
        (&b""[..], "the file is empty"),
        (b"#!/bin/sh\necho plugin\n", "it is no ELF file"),
        (&[0x7f, b'E'], "it is truncated"),
        (
            &elf(3 - word, order, 3, 62),
            "it is built for another word size",
        ),
        (
            &elf(word, 3 - order, 3, 62),
            "it is built for another byte order",
        ),
        (
            &elf(word, order, 3, 0xfeed),
            "it is built for another processor",
        ),
        (&whole[..4096], "it is truncated"),
    ] {
        fs::write(&path, content)?;
        says(&path, why)?;
    }
    fs::remove_file(&path)?;
    fs::create_dir(&path)?;
    says(&path, "it is a directory")?;
    fs::remove_dir(&path)?;
    mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)?;
    says(&path, "it is a FIFO")?;
    fs::remove_file(&path)?;
    says(&path, "cannot look at")?;
    Ok(())
}

fn insecure_file(lab: &Lab<'_>) -> Outcome {
    let place = lab.directory("insecure")?;
    let directory = place.join("plugins");
    fs::create_dir(&directory)?;
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
    mode(&directory, 0o755)?;
    let path = shared_object(&directory)?;
    let (trusted, writable) = (
        "does not export the entry symbol",
        "can be written by others",
    );
    // What is as it should be gets as far as being looked into.
    says(&path, trusted)?;
    let link = place.join("link.so");
    symlink(&path, &link)?;
    for (what, usual) in [(&path, 0o644), (&directory, 0o755)] {
        for bad in [0o666, 0o664, 0o646, 0o777, 0o1777] {
            mode(what, bad)?;
            says(&path, writable)?;
            let text = refusal(&link)?.to_string();
            demand!(
                text.contains(writable),
                "through a link it is accepted: {text}"
            );
        }
        mode(what, usual)?;
        chown(what, Some(65534), None)?;
        says(&path, "belongs to user 65534")?;
        chown(what, Some(0), None)?;
    }
    says(&path, trusted)
}

/// A driver that panics when it is asked for the metadata of a layer.
const PANICS: &str = "faulty-panics";

fn panic_becomes_error(lab: &Lab<'_>) -> Outcome {
    let place = lab.directory("panic")?;
    let open = |name: &str| {
        let homes = [place.join("graph").join(name), place.join("run").join(name)];
        let [home, run_dir] = homes;
        let request = OpenRequest::new(home, run_dir, tracing_host());
        Registry::discover(PluginOptions::only_embedded()).open(name, request)
    };
    let (driver, beside) = (open(PANICS)?, open(super::REFERENCE)?);
    let id = |text| layer_id(text);
    driver.create(&CreateRequest::new(id("layer"), None))?;
    let Err(error) = driver.metadata(&id("layer")) else {
        return Err(Failure::harness("the driver that should panic did not"));
    };
    same!(
        ErrorKind::DriverPoisoned,
        error.kind(),
        "the kind of error: {error}"
    );
    let text = error.to_string();
    demand!(
        text.contains("panicked in metadata") && text.contains("is not where it should be"),
        "the error does not carry the panic's text: {text}"
    );
    demand!(driver.poisoned().is_some(), "the instance is not marked");
    let refused = driver.create(&CreateRequest::new(id("other"), None)).err();
    same!(
        Some(ErrorKind::DriverPoisoned),
        refused.as_ref().map(Error::kind),
        "a write after the panic: {refused:?}"
    );
    demand!(driver.exists(&id("layer"))?, "reading is refused, too");
    beside.create(&CreateRequest::new(id("beside"), None))?;
    demand!(
        beside.poisoned().is_none(),
        "another driver is refused, too"
    );
    for driver in [driver, beside] {
        driver.close()?;
    }
    Ok(())
}
