// SPDX-License-Identifier: Apache-2.0
use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    process::Command,
};

use plywood_driver_overlay::Overlay;
use plywood_plugin_sdk::{DiffView, MountRequest, OpenRequest, Plugin, WhiteoutForm};

use crate::support::{Roots, container, id, layer, mount};

/// Run by the test below as the root of a user namespace.
#[test]
#[ignore = "a part of another test"]
fn part_in_a_user_namespace() {
    let roots = Roots::new();
    let run_dir = roots.run_root().join("overlay");
    let mut request = OpenRequest::new(roots.home(), run_dir, roots.log.clone());
    request.rootless = true;
    let driver = Overlay::open(request).unwrap();
    assert!(driver.capabilities().native_diff);
    driver.create(&layer("base", None)).unwrap();
    let target = driver.unpack_target(&id("base")).unwrap();
    assert_eq!(target.whiteouts, WhiteoutForm::Removal);
    fs::create_dir(target.directory.join("dir")).unwrap();
    fs::write(target.directory.join("dir/file"), "x").unwrap();
    fs::write(target.directory.join("gone"), "x").unwrap();
    driver.create(&container("top", Some("base"))).unwrap();
    let whiteouts = driver.unpack_target(&id("top")).unwrap().whiteouts;
    assert_eq!(whiteouts, WhiteoutForm::OverlayUserXattr);

    let mounted = mount(&*driver, "top", &MountRequest::default());
    fs::remove_file(mounted.path("gone")).unwrap();
    fs::remove_dir_all(mounted.path("dir")).unwrap();
    fs::create_dir(mounted.path("dir")).unwrap();
    drop(mounted);
    driver.released(&id("top")).unwrap();
    let DiffView::Upper {
        upper, whiteouts, ..
    } = driver.diff_view(&id("top"), Some(&id("base"))).unwrap()
    else {
        panic!("not native");
    };
    assert_eq!(whiteouts, WhiteoutForm::OverlayUserXattr);
    let gone = fs::symlink_metadata(upper.join("gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let mut opaque = [0; 4];
    let size = rustix::fs::lgetxattr(upper.join("dir"), "user.overlay.opaque", &mut opaque);
    assert_eq!((size, opaque[0]), (Ok(1), b'y'));
    driver.remove(&id("top")).unwrap();
    driver.close().unwrap();
}

#[test]
fn userns_layers_use_attributes_that_an_unprivileged_user_may_set() {
    let possible = Command::new("unshare").args(["-Urm", "true"]).status();
    if !possible.is_ok_and(|status| status.success()) {
        println!("skipped: needs user namespaces");
        return;
    }
    let output = Command::new("unshare")
        .arg("-Urm")
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "userns::part_in_a_user_namespace"])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && text.contains("1 passed"),
        "{text}"
    );
}
