// SPDX-License-Identifier: Apache-2.0
//! What a change may not reach, and what a child costs.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::unistd::syncfs;

use super::{base, bytes, p};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    manifest::Manifest,
    ops::{Chain, Op, apply},
    scratch::Size,
};

const MIB: u64 = 1 << 20;

/// One change of every kind.
fn disturbance() -> Vec<Op> {
    vec![
        Op::Write(p("plain"), b"changed".to_vec()),
        Op::Append(p("second"), b" and more".to_vec()),
        Op::Write(p("new"), b"new".to_vec()),
        Op::Mkdir(p("d/made")),
        Op::Unlink(p("d/e/deep")),
        Op::Rename(p("d/other"), p("renamed")),
        Op::Chmod(p("d/e"), 0o700),
        Op::Chmod(p("owned"), 0o600),
        Op::Chown(p("d"), 7, 8),
        Op::Chown(p("soft"), 7, 8),
        Op::SetXattr(p("d"), "user.x".into(), b"y".to_vec()),
        Op::RemoveXattr(p("owned"), "user.kept".into()),
        Op::Mtime(p("empty"), 1, 2),
        Op::Unlink(p("null")),
        Op::Mkdir(p("null")),
        Op::Link(p("linked"), p("pipe")),
    ]
}

fn demand_same(before: &Manifest, after: &Manifest, whose: &str) -> Outcome {
    let differences = before.differences(after);
    demand!(differences.is_empty(), "{whose} changed: {differences:?}");
    Ok(())
}

pub(super) fn parent_untouched(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    let before = target.manifest("base")?;
    chain.grow(target, "child", &disturbance())?;
    demand_same(&before, &target.manifest("base")?, "the parent")?;
    chain.grow(target, "grandchild", &[Op::Unlink(p("new"))])?;
    chain.check_all(target)
}

pub(super) fn siblings(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    for sibling in ["left", "right"] {
        target.create_writable(sibling, Some("base"))?;
    }
    let before = target.manifest("right")?;
    let changes = disturbance();
    target.within("left", |path| -> Outcome { Ok(apply(path, &changes)?) })?;
    demand_same(&before, &target.manifest("right")?, "the sibling")?;
    let left = target.manifest("left")?;
    demand!(left.has("renamed"), "the changed layer did not change");
    let both = target.mount("right", &plywood::sdk::MountRequest::default())?;
    let written = target.within("left", |path| -> Outcome {
        fs::write(path.join("second"), "written while both are mounted")?;
        Ok(())
    });
    let text = fs::read_to_string(both.join("second"));
    target.unmount("right")?;
    written?;
    same!("second", text?, "the sibling's file while both are mounted");
    target.create_writable("late", Some("base"))?;
    demand_same(&before, &target.manifest("late")?, "a later sibling")
}

pub(super) fn parent_changed(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    chain.grow(
        target,
        "child",
        &[Op::Append(p("second"), b" of the child".to_vec())],
    )?;
    let before = target.manifest("child")?;
    let change = target.within("base", |path| -> Outcome {
        fs::write(path.join("late"), "written after the child was made")?;
        fs::write(path.join("second"), "parent")?;
        Ok(())
    });
    let after = target.manifest("child")?;
    if change.is_err() {
        target.measure("a_parent_can_be_written", 0.0)?;
        return demand_same(&before, &after, "the child of a parent that refused");
    }
    target.measure("a_parent_can_be_written", 1.0)?;
    let shows = if after.has("late") { 1.0 } else { 0.0 };
    target.measure("a_child_shows_later_writes_to_its_parent", shows)?;
    // Whatever it shows of what it did not change, its own changes are its own.
    target.within("child", |path| {
        let text = fs::read_to_string(path.join("second"))?;
        same!(
            "second of the child",
            text,
            "the file that the child changed"
        );
        Ok::<_, Failure>(())
    })?;
    let again = target.manifest("child")?;
    let differences = after.differences(&again);
    demand!(
        differences.is_empty(),
        "the child looks different in every mount: {differences:?}"
    );
    Ok(())
}

fn used(path: &Path) -> io::Result<u64> {
    syncfs(fs::File::open(path)?)?;
    let stat = nix::sys::statvfs::statvfs(path)?;
    Ok((stat.blocks() - stat.blocks_free()) * stat.fragment_size())
}

pub(super) fn space(target: &mut Target) -> Outcome {
    let small = target.small(Size::mib(256))?;
    small.create_writable("base", None)?;
    small.within("base", |path| -> Outcome {
        for number in 0..10 {
            let name = path.join(number.to_string());
            fs::write(name, bytes(number, 10 << 20))?;
        }
        Ok(())
    })?;
    let place: PathBuf = small.root.clone();
    let before = used(&place)?;
    for number in 0..5 {
        let child = format!("child-{number}");
        small.create_writable(&child, Some("base"))?;
        small.within(&child, |path| -> Outcome {
            fs::write(path.join("new"), "x")?;
            Ok(())
        })?;
    }
    let cost = used(&place)?.saturating_sub(before) / 5;
    target.measure("bytes_of_a_child", f64::from(u32::try_from(cost)?))?;
    demand!(
        cost < MIB,
        "a child of a parent of 100 MiB takes {cost} bytes before it is written to"
    );
    small.within("child-0", |path| -> Outcome {
        fs::OpenOptions::new()
            .write(true)
            .open(path.join("3"))?
            .set_len(1)?;
        Ok(())
    })?;
    small.within("base", |path| {
        let length = fs::metadata(path.join("3"))?.len();
        same!(
            10 * MIB,
            length,
            "the parent's file after the child cut its own"
        );
        Ok::<_, Failure>(())
    })?;
    small.close()?;
    Ok(())
}

pub(super) fn reflink(target: &mut Target) -> Outcome {
    let data = bytes(3, 300_000);
    target.create_writable("base", None)?;
    target.within("base", |path| {
        Ok::<_, Failure>(fs::write(path.join("file"), &data)?)
    })?;
    target.create_writable("child", Some("base"))?;
    target.within("child", |path| {
        let from = fs::File::open(path.join("file"))?;
        let to = fs::File::create(path.join("ranged"))?;
        let mut left = data.len();
        let mut copied = Ok(());
        while left > 0 {
            match rustix::fs::copy_file_range(&from, None, &to, None, left) {
                Ok(0) => break,
                Ok(length) => left -= length,
                Err(error) => {
                    copied = Err(error);
                    break;
                }
            }
        }
        let works = copied.is_ok() && left == 0;
        target.measure("copy_file_range_works", f64::from(u8::from(works)))?;
        if works {
            demand!(
                fs::read(path.join("ranged"))? == data,
                "copy_file_range from the parent's file gave other bytes"
            );
        }
        let to = fs::File::create(path.join("cloned"))?;
        let cloned = rustix::fs::ioctl_ficlone(&to, &from);
        target.measure("ficlone_works", f64::from(u8::from(cloned.is_ok())))?;
        if cloned.is_ok() {
            demand!(
                fs::read(path.join("cloned"))? == data,
                "a clone of the parent's file has other bytes"
            );
            fs::OpenOptions::new()
                .append(true)
                .open(path.join("cloned"))?
                .set_len(10)?;
        }
        demand!(
            fs::read(path.join("file"))? == data,
            "copying from the parent's file changed it"
        );
        Ok::<_, Failure>(())
    })
}
