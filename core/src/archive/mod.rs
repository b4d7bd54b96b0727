// SPDX-License-Identifier: Apache-2.0
//! Tar streams: reading them into a directory, and writing them from one.
//!
//! Everything here works on untrusted input: no entry reaches a file outside the target directory,
//! every refusal names the entry, and memory does not grow with the size of the stream.

pub mod codec;
mod compare;
pub mod detect;
pub mod encode;
pub mod error;
mod exchange;
mod gotar;
pub mod header;
pub mod import;
mod lowers;
pub(crate) mod names;
pub(crate) mod opaque_root;
pub mod pack;
pub mod pax;
mod pipeline;
pub(crate) mod quote;
pub(crate) mod reader;
mod sparse;
pub(crate) mod stream;
mod tree;
pub(crate) mod unpack;
pub mod walk;

/// How a layer's stream is compressed; the numbers are those of `compression` in `layers.json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Compression {
    /// A plain tar.
    #[default]
    None = 0,
    /// bzip2.
    Bzip2 = 1,
    /// gzip.
    Gzip = 2,
    /// xz.
    Xz = 3,
    /// Zstandard.
    Zstd = 4,
}

impl Compression {
    /// The number in a layer's record.
    pub fn number(self) -> i64 {
        self as i64
    }

    /// The compression with that number in a layer's record.
    pub fn from_number(number: i64) -> Option<Self> {
        Some(match number {
            0 => Self::None,
            1 => Self::Bzip2,
            2 => Self::Gzip,
            3 => Self::Xz,
            4 => Self::Zstd,
            _ => return None,
        })
    }

    /// The file name extension that containers/storage uses in messages, such as `tar.gz`.
    pub fn extension(self) -> &'static str {
        match self {
            Self::None => "tar",
            Self::Bzip2 => "tar.bz2",
            Self::Gzip => "tar.gz",
            Self::Xz => "tar.xz",
            Self::Zstd => "tar.zst",
        }
    }
}
