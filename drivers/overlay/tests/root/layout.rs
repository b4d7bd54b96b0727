// SPDX-License-Identifier: Apache-2.0
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use plywood_plugin_sdk::{DriverErrorCode, IdMap, MountRequest};

use crate::support::{Roots, container, has_program, id, is_root, layer, mount};

/// Every entry of a home with its type, mode, owner and content; ids and links by their roles.
fn picture(home: &Path, roles: &[(String, &str)]) -> BTreeMap<String, String> {
    let mut roles: Vec<(String, String)> = roles
        .iter()
        .map(|(id, role)| (id.clone(), (*role).to_owned()))
        .collect();
    for (id, role) in roles.clone() {
        let link = fs::read_to_string(home.join(&id).join("link")).unwrap();
        assert_eq!(link.len(), 26);
        roles.push((link, format!("LINK-{role}")));
    }
    let plain = |text: &str| {
        roles
            .iter()
            .fold(text.to_owned(), |text, (id, role)| text.replace(id, role))
    };
    let mut found = BTreeMap::new();
    let mut waiting = vec![home.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let seen = fs::symlink_metadata(&path).unwrap();
            // The device of an xfs, for quotas, which are not this version's.
            if path.ends_with("backingFsBlockDev") {
                continue;
            }
            let name = plain(path.strip_prefix(home).unwrap().to_str().unwrap());
            let content = if seen.is_dir() {
                waiting.push(path);
                "directory".to_owned()
            } else if seen.is_symlink() {
                format!(
                    "-> {}",
                    plain(fs::read_link(&path).unwrap().to_str().unwrap())
                )
            } else if seen.file_type().is_char_device() {
                format!("device {}", seen.rdev())
            } else {
                format!("`{}`", plain(&fs::read_to_string(&path).unwrap()))
            };
            let (mode, uid, gid) = (seen.mode() & 0o7777, seen.uid(), seen.gid());
            found.insert(name, format!("{mode:o} {uid}:{gid} {content}"));
        }
    }
    found
}

#[test]
fn root_layers_are_on_disk_as_containers_storage_makes_them() {
    if !is_root() || !has_program("containers-storage") {
        return;
    }
    let theirs = Roots::new();
    let new = |arguments: &[&str]| {
        let output = theirs.containers_storage(arguments);
        output.lines().next().unwrap().trim().to_owned()
    };
    let base = new(&["create-layer"]);
    let child = new(&["create-layer", &base]);
    let grandchild = new(&["create-layer", "-r", &child]);
    let roles = [(base, "BASE"), (child, "CHILD"), (grandchild, "GRANDCHILD")];
    let expected = picture(&theirs.home(), &roles);

    let ours = Roots::new();
    let driver = ours.open();
    driver.create(&container("base", None)).unwrap();
    driver.create(&container("child", Some("base"))).unwrap();
    driver.create(&layer("grandchild", Some("child"))).unwrap();
    let roles = [
        ("base", "BASE"),
        ("grandchild", "GRANDCHILD"),
        ("child", "CHILD"),
    ];
    let roles = roles.map(|(id, role)| (id.to_owned(), role));
    // `grandchild` holds `child`, so it must be replaced first, and links before both.
    assert_eq!(picture(&ours.home(), &roles), expected);

    // The same names of cached probes, as far as that version knows them.
    for entry in fs::read_dir(theirs.run_root().join("overlay")).unwrap() {
        let name = entry.unwrap().file_name();
        // Found by a mount in a user namespace, which is core's to make.
        if name == "idmapped-lower-dir-true" {
            continue;
        }
        assert!(
            ours.run_root().join("overlay").join(&name).exists(),
            "{name:?}"
        );
    }
}

#[test]
fn root_staged_layers_look_like_created_ones() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("base", None)).unwrap();
    let staged = driver.stage(&layer("staged", Some("base"))).unwrap();
    assert!(staged.target.fresh && !staged.target.apply_root);
    fs::write(staged.target.directory.join("file"), "x").unwrap();
    assert!(!driver.exists(&id("staged")).unwrap());
    assert_eq!(driver.list().unwrap(), [id("base")]);
    driver.sync_staged(&staged.token).unwrap();
    driver
        .adopt(&staged.token, &layer("staged", Some("base")))
        .unwrap();
    driver.create(&layer("created", Some("base"))).unwrap();

    assert!(
        !roots.home().join("tempdirs").exists(),
        "trips the link repair of 1.43"
    );
    // No name of a link has small letters.
    let picture = |name: &str| {
        let roles = [("base", "BASE"), (name, "this-one")].map(|(id, role)| (id.to_owned(), role));
        let all = picture(&roots.home(), &roles);
        let of_it = all
            .into_iter()
            .filter(|(path, _)| path.contains("this-one"));
        of_it.collect::<BTreeMap<_, _>>()
    };
    let mut staged = picture("staged");
    assert_eq!(
        staged.remove("this-one/diff/file").as_deref(),
        Some("644 0:0 `x`")
    );
    assert_eq!(staged, picture("created"));
    driver.discard("temp-dir-0").unwrap();
}

