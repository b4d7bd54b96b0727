// SPDX-License-Identifier: Apache-2.0
//! Reads flags by the rules of containers-storage's flag library ("mflag").
//!
//! Flags end at the first argument that is none (or at `--`), short ones have one letter and are
//! not glued to their values, and letters that are all known can be bundled. Our own commands
//! differ in one point: their flags may also follow arguments ([`Order::Anywhere`]).

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
};

use crate::output::go_quote;

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing, or `=true` and the like.
    Bool,
    /// One value; the last one counts.
    Text(&'static str),
    /// A value each time it is given.
    List(&'static str),
}

/// A flag: its spellings (with dashes), what it takes, and its line of help.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flag {
    /// `--name` and `-n`; the first one is the flag's key.
    pub(crate) names: &'static [&'static str],
    /// What it takes.
    pub(crate) kind: Kind,
    /// One line.
    pub(crate) help: &'static str,
}

/// Where flags may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Before the first argument.
    FlagsFirst,
    /// Anywhere before `--`.
    Anywhere,
}

/// Why parsing stopped.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// `-h` or an undeclared `--help`.
    Help,
    /// The texts to show, the last one being the reason.
    Bad {
        /// Whether usage is shown first (a bundle with `h`).
        usage_first: bool,
        /// At least one text.
        texts: Vec<String>,
    },
}

/// The values that were given, by the flags' first names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Values {
    bools: BTreeMap<&'static str, bool>,
    texts: BTreeMap<&'static str, Vec<OsString>>,
    /// Spellings as typed, without the first dash.
    typed: Vec<String>,
    /// The arguments that are no flags.
    pub(crate) args: Vec<OsString>,
}

impl Values {
    /// Whether a boolean flag is on.
    pub(crate) fn is(&self, key: &str) -> bool {
        self.bools.get(key).copied().unwrap_or(false)
    }

    /// Whether the flag was given at all, with whatever value.
    pub(crate) fn given(&self, key: &str) -> bool {
        self.bools.contains_key(key) || self.texts.contains_key(key)
    }

    /// Whether the flag was typed in this spelling (without its first dash).
    pub(crate) fn was_typed(&self, spelling: &str) -> bool {
        self.typed.iter().any(|typed| typed == spelling)
    }

    /// The last value that is not empty, as text.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let last = self.texts.get(key)?.last()?;
        (!last.is_empty()).then(|| last.to_string_lossy().into_owned())
    }

    /// The last value that is not empty, as a path.
    pub(crate) fn path(&self, key: &str) -> Option<PathBuf> {
        let last = self.texts.get(key)?.last()?;
        (!last.is_empty()).then(|| PathBuf::from(last))
    }

    /// Every value.
    pub(crate) fn list(&self, key: &str) -> Vec<String> {
        self.texts
            .get(key)
            .into_iter()
            .flatten()
            .map(|value| value.to_string_lossy().into_owned())
            .collect()
    }

    /// The arguments as text.
    pub(crate) fn words(&self) -> Vec<String> {
        self.args
            .iter()
            .map(|arg| arg.to_string_lossy().into_owned())
            .collect()
    }
}

enum One {
    Flag,
    End,
}

enum Halt {
    Help,
    Bad(String),
    /// An unknown name with one dash, which may be a bundle.
    Retry(Vec<u8>),
}

struct Parser<'a> {
    flags: &'a [&'a [Flag]],
    rest: VecDeque<OsString>,
    values: Values,
}

/// Parses `arguments` with the flags of all `flags`.
pub(crate) fn parse(
    flags: &[&[Flag]],
    arguments: impl IntoIterator<Item = OsString>,
    order: Order,
) -> Result<Values, Stop> {
    let mut parser = Parser {
        flags,
        rest: arguments.into_iter().collect(),
        values: Values::default(),
    };
    loop {
        match parser.one() {
            Ok(One::Flag) => {}
            Ok(One::End) => {
                if order == Order::Anywhere
                    && let Some(argument) = parser.rest.pop_front()
                {
                    parser.values.args.push(argument);
                    continue;
                }
                break;
            }
            Err(halt) => parser.recover(halt)?,
        }
    }
    parser.values.args.extend(parser.rest);
    Ok(parser.values)
}

