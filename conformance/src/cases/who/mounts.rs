// SPDX-License-Identifier: Apache-2.0
//! Deletions through mounts.

use std::{
    fs,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::Path,
};

use super::{base, p};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    ops::{Chain, Op},
    tar_file::TarFile,
};

/// A chain with [`base`] at the bottom.
fn chain(target: &Target) -> Result<Chain, Failure> {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    Ok(chain)
}

pub(super) fn delete_file(target: &mut Target) -> Outcome {
    let mut chain = chain(target)?;
    let ops = [Op::Unlink(p("plain")), Op::Unlink(p("d/e/deep"))];
    chain.grow(target, "child", &ops)?;
    chain.grow(target, "grandchild", &[Op::Mkdir(p("new"))])?;
    for (layer, expected) in [("base", true), ("child", false), ("grandchild", false)] {
        let manifest = target.manifest(layer)?;
        for name in ["plain", "d/e/deep"] {
            demand!(
                manifest.has(name) == expected,
                "`{name}` in {layer}: {manifest}"
            );
        }
        demand!(manifest.has("hard"), "{layer} lost the other name");
    }
    chain.check_all(target)
}

pub(super) fn delete_tree(target: &mut Target) -> Outcome {
    let mut chain = chain(target)?;
    chain.grow(target, "child", &[Op::RemoveTree(p("d"))])?;
    demand!(
        !target.manifest("child")?.has("d"),
        "the tree is still there"
    );
    chain.grow(target, "grandchild", &[Op::RemoveTree(p("other"))])?;
    chain.check_all(target)
}

pub(super) fn replace_directory(target: &mut Target) -> Outcome {
    let mut chain = chain(target)?;
    let ops = [
        Op::RemoveTree(p("d")),
        Op::Mkdir(p("d")),
        Op::Write(p("d/new"), b"new".to_vec()),
        Op::RemoveTree(p("other")),
        Op::Mkdir(p("other")),
    ];
    chain.grow(target, "child", &ops)?;
    let child = target.manifest("child")?;
    demand!(
        child.has("d/new") && !child.has("d/file") && !child.has("other/kept"),
        "the replaced directories hold {child}"
    );
    chain.check_all(target)
}

pub(super) fn replace_then_add(target: &mut Target) -> Outcome {
    let mut chain = chain(target)?;
    let replace = [
        Op::RemoveTree(p("d")),
        Op::Mkdir(p("d")),
        Op::Write(p("d/new"), b"new".to_vec()),
    ];
    chain.grow(target, "child", &replace)?;
    let add = [
        Op::Write(p("d/added"), b"added".to_vec()),
        Op::Mkdir(p("d/e")),
    ];
    chain.grow(target, "grandchild", &add)?;
    let more = [
        Op::Write(p("d/e/own"), b"own".to_vec()),
        Op::Chmod(p("d"), 0o700),
    ];
    chain.grow(target, "great-grandchild", &more)?;
    let seen = target.manifest("great-grandchild")?;
    demand!(
        !seen.has("d/file") && !seen.has("d/e/deep") && seen.has("d/new"),
        "old content is back: {seen}"
    );
    chain.check_all(target)
}

pub(super) fn delete_and_add(target: &mut Target) -> Outcome {
    let mut chain = chain(target)?;
    for depth in 0..10 {
        let text = format!("round {depth}").into_bytes();
        let delete = [
            Op::Unlink(p("plain")),
            Op::RemoveTree(p("d/e")),
            Op::Unlink(p("soft")),
        ];
        chain.grow(target, &format!("without-{depth}"), &delete)?;
        let add = [
            Op::Write(p("plain"), text.clone()),
            Op::Mkdir(p("d/e")),
            Op::Write(p("d/e").join(depth.to_string()), text),
            Op::Symlink(p("soft"), p(&depth.to_string())),
        ];
        chain.grow(target, &format!("with-{depth}"), &add)?;
    }
    chain.check_all(target)
}

