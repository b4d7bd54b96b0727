// SPDX-License-Identifier: Apache-2.0
//! Why a stream is refused.

use std::io;

use super::Compression;
use crate::{Error, ErrorKind};

/// A reason to refuse a stream.
///
/// Where containers/storage has a sentence for the same refusal, this is that sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// A header block is not one, or a number in it does not fit.
    #[error("archive/tar: invalid tar header")]
    InvalidHeader {
        /// Where in the uncompressed stream the header begins.
        offset: u64,
    },
    /// An extension header is larger than any reasonable one.
    #[error("archive/tar: header field too long")]
    FieldTooLong {
        /// Where in the uncompressed stream the header begins.
        offset: u64,
    },
    /// The stream ends inside an entry.
    #[error("unexpected EOF")]
    Truncated {
        /// The entry, if its header could still be read.
        name: Option<String>,
    },
    /// Two entries have the same name after clean-up.
    #[error("duplicates of file paths not supported")]
    DuplicatePath {
        /// The name.
        name: String,
    },
    /// The entry is of a type that cannot be unpacked.
    #[error("unhandled tar header type {type_flag}")]
    UnhandledType {
        /// The entry.
        name: String,
        /// The byte in its header.
        type_flag: u8,
    },
    /// The entry's name leads out of the layer.
    #[error("{name:?} is outside of the layer")]
    OutsideOfRoot {
        /// The entry.
        name: String,
    },
    /// An entry for the root is something else than a directory.
    #[error("refusing to act on a non-directory entry as the archive root")]
    RootIsNoDirectory {
        /// The entry.
        name: String,
    },
    /// A hard link's target leads out of the layer.
    #[error("invalid hardlink {name:?} -> {target:?}")]
    InvalidHardLink {
        /// The entry.
        name: String,
        /// What it wants to link to.
        target: String,
    },
    /// A whiteout that would remove its own directory or the one above.
    #[error("invalid whiteout path {name:?}")]
    InvalidWhiteout {
        /// The entry.
        name: String,
    },
    /// A hard link into the AUFS link directory names nothing there.
    #[error("invalid aufs hardlink")]
    InvalidAufsLink {
        /// The entry.
        name: String,
    },
    /// The id has no place in the id map.
    #[error("container ID {id} cannot be mapped to a host ID")]
    UnmappedId {
        /// The entry.
        name: String,
        /// The id in its header.
        id: i64,
    },
    /// The id is none that a file can have.
    #[error("{id} is no user or group ID")]
    InvalidId {
        /// The entry.
        name: String,
        /// The id in its header.
        id: i64,
    },
    /// The extended attribute is reserved for the graph driver.
    #[error("extended attribute {attribute:?} of {name:?} must not be in a layer")]
    ReservedAttribute {
        /// The entry.
        name: String,
        /// The attribute.
        attribute: String,
    },
    /// A character device 0:0, which overlay takes for a deletion.
    #[error("character device 0:0 {name:?} must not be in a layer")]
    ReservedDevice {
        /// The entry.
        name: String,
    },
    /// The device's numbers do not fit into the kernel's, which would cut them to others.
    #[error("{name:?} is a device {major}:{minor}, which cannot exist")]
    InvalidDevice {
        /// The entry.
        name: String,
        /// The major number in its header.
        major: u32,
        /// The minor number in its header.
        minor: u32,
    },
    /// The stream decompresses to more than the caller allows.
    #[error("the layer is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// The compressed data is damaged.
    #[error("cannot decompress {} data", .compression.extension())]
    Damaged {
        /// The format.
        compression: Compression,
        /// What the decoder says.
        source: io::Error,
    },
    /// Something that is not compressed data follows the compressed data.
    #[error("garbage after the end of {} data", .compression.extension())]
    TrailingGarbage {
        /// The format.
        compression: Compression,
    },
}

impl ArchiveError {
    fn entry(&self) -> Option<&str> {
        match self {
            Self::Truncated { name } => name.as_deref(),
            Self::DuplicatePath { name }
            | Self::UnhandledType { name, .. }
            | Self::OutsideOfRoot { name }
            | Self::RootIsNoDirectory { name }
            | Self::InvalidHardLink { name, .. }
            | Self::InvalidWhiteout { name }
            | Self::InvalidAufsLink { name }
            | Self::UnmappedId { name, .. }
            | Self::InvalidId { name, .. }
            | Self::ReservedAttribute { name, .. }
            | Self::ReservedDevice { name }
            | Self::InvalidDevice { name, .. } => Some(name),
            Self::InvalidHeader { .. }
            | Self::FieldTooLong { .. }
            | Self::TooLarge { .. }
            | Self::Damaged { .. }
            | Self::TrailingGarbage { .. } => None,
        }
    }

    fn remedy(&self) -> String {
        let text = match self {
            Self::InvalidHeader { offset } | Self::FieldTooLong { offset } => {
                return format!(
                    "this is no tar archive, or it is damaged at byte {offset} of the uncompressed \
                     stream"
                );
            }
            Self::Truncated { .. } => {
                "the stream ends too early; get it again, and compare its size and digest"
            }
            Self::Damaged { .. } | Self::TrailingGarbage { .. } => {
                "get the file again, and compare its digest"
            }
            Self::DuplicatePath { .. } => "make the archive anew, with each path once",
            Self::UnmappedId { .. } => "the layer needs a larger id map",
            Self::TooLarge { .. } => "raise the limit if the source is trusted",
            Self::ReservedAttribute { .. } | Self::ReservedDevice { .. } => {
                "the archive was made inside a graph driver's directory; export the layer with \
                 `diff` instead"
            }
            Self::UnhandledType { .. }
            | Self::OutsideOfRoot { .. }
            | Self::RootIsNoDirectory { .. }
            | Self::InvalidHardLink { .. }
            | Self::InvalidWhiteout { .. }
            | Self::InvalidAufsLink { .. }
            | Self::InvalidId { .. }
            | Self::InvalidDevice { .. } => {
                "nothing was kept; make the archive anew without that entry"
            }
        };
        text.to_owned()
    }
}

impl From<ArchiveError> for Error {
    fn from(error: ArchiveError) -> Self {
        let mut this = Self::new(ErrorKind::InvalidArchive, error.to_string());
        if let Some(entry) = error.entry() {
            this = this.subject(entry);
        }
        this = this.hint(error.remedy());
        match error {
            ArchiveError::Damaged { source, .. } => this.caused_by(source),
            _ => this,
        }
    }
}

/// A name from a stream, for messages.
pub(crate) fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
