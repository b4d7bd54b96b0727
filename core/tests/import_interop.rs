// SPDX-License-Identifier: Apache-2.0
//! The same tar gives the same tree, record and tar-split as containers-storage gives.

use std::{io::Write as _, path::Path};

use plywood::{
    ErrorKind,
    archive::import::{ImportOptions, import},
    sdk::{IdMaps, WhiteoutForm},
    tar_split::assemble::assemble,
};

use super::import_support::{
    Item, Oracle, Scratch, assert_same_record, assert_same_split, assert_same_tree, bytes, dir,
    file, hardlink, header, item, symlink, tar,
};

const FORMS: [(&str, WhiteoutForm); 2] = [
    ("overlay", WhiteoutForm::Overlay),
    ("vfs", WhiteoutForm::Removal),
];

/// Imports `layer` with both tools, on both drivers, and compares everything.
fn compare(name: &str, layer: &[u8]) {
    for (driver, form) in FORMS {
        compare_on(name, layer, driver, form);
    }
}

fn compare_on(name: &str, layer: &[u8], driver: &'static str, form: WhiteoutForm) {
    let name = format!("{name} on {driver}");
    let scratch = Scratch::new();
    let oracle = Oracle::new(driver);
    let ours = scratch.import(form, layer);
    let theirs = oracle.import("one", None, layer);
    match (ours, theirs) {
        (Ok((imported, split)), Ok(verdict)) => {
            assert_same_record(&name, &imported, &verdict.record);
            assert_same_split(&name, &split, &verdict.tar_split);
            let mut ours = scratch.tree();
            if let (Some(ours), Some(theirs)) = (
                ours.get_mut(Path::new(".")),
                verdict.tree.get(Path::new(".")),
            ) {
                // Version 1.43 sets it and then changes the directory once more.
                ours.mtime = theirs.mtime;
            }
            assert_same_tree(&name, &ours, &verdict.tree, form == WhiteoutForm::Removal);
        }
        (Err(ours), Err(_)) if ours.kind() != ErrorKind::InvalidArchive => {}
        (Err(ours), Err(theirs)) => {
            assert!(
                theirs.contains(&ours.to_string()),
                "{name}: {ours:?} against {theirs}"
            );
        }
        (Ok(_), Err(theirs)) => panic!("{name}: only refused by containers-storage: {theirs}"),
        (Err(ours), Ok(_)) => panic!("{name}: only refused by us: {ours:?}"),
    }
}

/// Upstream begins a new segment where its first read of 10,240 bytes ended; only the division
/// differs.
#[test]
fn interop_root_long_blocking() {
    let layer = [bytes(&file("f", "12345")), vec![0; 40_000]].concat();
    let (_, split) = Scratch::new()
        .import(WhiteoutForm::Overlay, &layer)
        .unwrap();
    let theirs = Oracle::new("overlay")
        .import("one", None, &layer)
        .ok()
        .unwrap();
    assert_eq!(rebuilt(&split), rebuilt(&theirs.tar_split));
}

/// The segments of a record, joined.
fn rebuilt(split: &[u8]) -> Vec<u8> {
    let lines = split
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    let mut bytes = Vec::new();
    for line in lines {
        let line: serde_json::Value = serde_json::from_slice(line).unwrap();
        if line["type"] == 2 {
            let payload = line["payload"].as_str().unwrap();
            let payload = data_encoding::BASE64.decode(payload.as_bytes()).unwrap();
            bytes.extend_from_slice(&payload);
        }
    }
    bytes
}

