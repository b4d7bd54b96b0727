// SPDX-License-Identifier: Apache-2.0
//! Names of files: long ones, deep ones, and bytes of every kind.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Mode, OFlags};

use super::{kept, path};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    ops::Op,
};

/// 24 directories of 250 bytes each are beyond the 4096 that a path may have.
const DEPTH: usize = 24;

pub(super) fn longest(target: &mut Target) -> Outcome {
    let plain = "n".repeat(255);
    let wide = "\u{20ac}".repeat(85);
    let directory = "d".repeat(255);
    let ops = [
        Op::Write(path(&plain), b"plain".to_vec()),
        Op::Write(path(&wide), b"wide".to_vec()),
        Op::Mkdir(path(&directory)),
        Op::Write(path(&directory).join(&plain), b"inside".to_vec()),
        Op::Symlink(path(&directory).join(&wide), path(&plain)),
    ];
    let mut chain = kept(target, &ops)?;
    target.step("remove and write such names in a child")?;
    chain.change(
        target,
        &[
            Op::Unlink(path(&plain)),
            Op::Append(path(&directory).join(&plain), b" more".to_vec()),
            Op::Rename(path(&wide), path(&"m".repeat(255))),
        ],
    )?;
    chain.check_all(target)
}

pub(super) fn deep(target: &mut Target) -> Outcome {
    target.create_writable("base", None)?;
    target.within("base", |root| -> Outcome {
        let mut here = open(root)?;
        for level in 0..DEPTH {
            let name = level_name(level);
            rustix::fs::mkdirat(&here, &name, Mode::from_raw_mode(0o755))?;
            here = open_below(&here, &name)?;
        }
        let flags = OFlags::CREATE | OFlags::WRONLY;
        let mode = Mode::from_raw_mode(0o640);
        let file = rustix::fs::openat(&here, "bottom", flags, mode)?;
        File::from(file).write_all(b"deep down")?;
        rustix::fs::linkat(&here, "bottom", &here, "second name", AtFlags::empty())?;
        Ok(())
    })?;
    target.within("base", |root| check_bottom(root, "the layer"))?;
    target.step("look at it in a child")?;
    target.create_writable("child", Some("base"))?;
    target.within("child", |root| -> Outcome {
        check_bottom(root, "a child")?;
        rustix::fs::unlinkat(descend(root)?, "bottom", AtFlags::empty())?;
        Ok(())
    })?;
    target.step("remove the layers")?;
    target.reopened()?.within("base", |root| {
        check_bottom(root, "the layer after a restart")
    })?;
    target.delete("child")?;
    target.delete("base")?;
    same!(
        0,
        target.layers()?.len(),
        "the number of layers that are left"
    );
    Ok(())
}

fn level_name(level: usize) -> String {
    format!("{level:0>250}")
}

fn open(root: &Path) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(root, flags, Mode::empty())?)
}

fn open_below(here: &OwnedFd, name: &str) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(here, name, flags, Mode::empty())?)
}

fn descend(root: &Path) -> Result<OwnedFd, Failure> {
    let mut here = open(root)?;
    for level in 0..DEPTH {
        here = open_below(&here, &level_name(level))?;
    }
    Ok(here)
}

fn check_bottom(root: &Path, place: &str) -> Outcome {
    let here = descend(root)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&here, "bottom", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    let mut content = String::new();
    File::from(file).read_to_string(&mut content)?;
    same!(
        "deep down",
        content,
        "the file below {DEPTH} directories in {place}"
    );
    same!(0o640, stat.st_mode & 0o7777, "its mode in {place}");
    same!(2, stat.st_nlink, "its number of links in {place}");
    Ok(())
}

/// Names that are no text, or that programs stumble over.
pub(super) fn odd_names() -> Vec<PathBuf> {
    let names: [&[u8]; 16] = [
        b"\xff\xfe not utf-8 \x80",
        b"\xc3",
        b"new\nline",
        b"tab\tand\rreturn",
        b"back\\slash",
        b"\"double\" 'single' `back`",
        b"-rf",
        b" leading and trailing ",
        b"...",
        b".whx",
        b".wh",
        b"wh.name",
        b"$HOME;*?[a]{b}|&<>",
        b"colon:comma,equals=",
        b"\x01\x1b[31m\x7f",
        b"percent%20%s%n",
    ];
    names
        .map(|name| PathBuf::from(OsString::from_vec(name.to_vec())))
        .to_vec()
}

pub(super) fn bytes(target: &mut Target) -> Outcome {
    let mut ops = Vec::new();
    for name in odd_names() {
        ops.push(Op::Write(name.clone(), b"odd".to_vec()));
        let directory = Path::new("below").join(&name);
        if ops.len() == 1 {
            ops.push(Op::Mkdir(path("below")));
        }
        ops.extend([
            Op::Mkdir(directory.clone()),
            Op::Write(directory.join(&name), b"odder".to_vec()),
        ]);
    }
    let mut chain = kept(target, &ops)?;
    target.step("change and remove such names in a child")?;
    let mut changes = Vec::new();
    for (number, name) in odd_names().into_iter().enumerate() {
        changes.push(match number % 3 {
            0 => Op::Append(name, b" and more".to_vec()),
            1 => Op::Unlink(name),
            _ => Op::RemoveTree(Path::new("below").join(name)),
        });
    }
    chain.change(target, &changes)?;
    chain.check_all(target)
}

pub(super) fn unicode(target: &mut Target) -> Outcome {
    let names = [
        "\u{e9}", "e\u{301}", "name", "Name", "NAME", "\u{df}", "ss", "\u{212b}", "\u{c5}",
    ];
    let mut ops = Vec::new();
    for name in names {
        ops.push(Op::Write(path(name), name.as_bytes().to_vec()));
    }
    kept(target, &ops)?;
    for layer in ["base", "child"] {
        let listed = target.within(layer, |root| -> Result<Vec<OsString>, Failure> {
            let mut listed = Vec::new();
            for entry in std::fs::read_dir(root)? {
                listed.push(entry?.file_name());
            }
            Ok(listed)
        })?;
        for name in names {
            demand!(
                listed.iter().any(|seen| seen == OsStr::new(name)),
                "`{}` is not listed in `{layer}` in the bytes that it was made with",
                name.escape_unicode()
            );
        }
        same!(
            names.len(),
            listed.len(),
            "the number of names in `{layer}`"
        );
    }
    Ok(())
}
