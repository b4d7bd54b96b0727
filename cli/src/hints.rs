// SPDX-License-Identifier: Apache-2.0
//! How failures are told: one sentence for scripts, or sentence, causes and hint for people.

use std::{error::Error as StdError, fmt::Write as _};

use plywood::{Error, ErrorKind};

use crate::{
    image::ImageError,
    output::{note, note_raw},
    run::Voice,
};

/// Reports why a command failed.
pub(crate) fn report(voice: Voice, error: &anyhow::Error) {
    match voice {
        Voice::DropIn => note(one_line(error.as_ref())),
        Voice::Own => {
            let mut told = error.chain().map(|cause| {
                let about = cause.downcast_ref::<Error>().and_then(Error::about);
                named(cause.to_string(), about)
            });
            let text = told.next().unwrap_or_default();
            let causes: Vec<String> = told.collect();
            note_raw(&own(&text, &causes, hint_of(error).as_deref()));
        }
    }
}

/// Reports the failure of one of several items under our own name.
pub(crate) fn report_line(line: &str, error: &Error) {
    let mut causes = Vec::new();
    let mut source = error.source();
    while let Some(cause) = source {
        causes.push(cause.to_string());
        source = cause.source();
    }
    note_raw(&own(line, &causes, hint(error).as_deref()));
}

/// Reports under our own name why something was not found.
pub(crate) fn report_missing(error: &Error) {
    report_line(&named(error.to_string(), error.about()), error);
}

/// The sentences of containers-storage often leave out what they are about.
fn named(text: String, about: Option<&str>) -> String {
    match about {
        Some(about) if !about.is_empty() && !mentions(&text, about) => format!("{about}: {text}"),
        _ => text,
    }
}

/// Whether `what` stands in `text`, and not just its letters in a word.
fn mentions(text: &str, what: &str) -> bool {
    text.match_indices(what).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + what.len()..].chars().next();
        ![before, after]
            .into_iter()
            .flatten()
            .any(char::is_alphanumeric)
    })
}

/// A text of our own that is no error object.
pub(crate) fn refuse(text: &str, hint: &str) {
    note_raw(&own(text, &[], Some(hint)));
}

fn own(text: &str, causes: &[String], hint: Option<&str>) -> String {
    let mut lines = format!("error: {text}\n");
    let mut told = text.to_owned();
    for cause in causes {
        // Sentences of containers-storage hold their cause already.
        if !told.contains(cause.as_str()) {
            let _ = writeln!(lines, "  caused by: {cause}");
            told.push_str(cause);
        }
    }
    if let Some(hint) = hint {
        let _ = write!(lines, "\nhint: {hint}\n");
    }
    harmless(lines)
}

/// Names from archives and stores must not drive the terminal.
fn harmless(text: String) -> String {
    let drives = |c: char| c.is_control() && c != '\n';
    if !text.contains(drives) {
        return text;
    }
    text.chars().fold(String::new(), |mut shown, c| {
        if drives(c) {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
        shown
    })
}

/// Why a store could not be opened, as containers/storage says it: a driver's own sentence without
/// what names the driver.
pub(crate) fn initializing(error: &Error) -> String {
    let text = one_line(error);
    match text
        .strip_prefix("cannot open driver `")
        .and_then(|rest| rest.split_once("`: "))
    {
        Some((_, reason)) => reason.to_owned(),
        None => text,
    }
}

/// Sentence and causes in one line, as Go programs give them.
pub(crate) fn one_line(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

fn hint_of(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(|cause| {
        cause.downcast_ref::<Error>().and_then(hint).or_else(|| {
            cause
                .downcast_ref::<ImageError>()
                .and_then(ImageError::hint)
        })
    })
}

/// The error's own remedy, or what usually helps.
fn hint(error: &Error) -> Option<String> {
    if let Some(remedy) = error.remedy() {
        return Some(remedy.to_owned());
    }
    let text = match error.kind() {
        ErrorKind::LayerUnknown | ErrorKind::NotALayer | ErrorKind::ParentUnknown => {
            "`plywood layers` lists the layers of this store; `plywood info` says which store it is"
        }
        ErrorKind::ImageUnknown | ErrorKind::NotAnImage => {
            "`plywood image list` lists the images of this store; `plywood info` says which store \
             it is"
        }
        ErrorKind::ContainerUnknown | ErrorKind::NotAContainer => {
            "`plywood containers` lists the containers of this store"
        }
        ErrorKind::NotAnId => "use the name, the id or a unique beginning of the id",
        ErrorKind::DuplicateName => "choose another name, or delete its owner first",
        ErrorKind::DuplicateId => "leave out --id to get a fresh one",
        ErrorKind::LayerHasChildren => "delete the layers that stand on it first",
        ErrorKind::LayerUsedByImage => "delete the image first",
        ErrorKind::LayerUsedByContainer => "delete the container, or unmount the layer, first",
        ErrorKind::ImageUsedByContainer => "delete the container first",
        ErrorKind::InvalidDigest => "a digest looks like sha256: followed by 64 hex digits",
        ErrorKind::DriverUnavailable => {
            "`plywood driver list` shows where drivers are looked for; --plugin-dir adds a place"
        }
        ErrorKind::DriverMismatch => "choose the driver with --storage-driver",
        ErrorKind::Permission => {
            "run as root, or choose a store of your own with --graph and --run"
        }
        _ => return None,
    };
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_told_once() {
        let error = Error::new(ErrorKind::Io, "cannot read `x`: gone").caused_by("gone");
        assert_eq!(one_line(&error), "cannot read `x`: gone");
        let error = Error::new(ErrorKind::Io, "cannot read `x`").caused_by("gone");
        assert_eq!(one_line(&error), "cannot read `x`: gone");
        assert_eq!(
            own("a", &["b".into()], Some("c")),
            "error: a\n  caused by: b\n\nhint: c\n"
        );
    }

    #[test]
    fn what_it_is_about_is_told_and_stays_text() {
        assert_eq!(named("not known".into(), Some("x")), "x: not known");
        assert_eq!(named("`x` is bad".into(), Some("x")), "`x` is bad");
        assert_eq!(named("next is bad".into(), Some("x")), "x: next is bad");
        assert_eq!(named("bad".into(), None), "bad");
        assert_eq!(own("a\u{1b}[2J\r", &[], None), "error: a\\u{1b}[2J\\r\n");
    }
}
