// SPDX-License-Identifier: Apache-2.0
//! Streams that must be refused, and content that is no longer what was recorded.

use std::fs;

use plywood::{Error, ErrorKind, Result as CoreResult};
use tar::EntryType;

use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    log,
    manifest::Manifest,
    tar_file::{Entry, TarFile},
};

/// A stream that is cut at each of these places.
fn long_stream() -> Vec<u8> {
    TarFile::new()
        .directory("d/")
        .file("d/first", b"first")
        .add(Entry::file("n".repeat(200), vec![b'x'; 3000]).xattr("user.a", "1"))
        .file("d/last", &[b'y'; 700])
        .done()
}

/// Cuts inside headers, content and extended headers, by name.
fn cuts() -> Vec<(&'static str, Vec<u8>)> {
    let whole = long_stream();
    let at = |bytes: usize| whole[..bytes].to_vec();
    vec![
        ("inside-the-first-header", at(300)),
        ("inside-content", at(512 + 512 + 3)),
        ("inside-a-long-name", at(512 + 1024 + 512 + 100)),
        (
            "inside-large-content",
            at(whole.len() - 1024 - 1024 - 512 - 1500),
        ),
        (
            "inside-the-last-content",
            at(whole.len() - 1024 - 1024 + 100),
        ),
        (
            "inside-the-last-header",
            at(whole.len() - 1024 - 1024 - 200),
        ),
    ]
}

fn refused<T: std::fmt::Debug>(answer: &CoreResult<T>, kind: ErrorKind, what: &str) -> Outcome {
    let seen = answer.as_ref().err().map(Error::kind);
    demand!(
        seen == Some(kind),
        "{what} must be refused as {kind:?}, but the answer is {answer:?}"
    );
    Ok(())
}

pub(super) fn truncated(target: &mut Target) -> Outcome {
    for (name, tar) in cuts() {
        target.step(name)?;
        target.put(name, None, &TarFile::new().file("before", b"before").done())?;
        let before = target.manifest(name)?;
        let diff = target.diff(name)?;
        refused(
            &target.apply(name, &tar[..]),
            ErrorKind::InvalidArchive,
            "a stream that is cut off",
        )?;
        // What came before the cut may be there; the layer still works, and can be removed.
        let after = target.manifest(name)?;
        demand!(
            after.has("before"),
            "`before` is gone after a stream was refused: {after}"
        );
        demand!(
            target.diff(name)? == diff || after == before,
            "the record of `{name}` has changed with a stream that was refused"
        );
        target.delete(name)?;
        demand!(
            target.layers()?.is_empty(),
            "the layer cannot be removed after a stream was refused"
        );
    }
    Ok(())
}

/// Everything that a failed `put` must not change.
fn state(target: &Target) -> Result<(Manifest, Vec<String>, Vec<String>), Failure> {
    let layers = target.layers()?.into_iter().map(|layer| layer.id).collect();
    let driver = if target.driver.capabilities().list {
        let listed = target.driver.list()?;
        listed.iter().map(ToString::to_string).collect()
    } else {
        Vec::new()
    };
    Ok((target.manifest("base")?, layers, driver))
}

pub(super) fn truncated_put(target: &mut Target) -> Outcome {
    target.put("base", None, &long_stream())?;
    let before = state(target)?;
    for (name, tar) in cuts() {
        target.step(name)?;
        let answer = target.put("child", Some("base"), &tar);
        refused(
            &answer,
            ErrorKind::InvalidArchive,
            "a stream that is cut off",
        )?;
        let after = state(target)?;
        same!(before.1, after.1, "the layers after the failure");
        same!(before.2, after.2, "the driver's layers after the failure");
        demand!(
            before.0 == after.0,
            "the parent changed with a stream that was refused"
        );
    }
    target.step("the whole stream under the same name")?;
    target.put("child", Some("base"), &long_stream())?;
    demand!(
        target.diff("child")? == long_stream(),
        "the whole stream came back changed"
    );
    Ok(())
}

pub(super) fn garbage(target: &mut Target) -> Outcome {
    target.put("base", None, &long_stream())?;
    let before = state(target)?;
    let mut rng = target.rng();
    let random: Vec<u8> = (0..4096).map(|_| rng.u8(..)).collect();
    let mut flipped = long_stream();
    flipped[200] ^= 1;
    let mut damaged = gzip(&long_stream());
    let end = damaged.len();
    damaged[end - 6] ^= 1;
    let mut cut = gzip(&long_stream());
    cut.truncate(end / 2);
    let wrong_sum = TarFile::new()
        .add(Entry::file("file", "x").wrong_sum())
        .done();
    let records = |bytes: &[u8]| {
        let entry = Entry::file("file", "x").raw_records(bytes);
        TarFile::new().add(entry).done()
    };
    for (name, bytes) in [
        ("random bytes", random),
        (
            "text",
            b"this is no archive, but a text of some length\n".repeat(40),
        ),
        ("a short text", b"short".to_vec()),
        (
            "compressed text",
            gzip(&b"this is no archive either\n".repeat(40)),
        ),
        ("a flipped bit in a header", flipped),
        ("compressed data with a wrong checksum", damaged),
        ("compressed data that is cut off", cut),
        ("a header with a wrong checksum", wrong_sum),
        ("a record without a length", records(b"path=x\n")),
        ("a record that is too long", records(b"99 path=x\n")),
        (
            "a size that is no number",
            TarFile::new()
                .add(Entry::file("f", "").patch(124, b"12x"))
                .done(),
        ),
        (
            "an entry of an unknown type",
            TarFile::new().add(Entry::file("f", "").kind(b'Z')).done(),
        ),
    ] {
        target.step(name)?;
        refused(
            &target.put("child", Some("base"), &bytes),
            ErrorKind::InvalidArchive,
            name,
        )?;
        demand!(
            state(target)? == before,
            "{name}: something changed although it was refused"
        );
    }
    target.step("the same stream, compressed and whole")?;
    target.put("child", Some("base"), &gzip(&long_stream()))?;
    demand!(
        target.diff("child")? == long_stream(),
        "a compressed stream came back changed"
    );
    Ok(())
}

