// SPDX-License-Identifier: Apache-2.0
//! WHO: what was deleted stays away, and nothing else does.

mod exported;
mod literal;
mod mounts;
mod streams;

use std::path::PathBuf;

use crate::{Case, case::case, ops::Op};

pub(super) const CASES: &[Case] = &[
    case("GD-WHO-001", mounts::delete_file),
    case("GD-WHO-002", mounts::delete_tree),
    case("GD-WHO-003", mounts::replace_directory),
    case("GD-WHO-004", mounts::replace_then_add),
    case("GD-WHO-005", mounts::delete_and_add),
    case("GD-WHO-006", mounts::delete_all_types),
    case("GD-WHO-007", mounts::replace_all_types),
    case("GD-WHO-008", mounts::invisible),
    case("GD-WHO-009", mounts::remove_emptied),
    case("GD-WHO-010", mounts::owner),
    case("GD-WHO-011", streams::whiteout),
    case("GD-WHO-012", streams::opaque),
    case("GD-WHO-013", streams::opaque_root),
    case("GD-WHO-014", streams::missing),
    case("GD-WHO-015", streams::both_orders),
    case("GD-WHO-016", streams::nested),
    case("GD-WHO-017", streams::dots),
    case("GD-WHO-018", literal::whiteout_name),
    case("GD-WHO-019", literal::device),
    case("GD-WHO-020", literal::attributes),
    case("GD-WHO-021", mounts::opaque_stays),
    case("GD-WHO-022", exported::format),
    case("GD-WHO-023", exported::there_and_back),
];

fn p(path: &str) -> PathBuf {
    PathBuf::from(path)
}

/// A tree to delete from: directories with content, and every other type.
fn base() -> Vec<Op> {
    vec![
        Op::Mkdir(p("d")),
        Op::Mkdir(p("d/e")),
        Op::Write(p("d/e/deep"), b"deep".to_vec()),
        Op::Write(p("d/file"), b"file".to_vec()),
        Op::Symlink(p("d/link"), p("file")),
        Op::Mkdir(p("other")),
        Op::Write(p("other/kept"), b"kept".to_vec()),
        Op::Write(p("plain"), b"plain".to_vec()),
        Op::Link(p("hard"), p("plain")),
        Op::Symlink(p("soft"), p("d/e")),
        Op::Symlink(p("dangling"), p("nowhere")),
        Op::Fifo(p("pipe")),
        Op::Socket(p("socket")),
        Op::Device(p("null"), 1, 3),
        Op::BlockDevice(p("block"), 7, 250),
        Op::Mkdir(p("empty")),
    ]
}
