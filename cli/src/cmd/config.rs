// SPDX-License-Identifier: Apache-2.0
//! `config` and `config explain`.

use plywood::{config::StoreOptions, store::Store};
use serde::Serialize;

use crate::{
    options,
    output::{human_table, note},
    run::{Outcome, Run},
};

/// Prints the default options; as in containers/storage, flags and the argument have no effect.
pub(crate) fn show(run: &mut Run<'_>, _: &Store) -> Outcome {
    let options = StoreOptions::load(&plywood::config::Overrides::default())?;
    run.out.json(&options.report())?;
    Ok(0)
}

#[derive(Serialize)]
struct Line {
    key: String,
    value: String,
    origins: Vec<String>,
}

/// Prints every value in effect and where it comes from.
pub(crate) fn explain(run: &mut Run<'_>) -> Outcome {
    let loaded = options::explain(run.globals, &run.values)?;
    let lines: Vec<Line> = loaded
        .values
        .iter()
        .map(|value| Line {
            key: value.key.clone(),
            value: value.value.clone(),
            origins: value.origins.iter().map(ToString::to_string).collect(),
        })
        .collect();
    if run.json() {
        run.out.json(&lines)?;
        return Ok(0);
    }
    let rows = lines
        .into_iter()
        .map(|line| vec![line.key, line.value, line.origins.join(", ")]);
    run.out
        .text(&human_table(&["KEY", "VALUE", "FROM"], rows))?;
    for remark in &loaded.notes {
        note(format!("note: {remark}"));
    }
    Ok(0)
}
