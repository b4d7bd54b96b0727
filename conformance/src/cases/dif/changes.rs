// SPDX-License-Identifier: Apache-2.0
//! Lists of changes.

use std::{fs, os::unix::fs::FileExt as _, path::Path, time::Duration};

use nix::{
    fcntl::AT_FDCWD,
    sys::{
        stat::{UtimensatFlags, utimensat},
        time::TimeSpec,
    },
};
use plywood::{
    archive::walk::Change,
    layers::PutOptions,
    sdk::{ChangeKind, IdMap, MountRequest},
};
use rustix::fs::XattrFlags;

use super::{base_ops, child_ops, expected, pair, path, returns};
use crate::{
    Target,
    case::{Outcome, demand, same},
    ops::Op,
    tar_file::{Entry, TarFile},
    target::new_layer,
};

pub(super) fn exact(target: &mut Target) -> Outcome {
    let mut ops = Vec::new();
    let mut list = Vec::new();
    for number in 0..20 {
        let (directory, name) = (["changed", "kept", "replaced"][number % 3], number / 3);
        match number % 4 {
            0 => list.push((format!("{directory}/new{number}"), ChangeKind::Add)),
            1 => list.push((format!("{directory}/f{name}"), ChangeKind::Delete)),
            _ => list.push((format!("{directory}/f{name}"), ChangeKind::Modify)),
        }
        let (file, kind) = &list[number];
        ops.push(match kind {
            ChangeKind::Delete => Op::Unlink(path(file)),
            _ => Op::Write(path(file), vec![b'n'; 100 + number]),
        });
    }
    pair(target, &base_ops(), &ops)?;
    let mut expected: expected::Expected = list
        .into_iter()
        .map(|(file, kind)| (Path::new("/").join(file), kind))
        .collect();
    same!(
        20,
        expected.len(),
        "the number of files that the case changes"
    );
    for directory in ["/changed", "/kept", "/replaced"] {
        expected.insert(path(directory), ChangeKind::Modify);
    }
    expected::check(&expected, &target.changes("child")?, "the changes")
}

pub(super) fn without_parent(target: &mut Target) -> Outcome {
    pair(target, &base_ops(), &[])?;
    let tree = target.manifest("base")?.without_root();
    let mut expected: Vec<Change> = tree
        .0
        .keys()
        .map(|path| Change {
            path: Path::new("/").join(path),
            kind: ChangeKind::Add,
        })
        .collect();
    expected.sort();
    same!(
        expected,
        target.changes("base")?,
        "the changes of a layer without a parent"
    );
    Ok(())
}

pub(super) fn none(target: &mut Target) -> Outcome {
    pair(target, &base_ops(), &[])?;
    let none = Vec::<Change>::new();
    same!(
        none,
        target.changes("child")?,
        "the changes of an untouched child"
    );
    target.step("mount it and read everything")?;
    target.manifest("child")?;
    same!(
        none,
        target.changes("child")?,
        "the changes after the child was read"
    );
    target.step("look while it is mounted")?;
    let seen = target.within("child", |_| target.changes("child"))?;
    same!(none, seen, "the changes while the child is mounted");
    let again = target.reopened()?;
    same!(none, again.changes("child")?, "the changes after a restart");
    Ok(())
}

pub(super) fn metadata(target: &mut Target) -> Outcome {
    let ops = [
        Op::Chmod(path("changed/f0"), 0o600),
        Op::Chown(path("changed/f1"), 1, 0),
        Op::Chown(path("changed/f2"), 0, 1),
        Op::Mtime(path("changed/f3"), 1_000_000_000, 0),
        Op::Mtime(path("changed/f4"), 1_600_000_000, 5),
        Op::SetXattr(path("changed/f5"), "user.new".to_owned(), b"1".to_vec()),
        Op::SetXattr(path("kept/f1"), "user.kept".to_owned(), b"2".to_vec()),
        Op::Chown(path("soft"), 5, 5),
        Op::Chmod(path("pipe"), 0o600),
        Op::Chmod(path("removed"), 0o700),
        Op::Chown(path("replaced"), 9, 9),
    ];
    pair(target, &base_ops(), &ops)?;
    let changed = [
        "changed/f0",
        "changed/f1",
        "changed/f2",
        "changed/f3",
        "changed/f4",
        "changed/f5",
        "kept/f1",
        "soft",
        "pipe",
        "removed",
        "replaced",
    ];
    let expected = changed
        .iter()
        .map(|file| (Path::new("/").join(file), ChangeKind::Modify))
        .collect();
    expected::check(
        &expected,
        &target.changes("child")?,
        "the changes of attributes alone",
    )
}

