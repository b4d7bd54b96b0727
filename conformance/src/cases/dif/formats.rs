// SPDX-License-Identifier: Apache-2.0
//! What streams may look like, coming in and going out.

use std::{
    fs,
    io::ErrorKind as IoKind,
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use plywood::ErrorKind;
use rustix::fs::XattrFlags;
use tar::EntryType;

use super::{base_ops, child_ops, items, pair, path};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    manifest::{self, Manifest},
    ops::Op,
    tar_file::{Dialect, Entry, TarFile},
};

/// Extracts with numbers as owners, as far as that reader can.
const PYTHON: &str = "import sys, tarfile
archive = tarfile.open(sys.argv[1], 'r:', encoding='utf-8', errors='surrogateescape')
archive.extraction_filter = staticmethod(lambda member, path: member)
archive.extractall(sys.argv[2], numeric_owner=True)
";

pub(super) fn readers(target: &mut Target) -> Outcome {
    let mut child = child_ops();
    child.extend([
        Op::Write(path(&"n".repeat(255)), b"long".to_vec()),
        Op::Write(path("owned"), b"owned".to_vec()),
        Op::Chown(path("owned"), 3_000_000, 2_097_152),
        Op::Symlink(path("far"), path(&"t".repeat(200))),
        Op::Write(path("added/caf\u{e9}"), b"wide".to_vec()),
    ]);
    pair(target, &base_ops(), &child)?;
    for (number, layer) in ["base", "child"].into_iter().enumerate() {
        let stream = target.diff(layer)?;
        let place = target.scratch(&format!("read-{number}"))?;
        let file = place.join("stream.tar");
        fs::write(&file, &stream)?;
        let items = items::read(&stream)?;
        demand!(
            items.len() > 20,
            "the stream has only {} entries",
            items.len()
        );
        let suite = items::tree(&items).exported().without_link_times();
        let gnu = extracted(&place, "gnu", |to| {
            let options = ["--numeric-owner", "--same-owner", "-xpf"];
            run(
                Command::new("tar")
                    .args(options)
                    .arg(&file)
                    .arg("-C")
                    .arg(to),
                "tar",
            )
        })?;
        let third = extracted(&place, "third", |to| third(&file, to))?;
        for (name, seen) in [("GNU tar", gnu), ("the third reader", third)] {
            let differences = suite.differences(&seen);
            demand!(
                differences.is_empty(),
                "{name} reads the diff of `{layer}` otherwise than the suite: {}",
                differences.join("; ")
            );
        }
    }
    Ok(())
}

/// What a reader makes of the stream; none of them sets times of symbolic links alike.
fn extracted(
    place: &Path,
    name: &str,
    extract: impl FnOnce(&Path) -> Outcome,
) -> Result<Manifest, Failure> {
    let to = place.join(name);
    fs::create_dir(&to)?;
    extract(&to)?;
    Ok(manifest::of(&to)?
        .exported()
        .without_link_times()
        .without_xattrs())
}

fn third(file: &Path, to: &Path) -> Outcome {
    let mut python = Command::new("python3");
    python
        .arg("-c")
        .arg(PYTHON)
        .arg(file)
        .arg(to)
        .env("PYTHONUTF8", "1");
    match run(&mut python, "python3") {
        Err(failure) if failure.text.contains("not found") => {
            let mut bsdtar = Command::new("bsdtar");
            bsdtar
                .args(["--numeric-owner", "-xpf"])
                .arg(file)
                .arg("-C")
                .arg(to);
            run(&mut bsdtar, "bsdtar").map_err(|failure| {
                if failure.text.contains("not found") {
                    Failure::not_run("there is neither `python3` nor `bsdtar`: install one of them")
                } else {
                    failure
                }
            })
        }
        other => other,
    }
}

