// SPDX-License-Identifier: Apache-2.0
//! Graph drivers as plugins: finding, checking, loading, choosing and guarding them.

mod guard;

pub use guard::{DriverHandle, Origin};
