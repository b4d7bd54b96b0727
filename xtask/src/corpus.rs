// SPDX-License-Identifier: Apache-2.0
//! Makes real layers from Debian and npm packages.

use std::path::Path;

use anyhow::Result;

use crate::{run, setup};

/// Makes `which` layers below `directory`; what is there already is kept.
pub(crate) fn make(directory: &Path, which: &str) -> Result<()> {
    // Only the node_modules layer needs npm.
    let base = which == "base";
    setup::install(if base {
        setup::Need::Test
    } else {
        setup::Need::All
    })?;
    let script = run::workspace().join("xtask/scripts/make-corpus.sh");
    run::check(run::command(
        "bash",
        [script.as_path(), directory, Path::new(which)],
    ))
}
