// SPDX-License-Identifier: Apache-2.0
//! `get-names`, `add-names`, `remove-names`, `set-names`.

use plywood::store::Store;

use crate::run::{Outcome, Run};

pub(crate) fn get(run: &mut Run<'_>, store: &Store) -> Outcome {
    let id = store.lookup(&run.arg(0))?;
    let names = store.names(&id)?;
    if run.json() {
        run.out.json(&names)?;
        return Ok(0);
    }
    for name in names {
        run.out.line(name)?;
    }
    Ok(0)
}

pub(crate) fn add(run: &mut Run<'_>, store: &Store) -> Outcome {
    change(run, store, |id, names| store.add_names(id, names))
}

pub(crate) fn remove(run: &mut Run<'_>, store: &Store) -> Outcome {
    change(run, store, |id, names| store.remove_names(id, names))
}

pub(crate) fn set(run: &mut Run<'_>, store: &Store) -> Outcome {
    change(run, store, |id, names| store.set_names(id, names))
}

fn change(
    run: &mut Run<'_>,
    store: &Store,
    change: impl Fn(&str, &[String]) -> plywood::Result<()>,
) -> Outcome {
    let id = store.lookup(&run.arg(0))?;
    change(&id, &run.values.list("--name"))?;
    if run.json() {
        let names = store.names(&id)?;
        // No name at all is nil in Go.
        run.out
            .json(&Some(names).filter(|names| !names.is_empty()))?;
    }
    Ok(0)
}
