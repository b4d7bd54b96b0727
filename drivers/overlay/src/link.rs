// SPDX-License-Identifier: Apache-2.0
//! The short names of layers below `l/`, and the chains made of them.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
};

use plywood_plugin_sdk::{DriverError, DriverErrorCode, Result};

/// The directory of the links.
pub(crate) const LINK_DIR: &str = "l";

/// The name of a layer below `l/`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LinkId(String);

impl LinkId {
    const LENGTH: usize = 26;

    /// A new random name.
    pub(crate) fn generate() -> Result<Self> {
        const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
        let mut random = [0; Self::LENGTH];
        getrandom::fill(&mut random).map_err(|error| {
            let message = format!("cannot get random bytes: {error}");
            DriverError::new(DriverErrorCode::OTHER, message)
        })?;
        let letters = random.map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
        Ok(Self(letters.into_iter().collect()))
    }

    /// Reads a name as it stands in a `link` file or below `l/`; a line end is allowed.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = text.trim_ascii_end();
        let base32 = |byte: &u8| matches!(byte, b'A'..=b'Z' | b'2'..=b'7');
        let usable = text.len() == Self::LENGTH && text.iter().all(base32);
        usable.then(|| Self(String::from_utf8_lossy(text).into_owned()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One layer in a `lower` file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Lower {
    /// `l/LINK`.
    Link(LinkId),
    /// A directory, as old versions wrote; relative to the home or absolute.
    Directory(PathBuf),
}

impl Lower {
    fn parse(entry: &str) -> Option<Self> {
        let path = Path::new(entry);
        if let Some(name) = entry.strip_prefix("l/") {
            return LinkId::parse(name.as_bytes()).map(Self::Link);
        }
        let plain = |part| matches!(part, Component::RootDir | Component::Normal(_));
        (path.file_name().is_some() && path.components().all(plain))
            .then(|| Self::Directory(path.to_owned()))
    }
}

impl fmt::Display for Lower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(link) => write!(f, "{LINK_DIR}/{link}"),
            Self::Directory(path) => path.display().fmt(f),
        }
    }
}

/// What lies below a layer, nearest first: the content of its `lower` file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Chain(pub(crate) Vec<Lower>);

impl Chain {
    /// Reads the content of a `lower` file.
    ///
    /// # Errors
    /// The entry that names no layer; an empty file has one, since a layer without a parent has
    /// no such file.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        text.trim_ascii_end()
            .split(':')
            .map(|entry| match entry {
                "" => Err(String::new()),
                _ => Lower::parse(entry).ok_or_else(|| entry.to_owned()),
            })
            .collect::<Result<Vec<_>, _>>()
            .map(Self)
    }

    /// The chain of a layer whose parent has the name `parent` and this chain.
    pub(crate) fn below(self, parent: LinkId) -> Self {
        let mut chain = vec![Lower::Link(parent)];
        chain.extend(self.0);
        Self(chain)
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, lower) in self.0.iter().enumerate() {
            let colon = if n == 0 { "" } else { ":" };
            write!(f, "{colon}{lower}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAA";
    const B: &str = "BBBBBBBBBBBBBBBBBBBBBBBBB7";

    fn link(name: &str) -> LinkId {
        LinkId::parse(name.as_bytes()).unwrap()
    }

    #[test]
    fn generated_names_are_26_base32_letters_and_differ() {
        let (one, two) = (LinkId::generate().unwrap(), LinkId::generate().unwrap());
        assert_ne!(one, two);
        assert_eq!(one.as_str().len(), 26);
        let base32 = |b: u8| b.is_ascii_uppercase() || (b'2'..=b'7').contains(&b);
        assert!(one.as_str().bytes().all(base32), "{one}");
        assert_eq!(LinkId::parse(one.as_str().as_bytes()), Some(one));
    }

    #[test]
    fn names_of_another_form_are_refused() {
        let (short, long) = (&A[1..], format!("{A}A"));
        for bad in [
            "",
            "\n",
            "..",
            "a/b",
            short,
            &long,
            &A.to_lowercase(),
            &A.replace('A', "1"),
        ] {
            assert_eq!(LinkId::parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(LinkId::parse(format!("{A}\n").as_bytes()), Some(link(A)));
    }

    #[test]
    fn chains_are_read_and_written_alike() {
        let text = format!("l/{A}:l/{B}:/old/dir:id/diff");
        let chain = Chain::parse(&text).unwrap();
        assert_eq!(chain.to_string(), text);
        assert_eq!(chain.0.len(), 4);
        assert_eq!(chain.0[0], Lower::Link(link(A)));
        assert_eq!(chain.0[3], Lower::Directory("id/diff".into()));
        let longer = chain.below(link(B));
        assert_eq!(longer.to_string(), format!("l/{B}:{text}"));
    }

    #[test]
    fn damaged_chains_are_errors_that_name_the_entry() {
        for (text, entry) in [
            (String::new(), ""),
            (format!("l/{A}:"), ""),
            (format!("l/{A}:l/../x"), "l/../x"),
            ("../../etc".to_owned(), "../../etc"),
            (format!("l/{A}:a/../b"), "a/../b"),
            ("/".to_owned(), "/"),
            (format!("l/{}", &A[..8]), "l/AAAAAAAA"),
        ] {
            assert_eq!(Chain::parse(&text), Err(entry.to_owned()), "{text:?}");
        }
    }
}
