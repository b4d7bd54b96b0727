// SPDX-License-Identifier: Apache-2.0
//! The environment: the only place of the library that reads it.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

/// What configuration depends on outside its files; made up in tests.
#[derive(Clone, Debug)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    /// The effective user id of the process.
    pub uid: u32,
    /// The process was given privileges by its file; variables that name code are ignored.
    pub privileged_by_file: bool,
    /// `/etc`.
    pub etc: PathBuf,
    /// `/usr/share`.
    pub usr_share: PathBuf,
    /// `/run/user`.
    pub run_user: PathBuf,
}

impl Environment {
    /// The real one, as of now.
    pub fn of_process() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
            uid: rustix::process::geteuid().as_raw(),
            privileged_by_file: std::fs::read("/proc/self/auxv").map_or(true, |v| secure(&v)),
            etc: "/etc".into(),
            usr_share: "/usr/share".into(),
            run_user: "/run/user".into(),
        }
    }

    /// One with these variables only, and with every directory below `root`.
    pub fn below(root: &std::path::Path, uid: u32, variables: &[(&str, &str)]) -> Self {
        let owned = |(name, value): &(&str, &str)| (OsString::from(*name), OsString::from(*value));
        Self {
            variables: variables.iter().map(owned).collect(),
            uid,
            privileged_by_file: false,
            etc: root.join("etc"),
            usr_share: root.join("usr/share"),
            run_user: root.join("run/user"),
        }
    }

    /// A variable, also an empty one.
    pub fn get(&self, name: &str) -> Option<OsString> {
        self.variables.get(std::ffi::OsStr::new(name)).cloned()
    }

    /// A variable as text, unless it is empty.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name)
            .map(|value| value.to_string_lossy().into_owned())
            .filter(|value| !value.is_empty())
    }

    /// A variable as a path, unless it is empty.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    }

    /// The user for whom the process works: the one who made the user namespace that containers
    /// tools re-execute themselves in, or the effective one.
    pub fn rootless_uid(&self) -> u32 {
        self.text("_CONTAINERS_ROOTLESS_UID")
            .and_then(|text| text.parse().ok())
            .unwrap_or(self.uid)
    }

    /// Replaces `$NAME` and `${NAME}`; a variable that is not set is empty. `$UID` is the user for
    /// whom the process works.
    ///
    /// # Compatibility
    /// As `os.ExpandEnv` of Go: `$*`, `$$` and the like are one-character names, a `$` before
    /// anything else stays, and `${` without an end is dropped.
    pub fn expand(&self, text: &str) -> String {
        // A name such as `$UIDX` is affected too; Go does the same.
        let text = text.replace("$UID", &self.rootless_uid().to_string());
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find('$') {
            out.push_str(&rest[..at]);
            let after = &rest[at + 1..];
            let (name, length) = variable_name(after);
            match name {
                Some(name) => out.push_str(&self.text(name).unwrap_or_default()),
                None if length == 0 => out.push('$'),
                None => {}
            }
            rest = &after[length..];
        }
        out.push_str(rest);
        out
    }
}

/// Whether the kernel says so in the auxiliary vector (`AT_SECURE`). What cannot be understood
/// counts as privileged.
fn secure(vector: &[u8]) -> bool {
    const AT_SECURE: usize = 23;
    const WORD: usize = size_of::<usize>();
    let word = |bytes: &[u8]| bytes.try_into().map(usize::from_ne_bytes).ok();
    vector
        .chunks_exact(2 * WORD)
        .find(|pair| word(&pair[..WORD]) == Some(AT_SECURE))
        .is_none_or(|pair| word(&pair[WORD..]) != Some(0))
}

/// The name at the start of `text` and how many bytes it takes up with its braces; no name and a
/// length for bad syntax that disappears.
fn variable_name(text: &str) -> (Option<&str>, usize) {
    let special = |b: u8| b"*#$@!?-".contains(&b) || b.is_ascii_digit();
    let word = |b: u8| b == b'_' || b.is_ascii_alphanumeric();
    let bytes = text.as_bytes();
    match bytes.first() {
        Some(b'{') => match text.find('}') {
            Some(1) => (None, 2),
            Some(end) => (Some(&text[1..end]), end + 1),
            None => (None, 1),
        },
        Some(&b) if special(b) => (Some(&text[..1]), 1),
        _ => {
            let length = bytes.iter().take_while(|b| word(**b)).count();
            ((length > 0).then(|| &text[..length]), length)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_expanded_as_go_does() {
        let env = Environment::below("/".as_ref(), 7, &[("HOME", "/h"), ("A_1", "x")]);
        for (text, expanded) in [
            ("$HOME/s", "/h/s"),
            ("${HOME}s", "/hs"),
            ("/run/$UID/c", "/run/7/c"),
            ("$A_1-$NONE.", "x-."),
            ("a$", "a$"),
            ("a$/b", "a$/b"),
            ("${", ""),
            ("${}x", "x"),
            ("$$x", "x"),
            ("", ""),
        ] {
            assert_eq!(env.expand(text), expanded, "{text}");
        }
    }

    #[test]
    fn privileges_by_the_file_are_found_in_the_auxiliary_vector() {
        let vector = |pairs: &[[usize; 2]]| -> Vec<u8> {
            pairs
                .iter()
                .flatten()
                .flat_map(|w| w.to_ne_bytes())
                .collect()
        };
        assert!(!secure(&vector(&[[6, 4096], [23, 0], [0, 0]])));
        assert!(secure(&vector(&[[23, 1], [0, 0]])));
        assert!(secure(&vector(&[[6, 4096]])) && secure(&[]));
        assert!(!Environment::of_process().privileged_by_file);
    }

    #[test]
    fn the_user_is_the_one_who_made_the_namespace() {
        let env = Environment::below("/".as_ref(), 0, &[("_CONTAINERS_ROOTLESS_UID", "1000")]);
        assert_eq!(env.rootless_uid(), 1000);
    }
}
