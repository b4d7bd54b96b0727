// SPDX-License-Identifier: Apache-2.0
//! Hostile and damaged tar streams.

use std::{fs, io::Write as _, process::Command};

use super::{
    abuse_support::{DRIVERS, check_store, refused, refused_with_hint},
    support::{Place, can_run, run, tar_of},
};

/// One entry with every field as given; names are not cleaned.
struct Raw<'a> {
    name: &'a [u8],
    kind: u8,
    link: &'a [u8],
    xattr: Option<&'a str>,
}

const FILE: Raw<'static> = Raw {
    name: b"f",
    kind: b'0',
    link: b"",
    xattr: None,
};

fn block(entry: &Raw<'_>, size: usize) -> [u8; 512] {
    let mut header = tar::Header::new_ustar();
    let fields = header.as_ustar_mut().unwrap();
    fields.name[..entry.name.len()].copy_from_slice(entry.name);
    fields.linkname[..entry.link.len()].copy_from_slice(entry.link);
    fields.typeflag = [entry.kind];
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    header.set_size(size as u64);
    header.set_device_major(0).unwrap();
    header.set_device_minor(0).unwrap();
    header.set_cksum();
    *header.as_bytes()
}

fn stream(entries: &[Raw<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        if let Some(key) = entry.xattr {
            let text = format!("SCHILY.xattr.{key}=y\n");
            let length = text.len() + 3;
            let record = format!("{length} {text}");
            assert_eq!(record.len(), length, "two digits");
            let pax = Raw {
                name: b"pax",
                kind: b'x',
                ..FILE
            };
            out.extend(block(&pax, record.len()));
            let mut body = record.into_bytes();
            body.resize(512, 0);
            out.extend(body);
        }
        out.extend(block(entry, 0));
    }
    out.resize(out.len() + 1024, 0);
    out
}

