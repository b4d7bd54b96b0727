// SPDX-License-Identifier: Apache-2.0
//! The error that every public operation returns.

use std::{error::Error as StdError, fmt, io, path::Path};

use plywood_plugin_sdk::{DriverError, DriverErrorCode};

/// The result of a store operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync>;

/// What kind of failure an [`Error`] is; the first group has the names of containers/storage's
/// sentinel errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No layer has that name or id.
    LayerUnknown,
    /// No image has that name or id.
    ImageUnknown,
    /// No container has that name or id.
    ContainerUnknown,
    /// It is no layer (but something else).
    NotALayer,
    /// It is no image.
    NotAnImage,
    /// It is no container.
    NotAContainer,
    /// Neither layer, image nor container.
    NotAnId,
    /// The id is in use.
    DuplicateId,
    /// The name is in use.
    DuplicateName,
    /// The parent of a new layer does not exist.
    ParentUnknown,
    /// The parent of a new layer is a container's layer.
    ParentIsContainer,
    /// Other layers stand on the layer.
    LayerHasChildren,
    /// An image refers to the layer.
    LayerUsedByImage,
    /// A container refers to the layer, or the layer is mounted.
    LayerUsedByContainer,
    /// A container refers to the image.
    ImageUsedByContainer,
    /// The layer is not mounted.
    LayerNotMounted,
    /// The store, or the part that holds the object, is read-only.
    StoreIsReadOnly,
    /// The size of a big data item is not recorded.
    SizeUnknown,
    /// The digest of a big data item is not recorded.
    DigestUnknown,
    /// A big data item's name cannot be used.
    InvalidBigDataName,
    /// There is no such big data item.
    BigDataMissing,
    /// A digest has the wrong form or does not match.
    InvalidDigest,
    /// The driver or this version cannot do it.
    NotSupported,
    /// An argument is not acceptable.
    InvalidArgument,
    /// A tar stream is not acceptable.
    InvalidArchive,
    /// A recorded file does not match what is on disk.
    Corrupt,
    /// Configuration is wrong.
    Config,
    /// The driver is not there or was refused.
    DriverUnavailable,
    /// The store belongs to another driver.
    DriverMismatch,
    /// The driver reported a failure.
    Driver,
    /// The driver panicked and is refused for writes.
    DriverPoisoned,
    /// The file system is full or a quota is exhausted.
    NoSpace,
    /// The file system is read-only.
    ReadOnlyFilesystem,
    /// The operation is not permitted.
    Permission,
    /// Something else uses it.
    Busy,
    /// The caller asked to stop.
    Cancelled,
    /// It took longer than allowed.
    TimedOut,
    /// Any other input or output failure.
    Io,
}

/// A failure: its kind, a sentence, the object, what to do, and the cause.
///
/// `Display` prints the sentence alone; causes are in [`StdError::source`].
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    subject: Option<String>,
    hint: Option<String>,
    source: Option<Source>,
}

impl Error {
    /// An error with a sentence in lower case and without a full stop.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            subject: None,
            hint: None,
            source: None,
        }))
    }

    /// Names the object: an id, a name or a path.
    #[must_use]
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.0.subject = Some(subject.into());
        self
    }

    /// Says what the operator can do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// Puts `text` and a colon before the sentence.
    #[must_use]
    pub fn prefixed(mut self, text: impl fmt::Display) -> Self {
        self.0.message = format!("{text}: {}", self.0.message);
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The object it is about.
    pub fn about(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// What the operator can do.
    pub fn remedy(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// An input or output failure while doing `action` to `path`.
    ///
    /// Full disks, read-only file systems and missing permissions get their own kind and a remedy.
    pub fn io(action: &str, path: &Path, error: io::Error) -> Self {
        let (kind, hint) = match error.raw_os_error() {
            Some(libc::ENOSPC) => (ErrorKind::NoSpace, Some(NO_SPACE)),
            Some(libc::EDQUOT) => (
                ErrorKind::NoSpace,
                Some("raise the quota or free some space"),
            ),
            Some(libc::EROFS) => (ErrorKind::ReadOnlyFilesystem, Some(READ_ONLY)),
            Some(libc::EPERM | libc::EACCES) => (ErrorKind::Permission, None),
            Some(libc::EBUSY) => (ErrorKind::Busy, None),
            _ => (ErrorKind::Io, None),
        };
        let mut this = Self::new(kind, format!("{action} `{}`", path.display()))
            .subject(path.display().to_string())
            .caused_by(error);
        this.0.hint = hint.map(str::to_owned);
        this
    }
}

/// What helps against a full disk.
const NO_SPACE: &str =
    "free some space on that file system (unused images, containers), then retry";

/// What helps against a read-only file system.
const READ_ONLY: &str = "mount the file system read-write, or choose another --graph directory";

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)?;
        let mut source = self.source();
        while let Some(cause) = source {
            write!(f, ": {cause}")?;
            source = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source.as_ref() as _)
    }
}

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        let kind = match error.code {
            DriverErrorCode::NOT_FOUND => ErrorKind::LayerUnknown,
            DriverErrorCode::ALREADY_EXISTS => ErrorKind::DuplicateId,
            DriverErrorCode::INVALID_ARGUMENT => ErrorKind::InvalidArgument,
            DriverErrorCode::NOT_SUPPORTED | DriverErrorCode::TOO_DEEP => ErrorKind::NotSupported,
            DriverErrorCode::PREREQUISITES | DriverErrorCode::INCOMPATIBLE_FILESYSTEM => {
                ErrorKind::DriverUnavailable
            }
            DriverErrorCode::BUSY => ErrorKind::Busy,
            DriverErrorCode::NO_SPACE => ErrorKind::NoSpace,
            DriverErrorCode::READ_ONLY => ErrorKind::ReadOnlyFilesystem,
            DriverErrorCode::PERMISSION => ErrorKind::Permission,
            DriverErrorCode::CORRUPT => ErrorKind::Corrupt,
            DriverErrorCode::PANICKED => ErrorKind::DriverPoisoned,
            DriverErrorCode::TIMEOUT => ErrorKind::TimedOut,
            _ => ErrorKind::Driver,
        };
        let mut this = Self::new(kind, error.message.clone());
        this.0.subject.clone_from(&error.object);
        this.0.hint.clone_from(&error.remedy);
        if this.0.hint.is_none() {
            let usual = match this.0.kind {
                ErrorKind::NoSpace => Some(NO_SPACE),
                ErrorKind::ReadOnlyFilesystem => Some(READ_ONLY),
                _ => None,
            };
            this.0.hint = usual.map(str::to_owned);
        }
        this
    }
}

/// Adds what was done to which path to an input or output error.
pub trait IoContext<T> {
    /// Makes an [`Error`] of the failure; `action` is a verb phrase such as `cannot read`.
    ///
    /// # Errors
    /// The failure in `self`.
    fn at(self, action: &str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> IoContext<T> for std::result::Result<T, E> {
    fn at(self, action: &str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| Error::io(action, path.as_ref(), error.into()))
    }
}
