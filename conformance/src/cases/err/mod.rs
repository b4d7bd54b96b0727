// SPDX-License-Identifier: Apache-2.0
//! What must be refused, how it is said, and what a failure must leave as it was.

mod codes;
mod damage;
mod duplicate;
mod full;
mod readonly;
mod retry;
mod starved;
mod unknown;
mod unprivileged;

use plywood::ErrorKind;

use crate::{Case, case::case};

pub(super) const CASES: &[Case] = &[
    case("GD-ERR-001", unknown::mount),
    case("GD-ERR-002", unknown::remove),
    case("GD-ERR-003", unknown::compare),
    case("GD-ERR-004", unknown::apply),
    case("GD-ERR-005", unknown::parent),
    case("GD-ERR-006", duplicate::same),
    case("GD-ERR-007", duplicate::other_arguments),
    case("GD-ERR-008", duplicate::own_parent),
    case("GD-ERR-009", unknown::template),
    case("GD-ERR-010", duplicate::mounted),
    case("GD-ERR-011", duplicate::removed_twice),
    case("GD-ERR-012", duplicate::unmounted_twice),
    case("GD-ERR-013", unknown::questions),
    case("GD-ERR-014", codes::stable),
    case("GD-ERR-015", full::enospc).on_disk(),
    case("GD-ERR-016", readonly::erofs),
    case("GD-ERR-017", damage::eio).on_disk(),
    case("GD-ERR-018", starved::emfile).roles(&[("starved", starved::role)]),
    case("GD-ERR-019", damage::vanished),
    case("GD-ERR-021", codes::undeclared),
    case("GD-ERR-022", codes::declared),
    case("GD-ERR-023", unprivileged::refused).roles(&[
        ("no-mounts", unprivileged::no_mounts),
        ("nobody", unprivileged::nobody),
        ("stranger", unprivileged::stranger),
    ]),
    case("GD-ERR-024", retry::succeeds).on_disk(),
];

/// How a layer that is not there is refused.
const UNKNOWN: [ErrorKind; 1] = [ErrorKind::LayerUnknown];
/// The same for a parent.
const PARENT_UNKNOWN: [ErrorKind; 2] = [ErrorKind::LayerUnknown, ErrorKind::ParentUnknown];
