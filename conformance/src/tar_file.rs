// SPDX-License-Identifier: Apache-2.0
//! Tar streams written by hand: every dialect, any header, and what no well-meaning writer makes.

use tar::EntryType;

const BLOCK: usize = 512;

/// How the headers of an entry are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// The oldest: no magic, no owner names, no devices, no prefix.
    V7,
    /// POSIX 1988: a prefix for names, octal numbers alone.
    Ustar,
    /// POSIX 2001: what does not fit is a record of an extended header.
    Pax,
    /// GNU: what does not fit is an `L` or `K` entry, or a base-256 number.
    #[default]
    Gnu,
}

/// One entry in the making.
///
/// What a dialect cannot hold is cut off: a case that asks for it gets a wrong stream, not a panic.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    dialect: Dialect,
    kind: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    owner: (u64, u64),
    owner_names: (String, String),
    mtime: i64,
    device: (u32, u32),
    size: Option<u64>,
    records: Vec<u8>,
    data: Vec<u8>,
    patches: Vec<(usize, Vec<u8>)>,
    wrong_sum: bool,
}

impl Entry {
    /// An entry of any type.
    pub(crate) fn new(kind: EntryType, name: impl AsRef<[u8]>) -> Self {
        Self {
            dialect: Dialect::default(),
            kind: kind.as_byte(),
            name: name.as_ref().to_vec(),
            link: Vec::new(),
            mode: 0o644,
            owner: (0, 0),
            owner_names: (String::new(), String::new()),
            mtime: 1_700_000_000,
            device: (0, 0),
            size: None,
            records: Vec::new(),
            data: Vec::new(),
            patches: Vec::new(),
            wrong_sum: false,
        }
    }

    pub(crate) fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Self {
        Self::new(EntryType::Regular, name).data(data)
    }

    pub(crate) fn directory(name: impl AsRef<[u8]>) -> Self {
        Self::new(EntryType::Directory, name).mode(0o755)
    }

    pub(crate) fn symlink(name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        Self::new(EntryType::Symlink, name).mode(0o777).link(to)
    }

