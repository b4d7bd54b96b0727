// SPDX-License-Identifier: Apache-2.0
//! Containers: records, flags, directories, and the layers they get.

use std::{fs, os::unix::fs::MetadataExt};

use plywood::{
    Digest, ErrorKind, Flags,
    store::{BigDataItem, NewContainer, NewImage},
};

use crate::{
    layers_support::Kind,
    stores_support::{Fixture, fails, id, strings},
};

/// A fixture with a base layer `1`, a child `2`, and an image `a` on the latter.
fn with_image(kind: Kind) -> Fixture {
    let fixture = Fixture::new(kind);
    fixture.layer(&id('1'), None);
    fixture.layer(&id('2'), Some(&id('1')));
    let image = NewImage {
        id: Some(id('a')),
        names: strings(&["img"]),
        layer: Some(id('2')),
        ..NewImage::default()
    };
    fixture.store.create_image(image).unwrap();
    fixture
}

#[test]
fn a_container_stands_on_its_image_with_the_bytes_of_the_format() {
    for kind in Kind::ALL {
        let fixture = with_image(kind);
        let store = &fixture.store;
        let container = store
            .create_container(NewContainer {
                id: Some(id('c')),
                names: strings(&["ctr", "ctr"]),
                image: Some("img".to_owned()),
                layer: Some(id('d')),
                metadata: "cmeta".to_owned(),
                big_data: vec![BigDataItem {
                    key: "artifacts/x".to_owned(),
                    data: b"data".to_vec(),
                    digest: None,
                }],
                ..NewContainer::default()
            })
            .unwrap();
        let expected = format!(
            r#"[{{"id":"{}","names":["ctr"],"image":"{}","layer":"{}","metadata":"cmeta","big-data-names":["artifacts/x"],"big-data-sizes":{{"artifacts/x":4}},"big-data-digests":{{"artifacts/x":"{}"}},"created":"{}","flags":{{"MountLabel":"","ProcessLabel":""}}}}]"#,
            id('c'),
            id('a'),
            id('d'),
            Digest::sha256(b"data"),
            container.created,
        );
        assert_eq!(fixture.containers_json(), expected, "{kind:?}");
        let layer = store.layer(&id('d')).unwrap();
        assert_eq!(layer.parent, Some(id('2')));
        assert_eq!(store.container_by_layer("ddd").unwrap(), container);
        assert_eq!(store.container(&id('d')).unwrap(), container);
        let json = fs::metadata(fixture.path("containers/containers.json")).unwrap();
        assert_eq!(json.mode() & 0o7777, 0o600);
        fails(
            store.create_layer(plywood::store::NewLayer {
                parent: Some(id('d')),
                ..Default::default()
            }),
            ErrorKind::ParentIsContainer,
        );
    }
}

#[test]
fn what_is_refused_leaves_no_layer_behind() {
    let fixture = with_image(Kind::Vfs);
    let store = &fixture.store;
    let new = |names: &[&str], layer: char| NewContainer {
        names: strings(names),
        image: Some("img".to_owned()),
        layer: Some(id(layer)),
        ..NewContainer::default()
    };
    store.create_container(new(&["ctr"], '3')).unwrap();
    let owner = store.container("ctr").unwrap().id;
    let error = fails(
        store.create_container(new(&["x", "ctr"], '4')),
        ErrorKind::DuplicateName,
    );
    assert_eq!(
        error.to_string(),
        format!(
            "the container name \"ctr\" is already in use by {owner}. You have to remove that \
             container to be able to reuse that name: that name is already in use"
        )
    );
    let same_id = NewContainer {
        id: Some(owner),
        ..new(&[], '4')
    };
    fails(store.create_container(same_id), ErrorKind::DuplicateId);
    fails(
        store.create_container(new(&[], '3')),
        ErrorKind::DuplicateId,
    );
    let no_image = NewContainer {
        image: Some("none".to_owned()),
        ..new(&[], '4')
    };
    fails(store.create_container(no_image), ErrorKind::ImageUnknown);
    let bad_key = NewContainer {
        big_data: vec![BigDataItem {
            key: "..".to_owned(),
            ..BigDataItem::default()
        }],
        ..new(&[], '4')
    };
    fails(
        store.create_container(bad_key),
        ErrorKind::InvalidBigDataName,
    );
    let half_labelled = NewContainer {
        mount_label: Some("system_u:object_r:container_file_t:s0".to_owned()),
        ..new(&[], '4')
    };
    fails(
        store.create_container(half_labelled),
        ErrorKind::InvalidArgument,
    );
    fails(store.layer(&id('4')), ErrorKind::LayerUnknown);
    assert!(!store.driver_layers().unwrap().contains(&id('4')));
    assert_eq!(store.containers().unwrap().len(), 1);
}

