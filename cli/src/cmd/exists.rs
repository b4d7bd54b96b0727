// SPDX-License-Identifier: Apache-2.0
//! `exists`.

use std::collections::BTreeMap;

use plywood::store::Store;

use crate::run::{Outcome, Run};

/// Says what exists; `-l`, `-i` and `-c` change the exit code alone.
pub(crate) fn exists(run: &mut Run<'_>, store: &Store) -> Outcome {
    let mut all = true;
    let mut told: BTreeMap<String, bool> = BTreeMap::new();
    for what in run.args() {
        let exists = store.exists(&what)?;
        let right_kind = (!run.values.is("--layer") || store.layer(&what).is_ok())
            && (!run.values.is("--image") || store.image(&what).is_ok())
            && (!run.values.is("--container") || store.container(&what).is_ok());
        all &= exists && right_kind;
        told.insert(what, exists);
    }
    if run.json() {
        run.out.json(&told)?;
    } else if !run.values.is("--quiet") {
        for (what, exists) in &told {
            run.out.line(format_args!("{what}: {exists}"))?;
        }
    }
    Ok(u8::from(!all))
}
