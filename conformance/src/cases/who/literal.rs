// SPDX-License-Identifier: Apache-2.0
//! Users' own files that look like marks of deletion.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use nix::sys::stat::{Mode, SFlag, mknod};
use plywood::ErrorKind;
use rustix::fs::XattrFlags;

use super::base;
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    manifest::Manifest,
    ops::Chain,
    tar_file::{Entry, TarFile},
};

fn demand_equal(expected: &Manifest, seen: &Manifest, what: &str) -> Outcome {
    let differences = expected.differences(seen);
    demand!(differences.is_empty(), "{what}: {differences:?}");
    Ok(())
}

/// Exports `child` and imports it again; a refusal of either is an answer too.
fn through_a_stream(target: &Target, allowed: ErrorKind) -> Result<Option<Manifest>, Failure> {
    let imported = target
        .diff("child")
        .and_then(|tar| target.put("again", Some("base"), &tar));
    match imported {
        Ok(_) => Ok(Some(target.manifest("again")?)),
        Err(error) => {
            same!(
                allowed,
                error.kind(),
                "the refusal of a diff that cannot be carried ({error})"
            );
            Ok(None)
        }
    }
}

pub(super) fn whiteout_name(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    target.create_writable("child", Some("base"))?;
    let made = target.within("child", |path| {
        Ok::<_, Failure>(fs::write(path.join(".wh.plain"), "mine"))
    })?;
    target.measure(
        "a_file_called_wh_can_be_made",
        f64::from(u8::from(made.is_ok())),
    )?;
    let child = target.manifest("child")?;
    demand!(
        child.has("plain"),
        "making `.wh.plain` deleted `plain` at the next mount"
    );
    same!(
        made.is_ok(),
        child.has(".wh.plain"),
        "whether `.wh.plain` is there at the next mount"
    );
    if let Some(again) = through_a_stream(target, ErrorKind::InvalidArchive)? {
        demand!(
            again.has("plain"),
            "a file called `.wh.plain` deletes `plain` when its layer is exported and imported"
        );
        same!(
            made.is_ok(),
            again.has(".wh.plain"),
            "whether `.wh.plain` is there after export and import"
        );
    }
    chain.check_all(target)
}

pub(super) fn device(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    target.step("a stream with a device 0:0")?;
    let entry = Entry::new(tar::EntryType::Char, "plain").device(0, 0);
    let tar = TarFile::new().add(entry).done();
    let answer = target.put("streamed", Some("base"), &tar);
    same!(
        Some(ErrorKind::InvalidArchive),
        answer.err().map(|error| error.kind()),
        "the answer to a stream with a device 0:0"
    );
    target.step("a device 0:0 made by a user")?;
    target.create_writable("child", Some("base"))?;
    let mode = Mode::from_bits_retain(0o600);
    let made = target.within("child", |path| {
        Ok::<_, Failure>([
            mknod(&path.join("new"), SFlag::S_IFCHR, mode, 0),
            fs::remove_file(path.join("plain"))
                .map_err(|_| nix::errno::Errno::EIO)
                .and_then(|()| mknod(&path.join("plain"), SFlag::S_IFCHR, mode, 0)),
        ])
    })?;
    let child = target.manifest("child")?;
    for (name, made) in ["new", "plain"].into_iter().zip(made) {
        same!(
            made.is_ok(),
            child.has(name),
            "whether the device 0:0 `{name}` is there at the next mount ({made:?})"
        );
    }
    target.create("grandchild", Some("child"))?;
    demand_equal(
        &child.clone().without_root(),
        &target.manifest("grandchild")?.without_root(),
        "a child of the layer with devices 0:0 looks different",
    )?;
    if let Some(again) = through_a_stream(target, ErrorKind::InvalidArchive)? {
        let again = again.without_root().in_seconds();
        demand_equal(
            &child.without_root().in_seconds(),
            &again,
            "export and import changed devices 0:0",
        )?;
    }
    chain.check_all(target)
}

const NAMES: [(&str, &[u8]); 6] = [
    ("trusted.overlay.opaque", b"y"),
    ("trusted.overlay.whiteout", b""),
    ("trusted.overlay.redirect", b"/other"),
    ("trusted.overlay.metacopy", b""),
    ("user.overlay.opaque", b"y"),
    ("user.overlay.whiteout", b""),
];

fn set_all(path: &Path) -> Vec<(&'static str, rustix::io::Result<()>)> {
    let mut answers = Vec::new();
    for (name, value) in NAMES {
        for place in ["d", "plain", "other"] {
            let set = rustix::fs::lsetxattr(path.join(place), name, value, XattrFlags::empty());
            answers.push((name, set));
        }
    }
    answers
}

/// Paths, types and sizes: the attributes themselves are only for the user who set them.
fn without_marks(path: &Path) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for name in crate::manifest::of(path)?.0.into_keys() {
        let meta = fs::symlink_metadata(path.join(&name))?;
        let size = if meta.is_file() { meta.len() } else { 0 };
        let kind = meta.mode() >> 12;
        found.push(format!("{} {kind:o} {size}", name.display()));
    }
    Ok(found)
}

pub(super) fn attributes(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    for (name, value) in NAMES {
        target.step(&format!("a stream with {name}"))?;
        for entry in [Entry::directory("d/"), Entry::file("plain", b"new")] {
            let tar = TarFile::new().add(entry.xattr(name, value)).done();
            let answer = target.put("streamed", Some("base"), &tar);
            same!(
                Some(ErrorKind::InvalidArchive),
                answer.err().map(|error| error.kind()),
                "the answer to a stream with the attribute {name}"
            );
        }
    }
    target.step("attributes set by a user")?;
    target.create_writable("child", Some("base"))?;
    let before = target.within("child", without_marks)?;
    let answers = target.within("child", |path| Ok::<_, Failure>(set_all(path)))?;
    let granted = answers.iter().filter(|(_, answer)| answer.is_ok()).count();
    target.measure(
        "reserved_attributes_can_be_set",
        f64::from(u32::try_from(granted)?),
    )?;
    target.create("grandchild", Some("child"))?;
    for id in ["child", "grandchild"] {
        same!(
            before,
            target.within(id, without_marks)?,
            "what `{id}` shows after a user set attributes that overlay file systems use"
        );
    }
    let imported = target
        .diff("child")
        .and_then(|tar| target.put("again", Some("base"), &tar));
    match imported {
        Ok(_) => same!(
            before,
            target.within("again", without_marks)?,
            "what export and import make of such attributes"
        ),
        Err(error) => same!(
            ErrorKind::InvalidArchive,
            error.kind(),
            "the refusal of a diff with such attributes ({error})"
        ),
    }
    chain.check_all(target)
}
