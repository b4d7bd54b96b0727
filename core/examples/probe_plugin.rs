// SPDX-License-Identifier: Apache-2.0
//! What a program does so that plugin files are probed in a child process.
//!
//! `probe_plugin FILE` prints what FILE is. It runs itself for that, so a damaged file cannot end
//! it.

use std::{env, io, path::Path, process::ExitCode};

use plywood::plugin::probe::{CHILD_COMMAND, child_main, probe_in_child};

fn main() -> ExitCode {
    let arguments: Vec<_> = env::args_os().skip(1).collect();
    let done = match arguments.as_slice() {
        [command, file] if command.as_os_str() == CHILD_COMMAND => {
            child_main(Path::new(file), &mut io::stdout())
        }
        [file] => env::current_exe().and_then(|program| {
            let report = probe_in_child(&program, Path::new(file));
            Ok(serde_json::to_writer_pretty(io::stdout(), &report)?)
        }),
        _ => return ExitCode::from(2),
    };
    if done.is_ok() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
