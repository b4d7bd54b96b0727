// SPDX-License-Identifier: Apache-2.0
//! Layers of other stores.

mod image_stores;

use crate::{Case, case::case};

pub(super) const CASES: &[Case] = &[
    case("GD-ALS-010", image_stores::never_written),
    case("GD-ALS-011", image_stores::nothing_removed),
    case("GD-ALS-013", image_stores::own_layers_alone),
];
