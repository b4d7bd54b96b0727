// SPDX-License-Identifier: Apache-2.0
//! Runs the built program, beside containers-storage and podman where they are the oracle.
//!
//! What cannot run here prints `skipped: REASON`; where `CI` is set, that is a failure.

mod runner {
    mod golden;
    mod images;
    mod own;
    mod parsing;
    mod podman;
    mod support;
    mod texts;
}
