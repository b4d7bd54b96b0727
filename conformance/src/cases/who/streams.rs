// SPDX-License-Identifier: Apache-2.0
//! Deletions in tar streams.

use std::collections::BTreeSet;

use plywood::ErrorKind;

use super::base;
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    manifest::Manifest,
    ops::{Chain, Op},
    tar_file::TarFile,
};

/// Layers made from `tars`, one on the other, on [`base`]; the paths that each one has.
fn put(target: &Target, tars: &[Vec<u8>]) -> Result<(Manifest, Vec<Manifest>), Failure> {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    let before = target.manifest("base")?;
    let mut parent = "base".to_owned();
    let mut seen = Vec::new();
    for (number, tar) in tars.iter().enumerate() {
        let id = format!("layer-{number}");
        target.put(&id, Some(&parent), tar)?;
        seen.push(target.manifest(&id)?);
        parent = id;
    }
    chain.check(target, "base")?;
    Ok((before, seen))
}

fn paths(manifest: &Manifest) -> BTreeSet<String> {
    let paths = manifest.0.keys();
    paths.map(|path| path.display().to_string()).collect()
}

/// The second tree is the first one without `gone` and with `new`, by path.
fn demand_change(before: &Manifest, after: &Manifest, gone: &[&str], new: &[&str]) -> Outcome {
    let mut expected = paths(before);
    for path in gone {
        demand!(expected.remove(*path), "`{path}` was not there before");
    }
    expected.extend(new.iter().map(|path| (*path).to_owned()));
    same!(expected, paths(after), "the paths of the layer");
    Ok(())
}

pub(super) fn whiteout(target: &mut Target) -> Outcome {
    let tar = TarFile::new()
        .whiteout(".wh.plain")
        .directory("d/")
        .whiteout("d/.wh.e")
        .whiteout(".wh.soft")
        .done();
    let (before, after) = put(target, &[tar])?;
    demand_change(
        &before,
        &after[0],
        &["plain", "d/e", "d/e/deep", "soft"],
        &[],
    )
}

pub(super) fn opaque(target: &mut Target) -> Outcome {
    let tar = TarFile::new()
        .directory("d/")
        .file("d/before", b"1")
        .directory("d/e/")
        .file("d/e/new", b"2")
        .whiteout("d/.wh..wh..opq")
        .file("d/after", b"3")
        .done();
    let later = TarFile::new().directory("d/").file("d/later", b"4").done();
    let (before, after) = put(target, &[tar, later])?;
    demand_change(
        &before,
        &after[0],
        &["d/e/deep", "d/file", "d/link"],
        &["d/before", "d/e/new", "d/after"],
    )?;
    demand_change(&after[0], &after[1], &[], &["d/later"])
}

pub(super) fn opaque_root(target: &mut Target) -> Outcome {
    let tar = TarFile::new()
        .file("before", b"1")
        .whiteout(".wh..wh..opq")
        .file("after", b"2")
        .directory("d/")
        .done();
    let later = TarFile::new().file("later", b"3").done();
    let (_, after) = put(target, &[tar, later])?;
    let expected = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    };
    same!(
        expected(&["", "before", "after", "d"]),
        paths(&after[0]),
        "the paths of a layer whose root is opaque"
    );
    same!(
        expected(&["", "before", "after", "d", "later"]),
        paths(&after[1]),
        "the paths of its child"
    );
    Ok(())
}

pub(super) fn missing(target: &mut Target) -> Outcome {
    let tar = TarFile::new()
        .whiteout(".wh.nobody")
        .whiteout(".wh.plain")
        .whiteout("nowhere/.wh.nothing")
        .directory("d/")
        .whiteout("d/.wh.nobody")
        .done();
    let (before, after) = put(target, &[tar])?;
    let mut seen = after[0].clone();
    // Whether a whiteout makes the directory that it stands in is left open.
    seen.0.remove(std::path::Path::new("nowhere"));
    demand_change(&before, &seen, &["plain"], &[])?;
    let base = TarFile::new()
        .whiteout(".wh.nobody")
        .file("file", b"x")
        .done();
    target.put("alone", None, &base)?;
    let alone = paths(&target.manifest("alone")?);
    same!(
        2,
        alone.len(),
        "paths of a base layer with a whiteout: {alone:?}"
    );
    Ok(())
}

/// A stream's own entries are never what its whiteouts delete, wherever they stand in it.
pub(super) fn both_orders(target: &mut Target) -> Outcome {
    let first = TarFile::new()
        .file("plain", b"new")
        .whiteout(".wh.plain")
        .directory("d/")
        .file("d/own", b"own")
        .whiteout(".wh.d")
        .done();
    let last = TarFile::new()
        .whiteout(".wh.plain")
        .file("plain", b"new")
        .whiteout(".wh.d")
        .directory("d/")
        .file("d/own", b"own")
        .done();
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    for (order, tar) in [("entry-first", &first), ("whiteout-first", &last)] {
        for run in 0..2 {
            target.step(&format!("{order}, run {run}"))?;
            let id = format!("{order}-{run}");
            target.put(&id, Some("base"), tar)?;
            let seen = target.manifest(&id)?;
            demand!(
                seen.has("plain") && seen.has("d/own"),
                "with the {order} the stream's own entries are gone: {seen}"
            );
            demand!(
                !seen.has("d/file") && !seen.has("d/e"),
                "with the {order} what lies below the deleted directory is back: {seen}"
            );
            target.within(&id, |path| {
                let text = std::fs::read_to_string(path.join("plain"))?;
                same!("new", text, "the file with the {order}");
                Ok::<_, Failure>(())
            })?;
        }
    }
    chain.check_all(target)
}

pub(super) fn nested(target: &mut Target) -> Outcome {
    let tar = TarFile::new()
        .whiteout(".wh.d")
        .whiteout("d/.wh.file")
        .whiteout("d/e/.wh.deep")
        .directory("other/")
        .done();
    let (before, after) = put(target, &[tar])?;
    let gone = ["d", "d/e", "d/e/deep", "d/file", "d/link"];
    demand_change(&before, &after[0], &gone, &[])?;
    let again = TarFile::new().directory("d/").file("d/new", b"x").done();
    target.put("again", Some("layer-0"), &again)?;
    let again = target.manifest("again")?;
    demand_change(&after[0], &again, &[], &["d", "d/new"])
}

pub(super) fn dots(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    chain.grow(target, "sibling", &[Op::Unlink("plain".into())])?;
    let hostile = [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."];
    for (number, name) in hostile.into_iter().enumerate() {
        let tar = TarFile::new().directory("d/").whiteout(name).done();
        let id = format!("hostile-{number}");
        let answer = target.put(&id, Some("base"), &tar);
        same!(
            Some(ErrorKind::InvalidArchive),
            answer.as_ref().err().map(plywood::Error::kind),
            "the answer to a stream with `{name}` ({answer:?})"
        );
        demand!(
            !target.driver.exists(&crate::target::layer_id(&id))?,
            "the refused stream with `{name}` left a layer"
        );
    }
    chain.check_all(target)
}
