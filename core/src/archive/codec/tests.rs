// SPDX-License-Identifier: Apache-2.0
use std::io::Write;

use super::*;

const TEXT: &[u8] = b"some text, some text, some text";

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn bzip2(content: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn xz(content: &[u8]) -> Vec<u8> {
    let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zstd_frame(content: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn every_format() -> [(Compression, Vec<u8>); 4] {
    [
        (Compression::Gzip, gzip(TEXT)),
        (Compression::Bzip2, bzip2(TEXT)),
        (Compression::Xz, xz(TEXT)),
        (Compression::Zstd, zstd_frame(TEXT)),
    ]
}

/// Hands out one byte at a time, as a slow pipe may.
struct Drip<'a>(&'a [u8]);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = buffer.len().min(self.0.len()).min(1);
        buffer[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

fn decode(compression: Compression, input: &[u8]) -> Result<Vec<u8>, Error> {
    let mut whole = Vec::new();
    let mut decoder = Decoder::new(compression, input).unwrap();
    let answer = decoder
        .read_to_end(&mut whole)
        .and_then(|_| decoder.expect_end());
    let answer = answer.map_err(|error| decoder.explain(error));

    let mut dripped = Vec::new();
    let slow = io::BufReader::with_capacity(1, Drip(input));
    let mut decoder = Decoder::new(compression, slow).unwrap();
    let slow_answer = decoder
        .read_to_end(&mut dripped)
        .and_then(|_| decoder.expect_end());
    assert_eq!(slow_answer.is_ok(), answer.is_ok(), "{compression:?}");
    answer.map(|()| {
        assert_eq!(whole, dripped);
        whole
    })
}

#[test]
fn every_format_is_decoded() {
    for (compression, input) in every_format() {
        assert_eq!(super::super::detect::detect(&input), compression);
        assert_eq!(
            decode(compression, &input).unwrap(),
            TEXT,
            "{compression:?}"
        );
    }
    assert_eq!(decode(Compression::None, TEXT).unwrap(), TEXT);
}

#[test]
fn all_members_count() {
    for (compression, input) in every_format() {
        let twice = [input.clone(), input].concat();
        let expected = [TEXT, TEXT].concat();
        assert_eq!(
            decode(compression, &twice).unwrap(),
            expected,
            "{compression:?}"
        );
    }
    let many: Vec<u8> = (0..100).flat_map(|_| gzip(b"x")).collect();
    assert_eq!(decode(Compression::Gzip, &many).unwrap(), vec![b'x'; 100]);
}

#[test]
fn truncated_input_is_refused() {
    for (compression, input) in every_format() {
        for cut in 1..input.len() {
            let error = decode(compression, &input[..cut]).unwrap_err();
            assert_eq!(error.to_string(), "unexpected EOF", "{compression:?} {cut}");
        }
    }
}

#[test]
fn damage_is_refused() {
    for (compression, input) in every_format() {
        let mut damaged = input.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 0x55;
        assert!(decode(compression, &damaged).is_err(), "{compression:?}");
    }
}

#[test]
fn what_follows_gzip_data() {
    let padded = [gzip(TEXT), vec![0; 1024]].concat();
    assert_eq!(decode(Compression::Gzip, &padded).unwrap(), TEXT);
    for tail in [&b"garbage"[..], b"\0\0garbage"] {
        let input = [&gzip(TEXT), tail].concat();
        let error = decode(Compression::Gzip, &input).unwrap_err();
        assert_eq!(error.to_string(), "garbage after the end of tar.gz data");
    }
}

#[test]
fn garbage_after_other_formats_is_refused() {
    for (compression, input) in every_format() {
        let input = [&input[..], b"garbage!"].concat();
        assert!(decode(compression, &input).is_err(), "{compression:?}");
    }
}

#[test]
fn skippable_frames_are_skipped() {
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
    let input = [&skippable[..], &zstd_frame(TEXT), &skippable].concat();
    assert_eq!(decode(Compression::Zstd, &input).unwrap(), TEXT);
}

#[test]
fn a_window_beyond_the_cap_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(28).unwrap();
    encoder.write_all(TEXT).unwrap();
    let error = decode(Compression::Zstd, &encoder.finish().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "cannot decompress tar.zst data");
}
