// SPDX-License-Identifier: Apache-2.0
//! A record and a layer's files give the original stream, or an error that names the file.

use std::{
    error::Error as _,
    fs,
    io::{self, Write},
    os::unix::fs::symlink,
    path::PathBuf,
};

use plywood::{Error, ErrorKind, tar_split::assemble::assemble};
use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::export_support::{Peer, Record, gzip, has_peer, write_below};

/// A layer of two directories, and the record of its stream.
struct Layer {
    root: TempDir,
    record: Record,
}

impl Layer {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("upper")).unwrap();
        fs::create_dir(root.path().join("lower")).unwrap();
        Self {
            root,
            record: Record::default(),
        }
    }

    /// A layer with one file between two segments.
    fn with(name: &str, content: &[u8]) -> Self {
        let mut layer = Self::new();
        layer.record.segment(&[1; 512]);
        layer.add("upper", name.as_bytes(), content);
        layer.record.segment(&[0; 1024]);
        layer
    }

    fn add(&mut self, root: &str, name: &[u8], content: &[u8]) {
        write_below(&self.root.path().join(root), name, content);
        self.record.file(name, content);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("upper").join(name)
    }

    fn roots(&self) -> [PathBuf; 2] {
        ["upper", "lower"].map(|name| self.root.path().join(name))
    }

    fn assemble(&self) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        let count = assemble(&self.record.packed()[..], &self.roots(), &mut out)?;
        assert_eq!(count, out.len() as u64);
        Ok(out)
    }

    fn refused(&self, sentence: &str) {
        let error = self.assemble().unwrap_err();
        assert_eq!(error.to_string(), sentence);
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.remedy().is_some());
    }
}

fn contents() -> impl Strategy<Value = Vec<u8>> {
    let sizes = prop_oneof![
        8 => 0..600_usize,
        2 => 65_530..65_545_usize,
        1 => 262_000..263_000_usize,
        1 => 524_288..600_000_usize,
    ];
    (sizes, any::<u8>()).prop_map(|(size, seed)| {
        (0..size)
            .map(|at| seed.wrapping_add(u8::try_from(at * 7 % 251).unwrap()))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the sizes, splits and places of files, every byte comes back in order.
    #[test]
    fn any_stream_comes_back(
        entries in prop::collection::vec((any::<bool>(), contents(), 0..2000_usize), 0..60),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut layer = Layer::new();
        for (number, (upper, content, header)) in entries.iter().enumerate() {
            layer.record.segment(&vec![u8::try_from(number).unwrap(); *header]);
            let name = format!("d{}/<&>\u{e4} {number}", number % 3);
            layer.add(if *upper { "upper" } else { "lower" }, name.as_bytes(), content);
        }
        let text = layer.record.text();
        let (first, second) = text.split_at(cut.index(text.len()));
        let packed = [gzip(first), gzip(second)].concat();
        let mut out = Vec::new();
        let count = assemble(&packed[..], &layer.roots(), &mut out).unwrap();
        prop_assert_eq!(count, out.len() as u64);
        prop_assert!(out == layer.record.stream);
    }
}

/// Names in a tar need not be clean, nor UTF-8.
#[test]
fn unclean_names_are_found() {
    let mut layer = Layer::new();
    for (name, place) in [
        (&b"./a/b"[..], &b"a/b"[..]),
        (b"/abs", b"abs"),
        (b"x/../y//z", b"y/z"),
        (b"../../up", b"up"),
        (b"\xff\xfe", b"\xff\xfe"),
        (b"slash/", b"slash"),
    ] {
        let content = [name, b" content"].concat();
        write_below(&layer.root.path().join("upper"), place, &content);
        layer.record.file(name, &content);
    }
    assert_eq!(layer.assemble().unwrap(), layer.record.stream);
}

/// A pull over a symlinked directory has put files behind the symlink.
#[test]
fn a_symlinked_directory_inside_the_layer_is_followed() {
    let mut layer = Layer::with("usr/lib/x", b"content");
    symlink("usr/lib", layer.path("lib")).unwrap();
    layer.record.file(b"lib/x", b"content");
    assert_eq!(layer.assemble().unwrap(), layer.record.stream);
}

/// What a container wrote must not make a diff hand out files of the host.
#[test]
fn no_symlink_leads_out_of_the_layer() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "content").unwrap();
    let mut layer = Layer::new();
    symlink(outside.path(), layer.path("dir")).unwrap();
    layer.record.file(b"dir/secret", b"content");
    layer.refused("file \"dir/secret\" is missing from the layer");

    let mut layer = Layer::new();
    symlink(outside.path().join("secret"), layer.path("link")).unwrap();
    layer.record.file(b"link", b"content");
    layer.refused("file \"link\" is a symlink where the record has a file");
}

/// Someone edited a file of a stored layer: its digest can no longer be met.
#[test]
fn a_changed_file_is_named() {
    for size in [10, 300_000] {
        let layer = Layer::with("dir/file \"1\"", &vec![b'a'; size]);
        let path = layer.path("dir/file \"1\"");
        let mut content = vec![b'a'; size];
        content[size - 1] = b'b';
        fs::write(&path, content).unwrap();
        let error = layer.assemble().unwrap_err();
        assert_eq!(
            error.to_string(),
            "file integrity checksum failed for \"dir/file \\\"1\\\"\""
        );
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.about(), path.to_str());
        assert!(error.remedy().unwrap().contains("pull it again"));
    }
}

