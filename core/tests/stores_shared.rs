// SPDX-License-Identifier: Apache-2.0
//! Stores that several processes use, and read-only stores beside one's own.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use plywood::{
    Digest, ErrorKind,
    plugin::PluginOptions,
    sdk::embed_driver,
    store::{MountOptions, NewContainer, NewImage, NewLayer, Store, StoreOptions},
};

use crate::{
    layers_support::Kind,
    stores_support::{Fixture, fails, id, open, options, strings},
};

embed_driver!(plywood_driver_overlay::Overlay);
embed_driver!(plywood_driver_vfs::Vfs);

/// This test program again, running one ignored test on the store in `root`.
fn child(test: &str, root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("PLYWOOD_TEST_ROOT", root)
        .stdout(Stdio::null());
    command
}

/// The root that a child was given; `None` when the test is run by hand.
fn given_root() -> Option<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the parent test passes it in the environment"
    )]
    let root = std::env::var_os("PLYWOOD_TEST_ROOT");
    root.map(PathBuf::from)
}

/// Two processes of this library must not lose each other's records.
#[test]
fn concurrent_processes_lose_nothing() {
    let fixture = Fixture::vfs();
    fixture.layer(&id('1'), None);
    let image = NewImage {
        names: strings(&["img"]),
        layer: Some(id('1')),
        ..NewImage::default()
    };
    fixture.store.create_image(image).unwrap();
    let children: Vec<_> = (0..3)
        .map(|_| {
            child("stores_shared::child_adds_and_removes", fixture.root.path())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let mut expected = BTreeSet::from(["img".to_owned()]);
    let mut lists = 0;
    for entry in fs::read_dir(fixture.root.path()).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "names")
        {
            let text = fs::read_to_string(path).unwrap();
            assert!(text.lines().count() > 2, "{text}");
            expected.extend(text.lines().map(str::to_owned));
            lists += 1;
        }
    }
    assert_eq!(lists, 3);
    let images = fixture.store.images().unwrap();
    let containers = fixture.store.containers().unwrap();
    let found: BTreeSet<String> = images
        .iter()
        .flat_map(|image| image.names.clone())
        .chain(containers.iter().flat_map(|found| found.names.clone()))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(
        fixture.store.layers().unwrap().len(),
        containers.len() + 1,
        "no layer lost or left"
    );
}

#[test]
#[ignore = "run by concurrent_processes_lose_nothing"]
fn child_adds_and_removes() {
    let Some(root) = given_root() else { return };
    let store = open(&root, Kind::Vfs);
    let pid = std::process::id();
    let end = Instant::now() + Duration::from_secs(2);
    let mut kept = String::new();
    for number in 0.. {
        if Instant::now() > end {
            break;
        }
        let image = format!("image-{pid}-{number}");
        let container = format!("container-{pid}-{number}");
        store
            .create_image(NewImage {
                names: vec![image.clone()],
                layer: Some(id('1')),
                ..NewImage::default()
            })
            .unwrap();
        store
            .create_container(NewContainer {
                names: vec![container.clone()],
                image: Some("img".to_owned()),
                ..NewContainer::default()
            })
            .unwrap();
        if number % 2 == 0 {
            store.delete_container(&container).unwrap();
            assert!(store.delete_image(&image, true).unwrap().is_empty());
        } else {
            kept = format!("{kept}{image}\n{container}\n");
        }
    }
    fs::write(root.join(format!("{pid}.names")), kept).unwrap();
}

/// Each rewrite makes every other process read all records again.
#[test]
fn an_image_of_many_layers_is_removed_with_one_rewrite() {
    let fixture = Fixture::vfs();
    let status = child("stores_shared::child_counts_rewrites", fixture.root.path())
        .status()
        .unwrap();
    assert!(status.success());
    assert_eq!(fixture.layers_json(), "[]");
}

/// The counter in the token of a lock file, which counts all tokens of the process.
fn tokens(path: &Path) -> u64 {
    let token = fs::read(path).unwrap();
    u64::from_le_bytes(token[8..16].try_into().unwrap())
}

#[test]
#[ignore = "run by an_image_of_many_layers_is_removed_with_one_rewrite"]
fn child_counts_rewrites() {
    let Some(root) = given_root() else { return };
    let store = open(&root, Kind::Vfs);
    let mut parent = None;
    for _ in 0..12 {
        let new = NewLayer {
            parent: parent.take(),
            ..NewLayer::default()
        };
        parent = Some(store.create_layer(new).unwrap().id);
    }
    let image = NewImage {
        names: strings(&["img"]),
        layer: parent,
        ..NewImage::default()
    };
    store.create_image(image).unwrap();
    let lock = |what: &str| root.join(format!("graph/vfs-{what}/{what}.lock"));
    let before = tokens(&lock("images"));
    assert_eq!(store.delete_image("img", true).unwrap().len(), 12);
    // One token before and one after each of the two files.
    assert_eq!(tokens(&lock("images")), before + 2);
    assert_eq!(tokens(&lock("layers")), before + 4);
}

fn embedded(root: &Path, others: &[&Path]) -> Store {
    let imagestore =
        |other: &&Path| format!("overlay.imagestore={}", other.join("graph").display());
    Store::open(StoreOptions {
        driver: Some("overlay".to_owned()),
        driver_options: others.iter().map(imagestore).collect(),
        plugins: PluginOptions::only_embedded(),
        ..options(root)
    })
    .unwrap()
}