/// Every kind of file, with attributes that differ from what creating them gives.
pub(crate) fn everything() -> Vec<Item> {
    vec![
        dir("./").mode(0o750).mtime(1_500_000_000),
        dir("d/")
            .mode(0o2775)
            .owner(3, 4)
            .pax("mtime", "1600000000.123456789"),
        file("d/f", "hello\n").mode(0o4755).owner(1000, 1001),
        file("d/empty", "").mode(0),
        file("d/ns", "x")
            .pax("mtime", "1600000001.987654321")
            .pax("atime", "1700000000.5"),
        file("d/old", "x").mtime(-1000),
        symlink("d/s", "f")
            .owner(7, 8)
            .pax("mtime", "1600000002.25"),
        symlink("dangling", "/nowhere/at/all"),
        hardlink("d/h", "d/f")
            .mode(0o644)
            .owner(5, 6)
            .mtime(1_600_000_009),
        hardlink("hs", "d/s"),
        item(b'3', "null").device(1, 3).mode(0o666),
        item(b'4', "loop").device(7, 300).owner(0, 6),
        item(b'6', "fifo").mode(0o620),
        file("attributes", "x")
            .pax("SCHILY.xattr.user.a", "value\0with nul")
            .pax("SCHILY.xattr.trusted.b", "t")
            .pax("SCHILY.xattr.security.selinux", "ignored")
            .pax("SCHILY.xattr.security.capability", capability()),
        dir("attributes.d/").pax("SCHILY.xattr.trusted.d", "d"),
        symlink("attributes.s", "x").pax("SCHILY.xattr.trusted.s", "s"),
        file("sticky", "").mode(0o1777),
        file("big-ids", "")
            .pax("uid", "3000000")
            .pax("gid", "4294967294"),
        file("no/parents/here", "x"),
        dir("closed/").mode(0),
        file("closed/inside", "x"),
    ]
}

/// `cap_net_raw=ep`, version 2.
fn capability() -> [u8; 20] {
    let mut value = [0; 20];
    value[..4].copy_from_slice(&[1, 0, 0, 2]);
    value[4..8].copy_from_slice(&[0, 0x20, 0, 0]);
    value
}

#[test]
fn interop_root_every_kind_of_file() {
    compare("everything", &tar(&everything()));
}

#[test]
fn interop_root_names() {
    let long = "l".repeat(200);
    let deep = vec!["d".repeat(60); 40].join("/");
    let items = [
        file("plain", "1"),
        file("./dotted/x", "2"),
        file("/absolute", "3"),
        file("a//double///slash", "4"),
        file("b/../c", "5"),
        file("/../above", "6"),
        file("<&>\"\\ \u{e9}\u{2028}\u{7f}", "7"),
        file("short", "8").pax("path", format!("pax/{long}")),
        file("short", "9").pax("path", &deep),
        Item {
            name: b"raw-\xff\xfe".to_vec(),
            ..file("", "10")
        },
        file("new\nline\ttab", "11"),
        symlink("link", "x").pax("linkpath", "t".repeat(300)),
        file(".whx", "not a whiteout"),
    ];
    compare("names", &tar(&items));
}

#[test]
fn interop_root_gnu_and_ustar_names() {
    let gnu = |block: &mut [u8; 512]| block[257..265].copy_from_slice(b"ustar  \0");
    let long_name = [&b"gnu/"[..], &[b'n'; 250], b"\0"].concat();
    let long_link = [&b"to/"[..], &[b't'; 250], b"\0"].concat();
    let mut layer = Vec::new();
    for (flag, content) in [(b'L', &long_name), (b'K', &long_link)] {
        let long = Item {
            content: content.clone(),
            ..item(flag, "././@LongLink")
        };
        layer.extend_from_slice(&header(&long, gnu));
        layer.extend_from_slice(content);
        layer.resize(layer.len().next_multiple_of(512), 0);
    }
    layer.extend_from_slice(&header(&symlink("cut", "cut"), gnu));
    let prefix = |block: &mut [u8; 512]| block[345..351].copy_from_slice(b"prefix");
    layer.extend_from_slice(&header(&file("in-prefix", ""), prefix));
    let times = |block: &mut [u8; 512]| {
        gnu(block);
        block[345..357].copy_from_slice(b"14000000000\0");
    };
    layer.extend_from_slice(&header(&file("gnu-times", ""), times));
    let old = |block: &mut [u8; 512]| block[257..265].fill(0);
    layer.extend_from_slice(&header(&item(0, "v7-directory/"), old));
    layer.extend_from_slice(&header(&item(0, "v7-file"), old));
    layer.extend_from_slice(&[0; 1024]);
    compare("gnu", &layer);
}