#[test]
fn root_owners_and_modes_follow_the_parent_and_the_id_map() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    let mut mapped = container("mapped", None);
    let map = IdMap {
        container_id: 0,
        host_id: 1234,
        size: 10,
    };
    mapped.id_maps.uids = vec![map];
    mapped.id_maps.gids = vec![map];
    driver.create(&mapped).unwrap();
    let stat = |path: &str| {
        let seen = fs::metadata(roots.home().join(path)).unwrap();
        (seen.uid(), seen.gid(), seen.mode() & 0o7777)
    };
    assert_eq!(stat("mapped"), (1234, 1234, 0o700));
    assert_eq!(stat("mapped/diff"), (1234, 1234, 0o555));
    assert_eq!(stat("mapped/empty"), (1234, 1234, 0o700));

    std::os::unix::fs::chown(roots.home().join("mapped/diff"), Some(7), Some(8)).unwrap();
    rustix::fs::chmod(roots.home().join("mapped/diff"), 0o1711.into()).unwrap();
    driver.create(&container("child", Some("mapped"))).unwrap();
    assert_eq!(stat("child"), (0, 0, 0o700));
    assert_eq!(stat("child/diff"), (7, 8, 0o1711));
    assert_eq!(stat("child/work"), (7, 8, 0o700));

    mapped.id_maps.uids[0].container_id = 5;
    mapped.id = id("unmapped");
    let error = driver.create(&mapped).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT);
    assert!(!driver.exists(&id("unmapped")).unwrap());
}

#[test]
fn root_existing_layers_stay_and_leftovers_are_replaced() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("base", None)).unwrap();
    fs::write(roots.home().join("base/diff/file"), "kept").unwrap();
    let error = driver.create(&layer("base", None)).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::ALREADY_EXISTS);
    let staged = driver.stage(&layer("base", None)).unwrap();
    let error = driver
        .adopt(&staged.token, &layer("base", None))
        .unwrap_err();
    assert_eq!(error.code, DriverErrorCode::ALREADY_EXISTS);
    driver.discard(&staged.token).unwrap();
    assert_eq!(
        fs::read(roots.home().join("base/diff/file")).unwrap(),
        b"kept"
    );

    // Each prefix of the steps of a creation, as a crash leaves it.
    for parts in [
        &[][..],
        &["diff"],
        &["diff", "link"],
        &["diff", "link", "work", "merged"],
    ] {
        let dir = roots.home().join("left");
        fs::create_dir(&dir).unwrap();
        for part in parts {
            match *part {
                "link" => {
                    fs::write(dir.join("link"), "A".repeat(26)).unwrap();
                    let link = roots.home().join("l").join("A".repeat(26));
                    std::os::unix::fs::symlink("../left/diff", link).unwrap();
                }
                part => fs::create_dir(dir.join(part)).unwrap(),
            }
        }
        driver.create(&layer("left", Some("base"))).unwrap();
        assert!(fs::symlink_metadata(roots.home().join("l").join("A".repeat(26))).is_err());
        assert!(dir.join("lower").exists(), "{parts:?}");
        driver.remove(&id("left")).unwrap();
        assert_eq!(fs::read_dir(roots.home().join("l")).unwrap().count(), 1);
    }
    assert!(roots.log.has("replacing what an interruption left"));
}

#[test]
fn root_requests_that_cannot_be_met_change_nothing() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    let mut limited = container("limited", None);
    limited
        .storage_options
        .insert("size".to_owned(), "10m".to_owned());
    assert_eq!(
        driver.create(&limited).unwrap_err().code,
        DriverErrorCode::NOT_SUPPORTED
    );
    let mut odd = layer("odd", None);
    odd.storage_options
        .insert("color".to_owned(), "red".to_owned());
    assert_eq!(
        driver.create(&odd).unwrap_err().message,
        "unknown option color"
    );
    let orphan = driver.create(&layer("orphan", Some("nobody"))).unwrap_err();
    assert_eq!(orphan.code, DriverErrorCode::NOT_FOUND);
    assert_eq!(
        driver.stage(&layer("o", Some("nobody"))).unwrap_err(),
        orphan
    );
    assert_eq!(driver.list().unwrap(), []);
    assert!(!roots.home().join("tempdirs").exists());

    for option in ["overlay.size=1g", "overlay.inodes=5"] {
        let error = roots.open_with(&[option]).err().unwrap();
        assert!(error.message.starts_with("storage option"), "{error}");
    }
    let masked = Roots::new();
    let driver = masked.open_with(&["overlay.force_mask=shared"]).unwrap();
    assert!(
        driver
            .create(&container("c", None))
            .unwrap_err()
            .message
            .contains("mount_program")
    );
    driver.create(&layer("i", None)).unwrap();
    let mode = fs::metadata(masked.home().join("i/diff")).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert_eq!(
        driver.unpack_target(&id("i")).unwrap().force_mask,
        Some(0o755)
    );
}

