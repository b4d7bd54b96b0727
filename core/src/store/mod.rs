// SPDX-License-Identifier: Apache-2.0
//! The store: layers, images and containers behind one object.

mod paths;

pub(crate) use paths::{make_dir, orphans, record_dir, remove_tree, with_candidates};
