// SPDX-License-Identifier: Apache-2.0
use std::{fs, path::Path, path::PathBuf};

use plywood_plugin_sdk::{
    DiffView, Driver, DriverErrorCode, MountPlan, MountRequest, MountStep, OverlayMount,
    WhiteoutForm, toolkit::mountinfo,
};

use crate::support::{
    Roots, container, has_program, id, is_root, layer, mount, with_options, write,
};

fn overlay(driver: &dyn Driver, name: &str, request: &MountRequest) -> OverlayMount {
    match driver.mount_plan(&id(name), request).unwrap() {
        MountPlan::Mounts(mut steps) => match steps.steps.pop() {
            Some(MountStep::Overlay(overlay)) => overlay,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn root_what_a_container_changes_is_in_its_upper_directory() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("base", None)).unwrap();
    write(&roots.home().join("base/diff/old"), "old");
    driver.create(&container("top", Some("base"))).unwrap();
    let mounted = mount(&*driver, "top", &MountRequest::default());
    write(&mounted.path("new"), "new");
    fs::remove_file(mounted.path("old")).unwrap();
    assert_eq!(
        driver.remove(&id("top")).unwrap_err().code,
        DriverErrorCode::BUSY
    );
    drop(mounted);
    driver.released(&id("top")).unwrap();

    let DiffView::Upper {
        upper,
        lowers,
        whiteouts,
    } = driver.diff_view(&id("top"), Some(&id("base"))).unwrap()
    else {
        panic!("not native");
    };
    assert_eq!(whiteouts, WhiteoutForm::Overlay);
    assert_eq!(lowers, [roots.home().join("base/diff")]);
    let mut names: Vec<_> = fs::read_dir(&upper)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["new", "old"]);
    assert_eq!(
        driver.diff_view(&id("top"), None).unwrap(),
        DiffView::Mounted
    );
    let roots_of = driver.content_roots(&id("top")).unwrap();
    assert_eq!(roots_of, [upper, roots.home().join("base/diff")]);
    let usage = driver.usage(&id("top")).unwrap();
    assert_eq!((usage.bytes, usage.inodes), (3, 3));

    let metadata = driver.metadata(&id("top")).unwrap();
    assert_eq!(
        metadata["LowerDir"],
        roots.home().join("base/diff").display().to_string()
    );
    assert_eq!(
        metadata["MergedDir"],
        roots.home().join("top/merged").display().to_string()
    );
    assert!(
        !driver
            .metadata(&id("base"))
            .unwrap()
            .contains_key("LowerDir")
    );
}

#[test]
fn root_options_are_honoured_or_refused() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open_with(&["overlay.mountopt=nodev"]).unwrap();
    driver.create(&layer("base", None)).unwrap();
    driver.create(&container("top", Some("base"))).unwrap();
    let options = |request: &MountRequest| overlay(&*driver, "top", request).options;
    assert_eq!(options(&MountRequest::default()), ["nodev"]);
    assert_eq!(options(&with_options(&["nosuid", "rw"])), ["nosuid"]);
    let plan = overlay(&*driver, "top", &with_options(&["ro"]));
    assert_eq!((plan.upper, plan.work), (None, None));
    assert_eq!(plan.lowers[0], roots.home().join("top/diff"));
    for (option, code) in [
        ("bogus", DriverErrorCode::INVALID_ARGUMENT),
        ("upperdir=/etc", DriverErrorCode::INVALID_ARGUMENT),
        ("nodev,lowerdir=/etc", DriverErrorCode::INVALID_ARGUMENT),
        ("metacopy=on", DriverErrorCode::NOT_SUPPORTED),
    ] {
        let error = driver
            .mount_plan(&id("top"), &with_options(&[option]))
            .unwrap_err();
        assert_eq!(error.code, code, "{option}");
        assert_eq!(error.object.as_deref(), Some(option));
    }
    let mut volatile = MountRequest::default();
    volatile.volatile = true;
    volatile.label = Some("system_u:object_r:container_file_t:s0".to_owned());
    let plan = overlay(&*driver, "top", &volatile);
    assert_eq!(plan.options, ["nodev", "volatile"]);
    assert_eq!(plan.label, volatile.label);
    volatile.read_only = true;
    assert_eq!(options(&volatile), ["nodev"]);
}