impl Parser<'_> {
    fn find(&self, name: &[u8]) -> Option<Flag> {
        self.flags
            .iter()
            .copied()
            .flatten()
            .find(|flag| flag.names.iter().any(|n| n.as_bytes()[1..] == *name))
            .copied()
    }

    fn one(&mut self) -> Result<One, Halt> {
        let Some(word) = self.rest.front().map(|word| word.as_bytes().to_vec()) else {
            return Ok(One::End);
        };
        if word.len() < 2 || word[0] != b'-' {
            return Ok(One::End);
        }
        if word == b"--" {
            self.rest.pop_front();
            let rest = std::mem::take(&mut self.rest);
            self.values.args.extend(rest);
            return Ok(One::End);
        }
        if word[1] == b'=' {
            return Err(Halt::Bad(format!("bad flag syntax: {}", lossy(&word))));
        }
        self.rest.pop_front();
        let body = &word[1..];
        let (name, value) = match body.iter().position(|b| *b == b'=') {
            Some(at) => (&body[..at], Some(trim_quotes(&body[at + 1..]))),
            None => (body, None),
        };
        let Some(flag) = self.find(name) else {
            return Err(match name {
                b"-help" | b"help" | b"h" => Halt::Help,
                [b'-', ..] => Halt::Bad(undefined(name)),
                _ => Halt::Retry(name.to_vec()),
            });
        };
        self.set(flag, name, value)?;
        self.values.typed.push(lossy(name));
        Ok(One::Flag)
    }

    fn set(&mut self, flag: Flag, name: &[u8], value: Option<&[u8]>) -> Result<(), Halt> {
        let key = flag.names[0];
        if flag.kind == Kind::Bool {
            let on = match value {
                None => true,
                Some(text) => parse_bool(text).ok_or_else(|| {
                    let (text, name) = (go_quote(text), lossy(name));
                    Halt::Bad(format!(
                        "invalid boolean value {text} for  -{name}: \
                         strconv.ParseBool: parsing {text}: invalid syntax"
                    ))
                })?,
            };
            self.values.bools.insert(key, on);
            return Ok(());
        }
        let value = match value {
            Some(value) => OsStr::from_bytes(value).to_owned(),
            None => self
                .rest
                .pop_front()
                .ok_or_else(|| Halt::Bad(format!("flag needs an argument: -{}", lossy(name))))?,
        };
        let values = self.values.texts.entry(key).or_default();
        if matches!(flag.kind, Kind::Text(_)) {
            values.clear();
        }
        values.push(value);
        Ok(())
    }

    /// Takes an unknown name apart as a bundle, or says why parsing stops.
    fn recover(&mut self, halt: Halt) -> Result<(), Stop> {
        let name = match halt {
            Halt::Help => return Err(Stop::Help),
            Halt::Bad(text) => return Err(bad(vec![text])),
            Halt::Retry(name) => name,
        };
        let text = lossy(&name);
        if text.chars().count() < 2 {
            return Err(bad(vec![undefined(&name)]));
        }
        for letter in text.chars() {
            self.rest
                .push_front(OsString::from_vec(format!("-{letter}").into_bytes()));
            match self.one() {
                Ok(_) => {}
                Err(Halt::Help) => {
                    return Err(Stop::Bad {
                        usage_first: true,
                        texts: vec![undefined(&name)],
                    });
                }
                Err(Halt::Bad(first)) => return Err(bad(vec![first, undefined(&name)])),
                Err(Halt::Retry(_)) => return Err(bad(vec![undefined(&name)])),
            }
        }
        Ok(())
    }
}

fn bad(texts: Vec<String>) -> Stop {
    Stop::Bad {
        usage_first: false,
        texts,
    }
}

fn undefined(name: &[u8]) -> String {
    format!("flag provided but not defined: -{}", lossy(name))
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn trim_quotes(value: &[u8]) -> &[u8] {
    match value {
        [b'"', inner @ .., b'"'] | [b'\'', inner @ .., b'\''] => inner,
        _ => value,
    }
}

fn parse_bool(text: &[u8]) -> Option<bool> {
    match text {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        Flag {
            names: &["--json", "-j"],
            kind: Kind::Bool,
            help: "",
        },
        Flag {
            names: &["--quiet", "-q"],
            kind: Kind::Bool,
            help: "",
        },
        Flag {
            names: &["--name", "-n"],
            kind: Kind::List("NAME"),
            help: "",
        },
        Flag {
            names: &["--id", "-i"],
            kind: Kind::Text("ID"),
            help: "",
        },
    ];

    fn run(order: Order, words: &[&str]) -> Result<Values, Stop> {
        parse(&[FLAGS], words.iter().map(OsString::from), order)
    }

    fn reason(words: &[&str]) -> String {
        match run(Order::FlagsFirst, words) {
            Err(Stop::Bad { texts, .. }) => texts.join("; "),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn spellings() {
        let values = run(
            Order::FlagsFirst,
            &[
                "-jq",
                "--name",
                "a",
                "-n=b",
                "--id='x y'",
                "--id",
                "z",
                "w",
                "-j",
            ],
        )
        .unwrap();
        assert!(values.is("--json") && values.is("--quiet"));
        assert_eq!(values.list("--name"), ["a", "b"]);
        assert_eq!(values.text("--id").unwrap(), "z");
        assert_eq!(values.words(), ["w", "-j"]);
        assert!(
            !run(Order::FlagsFirst, &["-j", "--json=F"])
                .unwrap()
                .is("--json")
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (words, why) in [
            (&["--bogus"][..], "flag provided but not defined: --bogus"),
            (&["-x"], "flag provided but not defined: -x"),
            (&["-jx"], "flag provided but not defined: -jx"),
            (&["-nfoo", "a"], "flag provided but not defined: -nfoo"),
            (&["-n"], "flag needs an argument: -n"),
            (&["-=x"], "bad flag syntax: -=x"),
            (
                &["-j=x"],
                "invalid boolean value \"x\" for  -j: strconv.ParseBool: parsing \"x\": \
                 invalid syntax",
            ),
        ] {
            assert_eq!(reason(words), why, "{words:?}");
        }
        assert_eq!(run(Order::FlagsFirst, &["-h"]).unwrap_err(), Stop::Help);
    }

    #[test]
    fn flags_end_where_the_order_says() {
        for (order, json, words) in [
            (Order::FlagsFirst, false, &["a", "-j", "--", "-q"][..]),
            (Order::Anywhere, true, &["a", "-q"]),
        ] {
            let values = run(order, &["a", "-j", "--", "-q"]).unwrap();
            assert_eq!(values.is("--json"), json, "{order:?}");
            assert!(!values.is("--quiet"), "{order:?}");
            assert_eq!(values.words(), words, "{order:?}");
        }
    }
}
