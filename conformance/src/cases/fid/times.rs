// SPDX-License-Identifier: Apache-2.0
//! Times of last change and last access.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::{
    fcntl::AT_FDCWD,
    sys::{
        stat::{UtimensatFlags, utimensat},
        time::TimeSpec,
    },
};
use plywood::sdk::MountRequest;

use super::{kept, path};
use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    ops::{Chain, Op},
};

/// Whole nanoseconds are what the catalogue promises; coarser file systems are none for layers.
const PRECISE: [(&str, i64, u32); 3] = [
    ("d/file", 1_500_000_001, 123_456_789),
    ("link", 1_500_000_002, 999_999_999),
    ("d", 1_500_000_003, 1),
];

pub(super) fn nanoseconds(target: &mut Target) -> Outcome {
    let mut ops = vec![
        Op::Mkdir(path("d")),
        Op::Write(path("d/file"), b"content".to_vec()),
        Op::Symlink(path("link"), path("d/file")),
    ];
    ops.extend(PRECISE.map(|(name, seconds, rest)| Op::Mtime(path(name), seconds, rest)));
    let mut chain = kept(target, &ops)?;
    target.step("change the mode in a child, which must keep the time")?;
    let changes = ["d", "d/file"].map(|name| Op::Chmod(path(name), 0o700));
    chain.grow(target, "changed", &changes)?;
    target.step("look at it in another process")?;
    target.in_peer("reader", &["base", "child", "changed"])
}

pub(super) fn after_restart(site: &Site, layers: &[String]) -> Outcome {
    let target = site.open()?;
    for layer in layers {
        target.within(layer, |root| -> Outcome {
            for (name, seconds, rest) in PRECISE {
                let meta = fs::symlink_metadata(root.join(name))?;
                same!(
                    (seconds, i64::from(rest)),
                    (meta.mtime(), meta.mtime_nsec()),
                    "the time of `{name}` in `{layer}` after a restart"
                );
            }
            Ok(())
        })?;
    }
    target.close()?;
    Ok(())
}

pub(super) fn range(target: &mut Target) -> Outcome {
    let times = [
        ("1901", -2_147_483_648),
        ("before-1970", -1),
        ("1970", 0),
        ("2038", 2_147_483_647),
        ("after-2038", 2_147_483_648),
        ("2100", 4_102_444_800),
    ];
    let mut ops = Vec::new();
    for (name, seconds) in times {
        ops.push(Op::Write(path(name), name.as_bytes().to_vec()));
        ops.push(Op::Mtime(path(name), seconds, 500_000_000));
    }
    kept(target, &ops)?;
    target.within("child", |root| -> Outcome {
        for (name, seconds) in [("1970", 0), ("2038", 2_147_483_647)] {
            let seen = fs::symlink_metadata(root.join(name))?.mtime();
            same!(
                seconds,
                seen,
                "the time of `{name}`, which every file system has"
            );
        }
        Ok(())
    })
}

pub(super) fn directories_stay(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(
        target,
        "base",
        &[
            Op::Mkdir(path("a")),
            Op::Mkdir(path("a/b")),
            Op::Mkdir(path("a/b/c")),
            Op::Write(path("a/b/c/file"), b"content".to_vec()),
        ],
    )?;
    let before = target.within("base", directory_times)?;
    // Longer than the clock that file systems stamp with.
    thread::sleep(Duration::from_millis(20));
    target.step("make a child, mount both, look around, make a grandchild")?;
    target.create_writable("child", Some("base"))?;
    target.within("child", directory_times)?;
    if target.driver.capabilities().read_only_mounts {
        let mut request = MountRequest::default();
        request.read_only = true;
        target.within_as("base", &request, directory_times)?;
    }
    target.create("grandchild", Some("child"))?;
    target.changes("child")?;
    let base = target.within("base", directory_times)?;
    same!(
        before,
        base,
        "the times of the layer's directories, its root too"
    );
    for layer in ["child", "grandchild"] {
        let mut seen = target.within(layer, directory_times)?;
        let mut expected = before.clone();
        seen.remove(Path::new(""));
        expected.remove(Path::new(""));
        same!(expected, seen, "the times of directories in `{layer}`");
    }
    Ok(())
}

fn directory_times(root: &Path) -> Result<BTreeMap<PathBuf, (i64, i64)>, Failure> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(directory) = open.pop() {
        let meta = fs::symlink_metadata(root.join(&directory))?;
        found.insert(directory.clone(), (meta.mtime(), meta.mtime_nsec()));
        for entry in fs::read_dir(root.join(&directory))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(directory.join(entry.file_name()));
            }
        }
    }
    Ok(found)
}

/// Whether reading changes the time of last access is the mount's affair; that it works is not.
pub(super) fn access(target: &mut Target) -> Outcome {
    target.create_writable("base", None)?;
    let old = TimeSpec::new(1_000_000_000, 0);
    target.within("base", |root| -> Outcome {
        let file = root.join("file");
        fs::write(&file, "content")?;
        utimensat(AT_FDCWD, &file, &old, &old, UtimensatFlags::NoFollowSymlink)?;
        Ok(())
    })?;
    target.create_writable("child", Some("base"))?;
    for layer in ["base", "child"] {
        let after = target.within(layer, |root| -> Result<i64, Failure> {
            let file = root.join("file");
            let content = fs::read(&file)?;
            demand!(content == b"content", "the file reads as {content:?}");
            Ok(fs::symlink_metadata(&file)?.atime())
        })?;
        let updated = if after == 1_000_000_000 { 0.0 } else { 1.0 };
        target.measure(
            &format!("reading in `{layer}` updates the access time"),
            updated,
        )?;
    }
    Ok(())
}
