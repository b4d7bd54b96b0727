// SPDX-License-Identifier: Apache-2.0
//! The store over FUSE, used by every driver, stopped in the middle of things, and gone.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests do as tests do"
)]

#[path = "runner/hang.rs"]
mod hang;
#[path = "runner/serve.rs"]
mod serve;
#[path = "runner/support.rs"]
mod support;
