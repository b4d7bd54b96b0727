// SPDX-License-Identifier: Apache-2.0
//! Making, showing and removing layers.

use std::{fs, os::unix::fs::MetadataExt, process::Command, sync::Arc};

use plywood_driver_btrfs::Btrfs;
use plywood_plugin_sdk::{
    DiffView, DriverErrorCode, Host, IdMap, LogLevel, MountPlan, MountRequest, MountStep,
    OpenRequest, Plugin, Removed,
};

use crate::support::{Store, btrfs, container, id, layer, open_at, run, sized};

#[test]
fn another_file_system_is_refused_and_nothing_is_made_there() {
    struct Quiet;
    impl Host for Quiet {
        fn log(&self, _: LogLevel, _: &str, _: &str) {}
    }
    let home = std::path::Path::new("/proc/plywood/btrfs");
    let request = OpenRequest::new(home, "/proc/plywood/run", Arc::new(Quiet));
    let Err(error) = Btrfs::open(request) else {
        panic!("it opened");
    };
    assert_eq!(error.code, DriverErrorCode::INCOMPATIBLE_FILESYSTEM);
    assert!(error.means_unsuitable() && error.remedy.is_some());
}

#[test]
fn root_layers_are_subvolumes_and_children_are_snapshots() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    let base = store.tree("base");
    let found = fs::metadata(&base).unwrap();
    assert_eq!((found.ino(), found.mode() & 0o7777), (256, 0o555));
    let home = fs::metadata(store.home()).unwrap();
    assert_eq!(home.mode() & 0o7777, 0o700);

    fs::write(base.join("file"), "below").unwrap();
    driver.create(&container("top", Some("base"))).unwrap();
    let top = store.tree("top");
    assert_eq!(fs::read_to_string(top.join("file")).unwrap(), "below");
    fs::write(top.join("file"), "above").unwrap();
    assert_eq!(fs::read_to_string(base.join("file")).unwrap(), "below");
    let parent = btrfs(&["subvolume", "show"], &top);
    let uuid = btrfs(&["subvolume", "show"], &base);
    let value = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.trim().starts_with(name));
        line.unwrap().split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(value(&parent, "Parent UUID"), value(&uuid, "UUID"));

    assert_eq!(driver.list().unwrap(), [id("base"), id("top")]);
    assert!(driver.exists(&id("top")).unwrap());
    let error = driver.create(&layer("top", None)).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::ALREADY_EXISTS);
    assert_eq!(fs::read_to_string(top.join("file")).unwrap(), "above");
    let error = driver.create(&layer("x", Some("nobody"))).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::NOT_FOUND);
    store.assert_only(&["base", "top"]);

    assert_eq!(driver.remove(&id("top")).unwrap(), Removed::Now);
    assert_eq!(driver.remove(&id("top")).unwrap(), Removed::AlreadyGone);
    assert_eq!(driver.remove(&id("base")).unwrap(), Removed::Now);
    store.assert_only(&[]);
}

#[test]
fn root_a_parent_can_be_removed_before_its_children() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    fs::write(store.tree("base/file"), "kept").unwrap();
    driver.create(&layer("top", Some("base"))).unwrap();
    driver.remove(&id("base")).unwrap();
    let text = fs::read_to_string(store.tree("top/file")).unwrap();
    assert_eq!(text, "kept");
    store.assert_only(&["top"]);
}

#[test]
fn root_subvolumes_inside_go_with_their_layer() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    let tree = store.tree("base");
    fs::create_dir_all(tree.join("a/b")).unwrap();
    for path in ["one", "a/b/two", "a/b/two/three"] {
        btrfs(&["subvolume", "create"], &tree.join(path));
        fs::write(tree.join(path).join("file"), "x").unwrap();
    }
    let inner = tree.join("a/b/two/three");
    let snapshot = tree.join("a/b/two/frozen");
    run(Command::new("btrfs")
        .args(["subvolume", "snapshot", "-r"])
        .args([&inner, &snapshot]));
    for path in ["a/b/two", "one"] {
        read_only(&tree.join(path));
    }
    // A snapshot of the layer has empty directories in their places.
    driver.create(&layer("top", Some("base"))).unwrap();
    assert!(store.tree("top/one").is_dir());
    assert_eq!(store.subvolumes().len(), 6);
    driver.remove(&id("base")).unwrap();
    store.assert_only(&["top"]);
    driver.remove(&id("top")).unwrap();
    store.assert_only(&[]);
}

