// SPDX-License-Identifier: Apache-2.0
//! What a crash leaves is reclaimed.

use std::fs;

use plywood_plugin_sdk::Driver;

use crate::support::{Store, btrfs, id, layer};

/// Lets go of a driver the way a killed process does: its locks are gone, its places stay.
fn crash(store: &Store, driver: Box<dyn Driver>) {
    std::mem::forget(driver);
    // The locks belong to descriptors that are still open here; what follows is as if they were
    // closed: a copy of the places without anybody holding them.
    let places = store.home().join("tempdirs");
    let kept = store.home().join("kept");
    fs::rename(&places, &kept).unwrap();
    fs::create_dir(&places).unwrap();
    for entry in fs::read_dir(&kept).unwrap() {
        let entry = entry.unwrap();
        let to = places.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::rename(entry.path(), to).unwrap();
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
    fs::remove_dir_all(&kept).unwrap();
}

#[test]
fn root_what_was_staged_or_thrown_away_is_reclaimed_by_the_next() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    driver.create(&layer("old", Some("base"))).unwrap();
    btrfs(&["subvolume", "create"], &store.tree("old/inner"));
    let staged = driver.stage(&layer("new", Some("base"))).unwrap();
    fs::write(staged.target.directory.join("file"), "x").unwrap();
    driver.trash(&id("old")).unwrap().unwrap();
    let other = store.open();
    assert_eq!(
        other.recover().unwrap(),
        Vec::<String>::new(),
        "they are in use"
    );
    assert_eq!(store.subvolumes().len(), 4);

    crash(&store, driver);
    let reclaimed = other.recover().unwrap();
    assert_eq!(reclaimed.len(), 2, "{reclaimed:?}");
    store.assert_only(&["base"]);
}

#[test]
fn root_a_limit_that_was_left_behind_is_no_limit_of_the_next_layer() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    fs::create_dir_all(store.home().join("quotas")).unwrap();
    fs::write(store.home().join("quotas/base"), "1").unwrap();
    driver.create(&layer("base", None)).unwrap();
    assert!(!store.home().join("quotas/base").exists());
}
