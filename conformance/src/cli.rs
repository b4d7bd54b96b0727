// SPDX-License-Identifier: Apache-2.0
//! The command line.

mod certify;
mod run;
mod say;
mod selftest;

use std::{ffi::OsString, path::Path};

use clap::{Parser, Subcommand};
use plywood::plugin::probe::{CHILD_COMMAND, child_main};

use crate::{Entry, Level, catalogue, entry};

use say::{complain, sayln};

/// The property does not hold.
pub(crate) const FAILED: u8 = 1;
/// The suite could not do its work.
pub(crate) const HARNESS: u8 = 3;
/// The command line makes no sense.
pub(crate) const USAGE: u8 = 4;

#[derive(Parser)]
#[command(
    name = "plywood-conformance",
    version,
    about = "Holds a Plywood graph driver to the conformance suite"
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the cases of the catalogue.
    List {
        /// Also those that are only planned.
        #[arg(long)]
        planned: bool,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Says what a case asserts and how it is run.
    Explain {
        /// The case's id.
        id: String,
    },
    /// Runs the cases against a plugin file or a driver that is linked in.
    Run(Box<run::RunOptions>),
    /// Tests the suite itself, with drivers that have one fault each.
    Selftest(selftest::SelftestOptions),
    /// Makes a signed certificate of a whole run that succeeded.
    Certify(certify::CertifyOptions),
    /// Checks a certificate against a plugin file.
    Verify(certify::VerifyOptions),
}

/// The suite's program: to be called first thing in `main`, with nothing but linked-in drivers
/// added; returns the exit status.
///
/// # Behavior
/// - 0: every profile that was asked for is a success. 1: something failed. 2: nothing failed, but
///   not everything could be run. 3: the suite could not do its work. 4: the command line, the
///   plugin file or the selection makes no sense. 5: something outside the store was changed.
/// - Told to stop by a signal, it ends what is running and tidies up; the rest was not run.
pub fn main() -> i32 {
    let raw: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = crate::worker_main(&raw) {
        return code;
    }
    if let [first, file] = &raw[..]
        && first == CHILD_COMMAND
    {
        let done = child_main(Path::new(file), &mut std::io::stdout().lock());
        return i32::from(if done.is_ok() { 0 } else { HARNESS });
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Nothing can be done about a closed standard output.
            let _printed = error.print();
            return if error.use_stderr() {
                i32::from(USAGE)
            } else {
                0
            };
        }
    };
    if matches!(arguments.command, Command::Run(_) | Command::Selftest(_))
        && let Err(error) = crate::interrupt::take_signals()
    {
        complain!("error: signals cannot be caught: {error}");
        return i32::from(HARNESS);
    }
    let code = match arguments.command {
        Command::List { planned, json } => list(planned, json),
        Command::Explain { id } => explain(&id),
        Command::Run(options) => run::run(&options, &raw),
        Command::Selftest(options) => selftest::selftest(&options),
        Command::Certify(options) => certify::certify(&options),
        Command::Verify(options) => certify::verify(&options),
    };
    i32::from(if code == 0 && say::failed() {
        HARNESS
    } else {
        code
    })
}

fn list(planned: bool, json: bool) -> u8 {
    let entries = catalogue()
        .iter()
        .filter(|entry| planned || entry.since.is_some());
    if json {
        let rows: Vec<_> = entries.map(as_json).collect();
        sayln!("{}", serde_json::Value::from(rows));
        return 0;
    }
    for entry in entries {
        sayln!(
            "{}  {:<4}{:<30}{:<20}{}",
            entry.id,
            entry.level.word(),
            entry.name,
            entry.gate.map_or("", |gate| gate.name),
            if entry.since.is_none() { "planned" } else { "" }
        );
    }
    0
}

fn as_json(entry: &Entry) -> serde_json::Value {
    serde_json::json!({
        "id": entry.id,
        "name": entry.name,
        "level": entry.level.word(),
        "gate": entry.gate.map(|gate| gate.name),
        "needs": entry.needs,
        "groups": entry.groups,
        "timeout_s": entry.timeout.as_secs(),
        "since": entry.since,
        "asserts": entry.asserts,
    })
}

fn explain(id: &str) -> u8 {
    let Some(entry) = entry(id) else {
        return usage(&format!(
            "there is no case `{id}`; `plywood-conformance list` shows all"
        ));
    };
    sayln!("{}  {}", entry.id, entry.name);
    sayln!("asserts   {}", entry.asserts);
    sayln!(
        "binds     {}",
        match (entry.level, entry.gate) {
            (Level::Mandatory, None) => "every driver".to_owned(),
            (Level::Host, _) => "the host and the suite (selftest)".to_owned(),
            (Level::Recorded, _) => "nobody: the numbers are recorded".to_owned(),
            (_, Some(gate)) => format!("drivers that declare `{}`", gate.name),
            (Level::Capability, None) => "drivers that declare it".to_owned(),
        }
    );
    if let Some(excuse) = entry.excuse {
        sayln!("unless    {} ({})", excuse.text, excuse.name);
    }
    if !entry.needs.is_empty() {
        sayln!("needs     {}", entry.needs.join(", "));
    }
    if !entry.groups.is_empty() {
        sayln!("sets      {}", entry.groups.join(", "));
    }
    sayln!("at most   {} s", entry.timeout.as_secs());
    match (entry.since, entry.level) {
        (None, _) => sayln!("since     planned, not written yet"),
        (Some(since), Level::Host) => {
            sayln!("since     {since}\nalone     plywood-conformance selftest --only {id}");
        }
        (Some(since), _) => sayln!(
            "since     {since}\nalone     plywood-conformance run PLUGIN.so --only {id} --keep-on-fail"
        ),
    }
    0
}

/// Says what is wrong with the command line.
fn usage(text: &str) -> u8 {
    complain!("error: {text}");
    USAGE
}
