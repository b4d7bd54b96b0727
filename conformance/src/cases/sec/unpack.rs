// SPDX-License-Identifier: Apache-2.0
//! Streams that try to leave the layer, and streams that are none.

use std::{ffi::OsStr, fs, path::PathBuf};

use plywood::{Error, ErrorKind};
use tar::EntryType;

use super::{Victim, attempt};
use crate::{
    Case, Target,
    case::{Failure, Outcome, case, demand},
    tar_file::{Dialect, Entry, TarFile},
};

pub(in crate::cases) const CASES: &[Case] = &[
    case("GD-SEC-001", dotdot),
    case("GD-SEC-002", absolute),
    case("GD-SEC-003", through_symlinks),
    case("GD-SEC-004", hard_links),
    case("GD-SEC-005", combinations),
    case("GD-SEC-006", whiteouts),
    case("GD-SEC-015", bad_headers),
    case("GD-SEC-016", smuggled),
];

/// A stream is refused as one, not by an accident further on.
fn refused_as_archive(what: &str, error: &Error) -> Outcome {
    demand!(
        error.kind() == ErrorKind::InvalidArchive,
        "{what} may be unpacked inside the layer or be refused as an invalid archive, and failed \
         as {:?}: {error}",
        error.kind()
    );
    Ok(())
}

/// Every place of that name in the case's root.
fn places(target: &Target, name: &str) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut waiting = vec![target.root.clone()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.file_name() == Some(OsStr::new(name)) {
                found.push(path.clone());
            }
            if fs::symlink_metadata(&path)?.is_dir() {
                waiting.push(path);
            }
        }
    }
    Ok(found)
}

fn names_stay_inside(target: &Target, names: &[String]) -> Outcome {
    let victim = Victim::new(target)?;
    for name in names {
        let what = format!("an entry called `{name}`");
        let tar = TarFile::new()
            .directory("a/")
            .add(Entry::file(name, "x"))
            .done();
        let done = attempt(target, &victim, &what, &tar)?;
        for seen in [&done.layer, &done.child] {
            match seen {
                Err(error) => refused_as_archive(&what, error)?,
                Ok(manifest) => demand!(
                    manifest.0.keys().any(|path| path.ends_with("escaped")),
                    "{what} was accepted, and is not in the layer: {manifest}"
                ),
            }
        }
        // The layers were removed again.
        let outside = places(target, "escaped")?;
        demand!(outside.is_empty(), "{what} was written to {outside:?}");
    }
    Ok(())
}

fn dotdot(target: &mut Target) -> Outcome {
    let deep = "../".repeat(40);
    let root = target.root.display().to_string();
    names_stay_inside(
        target,
        &[
            "../escaped".to_owned(),
            "/../escaped".to_owned(),
            "a/../../escaped".to_owned(),
            "./../../escaped".to_owned(),
            "a/../../../../escaped".to_owned(),
            format!("{deep}{}/escaped", root.trim_start_matches('/')),
            format!("a/{deep}tmp/escaped"),
            "../../canary/escaped".to_owned(),
        ],
    )
}

fn absolute(target: &mut Target) -> Outcome {
    let root = target.root.display().to_string();
    names_stay_inside(
        target,
        &[
            "/escaped".to_owned(),
            "//escaped".to_owned(),
            "/abs/escaped".to_owned(),
            format!("{root}/escaped"),
            format!("{root}/canary/escaped"),
            format!("/./{root}/victim/escaped"),
        ],
    )
}

fn through_symlinks(target: &mut Target) -> Outcome {
    let victim = Victim::new(target)?;
    for to in [victim.absolute(), victim.relative()] {
        let link = || TarFile::new().add(Entry::symlink("l", &to));
        let tries = [
            ("a file below a link", link().file("l/new", b"x")),
            (
                "a file over one below a link",
                link().file("l/secret", b"x"),
            ),
            ("a directory below a link", link().directory("l/newdir/")),
            (
                "a directory over a link",
                link().entry("l/", EntryType::Directory, 0o777, b""),
            ),
            ("a file over a link", link().file("l", b"x")),
            (
                "a mode through a link",
                link().entry("l/dir/", EntryType::Directory, 0o777, b""),
            ),
            (
                "an attribute through a link",
                link().add(Entry::directory("l/dir/").xattr("user.x", "y")),
            ),
            (
                "an owner through a link to a file",
                TarFile::new()
                    .add(Entry::symlink("f", format!("{to}/secret")))
                    .add(Entry::file("f", "x").owner(7, 7)),
            ),
            (
                "a link below a link",
                link().add(Entry::symlink("l/new", "/etc/passwd")),
            ),
            (
                "a link over a link, and a file below both",
                link()
                    .add(Entry::symlink("m", "l"))
                    .file("m/new", b"x")
                    .file("m/dir/new", b"x"),
            ),
            (
                "a device below a link",
                link().add(Entry::new(EntryType::Char, "l/dev").device(1, 3)),
            ),
            (
                "a FIFO below a link",
                link().add(Entry::new(EntryType::Fifo, "l/fifo")),
            ),
        ];
        for (what, tar) in tries {
            attempt(target, &victim, &format!("{what} to `{to}`"), &tar.done())?;
        }
        target.step("the link in one layer, the write in the next")?;
        target.put("with-link", None, &link().done())?;
        for path in ["l/new", "l/secret", "l/dir/new"] {
            let tar = TarFile::new().file(path, b"x").done();
            // It may be refused; what counts is what it did.
            let put = target.put("through", Some("with-link"), &tar);
            let what = format!("`{path}` in a layer above the one with `l -> {to}`");
            victim.intact(&what)?;
            if put.is_ok() {
                target.within("through", |path| super::holds_no_secret(path, &what))?;
                target.delete("through")?;
            }
        }
        target.delete("with-link")?;
    }
    victim.intact("in the end")
}

