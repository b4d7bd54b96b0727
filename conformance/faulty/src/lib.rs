// SPDX-License-Identifier: Apache-2.0
//! What the conformance suite is tested with: a correct graph driver, and many that are the same
//! except for one fault each.
//!
//! `plywood-conformance selftest` demands that the correct one passes every case that applies to
//! it, and that each fault is found by the case that is there to find it.

mod reference;

pub use reference::{DEPTH_LIMIT, Reference};
