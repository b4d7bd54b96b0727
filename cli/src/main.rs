// SPDX-License-Identifier: Apache-2.0
//! `plywood`: layers, images and containers beside podman.
//!
//! Under the name `containers-storage` it is a drop-in for the tool of that name; under its own
//! name it also has commands of its own and says more when something fails. All storing is done
//! by the library; this program reads arguments and prints answers.

mod args;
mod cmd;
mod hints;
mod image;
mod logs;
mod mflag;
mod options;
mod output;
mod progress;
mod run;
mod signals;
mod table;
mod usage;

use std::{ffi::OsString, process::ExitCode};

use plywood::{plugin::probe, store::Store};

use crate::{
    hints::{refuse, report},
    mflag::{Order, Stop, Values},
    output::{Output, note, note_raw},
    run::{Action, Run, Voice, is_broken_pipe},
    table::{GLOBALS, OWN_GLOBALS, Spec},
    usage::Usage,
};

#[cfg(feature = "embedded-drivers")]
mod embedded {
    use plywood_driver_additional_layer_store::AdditionalLayerStore;

    plywood_plugin_sdk::embed_driver!(AdditionalLayerStore);
    plywood_plugin_sdk::embed_driver!(plywood_driver_btrfs::Btrfs);
    plywood_plugin_sdk::embed_driver!(plywood_driver_overlay::Overlay);
    plywood_plugin_sdk::embed_driver!(plywood_driver_vfs::Vfs);
    plywood_plugin_sdk::embed_driver!(plywood_driver_zfs::Zfs);
    plywood_plugin_sdk::embed_layer_source!(AdditionalLayerStore);
}

