// SPDX-License-Identifier: Apache-2.0
//! Log messages of the library, on standard error.

use std::io::IsTerminal as _;

use tracing_subscriber::filter::LevelFilter;

use crate::{mflag::Values, run::Voice};

/// Whether colours are unwanted (<https://no-color.org>).
#[expect(
    clippy::disallowed_methods,
    reason = "NO_COLOR is about this program's output, not about the store"
)]
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Starts logging; the level is `--log-level`, or debug with `--debug`, else errors (warnings
/// under our own name).
pub(crate) fn start(voice: Voice, globals: &Values, values: &Values) -> Result<(), String> {
    let named = values
        .text("--log-level")
        .or_else(|| globals.text("--log-level"));
    let debug = if values.given("--debug") {
        values.is("--debug")
    } else {
        globals.is("--debug")
    };
    let level = match named {
        Some(name) => name
            .parse::<LevelFilter>()
            .map_err(|_| format!("`{name}` is no log level"))?,
        None if debug => LevelFilter::DEBUG,
        None if voice == Voice::DropIn => LevelFilter::ERROR,
        None => LevelFilter::WARN,
    };
    let ansi = std::io::stderr().is_terminal() && !no_color();
    let started = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        .with_target(level >= LevelFilter::DEBUG)
        .without_time()
        .try_init();
    // It fails only when logging was started before, and a process runs one command.
    drop(started);
    Ok(())
}
