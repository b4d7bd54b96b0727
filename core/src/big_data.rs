// SPDX-License-Identifier: Apache-2.0
//! Named blobs beside a record: `DIRECTORY/<file name of the key>`.
//!
//! The key is the file name when it is plain, else `=` and its base64 form. Images and containers
//! record size and digest of each item, layers only the keys.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use data_encoding::BASE64;

use crate::{
    Digest, Error, ErrorKind, IoContext, Result,
    durable::{self, Durability},
};

/// Longest file name for which the name of the temporary file still fits into `NAME_MAX`.
const LONGEST_FILE_NAME: usize = 255 - ".tmp-".len() - 20;

/// The file name of a key.
///
/// # Compatibility
/// The last character is not examined (an off-by-one in containers/storage that is part of the
/// format): `aX` stays as it is, `Xa` is encoded.
pub(crate) fn file_name(key: &str) -> String {
    let plain = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.');
    let mut characters = key.chars();
    characters.next_back();
    if characters.all(plain) {
        key.to_owned()
    } else {
        format!("={}", BASE64.encode(key.as_bytes()))
    }
}

/// The path of an item.
///
/// # Errors
/// `InvalidBigDataName` for keys that no file name can stand for: the empty key, `.`, `..`, and
/// those whose file name would be too long or contain a slash.
pub(crate) fn path(directory: &Path, key: &str) -> Result<PathBuf> {
    let name = file_name(key);
    let reason = if key.is_empty() {
        "it is empty"
    } else if name == "." || name == ".." {
        "it names a directory"
    } else if name.contains('/') {
        "its file name would contain a slash"
    } else if name.contains('\0') {
        "it contains a NUL"
    } else if name.len() > LONGEST_FILE_NAME {
        "its file name would be too long"
    } else {
        return Ok(directory.join(name));
    };
    Err(Error::new(
        ErrorKind::InvalidBigDataName,
        format!("`{key}`: not a valid name for a big data item: {reason}"),
    )
    .subject(key))
}

/// Reads an item; `None` when its file is not there.
pub(crate) fn read(directory: &Path, key: &str) -> Result<Option<Vec<u8>>> {
    let path = path(directory, key)?;
    match fs::read(&path) {
        Ok(data) => Ok(Some(data)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("cannot read", &path, error)),
    }
}

/// Writes an item, making the directory (mode 0700) when it is not there.
///
/// # Durability
/// The file is replaced atomically.
pub(crate) fn write(
    directory: &Path,
    key: &str,
    data: &[u8],
    durability: Durability,
) -> Result<()> {
    let path = path(directory, key)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .at("cannot create directory", directory)?;
    durable::write_file(&path, data, durability)
}

/// Notes an item in the three lists; says whether anything changed.
pub(crate) fn note(
    names: &mut Vec<String>,
    sizes: &mut BTreeMap<String, i64>,
    digests: &mut BTreeMap<String, Digest>,
    (key, size, digest): (&str, i64, &Digest),
) -> bool {
    let mut changed = sizes.insert(key.to_owned(), size) != Some(size);
    changed |= digests.insert(key.to_owned(), digest.clone()).as_ref() != Some(digest);
    if !names.iter().any(|name| name == key) {
        names.push(key.to_owned());
        changed = true;
    }
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_follow_the_format_with_its_off_by_one() {
        for (key, name) in [
            ("manifest", "manifest"),
            ("empty.data", "empty.data"),
            ("aX", "aX"),
            ("X", "X"),
            ("a-", "a-"),
            ("~", "~"),
            ("\u{e9}", "\u{e9}"),
            ("some-key", "=c29tZS1rZXk="),
            ("artifacts/x", "=YXJ0aWZhY3RzL3g="),
            ("manifest-sha256:abcd", "=bWFuaWZlc3Qtc2hhMjU2OmFiY2Q="),
            ("Xa", "=WGE="),
            ("a\u{e9}a", "=YcOpYQ=="),
        ] {
            assert_eq!(file_name(key), name, "{key}");
        }
    }

    #[test]
    fn keys_without_a_usable_file_name_are_refused() {
        let directory = Path::new("/nowhere");
        let long = format!("A{}", "b".repeat(200));
        for key in ["", "/", ".", "..", "a/", "???x", "\0", &long] {
            let error = path(directory, key).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidBigDataName, "{key:?}");
        }
        assert!(path(directory, "a/b").is_ok());
    }
}
