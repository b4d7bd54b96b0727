// SPDX-License-Identifier: Apache-2.0
//! The store as a whole: `status`, `version`, `gc`, `wipe`, `shutdown`.

use anyhow::anyhow;
use plywood::store::Store;
use serde_json::json;

use crate::{
    output::{go_list, note},
    run::{Outcome, Run, Voice},
};

pub(crate) fn status(run: &mut Run<'_>, store: &Store) -> Outcome {
    let mut pairs = vec![
        ("Root".to_owned(), store.graph_root().display().to_string()),
        (
            "Run Root".to_owned(),
            store.run_root().display().to_string(),
        ),
        ("Driver Name".to_owned(), store.driver_name().to_owned()),
        ("Driver Options".to_owned(), go_list(store.driver_options())),
    ];
    pairs.extend(store.status()?);
    tell_pairs(run, &pairs)
}

pub(crate) fn version(run: &mut Run<'_>, store: &Store) -> Outcome {
    tell_pairs(run, &store.version()?)
}

fn tell_pairs(run: &mut Run<'_>, pairs: &[(String, String)]) -> Outcome {
    if run.json() {
        run.out.json(pairs)?;
        return Ok(0);
    }
    for (key, value) in pairs {
        note(format!("{key}: {value}"));
    }
    Ok(0)
}

pub(crate) fn gc(run: &mut Run<'_>, store: &Store) -> Outcome {
    let collected = store.garbage_collect();
    // As containers/storage does: what was mounted by nobody who still lives goes, too.
    let closed = store.shutdown(true);
    collected?;
    if run.json() {
        run.out.json("")?;
    }
    if let Err(error) = closed {
        run.item_failed(&format!("shutdown: {error}"), &error);
        // containers/storage prints the reason and succeeds.
        return Ok(u8::from(run.voice == Voice::Own));
    }
    Ok(0)
}

pub(crate) fn wipe(run: &mut Run<'_>, store: &Store) -> Outcome {
    let result = store.wipe();
    finish(run, result)
}

pub(crate) fn shutdown(run: &mut Run<'_>, store: &Store) -> Outcome {
    let result = store.shutdown(run.values.is("--force")).map(drop);
    finish(run, result)
}

/// `""` or, for a failure, `{}`, which is all that Go's encoder shows of an error.
fn finish(run: &mut Run<'_>, result: plywood::Result<()>) -> Outcome {
    match result {
        Ok(()) => {
            if run.json() {
                run.out.json("")?;
            }
            Ok(0)
        }
        Err(_) if run.json() => {
            run.out.json(&json!({}))?;
            Ok(1)
        }
        Err(error) => Err(anyhow!(error.prefixed(run.name))),
    }
}
