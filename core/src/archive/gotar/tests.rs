// SPDX-License-Identifier: Apache-2.0
use super::*;

fn file(name: &str) -> Header {
    Header {
        name: name.as_bytes().to_vec(),
        kind: kind::REGULAR,
        mode: 0o644,
        seconds: 1_700_000_000,
        ..Header::default()
    }
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field)
        .trim_end_matches('\0')
        .to_owned()
}

/// The records and the real header of an entry with an extension.
fn extended(header: &Header) -> (Vec<u8>, String, Vec<u8>) {
    let bytes = header.encode().unwrap();
    assert_eq!(bytes[156], b'x');
    let size = usize::from_str_radix(&text(&bytes[124..135]), 8).unwrap();
    let body = text(&bytes[BLOCK..BLOCK + size]);
    let real = bytes.len() - BLOCK;
    assert_eq!(real, BLOCK + size.next_multiple_of(BLOCK));
    (bytes[..BLOCK].to_vec(), body, bytes[real..].to_vec())
}

#[test]
fn a_plain_header_has_the_bytes_of_go() {
    let mut header = file("a/b");
    header.mode = 0o4755;
    header.uid = 2_097_151;
    header.gid = 5;
    header.size = 0o77_777_777_777;
    let mut expected = Vec::new();
    expected.extend_from_slice(b"a/b");
    expected.resize(100, 0);
    expected.extend_from_slice(b"0004755\x007777777\x000000005\x0077777777777\x00");
    expected.extend_from_slice(b"14524770400\x00");
    expected.extend_from_slice(b"015153\x00 0");
    expected.resize(257, 0);
    expected.extend_from_slice(b"ustar\x0000");
    expected.resize(329, 0);
    expected.extend_from_slice(b"0000000\x000000000\x00");
    expected.resize(512, 0);
    let bytes = header.encode().unwrap();
    let sum: u64 = expected
        .iter()
        .enumerate()
        .map(|(at, byte)| {
            if (148..156).contains(&at) {
                32
            } else {
                u64::from(*byte)
            }
        })
        .sum();
    assert_eq!(text(&bytes[148..156]), format!("{sum:06o}\0 "));
    expected[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    assert_eq!(bytes, expected);
}

#[test]
fn a_long_name_is_split_when_it_can_be() {
    let name = format!("{}/{}", "p".repeat(155), "n".repeat(100));
    let bytes = file(&name).encode().unwrap();
    assert_eq!(bytes.len(), BLOCK);
    assert_eq!(text(&bytes[..100]), "n".repeat(100));
    assert_eq!(text(&bytes[345..500]), "p".repeat(155));

    for name in [
        "n".repeat(101),
        format!("{}/{}", "p".repeat(156), "n".repeat(10)),
        format!("p/{}", "n".repeat(101)),
        format!("p\u{e4}/{}", "n".repeat(100)),
    ] {
        let (_, body, _) = extended(&file(&name));
        let rest = name.len() + 7;
        assert_eq!(body, format!("{} path={name}\n", rest + 3), "{name}");
    }
}

#[test]
fn a_directory_splits_before_its_last_name() {
    let mut header = file(&format!("{}/{}/", "p".repeat(60), "n".repeat(60)));
    header.kind = kind::DIRECTORY;
    let bytes = header.encode().unwrap();
    assert_eq!(text(&bytes[..100]), format!("{}/", "n".repeat(60)));
}

#[test]
fn records_are_sorted_and_beside_an_ascii_name() {
    let mut header = file("d\u{fc}r/n\u{e4}me");
    header.uid = 2_097_152;
    header.gid = u32::MAX;
    header.size = 1 << 33;
    header.xattrs = vec![
        (b"user.b".to_vec(), b"2".to_vec()),
        (b"user.a".to_vec(), vec![0, 255]),
    ];
    let bytes = header.encode().unwrap();
    assert_eq!(text(&bytes[..100]), "dr/PaxHeaders.0/nme");
    assert_eq!(
        text(&bytes[100..148]).replace('\0', " "),
        format!("0000000 0000000 0000000 {:011o} 00000000000", 122)
    );
    assert_eq!(&bytes[329..345], [0; 16]);
    let body = &bytes[BLOCK..BLOCK + 122];
    let mut expected = b"25 SCHILY.xattr.user.a=\x00\xff\n".to_vec();
    expected[0..2].copy_from_slice(b"26");
    expected.extend_from_slice(b"25 SCHILY.xattr.user.b=2\n");
    expected.extend_from_slice(b"18 gid=4294967295\n");
    expected.extend_from_slice("19 path=d\u{fc}r/n\u{e4}me\n".as_bytes());
    expected.extend_from_slice(b"19 size=8589934592\n");
    expected.extend_from_slice(b"15 uid=2097152\n");
    assert_eq!(
        String::from_utf8_lossy(&body[..expected.len()]),
        String::from_utf8_lossy(&expected)
    );
    let real = &bytes[2 * BLOCK..];
    assert_eq!(text(&real[..100]), "dr/nme");
    assert_eq!(
        text(&real[108..136]).replace('\0', " "),
        "0000000 0000000 00000000000"
    );
}

#[test]
fn a_record_counts_its_own_digits() {
    for (value, length) in [(1, 6), (4, 9), (5, 11), (93, 99), (94, 101), (95, 102)] {
        let mut body = Vec::new();
        push_record(&mut body, b"k", &vec![b'v'; value]);
        assert_eq!(body.len(), length);
        assert!(text(&body).starts_with(&format!("{length} k=v")), "{value}");
    }
}

#[test]
fn times_outside_the_field_get_a_record() {
    let mut header = file("f");
    header.seconds = -1000;
    let (_, body, real) = extended(&header);
    assert_eq!(body, "15 mtime=-1000\n");
    assert_eq!(text(&real[136..148]), "00000000000");
    header.seconds = 1 << 33;
    assert_eq!(extended(&header).1, "20 mtime=8589934592\n");
    header.seconds = -2;
    header.nanoseconds = 250_000_000;
    assert_eq!(extended(&header).1, "15 mtime=-1.75\n");
    header.seconds = 5;
    assert_eq!(extended(&header).1, "14 mtime=5.25\n");
}

#[test]
fn a_cut_name_does_not_end_in_a_slash() {
    let name = format!(
        "{}/{}",
        "\u{e4}".repeat(4) + &"n".repeat(99),
        "f".repeat(20)
    );
    let (extension, _, real) = extended(&file(&name));
    assert_eq!(text(&extension[..100]), "n".repeat(99));
    assert_eq!(text(&real[..100]), "n".repeat(99));
}

#[test]
fn the_extension_of_a_directory_is_in_it() {
    let mut header = file("newd/");
    header.kind = kind::DIRECTORY;
    header.uid = 3_000_000;
    let (extension, body, real) = extended(&header);
    assert_eq!(text(&extension[..100]), "newd/PaxHeaders.0");
    assert_eq!(body, "15 uid=3000000\n");
    assert_eq!(text(&real[..100]), "newd/");
}

#[test]
fn what_go_cannot_write_is_refused() {
    let mut header = file("f");
    header.xattrs = vec![(b"user.a=b".to_vec(), Vec::new())];
    assert!(matches!(
        header.encode(),
        Err(HeaderError::XattrName { .. })
    ));
    header.xattrs = (0..20)
        .map(|n| (format!("user.{n}").into_bytes(), vec![b'x'; 60_000]))
        .collect();
    assert!(matches!(header.encode(), Err(HeaderError::TooLarge { .. })));
    header.xattrs.clear();
    header.device = (0, 1 << 21);
    assert!(matches!(header.encode(), Err(HeaderError::Device { .. })));
}
