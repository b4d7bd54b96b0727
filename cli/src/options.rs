// SPDX-License-Identifier: Apache-2.0
//! From flags to the options that a store is opened with.

use std::path::Path;

use plywood::config::{Loaded, Origin, Overrides, StoreOptions};

use crate::{mflag::Values, usage::Defaults};

/// The options: configuration and flags before the command, then flags after it.
///
/// # Compatibility
/// As in `main` of containers-storage, a root or driver flag *before* the command switches the
/// configuration off, while one *after* it only replaces that one value (`--storage-opt`: adds).
pub(crate) fn load(globals: &Values, values: &Values) -> plywood::Result<StoreOptions> {
    Ok(explain(globals, values)?.options)
}

/// As [`load`], with the origin of every value.
pub(crate) fn explain(globals: &Values, values: &Values) -> plywood::Result<Loaded> {
    let mut loaded = before_command(globals, values)?;
    let options = &mut loaded.options;
    if let Some(graph) = values.path("--graph") {
        options.graph_root = graph;
    }
    if let Some(run) = values.path("--run") {
        options.run_root = run;
    }
    if let Some(driver) = values.text("--storage-driver") {
        options.driver = Some(driver);
        options.driver_origin = Some(Origin::Argument("--storage-driver".to_owned()));
    }
    options.driver_options.extend(values.list("--storage-opt"));
    Ok(loaded)
}

fn before_command(globals: &Values, more: &Values) -> plywood::Result<Loaded> {
    StoreOptions::explain(&Overrides {
        graph_root: globals.path("--graph"),
        run_root: globals.path("--run"),
        driver: globals.text("--storage-driver"),
        driver_options: globals.list("--storage-opt"),
        plugin_dirs: [globals, more]
            .iter()
            .flat_map(|values| values.list("--plugin-dir"))
            .map(Into::into)
            .collect(),
        ..Overrides::default()
    })
}

/// What usage shows as the defaults of a command's flags: what the flags before it say, or the
/// configuration; nothing when that is bad, since usage must not fail.
pub(crate) fn defaults(globals: &Values) -> Defaults {
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let mut defaults = Defaults {
        graph: globals
            .path("--graph")
            .map(|path| text(&path))
            .unwrap_or_default(),
        run: globals
            .path("--run")
            .map(|path| text(&path))
            .unwrap_or_default(),
        driver: globals.text("--storage-driver").unwrap_or_default(),
        options: globals.list("--storage-opt"),
        home: home(),
    };
    let names = ["--graph", "--run", "--storage-driver", "--storage-opt"];
    if !names.iter().any(|name| globals.given(name))
        && let Ok(loaded) = before_command(globals, &Values::default())
    {
        let options = loaded.options;
        defaults.graph = text(&options.graph_root);
        defaults.run = text(&options.run_root);
        defaults.driver = options.driver.unwrap_or_default();
        defaults.options = options.driver_options;
    }
    defaults
}

#[expect(
    clippy::disallowed_methods,
    reason = "only for the shape of a help text, as Go's flag library does"
)]
fn home() -> String {
    std::env::var("HOME").unwrap_or_default()
}
