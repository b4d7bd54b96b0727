// SPDX-License-Identifier: Apache-2.0
//! Writes tar headers with the bytes that Go's `archive/tar` writes.
//!
//! The digest of an exported layer depends on every one of them, so two tools agree on it only if
//! both choose formats, record order and fillers alike.

use std::collections::BTreeMap;

/// The unit of a tar.
pub(super) const BLOCK: usize = 512;
/// The largest body of a PAX header that Go writes.
const RECORDS_LIMIT: usize = 1 << 20;
const NAME_SIZE: usize = 100;
const PREFIX_SIZE: usize = 155;

/// The type flags that are written.
pub(super) mod kind {
    pub(in super::super) const REGULAR: u8 = b'0';
    pub(in super::super) const LINK: u8 = b'1';
    pub(in super::super) const SYMLINK: u8 = b'2';
    pub(in super::super) const CHARACTER: u8 = b'3';
    pub(in super::super) const BLOCK_DEVICE: u8 = b'4';
    pub(in super::super) const DIRECTORY: u8 = b'5';
    pub(in super::super) const FIFO: u8 = b'6';
    pub(super) const EXTENDED: u8 = b'x';
}

/// An entry, as Go's `tar.Header` describes it with an unknown format.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    /// Permissions, set-id and sticky bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) size: u64,
    pub(super) seconds: i64,
    /// Written only when not 0, and then in a PAX record.
    pub(super) nanoseconds: u32,
    pub(super) device: (u32, u32),
    /// Extended attributes.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Why Go cannot write an entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the extended attribute `{}` has a name that a tar cannot hold", name.escape_ascii())]
    XattrName { name: Vec<u8> },
    #[error("its extended attributes and names have {size} bytes, more than a tar header can hold")]
    TooLarge { size: usize },
    #[error("its device number {major}:{minor} does not fit into a tar header")]
    Device { major: u32, minor: u32 },
}

impl Header {
    /// The header's blocks: one, or with PAX records three or more.
    pub(super) fn encode(&self) -> Result<Vec<u8>, HeaderError> {
        let (major, minor) = self.device;
        if !fits_octal(major.into(), 8) || !fits_octal(minor.into(), 8) {
            return Err(HeaderError::Device { major, minor });
        }
        let mut records = self.records();
        let split = split_path(&self.name);
        let plain = records.keys().all(|key| key == b"path" && split.is_some());
        for (name, value) in &self.xattrs {
            if name.is_empty() || name.contains(&b'=') || name.contains(&0) {
                return Err(HeaderError::XattrName { name: name.clone() });
            }
            let key = [b"SCHILY.xattr.", name.as_slice()].concat();
            records.entry(key).or_insert_with(|| value.clone());
        }
        if plain && self.xattrs.is_empty() {
            let (prefix, name) = split.unwrap_or((b"", &self.name));
            let mut block = self.block(name, &self.link);
            put_string(&mut block[345..345 + PREFIX_SIZE], prefix);
            return Ok(finish(block).to_vec());
        }
        let mut bytes = extension(&self.name, &records)?;
        let block = self.block(&ascii(&self.name), &ascii(&self.link));
        bytes.extend_from_slice(&finish(block));
        Ok(bytes)
    }

    /// The values that a plain header cannot hold.
    fn records(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut records = BTreeMap::new();
        let mut add = |key: &[u8], value: Vec<u8>| records.insert(key.to_vec(), value);
        if self.name.len() > NAME_SIZE || !self.name.is_ascii() {
            add(b"path", self.name.clone());
        }
        if self.link.len() > NAME_SIZE || !self.link.is_ascii() {
            add(b"linkpath", self.link.clone());
        }
        if !fits_octal(self.uid.into(), 8) {
            add(b"uid", self.uid.to_string().into_bytes());
        }
        if !fits_octal(self.gid.into(), 8) {
            add(b"gid", self.gid.to_string().into_bytes());
        }
        if !fits_octal(self.size, 12) {
            add(b"size", self.size.to_string().into_bytes());
        }
        let whole = u64::try_from(self.seconds).is_ok_and(|seconds| fits_octal(seconds, 12));
        if !whole || self.nanoseconds != 0 {
            add(b"mtime", time(self.seconds, self.nanoseconds).into_bytes());
        }
        records
    }

    fn block(&self, name: &[u8], link: &[u8]) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        put_string(&mut block[0..100], name);
        put_octal(&mut block[100..108], self.mode.into());
        put_octal(&mut block[108..116], self.uid.into());
        put_octal(&mut block[116..124], self.gid.into());
        put_octal(&mut block[124..136], self.size);
        put_octal(
            &mut block[136..148],
            u64::try_from(self.seconds).unwrap_or(0),
        );
        block[156] = self.kind;
        put_string(&mut block[157..257], link);
        put_octal(&mut block[329..337], self.device.0.into());
        put_octal(&mut block[337..345], self.device.1.into());
        block
    }
}

