// SPDX-License-Identifier: Apache-2.0
//! Layers from the store, with every driver.

use std::fs;

use plywood::{
    archive::Compression,
    store::{DiffOptions, MountOptions, NewContainer, NewImage, Store},
};

use crate::support::{Place, Remote, is_ready};

fn plain_diff(store: &Store, layer: &str) -> Vec<u8> {
    let mut options = DiffOptions::default();
    options.compression = Some(Compression::None);
    let mut out = Vec::new();
    store.diff(None, layer, options, &mut out).unwrap();
    out
}

fn put(store: &Store, remote: &Remote, parent: Option<&str>) -> String {
    let found = store.lookup_additional_layer(Some(&remote.digest), None, None);
    found.unwrap().put_as(None, parent, &[]).unwrap().id
}

#[test]
fn root_every_driver_uses_served_layers_and_gives_them_back() {
    if !is_ready() {
        return;
    }
    let place = Place::new();
    if !place.mount_btrfs() {
        return;
    }
    let text = |text: &str| text.as_bytes().to_vec();
    let lower = place.layer(&[("a", text("lower")), ("b", text("lower"))]);
    let upper = place.layer(&[("a", text("upper"))]);
    let _server = place.serve();
    for driver in ["overlay", "additional-layer-store", "btrfs", "vfs"] {
        let by_reference = ["overlay", "additional-layer-store"].contains(&driver);
        let store = place.store(driver, &[]);
        let found = store.lookup_additional_layer(Some(&lower.digest), None, None);
        let found = found.unwrap();
        assert_eq!(place.uses(), format!("{} 1\n", lower.digest), "{driver}");
        let base = found.put_as(None, None, &[]).unwrap().id;
        drop(found);
        let uses = if by_reference {
            format!("{} 1\n", lower.digest)
        } else {
            String::new()
        };
        assert_eq!(place.uses(), uses, "{driver}");
        let top = put(&store, &upper, Some(&base));
        assert!(plain_diff(&store, &base) == lower.tar, "{driver}");
        assert!(plain_diff(&store, &top) == upper.tar, "{driver}");
        let image = NewImage {
            names: vec!["img".to_owned()],
            layer: Some(top),
            ..NewImage::default()
        };
        store.create_image(image).unwrap();
        let container = NewContainer {
            image: Some("img".to_owned()),
            ..NewContainer::default()
        };
        let container = store.create_container(container).unwrap().id;
        let path = store.mount(&container, &MountOptions::default()).unwrap();
        assert_eq!(
            fs::read_to_string(path.join("a")).unwrap(),
            "upper",
            "{driver}"
        );
        assert_eq!(
            fs::read_to_string(path.join("b")).unwrap(),
            "lower",
            "{driver}"
        );
        fs::write(path.join("b"), "own").unwrap();
        assert_eq!(
            fs::read_to_string(path.join("b")).unwrap(),
            "own",
            "{driver}"
        );
        store.unmount(&container, false).unwrap();
        assert_eq!(
            place.uses().lines().count(),
            if by_reference { 2 } else { 0 }
        );
        store.delete_container(&container).unwrap();
        store.delete_image("img", true).unwrap();
        assert_eq!(place.uses(), "", "{driver}: every use is over");
        assert!(store.layers().unwrap().is_empty(), "{driver}");
        store.shutdown(false).unwrap();
    }
}

/// A use that begins ends once, also when nothing comes of it.
#[test]
fn root_uses_end_when_a_layer_cannot_be_put() {
    if !is_ready() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("disk")).unwrap();
    let layer = place.layer(&[("a", Vec::new())]);
    let info = place
        .path("folder")
        .join(layer.digest.as_str())
        .join("info");
    let _server = place.serve();
    let store = place.store("overlay", &[]);
    let lookup = || store.lookup_additional_layer(Some(&layer.digest), None, None);
    let found = lookup().unwrap();
    assert_eq!(place.uses().lines().count(), 1);
    found.put_as(None, Some("none"), &[]).unwrap_err();
    drop(found);
    assert_eq!(place.uses(), "");
    // Of the same length: the kernel keeps what it knows about the file.
    let length = fs::metadata(&info).unwrap().len();
    fs::write(&info, "x".repeat(usize::try_from(length).unwrap())).unwrap();
    lookup().unwrap_err();
    assert_eq!(place.uses(), "");
}
