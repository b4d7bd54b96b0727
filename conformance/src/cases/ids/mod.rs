// SPDX-License-Identifier: Apache-2.0
//! Which ids layers may have. The driver gets valid ones by type; what refuses the others is the
//! SDK's `LayerId` and core, for every driver.

mod accepted;
mod refused;

use crate::{Case, case::case};

pub(super) const CASES: &[Case] = &[
    case("GD-IDS-001", accepted::hex),
    case("GD-IDS-002", accepted::short_and_mixed),
    case("GD-IDS-003", accepted::case_distinct),
    case("GD-IDS-004", accepted::longest),
    case("GD-IDS-005", refused::too_long),
    case("GD-IDS-006", refused::empty),
    case("GD-IDS-007", refused::dotdot),
    case("GD-IDS-008", refused::slash),
    case("GD-IDS-009", refused::dot),
    case("GD-IDS-010", refused::control_characters),
    case("GD-IDS-011", accepted::reserved),
    case("GD-IDS-012", refused::separators),
    case("GD-IDS-013", refused::beyond_ascii),
    case("GD-IDS-014", accepted::no_aliasing),
    case("GD-IDS-015", accepted::two_roots),
    case("GD-IDS-016", accepted::after_failure),
    case("GD-IDS-017", refused::every_argument),
];
