// SPDX-License-Identifier: Apache-2.0
//! What streams unpack to.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use plywood::sdk::ChangeKind;
use tar::EntryType;

use super::expected;
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    tar_file::{Entry, TarFile},
};

pub(super) fn empty(target: &mut Target) -> Outcome {
    for (name, tar) in [
        ("no-bytes", Vec::new()),
        ("no-entries", TarFile::new().done()),
    ] {
        target.step(name)?;
        target.put(name, None, &tar)?;
        same!(
            0,
            target.diff_size(None, name)?,
            "the size of the changes of `{name}`"
        );
        let tree = target.manifest(name)?.without_root();
        demand!(tree.0.is_empty(), "an empty stream unpacked to {tree}");
        demand!(
            target.diff(name)? == tar,
            "the empty stream came back changed"
        );
        let applied = format!("applied-{name}");
        target.create(&applied, None)?;
        let bytes = target.apply(&applied, &tar[..])?;
        same!(
            tar.len() as u64,
            bytes,
            "the bytes of the stream that was applied"
        );
    }
    Ok(())
}

pub(super) fn onto_content(target: &mut Target) -> Outcome {
    target.put(
        "base",
        None,
        &TarFile::new()
            .directory("low/")
            .file("low/f", b"low")
            .done(),
    )?;
    target.create("layer", Some("base"))?;
    let first = TarFile::new()
        .directory("d/")
        .file("d/replaced", b"first")
        .file("d/kept", b"first")
        .file("to-directory", b"first")
        .directory("to-file/")
        .file("to-file/below", b"first")
        .file("removed", b"first")
        .link("soft", EntryType::Symlink, "d")
        .done();
    target.apply("layer", &first[..])?;
    let second = TarFile::new()
        .add(Entry::directory("d/").mode(0o700))
        .file("d/replaced", b"second")
        .directory("to-directory/")
        .file("to-directory/new", b"second")
        .file("to-file", b"second")
        .whiteout(".wh.removed")
        .file("soft", b"second")
        .whiteout("low/.wh.f")
        .done();
    target.apply("layer", &second[..])?;
    target.within("layer", |root| -> Outcome {
        let content = |name: &str| fs::read_to_string(root.join(name)).ok();
        for (name, wanted) in [
            ("d/replaced", Some("second")),
            ("d/kept", Some("first")),
            ("to-directory/new", Some("second")),
            ("to-file", Some("second")),
            ("removed", None),
            ("soft", Some("second")),
            ("low/f", None),
        ] {
            let wanted = wanted.map(str::to_owned);
            same!(wanted, content(name), "the content of `{name}`");
        }
        let mode = fs::symlink_metadata(root.join("d"))?.mode() & 0o7777;
        same!(
            0o700,
            mode,
            "the mode of a directory that the second stream has too"
        );
        demand!(
            fs::symlink_metadata(root.join("soft"))?.is_file(),
            "the symbolic link was written through"
        );
        Ok(())
    })?;
    demand!(
        target.diff("layer")? == second,
        "the diff of the layer is not the stream that was applied last"
    );
    let base = target.within("base", |root| {
        Ok::<_, Failure>(fs::read(root.join("low/f"))?)
    })?;
    same!(
        b"low".to_vec(),
        base,
        "the parent's file, which the child's stream removes"
    );
    Ok(())
}

pub(super) fn no_parents(target: &mut Target) -> Outcome {
    let umask = nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_retain(0o022));
    let tar = TarFile::new()
        .add(
            Entry::file("a/b/c/file", b"content")
                .owner(5, 5)
                .mode(0o600),
        )
        .add(Entry::symlink("x/link", "nowhere"))
        .add(Entry::directory("y/z/").mode(0o700))
        .done();
    let made = target.put("base", None, &tar);
    nix::sys::stat::umask(umask);
    made?;
    target.within("base", |root| -> Outcome {
        for name in ["a", "a/b", "a/b/c", "x", "y"] {
            let meta = fs::symlink_metadata(root.join(name))?;
            same!(
                (0o755, 0, 0),
                (meta.mode() & 0o7777, meta.uid(), meta.gid()),
                "mode and owner of `{name}`, which the stream implies"
            );
        }
        demand!(root.join("a/b/c/file").exists(), "the file is not there");
        Ok(())
    })
}

pub(super) fn link_order(target: &mut Target) -> Outcome {
    target.step("a link to a symbolic link is one more name of that link")?;
    let tar = TarFile::new()
        .file("file", b"content")
        .link("soft", EntryType::Symlink, "file")
        .add(Entry::hard_link("soft-too", "soft"))
        .add(Entry::hard_link("file-too", "./file"))
        .done();
    target.put("links", None, &tar)?;
    target.within("links", |root| -> Outcome {
        let meta = |name: &str| fs::symlink_metadata(root.join(name));
        demand!(
            meta("soft-too")?.is_symlink(),
            "the link to a symbolic link was followed"
        );
        same!(
            meta("soft")?.ino(),
            meta("soft-too")?.ino(),
            "the inodes of both links"
        );
        same!(
            meta("file")?.ino(),
            meta("file-too")?.ino(),
            "the inodes of both files"
        );
        same!(2, meta("file")?.nlink(), "the file's number of links");
        Ok(())
    })?;
    target.step("a link before its target")?;
    let tar = TarFile::new()
        .add(Entry::hard_link("early", "late"))
        .file("late", b"content")
        .done();
    let answer = target
        .put("early", None, &tar)
        .err()
        .map(|error| error.to_string());
    demand!(
        answer
            .as_ref()
            .is_some_and(|text| text.contains("early") && text.contains("late")),
        "a link to what is not there yet must fail and name both: {answer:?}"
    );
    demand!(
        !target.layers()?.iter().any(|layer| layer.id == "early"),
        "the refused stream left a layer"
    );
    Ok(())
}