#[test]
fn root_hostile_streams_are_refused_by_name() {
    if !can_run(&[]) {
        return;
    }
    let named = |name| Raw { name, ..FILE };
    let kind = |name, kind| Raw { name, kind, ..FILE };
    let link = |name, kind, link| Raw {
        name,
        kind,
        link,
        xattr: None,
    };
    let xattr = |key| Raw {
        xattr: Some(key),
        ..FILE
    };
    let cases: [(&str, &[Raw<'_>], &str); 18] = [
        ("up", &[named(b"../up")], "../up"),
        ("deep", &[named(b"a/../../../etc/x")], "a/../../../etc/x"),
        (
            "hard link out",
            &[link(b"h", b'1', b"../../etc/passwd")],
            "../../etc/passwd",
        ),
        (
            "hard link to host",
            &[link(b"h", b'1', b"/etc/passwd")],
            "etc/passwd",
        ),
        (
            "hard link through a link",
            &[link(b"l", b'2', b"/etc"), link(b"h", b'1', b"l/passwd")],
            "l/passwd",
        ),
        ("hard link to itself", &[link(b"f", b'1', b"f")], "\"f\""),
        ("whiteout of .", &[named(b".wh..")], ".wh.."),
        ("whiteout of ..", &[named(b"a/.wh...")], "a/.wh..."),
        ("whiteout of nothing", &[named(b".wh.")], ".wh."),
        ("root is a file", &[named(b".")], ". "),
        ("root is a link", &[link(b"./", b'2', b"/etc")], "./"),
        ("device 0:0", &[kind(b"c", b'3')], "\"c\""),
        (
            "overlay attribute",
            &[xattr("trusted.overlay.opaque")],
            "trusted.overlay.opaque",
        ),
        (
            "user overlay attribute",
            &[xattr("user.overlay.opaque")],
            "user.overlay.opaque",
        ),
        ("twice", &[FILE, FILE], "f: duplicates"),
        (
            "file and directory",
            &[FILE, kind(b"f/", b'5')],
            "duplicates",
        ),
        ("below a file", &[FILE, named(b"f/x")], "Not a directory"),
        (
            "unknown type",
            &[kind(b"s", b'Q')],
            "s: unhandled tar header type 81",
        ),
    ];
    for driver in DRIVERS {
        let place = Place::new(driver);
        for (what, entries, expected) in &cases {
            let answer = place.own(&["import-layer", "-n", "x"], &stream(entries));
            let text = refused(&answer);
            let expected = expected.trim_end();
            assert!(text.contains(expected), "{what}: {text}");
        }
        check_store(&place, false);
        assert_eq!(place.plywood(&["storage-layers"]).ok().out, "");
    }
}

#[test]
fn root_odd_names_stay_inside_and_do_not_drive_the_terminal() {
    if !can_run(&[]) {
        return;
    }
    let named = |name| Raw { name, ..FILE };
    for driver in DRIVERS {
        let place = Place::new(driver);
        let inside = [
            named(b"/abs"),
            Raw {
                name: b"a/",
                kind: b'5',
                ..FILE
            },
            named(b"a/../b"),
            Raw {
                name: b"l",
                kind: b'2',
                link: b"../../../../..",
                ..FILE
            },
            named(b"l/plywood-escaped"),
        ];
        place
            .own(&["import-layer", "-n", "in"], &stream(&inside))
            .ok();
        assert!(!std::path::Path::new("/plywood-escaped").exists());
        // Names do not drive the terminal.
        let answer = place.own(&["import-layer"], &stream(&[named(b"../\x1b[2J")]));
        assert!(!refused_with_hint(&answer).contains('\x1b'), "{answer:?}");
        // Under the other name it is one plain sentence.
        let answer = place.drop_in(&["import-layer"], &stream(&[named(b"../up")]));
        assert_eq!(answer.code, 1);
        assert!(!answer.err.contains("hint"), "{answer:?}");
        check_store(&place, false);
        place.plywood(&["delete-layer", "in"]).ok();
    }
}

#[test]
fn root_damaged_streams_leave_nothing() {
    if !can_run(&["gzip", "bzip2", "xz", "zstd"]) {
        return;
    }
    let noise: Vec<u8> = (0..700_000_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let tar = tar_of(&[("noise", Some(&noise))]);
    let place = Place::new("overlay");
    for tool in ["gzip", "bzip2", "xz", "zstd"] {
        let packed = compress(tool, &tar);
        let (first, second) = tar.split_at(300_000);
        let joined = [compress(tool, first), compress(tool, second)].concat();
        for (what, bytes, good) in [
            ("whole", packed.clone(), true),
            ("two members", joined, true),
            ("half", packed[..packed.len() / 2].to_vec(), false),
            (
                "without its end",
                packed[..packed.len() - 3].to_vec(),
                false,
            ),
            ("magic alone", packed[..4].to_vec(), false),
            ("changed", changed(&packed), false),
            ("and garbage", [&packed[..], &[b'x'; 2000]].concat(), false),
        ] {
            let answer = place.own(&["import-layer", "-n", "l"], &bytes);
            if good {
                answer.ok();
                place.plywood(&["delete-layer", "l"]).ok();
            } else {
                let text = refused_with_hint(&answer);
                assert!(text.contains("standard input"), "{tool} {what}: {text}");
            }
        }
    }
    for bytes in [&tar[..tar.len() / 2], b"hello", &[0x2a; 4096]] {
        refused_with_hint(&place.own(&["import-layer"], bytes));
    }
    // A file is named, and a stream that cannot be read.
    fs::write(place.path("half.tar"), &tar[..1000]).unwrap();
    let answer = place.plywood(&["import-layer", "-f", "half.tar"]);
    assert!(
        refused_with_hint(&answer).contains("`half.tar`"),
        "{answer:?}"
    );
    refused(&place.plywood(&["import-layer", "-f", "."]));
    assert_eq!(place.plywood(&["layers"]).ok().out, "");
    check_store(&place, false);
}

fn compress(tool: &str, bytes: &[u8]) -> Vec<u8> {
    let mut command = Command::new(tool);
    let mut child = command
        .args(["-c", "-q"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let done = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(done.status.success());
    done.stdout
}

fn changed(packed: &[u8]) -> Vec<u8> {
    let mut bytes = packed.to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    bytes
}

/// An image whose layer is not what its manifest announces, and one that expands without end.
#[test]
fn root_streams_that_never_end_are_cut_off_by_the_disk() {
    if !can_run(&["gzip", "mkfs.ext4"]) {
        return;
    }
    let place = Place::new("overlay");
    super::abuse_support::small_disk(&place, "24M");
    let zeros = vec![0; 200 << 20];
    let bomb = compress("gzip", &tar_of(&[("zeros", Some(&zeros))]));
    assert!(bomb.len() < 1 << 20);
    let answer = place.own(&["import-layer"], &bomb);
    let text = refused_with_hint(&answer);
    assert!(text.contains("No space left"), "{text}");
    assert_eq!(place.plywood(&["layers"]).ok().out, "");
    check_store(&place, false);
    let small = tar_of(&[("a", Some(b"1"))]);
    place.own(&["import-layer"], &small).ok();
    run(Command::new("df").arg(place.graph()), b"").ok();
}

/// Image files that point elsewhere, contradict themselves or stop early.
#[test]
fn root_hostile_image_files_are_refused_and_leave_nothing() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    let layer = tar_of(&[("f", Some(b"x"))]);
    let id = plywood::Digest::sha256(&layer).to_string();
    let config = |ids: &[&str]| {
        let rootfs = serde_json::json!({"type": "layers", "diff_ids": ids});
        serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": rootfs}).to_string()
    };
    let manifest = |config: &str, layers: &[&str]| {
        serde_json::json!([{"Config": config, "RepoTags": ["x:1"], "Layers": layers}]).to_string()
    };
    let usual = manifest("c.json", &["l.tar"]);
    let deep = "[".repeat(100_000);
    for (what, manifest, config, expected) in [
        (
            "layer above",
            manifest("c.json", &["../../etc/passwd"]),
            config(&[&id]),
            "leaves",
        ),
        (
            "layer of the host",
            manifest("c.json", &["/etc/passwd"]),
            config(&[&id]),
            "leaves",
        ),
        (
            "config of the host",
            manifest("/etc/passwd", &["l.tar"]),
            config(&[&id]),
            "leaves",
        ),
        (
            "no such layer",
            manifest("c.json", &["none"]),
            config(&[&id]),
            "`none` is missing",
        ),
        (
            "too many layers",
            manifest("c.json", &["l.tar", "l.tar"]),
            config(&[&id]),
            "lists 2",
        ),
        (
            "no layers",
            usual.clone(),
            "{}".to_owned(),
            "names no layers",
        ),
        (
            "digest is a path",
            usual.clone(),
            config(&["sha256:../../x"]),
            "sha256:../../x",
        ),
        ("other digest", usual.clone(), config(&["md5:00"]), "md5:00"),
        (
            "half",
            usual[..20].to_owned(),
            config(&[&id]),
            "not valid JSON",
        ),
        ("none", "[]".to_owned(), config(&[&id]), "holds no image"),
        ("deep", usual.clone(), deep.clone(), "not valid JSON"),
        ("deep manifest", deep, config(&[&id]), "not valid JSON"),
    ] {
        let archive = archive(&layer, &config, &manifest);
        fs::write(place.path("i.tar"), archive).unwrap();
        let answer = place.plywood(&["image", "load", "i.tar"]);
        let text = refused_with_hint(&answer);
        assert!(text.contains("`i.tar`"), "{what}: {text}");
        assert!(text.contains(expected), "{what}: {text}");
    }
    for kind in ["images", "layers"] {
        assert_eq!(place.plywood(&[kind]).ok().out, "");
    }
    check_store(&place, false);
}

fn archive(layer: &[u8], config: &str, manifest: &str) -> Vec<u8> {
    tar_of(&[
        ("l.tar", Some(layer)),
        ("c.json", Some(config.as_bytes())),
        ("manifest.json", Some(manifest.as_bytes())),
    ])
}
