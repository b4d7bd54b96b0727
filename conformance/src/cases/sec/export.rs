// SPDX-License-Identifier: Apache-2.0
//! What layers hold is archived and copied, never followed.

use std::{
    fs,
    os::{
        fd::AsRawFd as _,
        unix::{fs::symlink, net::UnixListener},
    },
    path::Path,
};

use nix::{
    sys::stat::{Mode, SFlag, makedev, mknod},
    unistd::mkfifo,
};
use plywood::{layers::NewLayer, sdk::LayerKind};

use super::{SECRET, Victim, holds_no_secret};
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, case, demand},
    cases::lifecycle::sample,
    manifest,
    tar_file::TarFile,
    wire,
};

pub(in crate::cases) const CASES: &[Case] = &[
    case("GD-SEC-008", diff_follows_nothing),
    case("GD-SEC-009", copies_follow_nothing),
    case("GD-SEC-010", nothing_blocks).roles(&[("export", export)]),
];

fn contains_secret(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|window| window == SECRET)
}

/// Links to the host's files, as content.
fn plant(path: &Path, victim: &Victim) -> Outcome {
    symlink(victim.place.join("secret"), path.join("to-file"))?;
    symlink(&victim.place, path.join("to-directory"))?;
    symlink(victim.relative(), path.join("relative"))?;
    symlink("/proc/self/root", path.join("magic"))?;
    fs::hard_link(path.join("to-file"), path.join("linked"))?;
    Ok(())
}

fn diff_follows_nothing(target: &mut Target) -> Outcome {
    let victim = Victim::new(target)?;
    let size = vec![b'x'; SECRET.len()];
    let base = TarFile::new()
        .file("swapped", &size)
        .directory("swapped-dir/")
        .file("swapped-dir/secret", &size)
        .done();
    target.put("base", None, &base)?;
    target.create_writable("top", Some("base"))?;
    target.within("top", |path| plant(path, &victim))?;
    target.step("links in a layer")?;
    let tar = target.diff("top")?;
    demand!(!contains_secret(&tar), "the diff holds the host's secret");
    target.put("again", Some("base"), &tar)?;
    let (before, after) = (target.manifest("top")?, target.manifest("again")?);
    for name in ["to-file", "to-directory", "relative", "magic"] {
        demand!(
            after.has(name),
            "the link `{name}` is not in the diff: {after}"
        );
    }
    let differences = before
        .without_root()
        .in_seconds()
        .differences(&after.without_root().in_seconds());
    demand!(
        differences.is_empty(),
        "links came back changed: {}",
        differences.join("; ")
    );
    target.changes("top")?;
    target.diff_size(None, "top")?;
    target.step("files of a recorded stream that were replaced by links")?;
    target.within("base", |path| -> Outcome {
        fs::remove_file(path.join("swapped"))?;
        symlink(victim.place.join("secret"), path.join("swapped"))?;
        fs::remove_dir_all(path.join("swapped-dir"))?;
        Ok(symlink(&victim.place, path.join("swapped-dir"))?)
    })?;
    let mut out = Vec::new();
    // It cannot be rebuilt any more: an error, or a stream of what is there now.
    let _refused = target.diff_to(None, "base", &mut out);
    demand!(
        !contains_secret(&out),
        "a file of the layer was replaced by a link, and the diff holds what it points to"
    );
    victim.intact("after the diffs")
}

fn copies_follow_nothing(target: &mut Target) -> Outcome {
    let victim = Victim::new(target)?;
    target.create_writable("base", None)?;
    target.within("base", |path| plant(path, &victim))?;
    let before = target.manifest("base")?.without_root_time();
    target.create_writable("child", Some("base"))?;
    let mut copies = vec!["child"];
    if target.driver.capabilities().template {
        target.create_with(&NewLayer {
            id: Some("copy".to_owned()),
            template: Some("base".to_owned()),
            kind: LayerKind::ReadWrite,
            ..NewLayer::default()
        })?;
        copies.push("copy");
    }
    for id in copies {
        let seen = target.within(id, |path| -> Result<_, Failure> {
            holds_no_secret(path, "a new layer")?;
            let seen = manifest::of(path)?.without_root_time();
            // Writing over the links replaces them.
            fs::remove_file(path.join("to-file"))?;
            fs::write(path.join("to-file"), "mine")?;
            Ok(seen)
        })?;
        let differences = before.differences(&seen);
        demand!(
            differences.is_empty(),
            "`{id}` is not what it was made from: {}",
            differences.join("; ")
        );
    }
    target.driver.usage(&crate::target::layer_id("base"))?;
    victim.intact("after layers were made from one with links")
}

/// Puts what blocks whoever opens it where a plain file was.
fn replace(path: &Path) -> Outcome {
    let mode = Mode::from_bits_truncate(0o666);
    for name in ["plain", "setuid", "sticky"] {
        let path = path.join(name);
        if path.is_dir() {
            fs::remove_dir_all(&path)?;
        } else {
            fs::remove_file(&path)?;
        }
    }
    mkfifo(&path.join("plain"), mode)?;
    // The terminal of whoever opens it, and a device that nobody drives.
    mknod(&path.join("setuid"), SFlag::S_IFCHR, mode, makedev(5, 0))?;
    mknod(
        &path.join("sticky"),
        SFlag::S_IFCHR,
        mode,
        makedev(250, 250),
    )?;
    mkfifo(&path.join("d/e/also"), mode)?;
    // The path of a socket is short.
    let directory = fs::File::open(path)?;
    let place = format!("/proc/self/fd/{}/socket", directory.as_raw_fd());
    drop(UnixListener::bind(place)?);
    Ok(())
}

fn nothing_blocks(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("top", Some("base"))?;
    target.within("top", replace)?;
    target.put("recorded", None, &sample())?;
    target.within("recorded", replace)?;
    let mut peer = target.peer("export", &[])?;
    for step in [
        "diff", "changes", "size", "usage", "child", "recorded", "removal",
    ] {
        let waited = peer.wait_for_step(step);
        waited.map_err(|failure| {
            Failure::new(format!(
                "FIFOs, sockets and devices where files were: `{step}` was not reached, something \
                 opens them: {}",
                failure.text
            ))
        })?;
    }
    peer.join()
}

/// Each step is named when it was done.
fn export(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    let tar = target.diff("top")?;
    demand!(!tar.is_empty(), "the diff is empty");
    wire::step("diff")?;
    target.changes("top")?;
    target.changes_between(Some("base"), "recorded")?;
    wire::step("changes")?;
    target.diff_size(None, "top")?;
    wire::step("size")?;
    target.driver.usage(&crate::target::layer_id("top"))?;
    wire::step("usage")?;
    target.create_writable("child", Some("top"))?;
    target.put("again", Some("base"), &tar)?;
    wire::step("child")?;
    let mut out = Vec::new();
    // Its stream cannot be rebuilt; that must be said, not waited for.
    let _refused = target.diff_to(None, "recorded", &mut out);
    wire::step("recorded")?;
    for id in ["child", "again", "top", "recorded", "base"] {
        target.delete(id)?;
    }
    wire::step("removal")?;
    Ok(())
}
