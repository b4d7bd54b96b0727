// SPDX-License-Identifier: Apache-2.0
//! What several drivers need.

mod usage;

pub use usage::tree_usage;
