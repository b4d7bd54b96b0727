// SPDX-License-Identifier: Apache-2.0
//! One line of a record, in the bytes that containers/storage writes.

use base64_simd::STANDARD;
use crc_fast::{CrcAlgorithm, Digest};

/// A line of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry<'a> {
    /// Bytes of the stream that are not file content.
    Segment(&'a [u8]),
    /// The content of a file, which is not in the record.
    File {
        /// The entry's name as written in the stream.
        name: &'a [u8],
        /// The bytes of content; 0 for everything but regular files.
        size: u64,
        /// The checksum of the content; unused when there is none.
        checksum: u64,
    },
}

impl Entry<'_> {
    /// Appends the line number `position`, with its line end, to `line`.
    pub fn write(&self, position: u64, line: &mut Vec<u8>) {
        match *self {
            Self::Segment(bytes) => {
                line.extend_from_slice(b"{\"type\":2,\"payload\":\"");
                append_base64(bytes, line);
                line.push(b'"');
            }
            Self::File {
                name,
                size,
                checksum,
            } => {
                line.extend_from_slice(b"{\"type\":1,");
                append_name(name, line);
                if size == 0 {
                    line.extend_from_slice(b"\"payload\":null");
                } else {
                    line.extend_from_slice(b"\"size\":");
                    append_number(size, line);
                    line.extend_from_slice(b",\"payload\":\"");
                    append_base64(&checksum.to_be_bytes(), line);
                    line.push(b'"');
                }
            }
        }
        line.extend_from_slice(b",\"position\":");
        append_number(position, line);
        line.extend_from_slice(b"}\n");
    }
}

/// The checksum of file content: CRC-64/ISO as Go's `hash/crc64` computes it.
#[derive(Clone, Debug)]
pub struct Checksum(Digest);

impl Default for Checksum {
    fn default() -> Self {
        Self(Digest::new(CrcAlgorithm::Crc64GoIso))
    }
}

impl Checksum {
    /// Adds content.
    pub fn update(&mut self, content: &[u8]) {
        self.0.update(content);
    }

    /// The value so far; starts afresh.
    pub fn take(&mut self) -> u64 {
        self.0.finalize_reset()
    }
}

fn append_base64(bytes: &[u8], line: &mut Vec<u8>) {
    STANDARD.encode_append(bytes, line);
}

fn append_number(number: u64, line: &mut Vec<u8>) {
    line.extend_from_slice(number.to_string().as_bytes());
}

/// An empty name is left out, and one that is not UTF-8 is stored as bytes.
fn append_name(name: &[u8], line: &mut Vec<u8>) {
    match std::str::from_utf8(name) {
        Ok("") => {}
        Ok(name) => {
            line.extend_from_slice(b"\"name\":\"");
            append_escaped(name, line);
            line.extend_from_slice(b"\",");
        }
        Err(_) => {
            line.extend_from_slice(b"\"name_raw\":\"");
            append_base64(name, line);
            line.extend_from_slice(b"\",");
        }
    }
}

/// Escapes as Go's `encoding/json` does by default, which is safe to paste into HTML.
fn append_escaped(text: &str, line: &mut Vec<u8>) {
    let mut buffer = [0; 4];
    for character in text.chars() {
        match character {
            '"' => line.extend_from_slice(b"\\\""),
            '\\' => line.extend_from_slice(b"\\\\"),
            '\n' => line.extend_from_slice(b"\\n"),
            '\r' => line.extend_from_slice(b"\\r"),
            '\t' => line.extend_from_slice(b"\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                line.extend_from_slice(format!("\\u{:04x}", u32::from(character)).as_bytes());
            }
            _ => line.extend_from_slice(character.encode_utf8(&mut buffer).as_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(entry: Entry<'_>) -> String {
        let mut line = Vec::new();
        entry.write(7, &mut line);
        String::from_utf8(line).unwrap()
    }

    fn file(name: &[u8], content: &[u8]) -> String {
        let mut checksum = Checksum::default();
        checksum.update(content);
        line(Entry::File {
            name,
            size: content.len() as u64,
            checksum: checksum.take(),
        })
    }

    #[test]
    fn lines_have_the_bytes_of_upstream() {
        assert_eq!(
            line(Entry::Segment(b"ab")),
            "{\"type\":2,\"payload\":\"YWI=\",\"position\":7}\n"
        );
        assert_eq!(
            line(Entry::Segment(b"")),
            "{\"type\":2,\"payload\":\"\",\"position\":7}\n"
        );
        assert_eq!(
            file(b"d/", b""),
            "{\"type\":1,\"name\":\"d/\",\"payload\":null,\"position\":7}\n"
        );
        assert_eq!(
            file(b"d/f", b"hello\n"),
            "{\"type\":1,\"name\":\"d/f\",\"size\":6,\"payload\":\"YUw+7uLYEAA=\",\"position\":7}\n"
        );
        assert_eq!(
            file(b"\xff", b""),
            "{\"type\":1,\"name_raw\":\"/w==\",\"payload\":null,\"position\":7}\n"
        );
        assert_eq!(
            file(b"", b""),
            "{\"type\":1,\"payload\":null,\"position\":7}\n"
        );
    }

    #[test]
    fn names_are_escaped_as_in_go() {
        let name = "<&>\"\\\n\u{1}\u{7f}\u{2028}\u{e9}";
        let expected = "\\u003c\\u0026\\u003e\\\"\\\\\\n\\u0001\u{7f}\\u2028\u{e9}";
        assert_eq!(
            file(name.as_bytes(), b""),
            format!("{{\"type\":1,\"name\":\"{expected}\",\"payload\":null,\"position\":7}}\n")
        );
    }

    #[test]
    fn checksums_are_go_iso() {
        let table: [(&[u8], u64); 3] = [
            (b"", 0),
            (b"x", 0x2310_0000_0000_0000),
            (b"hello", 0x3c3e_eee2_d810_0000),
        ];
        let mut checksum = Checksum::default();
        for (content, expected) in table {
            checksum.update(content);
            assert_eq!(checksum.take(), expected, "{content:?}");
        }
    }
}
