// SPDX-License-Identifier: Apache-2.0
//! The life of layers: making them, finding them, removing them, and the end of the driver.

mod closing;
mod create;
mod find;
mod large;
mod remove;
mod space;
mod template;
mod trash;

pub(super) use space::random;

use crate::{
    Case,
    case::{bare, case},
};

pub(super) const CASES: &[Case] = &[
    case("GD-LIF-001", create::empty),
    case("GD-LIF-002", create::content),
    case("GD-LIF-003", create::child),
    case("GD-LIF-004", create::root_attributes),
    case("GD-LIF-005", create::kinds),
    case("GD-LIF-006", template::equals),
    case("GD-LIF-007", template::changes),
    case("GD-LIF-008", find::exists),
    case("GD-LIF-009", find::list_exact),
    case("GD-LIF-010", find::list_hides_internals).roles(&[("leaver", find::leaver)]),
    case("GD-LIF-011", find::list_order),
    case("GD-LIF-012", remove::leaf),
    case("GD-LIF-013", space::freed).on_disk(),
    case("GD-LIF-014", remove::made_again),
    case("GD-LIF-015", remove::parent),
    case("GD-LIF-017", remove::chain),
    case("GD-LIF-018", large::awkward),
    case("GD-LIF-019", space::nested_subvolumes),
    case("GD-LIF-020", remove::open_files).roles(&[("holder", remove::holder)]),
    case("GD-LIF-021", trash::deferred),
    case("GD-LIF-022", trash::abandoned).roles(&[("leaver", trash::leaver)]),
    case("GD-LIF-023", find::metadata),
    case("GD-LIF-024", space::usage),
    bare("GD-LIF-025", closing::unmounts_all),
    case("GD-LIF-026", closing::twice),
    case("GD-LIF-027", closing::used_afterwards).roles(&[("opener", closing::opener)]),
    case("GD-LIF-028", large::siblings),
    case("GD-LIF-030", large::large_file),
];
