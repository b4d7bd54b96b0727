// SPDX-License-Identifier: Apache-2.0
//! Images: records, names and their history, digests, blobs.

use std::{fs, os::unix::fs::MetadataExt};

use plywood::{
    Digest, ErrorKind, Flags, Timestamp,
    store::{BigDataItem, Image, NewImage},
};

use crate::stores_support::{Fixture, fails, id, strings};

fn image(fixture: &Fixture, digit: char, names: &[&str]) -> Image {
    let new = NewImage {
        id: Some(id(digit)),
        names: strings(names),
        ..NewImage::default()
    };
    fixture.store.create_image(new).unwrap()
}

/// Every member must be written in the order and form of containers/storage.
#[test]
fn a_record_has_the_bytes_of_the_format() {
    let fixture = Fixture::vfs();
    fixture.layer(&id('2'), None);
    let mut flags = Flags::default();
    flags.set("b", "<&>").unwrap();
    flags.set("a", &[1.5, 2.0]).unwrap();
    let created = Timestamp::parse("2026-11-21T22:28:21.14024554+02:00").unwrap();
    fixture
        .store
        .create_image(NewImage {
            id: Some(id('a')),
            names: strings(&["localhost/img:1", "localhost/img:1", "localhost/img:2"]),
            layer: Some("222".to_owned()),
            metadata: "meta <&> data\u{2028}".to_owned(),
            created: Some(created),
            digest: None,
            big_data: vec![
                BigDataItem {
                    key: "manifest".to_owned(),
                    data: b"{\"schemaVersion\":2}".to_vec(),
                    digest: None,
                },
                BigDataItem {
                    key: "empty.data".to_owned(),
                    ..BigDataItem::default()
                },
            ],
            names_history: strings(&["old"]),
            flags,
        })
        .unwrap();
    let manifest = Digest::sha256(b"{\"schemaVersion\":2}");
    let empty = Digest::sha256(b"");
    let expected = format!(
        r#"[{{"id":"{}","digest":"{manifest}","names":["localhost/img:1","localhost/img:2"],"names-history":["old"],"layer":"{}","metadata":"meta \u003c\u0026\u003e data\u2028","big-data-names":["manifest","empty.data"],"big-data-sizes":{{"empty.data":0,"manifest":19}},"big-data-digests":{{"empty.data":"{empty}","manifest":"{manifest}"}},"created":"2026-11-21T22:28:21.14024554+02:00","flags":{{"a":[1.5,2.0],"b":"\u003c\u0026\u003e"}}}}]"#,
        id('a'),
        id('2'),
    );
    assert_eq!(fixture.images_json(), expected);
    let file = fs::metadata(fixture.path("images/images.json")).unwrap();
    assert_eq!(file.mode() & 0o7777, 0o600);
    let dir = fs::metadata(fixture.path(&format!("images/{}", id('a')))).unwrap();
    assert_eq!(dir.mode() & 0o7777, 0o700);
}

#[test]
fn names_are_unique_at_creation_and_move_later_with_history() {
    let fixture = Fixture::vfs();
    let store = &fixture.store;
    image(&fixture, 'a', &["one"]);
    image(&fixture, 'b', &["two"]);
    let taken = store.create_image(NewImage {
        names: strings(&["three", "one"]),
        ..NewImage::default()
    });
    let error = fails(taken, ErrorKind::DuplicateName);
    assert_eq!(
        error.to_string(),
        format!(
            "image name \"one\" is already associated with image \"{}\": that name is already in \
             use",
            id('a')
        )
    );
    assert!(store.image("one").unwrap().names_history.is_empty());

    store.add_names("two", &strings(&["one", "four"])).unwrap();
    assert_eq!(store.names(&id('b')).unwrap(), ["one", "four", "two"]);
    assert_eq!(
        store.image("two").unwrap().names_history,
        ["two", "four", "one"]
    );
    assert!(store.names(&id('a')).unwrap().is_empty());
    store.remove_names("two", &strings(&["four", "x"])).unwrap();
    assert_eq!(store.names(&id('b')).unwrap(), ["one", "two"]);
    store.set_names(&id('b'), &strings(&["five"])).unwrap();
    assert_eq!(fixture.other().lookup("five").unwrap(), id('b'));
    assert_eq!(
        fixture.other().image("five").unwrap().names_history,
        ["five", "two", "one", "four"]
    );
}

