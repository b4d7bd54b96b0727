// SPDX-License-Identifier: Apache-2.0
//! No record, however damaged, makes the assembly panic, hang or read outside the layer.

use std::path::PathBuf;

use plywood::{ErrorKind, tar_split::assemble::assemble};
use proptest::{prelude::*, sample::Index};
use tempfile::TempDir;

use crate::export_support::{Record, gzip, write_below};

struct Layer {
    root: TempDir,
    record: Record,
}

fn layer() -> Layer {
    let root = tempfile::tempdir().unwrap();
    let mut record = Record::default();
    for number in 0..6_u8 {
        record.segment(&vec![number; 512 + usize::from(number) * 100]);
        let content = vec![number; usize::from(number) * 20_000];
        let name = format!("d/f{number}<");
        write_below(root.path(), name.as_bytes(), &content);
        record.file(name.as_bytes(), &content);
    }
    record.segment(&[0; 1024]);
    Layer { root, record }
}

/// One way to damage a record.
#[derive(Clone, Debug)]
enum Damage {
    Flip(Index, u8),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Swap(Index, Index),
    Repeat(Index),
    Replace(Index, &'static str),
    Truncate(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), 1..=255_u8).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, count)| Damage::Remove(at, count)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (any::<Index>(), any::<Index>()).prop_map(|(one, two)| Damage::Swap(one, two)),
        any::<Index>().prop_map(Damage::Repeat),
        (
            any::<Index>(),
            prop::sample::select(vec![
                "-1",
                "18446744073709551616",
                "9223372036854775807",
                "1e3",
                "null",
                "{}",
                "\"\\ud800\"",
                "\"../../etc/passwd\"",
            ])
        )
            .prop_map(|(at, text)| Damage::Replace(at, text)),
        any::<Index>().prop_map(Damage::Truncate),
    ]
}

impl Damage {
    fn apply(&self, text: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, bits) => {
                let at = at.index(text.len());
                text[at] ^= bits;
            }
            Self::Remove(at, count) => {
                let at = at.index(text.len());
                text.drain(at..(at + count).min(text.len()));
            }
            Self::Insert(at, bytes) => {
                let at = at.index(text.len());
                drop(text.splice(at..at, bytes.iter().copied()));
            }
            Self::Swap(one, two) => {
                let mut lines = lines(text);
                let count = lines.len();
                lines.swap(one.index(count), two.index(count));
                *text = lines.concat();
            }
            Self::Repeat(at) => {
                let mut lines = lines(text);
                let line = lines[at.index(lines.len())].clone();
                lines.push(line);
                *text = lines.concat();
            }
            Self::Replace(at, with) => replace_value(text, *at, with),
            Self::Truncate(at) => text.truncate(at.index(text.len())),
        }
    }
}

fn lines(text: &[u8]) -> Vec<Vec<u8>> {
    text.split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}

/// Puts `with` in the place of what stands after a random colon.
fn replace_value(text: &mut Vec<u8>, at: Index, with: &str) {
    let colons: Vec<usize> = (0..text.len()).filter(|at| text[*at] == b':').collect();
    if colons.is_empty() {
        return;
    }
    let start = colons[at.index(colons.len())] + 1;
    let length = text[start..]
        .iter()
        .position(|byte| matches!(byte, b',' | b'}'))
        .unwrap_or(0);
    drop(text.splice(start..start + length, with.bytes()));
}

fn check(layer: &Layer, packed: &[u8]) -> Result<(), TestCaseError> {
    let mut out = Vec::new();
    let roots = [
        layer.root.path().to_path_buf(),
        PathBuf::from("/nonexistent"),
    ];
    match assemble(packed, &roots, &mut out) {
        Ok(count) => prop_assert_eq!(count, out.len() as u64),
        // The second directory is looked at only for a file that the first does not have.
        Err(error) => prop_assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Io)),
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_text_never_panics(damages in prop::collection::vec(damage(), 1..6)) {
        let layer = layer();
        let mut text = layer.record.text();
        for damage in &damages {
            damage.apply(&mut text);
        }
        check(&layer, &gzip(&text))?;
    }

    #[test]
    fn damaged_gzip_never_panics(damages in prop::collection::vec(damage(), 1..4)) {
        let layer = layer();
        let mut packed = layer.record.packed();
        for damage in &damages {
            damage.apply(&mut packed);
        }
        check(&layer, &packed)?;
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..4000)) {
        let layer = layer();
        check(&layer, &bytes)?;
        check(&layer, &gzip(&bytes))?;
    }
}

/// The undamaged record works, so the damage is what the others see.
#[test]
fn the_undamaged_record_is_accepted() {
    let layer = layer();
    let mut out = Vec::new();
    let roots = [layer.root.path().to_path_buf()];
    assemble(&layer.record.packed()[..], &roots, &mut out).unwrap();
    assert_eq!(out, layer.record.stream);
}

/// A record that announces more than there is must not make room for it first.
#[test]
fn announced_sizes_take_no_memory() {
    let layer = layer();
    let line = "{\"type\":1,\"name\":\"d/f1<\",\"size\":9223372036854775807,\"payload\":\"AAAAAAAAAAA=\",\"position\":0}\n";
    let roots = [layer.root.path().to_path_buf()];
    let error = assemble(&gzip(line.as_bytes())[..], &roots, &mut Vec::new()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "file \"d/f1<\" is shorter than the record says"
    );
}

/// A line without an end must not be collected without an end.
#[test]
fn endless_lines_are_refused() {
    let layer = layer();
    let roots = [layer.root.path().to_path_buf()];
    let packed = gzip(&vec![b'a'; 40 << 20]);
    let error = assemble(&packed[..], &roots, &mut Vec::new()).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(cause, "line 1 is longer than 33554432 bytes");
}
