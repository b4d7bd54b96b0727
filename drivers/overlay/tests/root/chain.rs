// SPDX-License-Identifier: Apache-2.0
use std::fs;

use plywood_plugin_sdk::{DriverErrorCode, MountRequest};

use crate::support::{Roots, container, id, is_root, layer, mount, read_only, write};

#[test]
fn root_chains_up_to_500_are_made_and_mounted_and_501_refused() {
    if !is_root() {
        return;
    }
    let roots = Roots::below(std::path::Path::new("/dev/shm"));
    let driver = roots.open_with(&["overlay.sync=none"]).unwrap();
    for n in 0..=500 {
        let parent = (n > 0).then(|| format!("layer{}", n - 1));
        driver
            .create(&layer(&format!("layer{n}"), parent.as_deref()))
            .unwrap();
        write(
            &roots.home().join(format!("layer{n}/diff/file{n}")),
            &n.to_string(),
        );
        write(
            &roots.home().join(format!("layer{n}/diff/last")),
            &n.to_string(),
        );
    }
    let error = driver
        .create(&layer("layer501", Some("layer500")))
        .unwrap_err();
    assert_eq!(error.code, DriverErrorCode::TOO_DEEP);
    assert!(!driver.exists(&id("layer501")).unwrap());
    assert_eq!(driver.list().unwrap().len(), 501);
    assert_eq!(driver.capabilities().depth_limit, Some(500));

    for top in [0, 1, 300, 500] {
        let name = format!("layer{top}");
        for request in [MountRequest::default(), read_only()] {
            let mounted = mount(&*driver, &name, &request);
            assert_eq!(
                fs::read_to_string(mounted.path("last")).unwrap(),
                top.to_string()
            );
            for n in [0, top / 2, top] {
                let file = mounted.path(&format!("file{n}"));
                assert_eq!(fs::read_to_string(file).unwrap(), n.to_string());
            }
            let written = fs::write(mounted.path("written"), "x");
            assert_eq!(written.is_ok(), !request.read_only, "{top} {request:?}");
            drop(mounted);
            driver.released(&id(&name)).unwrap();
        }
    }
}

#[test]
fn root_a_mount_checks_the_depth_too() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("base", None)).unwrap();
    driver.create(&container("top", Some("base"))).unwrap();
    let lower = roots.home().join("top/lower");
    let link = fs::read_to_string(&lower).unwrap();
    fs::write(&lower, vec![link.as_str(); 501].join(":")).unwrap();
    let error = driver
        .mount_plan(&id("top"), &MountRequest::default())
        .unwrap_err();
    assert_eq!(error.code, DriverErrorCode::TOO_DEEP);
    // The power cut's favourite.
    fs::write(&lower, "").unwrap();
    let error = driver
        .mount_plan(&id("top"), &MountRequest::default())
        .unwrap_err();
    assert_eq!(error.code, DriverErrorCode::CORRUPT);
    assert!(error.message.contains("top/lower"), "{error}");
}
