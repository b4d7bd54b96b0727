// SPDX-License-Identifier: Apache-2.0
use proptest::prelude::*;

use super::*;

/// Hands out pieces of at most `step` bytes.
struct Steps<'a> {
    rest: &'a [u8],
    step: usize,
}

impl Source for Steps<'_> {
    fn fill(&mut self) -> Result<&[u8]> {
        Ok(&self.rest[..self.rest.len().min(self.step)])
    }

    fn consume(&mut self, count: usize) {
        self.rest = &self.rest[count..];
    }
}

/// What a stream consists of.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    entries: Vec<Entry>,
    contents: Vec<Vec<u8>>,
    /// All bytes, in order.
    stream: Vec<u8>,
    /// The bytes of holes, which are not in the stream.
    holes: u64,
}

fn read(source: impl Source) -> Result<Seen> {
    let mut tar = TarReader::new(source);
    let mut seen = Seen::default();
    while let Some(entry) = tar.next()? {
        seen.stream.extend_from_slice(tar.raw());
        tar.clear_raw();
        let mut content = Vec::new();
        let mut size = 0;
        while let Some(piece) = tar.piece()? {
            match piece {
                Piece::Data(bytes) => {
                    content.extend_from_slice(bytes);
                    seen.stream.extend_from_slice(bytes);
                    size += bytes.len() as u64;
                }
                Piece::Hole(length) => {
                    seen.holes = seen.holes.saturating_add(length);
                    size += length;
                }
            }
        }
        assert_eq!(size, entry.size, "{entry:?}");
        seen.entries.push(entry);
        seen.contents.push(content);
    }
    seen.stream.extend_from_slice(tar.raw());
    tar.clear_raw();
    while let Some(bytes) = tar.trailing(1000)? {
        assert!(bytes.len() <= 1000);
        seen.stream.extend_from_slice(bytes);
    }
    Ok(seen)
}

fn header(flag: u8, name: &[u8], size: u64) -> Vec<u8> {
    let mut block = ZERO_BLOCK;
    block[..name.len()].copy_from_slice(name);
    block[100..108].copy_from_slice(b"0000644\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[156] = flag;
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.to_vec()
}

fn with_content(flag: u8, name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = header(flag, name, content.len() as u64);
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

fn sample() -> Vec<u8> {
    let parts = [
        with_content(b'5', b"d/", b""),
        with_content(b'x', b"p", b"12 path=d/x\n22 mtime=12.000000034\n"),
        with_content(b'0', b"short", &[b'c'; 1500]),
        with_content(b'g', b"global", b"8 a=bcd\n"),
        with_content(b'L', b"././@LongLink", &[b'n'; 600]),
        with_content(b'0', b"cut", b"tail"),
        with_content(b'1', b"link", b""),
        vec![0; 2048],
        b"not zeros".to_vec(),
    ];
    parts.concat()
}

#[test]
fn extensions_apply_to_the_next_entry() {
    let seen = read(&sample()[..]).unwrap();
    let names: Vec<_> = seen.entries.iter().map(|e| e.name.as_slice()).collect();
    assert_eq!(
        names,
        [&b"d/"[..], b"d/x", b"global", &[b'n'; 600], b"link"]
    );
    assert_eq!(
        seen.entries[1].mtime,
        Time {
            seconds: 12,
            nanoseconds: 34
        }
    );
    assert_eq!(seen.entries[2].kind, EntryType::GlobalHeader);
    assert_eq!(seen.contents[1].len(), 1500);
    assert_eq!(seen.contents[3], b"tail");
    assert_eq!(seen.stream, sample());
}

#[test]
fn a_cut_stream_is_truncated_or_ends_between_entries() {
    let tar = sample();
    let end = tar.len() - 2048 - 9;
    for cut in 0..tar.len() {
        match read(&tar[..cut]) {
            Ok(seen) => assert_eq!(seen.stream, tar[..cut], "{cut}"),
            Err(error) => {
                assert_eq!(error.to_string(), "unexpected EOF", "{cut}");
                assert!(cut < end + BLOCK * 2, "{cut}");
            }
        }
    }
}

#[test]
fn old_sparse_files_and_others_keep_their_type() {
    let tar = [header(b'S', b"old", 0), header(b'7', b"seven", 0)].concat();
    let kinds: Vec<_> = read(&tar[..])
        .unwrap()
        .entries
        .iter()
        .map(|e| e.kind)
        .collect();
    assert_eq!(kinds, [EntryType::Other(b'S'), EntryType::Other(b'7')]);
}

#[test]
fn content_is_not_copied() {
    let tar = with_content(b'0', b"f", &vec![7; 100_000]);
    let range = tar.as_ptr_range();
    let mut reader = TarReader::new(&tar[..]);
    reader.next().unwrap();
    match reader.piece().unwrap() {
        Some(Piece::Data(bytes)) => assert!(range.contains(&bytes.as_ptr())),
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn any_stream_is_answered(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _answer = read(&bytes[..]).is_ok();
    }

    /// A damaged tar is refused, or its bytes are all accounted for.
    #[test]
    fn damage_never_loses_bytes(
        edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        fix in any::<bool>(),
    ) {
        let mut tar = sample();
        for (index, byte) in edits {
            let at = index.index(tar.len());
            tar[at] = byte;
            if fix {
                repair_checksum(&mut tar, at / BLOCK * BLOCK);
            }
        }
        if let Ok(seen) = read(&tar[..])
            && seen.holes == 0
        {
            prop_assert_eq!(seen.stream, tar);
        }
    }

    #[test]
    fn pieces_do_not_matter(step in 1_usize..3000) {
        let tar = sample();
        let stepped = read(Steps { rest: &tar, step }).unwrap();
        prop_assert_eq!(stepped, read(&tar[..]).unwrap());
    }
}

fn repair_checksum(tar: &mut [u8], start: usize) {
    let Some(block) = tar.get_mut(start..start + BLOCK) else {
        return;
    };
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}
