// SPDX-License-Identifier: Apache-2.0
//! The command table as a [`clap::Command`], for help, completions and manual pages.

use clap::{Arg, ArgAction, Command};

use crate::{
    mflag::{Flag, Kind},
    table::{COMMANDS, GLOBALS, OWN_COMMANDS, OWN_GLOBALS, Spec},
};

const AFTER: &str = "\
Flags stand before arguments in the commands of containers-storage, anywhere in the others.
A bundle such as -jq and --json=false are understood.";

/// The whole program.
pub(crate) fn program() -> Command {
    let mut program = Command::new("plywood")
        .version(env!("CARGO_PKG_VERSION"))
        .about("Layers, images and containers beside podman")
        .after_help(AFTER)
        .disable_help_subcommand(true)
        .propagate_version(false)
        .args(flags(GLOBALS))
        .args(flags(OWN_GLOBALS));
    let mut nouns: Vec<Command> = Vec::new();
    for spec in OWN_COMMANDS {
        let (noun, verb) = match spec.names[0].split_once(' ') {
            Some((noun, verb)) => (noun, Some(verb)),
            None => (spec.names[0], None),
        };
        let Some(verb) = verb else {
            nouns.push(one(spec, noun));
            continue;
        };
        let at = nouns.iter().position(|known| known.get_name() == noun);
        let known = match at {
            Some(at) => nouns.remove(at),
            None => COMMANDS
                .iter()
                .find(|spec| spec.names[0] == noun)
                .map_or_else(
                    || Command::new(noun).about(noun_about(noun)),
                    |spec| one(spec, noun),
                )
                .disable_help_subcommand(true),
        };
        nouns.push(known.subcommand(one(spec, verb)));
    }
    for spec in COMMANDS {
        if !nouns.iter().any(|noun| noun.get_name() == spec.names[0]) {
            nouns.push(one(spec, spec.names[0]));
        }
    }
    for noun in nouns {
        program = program.subcommand(noun);
    }
    program
}

fn noun_about(noun: &str) -> &'static str {
    match noun {
        "driver" => "Graph drivers and their plugins",
        _ => "More commands",
    }
}

fn one(spec: &'static Spec, name: &'static str) -> Command {
    let command = Command::new(name)
        .about(spec.about)
        .visible_aliases(spec.names[1..].iter().copied())
        .override_usage(format!("plywood {} {}", spec.names[0], spec.arguments))
        .args(flags(spec.flags));
    if spec.max == Some(0) {
        return command;
    }
    // The usage line has the arguments' names.
    let arguments = Arg::new("arguments")
        .action(ArgAction::Append)
        .num_args(1..);
    command.arg(arguments.hide(true))
}

fn flags(flags: &'static [Flag]) -> impl Iterator<Item = Arg> {
    flags.iter().map(|flag| {
        let mut arg = Arg::new(flag.names[0]).help(flag.help);
        for name in flag.names {
            match name.strip_prefix("--") {
                Some(long) if arg.get_long().is_none() => arg = arg.long(long),
                Some(alias) => arg = arg.visible_alias(alias),
                None => arg = arg.short(name.chars().nth(1)),
            }
        }
        match flag.kind {
            Kind::Bool => arg.action(ArgAction::SetTrue),
            Kind::Text(value) => arg.value_name(value).action(ArgAction::Set),
            Kind::List(value) => arg.value_name(value).action(ArgAction::Append),
        }
    })
}

/// The help text of the program.
pub(crate) fn program_help() -> String {
    program().render_help().to_string()
}

/// The help text of a command.
pub(crate) fn command_help(spec: &'static Spec) -> String {
    let words: Vec<&str> = spec.names[0].split(' ').collect();
    let mut command = program();
    command.build();
    let mut found = command;
    for word in words {
        match found.find_subcommand(word).cloned() {
            Some(next) => found = next,
            None => break,
        }
    }
    found.render_help().to_string()
}

/// What can follow one of our own nouns.
pub(crate) fn verbs(noun: &str) -> Vec<&'static str> {
    OWN_COMMANDS
        .iter()
        .filter_map(|spec| spec.names[0].split_once(' '))
        .filter(|(first, _)| *first == noun)
        .map(|(_, verb)| verb)
        .collect()
}

/// A hint with the known command that is nearest to `name`.
pub(crate) fn did_you_mean(name: &str) -> String {
    let names = COMMANDS
        .iter()
        .chain(OWN_COMMANDS)
        .flat_map(|spec| spec.names);
    let best = names
        .map(|known| (distance(name, known), *known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3 + 1);
    match best {
        Some((_, known)) => format!("did you mean `{known}`? `plywood --help` lists all commands"),
        None => "`plywood --help` lists all commands".to_owned(),
    }
}

/// How many letters have to change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = corner + usize::from(x != *y);
            corner = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_consistent() {
        program().debug_assert();
        let mut seen = std::collections::BTreeSet::new();
        for spec in COMMANDS.iter().chain(OWN_COMMANDS) {
            assert!(spec.max.is_none_or(|max| max >= spec.min), "{spec:?}");
            for name in spec.names {
                assert!(seen.insert(*name), "{name} is there twice");
            }
            let mut flags = std::collections::BTreeSet::new();
            for flag in GLOBALS.iter().chain(OWN_GLOBALS).chain(spec.flags) {
                for name in flag.names {
                    assert!(
                        flags.insert(*name),
                        "{}: {name} is there twice",
                        spec.names[0]
                    );
                }
            }
        }
    }

    #[test]
    fn near_names_are_suggested() {
        assert!(did_you_mean("layer-list").starts_with('`'));
        assert!(did_you_mean("imoprt-layer").contains("`import-layer`"));
        assert!(command_help(&OWN_COMMANDS[0]).contains("--platform"));
    }
}
