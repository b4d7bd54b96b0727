// SPDX-License-Identifier: Apache-2.0
//! Layers that refer to a directory of an additional layer store.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, time::Duration};

use plywood_plugin_sdk::{
    CreateRequest, DriverErrorCode, ExternalDirectory, LayerKind, MountRequest,
};

use crate::support::{Roots, id, is_root, layer, mount};

const TIMEOUT: Duration = Duration::from_secs(2);

/// A layer in a plain directory, which stands for a store's file system.
fn theirs(roots: &Roots, name: &str) -> ExternalDirectory {
    let directory = roots.graph_root().join("store").join(name);
    fs::create_dir_all(directory.join("diff")).unwrap();
    fs::write(directory.join("diff/file"), name).unwrap();
    external(&directory)
}

fn external(directory: &Path) -> ExternalDirectory {
    ExternalDirectory::new(directory, directory.join("diff"), TIMEOUT)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

#[test]
fn root_a_reference_has_the_files_of_containers_storage() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    assert!(driver.capabilities().external_directory);
    let base = theirs(&roots, "base");
    driver.create_external(&layer("a", None), &base).unwrap();
    let home = roots.home().join("a");
    let parts = ["additionallayer", "diff", "empty", "link", "merged", "work"];
    assert_eq!(names(&home), parts);
    let mark = home.join("additionallayer");
    assert_eq!(
        fs::read_to_string(&mark).unwrap(),
        base.directory.to_str().unwrap()
    );
    assert_eq!(
        fs::metadata(&mark).unwrap().permissions().mode() & 0o777,
        0o644
    );
    assert_eq!(fs::read_link(home.join("diff")).unwrap(), base.diff);
    assert_eq!(
        driver.external_layer(&id("a")).unwrap(),
        Some(base.directory.clone())
    );
    assert!(!roots.home().join("tempdirs").exists());

    // A mixed chain: local on remote on local on remote.
    driver.create(&layer("b", Some("a"))).unwrap();
    let upper = theirs(&roots, "upper");
    driver
        .create_external(&layer("c", Some("b")), &upper)
        .unwrap();
    driver.create(&layer("d", Some("c"))).unwrap();
    assert_eq!(driver.external_layer(&id("d")).unwrap(), None);
    let mounted = mount(&*driver, "d", &MountRequest::default());
    assert_eq!(fs::read_to_string(mounted.path("file")).unwrap(), "upper");
    fs::write(mounted.path("file"), "changed").unwrap();
    drop(mounted);
    assert_eq!(
        fs::read_to_string(upper.diff.join("file")).unwrap(),
        "upper"
    );

    // The layer itself is shown and cannot be written.
    let mounted = mount(&*driver, "c", &MountRequest::default());
    assert_eq!(fs::read_to_string(mounted.path("file")).unwrap(), "upper");
    fs::write(mounted.path("new"), "").unwrap_err();
    drop(mounted);
    let refused = driver.unpack_target(&id("c")).unwrap_err();
    assert_eq!(refused.code, DriverErrorCode::READ_ONLY);
    assert_eq!(driver.usage(&id("c")).unwrap().bytes, 5);

    for name in ["d", "c", "b", "a"] {
        driver.remove(&id(name)).unwrap();
    }
    assert!(base.diff.join("file").exists() && upper.diff.join("file").exists());
    assert_eq!(names(&roots.home().join("l")), [""; 0]);
}

#[test]
fn root_what_cannot_be_a_reference_is_refused_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    let good = theirs(&roots, "good");
    let missing = external(&roots.graph_root().join("store/missing"));
    let relative = external(Path::new("store/good"));
    let elsewhere = ExternalDirectory::new(&good.directory, "/usr", TIMEOUT);
    let before = names(&roots.home());
    for wrong in [&missing, &relative, &elsewhere] {
        driver
            .create_external(&layer("a", None), wrong)
            .unwrap_err();
    }
    let mut writable = layer("a", None);
    writable.kind = LayerKind::ReadWrite;
    driver.create_external(&writable, &good).unwrap_err();
    let orphan = CreateRequest::new(id("a"), Some(id("none")));
    let error = driver.create_external(&orphan, &good).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::NOT_FOUND);
    assert_eq!(names(&roots.home()), before);
    assert_eq!(names(&roots.home().join("l")), [""; 0]);

    driver.create_external(&layer("a", None), &good).unwrap();
    let error = driver
        .create_external(&layer("a", None), &good)
        .unwrap_err();
    assert_eq!(error.code, DriverErrorCode::ALREADY_EXISTS);

    // A store that went away is an error that names it, and no hang.
    fs::rename(
        roots.graph_root().join("store"),
        roots.graph_root().join("gone"),
    )
    .unwrap();
    let plan = driver
        .mount_plan(&id("a"), &MountRequest::default())
        .unwrap_err();
    assert!(plan.message.contains(good.diff.to_str().unwrap()), "{plan}");
    assert!(plan.remedy.is_some());
    assert!(driver.create(&layer("b", Some("a"))).is_err());
    driver.remove(&id("a")).unwrap();
    assert!(!driver.exists(&id("a")).unwrap());
}
