// SPDX-License-Identifier: Apache-2.0
//! Why a plugin is not loaded, one variant for each reason.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::abi::Refusal;

use super::elf::ElfProblem;
use crate::{Error, ErrorKind};

/// Why a plugin is not loaded; nothing of it has run unless it is [`PluginError::Open`],
/// [`PluginError::Refused`] or [`PluginError::OtherName`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The name is outside the grammar.
    #[error("`{name}` cannot be the name of a driver")]
    Name {
        /// The name.
        name: String,
    },
    /// The file cannot be looked at.
    #[error("cannot look at plugin `{}`", path.display())]
    Look {
        /// The path.
        path: PathBuf,
        /// The reason.
        #[source]
        source: io::Error,
    },
    /// The file is no regular file.
    #[error("plugin `{}` is not loaded: it is {kind}, not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// Somebody else could have changed the file.
    #[error("plugin `{}` is not loaded: {suspect}", path.display())]
    Untrusted {
        /// The plugin.
        path: PathBuf,
        /// What is wrong with it or a directory above it.
        suspect: Suspect,
    },
    /// The file is no complete shared object for this machine.
    #[error("plugin `{}` is not loaded: {problem}", path.display())]
    Elf {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        problem: ElfProblem,
    },
    /// The file is another one than the configuration pins.
    #[error(
        "plugin `{}` is not loaded: its SHA-256 is {found}, and the configuration pins {expected}",
        path.display()
    )]
    Digest {
        /// The path.
        path: PathBuf,
        /// The pinned value.
        expected: String,
        /// The file's value.
        found: String,
    },
    /// The system's loader refused it.
    #[error("plugin `{}` cannot be opened: {reason}", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// A shared object, but no plugin.
    #[error("`{}` is a shared object, but no Plywood plugin: it does not export the entry symbol", path.display())]
    NoEntry {
        /// The path.
        path: PathBuf,
    },
    /// The plugin boundary does not match.
    #[error("plugin `{}` is refused: {refusal}", path.display())]
    Refused {
        /// The path.
        path: PathBuf,
        /// What does not match.
        refusal: Box<Refusal>,
    },
    /// The plugin holds another driver than its name says.
    #[error("plugin `{}` is refused: it holds the driver `{found}`, not `{expected}`", path.display())]
    OtherName {
        /// The path.
        path: PathBuf,
        /// The driver that was asked for.
        expected: String,
        /// The driver that it holds.
        found: String,
    },
    /// This program is linked statically.
    #[error("plugin `{}` is not loaded: a static build of this program cannot load plugins", path.display())]
    StaticBuild {
        /// The path.
        path: PathBuf,
    },
    /// No plugin and no embedded driver has the name.
    #[error("driver `{name}` is not available: {searched}")]
    Missing {
        /// The name.
        name: String,
        /// Where it was looked for.
        searched: String,
    },
}

/// A file or directory through which somebody else could have changed a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Suspect {
    /// Neither root nor the caller owns it.
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// Others may write to it.
    Writable {
        /// The file or directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

impl fmt::Display for Suspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Owner { path, uid } => write!(
                f,
                "`{}` belongs to user {uid}, neither to root nor to the caller",
                path.display()
            ),
            Self::Writable { path, mode } => write!(
                f,
                "`{}` can be written by others (mode {mode:04o})",
                path.display()
            ),
        }
    }
}

impl PluginError {
    /// What the operator can do.
    pub fn remedy(&self) -> String {
        match self {
            Self::Name { .. } => {
                "use a letter, then letters, digits and dashes, all lower case, at most 32".into()
            }
            Self::Look { .. } => "check the path and its permissions".into(),
            Self::NotAFile { .. } | Self::Elf { .. } | Self::Digest { .. } => {
                "install the plugin again, and put it in place by rename".into()
            }
            Self::Untrusted { suspect, .. } => match suspect {
                Suspect::Owner { path, .. } => format!("chown root `{}`", path.display()),
                Suspect::Writable { path, .. } => format!("chmod go-w `{}`", path.display()),
            },
            Self::Open { .. } => {
                "install what the plugin needs, or a plugin for this system".into()
            }
            Self::NoEntry { .. } => "remove the file from the plugin directory".into(),
            Self::Refused { refusal, .. } => match **refusal {
                Refusal::Version { plugin, host } if plugin.major < host.major => {
                    "install a newer release of the plugin".into()
                }
                Refusal::Version { .. } => "install a newer release of this program".into(),
                _ => "build the plugin again with the published plywood-plugin-sdk".into(),
            },
            Self::OtherName { found, .. } => {
                format!("give the file the name of its driver, `libplywood_driver_{found}.so`")
            }
            Self::StaticBuild { .. } => {
                "use a driver that is linked in, or a dynamically linked build".into()
            }
            Self::Missing { .. } => {
                "install the driver's plugin, or name its directory with --plugin-dir".into()
            }
        }
    }

    /// The file that it is about.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Name { .. } | Self::Missing { .. } => None,
            Self::Look { path, .. }
            | Self::NotAFile { path, .. }
            | Self::Untrusted { path, .. }
            | Self::Elf { path, .. }
            | Self::Digest { path, .. }
            | Self::Open { path, .. }
            | Self::NoEntry { path }
            | Self::Refused { path, .. }
            | Self::OtherName { path, .. }
            | Self::StaticBuild { path } => Some(path),
        }
    }
}

impl From<PluginError> for Error {
    fn from(error: PluginError) -> Self {
        let kind = match error {
            PluginError::Name { .. } => ErrorKind::InvalidArgument,
            _ => ErrorKind::DriverUnavailable,
        };
        let mut this = Self::new(kind, error.to_string()).hint(error.remedy());
        if let Some(path) = error.path() {
            this = this.subject(path.display().to_string());
        }
        match error {
            PluginError::Look { source, .. } => this.caused_by(source),
            PluginError::Refused { refusal, .. } => match *refusal {
                Refusal::Calls(cause)
                | Refusal::UnreadableVersion(cause)
                | Refusal::Start(cause) => this.caused_by(cause),
                _ => this,
            },
            _ => this,
        }
    }
}