#[test]
fn interop_root_ends_of_streams() {
    let one = bytes(&file("f", "12345"));
    let zeros = |count: usize| vec![0_u8; count];
    let cases: [(&str, Vec<u8>); 9] = [
        ("nothing", Vec::new()),
        ("only an end mark", zeros(1024)),
        ("one zero block", [one.clone(), zeros(512)].concat()),
        ("no end mark", one.clone()),
        ("blocked", [one.clone(), zeros(10240 - 1024)].concat()),
        (
            "garbage after the end",
            [one.clone(), zeros(1024), b"junk".repeat(99)].concat(),
        ),
        (
            "zero block in the middle",
            [one.clone(), zeros(512), one.clone()].concat(),
        ),
        ("cut in the content", one[..515].to_vec()),
        ("cut in a header", one[..100].to_vec()),
    ];
    for (name, layer) in cases {
        compare(name, &layer);
    }
}

#[test]
fn interop_root_global_headers() {
    let global = |name: &str| Item {
        content: b"28 comment=0123456789abcdef\n".to_vec(),
        ..item(b'g', name)
    };
    let owned = |name: &str| file(name, "x").owner(1, 1);
    compare("one", &tar(&[global("pax_global_header"), owned("f")]));
    compare(
        "two",
        &tar(&[global("g1"), owned("f"), global("g2"), owned("h")]),
    );
    compare("same name", &tar(&[global("g"), owned("f"), global("g")]));
}

#[test]
fn interop_root_sizes_of_entries_without_content() {
    for flag in [b'1', b'2', b'5', b'6'] {
        let odd = Item {
            claimed: Some(7),
            link: b"f".to_vec(),
            ..item(flag, "odd")
        };
        let layer = tar(&[file("f", "x"), odd, file("z", "y")]);
        let (scratch, oracle) = (Scratch::new(), Oracle::new("overlay"));
        let (imported, split) = scratch.import(WhiteoutForm::Overlay, &layer).unwrap();
        let verdict = oracle.import("one", None, &layer).ok().unwrap();
        assert_same_record("sizes", &imported, &verdict.record);
        assert_same_tree("sizes", &scratch.tree(), &verdict.tree, false);
        // Upstream records the claimed size and then cannot rebuild the tar.
        let theirs = String::from_utf8(verdict.tar_split).unwrap();
        let claimed = "\"name\":\"odd\",\"size\":7,\"payload\":\"AAAAAAAAAAA=\"";
        assert!(theirs.contains(claimed), "type {flag}");
        let corrected = theirs.replace(claimed, "\"name\":\"odd\",\"payload\":null");
        assert_same_split("sizes", &split, corrected.as_bytes());
    }
}

/// The trees are the same; the record is not, since upstream's gives another stream back, and ours
/// gives back the one that came, by either tool.
fn compare_sparse(name: &str, layer: &[u8]) {
    for (driver, form) in FORMS {
        let (scratch, oracle) = (Scratch::new(), Oracle::new(driver));
        let (target, maps) = (scratch.target(form), IdMaps::default());
        let mut record = Vec::new();
        let imported = import(layer, &ImportOptions::new(&target, &maps), &mut record).unwrap();
        let verdict = oracle.import("one", None, layer).ok().unwrap();
        assert_same_record(name, &imported, &verdict.record);
        let root = form == WhiteoutForm::Removal;
        let mut ours = scratch.tree();
        if let Some(ours) = ours.get_mut(Path::new(".")) {
            ours.mtime = verdict.tree[Path::new(".")].mtime;
        }
        assert_same_tree(name, &ours, &verdict.tree, root);
        let mut back = Vec::new();
        assemble(&record[..], &[scratch.root()], &mut back).unwrap();
        assert!(back == layer, "{name} on {driver}: rebuilt by us");
        let theirs = oracle.rebuild("one", &record);
        assert!(theirs == layer, "{name} on {driver}: rebuilt by upstream");
    }
}