#[test]
fn root_a_layer_that_somebody_made_read_only_is_removed() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    fs::write(store.tree("base/file"), "x").unwrap();
    read_only(&store.tree("base"));
    driver.create(&layer("top", Some("base"))).unwrap();
    fs::write(store.tree("top/file"), "y").unwrap();
    assert_eq!(driver.remove(&id("base")).unwrap(), Removed::Now);
    store.assert_only(&["top"]);
}

#[test]
fn root_layers_are_shown_as_they_are_or_read_only_elsewhere() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    let mut request = MountRequest::default();
    let plan = driver.mount_plan(&id("base"), &request).unwrap();
    assert_eq!(plan, MountPlan::Directory(store.tree("base")));
    request.read_only = true;
    let MountPlan::Mounts(plan) = driver.mount_plan(&id("base"), &request).unwrap() else {
        panic!("it is to be mounted");
    };
    let MountStep::Bind {
        source,
        target,
        read_only,
    } = &plan.steps[0]
    else {
        panic!("{plan:?}");
    };
    assert_eq!((source, target), (&store.tree("base"), &plan.target));
    assert!(*read_only && plan.target.starts_with(store.run_root()));
    driver.released(&id("base")).unwrap();
    assert!(!plan.target.exists());
    request.options = vec!["noatime".to_owned()];
    let error = driver.mount_plan(&id("base"), &request).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT);
    let error = driver.mount_plan(&id("none"), &request).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::NOT_FOUND);
}

#[test]
fn root_the_owner_of_a_base_and_the_content_of_a_template_are_kept() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    let mut request = layer("mapped", None);
    let map = IdMap {
        container_id: 0,
        host_id: 100_000,
        size: 65536,
    };
    request.id_maps.uids = vec![map];
    request.id_maps.gids = vec![map];
    driver.create(&request).unwrap();
    let found = fs::metadata(store.tree("mapped")).unwrap();
    assert_eq!((found.uid(), found.gid()), (100_000, 100_000));

    driver.create(&layer("base", None)).unwrap();
    driver.create(&layer("origin", Some("base"))).unwrap();
    fs::write(store.tree("origin/file"), "x").unwrap();
    let mut request = container("copy", Some("base"));
    request.template = Some(id("origin"));
    driver.create(&request).unwrap();
    fs::write(store.tree("copy/other"), "y").unwrap();
    assert_eq!(fs::read_to_string(store.tree("copy/file")).unwrap(), "x");
    assert!(!store.tree("origin/other").exists());
}

#[test]
fn root_staged_layers_appear_by_rename() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    fs::write(store.tree("base/file"), "x").unwrap();
    let request = layer("top", Some("base"));
    let staged = driver.stage(&request).unwrap();
    assert!(!staged.target.fresh);
    fs::write(staged.target.directory.join("new"), "y").unwrap();
    assert_eq!(driver.list().unwrap(), [id("base")]);
    driver.sync_staged(&staged.token).unwrap();
    let mut taken = request.clone();
    taken.id = id("base");
    let error = driver.adopt(&staged.token, &taken).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::ALREADY_EXISTS);
    driver.adopt(&staged.token, &request).unwrap();
    assert_eq!(fs::read_to_string(store.tree("top/new")).unwrap(), "y");
    store.assert_only(&["base", "top"]);
    driver.sync(&id("top")).unwrap();

    let staged = driver.stage(&layer("gone", Some("base"))).unwrap();
    driver.discard(&staged.token).unwrap();
    driver.discard(&staged.token).unwrap();
    store.assert_only(&["base", "top"]);
}