/// What a shell shows for a program that SIGPIPE ended.
const BROKEN_PIPE: u8 = 128 + 13;
/// A wrong flag of a command.
const WRONG_FLAG: u8 = 125;

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    let program = words.next().unwrap_or_else(|| "plywood".into());
    let words: Vec<OsString> = words.collect();
    if let [command, file] = &words[..]
        && command == probe::CHILD_COMMAND
    {
        return match probe::child_main(file.as_ref(), &mut std::io::stdout()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    let mut out = Output::new();
    let call = Call {
        voice: Voice::of(&program),
        program: program.to_string_lossy().into_owned(),
    };
    let mut code = match call.run(words, &mut out) {
        Ok(code) => code,
        Err(error) if is_broken_pipe(&error) => BROKEN_PIPE,
        Err(error) => {
            // What was answered before the failure comes first.
            drop(out.flush());
            report(call.voice, &error);
            1
        }
    };
    if let Err(error) = out.flush() {
        code = if error.kind() == std::io::ErrorKind::BrokenPipe {
            BROKEN_PIPE
        } else {
            note(format!("cannot write to standard output: {error}"));
            1
        };
    }
    ExitCode::from(signals::exit_code().unwrap_or(code))
}

fn command_usage(spec: &Spec, name: &str, globals: &Values) -> Usage {
    usage::command(spec, name, &options::defaults(globals))
}

/// How the program was called.
struct Call {
    voice: Voice,
    program: String,
}

/// A command, its name as typed, and what follows it.
struct Chosen {
    spec: &'static Spec,
    name: String,
    order: Order,
    rest: Vec<OsString>,
}

impl Call {
    fn run(&self, words: Vec<OsString>, out: &mut Output) -> anyhow::Result<u8> {
        if words.is_empty() {
            self.show_usage(&usage::program(false), out)?;
            return Ok(1);
        }
        let globals = match mflag::parse(&self.global_flags(), words, Order::FlagsFirst) {
            Ok(globals) => globals,
            Err(stop) => return self.stopped(stop, out),
        };
        if globals.was_typed("help") && self.voice == Voice::DropIn {
            note(
                "Warning: '-help' is deprecated, it will be replaced by '--help' soon. See usage.",
            );
        }
        if globals.is("--help") {
            self.show_help(out)?;
            return Ok(0);
        }
        if globals.is("--version") {
            out.line(concat!("plywood ", env!("CARGO_PKG_VERSION")))?;
            return Ok(0);
        }
        if globals.args.is_empty() {
            self.show_usage(&usage::program(true), out)?;
            return Ok(1);
        }
        let Some(chosen) = self.choose(&globals.args) else {
            return self.unknown(&globals.args[0].to_string_lossy(), out);
        };
        self.command(chosen, &globals, out)
    }

    fn global_flags(&self) -> Vec<&'static [mflag::Flag]> {
        const HELP: &[mflag::Flag] = &[mflag::Flag {
            names: &["--help", "-help"],
            kind: mflag::Kind::Bool,
            help: "Print usage",
        }];
        const VERSION: &[mflag::Flag] = &[mflag::Flag {
            names: &["--version", "-V"],
            kind: mflag::Kind::Bool,
            help: "Print the version",
        }];
        let mut flags = vec![GLOBALS, HELP];
        if self.voice == Voice::Own {
            flags.extend([OWN_GLOBALS, VERSION]);
        }
        flags
    }

    /// The command that `args` begin with.
    fn choose(&self, args: &[OsString]) -> Option<Chosen> {
        if self.voice == Voice::Own {
            let words: Vec<String> = args
                .iter()
                .map_while(|word| word.to_str().map(str::to_owned))
                .collect();
            if let Some((spec, length)) = table::find_own(&words) {
                return Some(Chosen {
                    spec,
                    name: spec.names[0].to_owned(),
                    order: Order::Anywhere,
                    rest: args[length..].to_vec(),
                });
            }
        }
        let name = args[0].to_str()?;
        Some(Chosen {
            spec: table::find(name)?,
            name: name.to_owned(),
            order: Order::FlagsFirst,
            rest: args[1..].to_vec(),
        })
    }

    fn command(&self, chosen: Chosen, globals: &Values, out: &mut Output) -> anyhow::Result<u8> {
        let Chosen {
            spec,
            name,
            order,
            rest,
        } = chosen;
        let mut flags = vec![GLOBALS, spec.flags];
        if self.voice == Voice::Own {
            flags.push(OWN_GLOBALS);
        }
        let values = match mflag::parse(&flags, rest, order) {
            Ok(values) => values,
            Err(Stop::Help) if self.voice == Voice::Own => {
                out.text(&args::command_help(spec))?;
                return Ok(0);
            }
            Err(stop) => {
                let usage = command_usage(spec, &name, globals);
                return self.wrong_flags(stop, &name, &usage, out);
            }
        };
        if values.args.len() < spec.min {
            let text = format!("{name}: more arguments required.");
            return self.wrong_count(&text, spec, &name, globals, out);
        }
        if spec.max.is_some_and(|max| values.args.len() > max) {
            let given = output::go_list(&values.words());
            let text = format!("{name}: too many arguments ({given}).");
            return self.wrong_count(&text, spec, &name, globals, out);
        }
        if let Err(text) = logs::start(self.voice, globals, &values) {
            refuse(&text, "levels are error, warn, info, debug and trace");
            return Ok(WRONG_FLAG);
        }
        let mut run = Run {
            voice: self.voice,
            name: &name,
            globals,
            values,
            out,
        };
        match spec.action {
            Action::Plain(action) => action(&mut run),
            Action::Store(action) => match run.options().and_then(Store::open) {
                Ok(store) => action(&mut run, &store),
                Err(error) if self.voice == Voice::DropIn => {
                    run.out.line(format_args!(
                        "error initializing: {}",
                        hints::initializing(&error)
                    ))?;
                    Ok(1)
                }
                Err(error) => Err(anyhow::Error::new(error).context("cannot open the store")),
            },
        }
    }

    /// Wrong flags before the command.
    fn stopped(&self, stop: Stop, out: &mut Output) -> anyhow::Result<u8> {
        let text = match (stop, self.voice) {
            (Stop::Help, Voice::Own) => {
                self.show_help(out)?;
                return Ok(0);
            }
            (Stop::Bad { texts, .. }, Voice::Own) => {
                refuse(
                    &texts.join("; "),
                    "`plywood --help` lists commands and flags",
                );
                return Ok(1);
            }
            (Stop::Help, Voice::DropIn) => {
                self.show_usage(&usage::program(true), out)?;
                "flag: help requested".to_owned()
            }
            (Stop::Bad { usage_first, texts }, Voice::DropIn) => {
                if usage_first {
                    self.show_usage(&usage::program(true), out)?;
                }
                for text in &texts {
                    note(text);
                    note(format!("See '{}'.", self.help_call("containers-storage")));
                }
                texts.last().cloned().unwrap_or_default()
            }
        };
        out.line(format_args!("{text} while parsing arguments (1)"))?;
        self.show_usage(&usage::program(true), out)?;
        Ok(1)
    }

    /// Wrong flags of a command, or `-h`.
    fn wrong_flags(
        &self,
        stop: Stop,
        name: &str,
        usage: &Usage,
        out: &mut Output,
    ) -> anyhow::Result<u8> {
        let (usage_first, texts) = match stop {
            Stop::Help => (true, Vec::new()),
            Stop::Bad { usage_first, texts } => (usage_first, texts),
        };
        if self.voice == Voice::Own {
            refuse(
                &texts.join("; "),
                &format!("`plywood {name} --help` lists its flags"),
            );
            return Ok(WRONG_FLAG);
        }
        if usage_first {
            self.show_usage(usage, out)?;
        }
        for text in texts {
            note(text);
            note(format!("See '{}'.", self.help_call(name)));
        }
        Ok(WRONG_FLAG)
    }

    fn help_call(&self, name: &str) -> String {
        if self.program == name {
            format!("{name} --help")
        } else {
            format!("{} {name} --help", self.program)
        }
    }

    fn wrong_count(
        &self,
        text: &str,
        spec: &Spec,
        name: &str,
        globals: &Values,
        out: &mut Output,
    ) -> anyhow::Result<u8> {
        if self.voice == Voice::Own {
            let text = text.trim_end_matches('.');
            let verbs = args::verbs(name);
            let more = if verbs.is_empty() {
                String::new()
            } else {
                format!("; or plywood {name} with one of: {}", verbs.join(", "))
            };
            refuse(
                text,
                &format!("usage: plywood {name} {}{more}", spec.arguments),
            );
        } else {
            out.line(text)?;
            self.show_usage(&command_usage(spec, name, globals), out)?;
        }
        Ok(1)
    }

    fn unknown(&self, name: &str, out: &mut Output) -> anyhow::Result<u8> {
        if self.voice == Voice::DropIn {
            out.line(format_args!("{name}: unrecognized command."))?;
        } else if table::is_own_noun(name) {
            let verbs = args::verbs(name).join(", ");
            refuse(
                &format!("{name}: what to do is missing or unknown"),
                &format!("`plywood {name}` takes one of: {verbs}"),
            );
        } else {
            refuse(
                &format!("{name}: unrecognized command"),
                &args::did_you_mean(name),
            );
        }
        Ok(1)
    }

    fn show_help(&self, out: &mut Output) -> anyhow::Result<()> {
        if self.voice == Voice::Own {
            out.text(&args::program_help())?;
        } else {
            let usage = usage::program(true);
            out.text(&usage.text)?;
            out.text(&usage.table)?;
        }
        Ok(())
    }

    fn show_usage(&self, usage: &Usage, out: &mut Output) -> anyhow::Result<()> {
        if self.voice == Voice::Own {
            note_raw(&args::program_help());
            return Ok(());
        }
        out.text(&usage.text)?;
        out.flush()?;
        note_raw(&usage.table);
        Ok(())
    }
}
