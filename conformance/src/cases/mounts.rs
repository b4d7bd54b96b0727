// SPDX-License-Identifier: Apache-2.0
//! Mounting, and what children may not do to their parents.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use super::lifecycle::sample;
use crate::{
    Case, Target,
    case::{Failure, Outcome, case, demand},
};

pub(super) const CASES: &[Case] = &[
    case("GD-COW-001", parent_untouched),
    case("GD-COW-002", siblings),
    case("GD-WHO-001", delete_file),
];

fn disturb(path: &Path) -> Result<(), Failure> {
    fs::write(path.join("plain"), "changed")?;
    fs::write(path.join("new"), "new")?;
    fs::remove_file(path.join("d/e/deep"))?;
    fs::rename(path.join("setuid"), path.join("renamed"))?;
    fs::set_permissions(path.join("sticky"), fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::chown(path.join("d"), Some(7), Some(8))?;
    rustix::fs::setxattr(
        path.join("d"),
        "user.x",
        b"y",
        rustix::fs::XattrFlags::empty(),
    )?;
    Ok(())
}

fn parent_untouched(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    let before = target.manifest("base")?;
    target.create("child", Some("base"))?;
    target.within("child", disturb)?;
    let differences = before.differences(&target.manifest("base")?);
    demand!(
        differences.is_empty(),
        "the parent changed: {differences:?}"
    );
    demand!(
        target.manifest("child")?.has("renamed"),
        "the child did not change"
    );
    Ok(())
}

fn siblings(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create("left", Some("base"))?;
    target.create("right", Some("base"))?;
    let before = target.manifest("right")?;
    target.within("left", disturb)?;
    let differences = before.differences(&target.manifest("right")?);
    demand!(
        differences.is_empty(),
        "the sibling changed: {differences:?}"
    );
    Ok(())
}

fn delete_file(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create("child", Some("base"))?;
    target.within("child", |path| {
        Ok::<_, Failure>(fs::remove_file(path.join("plain"))?)
    })?;
    target.create("grandchild", Some("child"))?;
    for (layer, expected) in [("base", true), ("child", false), ("grandchild", false)] {
        let manifest = target.manifest(layer)?;
        demand!(manifest.has("plain") == expected, "in {layer}: {manifest}");
        demand!(manifest.has("hard"), "{layer} lost the other name");
    }
    Ok(())
}