fn hard_links(target: &mut Target) -> Outcome {
    let victim = Victim::new(target)?;
    let tries = [victim.relative(), victim.absolute()].map(|place| format!("{place}/secret"));
    for to in &tries {
        for tar in [
            TarFile::new().add(Entry::hard_link("h", to)),
            TarFile::new()
                .add(Entry::hard_link("h", to))
                .file("h", b"overwritten"),
            TarFile::new().add(Entry::hard_link("h", to).mode(0o777).owner(7, 7)),
            TarFile::new()
                .add(Entry::symlink("l", to.trim_end_matches("/secret")))
                .add(Entry::hard_link("h", "l/secret")),
            TarFile::new()
                .add(Entry::symlink("l", to))
                .add(Entry::hard_link("h", "l"))
                .add(Entry::new(EntryType::Regular, "h2").data("x")),
        ] {
            let what = format!("a hard link to `{to}`");
            attempt(target, &victim, &what, &tar.done())?;
        }
    }
    Ok(())
}

/// The streams that containers/storage tests itself with, and what they lead to.
fn combinations(target: &mut Target) -> Outcome {
    let victim = Victim::new(target)?;
    for place in ["../victim".to_owned(), victim.relative(), victim.absolute()] {
        let hello = format!("{place}/hello");
        let hard = |name: &str, to: &str| Entry::hard_link(name, to);
        let soft = |name: &str, to: &str| Entry::symlink(name, to);
        let file = |name: &str| Entry::file(name, "x").mode(0o644);
        let loophole = "loophole-victim";
        let inside = format!("{loophole}/hello");
        let tries: [(&str, Vec<Entry>); 12] = [
            ("a file", vec![file(&hello)]),
            ("a hard link", vec![hard("dotdot", &hello)]),
            ("a soft link", vec![soft("dotdot", &hello)]),
            (
                "a hard link to a directory, and a file in it",
                vec![hard(loophole, &place), file(&inside)],
            ),
            (
                "a soft link to a directory, and a file in it",
                vec![soft(loophole, &place), file(&inside)],
            ),
            (
                "a hard link to a directory, a hard link into it",
                vec![hard(loophole, &place), hard("hardlink", &inside)],
            ),
            (
                "a soft link to a directory, a hard link into it, written to",
                vec![
                    soft(loophole, &place),
                    hard("hardlink", &inside),
                    file("hardlink"),
                ],
            ),
            (
                "a hard link to a directory, a soft link into it",
                vec![
                    hard(loophole, &place),
                    soft("symlink", &inside),
                    file("symlink"),
                ],
            ),
            (
                "a soft link to a directory, a soft link into it, written to",
                vec![
                    soft(loophole, &place),
                    soft("symlink", &inside),
                    file("symlink"),
                ],
            ),
            (
                "a soft link to a directory, replaced by a directory",
                vec![
                    soft(loophole, &place),
                    Entry::directory(format!("{loophole}/")).mode(0o777),
                    file(&inside),
                ],
            ),
            (
                "a soft link to a directory, and its own removal",
                vec![
                    soft(loophole, &place),
                    Entry::file(format!("{loophole}/.wh.hello"), ""),
                ],
            ),
            (
                "a hard link to a soft link, written through",
                vec![soft("s", &hello), hard("h", "s"), file("h")],
            ),
        ];
        for (what, entries) in tries {
            let tar = entries.into_iter().fold(TarFile::new(), TarFile::add);
            attempt(target, &victim, &format!("{what}: `{place}`"), &tar.done())?;
        }
    }
    Ok(())
}

fn whiteouts(target: &mut Target) -> Outcome {
    let victim = Victim::new(target)?;
    for to in [victim.absolute(), victim.relative()] {
        let link = || TarFile::new().add(Entry::symlink("l", &to));
        for path in [
            "l/.wh.secret",
            "l/.wh..wh..opq",
            "l/dir/.wh.secret",
            "l/.wh.dir",
        ] {
            let what = format!("`l -> {to}`, then `{path}`");
            attempt(target, &victim, &what, &link().whiteout(path).done())?;
            target.put("with-link", None, &link().done())?;
            let tar = TarFile::new().whiteout(path).done();
            let put = target.put("through", Some("with-link"), &tar);
            victim.intact(&format!("{what} in the next layer"))?;
            if put.is_ok() {
                target.delete("through")?;
            }
            target.delete("with-link")?;
        }
    }
    for name in [
        ".wh..",
        ".wh...",
        ".wh.",
        "d/.wh..",
        "d/.wh...",
        "../.wh.victim",
        ".wh.../x",
    ] {
        let tar = TarFile::new().whiteout(name).done();
        let what = format!("a deletion called `{name}`");
        let done = attempt(target, &victim, &what, &tar)?;
        if let Ok(child) = done.child {
            demand!(
                child.has("plain") && child.has("d/e/deep"),
                "{what} was accepted, and removed what it does not name: {child}"
            );
        }
    }
    Ok(())
}

