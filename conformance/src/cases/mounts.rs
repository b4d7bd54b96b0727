// SPDX-License-Identifier: Apache-2.0
//! Mounting, and what children may not do to their parents.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use plywood::{ErrorKind, sdk::MountRequest};

use super::lifecycle::sample;
use crate::{
    Case, Target,
    case::{Failure, Outcome, case, demand},
};

pub(super) const CASES: &[Case] = &[
    case("GD-MNT-001", path),
    case("GD-MNT-002", persists),
    case("GD-MNT-009", read_only),
    case("GD-MNT-012", unknown_option),
    case("GD-COW-001", parent_untouched),
    case("GD-COW-002", siblings),
    case("GD-WHO-001", delete_file),
];

fn path(target: &mut Target) -> Outcome {
    target.create("one", None)?;
    let root = target.root.clone();
    target.within("one", |path| {
        demand!(path.is_absolute(), "`{}` is not absolute", path.display());
        demand!(path.is_dir(), "`{}` is no directory", path.display());
        demand!(
            path.starts_with(&root),
            "`{}` is outside the store",
            path.display()
        );
        Ok(())
    })
}

fn persists(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create("child", Some("base"))?;
    target.within("child", |path| {
        Ok::<_, Failure>(fs::write(path.join("new"), "data")?)
    })?;
    let again = target.reopened()?;
    again.within("child", |path| {
        let text = fs::read_to_string(path.join("new"))?;
        demand!(text == "data", "it reads {text:?}");
        Ok(())
    })
}

fn read_only(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create("child", Some("base"))?;
    let mut request = MountRequest::default();
    request.read_only = true;
    let path = target.mount("child", &request)?;
    let refused = [
        ("create", fs::write(path.join("new"), "x")),
        ("write", fs::write(path.join("plain"), "x")),
        ("unlink", fs::remove_file(path.join("plain"))),
        ("mkdir", fs::create_dir(path.join("dir"))),
        (
            "chmod",
            fs::set_permissions(path.join("plain"), fs::Permissions::from_mode(0o600)),
        ),
    ]
    .map(|(what, result)| (what, result.map_err(|error| error.raw_os_error())));
    target.unmount("child")?;
    for (what, result) in refused {
        demand!(
            result == Err(Some(nix::libc::EROFS)),
            "{what} through a read-only mount gave {result:?}"
        );
    }
    Ok(())
}

fn unknown_option(target: &mut Target) -> Outcome {
    target.create("one", None)?;
    let mut request = MountRequest::default();
    request.options = vec!["nosuchoption=1".into()];
    match target.mount("one", &request) {
        Ok(_) => {
            target.unmount("one")?;
            Err(Failure::new("an unknown option was accepted"))
        }
        Err(error) => {
            let right = matches!(
                error.kind(),
                ErrorKind::NotSupported | ErrorKind::InvalidArgument | ErrorKind::Driver
            );
            demand!(right, "it was refused as {:?}: {error}", error.kind());
            Ok(())
        }
    }
}

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
