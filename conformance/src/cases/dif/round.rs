// SPDX-License-Identifier: Apache-2.0
//! Diffs that are applied again.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    os::unix::{ffi::OsStringExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::sys::stat::{Mode, SFlag, mknod};
use plywood::sdk::ChangeKind;

use super::{base_ops, child_ops, items, pair, path, returns};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    log,
    ops::Op,
};

pub(super) fn manifest(target: &mut Target) -> Outcome {
    pair(target, &base_ops(), &child_ops())?;
    let tar = returns(target, "child", Some("base"), "again")?;
    demand!(!items::read(&tar)?.is_empty(), "the diff has no entries");
    target.step("look at the sibling after a restart")?;
    let again = target.reopened()?;
    let expected = target.manifest("child")?.exported();
    let differences = expected.differences(&again.manifest("again")?.exported());
    demand!(
        differences.is_empty(),
        "after a restart: {}",
        differences.join("; ")
    );
    target.step("the layer below, which has no parent")?;
    returns(target, "base", None, "base-again").map(drop)
}

pub(super) fn links(target: &mut Target) -> Outcome {
    let base = [
        Op::Mkdir(path("d")),
        Op::Write(path("d/linked"), b"shared".to_vec()),
        Op::Link(path("d/other"), path("d/linked")),
        Op::Write(path("moved"), b"moved".to_vec()),
        Op::Write(path("swapped"), b"one".to_vec()),
        Op::Write(path("old"), b"unchanged".to_vec()),
        Op::Write(path("before"), b"b".to_vec()),
        Op::Write(path("after"), b"a".to_vec()),
    ];
    let child = [
        Op::Rename(path("moved"), path("d/moved")),
        Op::Rename(path("swapped"), path("temporary")),
        Op::Write(path("swapped"), b"another".to_vec()),
        Op::Link(path("before-link"), path("before")),
        Op::Append(path("before"), b" linked, then changed".to_vec()),
        Op::Append(path("after"), b" changed, then linked".to_vec()),
        Op::Link(path("d/after-link"), path("after")),
        Op::Unlink(path("d/other")),
    ];
    pair(target, &base, &child)?;
    returns(target, "child", Some("base"), "again")?;
    for (one, two) in [("before", "before-link"), ("after", "d/after-link")] {
        let inodes = target.within("again", |root| -> Result<_, Failure> {
            let inode =
                |name: &str| std::fs::symlink_metadata(root.join(name)).map(|meta| meta.ino());
            Ok((inode(one)?, inode(two)?))
        })?;
        demand!(
            inodes.0 == inodes.1,
            "`{one}` and `{two}` are not one file after the round trip"
        );
    }
    target.step("link to a file that did not change")?;
    target.create_writable("linker", Some("base"))?;
    let link = [Op::Link(path("new"), path("old"))];
    target.within("linker", |root| -> Outcome {
        Ok(crate::ops::apply(root, &link)?)
    })?;
    let tar = target.diff("linker")?;
    target.put("linked", Some("base"), &tar)?;
    let differences = target
        .manifest("linker")?
        .exported()
        .without_links()
        .differences(&target.manifest("linked")?.exported().without_links());
    demand!(
        differences.is_empty(),
        "a new name of an unchanged file came back otherwise: {}",
        differences.join("; ")
    );
    Ok(())
}

pub(super) fn deterministic(target: &mut Target) -> Outcome {
    pair(target, &base_ops(), &child_ops())?;
    let first = target.diff("child")?;
    demand!(
        first.len() > 10_000,
        "the diff has only {} bytes",
        first.len()
    );
    // Into another second: nothing of the time of asking may be in the stream.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let second = target.within("child", |_| target.diff("child"))?;
    demand!(
        first == second,
        "the diff while mounted is another one: {}",
        first_difference(&first, &second)?
    );
    let third = target.reopened()?.diff("child")?;
    demand!(
        first == third,
        "the diff after a restart is another one: {}",
        first_difference(&first, &third)?
    );
    Ok(())
}

/// The first entry that differs.
fn first_difference(one: &[u8], two: &[u8]) -> Result<String, Failure> {
    let (one, two) = (items::read(one)?, items::read(two)?);
    let mut pairs = one.iter().zip(&two);
    Ok(
        match pairs.find(|(one, two)| format!("{one:?}") != format!("{two:?}")) {
            Some((one, two)) => format!(
                "`{}` of {} became `{}` of {}, or differs in its attributes",
                one.path(),
                one.mtime,
                two.path(),
                two.mtime
            ),
            None => format!("{} entries became {}", one.len(), two.len()),
        },
    )
}

pub(super) fn sockets(target: &mut Target) -> Outcome {
    log::record();
    target.create_writable("base", None)?;
    target.within("base", |root| -> Outcome {
        std::fs::create_dir(root.join("run"))?;
        std::fs::write(root.join("run/file"), "beside")?;
        let mode = Mode::from_bits_retain(0o600);
        mknod(&root.join("run/the-socket"), SFlag::S_IFSOCK, mode, 0)?;
        Ok(())
    })?;
    let names: Vec<String> = items::read(&target.diff("base")?)?
        .iter()
        .map(items::Item::path)
        .collect();
    same!(
        ["run", "run/file"],
        *names,
        "the entries of a diff of a layer with a socket"
    );
    let messages = log::messages();
    demand!(
        messages
            .iter()
            .any(|message| message.contains("the-socket")),
        "no log message names the socket that was left out: {messages:?}"
    );
    Ok(())
}

