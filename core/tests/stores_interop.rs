// SPDX-License-Identifier: Apache-2.0
//! One store, used by containers-storage 1.43 and by this library in turn and at the same time.

use std::{
    collections::BTreeSet,
    fs,
    time::{Duration, Instant},
};

use plywood::{
    Digest, ErrorKind, Flags, Timestamp,
    store::{BigDataItem, MountOptions, NewContainer, NewImage},
};

use crate::{
    layers_support::Kind,
    stores_support::{Fixture, fails, go_is_here, id, strings},
};

/// The record of the first object in a JSON array on one line, without the brackets.
fn only(json: &str) -> String {
    json.trim()
        .trim_start_matches('[')
        .trim_end_matches(']')
        .to_owned()
}

#[test]
fn interop_images_made_here_are_read_and_kept() {
    if !go_is_here() {
        return;
    }
    let fixture = Fixture::vfs();
    fixture.layer(&id('1'), None);
    let mut flags = Flags::default();
    flags.set("x", "<&>").unwrap();
    let items = ["manifest", "sha256:abcd", "aX", "a.b", "\u{e9}", "Xa"];
    fixture
        .store
        .create_image(NewImage {
            id: Some(id('a')),
            names: strings(&["localhost/a:1", "caf\u{e9}<&>"]),
            layer: Some(id('1')),
            metadata: "{\"k\":\"<&>\u{2029}\"}".to_owned(),
            created: Some(Timestamp::parse("2020-01-02T03:04:05.060Z").unwrap()),
            big_data: items
                .iter()
                .map(|key| BigDataItem {
                    key: (*key).to_owned(),
                    data: key.as_bytes().to_vec(),
                    digest: None,
                })
                .collect(),
            flags,
            ..NewImage::default()
        })
        .unwrap();
    let ours = fixture.images_json();
    // Go drops the trailing zero of the time that we keep as it was given.
    let theirs = fixture.go(&["image", "--json", "localhost/a:1"]);
    assert_eq!(
        only(&theirs),
        only(&ours.replace("05.060Z", "05.06Z")),
        "as it reads the record"
    );
    for key in items {
        assert_eq!(fixture.go(&["get-image-data", &id('a'), key]), key);
    }
    let by_digest = fixture.go(&[
        "images-by-digest",
        "--quiet",
        Digest::sha256(b"manifest").as_str(),
    ]);
    assert_eq!(by_digest.trim(), id('a'));

    // It changes the names, and writes everything anew.
    fixture.go(&["set-names", "--name", "z", "--name", "y", &id('a')]);
    let image = fixture.store.image("z").unwrap();
    assert_eq!(image.names, ["z", "y"]);
    assert_eq!(image.names_history, ["y", "z"]);
    assert_eq!(image.flags.text("x"), "<&>");
    assert_eq!(image.metadata, "{\"k\":\"<&>\u{2029}\"}");
    // And back again.
    fixture.store.add_names("z", &strings(&["w"])).unwrap();
    assert_eq!(fixture.go(&["get-names", "w"]), "w\nz\ny\n");
    let history = fixture.store.image("w").unwrap().names_history;
    let theirs = fixture.go(&["image", "--json", "w"]);
    assert_eq!(history, ["y", "z", "w"]);
    assert!(
        theirs.contains(r#""names-history":["y","z","w"]"#),
        "{theirs}"
    );
}

#[test]
fn interop_images_made_there_are_read_and_changed() {
    if !go_is_here() {
        return;
    }
    let fixture = Fixture::vfs();
    fixture.go(&["create-layer", "--id", &id('1'), "--name", "base"]);
    fixture.go(&[
        "create-image",
        "--id",
        &id('a'),
        "--name",
        "one",
        "--name",
        "two",
        "--metadata",
        "a<b&c>d",
        "base",
    ]);
    for (key, data) in [("manifest", "m"), ("some-key", "d"), ("???x", "")] {
        let set = fixture.try_go(&["set-image-data", "one", key], data.as_bytes());
        // The base64 form of the last one has a slash.
        assert_eq!(set.is_ok(), key != "???x", "{key}: {set:?}");
    }
    let theirs = fixture.images_json();
    let store = &fixture.store;
    let image = store.image("two").unwrap();
    assert_eq!(image.metadata, "a<b&c>d");
    assert_eq!(image.digest, Some(Digest::sha256(b"m")));
    assert_eq!(store.image_big_data("one", "some-key").unwrap(), b"d");
    assert_eq!(
        store.images_by_digest(&Digest::sha256(b"m")).unwrap().len(),
        1
    );
    // A rewrite that changes nothing gives the same bytes.
    store.set_metadata("one", "x").unwrap();
    store.set_metadata("one", "a<b&c>d").unwrap();
    assert_eq!(fixture.images_json(), theirs);
    // Names move between images in both programs.
    fixture.go(&["create-image", "--id", &id('b'), "--name", "three"]);
    store.add_names("three", &strings(&["one"])).unwrap();
    assert_eq!(fixture.go(&["get-names", &id('a')]), "two\n");
    fixture.go(&["set-names", "--name", "one", "--name", "two", &id('a')]);
    assert_eq!(store.names(&id('b')).unwrap(), ["three"]);
    assert_eq!(store.image("one").unwrap().id, id('a'));
    let deleted = store.delete_image("one", true).unwrap();
    assert_eq!(deleted, [id('1')]);
    assert_eq!(fixture.go(&["images", "--quiet"]).trim(), id('b'));
    assert_eq!(fixture.go(&["layers", "--json"]).trim(), "[]");
}

#[test]
fn interop_containers_go_back_and_forth() {
    if !go_is_here() {
        return;
    }
    for kind in Kind::ALL {
        let fixture = Fixture::new(kind);
        let store = &fixture.store;
        fixture.layer(&id('1'), None);
        fixture.go(&["create-image", "--id", &id('a'), "--name", "img", &id('1')]);
        // Made here, read and removed there.
        let ours = store
            .create_container(NewContainer {
                names: strings(&["ours"]),
                image: Some("img".to_owned()),
                metadata: "<m>".to_owned(),
                volatile: true,
                ..NewContainer::default()
            })
            .unwrap();
        store
            .set_container_big_data("ours", "artifacts/x", b"data")
            .unwrap();
        let theirs = fixture.go(&["container", "--json", "ours"]);
        assert_eq!(only(&theirs), only(&fixture.containers_json()), "{kind:?}");
        assert_eq!(
            fixture.go(&["get-container-data", "ours", "artifacts/x"]),
            "data"
        );
        assert_eq!(
            fixture.go(&["get-container-dir", "ours"]).trim(),
            store.container_directory("ours").unwrap().to_str().unwrap()
        );
        let mounted = fixture.go(&["mount", "ours"]);
        assert_eq!(store.mounted("ours").unwrap(), 1, "{kind:?}");
        assert_eq!(
            store
                .mount("ours", &MountOptions::default())
                .unwrap()
                .to_str(),
            Some(mounted.trim())
        );
        assert!(store.unmount("ours", false).unwrap(), "one use is left");
        fs::write(std::path::Path::new(mounted.trim()).join("file"), b"12345").unwrap();
        fixture.go(&["unmount", "ours"]);
        assert_eq!(store.mounted("ours").unwrap(), 0);
        fails(
            store.delete_image("img", true),
            ErrorKind::ImageUsedByContainer,
        );
        let size = store.container_size("ours").unwrap();
        assert!(size >= 9, "{kind:?}: {size}");
        fixture.go(&["delete-container", "ours"]);
        fails(store.container(&ours.id), ErrorKind::ContainerUnknown);

        // Made there, read and removed here.
        fixture.go(&[
            "create-container",
            "--id",
            &id('c'),
            "--name",
            "theirs",
            "img",
        ]);
        let container = store.container("theirs").unwrap();
        assert_eq!(container.image, Some(id('a')));
        let before = fixture.containers_json();
        store.set_metadata("theirs", "x").unwrap();
        store.set_metadata("theirs", "").unwrap();
        assert_eq!(fixture.containers_json(), before);
        let refused = fixture.try_go(&["delete-image", "img"], b"").unwrap_err();
        assert!(
            refused.contains("image is in use by a container"),
            "{refused}"
        );
        store.delete_container("theirs").unwrap();
        assert_eq!(fixture.go(&["containers", "--json"]).trim(), "[]");
        assert!(
            fixture
                .go(&["delete-image", "--json", "img"])
                .contains(&id('1'))
        );
    }
}

/// Adds images and containers with the other program until `end`; returns the names that stay.
fn go_works(fixture: &Fixture, worker: usize, end: Instant) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for number in 0.. {
        if Instant::now() > end {
            break;
        }
        let name = format!("go-{worker}-{number}");
        fixture.go(&["create-image", "--name", &name, &id('1')]);
        let container = format!("{name}-c");
        fixture.go(&["create-container", "--name", &container, "img"]);
        if number % 3 == 0 {
            fixture.go(&["delete-container", &container]);
        } else {
            names.insert(container);
        }
        names.insert(name);
    }
    names
}

