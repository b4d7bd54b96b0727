// SPDX-License-Identifier: Apache-2.0
//! What a driver says when it cannot do what it was asked.

use std::{fmt, io, path::Path};

use crate::LayerId;

/// The result of a driver operation.
pub type Result<T, E = DriverError> = std::result::Result<T, E>;

/// A stable word for the kind of failure; the number crosses the plugin boundary.
///
/// The set is open: a newer plugin may send a number that this version has no name for, which
/// arrives as [`DriverErrorCode::OTHER`] would be treated.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DriverErrorCode(pub u32);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $word:literal;)*) => {
        impl DriverErrorCode {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// The code's word, for reports; `unknown` for a number of a newer version.
            pub const fn word(self) -> &'static str {
                match self.0 { $($number => $word,)* _ => "unknown" }
            }
        }
    };
}

codes! {
    /// Nothing more precise fits.
    OTHER = 0, "other";
    /// The layer, or what was named, does not exist.
    NOT_FOUND = 1, "not-found";
    /// The layer exists already.
    ALREADY_EXISTS = 2, "already-exists";
    /// An argument or option is not acceptable.
    INVALID_ARGUMENT = 3, "invalid-argument";
    /// This driver cannot do it at all (the capability is not declared).
    NOT_SUPPORTED = 4, "not-supported";
    /// The host lacks something that can be installed or switched on.
    PREREQUISITES = 5, "prerequisites";
    /// The file system of the home directory does not fit.
    INCOMPATIBLE_FILESYSTEM = 6, "incompatible-filesystem";
    /// Something else uses it at the moment.
    BUSY = 7, "busy";
    /// The chain of layers is longer than the driver can mount.
    TOO_DEEP = 8, "too-deep";
    /// The file system is full or a quota is exhausted.
    NO_SPACE = 9, "no-space";
    /// The file system is mounted read-only.
    READ_ONLY = 10, "read-only";
    /// The operation is not permitted.
    PERMISSION = 11, "permission";
    /// What is on disk is damaged.
    CORRUPT = 12, "corrupt";
    /// An input or output operation failed.
    IO = 13, "io";
    /// The driver panicked; core refuses it for writes from then on.
    PANICKED = 14, "panicked";
    /// It took longer than allowed.
    TIMEOUT = 15, "timeout";
}

impl fmt::Debug for DriverErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.word(), self.0)
    }
}

impl fmt::Display for DriverErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A failure of a driver, as it arrives at the host unchanged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriverError {
    /// The kind of failure.
    pub code: DriverErrorCode,
    /// One sentence in lower case without a full stop: what failed, the value last.
    pub message: String,
    /// The layer, path, dataset or option that it is about.
    pub object: Option<String>,
    /// What the operator can do.
    pub remedy: Option<String>,
    /// The system's error number.
    pub errno: Option<i32>,
}

/// The longest text in an error, in bytes.
const LONGEST_TEXT: usize = 4096;

/// What fits of a text; texts repeat what a caller gave, which may be anything.
fn clipped(mut text: String) -> String {
    const DOTS: &str = "...";
    if text.len() > LONGEST_TEXT {
        text.truncate(text.floor_char_boundary(LONGEST_TEXT - DOTS.len()));
        text.push_str(DOTS);
    }
    text
}

impl DriverError {
    /// A failure of kind `code`.
    ///
    /// # Behavior
    /// - Message, object and remedy are cut off at 4096 bytes.
    pub fn new(code: DriverErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: clipped(message.into()),
            object: None,
            remedy: None,
            errno: None,
        }
    }

    /// An input or output failure at `path`; full disks, read-only file systems and missing
    /// permissions get their own code.
    pub fn io(action: &str, path: &Path, error: &io::Error) -> Self {
        let code = match error.raw_os_error() {
            Some(libc::ENOSPC | libc::EDQUOT) => DriverErrorCode::NO_SPACE,
            Some(libc::EROFS) => DriverErrorCode::READ_ONLY,
            Some(libc::EPERM | libc::EACCES) => DriverErrorCode::PERMISSION,
            Some(libc::EBUSY) => DriverErrorCode::BUSY,
            _ => DriverErrorCode::IO,
        };
        let mut this = Self::new(code, format!("{action} `{}`: {error}", path.display()))
            .object(path.display().to_string());
        this.errno = error.raw_os_error();
        this
    }

    /// The layer is not there.
    pub fn no_layer(id: &LayerId) -> Self {
        Self::new(
            DriverErrorCode::NOT_FOUND,
            format!("layer `{id}` does not exist"),
        )
        .object(id.as_str())
    }

    /// The layer is there already.
    pub fn layer_exists(id: &LayerId) -> Self {
        Self::new(
            DriverErrorCode::ALREADY_EXISTS,
            format!("layer `{id}` exists"),
        )
        .object(id.as_str())
    }

    /// Names what the failure is about.
    #[must_use]
    pub fn object(mut self, object: impl Into<String>) -> Self {
        self.object = Some(clipped(object.into()));
        self
    }

    /// Says what the operator can do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(clipped(remedy.into()));
        self
    }

    /// An operation that the driver does not declare.
    pub fn not_supported(operation: &str) -> Self {
        Self::new(
            DriverErrorCode::NOT_SUPPORTED,
            format!("the driver does not support {operation}"),
        )
        .object(operation)
    }

    /// Whether another driver may be tried in its place when drivers are probed.
    pub fn means_unsuitable(&self) -> bool {
        matches!(
            self.code,
            DriverErrorCode::NOT_SUPPORTED
                | DriverErrorCode::PREREQUISITES
                | DriverErrorCode::INCOMPATIBLE_FILESYSTEM
        )
    }
}

impl fmt::Display for DriverError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for DriverError {}

/// Adds the path to an input or output error.
pub trait IoContext<T> {
    /// Says what was done to which path.
    ///
    /// # Errors
    /// The error of `self`, with `action` and `path`.
    fn at(self, action: &str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, action: &str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| DriverError::io(action, path.as_ref(), &error.into()))
    }
}
