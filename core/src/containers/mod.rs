// SPDX-License-Identifier: Apache-2.0
//! Containers: a writable layer on an image, with names, blobs and directories of the caller.

mod record;

pub use record::{Container, MOUNT_LABEL, MOUNT_OPTS, NewContainer, PROCESS_LABEL, VOLATILE};
