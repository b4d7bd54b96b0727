// SPDX-License-Identifier: Apache-2.0
//! Cleans entry names and remembers which were seen.

use std::{
    collections::HashSet,
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
};

/// The shortest name for the same path, as Go's `path.Clean` gives it.
///
/// `..` at the front of a relative name stays, and an empty name becomes `.`.
pub(crate) fn clean(name: &[u8]) -> Vec<u8> {
    let rooted = name.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(last) if *last != b".." => {
                    parts.pop();
                }
                _ if rooted => {}
                _ => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/", joined.as_slice()].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

/// The path of an entry or link below the root: empty for the root itself, `None` when it leads
/// out.
pub(crate) fn inside(name: &[u8]) -> Option<Vec<u8>> {
    let mut cleaned = clean(name);
    if cleaned == b".." || cleaned.starts_with(b"../") {
        return None;
    }
    if cleaned.first() == Some(&b'/') {
        cleaned.remove(0);
    } else if cleaned == b"." {
        cleaned.clear();
    }
    Some(cleaned)
}

/// Directory and last component of a path below the root.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memrchr(b'/', path) {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&[], path),
    }
}

/// The last component of a name as written, as Go's `path.Base` gives it.
pub(crate) fn base(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|byte| *byte != b'/');
    split(&name[..end.map_or(0, |end| end + 1)]).1
}

/// A set of names that keeps 16 bytes of each.
///
/// Two names with the same 128 random-keyed bits would be taken for one; for ten million names the
/// odds are below 10^-24.
#[derive(Debug, Default)]
pub(crate) struct NameSet {
    keys: [RandomState; 2],
    seen: HashSet<u128, BuildHasherDefault<Truncated>>,
}

impl NameSet {
    /// Adds `name`; answers whether it is new.
    pub(crate) fn insert(&mut self, name: &[u8]) -> bool {
        let key = self.key(name);
        self.seen.insert(key)
    }

    /// Whether `name` was added.
    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.seen.contains(&self.key(name))
    }

    fn key(&self, name: &[u8]) -> u128 {
        let [high, low] = self.keys.each_ref().map(|key| {
            let mut hasher = key.build_hasher();
            hasher.write(name);
            u128::from(hasher.finish())
        });
        high << 64 | low
    }
}

/// The keys are hashes already.
#[derive(Clone, Copy, Debug, Default)]
struct Truncated(u64);

impl Hasher for Truncated {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u128(&mut self, key: u128) {
        self.0 = u64::try_from(key >> 64).expect("half of the bits");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cleaned_as_in_go() {
        let table: [(&str, &str); 14] = [
            ("", "."),
            ("./", "."),
            ("a/", "a"),
            ("./a//b/./c", "a/b/c"),
            ("/", "/"),
            ("/a/../..", "/"),
            ("b/../c", "c"),
            ("a/..", "."),
            ("..", ".."),
            ("../../a", "../../a"),
            ("a/../../b", "../b"),
            ("/../b", "/b"),
            ("...", "..."),
            ("../a/..", ".."),
        ];
        for (name, expected) in table {
            assert_eq!(clean(name.as_bytes()), expected.as_bytes(), "{name}");
        }
    }

    #[test]
    fn paths_stay_inside() {
        let table: [(&str, Option<&str>); 8] = [
            ("./", Some("")),
            ("/", Some("")),
            ("/abs", Some("abs")),
            ("a/../b/", Some("b")),
            ("/../x", Some("x")),
            ("..", None),
            ("a/../../b", None),
            ("..a", Some("..a")),
        ];
        for (name, expected) in table {
            let path = inside(name.as_bytes());
            assert_eq!(path.as_deref(), expected.map(str::as_bytes), "{name}");
        }
    }

    #[test]
    fn a_set_of_names() {
        let mut set = NameSet::default();
        assert!(set.insert(b"a"));
        assert!(set.insert(b"b"));
        assert!(!set.insert(b"a"));
        assert!(set.contains(b"b") && !set.contains(b""));
        assert_eq!(base(b"a/.wh.b//"), b".wh.b");
        assert_eq!(base(b""), b"");
    }
}
