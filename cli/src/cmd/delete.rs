// SPDX-License-Identifier: Apache-2.0
//! `delete`, `delete-layer`, `delete-image`, `delete-container`.

use std::collections::BTreeMap;

use plywood::store::Store;
use serde::Serialize;

use crate::{
    hints::one_line,
    output::note,
    run::{Outcome, Run},
};

pub(crate) fn anything(run: &mut Run<'_>, store: &Store) -> Outcome {
    each(run, |id| store.delete(id))
}

pub(crate) fn layer(run: &mut Run<'_>, store: &Store) -> Outcome {
    each(run, |id| store.delete_layer(id))
}

pub(crate) fn container(run: &mut Run<'_>, store: &Store) -> Outcome {
    each(run, |id| store.delete_container(id))
}

fn each(run: &mut Run<'_>, delete: impl Fn(&str) -> plywood::Result<()>) -> Outcome {
    let mut results: BTreeMap<String, Option<plywood::Error>> = BTreeMap::new();
    for what in run.args() {
        let error = delete(&what).err();
        results.insert(what, error);
    }
    if run.json() {
        let texts: BTreeMap<&str, String> = results
            .iter()
            .map(|(what, error)| (what.as_str(), text_of(error.as_ref())))
            .collect();
        run.out.json(&texts)?;
    } else {
        for (what, error) in &results {
            if let Some(error) = error {
                run.item_failed(&format!("{what}: {}", one_line(error)), error);
            }
        }
    }
    Ok(u8::from(results.values().any(Option::is_some)))
}

fn text_of(error: Option<&plywood::Error>) -> String {
    error.map(|error| one_line(error)).unwrap_or_default()
}

#[derive(Serialize)]
struct Deleted {
    #[serde(rename = "deleted-layers", skip_serializing_if = "Vec::is_empty")]
    layers: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

pub(crate) fn image(run: &mut Run<'_>, store: &Store) -> Outcome {
    let commit = !run.values.is("--test");
    let mut results = BTreeMap::new();
    for what in run.args() {
        let result = store.delete_image(&what, commit);
        results.insert(what, result);
    }
    if run.json() {
        let told: BTreeMap<&str, Deleted> = results
            .iter()
            .map(|(what, result)| {
                let deleted = Deleted {
                    layers: result.as_ref().cloned().unwrap_or_default(),
                    error: text_of(result.as_ref().err()),
                };
                (what.as_str(), deleted)
            })
            .collect();
        run.out.json(&told)?;
    } else {
        for (what, result) in &results {
            match result {
                Ok(layers) => layers
                    .iter()
                    .for_each(|layer| note(format!("{what}: {layer}"))),
                Err(error) => run.item_failed(&format!("{what}: {}", one_line(error)), error),
            }
        }
    }
    Ok(u8::from(results.values().any(Result::is_err)))
}