#[test]
fn interop_root_sparse_files() {
    let sparse = |content: &str| file("GNUSparseFile.0/s", content);
    let in_header = sparse("datatail")
        .pax("GNU.sparse.major", "0")
        .pax("GNU.sparse.minor", "1")
        .pax("GNU.sparse.name", "sparse01")
        .pax("GNU.sparse.size", "100000")
        .pax("GNU.sparse.numblocks", "2")
        .pax("GNU.sparse.map", "10,4,5000,4");
    let map = format!("{:\0<512}", "2\n0\n4\n600\n4\n");
    let in_content = sparse(&format!("{map}headtail"))
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "sparse10")
        .pax("GNU.sparse.realsize", "604");
    let pairs = sparse("ab")
        .pax("GNU.sparse.size", "9")
        .pax("GNU.sparse.numblocks", "1")
        .pax("GNU.sparse.offset", "3")
        .pax("GNU.sparse.numbytes", "2");
    compare_sparse("0.1", &tar(&[in_header, file("after", "x")]));
    compare_sparse("1.0", &tar(&[in_content, file("after", "x")]));
    compare_sparse("0.0", &tar(&[pairs, file("after", "x")]));
    let too_much = sparse("abcdef")
        .pax("GNU.sparse.size", "9")
        .pax("GNU.sparse.numblocks", "1")
        .pax("GNU.sparse.map", "3,2");
    let error = Scratch::new()
        .import(WhiteoutForm::Overlay, &tar(&[too_much]))
        .unwrap_err();
    assert_eq!(error.to_string(), "archive/tar: invalid tar header");
    let old = |block: &mut [u8; 512]| {
        block[257..265].copy_from_slice(b"ustar  \0");
        block[483..495].copy_from_slice(b"00000000000\0");
    };
    let old = [&header(&item(b'S', "old"), old)[..], &[0; 1024]].concat();
    compare("old", &old);
}

#[test]
fn interop_root_compressed_streams() {
    let plain = tar(&everything());
    let gzip = |content: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    };
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    let (first, second) = plain.split_at(5000);
    let cases: [(&str, Vec<u8>); 7] = [
        ("gzip", gzip(&plain)),
        ("two members", [gzip(first), gzip(second)].concat()),
        ("bzip2", bzip2.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("zstd", zstd::encode_all(&plain[..], 1).unwrap()),
        (
            "two frames",
            [
                zstd::encode_all(first, 1).unwrap(),
                zstd::encode_all(second, 1).unwrap(),
            ]
            .concat(),
        ),
        ("gzip of nothing", gzip(b"")),
    ];
    for (name, layer) in cases {
        compare_on(name, &layer, "overlay", WhiteoutForm::Overlay);
    }
}

#[test]
fn interop_root_whiteouts() {
    let items = [
        dir("d/"),
        item(b'0', "d/.wh.gone").owner(9, 10).mode(0),
        item(b'0', "d/.wh..wh..opq"),
        file("d/new", "x"),
        item(b'0', ".wh.top"),
    ];
    compare("whiteouts", &tar(&items));
    // Where deletions remove, they need no directory; the other program makes one.
    let items = [
        item(b'0', "implied/.wh.x").owner(77, 78),
        item(b'0', ".wh.top/.wh.below").owner(79, 80),
    ];
    let overlay = WhiteoutForm::Overlay;
    compare_on("whiteouts elsewhere", &tar(&items), "overlay", overlay);
    compare_on(
        "whiteout below a whiteout",
        &tar(&[item(b'0', ".wh.a"), item(b'0', "a/.wh.b")]),
        "overlay",
        WhiteoutForm::Overlay,
    );
    compare_on(
        "aufs names on overlay",
        &tar(&[dir(".wh..wh.plnk/"), item(b'0', ".wh..wh.aufs")]),
        "overlay",
        WhiteoutForm::Overlay,
    );
}

#[test]
fn interop_root_replacing() {
    let items = [
        symlink("through", "real"),
        dir("real/"),
        file("through/f", "1"),
        file("real/f", "2"),
        symlink("absolute", "/real"),
        file("absolute/g", "3"),
        hardlink("through/h", "absolute/g"),
        file("was-file", "x"),
        dir("real/was-file"),
        file("through/was-file", "now a file"),
    ];
    compare("replacing", &tar(&items));
}

