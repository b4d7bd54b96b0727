// SPDX-License-Identifier: Apache-2.0
//! JSON as Go's `encoding/json` reads and writes it.
//!
//! Reading: member names match in any case, `null` leaves a member at its default, invalid UTF-8
//! and lone surrogates become U+FFFD. Writing: compact, `<`, `>`, `&`, U+2028 and U+2029 escaped.
//! What a record does not know is kept as text and written back after the known members.

use std::{borrow::Cow, fmt, io};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, DeserializeOwned, MapAccess, SeqAccess, Visitor},
    ser::SerializeMap,
};
use serde_json::{
    ser::{CompactFormatter, Formatter},
    value::RawValue,
};

use crate::Digest;

/// Members of a record that this version does not know; they survive a rewrite unchanged.
#[derive(Clone, Default)]
pub struct Unknown(Vec<(String, Box<RawValue>)>);

impl Unknown {
    /// Names and values (as JSON text), in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.get()))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl PartialEq for Unknown {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Unknown {}

impl fmt::Debug for Unknown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Serialize for Unknown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The members of one JSON object, to be taken one by one; what is taken leaves `None`.
#[derive(Debug)]
pub(crate) struct Members<'a>(Vec<Option<(Cow<'a, str>, &'a RawValue)>>);

/// A member of a record whose value has the wrong form.
#[derive(Debug)]
pub(crate) struct MemberError {
    /// The member's name.
    pub(crate) member: String,
    /// Where its value starts: an address inside the text that was parsed.
    pub(crate) at: usize,
    /// What is wrong.
    pub(crate) source: serde_json::Error,
}

impl Members<'_> {
    /// Takes a member; `None` when it is not there or `null`.
    ///
    /// As in Go, the last of several members with the name counts.
    pub(crate) fn take<T: DeserializeOwned>(
        &mut self,
        name: &str,
    ) -> Result<Option<T>, MemberError> {
        let mut found = None;
        for member in &mut self.0 {
            if let Some((key, value)) = member
                && key.eq_ignore_ascii_case(name)
            {
                found = Some(*value);
                *member = None;
            }
        }
        let Some(value) = found else { return Ok(None) };
        serde_json::from_str(value.get()).map_err(|source| MemberError {
            member: name.to_owned(),
            at: value.get().as_ptr().addr(),
            source,
        })
    }

    /// Takes a member; the default when it is not there or `null`.
    pub(crate) fn take_or_default<T: DeserializeOwned + Default>(
        &mut self,
        name: &str,
    ) -> Result<T, MemberError> {
        Ok(self.take(name)?.unwrap_or_default())
    }

    /// Takes a text; `None` also when it is empty, which is how Go writes "none".
    pub(crate) fn take_text(&mut self, name: &str) -> Result<Option<String>, MemberError> {
        Ok(self.take::<String>(name)?.filter(|text| !text.is_empty()))
    }

    /// Takes a digest, in whatever form it was written; `None` also when it is empty.
    pub(crate) fn take_digest(&mut self, name: &str) -> Result<Option<Digest>, MemberError> {
        Ok(self
            .take::<Digest>(name)?
            .filter(|digest| !digest.as_str().is_empty()))
    }

    /// What was not taken.
    pub(crate) fn rest(self) -> Unknown {
        Unknown(
            self.0
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.into_owned(), value.to_owned()))
                .collect(),
        )
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Members<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record (a JSON object)")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::with_capacity(16);
                while let Some((Key(name), value)) = map.next_entry()? {
                    members.push(Some((name, value)));
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Name;
        impl<'de> Visitor<'de> for Name {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a member name")
            }
            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(name)))
            }
            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Name)
    }
}

/// Hands over the members of each object in a JSON array (or `null`), until told to stop.
pub(crate) fn for_each_record<'de>(
    text: &'de str,
    take: impl FnMut(Members<'de>) -> bool,
) -> serde_json::Result<()> {
    let mut parser = serde_json::Deserializer::from_str(text);
    parser.deserialize_any(Records(take))?;
    parser.end()
}