fn bad_headers(target: &mut Target) -> Outcome {
    let victim = Victim::new(target)?;
    let file = || Entry::file("file", "data");
    let pax = || file().dialect(Dialect::Pax);
    let negative = [&[0xff; 11][..], &[0xfe]].concat();
    let huge = [&[0x80, 0x7f][..], &[0xff; 10]].concat();
    let tries: Vec<(&str, Entry)> = vec![
        ("a wrong checksum", file().wrong_sum()),
        ("a negative size", file().patch(124, &negative)),
        ("a size beyond 64 bits", file().patch(124, &huge)),
        (
            "a size that is no number",
            file().patch(124, b"not a numbe\0"),
        ),
        ("a size far beyond the stream", file().claims(1 << 40)),
        ("a mode that is no number", file().patch(100, b"abcdefg\0")),
        ("a negative PAX size", pax().record("size", "-1")),
        ("a PAX size that is no number", pax().record("size", "many")),
        (
            "a PAX size beyond 64 bits",
            pax().record("size", "99999999999999999999999"),
        ),
        (
            "a PAX record of the wrong length",
            pax().raw_records(b"99 path=short\n"),
        ),
        (
            "a PAX record without an end",
            pax().raw_records(b"11 path=abc"),
        ),
        (
            "a PAX record without a length",
            pax().raw_records(b"path=abc\n"),
        ),
        (
            "a PAX record of length 0",
            pax().raw_records(b"0 path=abc\n"),
        ),
        (
            "a PAX record with a huge length",
            pax().raw_records(b"18446744073709551617 a=b\n"),
        ),
        ("a NUL in a PAX name", pax().record("path", b"na\0me")),
        (
            "a NUL in a PAX target",
            Entry::symlink("l", "x").record("linkpath", b"a\0b"),
        ),
        ("an unknown type", file().kind(b'Q')),
        ("a negative PAX owner", pax().record("uid", "-1")),
    ];
    for (what, entry) in tries {
        let tar = TarFile::new().file("before", b"x").add(entry).done();
        let done = attempt(target, &victim, what, &tar)?;
        for answer in [done.layer, done.child] {
            let kind = answer.map_err(|error| error.kind());
            demand!(
                matches!(kind, Err(ErrorKind::InvalidArchive)),
                "a stream with {what} must be refused as an invalid archive, and was answered \
                 {kind:?}"
            );
        }
    }
    for cut in [1, 300, 511, 513, 700, 1023] {
        let tar = TarFile::new().file("before", &[7; 1000]).done();
        let what = format!("a stream that ends after {cut} bytes");
        let done = attempt(target, &victim, &what, &tar[..cut])?;
        let kind = done.layer.map_err(|error| error.kind());
        demand!(
            matches!(kind, Err(ErrorKind::InvalidArchive)),
            "{what} must be refused as an invalid archive, and was answered {kind:?}"
        );
    }
    Ok(())
}

/// Marks by which one driver's kernel file system hides or redirects content.
fn smuggled(target: &mut Target) -> Outcome {
    let victim = Victim::new(target)?;
    let mut tries = Vec::new();
    for space in ["trusted", "user"] {
        for (name, value) in [
            ("opaque", "y"),
            ("redirect", "/secret"),
            ("metacopy", ""),
            ("whiteout", ""),
            ("origin", "x"),
        ] {
            let name = format!("{space}.overlay.{name}");
            tries.push((name.clone(), Entry::directory("d/").xattr(&name, value)));
            tries.push((name.clone(), Entry::file("plain", "").xattr(&name, value)));
        }
    }
    // The kernel cuts the numbers of the others to 0:0.
    for (major, minor) in [(0, 0), (1 << 12, 0), (0, 1 << 20), (1 << 12, 1 << 20)] {
        let device = Entry::new(EntryType::Char, "plain").device(major, minor);
        tries.push((format!("a character device {major}:{minor}"), device));
    }
    for (what, entry) in tries {
        let done = attempt(target, &victim, &what, &TarFile::new().add(entry).done())?;
        for answer in [done.layer, done.child] {
            let Err(error) = answer else {
                return Err(Failure::new(format!(
                    "{what} in a stream was accepted: it must be refused, whatever the driver"
                )));
            };
            refused_as_archive(&what, &error)?;
            let named = format!("{error}");
            demand!(
                named.contains("overlay") || named.contains("device"),
                "the refusal of {what} does not name it: {error}"
            );
        }
    }
    Ok(())
}
