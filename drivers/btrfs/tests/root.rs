// SPDX-License-Identifier: Apache-2.0
//! The btrfs driver on file systems in loop files, which only root can mount.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failure of a helper is a failure of its test"
)]

#[path = "root/changes.rs"]
mod changes;
#[path = "root/image_stores.rs"]
mod image_stores;
#[path = "root/layers.rs"]
mod layers;
#[path = "root/quota.rs"]
mod quota;
#[path = "root/recovery.rs"]
mod recovery;
#[path = "../../tests-in-common/script.rs"]
mod script;
#[path = "root/support.rs"]
mod support;
