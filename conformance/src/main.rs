// SPDX-License-Identifier: Apache-2.0
//! `plywood-conformance`: holds a graph driver to the suite.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand};
use plywood::plugin::probe::{CHILD_COMMAND, child_main, probe_in_child};
use plywood_conformance::{Options, Source, Summary, Verdict, WORKER};

plywood_plugin_sdk::embed_driver!(plywood_driver_overlay::Overlay);
plywood_plugin_sdk::embed_driver!(plywood_driver_vfs::Vfs);
plywood_plugin_sdk::embed_driver!(plywood_conformance_faulty::Reference);

macro_rules! embed {
    ($($fault:ident $name:literal $state:tt $text:literal $cases:tt;)*) => {
        $(plywood_plugin_sdk::embed_driver!(plywood_conformance_faulty::$fault);)*
    };
}
plywood_conformance_faulty::for_each_fault!(embed);

const FAILED: u8 = 1;
const HARNESS: u8 = 3;
const USAGE: u8 = 4;

#[derive(Parser)]
#[command(
    version,
    about = "Holds a Plywood graph driver to the conformance suite"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the cases.
    List,
    /// Says what a case asserts.
    Explain {
        /// The case's id.
        id: String,
    },
    /// Runs the cases against a plugin file or a driver that is linked in.
    Run {
        /// The plugin file.
        #[arg(required_unless_present = "embedded")]
        plugin: Option<PathBuf>,
        /// A driver that is linked into this program.
        #[arg(long, conflicts_with = "plugin")]
        embedded: Option<String>,
        /// Only cases whose id begins with this.
        #[arg(long)]
        only: Option<String>,
        /// Where stores are made.
        #[arg(long)]
        scratch: Option<PathBuf>,
        /// Options for the driver, `key=value`.
        #[arg(long = "storage-opt")]
        options: Vec<String>,
        /// Seconds that a case may take.
        #[arg(long, default_value_t = 120)]
        timeout: u64,
        /// Prints results as JSON.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let raw: Vec<_> = std::env::args_os().skip(1).collect();
    if raw.first().is_some_and(|first| first == WORKER) {
        return match plywood_conformance::worker(&raw[1..], &mut std::io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error}");
                ExitCode::from(HARNESS)
            }
        };
    }
    if let [first, file] = &raw[..]
        && first == CHILD_COMMAND
    {
        return match child_main(Path::new(file), &mut std::io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::from(HARNESS),
        };
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { USAGE } else { 0 };
            print!("{}", error.render());
            return ExitCode::from(code);
        }
    };
    match arguments.command {
        Command::List => {
            for case in plywood_conformance::all() {
                println!("{}  {}", case.id, case.name);
            }
            ExitCode::SUCCESS
        }
        Command::Explain { id } => explain(&id),
        run @ Command::Run { .. } => run_cases(run),
    }
}

fn explain(id: &str) -> ExitCode {
    match plywood_conformance::all()
        .into_iter()
        .find(|case| case.id == id)
    {
        Some(case) => {
            println!("{}  {}\n{}", case.id, case.name, case.asserts);
            ExitCode::SUCCESS
        }
        None => usage(&format!("there is no case `{id}`")),
    }
}

fn usage(text: &str) -> ExitCode {
    eprintln!("error: {text}");
    ExitCode::from(USAGE)
}

fn run_cases(command: Command) -> ExitCode {
    let Command::Run {
        plugin,
        embedded,
        only,
        scratch,
        options,
        timeout,
        json,
    } = command
    else {
        return ExitCode::from(USAGE);
    };
    let source = match (plugin, embedded) {
        (Some(path), _) => match path.canonicalize() {
            Ok(path) => Source::Plugin(path),
            Err(error) => return usage(&format!("cannot read `{}`: {error}", path.display())),
        },
        (None, Some(name)) => Source::Embedded(name),
        (None, None) => return usage("name a plugin file or an embedded driver"),
    };
    let mut cases = plywood_conformance::all();
    if let Some(prefix) = only {
        cases.retain(|case| case.id.starts_with(&prefix));
    }
    if cases.is_empty() {
        return usage("no case is selected");
    }
    let scratch = scratch.unwrap_or_else(std::env::temp_dir);
    if let Err(error) = opens(&source, &scratch) {
        return usage(&error);
    }
    let timeout = Duration::from_secs(timeout);
    let options = Options {
        source,
        scratch,
        driver_options: options,
        timeout,
    };
    let outcomes = plywood_conformance::run(&options, &cases, |outcome| {
        if json {
            return;
        }
        let (word, text) = match &outcome.verdict {
            Verdict::Pass => ("pass", ""),
            Verdict::Fail(text) => ("FAIL", text.as_str()),
            Verdict::Error(text) => ("ERROR", text.as_str()),
            Verdict::NotApplicable => ("n/a", "the driver does not declare it"),
        };
        println!("{word:<6}{}  {:<26}{text}", outcome.id, outcome.name);
    });
    let summary = Summary::of(&outcomes);
    if json {
        let report = serde_json::json!({ "summary": summary, "cases": outcomes });
        println!("{report}");
    } else {
        println!(
            "{} pass, {} fail, {} error, {} not applicable",
            summary.pass, summary.fail, summary.error, summary.not_applicable
        );
    }
    match summary {
        Summary { fail: 1.., .. } => ExitCode::from(FAILED),
        Summary { error: 1.., .. } => ExitCode::from(HARNESS),
        _ => ExitCode::SUCCESS,
    }
}

/// A plugin that cannot be loaded at all is a wrong argument, not a failed case. It is loaded by a
/// process of its own, since a damaged file can kill the process that loads it.
fn opens(source: &Source, scratch: &Path) -> Result<(), String> {
    source.name().map_err(|error| error.to_string())?;
    if !scratch.is_dir() {
        return Err(format!("`{}` is no directory", scratch.display()));
    }
    let Source::Plugin(path) = source else {
        return Ok(());
    };
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let report = probe_in_child(&program, path);
    match report.refusal {
        None => Ok(()),
        Some(refusal) => Err(refusal),
    }
}
