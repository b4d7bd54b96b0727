// SPDX-License-Identifier: Apache-2.0
//! Deletions on their way out of a layer.

use std::{collections::BTreeMap, io::Read as _};

use super::{base, p};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    manifest::Manifest,
    ops::{Chain, Op},
};

/// What changes in the child: deletions, replacements and additions.
fn changes() -> Vec<Op> {
    vec![
        Op::Unlink(p("plain")),
        Op::Unlink(p("pipe")),
        Op::Rmdir(p("empty")),
        Op::Unlink(p("d/file")),
        Op::RemoveTree(p("d/e")),
        Op::RemoveTree(p("other")),
        Op::Mkdir(p("other")),
        Op::Write(p("other/new"), b"new".to_vec()),
        Op::Unlink(p("soft")),
        Op::Mkdir(p("soft")),
        Op::Write(p("added"), b"added".to_vec()),
    ]
}

/// Types by name, in the form of the stream.
fn entries(tar: &[u8]) -> Result<BTreeMap<String, tar::EntryType>, Failure> {
    let mut found = BTreeMap::new();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.display().to_string();
        let name = name
            .trim_end_matches('/')
            .trim_start_matches("./")
            .to_owned();
        let kind = entry.header().entry_type();
        if name.contains(".wh.") {
            let mut content = Vec::new();
            entry.read_to_end(&mut content)?;
            demand!(content.is_empty(), "the whiteout `{name}` has content");
        }
        demand!(
            found.insert(name.clone(), kind).is_none(),
            "`{name}` is in the stream twice"
        );
    }
    Ok(found)
}

fn by_seconds(manifest: Manifest) -> Manifest {
    manifest.without_root().in_seconds()
}

pub(super) fn format(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    chain.grow(target, "child", &changes())?;
    let tar = target.diff("child")?;
    let entries = entries(&tar)?;
    for name in [
        ".wh.plain",
        ".wh.pipe",
        ".wh.empty",
        "d/.wh.file",
        "d/.wh.e",
    ] {
        same!(
            Some(&tar::EntryType::Regular),
            entries.get(name),
            "the type of the entry `{name}` among {:?}",
            entries.keys()
        );
    }
    let hidden =
        entries.contains_key("other/.wh..wh..opq") || entries.contains_key("other/.wh.kept");
    demand!(
        hidden,
        "nothing in the stream hides `other/kept`: {:?}",
        entries.keys()
    );
    for name in ["added", "other/new", "soft"] {
        demand!(entries.contains_key(name), "`{name}` is not in the stream");
    }
    for (name, kind) in &entries {
        demand!(
            *kind != tar::EntryType::Char,
            "the device `{name}` is in the stream, which nobody made"
        );
    }
    for unchanged in ["hard", "null", "other/kept", "d/link", "dangling"] {
        demand!(
            !entries.contains_key(unchanged),
            "`{unchanged}` did not change and is in the stream"
        );
    }
    target.put("again", Some("base"), &tar)?;
    let differences =
        by_seconds(target.manifest("child")?).differences(&by_seconds(target.manifest("again")?));
    demand!(
        differences.is_empty(),
        "applied again the stream gives another tree: {differences:?}"
    );
    Ok(())
}

pub(super) fn there_and_back(target: &mut Target) -> Outcome {
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &base())?;
    chain.grow(target, "child", &changes())?;
    let more = [
        Op::RemoveTree(p("other")),
        Op::Write(p("d/file"), b"back".to_vec()),
        Op::RemoveTree(p("soft")),
        Op::Symlink(p("soft"), p("d")),
    ];
    chain.grow(target, "grandchild", &more)?;
    let mut streams = Vec::new();
    let mut parents = ("base".to_owned(), "base".to_owned());
    for id in ["child", "grandchild"] {
        let copy = format!("{id}-copy");
        let tar = target.diff(id)?;
        target.put(&copy, Some(&parents.1), &tar)?;
        let expected = by_seconds(target.manifest(id)?);
        let differences = expected.differences(&by_seconds(target.manifest(&copy)?));
        demand!(
            differences.is_empty(),
            "`{id}` through a stream is another tree: {differences:?}"
        );
        // What the native form of the copy says must be the same once more; against another parent
        // than its own, the stream that was stored cannot be used.
        let other = format!("{id}-on-other");
        target.create(&other, Some(&parents.0))?;
        target.apply(&other, &tar[..])?;
        let mut kinds = BTreeMap::new();
        for change in target.changes(&other)? {
            kinds.insert(change.path, change.kind);
        }
        let mut expected = BTreeMap::new();
        for change in target.changes(id)? {
            expected.insert(change.path, change.kind);
        }
        same!(expected, kinds, "the changes of `{id}` and of its copy");
        streams.push(tar);
        parents = (id.to_owned(), copy);
    }
    demand!(streams[0] != streams[1], "two layers gave one stream");
    Ok(())
}