pub(super) fn types(target: &mut Target) -> Outcome {
    let ops = [
        Op::Unlink(path("top")),
        Op::Mkdir(path("top")),
        Op::Write(path("top/inside"), b"was a file".to_vec()),
        Op::RemoveTree(path("replaced")),
        Op::Write(path("replaced"), b"was a directory".to_vec()),
        Op::Unlink(path("soft")),
        Op::Mkdir(path("soft")),
        Op::Unlink(path("pipe")),
        Op::Write(path("pipe"), b"was a pipe".to_vec()),
        Op::Unlink(path("kept/f0")),
        Op::Symlink(path("kept/f0"), path("f1")),
        Op::Unlink(path("kept/f2")),
        Op::Fifo(path("kept/f2")),
        Op::RemoveTree(path("removed")),
        Op::Symlink(path("removed"), path("kept")),
    ];
    pair(target, &base_ops(), &ops)?;
    let seen = target.changes("child")?;
    for name in [
        "top", "replaced", "soft", "pipe", "kept/f0", "kept/f2", "removed",
    ] {
        let path = Path::new("/").join(name);
        demand!(
            seen.iter().any(|change| change.path == path),
            "the changes do not have `{name}`, which changed its type: {seen:?}"
        );
    }
    target.step("apply the diff to a sibling")?;
    returns(target, "child", Some("base"), "again").map(drop)
}

pub(super) fn mounted(target: &mut Target) -> Outcome {
    pair(target, &base_ops(), &child_ops())?;
    let unmounted = target.changes("child")?;
    demand!(
        unmounted.len() > 10,
        "only these changes are listed: {unmounted:?}"
    );
    let mounted = target.within("child", |_| target.changes("child"))?;
    same!(unmounted, mounted, "the changes while the layer is mounted");
    if target.driver.capabilities().read_only_mounts {
        let mut request = MountRequest::default();
        request.read_only = true;
        let seen = target.within_as("child", &request, |_| target.changes("child"))?;
        same!(
            unmounted,
            seen,
            "the changes while the layer is mounted read-only"
        );
    }
    let seen = target.within("base", |_| target.changes("child"))?;
    same!(unmounted, seen, "the changes while the parent is mounted");
    Ok(())
}

pub(super) fn order(target: &mut Target) -> Outcome {
    let mut base = base_ops();
    // Names that sort otherwise as whole strings than part by part.
    base.extend([
        Op::Mkdir(path("a")),
        Op::Write(path("a/b"), b"1".to_vec()),
        Op::Write(path("a-b"), b"1".to_vec()),
        Op::Write(path("a.b"), b"1".to_vec()),
    ]);
    let mut child = child_ops();
    child.extend([
        Op::Unlink(path("a/b")),
        Op::Append(path("a-b"), b"2".to_vec()),
        Op::Append(path("a.b"), b"2".to_vec()),
    ]);
    pair(target, &base, &child)?;
    let first = target.changes("child")?;
    let mut sorted = first.clone();
    sorted.sort_by(|left, right| left.path.cmp(&right.path));
    same!(
        sorted,
        first,
        "the changes, sorted by path part by part, parents first"
    );
    for _ in 0..3 {
        same!(
            first,
            target.changes("child")?,
            "the changes when asked for again"
        );
    }
    same!(
        first,
        target.reopened()?.changes("child")?,
        "the changes after a restart"
    );
    Ok(())
}

