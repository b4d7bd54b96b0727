// SPDX-License-Identifier: Apache-2.0
//! A small tree that many cases begin with.

use crate::tar_file::TarFile;

/// Something of every kind that a stream can hold, except devices.
pub(super) fn sample() -> Vec<u8> {
    use tar::EntryType;
    TarFile::new()
        .directory("d/")
        .directory("d/e/")
        .file("d/e/deep", b"deep")
        .file("plain", b"plain")
        .entry("setuid", EntryType::Regular, 0o4755, b"x")
        .entry("sticky/", EntryType::Directory, 0o1777, &[])
        .link("soft", EntryType::Symlink, "d/e/deep")
        .link("hard", EntryType::Link, "plain")
        .entry("pipe", EntryType::Fifo, 0o600, &[])
        .done()
}