pub(super) fn delete_all_types(target: &mut Target) -> Outcome {
    let mut chain = chain(target)?;
    let files = [
        "plain", "soft", "dangling", "pipe", "socket", "null", "block", "d/link",
    ];
    let mut ops: Vec<_> = files.map(|name| Op::Unlink(p(name))).into();
    ops.push(Op::Rmdir(p("empty")));
    chain.grow(target, "child", &ops)?;
    let child = target.manifest("child")?;
    for name in files.into_iter().chain(["empty"]) {
        demand!(!child.has(name), "`{name}` is still there: {child}");
    }
    chain.grow(target, "grandchild", &[Op::Fifo(p("null"))])?;
    chain.check_all(target)
}

/// Makes an entry of type `kind` at `path`.
fn make(kind: usize, path: &str) -> Op {
    let path = p(path);
    match kind {
        0 => Op::Write(path, b"file".to_vec()),
        1 => Op::Mkdir(path),
        2 => Op::Symlink(path, p("target")),
        3 => Op::Fifo(path),
        4 => Op::Device(path, 1, 7),
        5 => Op::BlockDevice(path, 7, 251),
        _ => Op::Socket(path),
    }
}

fn remove(kind: usize, path: &str) -> Op {
    match kind {
        1 => Op::RemoveTree(p(path)),
        _ => Op::Unlink(p(path)),
    }
}

pub(super) fn replace_all_types(target: &mut Target) -> Outcome {
    const KINDS: usize = 7;
    let pairs = (0..KINDS).flat_map(|from| (0..KINDS).map(move |to| (from, to)));
    let pairs: Vec<_> = pairs
        .map(|(from, to)| (from, to, format!("{from}-becomes-{to}")))
        .collect();
    let mut lower = Vec::new();
    let mut replace = Vec::new();
    let mut back = Vec::new();
    for (from, to, name) in &pairs {
        lower.push(make(*from, name));
        if *from == 1 {
            lower.push(Op::Write(p(name).join("inside"), b"old".to_vec()));
        }
        replace.push(remove(*from, name));
        replace.push(make(*to, name));
        back.push(remove(*to, name));
        back.push(make(*from, name));
    }
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &lower)?;
    chain.grow(target, "child", &replace)?;
    chain.grow(target, "grandchild", &back)?;
    chain.check_all(target)
}

/// Every name below a directory, whatever it is.
fn names(directory: &Path, found: &mut Vec<String>) -> Outcome {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let meta = fs::symlink_metadata(entry.path())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        demand!(
            !(meta.file_type().is_char_device() && meta.rdev() == 0),
            "`{name}` is a device 0:0"
        );
        found.push(name);
        if meta.is_dir() {
            names(&entry.path(), found)?;
        }
    }
    Ok(())
}

pub(super) fn invisible(target: &mut Target) -> Outcome {
    let mut chain = chain(target)?;
    let ops = [
        Op::Unlink(p("plain")),
        Op::RemoveTree(p("d/e")),
        Op::RemoveTree(p("other")),
        Op::Mkdir(p("other")),
        Op::Unlink(p("pipe")),
    ];
    chain.grow(target, "mounted", &ops)?;
    let tar = TarFile::new()
        .whiteout(".wh.hard")
        .directory("d/")
        .whiteout("d/.wh.file")
        .directory("empty/")
        .whiteout("empty/.wh..wh..opq")
        .done();
    target.put("streamed", Some("mounted"), &tar)?;
    target.create("top", Some("streamed"))?;
    for (id, gone) in [
        ("mounted", &["plain", "d/e", "other/kept", "pipe"][..]),
        ("streamed", &["hard", "d/file", "plain"]),
        ("top", &["hard", "d/file", "plain", "d/e/deep"]),
    ] {
        target.within(id, |path| {
            let mut listed = Vec::new();
            names(path, &mut listed)?;
            let marker = listed.iter().find(|name| name.starts_with(".wh."));
            demand!(marker.is_none(), "{id} lists the marker {marker:?}");
            for name in gone {
                let answer = fs::symlink_metadata(path.join(name));
                same!(
                    Some(libc::ENOENT),
                    answer.err().and_then(|error| error.raw_os_error()),
                    "the error number of stat of the deleted `{name}` in {id}"
                );
                let parent = p(name);
                let parent = parent.parent().unwrap_or(Path::new(""));
                let base = p(name);
                let base = base.file_name().unwrap_or_default().to_string_lossy();
                let marker = path.join(parent).join(format!(".wh.{base}"));
                demand!(
                    fs::symlink_metadata(&marker).is_err(),
                    "{id} has a visible marker `.wh.{base}`"
                );
            }
            Ok::<_, Failure>(())
        })?;
    }
    Ok(())
}