/// The same with this library, through a store of its own that shares nothing but lock objects.
fn we_work(fixture: &Fixture, worker: usize, end: Instant) -> BTreeSet<String> {
    let store = fixture.other();
    let mut names = BTreeSet::new();
    for number in 0.. {
        if Instant::now() > end {
            break;
        }
        let name = format!("rs-{worker}-{number}");
        let image = NewImage {
            names: vec![name.clone()],
            layer: Some(id('1')),
            ..NewImage::default()
        };
        store.create_image(image).unwrap();
        store
            .set_image_big_data(&name, "manifest", name.as_bytes(), None)
            .unwrap();
        let container = format!("{name}-c");
        let new = NewContainer {
            names: vec![container.clone()],
            image: Some("img".to_owned()),
            ..NewContainer::default()
        };
        store.create_container(new).unwrap();
        if number % 3 == 0 {
            store.delete_container(&container).unwrap();
        } else {
            names.insert(container);
        }
        names.insert(name);
    }
    names
}

/// Both programs add and remove objects for some seconds; nothing may be lost or kept.
#[test]
fn interop_concurrent_writers_lose_nothing() {
    if !go_is_here() {
        return;
    }
    let fixture = Fixture::vfs();
    fixture.layer(&id('1'), None);
    fixture.go(&["create-image", "--id", &id('a'), "--name", "img", &id('1')]);
    let end = Instant::now() + Duration::from_secs(4);
    let done: Vec<BTreeSet<String>> = std::thread::scope(|scope| {
        let fixture = &fixture;
        let threads: Vec<_> = (0..4)
            .map(|worker| {
                scope.spawn(move || match worker {
                    0 | 1 => go_works(fixture, worker, end),
                    _ => we_work(fixture, worker, end),
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(done.iter().all(|names| names.len() > 2), "{done:?}");
    let mut expected: BTreeSet<String> = done.into_iter().flatten().collect();
    expected.insert("img".to_owned());
    let store = &fixture.store;
    let images = store.images().unwrap();
    let containers = store.containers().unwrap();
    let named = images.iter().flat_map(|image| image.names.clone());
    let found: BTreeSet<String> = named
        .chain(containers.iter().flat_map(|found| found.names.clone()))
        .collect();
    assert_eq!(found, expected);
    let layers = store.layers().unwrap();
    assert_eq!(layers.len(), containers.len() + 1, "no layer lost or left");
    let theirs = fixture.go(&["images", "--quiet"]);
    assert_eq!(theirs.lines().count(), images.len());
    let theirs = fixture.go(&["containers"]);
    assert_eq!(theirs.matches("name: ").count(), containers.len());
}
