// SPDX-License-Identifier: Apache-2.0
//! The zfs driver on a pool in a file; `cargo xtask zfs` runs this in a virtual machine that has zfs.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a failure of a helper is a failure of its test"
)]

#[path = "root/changes.rs"]
mod changes;
#[path = "root/interop.rs"]
mod interop;
#[path = "root/layers.rs"]
mod layers;
#[path = "../../tests-in-common/script.rs"]
mod script;
#[path = "root/support.rs"]
mod support;
