// SPDX-License-Identifier: Apache-2.0
//! Containers: a writable layer on an image, with names, blobs and directories of the caller.
//!
//! What is on disk:
//!
//! ```text
//! GRAPHROOT/D-containers/containers.lock            locked while containers are read or changed
//!                        containers.json            the records
//!                        volatile-containers.json   records of others that need not survive
//!                        ID/                        big data items, and `userdata/` of the caller
//! RUNROOT/D-containers/ID/userdata/                 the caller's, until the next restart
//! ```

mod access;
mod dirs;
mod edit;
mod record;
mod table;

pub use access::{ContainerStore, ContainersRead, ContainersView, ContainersWrite};
pub use dirs::Lifetime;
pub(crate) use dirs::{USER_DATA, read_file, write_file};
pub use record::{Container, MOUNT_LABEL, MOUNT_OPTS, NewContainer, PROCESS_LABEL, VOLATILE};
