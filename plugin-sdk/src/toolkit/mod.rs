// SPDX-License-Identifier: Apache-2.0
//! What several drivers need.

mod busy;
mod copy;
mod dirs;
pub mod layer_store;
pub mod mountinfo;
pub mod options;
pub mod patience;
mod places;
mod private_mount;
mod remove;
mod requests;
mod reserve;
pub mod temp_dir;
mod trees;
mod usage;

pub use busy::while_busy;
pub use copy::{CopiedXattrs, CopyOptions, copy_attributes, copy_tree};
pub use dirs::{create_private_dirs, is_there};
pub use places::{Held, Places};
pub use private_mount::{is_mount_point, make_private, refuse_mounted, undo_private};
pub use remove::{remove_tree, remove_tree_at};
pub use reserve::Reserve;
pub use temp_dir::TempDir;
pub use trees::{
    can_map_ids, can_share_blocks, list_layers, make_directories, remove_layer, remove_mount_point,
    sync_directory, sync_file_system, tree_plan, tree_target,
};
pub use usage::{tree_usage, tree_usage_with};
