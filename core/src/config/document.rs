// SPDX-License-Identifier: Apache-2.0
//! Configuration files as flat lists of keys with lines.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::origin::Origin;
use crate::{Error, ErrorKind, IoContext, Result};

/// The type that a key must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Flag,
    Number,
    List,
    /// A table of strings.
    Map,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(u64),
    List { items: Vec<String>, append: bool },
    Map(BTreeMap<String, String>),
}

/// A parsed file.
#[derive(Debug)]
pub(super) struct Document {
    path: PathBuf,
    text: String,
}

/// One key: the names of its tables and its own, joined by dots.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) key: String,
    pub(super) line: usize,
    value: &'a Spanned<DeValue<'a>>,
}

impl Document {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).at("cannot read configuration", path)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let line = line_of_bytes(error.as_bytes(), error.utf8_error().valid_up_to());
            let what = "invalid UTF-8 byte";
            decode_error(path, &format!("toml: line {line}: {what}"))
        })?;
        Ok(Self {
            path: path.to_owned(),
            text,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Calls `visit` for every key whose value is not a plain table; `is_map` tells which tables
    /// are values.
    pub(super) fn visit(
        &self,
        is_map: impl Fn(&str) -> bool,
        mut visit: impl FnMut(&Entry<'_>) -> Result<()>,
    ) -> Result<()> {
        let table = DeTable::parse(&self.text).map_err(|error| {
            let line = error.span().map_or(1, |span| self.line(span.start));
            let message = error.message().replace('\n', ", ");
            decode_error(&self.path, &format!("toml: line {line}: {message}"))
        })?;
        let mut pending: Vec<(String, &DeTable<'_>)> = vec![(String::new(), table.get_ref())];
        let mut entries = Vec::new();
        while let Some((prefix, table)) = pending.pop() {
            for (name, value) in table {
                let key = match prefix.as_str() {
                    "" => name.get_ref().to_string(),
                    _ => format!("{prefix}.{}", name.get_ref()),
                };
                match value.get_ref() {
                    DeValue::Table(inner) if !is_map(&key) => pending.push((key, inner)),
                    _ => entries.push((name.span().start, key, value)),
                }
            }
        }
        entries.sort_by_key(|(at, ..)| *at);
        for (at, key, value) in entries {
            visit(&Entry {
                key,
                line: self.line(at),
                value,
            })?;
        }
        Ok(())
    }

    /// The value of a key that must be of kind `kind`.
    pub(super) fn value(&self, entry: &Entry<'_>, kind: Kind) -> Result<Value> {
        convert(entry.value.get_ref(), kind).map_err(|types| self.mismatch(entry, types))
    }

    /// The value of a key that must be a text.
    pub(super) fn text(&self, entry: &Entry<'_>) -> Result<String> {
        text(entry.value.get_ref()).map_err(|types| self.mismatch(entry, types))
    }

    /// The value of a key that must be a list of texts, and whether it is to be appended.
    pub(super) fn list(&self, entry: &Entry<'_>) -> Result<(Vec<String>, bool)> {
        list(entry.value.get_ref()).map_err(|types| self.mismatch(entry, types))
    }

    fn mismatch(&self, entry: &Entry<'_>, (found, wanted): Mismatch) -> Error {
        decode_error(
            &self.path,
            &format!(
                "toml: line {} (last key \"{}\"): incompatible types: TOML value has type \
                 {found}; destination has type {wanted}",
                entry.line, entry.key
            ),
        )
    }

    pub(super) fn origin(&self, entry: &Entry<'_>) -> Origin {
        Origin::File {
            path: self.path.clone(),
            line: entry.line,
        }
    }

    fn line(&self, at: usize) -> usize {
        line_of_bytes(self.text.as_bytes(), at)
    }
}

fn line_of_bytes(bytes: &[u8], at: usize) -> usize {
    1 + memchr::memchr_iter(b'\n', &bytes[..at.min(bytes.len())]).count()
}

fn decode_error(path: &Path, what: &str) -> Error {
    let path = path.display();
    Error::new(
        ErrorKind::Config,
        format!("decode configuration \"{path}\": {what}"),
    )
    .subject(path.to_string())
}

type Mismatch = (&'static str, &'static str);

fn convert(value: &DeValue<'_>, kind: Kind) -> Result<Value, Mismatch> {
    let mismatch = |wanted| Err((type_name(value), wanted));
    match kind {
        Kind::Text => text(value).map(Value::Text),
        Kind::Flag => match value.as_bool() {
            Some(flag) => Ok(Value::Flag(flag)),
            None => mismatch("bool"),
        },
        Kind::Number => {
            let parsed = value
                .as_integer()
                .and_then(|n| u64::from_str_radix(n.as_str(), n.radix()).ok())
                .filter(|n| u32::try_from(*n).is_ok());
            parsed.map_or_else(|| mismatch("uint32"), |n| Ok(Value::Number(n)))
        }
        Kind::List => list(value).map(|(items, append)| Value::List { items, append }),
        Kind::Map => {
            let Some(table) = value.as_table() else {
                return mismatch("map");
            };
            let pair = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
                let name: &std::borrow::Cow<'_, str> = name.get_ref();
                match value.get_ref().as_str() {
                    Some(text) => Ok((name.to_string(), text.to_owned())),
                    None => Err((type_name(value.get_ref()), "string")),
                }
            };
            Ok(Value::Map(
                table.iter().map(pair).collect::<Result<_, _>>()?,
            ))
        }
    }
}

fn text(value: &DeValue<'_>) -> Result<String, Mismatch> {
    let text = value.as_str().ok_or((type_name(value), "string"))?;
    Ok(text.to_owned())
}

/// A list of strings whose last element may be `{append=true}`.
fn list(value: &DeValue<'_>) -> Result<(Vec<String>, bool), Mismatch> {
    let Some(array) = value.as_array() else {
        return Err((type_name(value), "slice"));
    };
    let mut items = Vec::with_capacity(array.len());
    let mut append = false;
    for (n, item) in array.iter().enumerate() {
        let item = item.get_ref();
        if let Some(text) = item.as_str() {
            items.push(text.to_owned());
            continue;
        }
        let attribute = item
            .as_table()
            .filter(|table| n + 1 == array.len() && table.len() == 1)
            .and_then(|table| table.iter().next())
            .filter(|(name, _)| name.get_ref() == "append")
            .and_then(|(_, value)| value.get_ref().as_bool());
        append = attribute.ok_or((type_name(item), "string"))?;
    }
    Ok((items, append))
}

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "float",
        DeValue::Boolean(_) => "bool",
        DeValue::Datetime(_) => "datetime",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "table",
    }
}
