// SPDX-License-Identifier: Apache-2.0
//! Where an image file is and of what kind: `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`,
//! `docker-archive:FILE[:NAME]`, or a plain path.

use std::path::{Path, PathBuf};

/// A place as the user named it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A directory with an OCI layout.
    OciDir(PathBuf, Option<String>),
    /// A tar file of one.
    OciArchive(PathBuf, Option<String>),
    /// A tar file in docker's form.
    DockerArchive(PathBuf, Option<String>),
    /// A path alone.
    Plain(PathBuf),
}

type Make = fn(PathBuf, Option<String>) -> Place;

const FORMS: [(&str, Make); 3] = [
    ("oci:", Place::OciDir),
    ("oci-archive:", Place::OciArchive),
    ("docker-archive:", Place::DockerArchive),
];

impl Place {
    /// Reads the user's text.
    pub(crate) fn parse(text: &str) -> Self {
        for (prefix, make) in FORMS {
            if let Some(rest) = text.strip_prefix(prefix) {
                let (path, name) = match rest.split_once(':') {
                    Some((path, name)) if !name.is_empty() => (path, Some(name.to_owned())),
                    Some((path, _)) => (path, None),
                    None => (rest, None),
                };
                return make(PathBuf::from(path), name);
            }
        }
        Self::Plain(PathBuf::from(text))
    }

    /// The file or directory.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::OciDir(path, _)
            | Self::OciArchive(path, _)
            | Self::DockerArchive(path, _)
            | Self::Plain(path) => path,
        }
    }

    /// The chosen tag or name inside.
    pub(crate) fn inner_name(&self) -> Option<&str> {
        match self {
            Self::OciDir(_, name) | Self::OciArchive(_, name) | Self::DockerArchive(_, name) => {
                name.as_deref()
            }
            Self::Plain(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let name = |text: &str| Some(text.to_owned());
        for (text, place) in [
            ("oci:a/b:v1", Place::OciDir("a/b".into(), name("v1"))),
            ("oci:a/b", Place::OciDir("a/b".into(), None)),
            (
                "oci-archive:x.tar:",
                Place::OciArchive("x.tar".into(), None),
            ),
            (
                "docker-archive:x.tar:q.io/a:1",
                Place::DockerArchive("x.tar".into(), name("q.io/a:1")),
            ),
            ("x:y", Place::Plain("x:y".into())),
        ] {
            assert_eq!(Place::parse(text), place, "{text}");
        }
    }
}
