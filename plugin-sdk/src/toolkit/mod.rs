// SPDX-License-Identifier: Apache-2.0
//! What several drivers need.

mod remove;
pub mod temp_dir;

pub use remove::remove_tree;
pub use temp_dir::TempDir;
