// SPDX-License-Identifier: Apache-2.0
//! Standard output, and texts in the form Go's libraries give them.

use std::{
    fmt::Write as _,
    io::{self, BufWriter, Stdout, StdoutLock, Write},
};

use plywood::to_go_json;
use serde::Serialize;

/// Buffered standard output; nothing else in this program writes there.
#[derive(Debug)]
pub(crate) struct Output {
    inner: BufWriter<Stdout>,
}

impl Output {
    /// Standard output.
    pub(crate) fn new() -> Self {
        Self {
            inner: BufWriter::with_capacity(64 << 10, io::stdout()),
        }
    }

    /// One line.
    pub(crate) fn line(&mut self, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(self.inner, "{text}")
    }

    /// Text as it is.
    pub(crate) fn text(&mut self, text: &str) -> io::Result<()> {
        self.inner.write_all(text.as_bytes())
    }

    /// One line of JSON, with Go's escapes.
    pub(crate) fn json<T: Serialize + ?Sized>(&mut self, value: &T) -> io::Result<()> {
        let text = to_go_json(value)?;
        self.line(text)
    }

    /// Shows what is buffered.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }

    /// The stream itself, for data that is not to be copied through the buffer.
    pub(crate) fn raw(&mut self) -> io::Result<StdoutLock<'static>> {
        self.inner.flush()?;
        Ok(io::stdout().lock())
    }
}

/// Lines for people on standard error; a failure to write there cannot be reported anywhere.
pub(crate) fn note(text: impl std::fmt::Display) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// Text for people on standard error, as it is.
pub(crate) fn note_raw(text: &str) {
    drop(io::stderr().lock().write_all(text.as_bytes()));
}

/// `bytes` in double quotes, with the escapes of Go's `%q`.
pub(crate) fn go_quote(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() + 2);
    text.push('"');
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            quote_char(&mut text, c);
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

fn quote_char(text: &mut String, c: char) {
    let simple = match c {
        '"' => "\\\"",
        '\\' => "\\\\",
        '\u{7}' => "\\a",
        '\u{8}' => "\\b",
        '\u{c}' => "\\f",
        '\n' => "\\n",
        '\r' => "\\r",
        '\t' => "\\t",
        '\u{b}' => "\\v",
        _ => "",
    };
    let _ = match (simple.is_empty(), u32::from(c)) {
        (false, _) => write!(text, "{simple}"),
        (true, code @ (0..=0x1f | 0x7f)) => write!(text, "\\x{code:02x}"),
        (true, _) if printable(c) => write!(text, "{c}"),
        (true, code @ 0..=0xffff) => write!(text, "\\u{code:04x}"),
        (true, code) => write!(text, "\\U{code:08x}"),
    };
}

/// Whether Go's `unicode.IsPrint` holds, by way of what Rust's debug form leaves alone; the letter
/// in front keeps combining marks from being escaped for standing at the start.
fn printable(c: char) -> bool {
    let mut probe = String::from("a");
    probe.push(c);
    c == '\'' || probe.escape_debug().nth(1) == Some(c)
}

/// `[a b]`, as Go prints a list.
pub(crate) fn go_list<T: std::fmt::Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(ToString::to_string).collect();
    format!("[{}]", items.join(" "))
}

/// The system's reason as Go writes it: `no such file or directory`.
pub(crate) fn go_error(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}

/// Lines of a table for people: no frame, columns two blanks apart.
pub(crate) fn human_table(heads: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table
        .load_preset(comfy_table::presets::NOTHING)
        .set_content_arrangement(comfy_table::ContentArrangement::Disabled)
        .set_header(heads);
    table.add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `1.5 MB`.
#[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
pub(crate) fn human_size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if size < 1000.0 || unit == "TB" {
            return match unit {
                "B" => format!("{bytes} B"),
                _ => format!("{size:.1} {unit}"),
            };
        }
        size /= 1000.0;
    }
    format!("{bytes} B")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting_is_that_of_go() {
        for (bytes, text) in [
            (&b"/plain name"[..], r#""/plain name""#),
            (b"tab\tquote\"back\\", r#""tab\tquote\"back\\""#),
            (b"\x01\x7f\xff'", r#""\x01\x7f\xff'""#),
            (
                "\u{e9}\u{301}\u{a0}\u{200b}".as_bytes(),
                "\"\u{e9}\u{301}\\u00a0\\u200b\"",
            ),
            ("\u{e0001}\u{1f600}".as_bytes(), "\"\\U000e0001\u{1f600}\""),
        ] {
            assert_eq!(go_quote(bytes), text);
        }
    }
}
