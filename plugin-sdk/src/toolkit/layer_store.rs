// SPDX-License-Identifier: Apache-2.0
//! Layers in directories of an additional layer store, and what such a store is told.
//!
//! ```text
//! LAYER/diff/   the layer's own files, with whiteouts in overlay's form
//! LAYER/info    the layer's record as JSON: digests, sizes, compression
//! LAYER/blob    the stream that the layer was made from, as it came
//! LAYER/use     is created to say that the layer is used
//! LAYER         is removed to say that one use is over
//! ```
//!
//! A store that counts uses answers both notifications with `ENOENT`; for others they fail or do
//! nothing. Docs: `docs/layer-source.md`.
//!
//! # Compatibility
//! `notifyUseAdditionalLayer`, `notifyReleaseAdditionalLayer` and `getAdditionalLayerPath` in
//! `drivers/overlay/overlay.go` of containers/storage. Unlike there, nothing waits for ever.

use std::{
    fs::{self, OpenOptions},
    io::{self, Read},
    path::{Component, Path, PathBuf},
    time::Duration,
};

use super::{
    options::DriverOption,
    patience::{PatientFile, within},
};
use crate::{DriverError, DriverErrorCode, IoContext, Result};

/// How long an answer of a store is waited for when nothing else is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(30);

/// The file in a layer of overlay that holds the layer's directory in the additional layer store.
pub const MARK: &str = "additionallayer";

/// More than any record has, so that a broken store cannot fill the memory.
const LONGEST_INFO: u64 = 16 * 1024 * 1024;

/// A layer's directory in an additional layer store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerDirectory {
    path: PathBuf,
    timeout: Duration,
}

/// What a store made of a notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notified {
    /// It counts uses, and has counted.
    Counted,
    /// It does not count uses, in words.
    NotCounted(String),
}

impl LayerDirectory {
    /// The directory `path`, whose store is waited for as long as `timeout`.
    pub fn new(path: impl Into<PathBuf>, timeout: Duration) -> Self {
        let path = path.into();
        Self { path, timeout }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory of the layer's files.
    pub fn diff(&self) -> PathBuf {
        self.path.join("diff")
    }

    /// The stream that the layer was made from.
    pub fn blob(&self) -> PathBuf {
        self.path.join("blob")
    }

    /// Whether the layer is there with `diff`, `info` and `blob`.
    ///
    /// # Behavior
    /// - Any failure to look but a time-out means that it is not, as in containers/storage.
    ///
    /// # Errors
    /// [`TIMEOUT`](DriverErrorCode::TIMEOUT) when the store does not answer.
    pub fn is_complete(&self) -> Result<bool> {
        let path = self.path.clone();
        within(self.timeout, "cannot look for", &self.path, move |pulse| {
            if rustix::fs::statfs(&path).is_err() {
                return Ok(false);
            }
            pulse.beat()?;
            for part in ["diff", "info", "blob"] {
                if fs::metadata(path.join(part)).is_err() {
                    return Ok(false);
                }
                pulse.beat()?;
            }
            Ok(true)
        })
    }

    /// Makes sure that the layer's files can be reached.
    ///
    /// # Errors
    /// [`TIMEOUT`](DriverErrorCode::TIMEOUT) when the store does not answer, and what it answers
    /// when the directory is not there.
    pub fn check(&self) -> Result<()> {
        let diff = self.diff();
        let remedy = "start the additional layer store, or delete the layer and pull it again";
        let looked = within(self.timeout, "cannot reach", &self.diff(), move |_| {
            let found = fs::metadata(&diff).at("cannot reach", &diff)?;
            // What the kernel knows already says nothing about the store; this it never knows.
            rustix::fs::statfs(&diff).at("cannot reach", &diff)?;
            if found.is_dir() {
                return Ok(());
            }
            let message = format!("`{}` is no directory", diff.display());
            Err(DriverError::new(DriverErrorCode::CORRUPT, message)
                .object(diff.display().to_string()))
        });
        looked.map_err(|error| match error.remedy {
            Some(_) => error,
            None => error.remedy(remedy),
        })
    }

    /// The layer's record.
    ///
    /// # Errors
    /// What reading reports, [`TIMEOUT`](DriverErrorCode::TIMEOUT), and `CORRUPT` for more than 16
    /// MiB.
    pub fn info(&self) -> Result<Vec<u8>> {
        let path = self.path.join("info");
        let mut text = Vec::new();
        PatientFile::open(&path, self.timeout)?
            .take(LONGEST_INFO + 1)
            .read_to_end(&mut text)
            .map_err(|error| read_error(&path, &error))?;
        if text.len() as u64 > LONGEST_INFO {
            let message = format!("`{}` is longer than any record", path.display());
            return Err(DriverError::new(DriverErrorCode::CORRUPT, message)
                .object(path.display().to_string()));
        }
        Ok(text)
    }

    /// Says that the layer is used once more.
    ///
    /// # Errors
    /// [`TIMEOUT`](DriverErrorCode::TIMEOUT) when the store does not answer.
    pub fn notify_use(&self) -> Result<Notified> {
        let path = self.path.join("use");
        self.notify("cannot notify", move || {
            let mut options = OpenOptions::new();
            let made = options.write(true).create(true).truncate(true).open(&path);
            drop(made?);
            fs::remove_file(&path)
        })
    }

    /// Says that one use of the layer is over.
    ///
    /// # Errors
    /// [`TIMEOUT`](DriverErrorCode::TIMEOUT) when the store does not answer.
    pub fn notify_release(&self) -> Result<Notified> {
        let path = self.path.clone();
        self.notify("cannot release", move || fs::remove_dir(&path))
    }

    fn notify(
        &self,
        action: &str,
        tell: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Notified> {
        // A relative path would mean another directory in another process.
        if !self.path.is_absolute() {
            let path = self.path.display();
            let text = format!("additionallayer must be absolute (got: {path})");
            return Ok(Notified::NotCounted(text));
        }
        within(self.timeout, action, &self.path, move |_| {
            Ok(match tell() {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Notified::Counted,
                Err(error) => Notified::NotCounted(error.to_string()),
                Ok(()) => Notified::NotCounted("it accepts the change".to_owned()),
            })
        })
    }
}

/// A failure to read from a store, with the time-out kept apart.
fn read_error(path: &Path, error: &io::Error) -> DriverError {
    let timed_out = error.get_ref().and_then(|inner| inner.downcast_ref());
    let timed_out: Option<&DriverError> = timed_out;
    match timed_out {
        Some(inner) => inner.clone(),
        None => DriverError::io("cannot read", path, error),
    }
}

/// An additional layer store, as the option `additionallayerstore` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedStore {
    /// Its directory.
    pub path: PathBuf,
    /// Layers are below a directory with the image's reference in base64.
    pub by_reference: bool,
}

/// What the options say about additional layer stores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoresConfig {
    /// The stores, in the order in which they are asked.
    pub stores: Vec<NamedStore>,
    /// How long an answer is waited for.
    pub timeout: Duration,
}

