// SPDX-License-Identifier: Apache-2.0
//! What may be removed, what goes along, and what stays.

use std::fs;

use plywood::{
    ErrorKind,
    store::{BigDataItem, MultiListOptions, NewContainer, NewImage, NewLayer},
};

use crate::{
    layers_support::Kind,
    stores_support::{Fixture, fails, id, strings},
};

fn image(fixture: &Fixture, digit: char, layer: char) {
    let new = NewImage {
        id: Some(id(digit)),
        names: strings(&[&format!("img-{digit}")]),
        layer: Some(id(layer)),
        ..NewImage::default()
    };
    fixture.store.create_image(new).unwrap();
}

/// Layers 1 <- 2 <- 3 <- 4 and 2 <- 5; image a on 4, image b on 5.
fn forked(kind: Kind) -> Fixture {
    let fixture = Fixture::new(kind);
    fixture.layer(&id('1'), None);
    fixture.layer(&id('2'), Some(&id('1')));
    fixture.layer(&id('3'), Some(&id('2')));
    fixture.layer(&id('4'), Some(&id('3')));
    fixture.layer(&id('5'), Some(&id('2')));
    image(&fixture, 'a', '4');
    image(&fixture, 'b', '5');
    fixture
}

fn layers(fixture: &Fixture) -> Vec<char> {
    let layers = fixture.other().layers().unwrap();
    layers
        .iter()
        .filter_map(|layer| layer.id.chars().next())
        .collect()
}

#[test]
fn an_image_takes_along_the_layers_that_nothing_else_needs() {
    for kind in Kind::ALL {
        let fixture = forked(kind);
        let store = &fixture.store;
        let dry = store.delete_image("img-a", false).unwrap();
        assert_eq!(dry, [id('4'), id('3')], "{kind:?}");
        assert_eq!(layers(&fixture), ['1', '2', '3', '4', '5']);
        assert_eq!(store.images().unwrap().len(), 2);

        assert_eq!(store.delete_image("img-a", true).unwrap(), dry);
        assert_eq!(layers(&fixture), ['1', '2', '5']);
        assert_eq!(store.driver_layers().unwrap(), [id('1'), id('2'), id('5')]);
        assert_eq!(
            store.delete_image(&id('b'), true).unwrap(),
            [id('5'), id('2'), id('1')]
        );
        assert_eq!(fixture.layers_json(), "[]");
        assert_eq!(fixture.images_json(), "[]");
        let error = fails(store.delete_image("img-b", true), ErrorKind::NotAnImage);
        assert_eq!(error.to_string(), "identifier is not an image");
    }
}

#[test]
fn a_layer_that_is_another_images_top_ends_the_walk() {
    let fixture = forked(Kind::Vfs);
    image(&fixture, 'c', '3');
    assert_eq!(
        fixture.store.delete_image("img-a", true).unwrap(),
        [id('4')]
    );
    assert_eq!(
        fixture.store.delete_image("img-c", true).unwrap(),
        [id('3')]
    );
    assert_eq!(layers(&fixture), ['1', '2', '5']);
}

