// SPDX-License-Identifier: Apache-2.0
//! `driver list`, `driver inspect`, `driver check`, `driver probe`.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use plywood::{
    config::StoreOptions,
    plugin::{FoundDriver, Registry, probe, tracing_host},
    sdk::OpenRequest,
};
use serde::Serialize;

use crate::{
    output::{human_table, note},
    run::{Outcome, Run},
};

/// What is known about a driver that was found.
#[derive(Serialize)]
struct Row {
    name: String,
    origin: String,
    source: String,
    shadowed_by: Option<String>,
    #[serde(flatten)]
    report: probe::Report,
}

fn registry(options: &StoreOptions) -> Registry {
    Registry::discover(options.plugins.clone())
}

/// A request to open a driver as the store would.
fn open_request(registry: &Registry, options: &StoreOptions, name: &str) -> OpenRequest {
    let mut request = OpenRequest::new(
        options.graph_root.join(name),
        options.run_root.join(name),
        tracing_host(),
    );
    request.options.clone_from(&options.driver_options);
    request.known_drivers = registry.names();
    request.id_maps = options.id_maps.clone();
    request.rootless = options.rootless;
    request
}

/// This program, which can be run as the child that loads a plugin.
fn program() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this program's own file")
}

fn row(found: &FoundDriver, program: &Path) -> Row {
    Row {
        name: found.name.to_string(),
        origin: found.origin.to_string(),
        source: found.source.to_string(),
        shadowed_by: found.shadowed_by.as_ref().map(ToString::to_string),
        report: found.probe(program),
    }
}

pub(crate) fn list(run: &mut Run<'_>) -> Outcome {
    let registry = registry(&run.options()?);
    let program = program()?;
    let rows: Vec<Row> = registry
        .list()
        .iter()
        .map(|found| row(found, &program))
        .collect();
    if run.json() {
        run.out.json(&rows)?;
        return Ok(0);
    }
    if rows.is_empty() {
        note("no driver was found; looked in:");
        for (source, directory) in registry.directories() {
            note(format!("  {} ({source})", directory.display()));
        }
        return Ok(1);
    }
    let lines = rows.into_iter().map(|row| {
        let state = match (&row.report.refusal, &row.shadowed_by) {
            (Some(refusal), _) => format!("refused: {refusal}"),
            (None, Some(other)) => format!("hidden by {other}"),
            (None, None) => "usable".to_owned(),
        };
        vec![
            row.name,
            row.report.kind.unwrap_or_default(),
            row.report.version.unwrap_or_default(),
            row.report.abi.unwrap_or_default(),
            row.origin,
            row.source,
            state,
        ]
    });
    let heads = [
        "NAME", "KIND", "VERSION", "ABI", "WHERE", "FOUND BY", "STATE",
    ];
    run.out.text(&human_table(&heads, lines))?;
    Ok(0)
}

#[derive(Serialize)]
struct Inspected {
    #[serde(flatten)]
    row: Row,
    capabilities: Vec<&'static str>,
    depth_limit: Option<u32>,
    status: Vec<(String, String)>,
}

