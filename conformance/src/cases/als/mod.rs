// SPDX-License-Identifier: Apache-2.0
//! Layers of other stores and of layer sources.

mod image_stores;
mod sources;

use crate::{Case, case::case};

pub(super) const CASES: &[Case] = &[
    case("GD-ALS-001", sources::lookup),
    case("GD-ALS-002", sources::lookup_missing),
    case("GD-ALS-003", sources::bad_info),
    case("GD-ALS-004", sources::create_as),
    case("GD-ALS-005", sources::release_once),
    case("GD-ALS-006", sources::blob_stream),
    case("GD-ALS-007", sources::provider_dies),
    case("GD-ALS-008", sources::option_syntax),
    case("GD-ALS-009", sources::mixed_stack),
    case("GD-ALS-010", image_stores::never_written),
    case("GD-ALS-011", image_stores::nothing_removed),
    case("GD-ALS-013", image_stores::own_layers_alone),
];
