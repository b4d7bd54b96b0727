// SPDX-License-Identifier: Apache-2.0
//! Runs the built program, beside containers-storage and podman where they are the oracle.
//!
//! What cannot run here prints `skipped: REASON`; where `CI` is set, that is a failure.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by a panic and says on standard error what it skips"
)]

mod runner {
    mod abuse_disk;
    mod abuse_kill;
    mod abuse_podman;
    mod abuse_records;
    mod abuse_streams;
    mod abuse_support;
    mod abuse_world;
    mod btrfs;
    mod golden;
    mod images;
    mod own;
    mod parsing;
    mod podman;
    mod sources;
    mod support;
    mod texts;
}
