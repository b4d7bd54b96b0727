// SPDX-License-Identifier: Apache-2.0
//! Streams of every dialect and ending that tools in the field write.

use tar::EntryType;

use crate::tar_file::{Dialect, Entry, TarFile};

const DIALECTS: [(&str, Dialect); 4] = [
    ("v7", Dialect::V7),
    ("ustar", Dialect::Ustar),
    ("pax", Dialect::Pax),
    ("gnu", Dialect::Gnu),
];

/// Streams by name, each a whole layer.
pub(super) fn streams() -> Vec<(String, Vec<u8>)> {
    let mut streams = Vec::new();
    for (name, dialect) in DIALECTS {
        streams.push((format!("{name}-plain"), plain(dialect).done()));
    }
    for (name, dialect) in &DIALECTS[1..] {
        streams.push((format!("{name}-rich"), rich(*dialect).done()));
    }
    for (name, dialect) in &DIALECTS[2..] {
        streams.push((format!("{name}-large"), large(*dialect).done()));
    }
    streams.extend(endings());
    streams.extend(odd_headers());
    streams
}

/// What the oldest dialect can hold too.
fn plain(dialect: Dialect) -> TarFile {
    let add = |tar: TarFile, entry: Entry| tar.add(entry.dialect(dialect));
    let mut tar = add(TarFile::of(dialect), Entry::directory("d/"));
    for size in [0, 1, 511, 512, 513, 70_000] {
        tar = add(tar, Entry::file(format!("d/{size}"), vec![b'c'; size]));
    }
    let tar = add(tar, Entry::symlink("d/soft", "512"));
    add(tar, Entry::hard_link("hard", "d/513"))
}

fn rich(dialect: Dialect) -> TarFile {
    let split = format!("{}/{}", "p".repeat(90), "n".repeat(99));
    let entries = [
        Entry::directory("./"),
        Entry::directory("p/")
            .owner(1000, 100)
            .owner_names("user", "group"),
        Entry::directory(format!("{}/", "p".repeat(90))),
        Entry::file(split, b"split"),
        Entry::new(EntryType::Char, "p/null")
            .device(1, 3)
            .mode(0o666),
        Entry::new(EntryType::Block, "p/disk").device(8, 1),
        Entry::new(EntryType::Fifo, "p/pipe"),
        Entry::file("p/setuid", b"x").mode(0o6755),
        Entry::file("p/.wh.removed", b""),
        Entry::file("p/.wh..wh..opq", b""),
        Entry::file("mode-with-type", b"1").mode(0o100_644),
    ];
    let all = entries.into_iter();
    all.fold(TarFile::of(dialect), |tar, entry| {
        tar.add(entry.dialect(dialect))
    })
}

/// What needs the long forms.
fn large(dialect: Dialect) -> TarFile {
    let deep = vec!["d".repeat(200); 4].join("/");
    let entries = [
        Entry::file("n".repeat(255), b"long name"),
        Entry::symlink("long-target", "t".repeat(500)),
        Entry::file(format!("{deep}/file"), b"deep"),
        Entry::file("owner", b"o").owner(4_294_967_294, 2_097_152),
        Entry::file("late", b"l").mtime(1 << 34),
        Entry::hard_link("link", "n".repeat(255)),
    ];
    let all = entries.into_iter();
    all.fold(TarFile::of(dialect), |tar, entry| {
        tar.add(entry.dialect(dialect))
    })
}

/// How streams end: without a mark, with half of one, padded to a record, with what follows.
fn endings() -> Vec<(String, Vec<u8>)> {
    let tar = || TarFile::new().directory("d/").file("d/file", b"content");
    let zeros = |count: usize| vec![0; count];
    let mut unpadded = tar().unended();
    // The last content block is cut where the content ends.
    unpadded.truncate(unpadded.len() - 512 + 7);
    [
        ("no-end", tar().unended()),
        ("half-end", tar().raw(&zeros(512)).unended()),
        ("record", tar().raw(&zeros(10_240)).unended()),
        ("megabyte", tar().raw(&zeros(1 << 20)).unended()),
        ("odd-end", tar().raw(&zeros(1024 + 77)).unended()),
        (
            "text-after-end",
            tar().raw(&zeros(1024)).raw(b"what follows").unended(),
        ),
        ("unpadded", unpadded),
        ("nothing", Vec::new()),
        ("only-end", TarFile::new().done()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .to_vec()
}

/// Headers that are valid, and not as our own tools write them.
fn odd_headers() -> Vec<(String, Vec<u8>)> {
    let file = || Entry::file("file", b"content");
    // A header's padding may hold anything that its sum counts.
    let noise = file().patch(500, [0xaa; 12]);
    let blanks = file().patch(108, b"   17 \0 ").patch(124, b"          7 ");
    let times = file()
        .record("mtime", "1234567890.123456789")
        .record("atime", "1.5");
    let unknown = file()
        .record("VENDOR.key", b"\0any\xffthing")
        .record("comment", "text");
    let xattr = file().xattr("user.a", b"1\n2=3\0").xattr("user.b", b"");
    let dotted = TarFile::new()
        .add(Entry::directory("./a//b/"))
        .add(Entry::file("/a/absolute", b"1"))
        .add(Entry::file("a/./b/../cleaned", b"2"));
    let sparse = Entry::file("sparse", vec![b's'; 512])
        .dialect(Dialect::Pax)
        .record("GNU.sparse.major", "0")
        .record("GNU.sparse.minor", "1")
        .record("GNU.sparse.name", "sparse")
        .record("GNU.sparse.size", "1049088")
        .record("GNU.sparse.numblocks", "1")
        .record("GNU.sparse.map", "1048576,512");
    let one = |entry: Entry| TarFile::new().add(entry).done();
    [
        ("noise-in-header", one(noise.dialect(Dialect::Ustar))),
        ("blanks-in-numbers", one(blanks)),
        ("old-type", one(file().kind(0))),
        ("contiguous", one(Entry::directory("x/").claims(0))),
        ("fractions", one(times)),
        ("unknown-records", one(unknown)),
        ("attributes", one(xattr)),
        ("dotted-names", dotted.done()),
        (
            "global",
            TarFile::new()
                .global(&[("comment", "of everything")])
                .add(file())
                .done(),
        ),
        ("sparse", one(sparse)),
        ("link-with-size", one_link()),
    ]
    .map(|(name, bytes)| (name.to_owned(), bytes))
    .to_vec()
}

/// Some tools repeat the size of the file in its links, where no content follows.
fn one_link() -> Vec<u8> {
    TarFile::new()
        .file("file", b"content")
        .add(Entry::hard_link("link", "file").claims(7))
        .done()
}