#[test]
fn ids_are_checked_and_an_ambiguous_prefix_names_candidates() {
    let fixture = Fixture::vfs();
    let store = &fixture.store;
    for bad in ["../bad", "", "a/b", "."] {
        let new = NewImage {
            id: Some(bad.to_owned()),
            ..NewImage::default()
        };
        fails(store.create_image(new), ErrorKind::InvalidArgument);
    }
    let make = |id: &str| {
        store.create_image(NewImage {
            id: Some(id.to_owned()),
            ..NewImage::default()
        })
    };
    make("abc1").unwrap();
    make("abc2").unwrap();
    let error = fails(make("abc1"), ErrorKind::DuplicateId);
    assert_eq!(
        error.to_string(),
        "an image with ID \"abc1\" already exists: that ID is already in use"
    );
    let error = fails(store.image("abc"), ErrorKind::ImageUnknown);
    assert_eq!(
        error.to_string(),
        "locating image with ID \"abc\": image not known"
    );
    assert!(error.remedy().unwrap().contains("abc1, abc2"), "{error:?}");
    assert_eq!(store.image("abc2").unwrap().id, "abc2");
    assert!(!store.exists("abc").unwrap());
    let drawn = store.create_image(NewImage::default()).unwrap().id;
    assert_eq!(drawn.len(), 64);
    assert_eq!(store.image(&drawn[..20]).unwrap().id, drawn);
}

#[test]
fn images_are_found_by_every_manifest_digest_and_the_given_one() {
    let fixture = Fixture::vfs();
    let store = &fixture.store;
    let explicit = Digest::sha256(b"explicit");
    store
        .create_image(NewImage {
            id: Some(id('a')),
            digest: Some(explicit.clone()),
            ..NewImage::default()
        })
        .unwrap();
    let made_up = Digest::sha256(b"made up");
    let from_caller = |_: &[u8]| Ok(made_up.clone());
    for key in ["manifest", "manifest-other", "manifestX", "signature"] {
        store
            .set_image_big_data("aaaa", key, key.as_bytes(), None)
            .unwrap();
    }
    store
        .set_image_big_data("aaaa", "manifest", b"signed", Some(&from_caller))
        .unwrap();
    let found = |digest: &Digest| store.images_by_digest(digest).unwrap().len();
    assert_eq!(found(&explicit), 1);
    assert_eq!(found(&made_up), 1);
    assert_eq!(found(&Digest::sha256(b"manifest-other")), 1);
    assert_eq!(found(&Digest::sha256(b"manifestX")), 1);
    assert_eq!(found(&Digest::sha256(b"signature")), 0);
    assert_eq!(found(&Digest::sha256(b"manifest")), 0, "it was replaced");
    assert_eq!(store.image("aaaa").unwrap().digest, Some(explicit));
    assert_eq!(
        store.image_big_data_digest("aaaa", "manifest").unwrap(),
        made_up
    );
}

/// Rewriting what is there would make every other process read all records again.
#[test]
fn a_blob_with_the_same_digest_does_not_rewrite_the_records() {
    let fixture = Fixture::vfs();
    let store = &fixture.store;
    image(&fixture, 'a', &["n"]);
    store
        .set_image_big_data("n", "some-key", b"data", None)
        .unwrap();
    let stamp = || {
        let json = fs::metadata(fixture.path("images/images.json")).unwrap();
        let lock = fs::read(fixture.path("images/images.lock")).unwrap();
        (json.ino(), json.mtime_nsec(), lock)
    };
    let before = stamp();
    store
        .set_image_big_data("n", "some-key", b"data", None)
        .unwrap();
    assert_eq!(stamp(), before);
    store
        .set_image_big_data("n", "some-key", b"other", None)
        .unwrap();
    assert_ne!(stamp(), before);
    assert_eq!(store.image_big_data("n", "some-key").unwrap(), b"other");
    assert_eq!(store.image_big_data_size("n", "some-key").unwrap(), 5);
    assert_eq!(store.list_image_big_data("n").unwrap(), ["some-key"]);
    let file = format!("images/{}/=c29tZS1rZXk=", id('a'));
    assert_eq!(fs::read(fixture.path(&file)).unwrap(), b"other");
}

