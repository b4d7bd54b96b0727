// SPDX-License-Identifier: Apache-2.0
//! Recognises a compression by the first bytes of a stream.

use super::Compression;

/// How many bytes [`detect`] looks at.
pub const MAGIC_LENGTH: usize = 6;

const BZIP2: &[u8] = b"BZh";
const GZIP: &[u8] = &[0x1f, 0x8b, 0x08];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0x00];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
/// The last three bytes of a skippable frame's magic; the first one is `0x50` to `0x5f`.
const ZSTD_SKIPPABLE: &[u8] = &[0x2a, 0x4d, 0x18];

/// The compression of a stream that begins with `start`.
///
/// Everything that is not recognised is a plain tar, as in containers/storage
/// (`pkg/archive/archive.go`, `DetectCompression`).
pub fn detect(start: &[u8]) -> Compression {
    if start.starts_with(GZIP) {
        Compression::Gzip
    } else if start.starts_with(ZSTD) || is_skippable_frame(start) {
        Compression::Zstd
    } else if start.starts_with(XZ) {
        Compression::Xz
    } else if start.starts_with(BZIP2) {
        Compression::Bzip2
    } else {
        Compression::None
    }
}

fn is_skippable_frame(start: &[u8]) -> bool {
    start
        .split_first()
        .is_some_and(|(first, rest)| first & 0xf0 == 0x50 && rest.starts_with(ZSTD_SKIPPABLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_apart() {
        let table: [(&[u8], Compression); 9] = [
            (b"", Compression::None),
            (b"\x1f\x8b", Compression::None),
            (b"\x1f\x8b\x08\x00", Compression::Gzip),
            (b"BZh91AY", Compression::Bzip2),
            (b"\xfd7zXZ\x00", Compression::Xz),
            (b"\x28\xb5\x2f\xfd", Compression::Zstd),
            (b"\x50\x2a\x4d\x18", Compression::Zstd),
            (b"\x5f\x2a\x4d\x18", Compression::Zstd),
            (b"etc/passwd", Compression::None),
        ];
        for (start, expected) in table {
            assert_eq!(detect(start), expected, "{start:?}");
        }
    }
}
