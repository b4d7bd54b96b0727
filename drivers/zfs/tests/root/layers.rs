// SPDX-License-Identifier: Apache-2.0
//! Layers come and go as datasets.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use plywood::mount;
use plywood_plugin_sdk::{DriverErrorCode, MountRequest, Removed};

use crate::support::{Store, Warnings, container, id, layer, look, run, zfs};

#[test]
#[ignore = "needs zfs: `cargo xtask zfs` runs it"]
fn root_layers_are_made_shown_and_removed() {
    let store = Store::new();
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    {
        let base = look(&*driver, "base");
        let found = fs::metadata(&base.tree).unwrap();
        assert_eq!((found.mode() & 0o7777, found.uid()), (0o555, 0));
        fs::write(base.tree.join("file"), "text").unwrap();
    }
    driver.create(&container("top", Some("base"))).unwrap();
    assert_eq!(driver.list().unwrap(), [id("base"), id("top")]);
    let code = driver.create(&layer("top", None)).unwrap_err().code;
    assert_eq!(code, DriverErrorCode::ALREADY_EXISTS);
    let code = driver.create(&layer("x", Some("none"))).unwrap_err().code;
    assert_eq!(code, DriverErrorCode::NOT_FOUND);

    let mut request = MountRequest::default();
    for read_only in [false, true] {
        request.read_only = read_only;
        let plan = driver.mount_plan(&id("top"), &request).unwrap();
        let seen = mount::execute(&plan).unwrap();
        assert_eq!(seen, store.home().join("graph/top"));
        assert_eq!(fs::read_to_string(seen.join("file")).unwrap(), "text");
        let written = fs::write(seen.join("new"), "x");
        assert_eq!(written.is_err(), read_only);
        // It can be looked at while it is mounted either way.
        assert!(look(&*driver, "top").tree.join("new").exists());
        assert_eq!(
            driver.trash(&id("top")).unwrap_err().code,
            DriverErrorCode::BUSY
        );
        mount::undo(&plan, &seen).unwrap();
        driver.released(&id("top")).unwrap();
        assert!(!seen.exists());
    }
    request.options = vec!["volatile".to_owned()];
    let code = driver.mount_plan(&id("top"), &request).unwrap_err().code;
    assert_eq!(code, DriverErrorCode::INVALID_ARGUMENT);

    let facts = driver.metadata(&id("top")).unwrap();
    assert_eq!(facts["Dataset"], format!("{}/top", store.pool));
    let status = driver.status().unwrap();
    assert!(
        status.contains(&("Zpool Health".to_owned(), "ONLINE".to_owned())),
        "{status:?}"
    );

    // Children live on without their parent.
    assert_eq!(driver.remove(&id("base")).unwrap(), Removed::Now);
    assert_eq!(driver.remove(&id("base")).unwrap(), Removed::AlreadyGone);
    assert!(look(&*driver, "top").tree.join("file").exists());
    assert_eq!(driver.remove(&id("top")).unwrap(), Removed::Now);
    store.assert_only(&[]);
}

#[test]
#[ignore = "needs zfs: `cargo xtask zfs` runs it"]
fn root_staged_layers_are_published_given_up_or_reclaimed() {
    let store = Store::new();
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    let staged = driver.stage(&layer("new", Some("base"))).unwrap();
    fs::write(staged.target.directory.join("file"), "x").unwrap();
    driver.sync_staged(&staged.token).unwrap();
    assert_eq!(driver.list().unwrap(), [id("base")]);
    driver
        .adopt(&staged.token, &layer("named", Some("base")))
        .unwrap();
    assert!(look(&*driver, "named").tree.join("file").exists());
    let staged = driver.stage(&layer("other", Some("base"))).unwrap();
    driver.discard(&staged.token).unwrap();
    driver.discard(&staged.token).unwrap();
    store.assert_only(&["base", "named"]);

    // What a process holds is left alone; what one held that is dead is not.
    let left = driver.stage(&layer("left", Some("base"))).unwrap();
    driver.trash(&id("named")).unwrap().unwrap();
    let other = store.open();
    assert_eq!(other.recover().unwrap(), Vec::<String>::new());
    driver.let_go(&left.target.directory).unwrap();
    std::mem::forget(driver);
    // Its locks are those of open files here; a copy of the places has none.
    let (places, kept) = (store.home().join("tempdirs"), store.home().join("kept"));
    fs::rename(&places, &kept).unwrap();
    run(Command::new("cp").arg("-r").args([&kept, &places]));
    fs::remove_dir_all(&kept).unwrap();
    assert_eq!(other.recover().unwrap().len(), 2);
    store.assert_only(&["base"]);
}