#[test]
fn labels_options_and_volatility_are_flags() {
    let fixture = with_image(Kind::Vfs);
    let mut flags = Flags::default();
    flags.set("mine", &1).unwrap();
    let container = fixture
        .store
        .create_container(NewContainer {
            image: Some("img".to_owned()),
            mount_label: Some("m:<c1>".to_owned()),
            process_label: Some("p".to_owned()),
            mount_options: strings(&["nodev"]),
            volatile: true,
            flags,
            ..NewContainer::default()
        })
        .unwrap();
    let json = fixture.containers_json();
    assert!(
        json.ends_with(
            r#""flags":{"MountLabel":"m:\u003cc1\u003e","MountOpts":["nodev"],"ProcessLabel":"p","Volatile":true,"mine":1}}]"#
        ),
        "{json}"
    );
    assert!(container.is_volatile());
    let layer = fixture.store.layer(&container.layer).unwrap();
    assert_eq!(layer.mount_label, "m:<c1>");
    // Versions that know no other file must see it.
    assert!(!fixture.path("containers/volatile-containers.json").exists());
    assert!(fixture.layers_json().contains(&container.layer));
}

/// Newer peers keep the records of volatile containers apart; they count all the same.
#[test]
fn volatile_records_of_others_are_read_kept_and_removed_in_their_file() {
    let fixture = with_image(Kind::Vfs);
    fixture.layer(&id('7'), Some(&id('2')));
    let record = format!(
        r#"[{{"id":"{}","names":["vol"],"image":"{}","layer":"{}","created":"2026-11-21T22:28:22Z","flags":{{"MountLabel":"","ProcessLabel":"","Volatile":true}},"new":1}}]"#,
        id('e'),
        id('a'),
        id('7'),
    );
    fixture.plant("containers/volatile-containers.json", &record);
    let store = &fixture.store;
    fails(
        store.delete_image("img", true),
        ErrorKind::ImageUsedByContainer,
    );
    store
        .create_container(NewContainer {
            image: Some("img".to_owned()),
            ..NewContainer::default()
        })
        .unwrap();
    let volatile = fixture.path("containers/volatile-containers.json");
    assert_eq!(fs::read_to_string(&volatile).unwrap(), record);
    store.set_metadata("vol", "m").unwrap();
    assert!(!fixture.containers_json().contains(&id('e')));
    let text = fs::read_to_string(&volatile).unwrap();
    assert!(
        text.contains(r#""metadata":"m""#) && text.contains(r#""new":1"#),
        "{text}"
    );
    store.delete_container("vol").unwrap();
    assert_eq!(fs::read_to_string(&volatile).unwrap(), "[]");
    fails(store.layer(&id('7')), ErrorKind::LayerUnknown);
}

#[test]
fn directories_are_made_when_asked_for_and_go_with_the_container() {
    let fixture = with_image(Kind::Vfs);
    let store = &fixture.store;
    let container = store
        .create_container(NewContainer {
            names: strings(&["ctr"]),
            image: Some("img".to_owned()),
            ..NewContainer::default()
        })
        .unwrap();
    let place = format!("containers/{}/userdata", container.id);
    assert!(!fixture.path(&place).exists());
    assert_eq!(
        store.container_directory("ctr").unwrap(),
        fixture.path(&place)
    );
    assert_eq!(
        store.container_run_directory("ctr").unwrap(),
        fixture.run_path(&place)
    );
    let mode = fs::metadata(fixture.path(&place)).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o700);
    store
        .set_container_directory_file("ctr", "deep/file.json", b"{}")
        .unwrap();
    store
        .set_container_run_directory_file("ctr", "state", b"12345")
        .unwrap();
    assert_eq!(
        store
            .container_directory_file("ctr", "deep/file.json")
            .unwrap(),
        b"{}"
    );
    assert_eq!(
        store.container_run_directory_file("ctr", "state").unwrap(),
        b"12345"
    );
    fails(
        store.set_container_directory_file("ctr", "../x", b""),
        ErrorKind::InvalidArgument,
    );
    store.set_container_big_data("ctr", "k", b"123").unwrap();
    assert_eq!(store.container_size("ctr").unwrap(), 2 + 5 + 3);
    assert_eq!(store.container_big_data("ctr", "k").unwrap(), b"123");
    fails(
        store.container_big_data("ctr", "no"),
        ErrorKind::BigDataMissing,
    );
    store.delete_container("ctr").unwrap();
    assert!(
        !fixture
            .path(&format!("containers/{}", container.id))
            .exists()
    );
    assert!(
        !fixture
            .run_path(&format!("containers/{}", container.id))
            .exists()
    );
    fails(store.layer(&container.layer), ErrorKind::LayerUnknown);
    fails(store.container("ctr"), ErrorKind::ContainerUnknown);

    let image_dir = store.image_directory("img").unwrap();
    assert_eq!(
        image_dir,
        fixture.path(&format!("images/{}/userdata", id('a'))),
        "by the id, not the argument"
    );
    assert!(store.image_run_directory("img").unwrap().is_dir());
    fails(store.image_directory("none"), ErrorKind::ImageUnknown);
}