#[test]
fn mapped_copies_of_the_top_layer_go_with_the_image() {
    let fixture = forked(Kind::Vfs);
    fixture.layer(&id('6'), Some(&id('3')));
    let json = fixture.images_json();
    let with_mapped = json.replace(
        &format!(r#""layer":"{}""#, id('4')),
        &format!(
            r#""layer":"{}","mapped-layers":["{}","{}"]"#,
            id('4'),
            id('6'),
            id('9')
        ),
    );
    assert_ne!(json, with_mapped);
    fixture.plant("images/images.json", &with_mapped);
    let store = fixture.other();
    assert_eq!(store.images_by_top_layer(&id('6')).unwrap().len(), 1);
    let gone = store.delete_image("img-a", true).unwrap();
    assert_eq!(gone, [id('6'), id('9'), id('4'), id('3')]);
    assert_eq!(layers(&fixture), ['1', '2', '5']);
}

#[test]
fn what_is_used_cannot_be_removed() {
    for kind in Kind::ALL {
        let fixture = forked(kind);
        let store = &fixture.store;
        let container = store
            .create_container(NewContainer {
                names: strings(&["ctr"]),
                image: Some("img-a".to_owned()),
                ..NewContainer::default()
            })
            .unwrap();
        let error = fails(
            store.delete_image("img-a", true),
            ErrorKind::ImageUsedByContainer,
        );
        assert_eq!(
            error.to_string(),
            format!(
                "image used by {}: image is in use by a container",
                container.id
            )
        );
        fails(store.delete("img-a"), ErrorKind::ImageUsedByContainer);
        store.set_names(&id('2'), &strings(&["base"])).unwrap();
        let by_name = fails(store.delete_layer("base"), ErrorKind::LayerHasChildren);
        assert_eq!(
            by_name.to_string(),
            format!("used by layer {}: layer has children", id('3'))
        );
        let error = fails(store.delete_layer(&id('5')), ErrorKind::LayerUsedByImage);
        assert_eq!(
            error.to_string(),
            format!(
                "layer {} used by image {}: layer is in use by an image",
                id('5'),
                id('b')
            )
        );
        let error = fails(
            store.delete_layer(&container.layer),
            ErrorKind::LayerUsedByContainer,
        );
        assert_eq!(
            error.to_string(),
            format!(
                "layer {} used by container {}: layer is in use by a container",
                container.layer, container.id
            )
        );
        fails(store.delete_layer("none"), ErrorKind::NotALayer);
        fails(store.delete_container("none"), ErrorKind::NotAContainer);
        fails(store.delete("none"), ErrorKind::LayerUnknown);
        assert_eq!(layers(&fixture).len(), 6);

        store.delete("ctr").unwrap();
        store.delete("img-a").unwrap();
        assert_eq!(layers(&fixture), ['1', '2', '3', '4', '5'], "they stay");
        store.delete(&id('4')).unwrap();
        store.delete_layer(&id('3')).unwrap();
        assert_eq!(layers(&fixture), ['1', '2', '5']);
    }
}

#[test]
fn everything_can_be_listed_at_once_and_wiped() {
    let fixture = forked(Kind::Overlay);
    let store = &fixture.store;
    store
        .create_container(NewContainer {
            image: Some("img-b".to_owned()),
            ..NewContainer::default()
        })
        .unwrap();
    let all = MultiListOptions {
        images: true,
        layers: true,
        containers: true,
    };
    let lists = store.multi_list(all).unwrap();
    assert_eq!(
        (
            lists.images.len(),
            lists.layers.len(),
            lists.containers.len()
        ),
        (2, 6, 1)
    );
    let none = store.multi_list(MultiListOptions::default()).unwrap();
    assert!(none.images.is_empty() && none.layers.is_empty() && none.containers.is_empty());
    store.wipe().unwrap();
    let lists = store.multi_list(all).unwrap();
    assert!(lists.images.is_empty() && lists.layers.is_empty() && lists.containers.is_empty());
    assert_eq!(store.driver_layers().unwrap(), Vec::<String>::new());
}

#[test]
fn garbage_collection_takes_only_what_no_record_knows() {
    let fixture = forked(Kind::Vfs);
    let store = &fixture.store;
    store.set_image_big_data("img-a", "k", b"1", None).unwrap();
    for orphan in ["images", "containers"] {
        fs::create_dir(fixture.path(&format!("{orphan}/{}", id('0')))).unwrap();
        fs::create_dir(fixture.path(&format!("{orphan}/not-an-id"))).unwrap();
    }
    let leftovers = [
        fixture.path("images/.tmp-images.json123"),
        fixture.path(&format!("images/{}/.tmp-k7", id('a'))),
    ];
    for path in &leftovers {
        fs::write(path, b"[").unwrap();
    }
    store
        .create_driver_layer(NewLayer {
            id: Some(id('f')),
            ..NewLayer::default()
        })
        .unwrap();
    fails(store.layer(&id('f')), ErrorKind::LayerUnknown);
    assert!(store.driver_layers().unwrap().contains(&id('f')));
    let report = store.garbage_collect().unwrap();
    assert_eq!(report.len(), 5, "{report:?}");
    assert!(leftovers.iter().all(|path| !path.exists()));
    assert!(!store.driver_layers().unwrap().contains(&id('f')));
    for kind in ["images", "containers"] {
        assert!(!fixture.path(&format!("{kind}/{}", id('0'))).exists());
        assert!(fixture.path(&format!("{kind}/not-an-id")).exists());
    }
    assert_eq!(store.image_big_data("img-a", "k").unwrap(), b"1");
    assert_eq!(layers(&fixture), ['1', '2', '3', '4', '5']);
    assert!(store.garbage_collect().unwrap().is_empty());
}

#[test]
fn root_an_image_whose_data_cannot_be_removed_takes_its_layers_along() {
    let fixture = forked(Kind::Vfs);
    let data = fixture.path("images").join(id('a'));
    fs::create_dir_all(&data).unwrap();
    rustix::mount::mount_bind(&data, &data).unwrap();
    fails(fixture.store.delete_image("img-a", true), ErrorKind::Busy);
    fails(fixture.store.image("img-a"), ErrorKind::ImageUnknown);
    assert_eq!(layers(&fixture), ['1', '2', '5']);
}

/// The store's own files are in the same directory as those of images and containers.
#[test]
fn an_id_is_no_file_of_the_store() {
    let fixture = forked(Kind::Vfs);
    let item = || BigDataItem {
        key: "k".to_owned(),
        ..BigDataItem::default()
    };
    for name in ["images.json", "images.lock"] {
        let new = NewImage {
            id: Some(name.to_owned()),
            big_data: vec![item()],
            ..NewImage::default()
        };
        fails(fixture.store.create_image(new), ErrorKind::InvalidArgument);
    }
    for name in [
        "containers.json",
        "containers.lock",
        "volatile-containers.json",
    ] {
        let new = NewContainer {
            id: Some(name.to_owned()),
            image: Some(id('a')),
            big_data: vec![item()],
            ..NewContainer::default()
        };
        let refused = fixture.store.create_container(new);
        fails(refused, ErrorKind::InvalidArgument);
    }
    assert_eq!(layers(&fixture), ['1', '2', '3', '4', '5']);
    assert_eq!(fixture.other().containers().unwrap(), []);
}

/// The first of two files was replaced when the second one fails: what is recorded stays whole.
#[test]
fn root_a_container_that_is_recorded_keeps_its_layer_when_saving_fails() {
    let fixture = forked(Kind::Vfs);
    // Names twice are put right by the next save.
    fixture.plant(
        "containers/volatile-containers.json",
        &format!(
            r#"[{{"id":"{}","names":["n","n"],"layer":"{}","created":"2026-01-02T03:04:05Z"}}]"#,
            id('e'),
            id('e')
        ),
    );
    let volatile = fixture.path("containers/volatile-containers.json");
    // Nothing can be renamed over a mount.
    rustix::mount::mount_bind(&volatile, &volatile).unwrap();
    let new = NewContainer {
        id: Some(id('c')),
        image: Some(id('a')),
        big_data: vec![BigDataItem {
            key: "k".to_owned(),
            data: b"data".to_vec(),
            digest: None,
        }],
        ..NewContainer::default()
    };
    fails(fixture.store.create_container(new), ErrorKind::Busy);
    let other = fixture.other();
    let container = other.container(&id('c')).unwrap();
    assert_eq!(other.container_big_data(&id('c'), "k").unwrap(), b"data");
    assert!(other.layer(&container.layer).is_ok());
    assert!(other.driver_layers().unwrap().contains(&container.layer));
}
