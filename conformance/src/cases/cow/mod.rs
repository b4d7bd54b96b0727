// SPDX-License-Identifier: Apache-2.0
//! COW: what a child changes is the child's alone, and looks as on a plain file system.

mod contents;
mod held;
mod isolation;
mod mapping;
mod metadata;
mod model;
mod names;
mod random;

use std::path::PathBuf;

use crate::{Case, case::case, ops::Op};

pub(super) const CASES: &[Case] = &[
    case("GD-COW-001", isolation::parent_untouched),
    case("GD-COW-002", isolation::siblings),
    case("GD-COW-003", contents::same_size_same_second),
    case("GD-COW-004", contents::append_truncate),
    case("GD-COW-005", metadata::copy_up),
    case("GD-COW-006", metadata::privileges),
    case("GD-COW-007", names::rename_file),
    case("GD-COW-008", names::rename_directory),
    case("GD-COW-009", names::rename_directory_refused),
    case("GD-COW-010", names::new_link),
    case("GD-COW-011", names::old_links),
    case("GD-COW-012", names::type_change),
    case("GD-COW-013", held::open_file),
    case("GD-COW-014", held::mapped_file),
    case("GD-COW-015", held::locks),
    case("GD-COW-016", names::temporary_file),
    case("GD-COW-017", held::running_program),
    case("GD-COW-018", held::many_threads),
    case("GD-COW-019", contents::large),
    case("GD-COW-020", contents::sparse),
    case("GD-COW-021", metadata::flags),
    case("GD-COW-022", isolation::parent_changed),
    case("GD-COW-023", contents::big_directory),
    case("GD-COW-024", isolation::space).on_disk(),
    case("GD-COW-025", isolation::reflink),
    case("GD-COW-026", model::chain),
    case("GD-COW-027", model::life).roles(&[("restarted", model::restarted)]),
    case("GD-COW-028", model::long),
];

fn p(path: &str) -> PathBuf {
    PathBuf::from(path)
}

/// Bytes that differ by `seed`, and that no block of which equals another one.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut data = vec![0; length];
    fastrand::Rng::with_seed(seed).fill(&mut data);
    data
}

/// A tree to be changed by a child.
fn base() -> Vec<Op> {
    vec![
        Op::Mkdir(p("d")),
        Op::Mkdir(p("d/e")),
        Op::Mkdir(p("empty")),
        Op::Write(p("d/e/deep"), b"deep".to_vec()),
        Op::Write(p("d/other"), bytes(2, 9000)),
        Op::Write(p("plain"), bytes(1, 100_000)),
        Op::Write(p("second"), b"second".to_vec()),
        Op::Write(p("owned"), b"owned".to_vec()),
        Op::Chown(p("owned"), 1234, 5678),
        Op::Chmod(p("owned"), 0o2640),
        Op::SetXattr(p("owned"), "user.kept".into(), b"value".to_vec()),
        Op::SetXattr(p("d"), "user.kept".into(), b"of d".to_vec()),
        Op::Symlink(p("soft"), p("d/e/deep")),
        Op::Chown(p("soft"), 12, 34),
        Op::Fifo(p("pipe")),
        Op::Device(p("null"), 1, 3),
        Op::Mtime(p("owned"), 1_500_000_000, 123_456_789),
        Op::Mtime(p("soft"), 1_400_000_000, 987_654_321),
    ]
}