/// Opens the driver on this store's directories, as a command that uses it would.
pub(crate) fn inspect(run: &mut Run<'_>) -> Outcome {
    let options = run.options()?;
    let registry = registry(&options);
    let name = run.arg(0);
    let row = row(&registry.find(&name)?, &program()?);
    let kinds = row.report.kind.clone().unwrap_or_default();
    let is = |kind: &str| kinds.split(", ").any(|known| known == kind);
    let mut inspected = Inspected {
        row,
        capabilities: Vec::new(),
        depth_limit: None,
        status: Vec::new(),
    };
    // What cannot be probed is opened as a driver, which says why.
    if is("driver") || !is("layer-source") {
        let driver = registry.open(&name, open_request(&registry, &options, &name))?;
        inspected.capabilities = driver.capabilities().names();
        inspected.depth_limit = driver.capabilities().depth_limit;
        inspected.status = driver.status()?;
    }
    if is("layer-source") {
        let mut request = open_request(&registry, &options, &name);
        request.home.clone_from(&request.run_dir);
        let source = registry.open_source(&name, request)?;
        inspected.status.extend(source.status()?);
    }
    if run.json() {
        run.out.json(&inspected)?;
        return Ok(0);
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let report = &inspected.row.report;
    let mut lines = vec![
        ("name", inspected.row.name.clone()),
        ("kind", text(&report.kind)),
        ("version", text(&report.version)),
        ("vendor", text(&report.vendor)),
        ("plugin ABI", text(&report.abi)),
        ("where", inspected.row.origin.clone()),
        ("found by", inspected.row.source.clone()),
        ("sha256", text(&report.sha256)),
        ("capabilities", inspected.capabilities.join(", ")),
        (
            "depth limit",
            inspected
                .depth_limit
                .map_or_else(|| "none".to_owned(), |n| n.to_string()),
        ),
    ];
    lines.extend(
        inspected
            .status
            .iter()
            .map(|(key, value)| ("status", format!("{key}: {value}"))),
    );
    for (key, value) in lines {
        run.out.line(format_args!("{key:<14} {value}"))?;
    }
    Ok(0)
}

pub(crate) fn check(run: &mut Run<'_>) -> Outcome {
    let path = PathBuf::from(&run.values.args[0]);
    let path = path.canonicalize().unwrap_or(path);
    let report = probe::probe_in_child(&program()?, &path);
    let refused = report.refusal.is_some();
    if run.json() {
        run.out.json(&report)?;
        return Ok(u8::from(refused));
    }
    if let Some(refusal) = report.refusal {
        let hint = report.remedy.unwrap_or_default();
        crate::hints::refuse(&refusal, &hint);
        return Ok(1);
    }
    for (key, value) in [
        ("name", report.name),
        ("kind", report.kind),
        ("version", report.version),
        ("vendor", report.vendor),
        ("plugin ABI", report.abi),
        ("sha256", report.sha256),
    ] {
        if let Some(value) = value {
            run.out.line(format_args!("{key:<14} {value}"))?;
        }
    }
    Ok(0)
}

#[derive(Serialize)]
struct Probed {
    name: String,
    suitable: bool,
    text: String,
}

/// Opens every driver in fresh directories on the store's file system.
pub(crate) fn probe(run: &mut Run<'_>) -> Outcome {
    let options = run.options()?;
    let registry = registry(&options);
    std::fs::create_dir_all(&options.graph_root)
        .with_context(|| format!("cannot create `{}`", options.graph_root.display()))?;
    let scratch = tempfile::Builder::new()
        .prefix(".plywood-probe-")
        .tempdir_in(&options.graph_root)
        .with_context(|| format!("cannot write into `{}`", options.graph_root.display()))?;
    let results: Vec<Probed> = registry
        .names()
        .into_iter()
        .map(|name| {
            try_one(
                &registry,
                &name,
                open_request(&registry, &options, &name),
                scratch.path(),
            )
        })
        .collect();
    if run.json() {
        run.out.json(&results)?;
        return Ok(0);
    }
    let lines = results.into_iter().map(|probed| {
        let word = if probed.suitable { "yes" } else { "no" };
        vec![probed.name, word.to_owned(), probed.text]
    });
    run.out
        .text(&human_table(&["NAME", "USABLE", "BECAUSE"], lines))?;
    Ok(0)
}

fn try_one(registry: &Registry, name: &str, mut request: OpenRequest, root: &Path) -> Probed {
    request.home = root.join(name);
    request.run_dir = root.join(format!("{name}-run"));
    let (suitable, text) = match registry.open(name, request) {
        Ok(driver) => {
            let status = driver.status();
            // The home may be a mount, which would keep the scratch directory from going.
            if let Err(error) = driver.close() {
                note(format!("warning: cannot close driver {name}: {error}"));
            }
            match status {
                Ok(pairs) => {
                    let text: Vec<String> =
                        pairs.iter().map(|(k, v)| format!("{k}: {v}")).collect();
                    (true, text.join(", "))
                }
                Err(error) => (false, crate::hints::one_line(&error)),
            }
        }
        Err(error) => (false, crate::hints::one_line(&error)),
    };
    Probed {
        name: name.to_owned(),
        suitable,
        text,
    }
}
