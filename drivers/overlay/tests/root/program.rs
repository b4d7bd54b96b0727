// SPDX-License-Identifier: Apache-2.0
use std::{fs, path::Path};

use plywood_plugin_sdk::{
    DriverErrorCode, MountPlan, MountRequest, WhiteoutForm, toolkit::mountinfo,
};

use crate::support::{
    Roots, container, has_program, id, is_root, layer, mount, read_only, with_options, write,
};

const PROGRAM: &str = "overlay.mount_program=/usr/bin/fuse-overlayfs";

#[test]
fn root_a_mount_program_mounts_reads_writes_and_unmounts() {
    if !is_root() || !has_program("fuse-overlayfs") || !Path::new("/dev/fuse").exists() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open_with(&[PROGRAM]).unwrap();
    let flag = fs::read_to_string(roots.home().join(".has-mount-program")).unwrap();
    assert_eq!(flag, "true");
    driver.create(&layer("base", None)).unwrap();
    let target = driver.unpack_target(&id("base")).unwrap();
    assert_eq!(target.whiteouts, WhiteoutForm::Removal);
    write(&target.directory.join("old"), "old");
    driver.create(&container("top", Some("base"))).unwrap();
    let whiteouts = driver.unpack_target(&id("top")).unwrap().whiteouts;
    assert_eq!(whiteouts, WhiteoutForm::Literal);

    let request = with_options(&["nodev", "noexec"]);
    let MountPlan::ByDriver { target } = driver.mount_plan(&id("top"), &request).unwrap() else {
        panic!("the driver mounts by itself");
    };
    assert_eq!(driver.mount(&id("top"), &request).unwrap(), target);
    let mounts = mountinfo::mounts().unwrap();
    let seen = mountinfo::at(&mounts, &target).unwrap();
    assert_eq!(seen.fstype, "fuse.fuse-overlayfs");
    let has = |option: &str| seen.options.split(',').any(|found| found == option);
    assert!(has("nodev") && has("noexec"), "{seen:?}");
    assert_eq!(fs::read_to_string(target.join("old")).unwrap(), "old");
    write(&target.join("new"), "new");
    driver.unmount(&id("top")).unwrap();
    assert!(mountinfo::at(&mountinfo::mounts().unwrap(), &target).is_none());
    driver.unmount(&id("top")).unwrap();
    assert_eq!(
        fs::read_to_string(roots.home().join("top/diff/new")).unwrap(),
        "new"
    );

    driver.mount(&id("top"), &read_only()).unwrap();
    assert!(fs::write(target.join("x"), "x").is_err());
    let shown = rustix::fs::statvfs(&target).unwrap().f_flag;
    assert!(shown.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    driver.unmount(&id("top")).unwrap();

    // The program says so and goes on; an option that does nothing is not honoured.
    let error = driver
        .mount(&id("top"), &with_options(&["nosuchoption"]))
        .unwrap_err();
    assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT);
    assert_eq!(error.object.as_deref(), Some("nosuchoption"));

    let error = driver
        .mount(&id("top"), &with_options(&["uidmapping=nonsense"]))
        .unwrap_err();
    assert!(
        error
            .message
            .starts_with("using mount program /usr/bin/fuse-overlayfs: "),
        "{error}"
    );
    assert!(mountinfo::at(&mountinfo::mounts().unwrap(), &target).is_none());
}

#[test]
fn root_a_store_that_was_made_with_a_program_keeps_using_one() {
    if !is_root() || !has_program("fuse-overlayfs") {
        return;
    }
    let roots = Roots::new();
    fs::create_dir_all(roots.home().join("old/diff")).unwrap();
    write(&roots.home().join("old/diff/.wh.gone"), "");
    let driver = roots.open();
    driver.create(&container("top", None)).unwrap();
    let plan = driver
        .mount_plan(&id("top"), &MountRequest::default())
        .unwrap();
    assert!(matches!(plan, MountPlan::ByDriver { .. }), "{plan:?}");
    assert!(!driver.capabilities().native_diff);
    assert!(roots.log.has("the layers were made with a mount program"));
    assert_eq!(
        fs::read(roots.home().join(".has-mount-program")).unwrap(),
        b"true"
    );
}

#[test]
fn root_the_kernel_is_asked_first_and_its_answers_are_remembered() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    let status = driver.status().unwrap();
    assert!(status.contains(&("Supports d_type".to_owned(), "true".to_owned())));
    assert!(status.contains(&("Native Overlay Diff".to_owned(), "true".to_owned())));
    assert_eq!(
        fs::read(roots.home().join(".has-mount-program")).unwrap(),
        b"false"
    );
    let cache = roots.run_root().join("overlay");
    for name in [
        "overlay-true",
        "metacopy()-false",
        "native-diff()-true",
        "volatile-true",
    ] {
        assert_eq!(fs::read(cache.join(name)).unwrap(), b"", "{name}");
    }
    drop(driver);
    fs::remove_file(cache.join("volatile-true")).unwrap();
    write(&cache.join("volatile-false"), "");
    assert!(!roots.open().capabilities().volatile_mounts);

    fs::remove_file(cache.join("overlay-true")).unwrap();
    write(&cache.join("overlay-false"), "the kernel is too old");
    let refused = roots.open_with(&[]);
    if Path::new("/usr/bin/fuse-overlayfs").exists() {
        assert!(refused.is_ok());
    } else {
        let error = refused.err().unwrap();
        assert_eq!(error.code, DriverErrorCode::INCOMPATIBLE_FILESYSTEM);
        assert_eq!(error.message, "the kernel is too old");
    }
}

#[test]
fn root_an_overlay_below_the_home_leaves_it_to_a_program() {
    if !is_root() {
        return;
    }
    let outer = Roots::new();
    let driver = outer.open();
    driver.create(&container("c", None)).unwrap();
    let mounted = mount(&*driver, "c", &MountRequest::default());
    let inner = Roots::below(&mounted.0);
    let opened = inner.open_with(&[]);
    if Path::new("/usr/bin/fuse-overlayfs").exists() {
        assert!(!opened.unwrap().capabilities().native_diff);
        assert!(
            inner
                .log
                .has("the kernel's overlay does not work on overlayfs")
        );
    } else {
        let error = opened.err().unwrap();
        assert_eq!(error.code, DriverErrorCode::INCOMPATIBLE_FILESYSTEM);
        assert!(
            error.message.contains("a mount_program is required"),
            "{error}"
        );
    }
}
