// SPDX-License-Identifier: Apache-2.0
//! System calls that no library wraps in the form that a store needs.

pub mod mount_attr;
pub mod ofd_lock;
pub mod protection;
pub mod user_namespace;