pub(super) fn remove_emptied(target: &mut Target) -> Outcome {
    let mut chain = chain(target)?;
    let empty = [
        Op::Unlink(p("d/e/deep")),
        Op::Unlink(p("d/file")),
        Op::Unlink(p("other/kept")),
    ];
    chain.grow(target, "emptied", &empty)?;
    chain.change(target, &[Op::Rmdir(p("d/e"))])?;
    let remove = [
        Op::Unlink(p("d/link")),
        Op::Rmdir(p("d")),
        Op::Rmdir(p("other")),
    ];
    chain.grow(target, "removed", &remove)?;
    let again = [Op::Mkdir(p("d")), Op::Mkdir(p("d/e"))];
    chain.grow(target, "again", &again)?;
    chain.grow(target, "removed-again", &[Op::RemoveTree(p("d"))])?;
    chain.check_all(target)
}

pub(super) fn owner(target: &mut Target) -> Outcome {
    let mut chain = chain(target)?;
    let prepare = [
        Op::Mkdir(p("shared")),
        Op::Write(p("shared/one"), b"1".to_vec()),
        Op::Write(p("shared/two"), b"2".to_vec()),
        Op::Chown(p("shared"), 0, 4444),
        Op::Chmod(p("shared"), 0o2777),
        Op::Chmod(p("d"), 0o777),
    ];
    chain.grow(target, "prepared", &prepare)?;
    let delete = [
        Op::Unlink(p("shared/one")),
        Op::Unlink(p("d/file")),
        Op::RemoveTree(p("d/e")),
    ];
    chain.grow(target, "deleted", &delete)?;
    let create = [
        Op::CreateAs(p("shared/one"), 1111, 2222),
        Op::CreateAs(p("d/file"), 1111, 2222),
        Op::CreateAs(p("d/e"), 1111, 2222),
        Op::Unlink(p("shared/two")),
        Op::CreateAs(p("shared/two"), 1112, 2223),
    ];
    chain.grow(target, "created", &create)?;
    target.within("created", |path| {
        let owner = |name: &str| -> Result<(u32, u32), Failure> {
            let meta = fs::metadata(path.join(name))?;
            Ok((meta.uid(), meta.gid()))
        };
        same!((1111, 2222), owner("d/file")?, "the owner of a new file");
        same!(
            (1111, 4444),
            owner("shared/one")?,
            "the owner of a new file in a set-gid directory"
        );
        same!(
            (1112, 4444),
            owner("shared/two")?,
            "the owner of a file that replaces one of the parent in the same mount"
        );
        Ok::<_, Failure>(())
    })?;
    chain.check_all(target)
}

pub(super) fn opaque_stays(target: &mut Target) -> Outcome {
    let mut chain = chain(target)?;
    let replace = [
        Op::RemoveTree(p("d")),
        Op::Mkdir(p("d")),
        Op::Mkdir(p("d/inner")),
        Op::Write(p("d/inner/file"), b"1".to_vec()),
        Op::Write(p("d/second"), b"2".to_vec()),
    ];
    chain.grow(target, "replaced", &replace)?;
    // Touching the directory copies it up; the mark must stay with the layer that has it.
    let touch = [
        Op::Chmod(p("d"), 0o750),
        Op::Chown(p("d/inner"), 5, 6),
        Op::Write(p("d/third"), b"3".to_vec()),
    ];
    chain.grow(target, "touched", &touch)?;
    let touched = target.manifest("touched")?;
    demand!(
        touched.has("d/inner/file") && touched.has("d/second"),
        "the copied-up directory hides what lies below it: {touched}"
    );
    let more = [
        Op::SetXattr(p("d"), "user.x".into(), b"x".to_vec()),
        Op::Write(p("d/inner/more"), b"4".to_vec()),
    ];
    chain.grow(target, "again", &more)?;
    chain.check_all(target)
}