/// A store with layers 1 <- 2 and an image on the latter, for others to read.
fn shared_store() -> Fixture {
    let shared = Fixture::new(Kind::Overlay);
    shared.layer(&id('1'), None);
    shared.layer(&id('2'), Some(&id('1')));
    let image = NewImage {
        id: Some(id('a')),
        names: strings(&["theirs"]),
        layer: Some(id('2')),
        metadata: "m".to_owned(),
        ..NewImage::default()
    };
    shared.store.create_image(image).unwrap();
    let store = &shared.store;
    store
        .set_image_big_data("theirs", "manifest", b"x", None)
        .unwrap();
    shared
}

/// Images of a read-only store must be found and listed, and never changed.
#[test]
fn images_of_a_read_only_store_are_found_and_protected() {
    let shared = shared_store();
    let before = (shared.images_json(), shared.layers_json());
    let fixture = Fixture::new(Kind::Overlay);
    let store = embedded(fixture.root.path(), &[shared.root.path()]);
    let image = store.image("theirs").unwrap();
    assert!(image.read_only);
    assert!(store.layer(&id('2')).unwrap().read_only);
    let digest = Digest::sha256(b"x");
    assert_eq!(store.images_by_digest(&digest).unwrap().len(), 1);
    assert_eq!(store.image_big_data("theirs", "manifest").unwrap(), b"x");
    assert_eq!(store.images_by_top_layer(&id('2')).unwrap().len(), 1);
    fails(store.delete_image("theirs", true), ErrorKind::NotAnImage);
    fails(store.delete_layer(&id('2')), ErrorKind::StoreIsReadOnly);
    for refused in [
        store.set_metadata("theirs", "new"),
        store.set_image_big_data("theirs", "k", b"", None),
    ] {
        fails(refused, ErrorKind::StoreIsReadOnly);
    }
    assert_eq!((shared.images_json(), shared.layers_json()), before);
}

/// Images of a read-only store must be usable, and be copied when their names change.
#[test]
fn images_of_a_read_only_store_are_used_and_copied() {
    let shared = shared_store();
    let before = (shared.images_json(), shared.layers_json());
    let fixture = Fixture::new(Kind::Overlay);
    let store = embedded(fixture.root.path(), &[shared.root.path()]);
    let container = store
        .create_container(NewContainer {
            names: strings(&["ctr"]),
            image: Some("theirs".to_owned()),
            ..NewContainer::default()
        })
        .unwrap();
    let layer = store.layer(&container.layer).unwrap();
    assert_eq!(layer.parent, Some(id('2')));
    let path = store.mount("ctr", &MountOptions::default()).unwrap();
    fs::write(path.join("file"), b"1").unwrap();
    store.unmount("ctr", false).unwrap();

    store.add_names("theirs", &strings(&["ours"])).unwrap();
    let image = store.image("ours").unwrap();
    assert!(!image.read_only);
    assert_eq!(image.id, id('a'));
    assert_eq!(image.names, ["ours", "theirs"]);
    assert_eq!(image.metadata, "m");
    let copied = fixture.path(&format!("images/{}/manifest", id('a')));
    assert_eq!(fs::read(copied).unwrap(), b"x");
    let used = store.delete_image("ours", true);
    fails(used, ErrorKind::ImageUsedByContainer);
    store.delete_container("ctr").unwrap();
    assert!(store.delete_image("ours", true).unwrap().is_empty());
    assert!(store.image("theirs").unwrap().read_only);

    // An image of that id adds to what it is there.
    let merged = store
        .create_image(NewImage {
            id: Some(id('a')),
            names: strings(&["mine"]),
            ..NewImage::default()
        })
        .unwrap();
    assert_eq!(merged.names, ["theirs", "mine"]);
    assert_eq!(merged.metadata, "m");
    assert_eq!(merged.digest, Some(Digest::sha256(b"x")));
    assert_eq!((shared.images_json(), shared.layers_json()), before);
}

#[test]
fn the_driver_is_chosen_and_opened_again_after_a_shutdown() {
    let root = Fixture::new(Kind::Overlay);
    let store = embedded(root.root.path(), &[]);
    assert_eq!(store.driver_choice().failure, None);
    assert_eq!(store.driver_name(), "overlay");
    let other = Store::open(StoreOptions {
        plugins: PluginOptions::only_embedded(),
        ..options(root.root.path())
    })
    .unwrap();
    assert_eq!(other.driver_name(), "overlay", "the store has it");
    let layer = store.create_layer(NewLayer::default()).unwrap();
    let mounts = |store: &Store| {
        store.mount(&layer.id, &MountOptions::default()).unwrap();
        assert!(!store.unmount(&layer.id, false).unwrap());
    };
    mounts(&store);
    assert!(other.shutdown(false).unwrap().is_empty());
    mounts(&store);
    mounts(&other);
    let error = Store::open(StoreOptions {
        driver: Some("none".to_owned()),
        plugins: PluginOptions::only_embedded(),
        ..options(root.root.path())
    });
    fails(error, ErrorKind::DriverUnavailable);
}