/// What looks odd but is accepted, and what only the kernel refuses.
#[test]
fn interop_root_odd_entries() {
    let cases: [(&str, Vec<Item>); 16] = [
        ("duplicate", vec![file("a", "1"), file("./a", "2")]),
        ("directory twice", vec![dir("d/"), dir("d")]),
        ("file as parent", vec![file("f", "x"), file("f/x", "y")]),
        (
            "dangling parent",
            vec![symlink("s", "nowhere"), file("s/x", "y")],
        ),
        (
            "link to itself",
            vec![file("a", "x"), hardlink("./d/../a", "a")],
        ),
        (
            "link before its target",
            vec![hardlink("h", "f"), file("f", "x")],
        ),
        ("link to a directory", vec![dir("d/"), hardlink("h", "d")]),
        (
            "link through a link",
            vec![
                dir("d/"),
                file("d/f", "x"),
                symlink("s", "/d"),
                hardlink("h", "s/f"),
            ],
        ),
        ("absolute link", vec![file("f", "x"), hardlink("h", "/f")]),
        ("symlink out", vec![symlink("s", "../../../../etc/passwd")]),
        ("empty target", vec![symlink("s", "")]),
        (
            "long target",
            vec![symlink("s", "x").pax("linkpath", "t".repeat(4096))],
        ),
        (
            "unknown attribute",
            vec![file("f", "x").pax("SCHILY.xattr.nonsense", "x")],
        ),
        (
            "broken acl",
            vec![file("f", "x").pax("SCHILY.xattr.system.posix_acl_access", "x")],
        ),
        ("empty name", vec![dir("")]),
        (
            "file over directory",
            vec![dir("d/"), file("d/f", "x"), file("d/../d/.", "now a file")],
        ),
    ];
    for (name, items) in cases {
        compare(name, &tar(&items));
    }
}

/// vfs unpacks into a copy of the parent.
#[test]
fn interop_root_second_layer_on_vfs() {
    let base = tar(&[
        dir("d/").owner(1, 2),
        file("d/gone", "x"),
        file("d/kept", "x"),
        dir("d/sub/"),
        file("d/sub/f", "x"),
        dir("opaque/"),
        file("opaque/old", "x"),
        dir("opaque/both/"),
        file("opaque/both/old", "x"),
        file("becomes-dir", "x"),
        dir("becomes-file/"),
        file("becomes-file/x", "x"),
        symlink("becomes-real", "d"),
        file("linked", "content"),
        symlink("to-d", "d"),
    ]);
    let upper = tar(&[
        item(b'0', "d/.wh.gone"),
        item(b'0', "d/.wh.sub"),
        item(b'0', "d/.wh.never-there"),
        dir("opaque/").mode(0o700),
        item(b'0', "opaque/.wh..wh..opq"),
        dir("opaque/both/"),
        file("opaque/both/new", "y"),
        file("opaque/new", "y"),
        dir("becomes-dir/"),
        file("becomes-file", "y"),
        dir("becomes-real/"),
        hardlink("second-name", "linked").owner(3, 4),
        file("to-d/through", "y"),
        dir("d/").mode(0o711).owner(5, 6),
    ]);
    let scratch = Scratch::new();
    let oracle = Oracle::new("vfs");
    scratch.import(WhiteoutForm::Removal, &base).unwrap();
    oracle.import("base", None, &base).ok().unwrap();
    scratch.import(WhiteoutForm::Removal, &upper).unwrap();
    let verdict = oracle.import("upper", Some("base"), &upper);
    let theirs = verdict.map_err(|error| panic!("{error}")).unwrap().tree;
    assert_same_tree("upper", &scratch.tree(), &theirs, true);
}

#[test]
fn interop_root_a_link_to_a_lower_file_fails_on_overlay() {
    let oracle = Oracle::new("overlay");
    oracle
        .import("base", None, &tar(&[file("lower", "x")]))
        .ok()
        .unwrap();
    let upper = tar(&[hardlink("second", "lower")]);
    let theirs = oracle.import("upper", Some("base"), &upper).err().unwrap();
    assert!(theirs.contains("no such file or directory"), "{theirs}");
    let error = Scratch::new()
        .import(WhiteoutForm::Overlay, &upper)
        .unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(
        error.to_string().starts_with("cannot link to \"lower\""),
        "{error}"
    );
    assert!(cause.contains("No such file"), "{cause}");
}
