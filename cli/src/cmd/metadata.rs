// SPDX-License-Identifier: Apache-2.0
//! `metadata`, `set-metadata`.

use std::collections::BTreeMap;

use anyhow::bail;
use plywood::store::Store;

use super::metadata_text;
use crate::run::{Outcome, Run};

pub(crate) fn get(run: &mut Run<'_>, store: &Store) -> Outcome {
    let args = run.args();
    let mut found: BTreeMap<&str, String> = BTreeMap::new();
    let mut missing = false;
    for what in &args {
        if let Some(text) = run.found(store.metadata(what)) {
            let text = text.strip_suffix('\n').unwrap_or(&text).to_owned();
            found.insert(what, text);
        } else {
            missing = true;
        }
    }
    if run.json() {
        run.out.json(&found)?;
    } else {
        for what in &args {
            let text = found
                .get(what.as_str())
                .map(String::as_str)
                .unwrap_or_default();
            if run.values.is("--quiet") {
                run.out.line(text)?;
            } else {
                run.out.line(format_args!("{what}: {text}"))?;
            }
        }
    }
    Ok(u8::from(missing))
}

pub(crate) fn set(run: &mut Run<'_>, store: &Store) -> Outcome {
    let Some(text) = metadata_text(&run.values)? else {
        bail!("no new metadata provided");
    };
    store.set_metadata(&run.arg(0), &text)?;
    Ok(0)
}