#[test]
fn a_file_that_grew_gives_what_was_recorded() {
    for size in [10, 300_000] {
        let layer = Layer::with("f", &vec![b'a'; size]);
        fs::write(layer.path("f"), vec![b'a'; size + 1]).unwrap();
        assert_eq!(layer.assemble().unwrap(), layer.record.stream);
    }
}

#[test]
fn damaged_files_are_refused_by_name() {
    for size in [10, 300_000] {
        let layer = Layer::with("f", &vec![b'a'; size]);
        fs::write(layer.path("f"), vec![b'a'; size - 1]).unwrap();
        layer.refused("file \"f\" is shorter than the record says");
        fs::remove_file(layer.path("f")).unwrap();
        layer.refused("file \"f\" is missing from the layer");
        fs::create_dir(layer.path("f")).unwrap();
        layer.refused("file \"f\" is not a regular file any more");
        fs::remove_dir(layer.path("f")).unwrap();
        mknodat(CWD, layer.path("f"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        // Must not wait for a writer.
        layer.refused("file \"f\" is shorter than the record says");
    }
}

#[test]
fn damaged_records_say_where() {
    let layer = Layer::with("f", b"content");
    let packed = layer.record.packed();
    let cases: [(&[u8], &str); 4] = [
        (b"no gzip", "it cannot be decompressed"),
        (&packed[..packed.len() - 9], "it cannot be decompressed"),
        (
            &gzip(b"{\"type\":2}\n{\"type\":2}\n"),
            "line 2 has position 0",
        ),
        (
            &gzip(b"{\"type\":2,\"payload\":\"?\",\"position\":0}\n"),
            "line 1 has a payload that is not base64",
        ),
    ];
    for (record, text) in cases {
        let error = assemble(record, &layer.roots(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "the tar-split record is damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert_eq!(error.source().unwrap().to_string(), text);
    }
}

#[test]
fn an_empty_record_is_an_empty_stream() {
    for record in [
        gzip(b""),
        gzip(b"{\"type\":2,\"payload\":\"\",\"position\":0}\n"),
    ] {
        let mut out = Vec::new();
        assert_eq!(assemble(&record[..], &[], &mut out).unwrap(), 0);
        assert!(out.is_empty());
    }
}

/// The reader of the stream went away: all threads must end.
#[test]
fn a_failing_output_ends_the_work() {
    struct Closed(usize);

    impl Write for Closed {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut layer = Layer::new();
    for number in 0..200 {
        layer.record.segment(&[0; 1536]);
        let content = vec![b'a'; if number % 50 == 0 { 900_000 } else { 20_000 }];
        layer.add("upper", format!("f{number}").as_bytes(), &content);
    }
    for room in [0, 300_000, 3_000_000] {
        let packed = layer.record.packed();
        let error = assemble(&packed[..], &layer.roots(), &mut Closed(room)).unwrap_err();
        assert_eq!(error.to_string(), "cannot write the tar stream");
        assert_eq!(error.kind(), ErrorKind::Io);
    }
}

/// A layer that podman stored must come out with the digest it came in with.
#[test]
fn interop_records_of_the_other_program_give_the_digest_back() {
    if !has_peer() {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    crate::export_support::run_script(
        place.path(),
        "mkdir -p t/d/e t/$(printf 'l%.0s' {1..120}); echo content > t/d/f; ln t/d/f t/d/hard
         ln -s f t/d/soft; head -c 300000 /dev/urandom > t/big; : > t/empty; mkfifo t/fifo
         echo x > \"t/<&> \u{e4}\"; echo y > $'t/\\xff\\xfe'; echo z > t/$(printf 'l%.0s' {1..120})/f
         setfattr -n user.k -v v t/d/f
         tar --format=pax --xattrs -cf pax.tar -C t .; tar --format=gnu -cf gnu.tar -C t .
         cp gnu.tar tail.tar; echo garbage >> tail.tar; tar --format=ustar -b1 -cf one.tar -C t d
         truncate -s -1024 one.tar",
    );
    for driver in ["overlay", "vfs"] {
        let peer = Peer::new(driver);
        for name in ["pax", "gnu", "tail", "one"] {
            let tar = place.path().join(format!("{name}.tar"));
            let id = peer.word(&["import-layer", "-f", tar.to_str().unwrap()]);
            let home = peer.graph().join(driver);
            let root = match driver {
                "vfs" => home.join("dir").join(&id),
                _ => home.join(&id).join("diff"),
            };
            let record = peer
                .graph()
                .join(format!("{driver}-layers/{id}.tar-split.gz"));
            let mut out = Vec::new();
            assemble(fs::File::open(record).unwrap(), &[root], &mut out).unwrap();
            let expected = fs::read(tar).unwrap();
            assert_eq!(
                Sha256::digest(out),
                Sha256::digest(expected),
                "{driver} {name}"
            );
        }
    }
}
