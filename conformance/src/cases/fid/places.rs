// SPDX-License-Identifier: Apache-2.0
//! A layer's root and the file system that it shows.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, lchown},
    path::Path,
};

use nix::{
    fcntl::AT_FDCWD,
    sys::{
        stat::{UtimensatFlags, utimensat},
        statvfs::statvfs,
        time::TimeSpec,
    },
};
use rustix::fs::XattrFlags;

use super::attributes::sample_acl;
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    manifest,
};

pub(super) fn only_own_entries(target: &mut Target) -> Outcome {
    target.create_writable("base", None)?;
    let listed = |target: &Target, layer: &str| {
        target.within(layer, |root| -> Result<Vec<String>, Failure> {
            let mut listed = Vec::new();
            for entry in fs::read_dir(root)? {
                listed.push(entry?.file_name().to_string_lossy().into_owned());
            }
            listed.sort();
            Ok(listed)
        })
    };
    let none = Vec::<String>::new();
    same!(none, listed(target, "base")?, "what a new layer contains");
    target.create_writable("child", Some("base"))?;
    same!(
        none,
        listed(target, "child")?,
        "what a new child of an empty layer contains"
    );
    target.within("child", |root| -> Outcome {
        Ok(fs::write(root.join("own"), "")?)
    })?;
    target.create("grandchild", Some("child"))?;
    let again = target.reopened()?;
    same!(
        none,
        listed(&again, "base")?,
        "what an empty layer contains after a restart"
    );
    for layer in ["child", "grandchild"] {
        same!(["own"], *listed(&again, layer)?, "what `{layer}` contains");
    }
    let changes = target.changes("base")?;
    demand!(
        changes.is_empty(),
        "the changes of an empty layer: {changes:?}"
    );
    Ok(())
}

pub(super) fn statfs(target: &mut Target) -> Outcome {
    target.create_writable("base", None)?;
    let scratch = statvfs(&target.root)?;
    target.within("base", |root| -> Outcome {
        let seen = statvfs(root)?;
        demand!(
            seen.name_max() >= 255,
            "the mount says that names have at most {} bytes",
            seen.name_max()
        );
        let bytes = |blocks: u64, stat: &nix::sys::statvfs::Statvfs| blocks * stat.fragment_size();
        let (free, size) = (
            bytes(seen.blocks_available(), &seen),
            bytes(seen.blocks(), &seen),
        );
        demand!(free > 0, "the mount says that it has no free space");
        demand!(free <= size, "{free} of {size} bytes are free in the mount");
        let below = bytes(scratch.blocks(), &scratch);
        demand!(
            size <= below,
            "the mount says that it has {size} bytes, on a file system of {below}"
        );
        Ok(())
    })
}

const SECONDS: i64 = 1_400_000_000;
const NANOSECONDS: i64 = 123_456_789;

pub(super) fn root(target: &mut Target) -> Outcome {
    target.create_writable("base", None)?;
    target.within("base", |root| -> Outcome {
        fs::create_dir(root.join("d"))?;
        lchown(root, Some(1000), Some(2000))?;
        fs::set_permissions(root, fs::Permissions::from_mode(0o1750))?;
        let set = |name: &str, value: &[u8]| {
            rustix::fs::lsetxattr(root, name, value, XattrFlags::empty())
        };
        set("user.suite", b"root")?;
        set("trusted.suite", b"\0root")?;
        set("system.posix_acl_default", &sample_acl())?;
        let time = TimeSpec::new(SECONDS, NANOSECONDS);
        utimensat(
            AT_FDCWD,
            root,
            &time,
            &time,
            UtimensatFlags::NoFollowSymlink,
        )?;
        Ok(())
    })?;
    let expected = target.manifest("base")?;
    target.within("base", |root| {
        has_time(root, "the layer when it is mounted again")
    })?;
    target.step("look at it in a child")?;
    target.create_writable("child", Some("base"))?;
    target.within("child", |root| -> Outcome {
        same_as(&expected, root, "a child")?;
        has_time(root, "a child")
    })?;
    target.step("look at it after the store was opened again")?;
    let again = target.reopened()?;
    again.within("base", |root| {
        same_as(&expected, root, "the layer after a restart")
    })?;
    again.within("child", |root| {
        same_as(&expected, root, "the child after a restart")
    })
}

fn same_as(expected: &manifest::Manifest, root: &Path, place: &str) -> Outcome {
    let differences = expected.differences(&manifest::of(root)?);
    demand!(
        differences.is_empty(),
        "the root (`` here) in {place} is not as it was made: {}",
        differences.join("; ")
    );
    Ok(())
}

fn has_time(root: &Path, place: &str) -> Outcome {
    let meta = fs::symlink_metadata(root)?;
    same!(
        (SECONDS, NANOSECONDS),
        (meta.mtime(), meta.mtime_nsec()),
        "the time of the root in {place}"
    );
    Ok(())
}
