// SPDX-License-Identifier: Apache-2.0
//! Applying streams and giving them back.

use std::{fs, os::unix::fs::PermissionsExt as _};

use plywood::sdk::ChangeKind;

use super::lifecycle::sample;
use crate::{
    Case, Target,
    case::{Failure, Outcome, case, demand},
    manifest,
    tar_file::TarFile,
};

pub(super) const CASES: &[Case] = &[
    case("GD-WHO-011", whiteout),
    case("GD-WHO-012", opaque),
    case("GD-FID-001", modes),
    case("GD-FID-002", owners),
    case("GD-DIF-001", changes),
    case("GD-DIF-003", no_changes),
    case("GD-DIF-015", exact),
    case("GD-DIF-011", diff_apply),
];

fn whiteout(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.put(
        "child",
        Some("base"),
        &TarFile::new().whiteout(".wh.plain").done(),
    )?;
    let (before, after) = (target.manifest("base")?, target.manifest("child")?);
    demand!(before.has("plain"), "the parent lost the file");
    let kept: Vec<_> = before
        .0
        .keys()
        .filter(|path| !after.0.contains_key(*path))
        .collect();
    demand!(kept == [std::path::Path::new("plain")], "gone: {kept:?}");
    demand!(
        after.0.len() + 1 == before.0.len(),
        "something else appeared: {after}"
    );
    Ok(())
}

fn opaque(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    let tar = TarFile::new()
        .directory("d/")
        .file("d/before", b"1")
        .whiteout("d/.wh..wh..opq")
        .file("d/after", b"2")
        .done();
    target.put("child", Some("base"), &tar)?;
    let child = target.manifest("child")?;
    demand!(
        child.has("d/before") && child.has("d/after"),
        "own entries are missing: {child}"
    );
    demand!(
        !child.has("d/e") && !child.has("d/e/deep"),
        "lower entries show: {child}"
    );
    Ok(())
}

/// Makes a tree in a child by `fill`, exports it, imports that, and compares with a flat
/// directory on which the same was done.
fn compare_with_flat(
    target: &Target,
    fill: fn(&std::path::Path) -> Result<(), Failure>,
) -> Outcome {
    let flat = target.scratch("flat")?;
    fill(&flat)?;
    target.create("base", None)?;
    target.create("made", Some("base"))?;
    target.within("made", fill)?;
    let expected = manifest::of(&flat)?.without_root();
    let contents = |id: &str| -> Result<_, Failure> { Ok(target.manifest(id)?.without_root()) };
    // Times are those of two different moments: compare all but them through the export.
    demand!(
        expected.0.keys().eq(contents("made")?.0.keys()),
        "the layer has other paths than the directory: {}",
        contents("made")?
    );
    let tar = target.diff("made")?;
    target.put("again", Some("base"), &tar)?;
    let differences = contents("made")?
        .in_seconds()
        .differences(&contents("again")?.in_seconds());
    demand!(
        differences.is_empty(),
        "export and import changed it: {differences:?}"
    );
    Ok(())
}

fn modes(target: &mut Target) -> Outcome {
    compare_with_flat(target, |root| {
        for mode in 0..=0o7777_u32 {
            // Every combination on files would be slow and no better than every bit with each other.
            if mode & 0o111 != 0 && mode & 0o111 != 0o111 {
                continue;
            }
            let path = root.join(format!("f{mode:o}"));
            fs::write(&path, "")?;
            fs::set_permissions(&path, fs::Permissions::from_mode(mode))?;
        }
        for bit in 0..12 {
            let path = root.join(format!("d{bit}"));
            fs::create_dir(&path)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700 | 1 << bit))?;
        }
        Ok(())
    })
}

fn owners(target: &mut Target) -> Outcome {
    compare_with_flat(target, |root| {
        for id in [
            0,
            1000,
            65_534,
            2_097_151,
            2_097_152,
            3_000_000,
            4_294_967_294,
        ] {
            let path = root.join(id.to_string());
            fs::write(&path, "")?;
            std::os::unix::fs::chown(&path, Some(id), Some(id))?;
        }
        Ok(())
    })
}

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