struct Records<F>(F);

impl<'de, F: FnMut(Members<'de>) -> bool> Visitor<'de> for Records<F> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of records (a JSON array)")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(members) = list.next_element()? {
            if !(self.0)(members) {
                return Err(de::Error::custom("stopped"));
            }
        }
        Ok(())
    }
}

/// Makes valid text of a file's bytes: every invalid byte and every lone surrogate becomes U+FFFD.
pub(crate) fn decode_text(bytes: Vec<u8>) -> String {
    let text = String::from_utf8(bytes).unwrap_or_else(|error| {
        let mut text = String::with_capacity(error.as_bytes().len() + 16);
        for chunk in error.as_bytes().utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| char::REPLACEMENT_CHARACTER));
        }
        text
    });
    replace_lone_surrogates(text)
}

/// The value of `\uXXXX` at the start of `text`.
fn unicode_escape(text: &[u8]) -> Option<u16> {
    let digits = text.strip_prefix(b"\\u")?.get(..4)?;
    u16::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

fn replace_lone_surrogates(text: String) -> String {
    let bytes = text.as_bytes();
    let suspicious = memchr::memmem::find_iter(bytes, b"\\u")
        .any(|at| matches!(unicode_escape(&bytes[at..]), Some(0xd800..=0xdfff)));
    if !suspicious {
        return text;
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let bytes = rest.as_bytes();
        let (length, lone) = match unicode_escape(bytes) {
            Some(0xd800..=0xdbff) => match unicode_escape(&bytes[6..]) {
                Some(0xdc00..=0xdfff) => (12, false),
                _ => (6, true),
            },
            Some(0xdc00..=0xdfff) => (6, true),
            Some(_) => (6, false),
            // The backslash and the character after it, which may itself be a backslash.
            None => (
                1 + rest[1..].chars().next().map_or(0, char::len_utf8),
                false,
            ),
        };
        out.push_str(if lone { "\\ufffd" } else { &rest[..length] });
        rest = &rest[length..];
    }
    out.push_str(rest);
    out
}

/// Writes `value` as Go's `encoding/json` does: compact, and safe inside HTML.
///
/// # Errors
/// When `value` has no JSON form (a map with keys that are no text).
pub fn to_go_json<T: Serialize + ?Sized>(value: &T) -> serde_json::Result<String> {
    to_go_json_sized(value, 256)
}

/// The same for text that will have about that many bytes.
pub(crate) fn to_go_json_sized<T: Serialize + ?Sized>(
    value: &T,
    expected: usize,
) -> serde_json::Result<String> {
    let mut bytes = Vec::with_capacity(expected);
    value.serialize(&mut serde_json::Serializer::with_formatter(
        &mut bytes,
        GoFormatter,
    ))?;
    String::from_utf8(bytes).map_err(serde::ser::Error::custom)
}

struct GoFormatter;

impl GoFormatter {
    fn escape(character: char) -> Option<&'static str> {
        Some(match character {
            '<' => "\\u003c",
            '>' => "\\u003e",
            '&' => "\\u0026",
            '\u{2028}' => "\\u2028",
            '\u{2029}' => "\\u2029",
            _ => return None,
        })
    }
}

impl Formatter for GoFormatter {
    fn write_string_fragment<W: io::Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        // The two separators start with the byte 0xe2.
        let bytes = fragment.as_bytes();
        if memchr::memchr3(b'<', b'>', b'&', bytes).is_none()
            && memchr::memchr(0xe2, bytes).is_none()
        {
            return CompactFormatter.write_string_fragment(writer, fragment);
        }
        let mut plain = 0;
        for (at, character) in fragment.char_indices() {
            if let Some(escape) = Self::escape(character) {
                CompactFormatter.write_string_fragment(writer, &fragment[plain..at])?;
                writer.write_all(escape.as_bytes())?;
                plain = at + character.len_utf8();
            }
        }
        CompactFormatter.write_string_fragment(writer, &fragment[plain..])
    }
}
