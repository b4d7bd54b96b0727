// SPDX-License-Identifier: Apache-2.0
//! Opening a store, with and without its driver, and shutting it down.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use plywood::{
    Digest, ErrorKind,
    plugin::PluginOptions,
    store::{MountOptions, NewContainer, NewImage, NewLayer, Store, StoreOptions},
};

use crate::{
    layers_support::Kind,
    stores_support::{Fixture, fails, id, options, strings},
};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn without_drivers(root: &Path) -> StoreOptions {
    let mut plugins = PluginOptions::only_embedded();
    plugins.embedded = false;
    StoreOptions {
        plugins,
        ..options(root)
    }
}

#[test]
fn the_directories_and_lock_files_of_the_format_are_made() {
    let fixture = Fixture::vfs();
    let graph = fixture.root.path().join("graph");
    for (path, expected) in [
        (graph.clone(), 0o700),
        (fixture.root.path().join("run"), 0o700),
        (graph.join("storage.lock"), 0o644),
        (graph.join("userns.lock"), 0o644),
        (fixture.path("images"), 0o700),
        (fixture.path("images/images.lock"), 0o644),
        (fixture.path("containers"), 0o700),
        (fixture.path("containers/containers.lock"), 0o644),
        (fixture.run_path("containers"), 0o700),
        (fixture.run_path("locks"), 0o700),
    ] {
        assert_eq!(mode(&path), expected, "{}", path.display());
    }
    assert!(!fixture.path("layers").exists(), "made at first use");
    assert!(
        !fixture.path("images/images.json").exists(),
        "nothing was saved"
    );
    assert!(fixture.store.layers().unwrap().is_empty());
    assert_eq!(mode(&fixture.path("layers/layers.lock")), 0o644);
    let digest = Digest::sha256(b"x");
    let lock = fixture.store.digest_lock(&digest).unwrap();
    drop(lock.write_unordered().unwrap());
    let file = fixture.run_path(&format!("locks/{digest}"));
    assert_eq!(mode(&file), 0o644);
}

#[test]
fn missing_roots_and_what_this_release_lacks_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fails(Store::open(StoreOptions::default()), ErrorKind::Config);
    let transient = StoreOptions {
        transient_store: true,
        ..options(dir.path())
    };
    fails(Store::open(transient), ErrorKind::NotSupported);
    let split = StoreOptions {
        image_store: Some(dir.path().join("other")),
        ..options(dir.path())
    };
    fails(Store::open(split), ErrorKind::NotSupported);
    assert!(!dir.path().join("graph").exists());
    let none = fails(
        Store::open(without_drivers(dir.path())),
        ErrorKind::DriverUnavailable,
    );
    assert_eq!(none.to_string(), "no supported storage backend found");
}

/// A missing plugin must not hide what the store has, nor let another driver take the store over.
#[test]
fn a_store_without_its_driver_can_be_listed_and_described() {
    for name in ["vfs", "third-party"] {
        let fixture = Fixture::vfs();
        fixture.layer(&id('1'), None);
        let new = NewImage {
            id: Some(id('a')),
            names: strings(&["img"]),
            layer: Some(id('1')),
            ..NewImage::default()
        };
        fixture.store.create_image(new).unwrap();
        let graph = fixture.root.path().join("graph");
        for what in ["", "-layers", "-images", "-containers"] {
            let old = graph.join(format!("vfs{what}"));
            fs::rename(old, graph.join(format!("{name}{what}"))).unwrap();
        }
        let store = Store::open(without_drivers(fixture.root.path())).unwrap();
        assert_eq!(store.driver_name(), name);
        assert!(store.driver_choice().failure.is_some());
        assert_eq!(store.image("img").unwrap().top_layer, Some(id('1')));
        assert_eq!(store.layers().unwrap().len(), 1);
        store.set_names("img", &strings(&["renamed"])).unwrap();
        store
            .set_image_big_data("renamed", "k", b"v", None)
            .unwrap();
        assert_eq!(store.metadata("renamed").unwrap(), "");
        assert_eq!(store.status().unwrap()[0].0, "Driver Unavailable");
        for refused in [
            store.create_layer(NewLayer::default()).map(drop),
            store.delete_image("renamed", true).map(drop),
            store.mount(&id('1'), &MountOptions::default()).map(drop),
            store.driver_layers().map(drop),
        ] {
            let error = fails(refused, ErrorKind::DriverUnavailable);
            assert!(error.remedy().is_some(), "{error:?}");
        }
        assert_eq!(store.layers().unwrap().len(), 1, "{name}");
    }
}