impl Default for StoresConfig {
    fn default() -> Self {
        Self {
            stores: Vec::new(),
            timeout: DEFAULT_TIMEOUT,
        }
    }
}

impl StoresConfig {
    /// What `options` say, whichever driver's name stands before a key; others are skipped.
    ///
    /// # Errors
    /// As [`StoresConfig::take`].
    pub fn read(options: &[String], driver: &str) -> Result<Self> {
        let mut config = Self::default();
        for text in options {
            let Some((given_key, value)) = text.split_once('=') else {
                continue;
            };
            let (given_key, value) = (given_key.trim(), value.trim());
            let key = given_key.to_ascii_lowercase();
            let key = key.rsplit('.').next().unwrap_or_default().to_owned();
            let option = DriverOption {
                key,
                given_key,
                value,
                text,
            };
            config.take(&option, driver)?;
        }
        Ok(config)
    }

    /// Takes `additionallayerstore` and `additionallayerstore_timeout`; `false` for other options.
    ///
    /// # Errors
    /// A path that is relative, missing or no directory; an unknown suffix; a time that is none.
    ///
    /// # Compatibility
    /// `parseOptions` in `drivers/overlay/overlay.go`, texts included; `driver` is the name in
    /// them. The time-out is Plywood's own.
    pub fn take(&mut self, option: &DriverOption<'_>, driver: &str) -> Result<bool> {
        match option.key.as_str() {
            "additionallayerstore" => {
                for text in option.value.split(',').filter(|text| !text.is_empty()) {
                    self.stores.push(self.store(text, option, driver)?);
                }
            }
            "additionallayerstore_timeout" => {
                let seconds = option.count()?;
                if !(1..=86_400).contains(&seconds) {
                    return Err(option.refuse(format!(
                        "{driver}: additionallayerstore_timeout is a number of seconds from 1 to \
                         86400"
                    )));
                }
                self.timeout = Duration::from_secs(seconds);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn store(&self, text: &str, option: &DriverOption<'_>, driver: &str) -> Result<NamedStore> {
        let mut parts = text.split(':');
        let path = cleaned(parts.next().unwrap_or_default());
        let shown = path.display();
        let refuse = |text: String| option.refuse(format!("{driver}: {text}"));
        let name = format!("additionallayerstore path \"{shown}\"");
        if !path.is_absolute() {
            return Err(refuse(format!(
                "{name} is not absolute.  Can not be relative"
            )));
        }
        let asked = path.clone();
        let found = within(self.timeout, "cannot stat", &path, move |_| {
            Ok(fs::metadata(&asked).map(|found| found.is_dir()))
        });
        match found? {
            Ok(true) => {}
            Ok(false) => return Err(refuse(format!("{name} must be a directory"))),
            Err(error) => {
                let reason = reason(&error);
                return Err(refuse(format!(
                    "can't stat additionallayerstore dir: stat {shown}: {reason}"
                ))
                .remedy("start the additional layer store, or correct its path"));
            }
        }
        let config = format!("additionallayerstore config of \"{shown}\"");
        let mut by_reference = false;
        for part in parts {
            if part != "ref" {
                return Err(refuse(format!(
                    "additionallayerstore config \"{shown}\" contains unknown option \"{part}\""
                )));
            }
            if std::mem::replace(&mut by_reference, true) {
                return Err(refuse(format!("{config} contains \"ref\" option twice")));
            }
        }
        Ok(NamedStore { path, by_reference })
    }
}

fn cleaned(path: &str) -> PathBuf {
    let parts = Path::new(path).components();
    parts.filter(|part| *part != Component::CurDir).collect()
}

/// The system's words for the failure, as Go prints them.
fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error")
        .next()
        .unwrap_or_default()
        .to_lowercase()
}

#[cfg(test)]
mod tests;
