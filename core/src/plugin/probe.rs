// SPDX-License-Identifier: Apache-2.0
//! Finding out what a plugin file is without endangering the program.
//!
//! A damaged shared object can kill the process that loads it, so a child does it: the program
//! runs itself with the hidden command [`CHILD_COMMAND`], which calls [`child_main`].

use std::{
    io::{self, Read, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

use plywood_plugin_sdk::{EmbeddedDriver, EmbeddedSource, abi::Kinds};
use serde::{Deserialize, Serialize};

use super::{DriverName, PluginError, loader, trust};

/// The first argument of the child; the file follows.
pub const CHILD_COMMAND: &str = "__probe-plugin";

const PATIENCE: Duration = Duration::from_secs(10);

/// What was found out about a driver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Report {
    /// The file, with links resolved.
    pub path: Option<PathBuf>,
    /// The driver's name.
    pub name: Option<String>,
    /// `driver`, `layer-source` or both, separated by a comma and a space.
    pub kind: Option<String>,
    /// Who ships it.
    pub vendor: Option<String>,
    /// The driver's own version.
    pub version: Option<String>,
    /// The plugin ABI that it was built for.
    pub abi: Option<String>,
    /// The file's SHA-256 in hex, as the configuration can pin it.
    pub sha256: Option<String>,
    /// Why it is refused.
    pub refusal: Option<String>,
    /// What the operator can do.
    pub remedy: Option<String>,
}

impl Report {
    /// A file that is refused.
    pub(super) fn refused(path: &Path, refusal: &PluginError) -> Self {
        let mut text = refusal.to_string();
        let mut source = std::error::Error::source(refusal);
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        Self {
            path: Some(path.to_owned()),
            refusal: Some(text),
            remedy: Some(refusal.remedy()),
            ..Self::default()
        }
    }

    fn killed(path: &Path, how: &str) -> Self {
        Self {
            path: Some(path.to_owned()),
            refusal: Some(format!("plugin `{}` {how}", path.display())),
            remedy: Some("install the plugin again, and put it in place by rename".to_owned()),
            ..Self::default()
        }
    }

    pub(super) fn embedded(
        driver: Option<&EmbeddedDriver>,
        source: Option<&EmbeddedSource>,
    ) -> Self {
        let kinds = Kinds {
            driver: driver.is_some(),
            layer_source: source.is_some(),
        };
        let facts = driver.map(|driver| (driver.name, driver.vendor, driver.version));
        let facts = facts.or(source.map(|source| (source.name, source.vendor, source.version)));
        Self {
            name: facts.map(|(name, ..)| name.to_owned()),
            vendor: facts.map(|(_, vendor, _)| vendor.to_owned()),
            version: facts.map(|(.., version)| version.to_owned()),
            kind: Some(words(kinds)),
            ..Self::default()
        }
    }

    /// Refuses a driver with another name than its file has.
    pub(super) fn expect_name(&mut self, expected: &DriverName) {
        if let (Some(found), Some(path)) = (&self.name, &self.path)
            && found != expected.as_str()
        {
            let refusal = PluginError::OtherName {
                path: path.clone(),
                expected: expected.as_str().to_owned(),
                found: found.clone(),
            };
            self.refusal = Some(refusal.to_string());
            self.remedy = Some(refusal.remedy());
        }
    }
}

fn words(kinds: Kinds) -> String {
    let names = [
        (kinds.driver, "driver"),
        (kinds.layer_source, "layer-source"),
    ];
    let names = names.iter().filter(|(is, _)| *is).map(|(_, name)| *name);
    names.collect::<Vec<_>>().join(", ")
}

/// Loads `path` in this process and says what it is; for the child.
fn examine(path: &Path) -> Report {
    let loaded = match loader::load(path, None, None) {
        Ok(loaded) => loaded,
        Err(refusal) => return Report::refused(path, &refusal),
    };
    let canonical = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let sha256 = std::fs::File::open(&canonical).and_then(trust::sha256);
    Report {
        path: Some(canonical),
        name: Some(loaded.name().to_owned()),
        kind: Some(words(loaded.kinds())),
        vendor: Some(loaded.vendor().to_owned()),
        version: Some(loaded.version().to_owned()),
        abi: Some(loaded.abi().to_string()),
        sha256: sha256.ok(),
        refusal: None,
        remedy: None,
    }
}

/// What the child does: loads `path` and writes a [`Report`] as one line of JSON.
///
/// # Errors
/// The report cannot be written.
pub fn child_main(path: &Path, out: &mut dyn Write) -> io::Result<()> {
    // A line of its own, whatever the plugin's initialisers have printed.
    let report = serde_json::to_string(&examine(path))?;
    writeln!(out, "\n{report}")?;
    out.flush()
}

/// Lets a child process load `path`; `program` is one that calls [`child_main`].
///
/// # Behavior
/// - Never fails: that the child crashed, hung or wrote nothing is a refusal in the report.
pub fn probe_in_child(program: &Path, path: &Path) -> Report {
    match run(program, path) {
        Ok(report) => report,
        Err(error) => Report::killed(path, &format!("could not be probed: {error}")),
    }
}

fn run(program: &Path, path: &Path) -> io::Result<Report> {
    let mut child = Command::new(program)
        .arg(CHILD_COMMAND)
        .arg(path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let Some(text) = read_output(&mut child) else {
        child.kill()?;
        child.wait()?;
        let how = format!("did not finish loading within {} s", PATIENCE.as_secs());
        return Ok(Report::killed(path, &how));
    };
    let status = child.wait()?;
    let report = text.lines().last().map(serde_json::from_str::<Report>);
    Ok(match (status.success(), report) {
        (true, Some(Ok(report))) => report,
        _ => Report::killed(path, &death(status)),
    })
}

/// Everything that the child writes, unless it takes too long.
fn read_output(child: &mut Child) -> Option<String> {
    let mut output = child.stdout.take()?;
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = output.read_to_end(&mut bytes);
        // Nobody listens any more when the child was too slow.
        drop(sender.send(read.map(|_| bytes)));
    });
    let bytes = receiver.recv_timeout(PATIENCE).ok()?.unwrap_or_default();
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn death(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("kills the process that loads it (signal {signal})"),
        (_, Some(code)) => format!("ends the process that loads it (exit status {code})"),
        _ => "ends the process that loads it".to_owned(),
    }
}