#[test]
fn blob_errors_have_their_kinds_and_sentences() {
    let fixture = Fixture::vfs();
    let store = &fixture.store;
    image(&fixture, 'a', &["n"]);
    let set = |key: &str| store.set_image_big_data("n", key, b"", None);
    let error = fails(set(""), ErrorKind::InvalidBigDataName);
    assert_eq!(
        error.to_string(),
        "can't set empty name for image big data item: not a valid name for a big data item"
    );
    for key in ["/", ".", "..", "a/", "???x", &"long".repeat(100)] {
        fails(set(key), ErrorKind::InvalidBigDataName);
    }
    let error = fails(store.image_big_data("n", "k"), ErrorKind::BigDataMissing);
    assert_eq!(
        error.to_string(),
        "locating item named \"k\" for image with ID \"n\" (consider removing the image to resolve \
         the issue): file does not exist"
    );
    let size = fails(store.image_big_data_size("n", "k"), ErrorKind::SizeUnknown);
    assert_eq!(size.to_string(), "size is not known");
    let digest = fails(
        store.image_big_data_digest("n", "k"),
        ErrorKind::DigestUnknown,
    );
    assert_eq!(digest.to_string(), "could not compute digest of item");
    fails(store.image_big_data("x", "k"), ErrorKind::ImageUnknown);
    assert!(store.list_image_big_data("n").unwrap().is_empty());
}

/// Another tool's newer members, and what its JSON may look like, must survive.
#[test]
fn foreign_records_are_read_and_keep_what_is_not_known() {
    let fixture = Fixture::vfs();
    fixture.plant(
        "images/images.json",
        r#"[{"ID":"old","Names":["a","b"],"future":{"n":123456789012345678901},"created":"0001-01-01T00:00:00Z","digest":"md5:strange"},
            {"id":"../evil","names":["b"],"flags":{"x":1e999}}]"#,
    );
    let store = fixture.other();
    assert_eq!(
        store.names("old").unwrap(),
        ["a"],
        "the later record keeps `b`"
    );
    assert!(store.image("old").unwrap().digests.is_empty());
    store.set_metadata("old", "m").unwrap();
    assert_eq!(
        fixture.images_json(),
        r#"[{"id":"old","digest":"md5:strange","names":["a"],"metadata":"m","created":"0001-01-01T00:00:00Z","future":{"n":123456789012345678901}},{"id":"../evil","names":["b"],"created":"0001-01-01T00:00:00Z","flags":{"x":1e999}}]"#
    );
    // It can still be removed, without touching what its id points at.
    fs::create_dir(fixture.path("evil")).unwrap();
    fs::rename(fixture.path("evil"), fixture.root.path().join("graph/evil")).unwrap();
    store.delete_image("b", true).unwrap();
    assert!(fixture.root.path().join("graph/evil").exists());
    assert!(!fixture.images_json().contains("evil"));
}

/// A damaged file must never be answered by replacing it.
#[test]
fn damaged_records_are_reported_with_their_place_and_stay() {
    let fixture = Fixture::vfs();
    for (text, place) in [
        ("[{\"id\":\"a\",", "line 1"),
        (
            "[{\"id\":\"a\"},\n{\"id\":\"b\",\"names\":{}}]",
            "line 2, column 19",
        ),
        ("{\"id\":\"a\"}", "line 1"),
        (
            "[{\"id\":\"a\",\"big-data-sizes\":{\"k\":\"1\"}}]",
            "`big-data-sizes` of record 1",
        ),
        ("\u{0}\u{0}\u{0}", "line 1"),
    ] {
        fixture.plant("images/images.json", text);
        let store = fixture.other();
        for result in [
            store.images().map(drop),
            store.create_image(NewImage::default()).map(drop),
            store.delete_image("a", true).map(drop),
            store.set_metadata("a", "m"),
        ] {
            let error = fails(result, ErrorKind::Corrupt);
            let message = error.to_string();
            assert!(message.contains(place), "{text}: {message}");
            assert!(message.contains("images.json"), "{message}");
            assert!(error.remedy().is_some());
        }
        assert_eq!(fixture.images_json(), text);
        assert!(store.containers().is_ok(), "the rest of the store works");
        assert!(store.layers().is_ok(), "the rest of the store works");
    }
}

/// What a crash left under an id must not show up in a new image, and the caller's files stay.
#[test]
fn leftovers_under_an_id_make_way_for_a_new_image() {
    let fixture = Fixture::vfs();
    let dir = fixture.path(&format!("images/{}", id('a')));
    fs::create_dir_all(dir.join("userdata")).unwrap();
    fs::create_dir_all(dir.join("odd")).unwrap();
    fs::write(dir.join("userdata/kept"), b"1").unwrap();
    fs::write(dir.join("manifest"), b"stale").unwrap();
    image(&fixture, 'a', &["n"]);
    let stale = fixture.store.image_big_data("n", "manifest");
    fails(stale, ErrorKind::BigDataMissing);
    assert!(!dir.join("odd").exists());
    assert_eq!(fs::read(dir.join("userdata/kept")).unwrap(), b"1");
    fixture.store.delete_image("n", true).unwrap();
    assert!(!dir.exists());
}
