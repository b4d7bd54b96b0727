// SPDX-License-Identifier: Apache-2.0
//! `events.ndjson`: what happened, in order, each line bound to the one before it.

use std::{
    fs::File,
    io::{self, Write as _},
    path::Path,
};

use serde_json::{Value, json};

use crate::describe::sha256;

/// The digest that the first line names.
const NOTHING: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// The file of events in the making.
#[derive(Debug)]
pub(super) struct Events {
    file: File,
    number: u64,
    previous: String,
}

impl Events {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self {
            file: File::create(path)?,
            number: 0,
            previous: NOTHING.to_owned(),
        })
    }

    /// Appends one line.
    pub(super) fn write(&mut self, event: &str, what: &Value) -> io::Result<()> {
        let line = json!({
            "number": self.number,
            "previous": self.previous,
            "event": event,
            "what": what,
        })
        .to_string();
        writeln!(self.file, "{line}")?;
        self.number += 1;
        self.previous = sha256(line.as_bytes());
        Ok(())
    }

    /// The digest of the last line, which stands for all of them.
    pub(super) fn head(&self) -> &str {
        &self.previous
    }
}

/// Checks that no line was changed, added or taken away; returns the digest of the last one.
///
/// # Errors
/// The number of the first line that does not follow from the one before it.
pub(crate) fn check(text: &str) -> Result<String, String> {
    let mut previous = NOTHING.to_owned();
    for (number, line) in text.lines().enumerate() {
        let value: Value = serde_json::from_str(line)
            .map_err(|error| format!("line {} is no JSON: {error}", number + 1))?;
        if value["number"] != json!(number) || value["previous"] != json!(previous) {
            return Err(format!(
                "line {} does not follow from the one before it",
                number + 1
            ));
        }
        previous = sha256(line.as_bytes());
    }
    Ok(previous)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_breaks_the_chain() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("events.ndjson");
        let mut events = Events::create(&path).unwrap();
        for number in 0..3 {
            events.write("case", &json!({ "id": number })).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(check(&text).as_deref(), Ok(events.head()));
        let changed = text.replace("\"id\":1", "\"id\":7");
        assert!(check(&changed).unwrap_err().contains("line 3"));
        let lines: Vec<_> = text.lines().collect();
        assert!(check(&[lines[0], lines[2]].join("\n")).is_err());
        let cut = check(&lines[..2].join("\n")).unwrap();
        assert_ne!(cut, events.head());
    }
}
