// SPDX-License-Identifier: Apache-2.0
//! The overlay driver on real mounts; needs root.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test binary documents by the names of its tests"
)]

#[path = "root/chain.rs"]
mod chain;
#[path = "root/external.rs"]
mod external;
#[path = "root/layout.rs"]
mod layout;
#[path = "root/mounts.rs"]
mod mounts;
#[path = "root/program.rs"]
mod program;
#[path = "root/recovery.rs"]
mod recovery;
#[path = "root/support.rs"]
mod support;
#[path = "root/userns.rs"]
mod userns;
