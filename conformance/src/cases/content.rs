// SPDX-License-Identifier: Apache-2.0
//! Applying streams and giving them back.

use super::lifecycle::sample;
use crate::{
    Case, Target,
    case::{Outcome, case, demand},
    tar_file::TarFile,
};

pub(super) const CASES: &[Case] = &[case("GD-WHO-011", whiteout), case("GD-WHO-012", opaque)];

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
