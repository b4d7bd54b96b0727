// SPDX-License-Identifier: Apache-2.0
//! Streams that come back byte for byte.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use plywood::{
    ErrorKind,
    tar_split::{assemble::assemble, entry::Checksum, writer::RecordWriter},
};

use super::corpus;
use crate::{
    Target,
    case::{Failure, Outcome, demand},
    tar_file::TarFile,
    target::layer_id,
};

pub(super) fn bytes(target: &mut Target) -> Outcome {
    let streams = corpus::streams();
    for (name, tar) in &streams {
        target.step(name)?;
        target.put(name, None, tar)?;
        demand!(
            target.diff(name)? == *tar,
            "the stream `{name}` came back changed"
        );
    }
    target.step("as a child")?;
    for (name, tar) in &streams[..4] {
        let child = format!("child-{name}");
        target.put(&child, Some("v7-plain"), tar)?;
        demand!(
            target.diff(&child)? == *tar,
            "the stream `{name}` of a child came back changed"
        );
    }
    target.step("into a layer that exists, after a restart, and while it is mounted")?;
    target.create("applied", None)?;
    let (_, rich) = streams
        .iter()
        .find(|(name, _)| name == "gnu-rich")
        .ok_or_else(lost)?;
    target.apply("applied", &rich[..])?;
    let again = target.reopened()?;
    demand!(
        again.diff("applied")? == *rich,
        "an applied stream came back changed"
    );
    let mounted = target.within("applied", |_| target.diff("applied"))?;
    demand!(
        mounted == *rich,
        "a stream came back changed while its layer was mounted"
    );
    Ok(())
}

fn lost() -> Failure {
    Failure::harness("the corpus has no such stream")
}

/// The record beside the layers from which core rebuilds a stream.
fn sidecar(target: &Target, id: &str) -> PathBuf {
    let layers = format!("{}-layers", target.driver.name());
    let file = format!("{id}.tar-split.gz");
    target.root.join("graph").join(layers).join(file)
}

pub(super) fn rebuilt(target: &mut Target) -> Outcome {
    for (name, tar) in corpus::streams() {
        target.step(&name)?;
        target.put(&name, None, &tar)?;
        let roots = target.driver.content_roots(&layer_id(&name))?;
        let mut seen = Vec::new();
        assemble(fs::File::open(sidecar(target, &name))?, &roots, &mut seen)?;
        demand!(
            seen == tar,
            "the record of `{name}` and the files in {roots:?} do not give the stream back"
        );
    }
    target.step("without the record")?;
    fs::remove_file(sidecar(target, "gnu-plain"))?;
    let before = target.manifest("gnu-plain")?.exported();
    let tar = target.diff("gnu-plain")?;
    target.put("again", None, &tar)?;
    let differences = before.differences(&target.manifest("again")?.exported());
    demand!(
        differences.is_empty(),
        "without its record, a layer's diff gives another tree: {}",
        differences.join("; ")
    );
    Ok(())
}

pub(super) fn content_roots(target: &mut Target) -> Outcome {
    let names = ["a", "d/b", "d/e/c", "\u{e4}"];
    let mut tar = TarFile::new().directory("d/").directory("d/e/");
    for name in names {
        tar = tar.file(name, format!("content of {name}").as_bytes());
    }
    let tar = tar.done();
    target.put("base", None, &tar)?;
    target.put(
        "child",
        Some("base"),
        &TarFile::new().file("d/own", b"own").done(),
    )?;
    let roots = target.driver.content_roots(&layer_id("base"))?;
    for name in names {
        let found = roots.iter().find_map(|root| fs::read(root.join(name)).ok());
        let wanted = format!("content of {name}").into_bytes();
        demand!(
            found.as_ref() == Some(&wanted),
            "`{name}` is not in the directories {roots:?} with the bytes of its stream"
        );
    }
    let child = target.driver.content_roots(&layer_id("child"))?;
    demand!(
        child
            .iter()
            .any(|root| fs::read(root.join("d/own")).is_ok_and(|data| data == b"own")),
        "the child's own file is in none of {child:?}"
    );
    target.step("a record that names what is outside")?;
    let secret = target.scratch("outside")?;
    fs::write(secret.join("b"), "content of the host")?;
    for name in escapes(&roots, &secret) {
        let mut out = Vec::new();
        let answer = assemble(
            &record(&name, b"content of the host")?[..],
            &roots,
            &mut out,
        );
        demand!(
            answer.is_err() && !out.windows(7).any(|part| part == b"the hos"),
            "a record with the name `{name}` was followed out of the layer: {answer:?}"
        );
    }
    target.step("a symbolic link in the place of a directory")?;
    target.within("base", |root| -> Outcome {
        fs::remove_dir_all(root.join("d"))?;
        Ok(symlink(&secret, root.join("d"))?)
    })?;
    let mut out = Vec::new();
    let answer = target.diff_to(None, "base", &mut out);
    let error = answer.err().map(|error| error.kind());
    demand!(
        error == Some(ErrorKind::Corrupt),
        "a layer whose directory became a link to the host has a diff, or another error: {error:?}"
    );
    demand!(
        !out.windows(7).any(|part| part == b"the hos"),
        "a diff followed a symbolic link to the host"
    );
    Ok(())
}

/// Names of the host's file as seen from a layer's directory.
fn escapes(roots: &[PathBuf], secret: &Path) -> Vec<String> {
    let up = "../".repeat(roots.first().map_or(0, |root| root.components().count()));
    let file = secret.join("b");
    let inside = file
        .strip_prefix("/")
        .unwrap_or(&file)
        .display()
        .to_string();
    vec![
        format!("{up}{inside}"),
        format!("d/{up}../{inside}"),
        format!("/{inside}"),
    ]
}

/// A record of one file.
fn record(name: &str, content: &[u8]) -> Result<Vec<u8>, Failure> {
    let mut writer = RecordWriter::new(Vec::new());
    let header = crate::tar_file::Entry::file(name, content).bytes();
    writer.segment(&header[..512])?;
    let mut sum = Checksum::default();
    sum.update(content);
    writer.file(name.as_bytes(), content.len() as u64, sum.take())?;
    Ok(writer.finish()?)
}
