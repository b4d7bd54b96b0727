// SPDX-License-Identifier: Apache-2.0
//! `completions` and `man`: made from the command table.

use std::{io::Write as _, path::Path};

use anyhow::{Context as _, anyhow};
use clap::ValueEnum as _;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::{
    args,
    run::{Outcome, Run},
};

pub(crate) fn completions(run: &mut Run<'_>) -> Outcome {
    let name = run.arg(0);
    let shell = Shell::from_str(&name, true).map_err(|_| {
        anyhow!("`{name}` is no shell known here; there are bash, elvish, fish, powershell, zsh")
    })?;
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut args::program(), "plywood", &mut script);
    run.out.raw()?.write_all(&script)?;
    Ok(0)
}

pub(crate) fn man(run: &mut Run<'_>) -> Outcome {
    let Some(directory) = run.values.args.first() else {
        let mut page = Vec::new();
        Man::new(args::program()).render(&mut page)?;
        run.out.raw()?.write_all(&page)?;
        return Ok(0);
    };
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory)
        .with_context(|| format!("cannot create `{}`", directory.display()))?;
    clap_mangen::generate_to(args::program(), directory)
        .with_context(|| format!("cannot write into `{}`", directory.display()))?;
    Ok(0)
}
