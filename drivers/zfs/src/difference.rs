// SPDX-License-Identifier: Apache-2.0
//! The output of `zfs diff -FH`.
//!
//! One line each: what happened, the kind of file, the path and, after a rename, the new path or,
//! when names of a file came or went, their number in brackets; with tabs in between. Bytes that are
//! not printable, spaces and backslashes are written as a backslash and four octal digits
//! (`stream_bytes` of libzfs's `libzfs_diff.c`); with `-h` they are not, and a name with a line end
//! in it could not be told from two names.

/// What `zfs diff` puts in the place of the directory of a file's extended attributes.
const ATTRIBUTES: &[u8] = b"/<xattrdir>";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Difference {
    /// It is not in the older one.
    Added(Vec<u8>),
    /// It is only in the older one.
    Removed(Vec<u8>),
    /// It is in both.
    Modified {
        /// Where.
        path: Vec<u8>,
        /// It is a directory, so names in it may have come or gone.
        is_directory: bool,
    },
    /// It is in both, at different places.
    Renamed {
        /// Where it was.
        old: Vec<u8>,
        /// Where it is.
        new: Vec<u8>,
    },
}

/// Reads the output for a dataset that is mounted at `root`; paths are relative to it.
///
/// # Errors
/// The line that has another form.
pub(crate) fn parse(output: &[u8], root: &[u8]) -> Result<Vec<Difference>, String> {
    let lines = output
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| {
            parse_line(line, root).ok_or_else(|| {
                let line = String::from_utf8_lossy(line);
                format!("a line of `zfs diff` is unreadable: `{line}`")
            })
        })
        .collect()
}

fn parse_line(line: &[u8], root: &[u8]) -> Option<Difference> {
    let mut words = line.split(|byte| *byte == b'\t');
    let (what, kind) = (words.next()?, words.next()?);
    let path = below(words.next()?, root)?;
    let attribute = attribute_of(&path);
    if let Some(owner) = attribute {
        return Some(Difference::Modified {
            path: owner,
            is_directory: false,
        });
    }
    match what {
        b"+" => Some(Difference::Added(path)),
        b"-" => Some(Difference::Removed(path)),
        b"M" => Some(Difference::Modified {
            path,
            is_directory: kind == b"/",
        }),
        b"R" => Some(Difference::Renamed {
            old: path,
            new: below(words.next()?, root)?,
        }),
        _ => None,
    }
}

/// The file whose extended attribute is meant.
fn attribute_of(path: &[u8]) -> Option<Vec<u8>> {
    // At the root itself nothing stands before the slash.
    if path
        .strip_prefix(&ATTRIBUTES[1..])
        .is_some_and(|rest| rest.first().is_none_or(|b| *b == b'/'))
    {
        return Some(Vec::new());
    }
    let at = path
        .windows(ATTRIBUTES.len())
        .position(|window| window == ATTRIBUTES)?;
    let rest = &path[at + ATTRIBUTES.len()..];
    rest.first()
        .is_none_or(|byte| *byte == b'/')
        .then(|| path[..at].to_vec())
}

/// The path below the root, which is empty for the root itself.
fn below(word: &[u8], root: &[u8]) -> Option<Vec<u8>> {
    let path = unescaped(word)?;
    let rest = path.strip_prefix(root)?;
    match rest.split_first() {
        None => Some(Vec::new()),
        Some((b'/', rest)) => Some(rest.to_vec()),
        Some(_) => None,
    }
}

fn unescaped(word: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'\\' {
            plain.push(byte);
            rest = after;
            continue;
        }
        let digits = std::str::from_utf8(after.get(..4)?).ok()?;
        plain.push(u8::from_str_radix(digits, 8).ok()?);
        rest = &after[4..];
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What OpenZFS 2.1.11 printed for a clone at `/tmp/ch`.
    const RECORDED: &[u8] = b"M\t/\t/tmp/ch/d\n\
        R\t/\t/tmp/ch/ren\t/tmp/ch/ren2\n\
        +\tF\t/tmp/ch/ren2/in/new\n\
        +\t/\t/tmp/ch/d/<xattrdir>\n\
        +\tF\t/tmp/ch/d/<xattrdir>/user.k\n\
        M\t/\t/tmp/ch/\n\
        M\tF\t/tmp/ch/sp\\0040ace\\0012nl\n\
        -\tF\t/tmp/ch/gone\n\
        M\tF\t/tmp/ch/u\\0303\\0244\\0377\\0134b\n\
        M\tF\t/tmp/ch/h2\t(+1)\n\
        +\t|\t/tmp/ch/p\n";

    fn modified(path: &[u8], is_directory: bool) -> Difference {
        Difference::Modified {
            path: path.to_vec(),
            is_directory,
        }
    }

    #[test]
    fn recorded_output_is_read() {
        let found = parse(RECORDED, b"/tmp/ch").unwrap();
        let expected = [
            modified(b"d", true),
            Difference::Renamed {
                old: b"ren".to_vec(),
                new: b"ren2".to_vec(),
            },
            Difference::Added(b"ren2/in/new".to_vec()),
            modified(b"d", false),
            modified(b"d", false),
            modified(b"", true),
            modified(b"sp ace\nnl", false),
            Difference::Removed(b"gone".to_vec()),
            modified(b"u\xc3\xa4\xff\\b", false),
            modified(b"h2", false),
            Difference::Added(b"p".to_vec()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn attributes_belong_to_their_file() {
        for (path, owner) in [
            (&b"<xattrdir>"[..], Some(&b""[..])),
            (b"<xattrdir>/user.k", Some(b"")),
            (b"a/b/<xattrdir>/user.k", Some(b"a/b")),
            (b"a/<xattrdir>x", None),
            (b"a", None),
        ] {
            assert_eq!(attribute_of(path).as_deref(), owner);
        }
    }

    #[test]
    fn other_forms_are_refused() {
        for bad in [
            "x",
            "M\tF",
            "M\tF\t/other/a",
            "M\tF\t/tmp/chx",
            "?\tF\t/tmp/ch/a",
            "R\tF\t/tmp/ch/a",
            "M\tF\t/tmp/ch/\\09",
            "M\tF\t/tmp/ch/\\0999",
        ] {
            assert!(parse(bad.as_bytes(), b"/tmp/ch").is_err(), "{bad}");
        }
    }
}
