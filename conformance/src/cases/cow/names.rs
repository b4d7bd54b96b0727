// SPDX-License-Identifier: Apache-2.0
//! Renames, links and changes of type.

use std::{
    fs,
    os::{
        fd::AsRawFd as _,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
};

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::{base, p};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    ops::{Chain, Op},
};

pub(super) fn rename_file(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    let mut ops = base();
    ops.extend([
        Op::Write(p("victim"), b"victim".to_vec()),
        Op::Write(p("d/victim"), b"victim".to_vec()),
    ]);
    chain.grow(target, "base", &ops)?;
    let changes = [
        Op::Rename(p("plain"), p("renamed")),
        Op::Rename(p("second"), p("victim")),
        Op::Rename(p("d/other"), p("d/e/other")),
        Op::Rename(p("owned"), p("d/victim")),
        Op::Rename(p("soft"), p("d/soft")),
        Op::Rename(p("pipe"), p("empty/pipe")),
        Op::Rename(p("null"), p("nothing")),
        Op::Write(p("second"), b"a new file of that name".to_vec()),
        Op::Rename(p("renamed"), p("plain")),
        Op::Rename(p("d/e/deep"), p("once")),
        Op::Rename(p("once"), p("twice")),
    ];
    chain.grow(target, "child", &changes)?;
    let more = [
        Op::Rename(p("twice"), p("d/e/deep")),
        Op::Rename(p("victim"), p("second")),
        Op::Append(p("d/e/deep"), b"x".to_vec()),
    ];
    chain.grow(target, "grandchild", &more)?;
    chain.check_all(target)
}

pub(super) fn rename_directory(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    let changes = [
        Op::Rename(p("d"), p("moved")),
        Op::Write(p("moved/e/deep"), b"changed".to_vec()),
        Op::Mkdir(p("d")),
        Op::Write(p("d/new"), b"new".to_vec()),
    ];
    chain.grow(target, "child", &changes)?;
    let more = [
        Op::Rename(p("moved/e"), p("empty/e")),
        Op::Rename(p("moved"), p("empty/moved")),
        Op::Rename(p("empty"), p("full")),
        Op::Mkdir(p("hollow")),
        Op::Rename(p("d"), p("hollow")),
        Op::Unlink(p("full/e/deep")),
    ];
    chain.grow(target, "grandchild", &more)?;
    chain.check_all(target)
}

pub(super) fn rename_directory_refused(target: &mut Target) -> Outcome {
    let declared = target.driver.capabilities().directory_rename;
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    target.create_writable("child", Some("base"))?;
    let before = target.manifest("child")?;
    let answers = target.within("child", |path| {
        let renamed = |from: &str, to: &str| {
            let done = fs::rename(path.join(from), path.join(to));
            done.map_err(|error| error.raw_os_error())
        };
        Ok::<_, Failure>([
            ("d", renamed("d", "moved")),
            ("empty", renamed("empty", "moved-empty")),
        ])
    })?;
    let expected = if declared {
        Ok(())
    } else {
        Err(Some(libc::EXDEV))
    };
    for (what, answer) in answers {
        same!(
            expected,
            answer,
            "the answer to renaming the parent's directory `{what}`, with `directory_rename` {}",
            if declared { "declared" } else { "not declared" }
        );
    }
    if !declared {
        let differences = before.differences(&target.manifest("child")?);
        demand!(
            differences.is_empty(),
            "the refused renames changed the tree: {differences:?}"
        );
    }
    // A directory of the child's own can always be renamed.
    let mut own = Chain::new(target)?;
    let ops = [
        Op::Mkdir(p("own")),
        Op::Write(p("own/file"), b"x".to_vec()),
        Op::Rename(p("own"), p("renamed")),
        Op::Write(p("renamed/second"), b"y".to_vec()),
    ];
    own.grow(target, "own", &ops)
}