#[test]
fn a_shutdown_needs_force_while_layers_are_mounted_and_tells_everyone() {
    for kind in Kind::ALL {
        let fixture = Fixture::new(kind);
        let store = &fixture.store;
        fixture.layer(&id('1'), None);
        let new = NewImage {
            names: strings(&["img"]),
            layer: Some(id('1')),
            ..NewImage::default()
        };
        store.create_image(new).unwrap();
        let container = store
            .create_container(NewContainer {
                names: strings(&["ctr"]),
                image: Some("img".to_owned()),
                ..NewContainer::default()
            })
            .unwrap();
        let options = MountOptions::default();
        let path = store.mount("ctr", &options).unwrap();
        assert_eq!(fixture.other().mount("ctr", &options).unwrap(), path);
        assert_eq!(store.mounted(&container.layer).unwrap(), 2);
        let error = fails(store.shutdown(false), ErrorKind::LayerUsedByContainer);
        assert_eq!(
            error.to_string(),
            "a layer is mounted: layer is in use by a container"
        );
        assert_eq!(error.about(), Some(&*container.layer));
        let lock = fixture.root.path().join("graph/storage.lock");
        assert_eq!(fs::metadata(&lock).unwrap().len(), 0);
        assert_eq!(store.shutdown(true).unwrap(), [container.layer]);
        assert_eq!(store.mounted("ctr").unwrap(), 0);
        assert_eq!(fs::metadata(&lock).unwrap().len(), 64);
        assert!(store.shutdown(false).unwrap().is_empty());
        if kind == Kind::Plain {
            // What the driver cannot do is refused, not ignored.
            fails(store.mount_image("img", &options), ErrorKind::NotSupported);
        } else {
            let path = store.mount_image("img", &options).unwrap();
            assert!(fs::write(path.join("file"), b"").is_err(), "{kind:?}");
            assert!(!store.unmount_image("img", false).unwrap());
        }
        let writable = MountOptions {
            options: strings(&["rw"]),
            ..options
        };
        fails(
            store.mount_image("img", &writable),
            ErrorKind::InvalidArgument,
        );
    }
}

#[test]
fn sizes_are_those_recorded_or_measured() {
    let fixture = Fixture::vfs();
    let store = &fixture.store;
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(3);
    header.set_mode(0o644);
    tar.append_data(&mut header, "file", &b"abc"[..]).unwrap();
    let bytes = tar.into_inner().unwrap();
    let new = |digit: char, parent: Option<char>| NewLayer {
        id: Some(id(digit)),
        parent: parent.map(id),
        ..NewLayer::default()
    };
    let (layer, size) = store.put_layer(new('1', None), &*bytes).unwrap();
    assert_eq!(size, bytes.len() as u64);
    assert_eq!(
        store.layer_size(&layer.id).unwrap(),
        i64::try_from(size).unwrap()
    );
    store.create_layer(new('2', Some('1'))).unwrap();
    assert_eq!(store.layer_size(&id('2')).unwrap(), -1);
    store.set_names(&id('2'), &strings(&["named"])).unwrap();
    let path = store.mount("named", &MountOptions::default()).unwrap();
    fs::write(path.join("more"), b"12345").unwrap();
    store.unmount(&id('2'), false).unwrap();
    store
        .create_image(NewImage {
            names: strings(&["img"]),
            layer: Some(id('2')),
            ..NewImage::default()
        })
        .unwrap();
    store
        .set_image_big_data("img", "k", b"1234567", None)
        .unwrap();
    assert_eq!(store.image_size("img").unwrap(), size + 5 + 7);
    let found = store
        .layers_by_uncompressed_digest(&Digest::sha256(&bytes))
        .unwrap();
    assert_eq!(found[0].id, id('1'));
    fails(
        store.layers_by_toc_digest(&Digest::sha256(b"")),
        ErrorKind::LayerUnknown,
    );
    let mut out = Vec::new();
    store
        .diff(
            None,
            &id('1'),
            plywood::store::DiffOptions::default(),
            &mut out,
        )
        .unwrap();
    assert_eq!(out, bytes);
    assert_eq!(store.changes(None, &id('2')).unwrap().len(), 1);
}