fn run(command: &mut Command, name: &str) -> Outcome {
    let output = match command.output() {
        Err(error) if error.kind() == IoKind::NotFound => {
            return Err(Failure::not_run(format!(
                "`{name}` was not found: install it"
            )));
        }
        other => other?,
    };
    demand!(
        output.status.success(),
        "`{name}` cannot read the stream: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

pub(super) fn export_set(target: &mut Target) -> Outcome {
    target.create_writable("base", None)?;
    let acl = super::super::fid::sample_acl();
    let capability = *b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
    target.within("base", |root| -> Outcome {
        fs::write(root.join("file"), "content")?;
        fs::create_dir(root.join("d"))?;
        fs::write(root.join("d/inside"), "content")?;
        for name in ["file", "d"] {
            let set = |key: &str, value: &[u8]| {
                rustix::fs::lsetxattr(root.join(name), key, value, XattrFlags::empty())
            };
            set("user.exported", b"yes")?;
            set("trusted.private", b"no")?;
            set("system.posix_acl_access", &acl)?;
            if name == "file" {
                set("security.capability", &capability)?;
            }
        }
        Ok(())
    })?;
    target.create_writable("child", Some("base"))?;
    target.within("child", |root| -> Outcome {
        // A directory made anew is what drivers mark in their own way.
        fs::remove_dir_all(root.join("d"))?;
        fs::create_dir(root.join("d"))?;
        fs::write(root.join("d/new"), "new")?;
        fs::OpenOptions::new()
            .append(true)
            .open(root.join("file"))?
            .set_len(3)?;
        rustix::fs::lsetxattr(
            root.join("file"),
            "user.exported",
            b"2",
            XattrFlags::empty(),
        )?;
        Ok(())
    })?;
    for layer in ["base", "child"] {
        let tar = target.diff(layer)?;
        for item in items::read(&tar)? {
            let wanted: &[&str] = match (layer, item.path().as_str()) {
                ("base", "file") => &["security.capability", "user.exported"],
                ("base", "d") | ("child", "file") => &["user.exported"],
                _ => &[],
            };
            same!(
                wanted,
                item.xattrs(),
                "the attributes of `{}` in the diff of `{layer}`",
                item.path()
            );
        }
        for private in ["trusted.", "overlay", "posix_acl"] {
            demand!(
                !tar.windows(private.len())
                    .any(|part| part == private.as_bytes()),
                "`{private}` is somewhere in the diff of `{layer}`"
            );
        }
    }
    Ok(())
}

/// What each dialect's long forms must unpack to.
struct Wanted {
    name: PathBuf,
    owner: (u32, u32),
    mtime: i64,
}

pub(super) fn dialects(target: &mut Target) -> Outcome {
    let long = "n".repeat(200);
    for (name, dialect, wanted) in [
        (
            "v7",
            Dialect::V7,
            ("d/file".to_owned(), (1000, 100), 1_000_000_000),
        ),
        (
            "ustar",
            Dialect::Ustar,
            (format!("{}/file", "p".repeat(120)), (2_097_151, 0), 1),
        ),
        (
            "gnu",
            Dialect::Gnu,
            (long.clone(), (4_294_967_294, 2_097_152), 1 << 33),
        ),
        (
            "pax",
            Dialect::Pax,
            (long.clone(), (4_294_967_294, 3_000_000), 1 << 33),
        ),
    ] {
        target.step(name)?;
        let (file, (uid, gid), mtime) = wanted;
        let wanted = Wanted {
            name: PathBuf::from(&file),
            owner: (uid, gid),
            mtime,
        };
        let entry = Entry::file(&file, b"content")
            .dialect(dialect)
            .owner(uid.into(), gid.into())
            .mtime(mtime);
        let link = Entry::symlink(
            "link",
            "t".repeat(if dialect == Dialect::V7 { 99 } else { 100 }),
        );
        let tar = TarFile::new().add(entry).add(link.dialect(dialect)).done();
        target.put(name, None, &tar)?;
        target.within(name, |root| check(root, &wanted))?;
    }
    target.step("a global header, which says nothing of the entries that follow")?;
    let tar = TarFile::new()
        .global(&[("mtime", "5"), ("uid", "5"), ("path", "elsewhere")])
        .add(Entry::file("file", b"content").owner(7, 8).mtime(9))
        .done();
    target.put("global", None, &tar)?;
    let wanted = Wanted {
        name: path("file"),
        owner: (7, 8),
        mtime: 9,
    };
    target.within("global", |root| check(root, &wanted))?;
    target.step("records that replace what the header says")?;
    let entry = Entry::file("short", b"content")
        .owner(1, 1)
        .record("path", "replaced")
        .record("uid", "70000")
        .record("gid", "80000")
        .record("mtime", "1234567890.5");
    target.put("records", None, &TarFile::new().add(entry).done())?;
    let wanted = Wanted {
        name: path("replaced"),
        owner: (70_000, 80_000),
        mtime: 1_234_567_890,
    };
    target.within("records", |root| check(root, &wanted))?;
    sparse(target)
}

fn check(root: &Path, wanted: &Wanted) -> Outcome {
    let file = root.join(&wanted.name);
    let meta = fs::symlink_metadata(&file)
        .map_err(|error| Failure::new(format!("`{}`: {error}", wanted.name.display())))?;
    same!(
        b"content".to_vec(),
        fs::read(&file)?,
        "the content of the file"
    );
    same!(wanted.owner, (meta.uid(), meta.gid()), "its owner");
    same!(wanted.mtime, meta.mtime(), "its time");
    demand!(
        !meta.file_type().is_socket() && meta.is_file(),
        "it is no file"
    );
    Ok(())
}

fn sparse(target: &Target) -> Outcome {
    let file = |name: &str, data: Vec<u8>| Entry::file(name, data).dialect(Dialect::Pax);
    let size = "1048580";
    let stored = [vec![b'a'; 512], vec![b'b'; 4]].concat();
    let map = "524288,512,1048576,4";
    let zero = file("GNUSparseFile.0/0.0", stored.clone())
        .record("GNU.sparse.size", size)
        .record("GNU.sparse.numblocks", "2")
        .record("GNU.sparse.offset", "524288")
        .record("GNU.sparse.numbytes", "512")
        .record("GNU.sparse.offset", "1048576")
        .record("GNU.sparse.numbytes", "4")
        .record("GNU.sparse.name", "0.0");
    let one = file("GNUSparseFile.0/0.1", stored.clone())
        .record("GNU.sparse.size", size)
        .record("GNU.sparse.numblocks", "2")
        .record("GNU.sparse.map", map)
        .record("GNU.sparse.name", "0.1");
    let mut front = format!("2\n{}\n", map.replace(',', "\n")).into_bytes();
    front.resize(512, 0);
    let newest = file("GNUSparseFile.0/1.0", [front, stored].concat())
        .record("GNU.sparse.major", "1")
        .record("GNU.sparse.minor", "0")
        .record("GNU.sparse.name", "1.0")
        .record("GNU.sparse.realsize", size);
    for (name, entry) in [("0.0", zero), ("0.1", one), ("1.0", newest)] {
        target.step(&format!("a sparse file of the form {name}"))?;
        let layer = format!("sparse-{name}");
        target.put(&layer, None, &TarFile::new().add(entry).done())?;
        let mut wanted = vec![0; 1_048_580];
        wanted[524_288..524_800].fill(b'a');
        wanted[1_048_576..].fill(b'b');
        let seen = target.within(&layer, |root| Ok::<_, Failure>(fs::read(root.join(name))?))?;
        demand!(
            seen == wanted,
            "a sparse file of the form {name} unpacks to other bytes"
        );
    }
    target.step("a sparse file of the form before PAX, which is refused by name")?;
    let old = Entry::new(EntryType::GNUSparse, "old").data([b'a'; 512]);
    let answer = target.put("sparse-old", None, &TarFile::new().add(old).done());
    demand!(
        answer
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::InvalidArchive),
        "an entry of a type that is not supported was not refused: {answer:?}"
    );
    Ok(())
}