pub(super) fn large(target: &mut Target) -> Outcome {
    let long = "n".repeat(255);
    let mut ops = Vec::new();
    let mut deep = PathBuf::new();
    while deep.as_os_str().len() < 3000 {
        deep.push(&long[..200]);
        ops.push(Op::Mkdir(deep.clone()));
    }
    ops.extend([
        Op::Write(deep.join("bottom"), b"deep".to_vec()),
        Op::Write(path(&long), b"long".to_vec()),
        Op::Link(path("link-to-long"), path(&long)),
        Op::Symlink(path("symlink-to-long"), path(&long)),
        Op::Write(path("owned"), b"owned".to_vec()),
        Op::Chown(path("owned"), 4_294_967_294, 4_294_967_294),
        Op::Mkdir(path("owned-directory")),
        Op::Chown(path("owned-directory"), 2_097_152, 3_000_000),
    ]);
    let odd: [&[u8]; 5] = [
        b"\xff\xfe\x80",
        b"new\nline",
        b"back\\slash",
        b"=equals ",
        b"\xc3\xa9",
    ];
    for name in odd {
        let name = PathBuf::from(OsString::from_vec(name.to_vec()));
        ops.push(Op::Write(name.clone(), b"odd".to_vec()));
        ops.push(Op::Symlink(Path::new("owned-directory").join(&name), name));
    }
    let child = [
        Op::Unlink(path(&long)),
        Op::Unlink(PathBuf::from(OsString::from_vec(odd[0].to_vec()))),
        Op::Append(deep.join("bottom"), b" down".to_vec()),
    ];
    pair(target, &ops, &child)?;
    returns(target, "base", None, "base-again")?;
    returns(target, "child", Some("base"), "child-again").map(drop)
}

pub(super) fn before_1970(target: &mut Target) -> Outcome {
    let times = [
        ("long-before", -1000),
        ("just-before", -1),
        ("at", 0),
        ("after", 1),
    ];
    let mut ops = Vec::new();
    for (name, seconds) in times {
        ops.push(Op::Write(path(name), name.as_bytes().to_vec()));
        ops.push(Op::Mtime(path(name), seconds, 0));
    }
    pair(target, &ops, &[])?;
    let tar = target.diff("base")?;
    let seen: Vec<i64> = ["long-before", "just-before", "at", "after"]
        .iter()
        .map(|name| {
            let items = items::read(&tar)?;
            let item = items.into_iter().find(|item| item.path() == *name);
            item.map(|item| item.mtime)
                .ok_or_else(|| Failure::new(format!("the diff has no entry for `{name}`")))
        })
        .collect::<Result<_, Failure>>()?;
    same!([-1000, -1, 0, 1], *seen, "the times in the diff");
    target.put("again", None, &tar)?;
    target.within("again", |root| -> Outcome {
        for (name, seconds) in times {
            let seen = std::fs::symlink_metadata(root.join(name))?.mtime();
            demand!(
                seen == seconds || (seconds < 0 && seen == 0),
                "`{name}` of {seconds} seconds has {seen} after the round trip: it may keep its \
                 time, or have that of the epoch"
            );
        }
        Ok(())
    })
}

pub(super) fn nodes(target: &mut Target) -> Outcome {
    let ops = [
        Op::Mkdir(path("dev")),
        Op::Fifo(path("dev/pipe")),
        Op::Chmod(path("dev/pipe"), 0o4622),
        Op::Device(path("dev/null"), 1, 3),
        Op::BlockDevice(path("dev/disk"), 8, 17),
        Op::BlockDevice(path("dev/zero-block"), 0, 0),
        Op::Device(path("dev/large"), 511, 262_143),
        Op::Chown(path("dev/disk"), 0, 6),
        Op::Link(path("dev/null-too"), path("dev/null")),
    ];
    pair(
        target,
        &ops,
        &[Op::Unlink(path("dev/disk")), Op::Fifo(path("dev/disk"))],
    )?;
    returns(target, "base", None, "base-again")?;
    returns(target, "child", Some("base"), "child-again").map(drop)
}

pub(super) fn other_base(target: &mut Target) -> Outcome {
    pair(target, &base_ops(), &child_ops())?;
    target.create_writable("grandchild", Some("child"))?;
    let ops = [
        Op::Unlink(path("added/file")),
        Op::Write(path("kept/f0"), b"changed in the grandchild".to_vec()),
        Op::RemoveTree(path("changed/deep")),
    ];
    target.within("grandchild", |root| -> Outcome {
        Ok(crate::ops::apply(root, &ops)?)
    })?;
    let tar = target.diff_between(Some("base"), "grandchild")?;
    let changes = target.changes_between(Some("base"), "grandchild")?;
    let wanted: BTreeSet<String> = changes
        .iter()
        .map(|change| {
            let path = change.path.strip_prefix("/").unwrap_or(&change.path);
            match (change.kind, path.file_name()) {
                (ChangeKind::Delete, Some(name)) => {
                    let whiteout = format!(".wh.{}", name.to_string_lossy());
                    path.with_file_name(whiteout).display().to_string()
                }
                _ => path.display().to_string(),
            }
        })
        .collect();
    let seen: BTreeSet<String> = items::read(&tar)?.iter().map(items::Item::path).collect();
    same!(
        wanted,
        seen,
        "the entries of a diff against a layer that is not the parent"
    );
    target.step("apply it to the other layer")?;
    target.put("again", Some("base"), &tar)?;
    let expected = target.manifest("grandchild")?.exported();
    let differences = expected.differences(&target.manifest("again")?.exported());
    demand!(
        differences.is_empty(),
        "the diff, applied to that layer, gives another tree: {}",
        differences.join("; ")
    );
    Ok(())
}
