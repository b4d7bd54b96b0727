// SPDX-License-Identifier: Apache-2.0
//! Replaced by `crate::durable` as soon as that is there.
use std::{io::Write as _, path::Path};

use crate::{IoContext as _, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    Full,
    #[expect(dead_code, reason = "interim")]
    None,
}

pub(crate) fn write_file(path: &Path, data: &[u8], _: Durability) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut file = tempfile::Builder::new()
        .prefix(".tmp-")
        .tempfile_in(dir)
        .at("cannot write", path)?;
    file.write_all(data).at("cannot write", path)?;
    file.as_file().sync_data().at("cannot write", path)?;
    file.persist(path)
        .map(drop)
        .map_err(|e| e.error)
        .at("cannot replace", path)
}
