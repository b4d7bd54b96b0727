// SPDX-License-Identifier: Apache-2.0
//! MNT: how layers are mounted, counted and unmounted.

mod busy;
mod counting;
mod damage;
mod options;
mod processes;
mod table;
mod views;

use crate::{
    Case,
    case::{bare, case},
    tar_file::TarFile,
};

pub(super) const CASES: &[Case] = &[
    case("GD-MNT-001", views::path),
    case("GD-MNT-002", views::persists),
    case("GD-MNT-003", counting::counted),
    case("GD-MNT-004", counting::same_path),
    case("GD-MNT-005", counting::unmount_alone),
    case("GD-MNT-006", counting::unknown),
    case("GD-MNT-007", counting::taken_away),
    case("GD-MNT-008", counting::left_over).roles(&[("holder", counting::holder)]),
    case("GD-MNT-009", options::read_only),
    case("GD-MNT-010", options::read_only_is_real),
    case("GD-MNT-011", options::both_ways),
    case("GD-MNT-012", options::unknown),
    case("GD-MNT-013", options::restricted),
    case("GD-MNT-014", options::label),
    case("GD-MNT-015", processes::volatile).roles(&[("writer", processes::volatile_writer)]),
    bare("GD-MNT-016", processes::private).roles(&[("observer", processes::observer)]),
    case("GD-MNT-017", processes::shared).roles(&[
        ("other", processes::other),
        ("elsewhere", processes::elsewhere),
    ]),
    case("GD-MNT-018", busy::busy).roles(&[("sitter", busy::sitter)]),
    case("GD-MNT-019", damage::rebuilt),
    case("GD-MNT-020", damage::reported),
    case("GD-MNT-021", views::closed_to_others),
    case("GD-MNT-022", views::entry_types),
    case("GD-MNT-023", views::inodes),
    case("GD-MNT-024", busy::working_directory).roles(&[("walker", busy::walker)]),
    case("GD-MNT-025", counting::hundred),
    case("GD-MNT-026", counting::after_failure),
];

/// A tree with one entry of most types.
fn sample() -> Vec<u8> {
    use tar::EntryType;
    TarFile::new()
        .directory("d/")
        .directory("d/e/")
        .file("d/e/deep", b"deep")
        .file("plain", b"plain")
        .entry("setuid", EntryType::Regular, 0o4755, b"x")
        .entry("sticky/", EntryType::Directory, 0o1777, &[])
        .link("soft", EntryType::Symlink, "d/e/deep")
        .link("hard", EntryType::Link, "plain")
        .entry("pipe", EntryType::Fifo, 0o600, &[])
        .done()
}