#[test]
fn root_a_volatile_mount_can_be_repeated() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&container("top", None)).unwrap();
    let mut volatile = MountRequest::default();
    volatile.volatile = true;
    for n in 0..3 {
        let mounted = mount(&*driver, "top", &volatile);
        write(&mounted.path(&n.to_string()), "x");
        drop(mounted);
        assert!(
            roots
                .home()
                .join("top/work/work/incompat/volatile")
                .exists()
        );
    }
}

#[test]
fn root_metacopy_turns_native_diffs_off() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open_with(&["overlay.mountopt=metacopy=on"]).unwrap();
    let status = driver.status().unwrap();
    let value = |key: &str| status.iter().find(|(k, _)| k == key).unwrap().1.clone();
    assert_eq!(value("Using metacopy"), "true");
    assert_eq!(value("Native Overlay Diff"), "false");
    assert!(!driver.capabilities().native_diff);
    driver.create(&container("top", None)).unwrap();
    assert_eq!(
        driver.diff_view(&id("top"), None).unwrap(),
        DiffView::Mounted
    );
    assert_eq!(
        overlay(&*driver, "top", &with_options(&["nodev"])).options,
        ["nodev", "metacopy=on"]
    );
    let cached = roots
        .run_root()
        .join("overlay/native-diff(metacopy=on)-false");
    let text = fs::read_to_string(cached).unwrap();
    assert!(
        text.starts_with("Not using native diff for overlay, this may cause"),
        "{text}"
    );
    // The second opening takes the remembered answers.
    let again = roots.open_with(&["overlay.mountopt=metacopy=on"]).unwrap();
    assert_eq!(again.status().unwrap(), status);
}

#[test]
fn root_layers_of_image_stores_are_parents_and_are_mounted_read_only() {
    if !is_root() || !has_program("containers-storage") {
        return;
    }
    let store = Roots::new();
    let image = store.containers_storage(&["create-layer"]);
    let image = image.lines().next().unwrap();
    write(&store.home().join(image).join("diff/file"), "shared");
    let before: Vec<PathBuf> = walk(&store.home());

    let roots = Roots::new();
    let option = format!("overlay.imagestore={}", store.graph_root().display());
    let driver = roots.open_with(&[&option]).unwrap();
    assert_eq!(driver.image_stores(), [store.home()]);
    assert!(driver.exists(&id(image)).unwrap());
    assert_eq!(driver.list().unwrap(), []);
    driver.create(&container("top", Some(image))).unwrap();
    let plan = overlay(&*driver, "top", &MountRequest::default());
    assert!(
        plan.lowers[0].starts_with(store.home().join("l")),
        "{plan:?}"
    );
    let mounted = mount(&*driver, "top", &MountRequest::default());
    assert_eq!(fs::read_to_string(mounted.path("file")).unwrap(), "shared");
    drop(mounted);

    let mounted = mount(&*driver, image, &MountRequest::default());
    assert!(mounted.0.starts_with(roots.run_root()));
    assert!(fs::write(mounted.path("x"), "x").is_err());
    drop(mounted);
    driver.released(&id(image)).unwrap();
    assert!(!roots.run_root().join("overlay").join(image).exists());
    assert_eq!(
        walk(&store.home()),
        before,
        "nothing is written to an image store"
    );
    assert_eq!(
        driver.remove(&id(image)).unwrap(),
        plywood_plugin_sdk::Removed::AlreadyGone
    );
}

fn walk(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(dir) = waiting.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                waiting.push(path.clone());
            }
            found.push(path);
        }
    }
    found.sort();
    found
}

#[test]
fn root_the_home_is_a_private_mount_until_the_store_is_closed() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    let again = roots.open();
    let here = || {
        let mounts = mountinfo::mounts().unwrap();
        mounts
            .into_iter()
            .filter(|mount| mount.target == roots.home())
            .collect::<Vec<_>>()
    };
    let seen = here();
    assert_eq!(seen.len(), 1);
    assert!(!seen[0].shared);
    drop(again);
    driver.close().unwrap();
    assert_eq!(here(), []);

    let plain = Roots::new();
    plain
        .open_with(&["overlay.skip_mount_home=true"])
        .unwrap()
        .close()
        .unwrap();
    let mounts = mountinfo::mounts().unwrap();
    assert!(mounts.iter().all(|mount| mount.target != plain.home()));
}
