// SPDX-License-Identifier: Apache-2.0
//! Depth (DEP): long chains, wide trees and many layers.

use std::{
    fs,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use plywood::sdk::{ChangeKind, CreateRequest, DriverErrorCode, LayerKind, Removed};

use super::{
    con::{listed, residue, together},
    direct,
};
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, case, demand, same},
    excuses,
    manifest::{self, Manifest},
    ops::{self, Chain, Op},
    tar_file::TarFile,
    target::layer_id,
};

pub(super) const CASES: &[Case] = &[
    case("GD-DEP-001", depth_20),
    case("GD-DEP-002", depth_128_read),
    case("GD-DEP-003", depth_128_equal),
    case("GD-DEP-004", depth_300),
    case("GD-DEP-005", depth_max),
    case("GD-DEP-006", over_max),
    case("GD-DEP-007", whiteout_at_depth),
    case("GD-DEP-008", remove_chain),
    bare("GD-DEP-009", long_paths),
    case("GD-DEP-010", wide_tree),
    case("GD-DEP-011", many_layers),
    case("GD-DEP-012", depth_500),
];

/// How many layers may stand below one, as far as it matters here.
fn limit(target: &Target) -> usize {
    let limit = target.driver.capabilities().depth_limit;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// A chain of that many layers, or as many as the driver allows.
fn depth(target: &Target, wanted: usize) -> usize {
    wanted.min(limit(target).saturating_add(1))
}

fn id(number: usize) -> String {
    format!("layer-{number}")
}

/// Puts layers on each other, the first on nothing.
fn stack(target: &Target, layers: usize, tar: impl Fn(usize) -> TarFile) -> Outcome {
    for number in 0..layers {
        let parent = number.checked_sub(1).map(id);
        target.put(&id(number), parent.as_deref(), &tar(number).done())?;
    }
    Ok(())
}

/// Layers without content of their own, but the lowest.
fn stack_of_empty(target: &Target, layers: usize) -> Outcome {
    target.put(&id(0), None, &TarFile::new().file("bottom", b"0").done())?;
    for number in 1..layers {
        target.create(&id(number), Some(&id(number - 1)))?;
    }
    Ok(())
}

fn depth_20(target: &mut Target) -> Outcome {
    target.without_sync()?;
    let layers = depth(target, 20);
    let tar = |number: usize| {
        let text = number.to_string();
        // Of another size each: two trees are compared by size and time.
        TarFile::new()
            .file("same", text.repeat(number + 1).as_bytes())
            .file(&format!("own-{number}"), text.as_bytes())
    };
    stack(target, layers, tar)?;
    let top = id(layers - 1);
    target.within(&top, |path| {
        for number in 0..layers {
            let read = fs::read_to_string(path.join(format!("own-{number}")))?;
            same!(number.to_string(), read, "the file of layer {number}");
        }
        let read = fs::read_to_string(path.join("same"))?;
        let expected = (layers - 1).to_string().repeat(layers);
        same!(expected, read, "the file of every layer");
        Ok::<_, Failure>(())
    })?;
    demand!(
        target.diff(&top)? == tar(layers - 1).done(),
        "the diff of the top layer is not the stream that it was made from"
    );
    let changes: Vec<_> = target
        .changes(&top)?
        .into_iter()
        .map(|change| (change.path, change.kind))
        .collect();
    let expected = vec![
        (
            PathBuf::from(format!("/own-{}", layers - 1)),
            ChangeKind::Add,
        ),
        (PathBuf::from("/same"), ChangeKind::Modify),
    ];
    same!(expected, changes, "the changes of the top layer");
    Ok(())
}

fn depth_128_read(target: &mut Target) -> Outcome {
    target.without_sync()?;
    let layers = depth(target, 128);
    stack_of_empty(target, layers)?;
    let manifest = target.manifest(&id(layers - 1))?.without_root();
    demand!(
        manifest.0.keys().eq([Path::new("bottom")]),
        "{layers} layers should show the one file of the lowest, and show {manifest}"
    );
    let mut chain = 0;
    let mut next = Some(id(layers - 1));
    let records = target.layers()?;
    while let Some(id) = next.take() {
        chain += 1;
        let record = records.iter().find(|layer| layer.id == id);
        let record = record.ok_or_else(|| Failure::new(format!("layer `{id}` is not listed")))?;
        next.clone_from(&record.parent);
    }
    same!(layers, chain, "the layers of the chain");
    Ok(())
}

fn depth_128_equal(target: &mut Target) -> Outcome {
    const LAYERS: usize = 128;
    target.without_sync()?;
    let layers = depth(target, LAYERS);
    let flat = target.scratch("flat")?;
    let mut looked_at: Vec<(usize, Manifest)> = Vec::new();
    for number in 0..layers {
        let parent = number.checked_sub(1).map(id);
        let ops = pattern(number);
        target.create_writable(&id(number), parent.as_deref())?;
        let seen = target.within(&id(number), |path| -> Result<_, Failure> {
            ops::apply(path, &ops)?;
            Ok(manifest::of(path)?.without_root())
        })?;
        ops::apply(&flat, &ops)?;
        let differences = manifest::of(&flat)?.without_root().differences(&seen);
        demand!(
            differences.is_empty(),
            "layer {number} of {layers} is not what the same changes make of a flat directory: {}",
            differences.join("; ")
        );
        if number.is_multiple_of(16) || number + 1 == layers {
            looked_at.push((number, seen));
        }
    }
    for (number, before) in looked_at {
        let now = target.manifest(&id(number))?.without_root();
        let differences = before.differences(&now);
        demand!(
            differences.is_empty(),
            "layer {number} changed until there were {layers} layers: {}",
            differences.join("; ")
        );
    }
    Ok(())
}

/// Overwrites, adds, and replaces a directory, in turn.
fn pattern(number: usize) -> Vec<Op> {
    let text = format!("of layer {number}").into_bytes();
    let overwrite = Op::Write("overwritten".into(), text.clone());
    let change = match number % 4 {
        0 if number == 0 => vec![Op::Mkdir("d".into())],
        0 => vec![Op::RemoveTree("d".into()), Op::Mkdir("d".into())],
        1 => vec![Op::Write(format!("d/{number}").into(), text)],
        2 => vec![Op::Write(format!("added-{}", number % 12).into(), text)],
        _ => {
            let to = format!("moved-{}", number % 9);
            vec![Op::Rename("overwritten".into(), to.into())]
        }
    };
    [change, vec![overwrite]].concat()
}

fn depth_300(target: &mut Target) -> Outcome {
    target.without_sync()?;
    let layers = depth(target, 300);
    for number in 0..layers {
        let parent = number.checked_sub(1).map(id);
        direct::create(target, &id(number), parent.as_deref())?;
        let file = format!("file-{number}");
        direct::write(target, &id(number), &file, &number.to_string())?;
    }
    direct::within(target, &id(layers - 1), |path| {
        for number in 0..layers {
            let read = fs::read_to_string(path.join(format!("file-{number}")));
            demand!(
                read.as_deref().is_ok_and(|text| text == number.to_string()),
                "of {layers} layers, the file of layer {number} reads as {read:?}"
            );
        }
        same!(layers, fs::read_dir(path)?.count(), "the number of files");
        Ok(())
    })
}

/// At the declared limit everything works, not just the making.
fn depth_max(target: &mut Target) -> Outcome {
    target.without_sync()?;
    let layers = depth(target, 501);
    stack_of_empty(target, layers - 1)?;
    let (below, top) = (id(layers - 2), id(layers - 1));
    target.step("put, at the limit")?;
    let tar = TarFile::new()
        .file("top", b"1")
        .whiteout(".wh.bottom")
        .done();
    target.put(&top, Some(&below), &tar)?;
    let manifest = target.manifest(&top)?.without_root();
    demand!(
        manifest.0.keys().eq([Path::new("top")]),
        "the top of {layers} layers should have the one file `top`, and has {manifest}"
    );
    demand!(target.diff(&top)? == tar, "its diff is not its stream");
    target.step("a layer to write to, at the limit")?;
    target.create_writable("beside", Some(&below))?;
    target.within("beside", |path| {
        Ok::<_, Failure>(fs::write(path.join("new"), "2")?)
    })?;
    let kinds: Vec<_> = target
        .changes("beside")?
        .into_iter()
        .map(|change| (change.path, change.kind))
        .collect();
    same!(
        vec![(PathBuf::from("/new"), ChangeKind::Add)],
        kinds,
        "its changes"
    );
    let exported = target.diff("beside")?;
    target.step("apply, at the limit")?;
    target.create("again", Some(&below))?;
    target.apply("again", &exported[..])?;
    demand!(
        target.manifest("again")?.has("new") && target.manifest("again")?.has("bottom"),
        "what was exported and applied again is not there"
    );
    Ok(())
}

/// Layers that the driver alone knows; the lowest has a file.
fn driver_stack(target: &Target, layers: usize) -> Outcome {
    direct::create(target, &id(0), None)?;
    direct::write(target, &id(0), "bottom", "0")?;
    for number in 1..layers {
        direct::create(target, &id(number), Some(&id(number - 1)))?;
    }
    Ok(())
}

fn shows_bottom(target: &Target, layers: usize) -> Outcome {
    direct::within(target, &id(layers - 1), |path| {
        let read = fs::read_to_string(path.join("bottom"));
        demand!(
            read.as_deref().is_ok_and(|text| text == "0"),
            "the lowest of {layers} layers reads as {read:?} from the highest"
        );
        Ok(())
    })
}

fn over_max(target: &mut Target) -> Outcome {
    target.without_sync()?;
    let Some(limit) = target.driver.capabilities().depth_limit else {
        // Nothing is declared: then nothing may be refused.
        target.step("no limit is declared")?;
        driver_stack(target, 520)?;
        return shows_bottom(target, 520);
    };
    let layers = limit as usize + 1;
    driver_stack(target, layers)?;
    shows_bottom(target, layers)?;
    let before = residue(target)?;
    let mut request = CreateRequest::new(layer_id("over"), Some(layer_id(&id(layers - 1))));
    for kind in [LayerKind::ReadOnly, LayerKind::ReadWrite] {
        request.kind = kind;
        let refused = target.driver.unguarded().create(&request);
        demand!(
            matches!(&refused, Err(error) if error.code == DriverErrorCode::TOO_DEEP),
            "`create` of a layer on {layers} others, where {limit} are declared, must be refused \
             as {:?}, not by a later mount; it was answered {refused:?}",
            DriverErrorCode::TOO_DEEP
        );
    }
    if target.driver.capabilities().staging {
        let refused = target.driver.unguarded().stage(&request).map(drop);
        demand!(
            matches!(&refused, Err(error) if error.code == DriverErrorCode::TOO_DEEP),
            "`stage` for a layer on {layers} others was answered {refused:?}"
        );
    }
    demand!(
        !target.driver.exists(&request.id)?,
        "the refused layer exists"
    );
    same!(
        before,
        residue(target)?,
        "the home before and after the refusals"
    );
    Ok(())
}

fn whiteout_at_depth(target: &mut Target) -> Outcome {
    target.without_sync()?;
    let layers = depth(target, 64);
    let tar = |number: usize| match number {
        0 => TarFile::new()
            .file("gone", b"0")
            .file("stays", b"0")
            .directory("d/")
            .file("d/gone", b"0")
            .directory("o/")
            .file("o/hidden", b"0"),
        _ if number + 1 == layers => TarFile::new()
            .whiteout(".wh.gone")
            .directory("d/")
            .whiteout("d/.wh.gone")
            .directory("o/")
            .whiteout("o/.wh..wh..opq"),
        _ => TarFile::new().file(&format!("between-{}", number % 5), b"x"),
    };
    stack(target, layers, tar)?;
    let below = target.manifest(&id(layers - 2))?;
    for path in ["gone", "d/gone", "o/hidden"] {
        demand!(
            below.has(path),
            "`{path}` is not seen through {layers} layers"
        );
    }
    let top = target.manifest(&id(layers - 1))?;
    for path in ["gone", "d/gone", "o/hidden"] {
        demand!(
            !top.has(path),
            "`{path}` of the lowest layer shows through the deletion in layer {layers}"
        );
    }
    demand!(
        top.has("stays") && top.has("d") && top.has("o"),
        "more than the deleted is gone: {top}"
    );
    Ok(())
}

fn remove_chain(target: &mut Target) -> Outcome {
    target.without_sync()?;
    target.create("warm", None)?;
    target.delete("warm")?;
    let before = residue(target)?;
    let layers = depth(target, 501);
    driver_stack(target, layers)?;
    shows_bottom(target, layers)?;
    // From the top, as images are removed.
    for number in (0..layers).rev() {
        let id = layer_id(&id(number));
        same!(
            Removed::Now,
            target.driver.remove(&id)?,
            "the removal of layer {number} of {layers}"
        );
        demand!(!target.driver.exists(&id)?, "layer {number} still exists");
    }
    if let Some(listed) = listed(target)? {
        demand!(listed.is_empty(), "still listed are {listed:?}");
    }
    let after = residue(target)?;
    let left: Vec<_> = after.difference(&before).take(10).collect();
    demand!(left.is_empty(), "left in the home: {left:?}");
    Ok(())
}

/// More text than a page of mount options holds, and single paths that are longer than a value.
fn long_paths(site: &Site) -> Outcome {
    let mut root = site.root.clone();
    for part in ["a", "b", "c", "d"] {
        root.push(part.repeat(200));
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&root)?;
    let mut target = site.at(&root).open()?;
    target.without_sync()?;
    let layers = depth(&target, 64);
    let long = |number: usize| format!("{}-{number:03}", "x".repeat(120));
    for number in 0..layers {
        let parent = number.checked_sub(1).map(long);
        let tar = TarFile::new().file(&format!("file-{number}"), b"x").done();
        target.put(&long(number), parent.as_deref(), &tar)?;
    }
    target.create_writable("top", Some(&long(layers - 1)))?;
    target.within("top", |path| {
        fs::write(path.join("new"), "x")?;
        for number in 0..layers {
            let file = format!("file-{number}");
            demand!(
                path.join(&file).exists(),
                "`{file}` of {layers} layers with long paths is not there"
            );
        }
        same!(
            layers + 1,
            fs::read_dir(path)?.count(),
            "the number of files"
        );
        Ok::<_, Failure>(())
    })?;
    let new = target.changes("top")?;
    same!(1, new.len(), "the number of changes");
    target.close()?;
    Ok(())
}

fn wide_tree(target: &mut Target) -> Outcome {
    target.without_sync()?;
    let mut chain = Chain::new(target)?;
    let mut base = Vec::new();
    let mut top = Vec::new();
    for outer in 0..10 {
        base.push(Op::Mkdir(format!("{outer}").into()));
        for inner in 0..50 {
            let dir = format!("{outer}/{inner}");
            base.push(Op::Mkdir(dir.clone().into()));
            for file in 0..2 {
                let path = PathBuf::from(format!("{dir}/{file}"));
                base.push(Op::Write(path.clone(), path.display().to_string().into()));
                match (outer + inner + file) % 7 {
                    0 => top.push(Op::Append(path, b"more".to_vec())),
                    1 => top.push(Op::Unlink(path)),
                    2 => top.push(Op::Chmod(path, 0o600)),
                    _ => {}
                }
            }
        }
    }
    chain.grow(target, "base", &base)?;
    chain.grow(target, "top", &top)?;
    let exported = target.diff("top")?;
    target.put("again", Some("base"), &exported)?;
    let expected = target.manifest("top")?.without_root().in_seconds();
    let seen = target.manifest("again")?.without_root().in_seconds();
    let differences = expected.differences(&seen);
    demand!(
        differences.is_empty(),
        "export and import changed a wide tree: {}",
        differences.join("; ")
    );
    chain.check(target, "base")
}

fn many_layers(target: &mut Target) -> Outcome {
    const LAYERS: usize = 5000;
    const THREADS: usize = 8;
    let bound = target.bound(Duration::from_secs(30));
    target.without_sync()?;
    let start = Instant::now();
    // Where each waits for the pool to be written, they share the wait.
    together(THREADS, |first| {
        for number in (first..LAYERS).step_by(THREADS) {
            let request = CreateRequest::new(layer_id(&id(number)), None);
            target.driver.create(&request)?;
        }
        Ok(())
    })?;
    target.measure(
        "create_5000_by_8_threads_ms",
        start.elapsed().as_secs_f64() * 1000.0,
    )?;
    let start = Instant::now();
    let again = target.driver()?;
    let opened = start.elapsed();
    target.measure("open_with_5000_ms", opened.as_secs_f64() * 1000.0)?;
    demand!(
        opened < bound,
        "opening with {LAYERS} layers took {opened:?}"
    );
    demand!(
        again.exists(&layer_id(&id(LAYERS - 1)))?,
        "the last of {LAYERS} layers does not exist"
    );
    let start = Instant::now();
    if let Some(listed) = listed(target)? {
        let took = start.elapsed();
        target.measure("list_5000_ms", took.as_secs_f64() * 1000.0)?;
        demand!(took < bound, "listing {LAYERS} layers took {took:?}");
        same!(LAYERS, listed.len(), "the number of listed layers");
    }
    target.create("more", None)?;
    target.within("more", |path| {
        Ok::<_, Failure>(fs::write(path.join("x"), "x")?)
    })?;
    target.delete("more")?;
    Ok(())
}

fn depth_500(target: &mut Target) -> Outcome {
    const LAYERS: usize = 500;
    if limit(target) < LAYERS - 1 {
        return Err(Failure::not_applicable(
            excuses::SHALLOW,
            format!("the driver declares a depth of {}", limit(target)),
        ));
    }
    target.without_sync()?;
    for number in 0..LAYERS {
        let (parent, text) = (number.checked_sub(1).map(id), number.to_string());
        direct::create(target, &id(number), parent.as_deref())?;
        direct::write(target, &id(number), "newest", &text)?;
        if number.is_multiple_of(20) {
            direct::write(target, &id(number), &format!("every-{number}"), &text)?;
        }
    }
    for number in (0..LAYERS).step_by(100).chain([LAYERS - 1]) {
        direct::within(target, &id(number), |path| {
            let read = fs::read_to_string(path.join("newest"))?;
            same!(
                number.to_string(),
                read,
                "the file of layer {number} of {LAYERS}"
            );
            for lower in (0..=number).step_by(20) {
                let read = fs::read_to_string(path.join(format!("every-{lower}")))?;
                same!(
                    lower.to_string(),
                    read,
                    "layer {lower} seen from layer {number}"
                );
            }
            Ok(())
        })?;
    }
    Ok(())
}
