// SPDX-License-Identifier: Apache-2.0
//! Layers of read-only stores as parents.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use plywood_plugin_sdk::{Driver, MountPlan, MountRequest, Removed};

use crate::support::{Store, btrfs, container, id, layer, open_at};

/// A store of one layer, `image`, below `graph`.
fn exported(graph: &Path, run: &Path) {
    let driver = open_at(&graph.join("btrfs"), run, &[]).unwrap();
    driver.create(&layer("image", None)).unwrap();
    let tree = graph.join("btrfs/subvolumes/image");
    fs::create_dir(tree.join("d")).unwrap();
    fs::write(tree.join("d/file"), "theirs").unwrap();
}

/// Opens `store` with the layers below `graph`.
fn user(store: &Store, graph: &Path) -> Box<dyn Driver> {
    let option = format!("btrfs.imagestore={}", graph.display());
    let driver = store.open_with(&[&option]).unwrap();
    assert!(driver.capabilities().image_stores);
    assert_eq!(driver.image_stores(), [graph.join("btrfs")]);
    driver
}

/// The names that a container on `image` differs by after one change.
fn child_differs_by_what_it_wrote(store: &Store, driver: &dyn Driver) {
    driver.create(&container("child", Some("image"))).unwrap();
    let tree = store.tree("child");
    assert_eq!(fs::metadata(&tree).unwrap().ino(), 256, "a subvolume");
    assert_eq!(fs::read_to_string(tree.join("d/file")).unwrap(), "theirs");
    fs::write(tree.join("new"), "ours").unwrap();
    let changes = driver
        .native_changes(&id("child"), Some(&id("image")))
        .unwrap();
    assert!(changes.iter().any(|change| change.path == Path::new("new")));
    assert!(driver.usage(&id("child")).unwrap().bytes >= 4);
}

/// Nothing that is asked of a layer of another store changes it.
fn theirs_is_only_read(store: &Store, driver: &dyn Driver, graph: &Path) {
    let plan = driver.mount_plan(&id("image"), &MountRequest::default());
    let Ok(MountPlan::Mounts(_)) = plan else {
        panic!("a layer of an image store is shown read-only, not {plan:?}")
    };
    assert!(driver.exists(&id("image")).unwrap());
    assert_eq!(driver.remove(&id("image")).unwrap(), Removed::AlreadyGone);
    assert_eq!(driver.list().unwrap(), [id("child")]);
    assert!(driver.usage(&id("image")).unwrap().bytes >= 6);
    driver.native_changes(&id("image"), None).unwrap();
    driver.metadata(&id("image")).unwrap();
    let file = graph.join("btrfs/subvolumes/image/d/file");
    assert_eq!(fs::read_to_string(file).unwrap(), "theirs");
    store.assert_only_below_home(&["child"]);
}

#[test]
fn root_on_the_same_file_system_children_share_their_blocks() {
    let Some(store) = Store::new() else { return };
    let graph = store.mounted().join("images");
    exported(&graph, &store.run_root().join("images"));
    let driver = user(&store, &graph);
    child_differs_by_what_it_wrote(&store, driver.as_ref());
    theirs_is_only_read(&store, driver.as_ref(), &graph);
    let uuids = |tree: &Path, name: &str| {
        let shown = btrfs(&["subvolume", "show"], tree);
        let line = shown.lines().find(|line| line.trim().starts_with(name));
        line.and_then(|line| line.split_whitespace().last().map(str::to_owned))
    };
    let image = graph.join("btrfs/subvolumes/image");
    assert_eq!(
        uuids(&store.tree("child"), "Parent UUID"),
        uuids(&image, "UUID")
    );
}

#[test]
fn root_from_another_btrfs_children_are_copies() {
    let (Some(store), Some(other)) = (Store::new(), Store::new()) else {
        return;
    };
    exported(&other.graph_root(), &other.run_root());
    let driver = user(&store, &other.graph_root());
    child_differs_by_what_it_wrote(&store, driver.as_ref());
    theirs_is_only_read(&store, driver.as_ref(), &other.graph_root());
}

#[test]
fn root_from_any_file_system_children_are_copies() {
    let Some(store) = Store::new() else { return };
    let elsewhere = tempfile::tempdir().unwrap();
    let tree = elsewhere.path().join("btrfs/subvolumes/image");
    fs::create_dir_all(tree.join("d")).unwrap();
    fs::write(tree.join("d/file"), "theirs").unwrap();
    let driver = user(&store, elsewhere.path());
    child_differs_by_what_it_wrote(&store, driver.as_ref());
    theirs_is_only_read(&store, driver.as_ref(), elsewhere.path());
}
