// SPDX-License-Identifier: Apache-2.0
//! What a new layer is like.

use std::{fs, os::unix::fs::MetadataExt as _};

use plywood::sdk::{CreateRequest, LayerKind};

use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    cases::{asks, lifecycle::sample},
    ops::{Chain, Op},
    target::{layer_id, new_layer},
};

pub(super) const KINDS: [(&str, LayerKind); 2] = [
    ("readonly", LayerKind::ReadOnly),
    ("readwrite", LayerKind::ReadWrite),
];

pub(super) fn empty(target: &mut Target) -> Outcome {
    for (id, kind) in KINDS {
        let mut new = new_layer(id, None);
        new.kind = kind;
        target.create_with(&new)?;
        same!(
            0,
            target.driver.usage(&layer_id(id))?.bytes,
            "bytes of a new layer"
        );
        let changes = target.changes(id)?;
        demand!(changes.is_empty(), "a new layer has changes: {changes:?}");
        target.within(id, |path| -> Outcome {
            let meta = fs::metadata(path)?;
            demand!(meta.is_dir(), "`{}` is no directory", path.display());
            let first = fs::read_dir(path)?.next();
            demand!(first.is_none(), "a new layer is not empty: {first:?}");
            let mode = format!("{:o}", meta.mode() & 0o7777);
            same!("555", mode, "mode of a new base layer's root directory");
            same!(
                (0, 0),
                (meta.uid(), meta.gid()),
                "owner of its root directory"
            );
            Ok(())
        })?;
    }
    Ok(())
}

/// A tree with something of every kind, mode, owner and attribute.
pub(super) fn everything() -> Vec<Op> {
    let mut ops = vec![
        Op::Mkdir("d".into()),
        Op::Mkdir("d/e".into()),
        Op::Write("d/e/deep".into(), b"deep".to_vec()),
        Op::Write("plain".into(), vec![b'p'; 70_000]),
        Op::Write("empty".into(), Vec::new()),
        Op::Link("hard".into(), "plain".into()),
        Op::Link("d/hard".into(), "plain".into()),
        Op::Symlink("soft".into(), "d/e/deep".into()),
        Op::Symlink("dangling".into(), "/no/such/file".into()),
        Op::Fifo("pipe".into()),
        Op::Device("null".into(), 1, 3),
        Op::Mkdir("closed".into()),
        Op::Chmod("closed".into(), 0),
        Op::Chown("d".into(), 1000, 2000),
        Op::Chown("soft".into(), 7, 8),
        Op::SetXattr(
            "plain".into(),
            "user.name".into(),
            b"value\0with nul".to_vec(),
        ),
        Op::SetXattr("d".into(), "user.dir".into(), Vec::new()),
        Op::Mtime("plain".into(), 1_234_567_890, 987_654_321),
        Op::Mtime("soft".into(), 1_234_567_891, 1),
    ];
    for (number, mode) in [0o0, 0o644, 0o4755, 0o2711, 0o1777, 0o7777, 0o400]
        .into_iter()
        .enumerate()
    {
        let path = format!("mode{number}");
        let owner = [0, 1, 1000, 65_534, 2_097_152, 3_000_000, 4_294_967_294][number];
        ops.push(Op::Write(path.clone().into(), path.clone().into_bytes()));
        ops.push(Op::Chown(path.clone().into(), owner, owner));
        ops.push(Op::Chmod(path.into(), mode));
    }
    ops
}

pub(super) fn content(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "one", &everything())?;
    target.step("write again through a later mount")?;
    chain.change(
        target,
        &[
            Op::Append("plain".into(), b"more".to_vec()),
            Op::Unlink("d/hard".into()),
            Op::Rename("d/e".into(), "moved".into()),
            Op::Chmod("mode0".into(), 0o600),
            Op::Chown("mode1".into(), 5, 6),
        ],
    )?;
    target.step("look at it through another instance")?;
    let again = target.reopened()?;
    chain.check(&again, "one")
}

pub(super) fn child(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &everything())?;
    for id in ["child", "grandchild"] {
        target.step(&format!("{id} without changes of its own"))?;
        chain.grow(target, id, &[])?;
        let changes = target.changes(id)?;
        demand!(changes.is_empty(), "{id} has changes: {changes:?}");
    }
    target.step("child of a layer that came as a stream")?;
    target.put("streamed", None, &sample())?;
    target.create("below", Some("streamed"))?;
    let (parent, child) = (target.manifest("streamed")?, target.manifest("below")?);
    demand!(
        parent.has("d/e/deep"),
        "the stream's content is missing: {parent}"
    );
    demand!(
        parent.root_like(&child),
        "the roots differ in mode or owner"
    );
    asks::equal(
        "a child differs from its parent",
        &parent.without_root(),
        &child.without_root(),
    )?;
    chain.check_all(target)
}

pub(super) fn root_attributes(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &[])?;
    for (number, mode) in [0o750, 0o777, 0o1777, 0o2775, 0o500]
        .into_iter()
        .enumerate()
    {
        target.step(&format!("root directory with mode {mode:o}"))?;
        let id = u32::try_from(number).map_err(std::io::Error::other)?;
        let root = || std::path::PathBuf::new();
        let ops = [
            Op::Chown(root(), 1000 + id, 2000 + id),
            Op::Chmod(root(), mode),
        ];
        chain.grow(target, &format!("changed{number}"), &ops)?;
        chain.grow(target, &format!("after{number}"), &[])?;
        chain.grow(
            target,
            &format!("later{number}"),
            &[Op::Write("x".into(), Vec::new())],
        )?;
    }
    chain.check_all(target)
}

pub(super) fn kinds(target: &mut Target) -> Outcome {
    for (below, below_kind) in KINDS {
        let mut new = new_layer(below, None);
        new.kind = below_kind;
        target.create_with(&new)?;
        target.apply(below, &sample()[..])?;
        for (above, kind) in KINDS {
            let id = format!("{above}-on-{below}");
            target.step(&format!("create {id}"))?;
            let mut new = new_layer(&id, Some(below));
            new.kind = kind;
            target.create_with(&new)?;
            asks::equal(
                &format!("{id} does not show its parent"),
                &target.manifest(below)?.without_root(),
                &target.manifest(&id)?.without_root(),
            )?;
            target.within(&id, |path| -> Outcome {
                fs::write(path.join("new"), &id)?;
                Ok(fs::remove_file(path.join("plain"))?)
            })?;
            let seen = target.manifest(&id)?;
            demand!(
                seen.has("new") && seen.has("hard") && !seen.has("plain"),
                "what was written through a mount of {id} is not there later: {seen}"
            );
            let tar = target.diff(&id)?;
            let copy = format!("copy-of-{id}");
            target.put(&copy, Some(below), &tar)?;
            asks::equal(
                &format!("the diff of {id}, put into a new layer, gives another tree"),
                &seen.without_root().in_seconds(),
                &target.manifest(&copy)?.without_root().in_seconds(),
            )?;
        }
        demand!(
            target.manifest(below)?.has("plain"),
            "{below} was changed by a child"
        );
    }
    target.step("the driver alone makes both kinds")?;
    for (id, kind) in KINDS {
        let mut request = CreateRequest::new(layer_id(&format!("alone-{id}")), None);
        request.kind = kind;
        target.driver.create(&request)?;
        demand!(
            target.driver.exists(&request.id)?,
            "{} does not exist",
            request.id
        );
        target.driver.remove(&request.id)?;
    }
    Ok::<_, Failure>(())
}