#[test]
fn root_names_that_the_driver_needs_are_no_layers() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("a", None)).unwrap();
    for name in ["l", "staging", "tempdirs", "backingFsBlockDev"] {
        let error = driver.create(&layer(name, None)).unwrap_err();
        assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT, "{name}");
        assert!(driver.stage(&layer(name, None)).is_err(), "{name}");
        assert!(!driver.exists(&id(name)).unwrap(), "{name}");
        assert!(driver.usage(&id(name)).is_err(), "{name}");
        let removed = driver.remove(&id(name)).unwrap();
        assert_eq!(removed, plywood_plugin_sdk::Removed::AlreadyGone, "{name}");
    }
    assert_eq!(fs::read_dir(roots.home().join("l")).unwrap().count(), 1);
}

#[test]
fn root_damaged_layers_are_reported_and_never_shown_as_empty() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("a", None)).unwrap();
    driver.create(&layer("b", Some("a"))).unwrap();
    let lower = roots.home().join("b/lower");
    let good = fs::read(&lower).unwrap();
    let flipped: Vec<u8> = good.iter().map(|byte| byte ^ 0x80).collect();
    for damage in [&b""[..], b"l/", b"l/../..", b"/", &flipped, &good[..10]] {
        fs::write(&lower, damage).unwrap();
        let error = driver
            .mount_plan(&id("b"), &MountRequest::default())
            .unwrap_err();
        assert_eq!(error.code, DriverErrorCode::CORRUPT, "{damage:?}: {error}");
        assert!(
            driver.diff_view(&id("b"), Some(&id("a"))).is_err(),
            "{damage:?}"
        );
        assert!(driver.create(&layer("c", Some("b"))).is_err(), "{damage:?}");
    }
    fs::write(&lower, good).unwrap();
    fs::remove_dir(roots.home().join("b/diff")).unwrap();
    let code = DriverErrorCode::CORRUPT;
    assert_eq!(
        driver
            .mount_plan(&id("b"), &MountRequest::default())
            .unwrap_err()
            .code,
        code
    );
    assert_eq!(
        driver.diff_view(&id("b"), Some(&id("a"))).unwrap_err().code,
        code
    );
    assert_eq!(driver.unpack_target(&id("b")).unwrap_err().code, code);
    assert_eq!(driver.usage(&id("b")).unwrap_err().code, code);

    // Without `lower` and `empty` nobody knows what lies below.
    fs::remove_file(&lower).unwrap();
    fs::create_dir(roots.home().join("b/diff")).unwrap();
    let error = driver
        .mount_plan(&id("b"), &MountRequest::default())
        .unwrap_err();
    assert_eq!(error.code, code);
    assert_eq!(
        driver.create(&layer("c", Some("b"))).unwrap_err().code,
        code
    );
}

#[test]
fn root_composefs_layers_are_refused_and_not_shown_as_objects() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("a", None)).unwrap();
    driver.create(&layer("b", Some("a"))).unwrap();
    fs::create_dir(roots.home().join("a/composefs-data")).unwrap();
    fs::write(roots.home().join("a/composefs-data/composefs.blob"), "").unwrap();
    let code = DriverErrorCode::NOT_SUPPORTED;
    for name in ["a", "b"] {
        let error = driver
            .mount_plan(&id(name), &MountRequest::default())
            .unwrap_err();
        assert_eq!(error.code, code, "{name}");
        assert!(driver.content_roots(&id(name)).is_err(), "{name}");
        assert!(
            driver
                .diff_view(&id(name), (name == "b").then(|| id("a")).as_ref())
                .is_err()
        );
    }
    driver.remove(&id("b")).unwrap();
    driver.remove(&id("a")).unwrap();
}

#[test]
fn root_layers_of_an_additional_layer_store_are_read_and_given_back() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("a", None)).unwrap();
    // As containers/storage makes it: the directory stands for the store's file system.
    let theirs = roots.graph_root().join("store/layer");
    fs::create_dir_all(theirs.join("diff")).unwrap();
    fs::write(theirs.join("diff/file"), "theirs").unwrap();
    fs::remove_dir(roots.home().join("a/diff")).unwrap();
    std::os::unix::fs::symlink(theirs.join("diff"), roots.home().join("a/diff")).unwrap();
    fs::write(
        roots.home().join("a/additionallayer"),
        theirs.to_str().unwrap(),
    )
    .unwrap();

    driver.create(&layer("b", Some("a"))).unwrap();
    assert_eq!(
        driver.content_roots(&id("a")).unwrap(),
        [theirs.join("diff")]
    );
    assert_eq!(driver.usage(&id("a")).unwrap().bytes, 6);
    let mounted = mount(&*driver, "b", &MountRequest::default());
    assert_eq!(fs::read_to_string(mounted.path("file")).unwrap(), "theirs");
    drop(mounted);
    driver.remove(&id("b")).unwrap();
    driver.remove(&id("a")).unwrap();
    assert!(theirs.join("diff/file").exists(), "its files are not ours");

    let asked = roots.graph_root().join("store/asked");
    fs::create_dir(&asked).unwrap();
    driver.create(&layer("c", None)).unwrap();
    fs::write(
        roots.home().join("c/additionallayer"),
        asked.to_str().unwrap(),
    )
    .unwrap();
    driver.remove(&id("c")).unwrap();
    assert!(
        !asked.exists(),
        "the store is told by the removal of the directory"
    );
}
