// SPDX-License-Identifier: Apache-2.0
//! The record files of the containers.

use std::path::{Path, PathBuf};

use super::Container;
use crate::{Result, durable::Durability, records::Table};

/// The names of the record files; a record found in both counts where it comes first.
const FILES: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// New records go here, those of volatile containers too: containers/storage 1.43 knows no other
/// file, so it would remove the image below a container that it cannot see.
pub(super) const STABLE: usize = 0;

pub(super) fn files(dir: &Path) -> Vec<PathBuf> {
    FILES.iter().map(|name| dir.join(name)).collect()
}

pub(super) fn load(dir: &Path, durability: Durability) -> Result<Table<Container>> {
    Table::load(&[
        (dir.join(FILES[0]), durability),
        (dir.join(FILES[1]), Durability::None),
    ])
}