pub(super) fn other_base(target: &mut Target) -> Outcome {
    let first: Vec<Op> = child_ops()
        .into_iter()
        .take_while(|op| !matches!(op, Op::Unlink(path) if path == Path::new("top")))
        .collect();
    pair(target, &base_ops(), &first)?;
    target.create_writable("grandchild", Some("child"))?;
    let second = [
        Op::Unlink(path("added/file")),
        Op::Write(path("kept/new"), b"new".to_vec()),
        Op::Write(path("changed/f0"), b"once more".to_vec()),
        Op::RemoveTree(path("replaced")),
    ];
    target.within("grandchild", |root| -> Outcome {
        Ok(crate::ops::apply(root, &second)?)
    })?;
    target.create_writable("unrelated", None)?;
    let unrelated = [
        Op::Mkdir(path("kept")),
        Op::Write(path("kept/f0"), b"something else".to_vec()),
        Op::Write(path("elsewhere"), b"elsewhere".to_vec()),
    ];
    target.within("unrelated", |root| -> Outcome {
        Ok(crate::ops::apply(root, &unrelated)?)
    })?;
    for (from, to) in [
        ("base", "grandchild"),
        ("child", "grandchild"),
        ("grandchild", "base"),
        ("unrelated", "grandchild"),
        ("base", "unrelated"),
        ("child", "child"),
    ] {
        target.step(&format!("compare `{to}` with `{from}`"))?;
        let wanted = expected::between(&target.manifest(from)?, &target.manifest(to)?);
        let seen = target.changes_between(Some(from), to)?;
        expected::check(
            &wanted,
            &seen,
            &format!("the changes of `{to}` against `{from}`"),
        )?;
    }
    Ok(())
}

pub(super) fn same_second(target: &mut Target) -> Outcome {
    let second = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let second = i64::try_from(second.as_secs())?;
    // From a stream, times have no fraction; written through a mount they have one.
    let tar = TarFile::new()
        .add(Entry::file("streamed", b"before").mtime(second))
        .done();
    target.put("base", None, &tar)?;
    target.create_writable("child", Some("base"))?;
    target.within("child", |root| {
        Ok::<_, crate::case::Failure>(fs::write(root.join("written"), "before")?)
    })?;
    target.create_writable("grandchild", Some("child"))?;
    // Longer than the clock that file systems stamp with.
    std::thread::sleep(Duration::from_millis(20));
    target.within("grandchild", |root| -> Outcome {
        for name in ["streamed", "written"] {
            let path = root.join(name);
            let before = std::os::unix::fs::MetadataExt::mtime(&fs::symlink_metadata(&path)?);
            let file = fs::OpenOptions::new().write(true).open(&path)?;
            file.write_all_at(b"after!", 0)?;
            let time = TimeSpec::new(before, 700_000_000);
            utimensat(
                AT_FDCWD,
                &path,
                &time,
                &time,
                UtimensatFlags::NoFollowSymlink,
            )?;
        }
        Ok(())
    })?;
    let wanted = expected::of(&[
        ("/streamed", ChangeKind::Modify),
        ("/written", ChangeKind::Modify),
    ]);
    expected::check(
        &wanted,
        &target.changes("grandchild")?,
        "the changes within the second of the parent's times",
    )?;
    target.step("apply the diff to a sibling")?;
    returns(target, "grandchild", Some("child"), "again").map(drop)
}

pub(super) fn id_maps(target: &mut Target) -> Outcome {
    let tar = TarFile::new()
        .add(Entry::directory("d/").owner(5, 6))
        .add(Entry::file("d/file", b"content").owner(1000, 1000))
        .add(Entry::symlink("link", "d/file"))
        .done();
    target.put("plain", None, &tar)?;
    let mut mapped = new_layer("mapped", None);
    let map = IdMap {
        container_id: 0,
        host_id: 100_000,
        size: 65_536,
    };
    mapped.id_maps.uids = vec![map];
    mapped.id_maps.gids = vec![map];
    target.put_with(&mapped, &tar[..], PutOptions::default())?;
    let owner = target.within("mapped", |root| {
        let meta = fs::symlink_metadata(root.join("d/file"))?;
        Ok::<_, crate::case::Failure>(std::os::unix::fs::MetadataExt::uid(&meta))
    })?;
    same!(
        101_000,
        owner,
        "the owner on the host of a file of user 1000"
    );
    let none = Vec::<Change>::new();
    for (from, to) in [("plain", "mapped"), ("mapped", "plain")] {
        let seen = target.changes_between(Some(from), to)?;
        same!(
            none,
            seen,
            "the changes of `{to}` against `{from}`, which is the same but for its id map"
        );
    }
    target.step("change an owner for real")?;
    target.create_writable("child", Some("mapped"))?;
    target.within("child", |root| -> Outcome {
        std::os::unix::fs::lchown(root.join("d/file"), Some(101_001), Some(101_000))?;
        rustix::fs::lsetxattr(root.join("d/file"), "user.a", b"1", XattrFlags::empty())?;
        Ok(())
    })?;
    let wanted = expected::of(&[("/d/file", ChangeKind::Modify)]);
    expected::check(
        &wanted,
        &target.changes("child")?,
        "the changes of a mapped layer",
    )
}
