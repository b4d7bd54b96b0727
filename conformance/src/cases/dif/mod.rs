// SPDX-License-Identifier: Apache-2.0
//! Changes, diffs and streams.

mod apply;
mod broken;
mod changes;
mod corpus;
mod exact;
mod expected;
mod formats;
mod items;
mod races;
mod round;
mod sizes;
mod staging;

use std::path::PathBuf;

use crate::{
    Case, Target,
    case::{Failure, Outcome, case, demand},
    ops::Op,
};

pub(super) const CASES: &[Case] = &[
    case("GD-DIF-001", changes::exact),
    case("GD-DIF-002", changes::without_parent),
    case("GD-DIF-003", changes::none),
    case("GD-DIF-004", changes::metadata),
    case("GD-DIF-005", changes::types),
    case("GD-DIF-006", changes::mounted),
    case("GD-DIF-007", changes::order),
    case("GD-DIF-008", changes::other_base),
    case("GD-DIF-009", changes::same_second),
    case("GD-DIF-010", changes::id_maps),
    case("GD-DIF-011", round::manifest),
    case("GD-DIF-012", round::links),
    case("GD-DIF-013", formats::readers),
    case("GD-DIF-014", round::deterministic),
    case("GD-DIF-015", exact::bytes),
    case("GD-DIF-016", exact::rebuilt),
    case("GD-DIF-017", exact::content_roots),
    case("GD-DIF-018", sizes::like_apply),
    case("GD-DIF-019", sizes::rules),
    case("GD-DIF-020", apply::empty),
    case("GD-DIF-021", apply::onto_content),
    case("GD-DIF-022", broken::truncated),
    case("GD-DIF-023", broken::truncated_put),
    case("GD-DIF-024", broken::garbage),
    case("GD-DIF-025", races::slow_reader),
    case("GD-DIF-026", races::reader_error),
    case("GD-DIF-027", apply::no_parents),
    case("GD-DIF-028", broken::duplicates),
    case("GD-DIF-029", apply::link_order),
    case("GD-DIF-030", formats::dialects),
    case("GD-DIF-031", apply::nanoseconds),
    case("GD-DIF-032", apply::directory_times),
    case("GD-DIF-033", apply::xattrs),
    case("GD-DIF-034", broken::unsettable_xattr),
    case("GD-DIF-035", formats::export_set),
    case("GD-DIF-039", round::sockets),
    case("GD-DIF-040", round::large),
    case("GD-DIF-041", round::before_1970),
    case("GD-DIF-042", round::nodes),
    case("GD-DIF-043", sizes::many_files),
    case("GD-DIF-044", round::other_base),
    case("GD-DIF-045", races::closed_early),
    case("GD-DIF-046", broken::changed_content),
    case("GD-DIF-047", races::changing_file),
    case("GD-DIF-049", staging::basic),
    case("GD-DIF-050", staging::abandoned).roles(&[("stager", staging::stager)]),
    case("GD-DIF-051", staging::parallel),
    case("GD-DIF-052", staging::existing),
    case("GD-DIF-054", sizes::one_directory),
];

fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}

/// A base with something of everything that a child can change.
fn base_ops() -> Vec<Op> {
    let mut ops = Vec::new();
    for directory in [
        "kept",
        "changed",
        "changed/deep",
        "removed",
        "replaced",
        "replaced/sub",
    ] {
        ops.push(Op::Mkdir(path(directory)));
    }
    for number in 0..8 {
        for directory in ["kept", "changed", "changed/deep", "removed", "replaced"] {
            let name = format!("{directory}/f{number}");
            ops.push(Op::Write(path(&name), name.clone().into_bytes()));
        }
    }
    ops.extend([
        Op::Write(path("replaced/sub/hidden"), b"hidden".to_vec()),
        Op::Write(path("top"), b"top".to_vec()),
        Op::Symlink(path("soft"), path("kept/f0")),
        Op::Link(path("kept/second"), path("kept/f7")),
        Op::Fifo(path("pipe")),
        Op::SetXattr(path("kept/f1"), "user.kept".to_owned(), b"1".to_vec()),
    ]);
    ops
}

/// Changes of every kind on [`base_ops`].
fn child_ops() -> Vec<Op> {
    vec![
        Op::Write(path("changed/f0"), b"longer than it was".to_vec()),
        Op::Append(path("changed/deep/f1"), b" and more".to_vec()),
        Op::Chmod(path("changed/f2"), 0o4755),
        Op::Chown(path("changed/f3"), 1000, 1000),
        Op::Unlink(path("changed/f4")),
        Op::SetXattr(
            path("changed/f5"),
            "user.new".to_owned(),
            b"\0\xff".to_vec(),
        ),
        Op::Mtime(path("changed/f6"), 1_300_000_000, 0),
        Op::Rename(path("changed/f7"), path("changed/renamed")),
        Op::Chmod(path("changed/deep"), 0o2750),
        Op::RemoveTree(path("removed")),
        Op::RemoveTree(path("replaced")),
        Op::Mkdir(path("replaced")),
        Op::Write(path("replaced/only"), b"only".to_vec()),
        Op::Mkdir(path("added")),
        Op::Mkdir(path("added/empty")),
        Op::Write(path("added/file"), vec![b'x'; 70_000]),
        Op::Link(path("added/linked"), path("added/file")),
        Op::Symlink(path("added/soft"), path("../top")),
        Op::Fifo(path("added/pipe")),
        Op::Device(path("added/null"), 1, 3),
        Op::Unlink(path("top")),
        Op::Mkdir(path("top")),
        Op::Write(path("top/inside"), b"was a file".to_vec()),
        Op::Unlink(path("soft")),
        Op::Write(path("soft"), b"was a link".to_vec()),
    ]
}

/// `base` and, on top, `child`, made through mounts.
fn pair(target: &Target, base: &[Op], child: &[Op]) -> Outcome {
    target.create_writable("base", None)?;
    target.within("base", |root| -> Outcome {
        Ok(crate::ops::apply(root, base)?)
    })?;
    target.create_writable("child", Some("base"))?;
    target.within("child", |root| -> Outcome {
        Ok(crate::ops::apply(root, child)?)
    })
}

/// Exports `layer` against its parent, makes a sibling of that, and compares what a stream carries.
fn returns(
    target: &Target,
    layer: &str,
    parent: Option<&str>,
    sibling: &str,
) -> Result<Vec<u8>, Failure> {
    let tar = target.diff(layer)?;
    target.put(sibling, parent, &tar)?;
    let expected = target.manifest(layer)?.exported();
    let differences = expected.differences(&target.manifest(sibling)?.exported());
    demand!(
        differences.is_empty(),
        "the diff of `{layer}`, applied beside it, gives another tree: {}",
        differences.join("; ")
    );
    Ok(tar)
}
