// SPDX-License-Identifier: Apache-2.0
//! Applying streams and giving them back.

use std::fs;

use plywood::sdk::ChangeKind;

use super::lifecycle::sample;
use crate::{
    Case, Target,
    case::{Failure, Outcome, case, demand},
    tar_file::TarFile,
};

pub(super) const CASES: &[Case] = &[
    case("GD-DIF-001", changes),
    case("GD-DIF-003", no_changes),
    case("GD-DIF-015", exact),
    case("GD-DIF-011", diff_apply),
];

fn changes(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create("child", Some("base"))?;
    target.within("child", |path| {
        fs::write(path.join("d/new"), "new")?;
        fs::remove_file(path.join("d/e/deep"))?;
        fs::write(path.join("setuid"), "longer than before")?;
        Ok::<_, Failure>(())
    })?;
    let mut seen: Vec<(String, ChangeKind)> = target
        .changes("child")?
        .into_iter()
        .map(|change| (change.path.display().to_string(), change.kind))
        .collect();
    seen.sort();
    let expected = [
        ("/d", ChangeKind::Modify),
        ("/d/e", ChangeKind::Modify),
        ("/d/e/deep", ChangeKind::Delete),
        ("/d/new", ChangeKind::Add),
        ("/setuid", ChangeKind::Modify),
    ]
    .map(|(path, kind)| (path.to_owned(), kind));
    demand!(seen == expected, "listed: {seen:?}");
    Ok(())
}

fn no_changes(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create("child", Some("base"))?;
    target.manifest("child")?;
    let seen = target.changes("child")?;
    demand!(seen.is_empty(), "listed: {seen:?}");
    Ok(())
}

fn exact(target: &mut Target) -> Outcome {
    let mut tar = sample();
    target.put("base", None, &tar)?;
    demand!(target.diff("base")? == tar, "the stream came back changed");
    tar.extend([0; 4096]);
    target.put("padded", Some("base"), &tar)?;
    demand!(
        target.diff("padded")? == tar,
        "a padded stream came back changed"
    );
    Ok(())
}

fn diff_apply(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create("child", Some("base"))?;
    target.within("child", |path| {
        fs::remove_dir_all(path.join("d"))?;
        fs::write(path.join("d"), "a file now")?;
        fs::remove_file(path.join("plain"))?;
        fs::create_dir(path.join("plain"))?;
        fs::write(path.join("plain/inside"), "x")?;
        fs::write(path.join("one"), "linked")?;
        fs::hard_link(path.join("one"), path.join("two"))?;
        std::os::unix::fs::symlink("nowhere", path.join("dangling"))?;
        Ok::<_, Failure>(())
    })?;
    let tar = target.diff("child")?;
    target.put("again", Some("base"), &tar)?;
    let expected = target.manifest("child")?.without_root().in_seconds();
    let differences = expected.differences(&target.manifest("again")?.without_root().in_seconds());
    demand!(
        differences.is_empty(),
        "the applied diff differs: {differences:?}"
    );
    Ok(())
}