    pub(crate) fn hard_link(name: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> Self {
        Self::new(EntryType::Link, name).link(to)
    }

    pub(crate) fn dialect(mut self, dialect: Dialect) -> Self {
        self.dialect = dialect;
        self
    }

    /// The type as a byte, for types that have no name.
    pub(crate) fn kind(mut self, kind: u8) -> Self {
        self.kind = kind;
        self
    }

    pub(crate) fn data(mut self, data: impl AsRef<[u8]>) -> Self {
        self.data = data.as_ref().to_vec();
        self
    }

    pub(crate) fn link(mut self, to: impl AsRef<[u8]>) -> Self {
        self.link = to.as_ref().to_vec();
        self
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn owner(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    pub(crate) fn owner_names(mut self, user: &str, group: &str) -> Self {
        self.owner_names = (user.to_owned(), group.to_owned());
        self
    }

    pub(crate) fn mtime(mut self, seconds: i64) -> Self {
        self.mtime = seconds;
        self
    }

    pub(crate) fn device(mut self, major: u32, minor: u32) -> Self {
        self.device = (major, minor);
        self
    }

    /// The size that the header claims, instead of the content's.
    pub(crate) fn claims(mut self, size: u64) -> Self {
        self.size = Some(size);
        self
    }

    /// A record of an extended header of its own, in any dialect.
    pub(crate) fn record(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        push_record(&mut self.records, key, value.as_ref());
        self
    }

    /// Bytes of an extended header that are no record.
    pub(crate) fn raw_records(mut self, bytes: &[u8]) -> Self {
        self.records.extend_from_slice(bytes);
        self
    }

    /// An extended attribute.
    pub(crate) fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.record(&format!("SCHILY.xattr.{name}"), value)
    }

    /// Bytes in the finished header block; the checksum counts them.
    pub(crate) fn patch(mut self, offset: usize, bytes: impl AsRef<[u8]>) -> Self {
        self.patches.push((offset, bytes.as_ref().to_vec()));
        self
    }

    /// With a checksum that does not fit.
    pub(crate) fn wrong_sum(mut self) -> Self {
        self.wrong_sum = true;
        self
    }

    /// Everything that stands for the entry in a stream, padded to whole blocks.
    pub(crate) fn bytes(mut self) -> Vec<u8> {
        let mut out = Vec::new();
        let mut prefix: &[u8] = &[];
        let mut name: &[u8] = &self.name;
        if name.len() > 100 {
            let split = match self.dialect {
                Dialect::Ustar | Dialect::Pax => split_name(name),
                Dialect::V7 | Dialect::Gnu => None,
            };
            match (split, self.dialect) {
                (Some(parts), _) => (prefix, name) = parts,
                (None, Dialect::Pax) => push_record(&mut self.records, "path", &self.name),
                (None, Dialect::Gnu) => long(&mut out, b'L', &self.name),
                (None, _) => {}
            }
        }
        if self.link.len() > 100 {
            match self.dialect {
                Dialect::Pax => push_record(&mut self.records, "linkpath", &self.link),
                Dialect::Gnu => long(&mut out, b'K', &self.link),
                Dialect::V7 | Dialect::Ustar => {}
            }
        }
        let size = self.size.unwrap_or(self.data.len() as u64);
        let mut header = [0; BLOCK];
        put(&mut header, 0, 100, name);
        put(&mut header, 157, 100, &self.link);
        put(&mut header, 345, 155, prefix);
        header[156] = self.kind;
        let mut number = |at: usize, length: usize, key: &str, value: i128| {
            let fits = (0..1_i128 << (3 * (length - 1))).contains(&value);
            match self.dialect {
                _ if fits => put_octal(&mut header, at, length, value),
                Dialect::Gnu => put_base_256(&mut header, at, length, value),
                Dialect::Pax => {
                    push_record(&mut self.records, key, value.to_string().as_bytes());
                    put_octal(&mut header, at, length, 0);
                }
                Dialect::V7 | Dialect::Ustar => put_octal(&mut header, at, length, value),
            }
        };
        number(100, 8, "mode", self.mode.into());
        number(108, 8, "uid", self.owner.0.into());
        number(116, 8, "gid", self.owner.1.into());
        number(124, 12, "size", size.into());
        number(136, 12, "mtime", self.mtime.into());
        if self.dialect != Dialect::V7 {
            number(329, 8, "SCHILY.devmajor", self.device.0.into());
            number(337, 8, "SCHILY.devminor", self.device.1.into());
            let magic: &[u8] = match self.dialect {
                Dialect::Gnu => b"ustar  \0",
                _ => b"ustar\x0000",
            };
            put(&mut header, 257, 8, magic);
            put(&mut header, 265, 32, self.owner_names.0.as_bytes());
            put(&mut header, 297, 32, self.owner_names.1.as_bytes());
        }
        for (at, bytes) in &self.patches {
            header[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        sum(&mut header, self.wrong_sum);
        if !self.records.is_empty() {
            special(&mut out, b'x', b"PaxHeaders.0/entry", &self.records);
        }
        out.extend_from_slice(&header);
        out.extend_from_slice(&self.data);
        pad(&mut out);
        out
    }
}

/// A tar stream in the making.
#[derive(Clone, Debug, Default)]
pub(crate) struct TarFile {
    bytes: Vec<u8>,
    dialect: Dialect,
}

impl TarFile {
    /// An empty one; entries that are added by the short forms have GNU headers.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// An empty one with another kind of headers.
    pub(crate) fn of(dialect: Dialect) -> Self {
        Self {
            dialect,
            ..Self::default()
        }
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

    pub(crate) fn entry(self, path: &str, kind: EntryType, mode: u32, data: &[u8]) -> Self {
        let dialect = self.dialect;
        self.add(
            Entry::new(kind, path)
                .mode(mode)
                .data(data)
                .dialect(dialect),
        )
    }

    pub(crate) fn link(self, path: &str, kind: EntryType, target: &str) -> Self {
        let dialect = self.dialect;
        self.add(
            Entry::new(kind, path)
                .mode(0o777)
                .link(target)
                .dialect(dialect),
        )
    }

    /// Adds an entry as it is, with the dialect of its own.
    pub(crate) fn add(mut self, entry: Entry) -> Self {
        self.bytes.extend(entry.bytes());
        self
    }

    /// Adds a PAX header for everything that follows.
    pub(crate) fn global(mut self, records: &[(&str, &str)]) -> Self {
        let mut content = Vec::new();
        for (key, value) in records {
            push_record(&mut content, key, value.as_bytes());
        }
        special(&mut self.bytes, b'g', b"pax_global_header", &content);
        self
    }

    /// Adds bytes as they are.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The stream, with its end mark.
    pub(crate) fn done(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 2 * BLOCK]);
        self.bytes
    }

    /// The stream without an end mark.
    pub(crate) fn unended(self) -> Vec<u8> {
        self.bytes
    }
}

/// One record, `LENGTH KEY=VALUE\n`, whose length counts itself.
fn push_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend_from_slice(format!("{length} {key}=").as_bytes());
    out.extend_from_slice(value);
    out.push(b'\n');
}

/// Splits a name at a slash so that both parts fit into a USTAR header.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    let last = name.len().min(156);
    let slash = (1..last)
        .rev()
        .find(|at| name[*at] == b'/' && *at + 1 < name.len())?;
    let (prefix, rest) = (&name[..slash], &name[slash + 1..]);
    (rest.len() <= 100).then_some((prefix, rest))
}

/// A GNU entry for a name or a target that is too long.
fn long(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    let mut content = text.to_vec();
    content.push(0);
    let entry = Entry::new(EntryType::Regular, "././@LongLink")
        .kind(kind)
        .mtime(0)
        .data(content);
    out.extend(entry.bytes());
}

fn special(out: &mut Vec<u8>, kind: u8, name: &[u8], content: &[u8]) {
    let entry = Entry::new(EntryType::Regular, name)
        .kind(kind)
        .dialect(Dialect::Ustar)
        .mtime(0)
        .data(content);
    out.extend(entry.bytes());
}

fn put(header: &mut [u8; BLOCK], at: usize, length: usize, text: &[u8]) {
    let length = text.len().min(length);
    header[at..at + length].copy_from_slice(&text[..length]);
}

fn put_octal(header: &mut [u8; BLOCK], at: usize, length: usize, value: i128) {
    let text = format!("{value:0>width$o}", width = length - 1);
    put(header, at, length - 1, text.as_bytes());
}

/// Big-endian two's complement, marked by the highest bit.
fn put_base_256(header: &mut [u8; BLOCK], at: usize, length: usize, value: i128) {
    let bytes = value.to_be_bytes();
    header[at..at + length].copy_from_slice(&bytes[bytes.len() - length..]);
    header[at] |= 0x80;
}

fn sum(header: &mut [u8; BLOCK], wrong: bool) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    let sum = sum + u32::from(wrong);
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Path, target, two numbers and content of an entry.
    type Read = (Vec<u8>, Vec<u8>, u64, u64, Vec<u8>);