/// The header and body of the records before an entry called `name`.
fn extension(name: &[u8], records: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Vec<u8>, HeaderError> {
    let mut body = Vec::new();
    for (key, value) in records {
        push_record(&mut body, key, value);
    }
    if body.len() > RECORDS_LIMIT {
        return Err(HeaderError::TooLarge { size: body.len() });
    }
    let mut block = [0; BLOCK];
    let name = ascii(&extension_name(name));
    let mut name = &name[..name.len().min(NAME_SIZE)];
    while let [rest @ .., b'/'] = name {
        name = rest;
    }
    put_string(&mut block[0..100], name);
    put_octal(&mut block[100..108], 0);
    put_octal(&mut block[108..116], 0);
    put_octal(&mut block[116..124], 0);
    put_octal(&mut block[124..136], body.len() as u64);
    put_octal(&mut block[136..148], 0);
    block[156] = kind::EXTENDED;
    let mut bytes = finish(block).to_vec();
    bytes.append(&mut body);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    Ok(bytes)
}

/// `DIR/PaxHeaders.0/NAME`; a directory's own name ends in a slash and is all directory part.
fn extension_name(name: &[u8]) -> Vec<u8> {
    let at = memchr::memrchr(b'/', name).map_or(0, |at| at + 1);
    let (directory, file) = name.split_at(at);
    let mut full = directory.to_vec();
    full.extend_from_slice(b"PaxHeaders.0");
    if !file.is_empty() {
        full.push(b'/');
        full.extend_from_slice(file);
    }
    full
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn push_record(body: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + digits(rest);
    length = rest + digits(length);
    body.extend_from_slice(length.to_string().as_bytes());
    body.push(b' ');
    body.extend_from_slice(key);
    body.push(b'=');
    body.extend_from_slice(value);
    body.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.to_string().len()
}

/// Sets the magic, the version and the checksum.
fn finish(mut block: [u8; BLOCK]) -> [u8; BLOCK] {
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum = block.iter().map(|byte| u64::from(*byte)).sum();
    put_octal(&mut block[148..155], sum);
    block
}

/// Seconds with as many decimals as are needed; before 1970 both parts count down.
fn time(seconds: i64, nanoseconds: u32) -> String {
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    let (sign, whole, fraction) = if seconds < 0 {
        (
            "-",
            (seconds + 1).unsigned_abs(),
            1_000_000_000 - nanoseconds,
        )
    } else {
        ("", seconds.unsigned_abs(), nanoseconds)
    };
    let text = format!("{sign}{whole}.{fraction:09}");
    text.trim_end_matches('0').to_owned()
}

/// A number of octal digits leaves the last byte of the field for a NUL.
fn fits_octal(number: u64, field: u32) -> bool {
    number < 1 << ((field - 1) * 3)
}

/// Digits with leading zeros; 0 for a number that a PAX record holds.
fn put_octal(field: &mut [u8], number: u64) {
    let width = field.len() - 1;
    let fits = u32::try_from(field.len()).is_ok_and(|field| fits_octal(number, field));
    let digits = format!("{:0width$o}", if fits { number } else { 0 });
    field[..width].copy_from_slice(digits.as_bytes());
    field[width] = 0;
}

/// As much of `text` as fits.
///
/// A name that is cut must not end in a slash: old readers take such a file for a directory.
fn put_string(field: &mut [u8], text: &[u8]) {
    let count = text.len().min(field.len());
    field[..count].copy_from_slice(&text[..count]);
    if text.len() > field.len() && field[count - 1] == b'/' {
        let cut = &text[..count - 1];
        let kept = cut.iter().rev().skip_while(|byte| **byte == b'/').count();
        field[kept] = 0;
    }
}

fn ascii(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(u8::is_ascii).collect()
}

/// The prefix and the name of a USTAR header, for a name that needs both.
fn split_path(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if name.len() <= NAME_SIZE || !name.is_ascii() {
        return None;
    }
    let searched = if name.len() > PREFIX_SIZE + 1 {
        PREFIX_SIZE + 1
    } else {
        name.len() - usize::from(name.ends_with(b"/"))
    };
    let at = memchr::memrchr(b'/', &name[..searched])?;
    let rest = &name[at + 1..];
    let fits = at > 0 && at <= PREFIX_SIZE && !rest.is_empty() && rest.len() <= NAME_SIZE;
    fits.then(|| (&name[..at], rest))
}

#[cfg(test)]
mod tests;
