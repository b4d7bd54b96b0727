// SPDX-License-Identifier: Apache-2.0
//! What the conformance suite is tested with: a correct graph driver, and many that are the same
//! except for one fault each.
//!
//! `plywood-conformance selftest` demands that the correct one passes every case that applies to
//! it, and that each fault is found by the cases that are there to find it.

mod extremes;
mod faults;
mod reference;
mod table;
mod tree;
mod wrapper;

pub use extremes::{Liar, Minimal};
pub use faults::*;
pub use reference::{DEPTH_LIMIT, Reference};

/// A driver with a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultInfo {
    /// The driver's name.
    pub name: &'static str,
    /// What is wrong with it, in one sentence.
    pub text: &'static str,
    /// The ids of the cases that must fail on it, each of them.
    pub cases: &'static [&'static str],
}
