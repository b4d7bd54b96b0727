// SPDX-License-Identifier: Apache-2.0
//! Quotes names in messages the way Go's `%q` does.

use std::fmt::Write;

const NO_FAILURE: &str = "writing to a string does not fail";

/// `name` in double quotes, with what is not printable escaped.
///
/// # Compatibility
/// Go's `strconv.Quote`, but for characters outside ASCII that Unicode calls unprintable: only
/// control characters are escaped here.
pub(crate) fn quote(name: &[u8]) -> String {
    let mut quoted = String::with_capacity(name.len() + 2);
    quoted.push('"');
    for chunk in name.utf8_chunks() {
        for character in chunk.valid().chars() {
            push(&mut quoted, character);
        }
        for byte in chunk.invalid() {
            write!(quoted, "\\x{byte:02x}").expect(NO_FAILURE);
        }
    }
    quoted.push('"');
    quoted
}

fn push(quoted: &mut String, character: char) {
    let escape = match character {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\x07' => "\\a",
        '\x08' => "\\b",
        '\x0c' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\x0b' => "\\v",
        '\0'..=' ' | '\x7f' if character != ' ' => {
            write!(quoted, "\\x{:02x}", u32::from(character)).expect(NO_FAILURE);
            return;
        }
        other if other.is_control() => {
            write!(quoted, "\\u{:04x}", u32::from(other)).expect(NO_FAILURE);
            return;
        }
        other => {
            quoted.push(other);
            return;
        }
    };
    quoted.push_str(escape);
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn quotes_like_go() {
        assert_eq!(quote(b"a b"), "\"a b\"");
        assert_eq!(quote(b"a\"b\\c\n\x01\x7f"), "\"a\\\"b\\\\c\\n\\x01\\x7f\"");
        assert_eq!(quote("\u{e4}".as_bytes()), "\"\u{e4}\"");
        assert_eq!(quote(b"\xff\xfeq"), "\"\\xff\\xfeq\"");
    }
}