    /// What a reader that is not ours makes of a stream.
    fn read(bytes: &[u8]) -> Vec<Read> {
        let mut archive = tar::Archive::new(bytes);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut data = Vec::new();
            entry.read_to_end(&mut data).unwrap();
            (
                entry.path_bytes().into_owned(),
                entry.link_name_bytes().unwrap_or_default().into_owned(),
                entry.header().uid().unwrap(),
                entry.header().mtime().unwrap(),
                data,
            )
        });
        entries.collect()
    }

    #[test]
    fn every_dialect_can_be_read() {
        for dialect in [Dialect::V7, Dialect::Ustar, Dialect::Pax, Dialect::Gnu] {
            let file = Entry::file("d/f", b"content").owner(7, 8).mtime(9);
            let link = Entry::symlink("l", "d/f").mtime(9);
            let bytes = TarFile::of(dialect)
                .add(file.dialect(dialect))
                .add(link.dialect(dialect))
                .done();
            let expected = [
                (b"d/f".to_vec(), Vec::new(), 7, 9, b"content".to_vec()),
                (b"l".to_vec(), b"d/f".to_vec(), 0, 9, Vec::new()),
            ];
            assert_eq!(read(&bytes), expected, "{dialect:?}");
            assert_eq!(bytes.len() % BLOCK, 0);
        }
    }

    #[test]
    fn what_does_not_fit_takes_the_dialects_way() {
        let (name, to) = ([b'n'; 250], [b't'; 300]);
        for dialect in [Dialect::Pax, Dialect::Gnu] {
            let entry = Entry::symlink(name, to).dialect(dialect);
            let seen = &read(&TarFile::new().add(entry).done())[0];
            assert_eq!((&seen.0[..], &seen.1[..]), (&name[..], &to[..]));
        }
        let split = format!("{}/{}", "p".repeat(120), "n".repeat(90));
        let entry = Entry::file(&split, "").dialect(Dialect::Ustar);
        assert_eq!(
            read(&TarFile::new().add(entry).done())[0].0,
            split.as_bytes()
        );
        let large = Entry::file("f", "").owner(4_294_967_294, 0);
        assert_eq!(read(&TarFile::new().add(large).done())[0].2, 4_294_967_294);
    }

    #[test]
    fn records_count_their_own_length() {
        let mut out = Vec::new();
        push_record(&mut out, "path", b"a");
        push_record(&mut out, "comment", &[b'x'; 89]);
        assert!(out.starts_with(b"9 path=a\n102 comment=x"));
        assert_eq!(out.len(), 9 + 102);
    }

    #[test]
    fn a_header_can_be_damaged() {
        let bytes = TarFile::new().add(Entry::file("f", "").wrong_sum()).done();
        let mut archive = tar::Archive::new(&bytes[..]);
        assert!(archive.entries().unwrap().next().unwrap().is_err());
        let patched = Entry::file("f", "").patch(0, "g").bytes();
        assert_eq!(read(&patched)[0].0, b"g");
    }
}
