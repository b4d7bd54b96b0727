// SPDX-License-Identifier: Apache-2.0
//! Usage texts in the exact form of containers-storage.

use std::fmt::Write as _;

use crate::{
    mflag::{Flag, Kind},
    output::go_list,
    table::{COMMANDS, GLOBALS, Spec},
};

const HELP: Flag = Flag {
    names: &["--help"],
    kind: Kind::Bool,
    help: "Print usage",
};

/// What the global flags hold before a command's own flags are read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults {
    /// `--graph`.
    pub(crate) graph: String,
    /// `--run`.
    pub(crate) run: String,
    /// `--storage-driver`.
    pub(crate) driver: String,
    /// `--storage-opt`.
    pub(crate) options: Vec<String>,
    /// Shown as `~` at the beginning of a value.
    pub(crate) home: String,
}

/// A usage text: what goes to standard output, then the option table.
pub(crate) struct Usage {
    /// The description.
    pub(crate) text: String,
    /// The options.
    pub(crate) table: String,
}

/// Usage of the program; the table has `--help` only once flags were read.
pub(crate) fn program(flags_read: bool) -> Usage {
    let mut text = "Usage: containers-storage command [options [...]]\n\nCommands:\n\n".to_owned();
    for spec in COMMANDS {
        let _ = writeln!(text, "  {:<30}{}", spec.names[0], spec.about);
    }
    text.push_str("\nOptions:\n");
    let help = flags_read.then_some(&HELP);
    let flags = GLOBALS.iter().chain(help);
    Usage {
        text,
        table: table(flags, &Defaults::default()),
    }
}

/// Usage of a command that was called `name`.
pub(crate) fn command(spec: &Spec, name: &str, defaults: &Defaults) -> Usage {
    Usage {
        text: format!(
            "Usage: containers-storage {name} {}\n\n{}\n\nOptions:\n",
            spec.arguments, spec.about
        ),
        table: table(GLOBALS.iter().chain(spec.flags), defaults),
    }
}

/// The option table: sorted, in two columns, the second one three blanks after the longest.
fn table<'a>(flags: impl Iterator<Item = &'a Flag>, defaults: &Defaults) -> String {
    let mut flags: Vec<&Flag> = flags.collect();
    flags.sort_by_key(|flag| flag.names[0].trim_start_matches('-').to_lowercase());
    let rows: Vec<(String, &str)> = flags
        .iter()
        .map(|flag| (cell(flag, defaults), flag.help))
        .collect();
    let width = rows
        .iter()
        .map(|(cell, _)| cell.chars().count() + 3)
        .max()
        .unwrap_or(0)
        .max(20);
    let mut text = String::from("\n");
    for (cell, help) in rows {
        let _ = writeln!(text, "{cell:<width$} {help}");
    }
    text
}

fn cell(flag: &Flag, defaults: &Defaults) -> String {
    let names = flag.names.join(", ");
    let value = match (flag.names[0], flag.kind) {
        ("--graph", _) => defaults.graph.clone(),
        ("--run", _) => defaults.run.clone(),
        ("--storage-driver", _) => defaults.driver.clone(),
        ("--storage-opt", _) => go_list(&defaults.options),
        (_, Kind::List(_)) => go_list::<String>(&[]),
        _ => String::new(),
    };
    let value = match value.strip_prefix(&defaults.home) {
        Some(rest) if !defaults.home.is_empty() && defaults.home != "/" => format!("~{rest}"),
        _ => value,
    };
    match value.as_str() {
        "" | "0" | "false" => format!("  {names}"),
        value => format!("  {names}={value}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::find;

    #[test]
    fn option_tables_have_defaults() {
        let defaults = Defaults {
            graph: "/root/g".into(),
            home: "/root".into(),
            options: vec!["a=b".into(), "c".into()],
            ..Defaults::default()
        };
        let usage = command(find("layers").unwrap(), "layers", &defaults);
        assert_eq!(
            usage.table,
            "\n  --debug, -D              Print debugging information\
             \n  --graph, -g=~/g          Root of the storage tree\
             \n  --json, -j               Prefer JSON output\
             \n  --quick, -q              Just the IDs\
             \n  --run, -R                Root of the runtime state tree\
             \n  --storage-driver, -s     Storage driver to use ($STORAGE_DRIVER)\
             \n  --storage-opt=[a=b c]    Set storage driver options ($STORAGE_OPTS)\
             \n  --tree, -t               Use a tree\n"
        );
    }
}