#[test]
fn root_usage_leaves_the_parent_out_and_counts_links_once() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    fs::write(store.tree("base/big"), vec![1; 3 << 20]).unwrap();
    let usage = driver.usage(&id("base")).unwrap();
    assert_eq!((usage.bytes, usage.inodes), (3 << 20, 2));
    driver.create(&layer("top", Some("base"))).unwrap();
    assert_eq!(driver.usage(&id("top")).unwrap().bytes, 0);
    let file = store.tree("top/file");
    fs::write(&file, vec![2; 1 << 20]).unwrap();
    fs::hard_link(&file, store.tree("top/link")).unwrap();
    let usage = driver.usage(&id("top")).unwrap();
    assert_eq!((usage.bytes, usage.inodes), (1 << 20, 2));
    btrfs(&["subvolume", "create"], &store.tree("top/inner"));
    fs::write(store.tree("top/inner/file"), vec![3; 1 << 10]).unwrap();
    let usage = driver.usage(&id("top")).unwrap();
    assert_eq!(usage.bytes, (1 << 20) + (1 << 10));
    store.assert_only(&["base", "top", "top/inner"]);
}

#[test]
fn root_what_was_not_configured_is_not_declared() {
    let Some(store) = Store::new() else { return };
    let driver = store.open_with(&["btrfs.sync=none"]).unwrap();
    assert!(!driver.capabilities().sync);
    driver.create(&layer("base", None)).unwrap();
    let error = driver.sync(&id("base")).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::NOT_SUPPORTED);
    let Err(error) = store.open_with(&["btrfs.mountopt=nodev"]) else {
        panic!("it opened");
    };
    assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT);
    let view = driver.diff_view(&id("base"), None).unwrap();
    let tree = store.tree("base");
    assert_eq!(view, DiffView::Trees { tree, parent: None });
}

/// A user namespace has no right to search trees, to destroy subvolumes or to limit them.
#[test]
fn root_the_driver_works_in_a_user_namespace() {
    let Some(store) = Store::new() else { return };
    run(Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "layers::in_a_user_namespace", "--ignored"])
        .current_dir(store.mounted()));
    store.assert_only(&["child", "kept"]);
}

#[test]
#[ignore = "the part of another test that runs in a user namespace"]
fn in_a_user_namespace() {
    let here = std::env::current_dir().unwrap();
    let home = here.join("g/btrfs");
    let driver = open_at(&home, &here.join("run"), &[]).unwrap();
    let can = driver.capabilities();
    assert!(!can.native_changes && !can.size_quota && can.staging);
    driver.create(&layer("kept", None)).unwrap();
    fs::write(home.join("subvolumes/kept/file"), "x").unwrap();
    for name in ["child", "gone"] {
        driver.create(&container(name, Some("kept"))).unwrap();
    }
    let gone = home.join("subvolumes/gone");
    fs::create_dir(gone.join("d")).unwrap();
    for name in ["d/inner", "d/other"] {
        btrfs(&["subvolume", "create"], &gone.join(name));
        fs::write(gone.join(name).join("file"), "x").unwrap();
        read_only(&gone.join(name));
    }
    assert_eq!(driver.usage(&id("kept")).unwrap().bytes, 1);
    assert_eq!(driver.remove(&id("gone")).unwrap(), Removed::Now);
    let error = driver
        .create(&sized(container("small", None), "10m"))
        .unwrap_err();
    assert_eq!(error.code, DriverErrorCode::NOT_SUPPORTED);
    let error = driver.native_changes(&id("child"), Some(&id("kept")));
    assert_eq!(error.unwrap_err().code, DriverErrorCode::NOT_SUPPORTED);
}

fn read_only(path: &std::path::Path) {
    run(Command::new("btrfs")
        .args(["property", "set", "-ts"])
        .arg(path)
        .args(["ro", "true"]));
}