/// A gzip file whose data is stored as it is.
pub(super) fn gzip(data: &[u8]) -> Vec<u8> {
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut chunks = data.chunks(0xffff).peekable();
    while let Some(chunk) = chunks.next() {
        out.push(u8::from(chunks.peek().is_none()));
        let length = u16::try_from(chunk.len()).unwrap_or(u16::MAX);
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend_from_slice(chunk);
    }
    let mut crc = u32::MAX;
    for byte in data {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
        }
    }
    out.extend((!crc).to_le_bytes());
    out.extend(u32::try_from(data.len()).unwrap_or(u32::MAX).to_le_bytes());
    out
}

pub(super) fn duplicates(target: &mut Target) -> Outcome {
    let twice = |one: &str, two: &str| TarFile::new().file(one, b"1").file(two, b"2").done();
    let directory = TarFile::new().directory("d/").directory("d/").done();
    let mixed = TarFile::new().directory("d/").file("d", b"1").done();
    for (name, tar) in [
        ("the same path twice", twice("file", "file")),
        ("the same path in another spelling", twice("file", "./file")),
        ("the same path by way of `..`", twice("file", "x/../file")),
        ("the same directory twice", directory),
        ("a directory and a file", mixed),
    ] {
        for round in ["first", "second"] {
            target.step(&format!("{name}, the {round} time"))?;
            refused(
                &target.put("base", None, &tar),
                ErrorKind::InvalidArchive,
                name,
            )?;
            demand!(
                target.layers()?.is_empty(),
                "{name}: the refused stream left a layer"
            );
        }
    }
    Ok(())
}

pub(super) fn unsettable_xattr(target: &mut Target) -> Outcome {
    log::record();
    target.step("a capability that is none")?;
    let tar = TarFile::new()
        .file("before", b"1")
        .add(Entry::file("tool", b"program").xattr("security.capability", "nonsense"))
        .done();
    let answer = target
        .put("base", None, &tar)
        .err()
        .map(|error| format!("{error:?}"));
    demand!(
        answer
            .as_ref()
            .is_some_and(|text| text.contains("security.capability")),
        "an attribute that the kernel refuses must fail and be named: {answer:?}"
    );
    demand!(
        target.layers()?.is_empty(),
        "the refused stream left a layer"
    );
    target.step("an attribute of a kind that the file system does not know")?;
    let tar = TarFile::new()
        .add(
            Entry::file("file", b"content")
                .xattr("nonsense.suite", "x")
                .xattr("user.kept", "1"),
        )
        .done();
    if let Err(error) = target.put("base", None, &tar) {
        let text = format!("{error:?}");
        demand!(
            text.contains("nonsense.suite"),
            "the error does not name it: {text}"
        );
        demand!(
            target.layers()?.is_empty(),
            "the refused stream left a layer"
        );
    } else {
        let messages = log::messages();
        demand!(
            messages
                .iter()
                .any(|message| message.contains("nonsense.suite")),
            "the attribute is gone and no log message says so: {messages:?}"
        );
        let mut value = [0; 8];
        let read = target.within("base", |root| {
            Ok::<_, Failure>(rustix::fs::lgetxattr(
                root.join("file"),
                "user.kept",
                &mut value[..],
            )?)
        })?;
        same!(1, read, "the bytes of the attribute that can be set");
    }
    Ok(())
}

/// A change to the file of a layer.
type Change = fn(&std::path::Path) -> std::io::Result<()>;

pub(super) fn changed_content(target: &mut Target) -> Outcome {
    let tar = TarFile::new()
        .file("a", &[b'a'; 3000])
        .file("d/b", &vec![b'b'; 70_000])
        .file("z", &[b'z'; 3000])
        .link("soft", EntryType::Symlink, "a")
        .done();
    let changes: [(&str, Change); 4] = [
        ("other-bytes", |file| {
            let mut content = fs::read(file)?;
            content[69_999] ^= 1;
            fs::write(file, content)
        }),
        ("shorter", |file| {
            fs::OpenOptions::new().write(true).open(file)?.set_len(10)
        }),
        ("gone", |file| fs::remove_file(file)),
        ("a-directory", |file| {
            fs::remove_file(file)?;
            fs::create_dir(file)
        }),
    ];
    for (name, change) in changes {
        target.step(name)?;
        target.put(name, None, &tar)?;
        target.within(name, |root| Ok::<_, Failure>(change(&root.join("d/b"))?))?;
        let mut out = Vec::new();
        let error = target.diff_to(None, name, &mut out).err();
        let seen = error.as_ref().map(Error::kind);
        demand!(
            seen == Some(ErrorKind::Corrupt),
            "a diff whose file is not what was recorded ended with {error:?}"
        );
        let text = format!("{error:?}");
        demand!(
            text.contains("d/b"),
            "the error does not name the file: {text}"
        );
        demand!(
            out.len() < tar.len(),
            "the whole stream was written before the error"
        );
    }
    Ok(())
}
