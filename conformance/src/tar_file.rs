// SPDX-License-Identifier: Apache-2.0
//! Small tar streams for cases.

use std::io::Cursor;

use tar::{Builder, EntryType, Header};

/// A tar stream in the making.
pub(crate) struct TarFile(Builder<Vec<u8>>);

impl TarFile {
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32, size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size as u64);
        header.set_mtime(1_700_000_000);
        header
    }

    pub(crate) fn directory(self, path: &str) -> Self {
        self.entry(path, EntryType::Directory, 0o755, &[])
    }

    pub(crate) fn file(self, path: &str, data: &[u8]) -> Self {
        self.entry(path, EntryType::Regular, 0o644, data)
    }

    pub(crate) fn whiteout(self, path: &str) -> Self {
        self.entry(path, EntryType::Regular, 0, &[])
    }

    pub(crate) fn entry(mut self, path: &str, kind: EntryType, mode: u32, data: &[u8]) -> Self {
        let mut header = Self::header(kind, mode, data.len());
        self.0
            .append_data(&mut header, path, Cursor::new(data))
            .expect("writing to memory does not fail");
        self
    }

    pub(crate) fn link(mut self, path: &str, kind: EntryType, target: &str) -> Self {
        let mut header = Self::header(kind, 0o777, 0);
        self.0
            .append_link(&mut header, path, target)
            .expect("writing to memory does not fail");
        self
    }

    pub(crate) fn done(self) -> Vec<u8> {
        self.0
            .into_inner()
            .expect("writing to memory does not fail")
    }
}