pub(super) fn nanoseconds(target: &mut Target) -> Outcome {
    let time =
        |entry: Entry, fraction: &str| entry.record("mtime", format!("1234567890.{fraction}"));
    let tar = TarFile::new()
        .add(time(Entry::directory("d/"), "000000001"))
        .add(time(Entry::file("d/file", b"content"), "123456789"))
        .add(time(Entry::symlink("link", "d"), "987654321"))
        .add(time(Entry::new(EntryType::Fifo, "pipe"), "5"))
        .add(time(Entry::file("finer", b""), "1234567894"))
        .done();
    target.put("base", None, &tar)?;
    let whole = 1_234_567_890;
    let wanted = [
        ("d", 1),
        ("d/file", 123_456_789),
        ("link", 987_654_321),
        ("pipe", 500_000_000),
        ("finer", 123_456_789),
    ];
    demand_times(
        target,
        "base",
        &wanted.map(|(name, part)| (name, (whole, part))),
    )
}

/// Demands the times of entries of a layer, in seconds and nanoseconds.
fn demand_times(target: &Target, layer: &str, wanted: &[(&str, (i64, i64))]) -> Outcome {
    target.within(layer, |root| -> Outcome {
        for (name, time) in wanted {
            let meta = fs::symlink_metadata(root.join(name))?;
            let seen = (meta.mtime(), meta.mtime_nsec());
            same!(*time, seen, "the time of `{name}` in `{layer}`");
        }
        Ok(())
    })
}

pub(super) fn directory_times(target: &mut Target) -> Outcome {
    let tar = TarFile::new()
        .add(Entry::directory("before/").mtime(1000))
        .file("before/file", b"1")
        .add(Entry::directory("before/sub/").mtime(2000))
        .file("before/sub/file", b"1")
        .file("after/file", b"1")
        .add(Entry::directory("after/").mtime(3000))
        .file("before/last", b"1")
        .add(Entry::hard_link("after/link", "before/last"))
        .done();
    target.put("base", None, &tar)?;
    let times = |before, sub| {
        [
            ("before", (before, 0)),
            ("before/sub", (sub, 0)),
            ("after", (3000, 0)),
        ]
    };
    demand_times(target, "base", &times(1000, 2000))?;
    target.step("in a child that removes from them")?;
    let tar = TarFile::new()
        .add(Entry::directory("before/").mtime(4000))
        .whiteout("before/.wh.file")
        .add(Entry::directory("before/sub/").mtime(5000))
        .whiteout("before/sub/.wh..wh..opq")
        .done();
    target.put("child", Some("base"), &tar)?;
    demand_times(target, "child", &times(4000, 5000))?;
    let wanted = expected::of(&[
        ("/before/file", ChangeKind::Delete),
        ("/before/last", ChangeKind::Modify),
    ]);
    let seen = target.changes("child")?;
    demand!(
        seen.iter()
            .any(|change| wanted.get(&change.path) == Some(&change.kind)),
        "the removal is not listed: {seen:?}"
    );
    Ok(())
}

pub(super) fn xattrs(target: &mut Target) -> Outcome {
    let capability = *b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    let tar = TarFile::new()
        .add(
            Entry::file("tool", b"program")
                .owner(1000, 1000)
                .xattr("security.capability", capability),
        )
        .add(
            Entry::file("file", b"content")
                .xattr("user.text", "a=b\nc")
                .xattr("user.binary", b"\0\xff"),
        )
        .add(
            Entry::directory("d/")
                .xattr("user.directory", "d")
                .xattr("trusted.suite", "t"),
        )
        .add(Entry::new(EntryType::Fifo, "pipe").xattr("trusted.suite", "p"))
        .add(Entry::hard_link("linked", "file").xattr("user.later", "l"))
        .done();
    target.put("base", None, &tar)?;
    target.create("child", Some("base"))?;
    for layer in ["base", "child"] {
        target.within(layer, |root| -> Outcome {
            for (file, name, wanted) in [
                ("tool", "security.capability", &capability[..]),
                ("file", "user.text", b"a=b\nc"),
                ("file", "user.binary", b"\0\xff"),
                ("file", "user.later", b"l"),
                ("d", "user.directory", b"d"),
                ("d", "trusted.suite", b"t"),
                ("pipe", "trusted.suite", b"p"),
            ] {
                let seen = value(root, file, name)?;
                same!(wanted, &seen[..], "`{name}` of `{file}` in `{layer}`");
            }
            Ok(())
        })?;
    }
    Ok(())
}

fn value(root: &Path, file: &str, name: &str) -> Result<Vec<u8>, Failure> {
    let mut value = vec![0; 256];
    let length = rustix::fs::lgetxattr(root.join(file), name, &mut value[..])
        .map_err(|error| Failure::new(format!("`{name}` of `{file}` cannot be read: {error}")))?;
    value.truncate(length);
    Ok(value)
}
