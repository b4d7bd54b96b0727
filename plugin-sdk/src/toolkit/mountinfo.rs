// SPDX-License-Identifier: Apache-2.0
//! The mounts of this process, as `/proc/self/mountinfo` lists them.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use crate::{DriverError, DriverErrorCode, IoContext, Result};

const TABLE: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MountEntry {
    /// Its number.
    pub id: u64,
    /// The number of the mount that it is attached to.
    pub parent: u64,
    /// `MAJOR:MINOR` of the file system.
    pub device: String,
    /// The directory of the file system that is shown.
    pub root: PathBuf,
    /// Where it is shown.
    pub target: PathBuf,
    /// Options of this mount, comma separated.
    pub options: String,
    /// Whether mounts below it propagate to other places (`shared:`).
    pub shared: bool,
    /// The kernel's name of the type.
    pub fstype: String,
    /// What is mounted, as the file system calls it.
    pub source: OsString,
    /// Options of the file system, comma separated.
    pub super_options: String,
}

/// Every mount that this process sees, in the kernel's order: what covers a place comes later.
///
/// # Errors
/// When the table cannot be read or a line has another form.
pub fn mounts() -> Result<Vec<MountEntry>> {
    parse(&fs::read(TABLE).at("cannot read", TABLE)?)
}

/// Reads the text of a mount table.
///
/// # Errors
/// The line that has another form.
pub fn parse(table: &[u8]) -> Result<Vec<MountEntry>> {
    table
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| {
            parse_line(line).ok_or_else(|| {
                let line = String::from_utf8_lossy(line);
                let message = format!("a line of the mount table is unreadable: `{line}`");
                DriverError::new(DriverErrorCode::IO, message).object(TABLE)
            })
        })
        .collect()
}

/// The mount that is seen at `target`: the last one there.
pub fn at<'a>(mounts: &'a [MountEntry], target: &Path) -> Option<&'a MountEntry> {
    mounts.iter().rev().find(|mount| mount.target == target)
}

fn parse_line(line: &[u8]) -> Option<MountEntry> {
    let mut words = line.split(|byte| *byte == b' ');
    let number = |word: &[u8]| std::str::from_utf8(word).ok()?.parse().ok();
    let text = |word: &[u8]| String::from_utf8(unescaped(word)).ok();
    let id = number(words.next()?)?;
    let parent = number(words.next()?)?;
    let device = text(words.next()?)?;
    let root = OsString::from_vec(unescaped(words.next()?)).into();
    let target = OsString::from_vec(unescaped(words.next()?)).into();
    let options = text(words.next()?)?;
    let mut shared = false;
    loop {
        match words.next()? {
            b"-" => break,
            word => shared |= word.starts_with(b"shared:"),
        }
    }
    Some(MountEntry {
        id,
        parent,
        device,
        root,
        target,
        options,
        shared,
        fstype: text(words.next()?)?,
        source: OsString::from_vec(unescaped(words.next()?)),
        // Paths in them need not be text.
        super_options: String::from_utf8_lossy(&unescaped(words.next()?)).into_owned(),
    })
}

/// Undoes the kernel's `\040` for space, tab, line end and backslash.
fn unescaped(word: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, after)) = rest.split_first() {
        let code = (byte == b'\\').then(|| octal(after)).flatten();
        plain.push(code.unwrap_or(byte));
        rest = if code.is_some() { &after[3..] } else { after };
    }
    plain
}

fn octal(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &[u8] = br"22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
36 22 0:31 /a\040b /m\134n\040o ro,nosuid shared:7 master:3 - tmpfs none rw,size=1k
37 22 0:32 / /m\134n\040o rw - overlay overlay rw,lowerdir=/x:/y
";

    #[test]
    fn lines_are_read_and_escapes_undone() {
        let mounts = parse(SAMPLE).unwrap();
        assert_eq!(mounts.len(), 3);
        let tmpfs = &mounts[1];
        assert_eq!((tmpfs.id, tmpfs.parent), (36, 22));
        assert_eq!(tmpfs.device, "0:31");
        assert_eq!(tmpfs.root, Path::new("/a b"));
        assert_eq!(tmpfs.target, Path::new("/m\\n o"));
        assert!(tmpfs.shared && !mounts[0].shared);
        assert_eq!(tmpfs.options, "ro,nosuid");
        assert_eq!(tmpfs.fstype, "tmpfs");
        assert_eq!(tmpfs.super_options, "rw,size=1k");
    }

    #[test]
    fn the_last_mount_at_a_place_is_the_one_that_is_seen() {
        let mounts = parse(SAMPLE).unwrap();
        let seen = at(&mounts, Path::new("/m\\n o")).unwrap();
        assert_eq!(seen.fstype, "overlay");
        assert_eq!(at(&mounts, Path::new("/m")), None);
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "x",
            "1 2 0:1 / / rw",
            "1 2 0:1 / / rw - ext4 src",
            "a 2 0:1 / / rw - t s o",
        ] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_own_table_is_readable() {
        assert!(
            mounts()
                .unwrap()
                .iter()
                .any(|mount| mount.target == Path::new("/"))
        );
    }
}