#[test]
#[ignore = "needs zfs: `cargo xtask zfs` runs it"]
fn root_layers_of_other_stores_are_parents_on_their_pool_and_on_another() {
    let (near, far) = (Store::new(), Store::new());
    for (store, name) in [(&near, "near"), (&far, "far")] {
        let driver = store.open();
        driver.create(&layer(name, None)).unwrap();
        let tree = look(&*driver, name);
        fs::write(tree.tree.join("file"), name).unwrap();
        fs::write(tree.tree.join("gone"), name).unwrap();
    }
    // A store of its own on the pool of the first one.
    let place = near.path("user");
    let dataset = format!("{}/user", near.pool);
    let mountpoint = format!("mountpoint={}", place.display());
    zfs(&["create", "-o", &mountpoint, &dataset]);
    let driver = near.open_at(&place, &[near.graph_root(), far.graph_root()]);
    assert_eq!(driver.list().unwrap(), []);
    for name in ["near", "far"] {
        assert!(driver.exists(&id(name)).unwrap());
        assert_eq!(driver.remove(&id(name)).unwrap(), Removed::AlreadyGone);
        let refused = driver.unpack_target(&id(name)).unwrap_err();
        assert_eq!(refused.code, DriverErrorCode::NOT_FOUND);
        let plan = driver
            .mount_plan(&id(name), &MountRequest::default())
            .unwrap();
        let seen = mount::execute(&plan).unwrap();
        assert_eq!(fs::read_to_string(seen.join("file")).unwrap(), name);
        assert!(fs::write(seen.join("file"), "x").is_err());
        mount::undo(&plan, &seen).unwrap();
        driver.released(&id(name)).unwrap();

        let child = format!("on-{name}");
        driver.create(&container(&child, Some(name))).unwrap();
        {
            let tree = look(&*driver, &child);
            assert_eq!(fs::read_to_string(tree.tree.join("file")).unwrap(), name);
            fs::write(tree.tree.join("file"), "changed").unwrap();
            fs::remove_file(tree.tree.join("gone")).unwrap();
        }
        let changes = driver.native_changes(&id(&child), Some(&id(name))).unwrap();
        assert_eq!(changes.len(), 2, "{name}: {changes:?}");
        let tree = look(&*driver, &child);
        let file = fs::read_to_string(tree.tree.join("file")).unwrap();
        assert_eq!(file, "changed");
    }
    let origin = |name: &str| {
        let dataset = format!("{dataset}/{name}");
        zfs(&["get", "-H", "-o", "value", "origin", &dataset])
    };
    assert!(origin("on-near").starts_with(&format!("{}/near@", near.pool)));
    assert_eq!(origin("on-far").trim(), "-");
    for name in ["on-near", "on-far"] {
        assert_eq!(driver.remove(&id(name)).unwrap(), Removed::Now);
    }
    drop(driver);
    zfs(&["destroy", &dataset]);
    near.assert_only(&["near"]);
    far.assert_only(&["far"]);
}