pub(super) fn new_link(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    let changes = [
        Op::Link(p("d/e/linked"), p("plain")),
        Op::Link(p("soft-linked"), p("soft")),
        Op::Link(p("pipe-linked"), p("pipe")),
    ];
    chain.grow(target, "child", &changes)?;
    target.within("child", |path| {
        for (one, two) in [("plain", "d/e/linked"), ("soft", "soft-linked")] {
            let one = fs::symlink_metadata(path.join(one))?;
            let two = fs::symlink_metadata(path.join(two))?;
            same!(one.ino(), two.ino(), "inode numbers of two names");
            same!((2, 2), (one.nlink(), two.nlink()), "links of both names");
        }
        Ok::<_, Failure>(())
    })?;
    chain.change(
        target,
        &[Op::Append(p("d/e/linked"), b"through one".to_vec())],
    )?;
    let more = [
        Op::Unlink(p("plain")),
        Op::Link(p("third"), p("d/e/linked")),
    ];
    chain.change(target, &more)?;
    chain.grow(target, "grandchild", &[Op::Unlink(p("soft"))])?;
    chain.check_all(target)
}

pub(super) fn old_links(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    let mut ops = base();
    ops.extend([
        Op::Link(p("d/hard"), p("plain")),
        Op::Link(p("d/e/hard"), p("plain")),
        Op::Link(p("other-hard"), p("second")),
    ]);
    chain.grow(target, "base", &ops)?;
    let changes = [
        Op::Append(p("d/hard"), b"appended".to_vec()),
        Op::Chmod(p("other-hard"), 0o600),
    ];
    chain.grow(target, "child", &changes)?;
    let more = [
        Op::Unlink(p("plain")),
        Op::Truncate(p("d/e/hard"), 100),
        Op::Rename(p("second"), p("renamed")),
        Op::Append(p("other-hard"), b"more".to_vec()),
    ];
    chain.grow(target, "grandchild", &more)?;
    chain.check_all(target)
}

pub(super) fn type_change(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    let changes = [
        Op::Unlink(p("plain")),
        Op::Mkdir(p("plain")),
        Op::Write(p("plain/inside"), b"x".to_vec()),
        Op::RemoveTree(p("d")),
        Op::Write(p("d"), b"a file now".to_vec()),
        Op::Unlink(p("soft")),
        Op::Mkdir(p("soft")),
        Op::Rmdir(p("empty")),
        Op::Symlink(p("empty"), p("soft")),
        Op::Unlink(p("pipe")),
        Op::Device(p("pipe"), 1, 5),
    ];
    chain.grow(target, "child", &changes)?;
    let back = [
        Op::RemoveTree(p("plain")),
        Op::Write(p("plain"), b"a file again".to_vec()),
        Op::Unlink(p("d")),
        Op::Mkdir(p("d")),
        Op::Rmdir(p("soft")),
        Op::Symlink(p("soft"), p("plain")),
        Op::Unlink(p("empty")),
        Op::Mkdir(p("empty")),
    ];
    chain.grow(target, "grandchild", &back)?;
    chain.check_all(target)
}

pub(super) fn temporary_file(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    target.create_writable("child", Some("base"))?;
    let made = target.within("child", |path| {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(CWD, path.join("d"), flags, Mode::from_raw_mode(0o640));
        let file = match opened {
            Ok(file) => fs::File::from(file),
            Err(error) => {
                same!(
                    rustix::io::Errno::OPNOTSUPP,
                    error,
                    "the answer to O_TMPFILE where it does not work"
                );
                return Ok(false);
            }
        };
        file.write_all_at(b"unnamed", 0)?;
        let listed = fs::read_dir(path.join("d"))?.count();
        same!(2, listed, "entries beside an unnamed file");
        let name = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = AtFlags::SYMLINK_FOLLOW;
        rustix::fs::linkat(CWD, name, CWD, path.join("d/named"), flags)?;
        Ok::<_, Failure>(true)
    })?;
    target.measure("o_tmpfile_works", f64::from(u8::from(made)))?;
    let child = target.manifest("child")?;
    same!(
        made,
        child.has("d/named"),
        "whether the linked file is there in the next mount"
    );
    if made {
        let text = target.within("child", |path| {
            Ok::<_, Failure>(fs::read_to_string(path.join("d/named"))?)
        })?;
        same!("unnamed", text, "the linked file");
    }
    chain.check(target, "base")
}
