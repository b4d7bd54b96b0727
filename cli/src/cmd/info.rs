// SPDX-License-Identifier: Apache-2.0
//! `info`: which store this is.

use plywood::store::Store;
use serde::Serialize;

use crate::{
    options,
    run::{Outcome, Run},
};

#[derive(Serialize)]
struct Info {
    version: &'static str,
    graph_root: String,
    run_root: String,
    driver: String,
    driver_reason: String,
    driver_origin: String,
    driver_options: Vec<String>,
    driver_status: Vec<(String, String)>,
    layer_sources: Vec<Source>,
    config_files: Vec<String>,
    layers: usize,
    images: usize,
    containers: usize,
}

/// A layer source that the store asks.
#[derive(Serialize)]
struct Source {
    name: String,
    origin: String,
    status: Vec<(String, String)>,
}

/// The layer sources, or why they cannot be used: the rest is worth knowing then, too.
fn sources(store: &Store) -> Vec<Source> {
    let failed = |names: Vec<String>, error: &plywood::Error| {
        let text = crate::hints::one_line(error);
        let status = vec![("Cannot be used".to_owned(), text)];
        let source = |name| Source {
            name,
            origin: "not open".to_owned(),
            status: status.clone(),
        };
        names.into_iter().map(source).collect()
    };
    let sources = match store.layer_sources() {
        Ok(sources) => sources,
        Err(error) => return failed(store.layer_source_names(), &error),
    };
    let described = sources.iter().map(|source| match source.status() {
        Ok(status) => vec![Source {
            name: source.name().to_owned(),
            origin: source.origin().to_string(),
            status,
        }],
        Err(error) => failed(vec![source.name().to_owned()], &error),
    });
    described.flatten().collect()
}

pub(crate) fn info(run: &mut Run<'_>, store: &Store) -> Outcome {
    let choice = store.driver_choice();
    let loaded = options::explain(run.globals, &run.values)?;
    let info = Info {
        version: env!("CARGO_PKG_VERSION"),
        graph_root: store.graph_root().display().to_string(),
        run_root: store.run_root().display().to_string(),
        driver: choice.name.clone(),
        driver_reason: choice.reason.clone(),
        driver_origin: choice
            .origin
            .as_ref()
            .map_or_else(|| "not open".to_owned(), ToString::to_string),
        driver_options: store.driver_options().to_vec(),
        driver_status: store.status()?,
        layer_sources: sources(store),
        config_files: loaded
            .files
            .iter()
            .map(|path| path.display().to_string())
            .collect(),
        layers: store.layers()?.len(),
        images: store.images()?.len(),
        containers: store.containers()?.len(),
    };
    if run.json() {
        run.out.json(&info)?;
        return Ok(0);
    }
    let or_none = |list: &[String]| {
        if list.is_empty() {
            "none".to_owned()
        } else {
            list.join(", ")
        }
    };
    let mut lines = vec![
        ("version", info.version.to_owned()),
        ("graph root", info.graph_root),
        ("run root", info.run_root),
        (
            "driver",
            format!("{} ({})", info.driver, info.driver_reason),
        ),
        ("  from", info.driver_origin),
        ("  options", or_none(&info.driver_options)),
    ];
    for (key, value) in &info.driver_status {
        lines.push(("  status", format!("{key}: {value}")));
    }
    for source in info.layer_sources {
        lines.push(("layer source", source.name));
        lines.push(("  from", source.origin));
        for (key, value) in source.status {
            lines.push(("  status", format!("{key}: {value}")));
        }
    }
    lines.extend([
        ("configuration", or_none(&info.config_files)),
        ("layers", info.layers.to_string()),
        ("images", info.images.to_string()),
        ("containers", info.containers.to_string()),
    ]);
    for (key, value) in lines {
        run.out.line(format_args!("{key:<14} {value}"))?;
    }
    Ok(0)
}