#[test]
#[ignore = "needs zfs: `cargo xtask zfs` runs it"]
fn root_layers_outlive_what_they_were_cloned_from_in_any_order() {
    let store = Store::new();
    let driver = store.open();
    let mut chain = vec!["m", "a", "z", "b", "y", "0"];
    for (number, name) in chain.iter().enumerate() {
        let parent = number.checked_sub(1).map(|below| chain[below]);
        driver.create(&layer(name, parent)).unwrap();
        let tree = look(&*driver, name);
        fs::write(tree.tree.join(name), "text").unwrap();
    }
    let built = chain.clone();
    chain.sort_unstable();
    while !chain.is_empty() {
        let name = chain.remove(0);
        assert_eq!(driver.remove(&id(name)).unwrap(), Removed::Now);
        store.assert_only(&chain);
        for left in &chain {
            let place = built.iter().position(|name| name == left).unwrap();
            let tree = look(&*driver, left);
            for below in &built[..=place] {
                assert!(tree.tree.join(below).exists(), "`{below}` in `{left}`");
            }
        }
    }
}

#[test]
#[ignore = "needs zfs: `cargo xtask zfs` runs it"]
fn root_a_limit_is_one() {
    let store = Store::new();
    let driver = store.open();
    let mut request = container("full", None);
    let option = ("size".to_owned(), "20m".to_owned());
    request.storage_options.extend([option]);
    driver.create(&request).unwrap();
    let quota = zfs(&[
        "get",
        "-Hp",
        "-o",
        "value",
        "quota",
        &format!("{}/full", store.pool),
    ]);
    assert_eq!(quota.trim(), "20971520");
    let full = look(&*driver, "full");
    let mut file = fs::File::create(full.tree.join("file")).unwrap();
    let block: Vec<u8> = (0..1_u32 << 18)
        .flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes())
        .collect();
    let failed = (0..64).find_map(|_| file.write_all(&block).and_then(|()| file.sync_all()).err());
    assert_eq!(
        failed.unwrap().raw_os_error(),
        Some(rustix::io::Errno::DQUOT.raw_os_error())
    );
}

#[test]
#[ignore = "needs zfs: `cargo xtask zfs` runs it"]
fn root_a_layer_that_is_in_use_is_out_of_the_way_and_its_user_is_named() {
    let store = Store::new();
    let host = Arc::<Warnings>::default();
    let driver = store.open_for(Arc::clone(&host));
    driver.create(&layer("held", None)).unwrap();
    let place = store.path("elsewhere");
    fs::create_dir(&place).unwrap();
    run(Command::new("mount")
        .args(["-t", "zfs", &format!("{}/held", store.pool)])
        .arg(&place));
    let mut user = Command::new("sleep")
        .arg("600")
        .current_dir(&place)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(driver.remove(&id("held")).unwrap(), Removed::Now);
    let warnings = host.warnings();
    assert!(
        warnings[0].contains(place.to_str().unwrap()),
        "{warnings:?}"
    );
    assert_eq!(driver.remove(&id("held")).unwrap(), Removed::AlreadyGone);
    assert_eq!(driver.list().unwrap(), []);
    assert_eq!(driver.recover().unwrap(), Vec::<String>::new());
    assert_eq!(store.datasets().len(), 1);
    user.kill().unwrap();
    user.wait().unwrap();
    run(Command::new("umount").arg(&place));
    assert_eq!(driver.recover().unwrap().len(), 1);
    store.assert_only(&[]);
}

/// Counting the files of a dataset that is mounted nowhere, and mounting it, need it for themselves.
#[test]
#[ignore = "needs zfs: `cargo xtask zfs` runs it"]
fn root_a_layer_is_counted_mounted_and_synced_by_all_at_the_same_time() {
    const ROUNDS: usize = 15;
    let store = Store::new();
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    driver.create(&container("top", Some("base"))).unwrap();
    let usage = driver.usage(&id("top")).unwrap();
    let plan = driver
        .mount_plan(&id("top"), &MountRequest::default())
        .unwrap();
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                let other = store.open();
                for _ in 0..ROUNDS {
                    assert_eq!(other.usage(&id("top")).unwrap(), usage);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..ROUNDS * 5 {
                let seen = mount::execute(&plan).unwrap();
                mount::undo(&plan, &seen).unwrap();
            }
        });
        scope.spawn(|| {
            for _ in 0..ROUNDS * 5 {
                driver.sync(&id("top")).unwrap();
            }
        });
    });
    driver.released(&id("top")).unwrap();
}
