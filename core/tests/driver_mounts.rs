// SPDX-License-Identifier: Apache-2.0
//! Plans of the drivers, carried out by core.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use plywood::{
    mount,
    sdk::{
        CreateRequest, Driver, LayerId, MountPlan, MountRequest, OpenRequest, Plugin,
        toolkit::mountinfo,
    },
};
use plywood_driver_overlay::Overlay;
use plywood_driver_vfs::Vfs;

use crate::layers_support::Silent;

/// A graph root with a name that options would have to quote; its mounts end with it.
struct Root(tempfile::TempDir);

impl Root {
    fn new() -> Self {
        Self(
            tempfile::Builder::new()
                .prefix("pw a:b,c\\d")
                .tempdir()
                .unwrap(),
        )
    }

    fn home(&self, driver: &str) -> PathBuf {
        self.0.path().join("graph").join(driver)
    }

    fn open<P: Plugin>(&self, options: &[&str]) -> Box<dyn Driver> {
        let run = self.0.path().join("run").join(P::NAME);
        let mut request = OpenRequest::new(self.home(P::NAME), run, Arc::new(Silent));
        request.options = options.iter().map(|&option| option.to_owned()).collect();
        P::open(request).unwrap()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        for seen in mountinfo::mounts().unwrap().iter().rev() {
            if seen.target.starts_with(self.0.path()) {
                mount::unmount(&seen.target).ok();
            }
        }
    }
}

fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

fn create(driver: &dyn Driver, name: &str, parent: Option<&str>) {
    driver
        .create(&CreateRequest::new(id(name), parent.map(id)))
        .unwrap();
}

fn plan(driver: &dyn Driver, name: &str, read_only: bool) -> MountPlan {
    let mut request = MountRequest::default();
    request.read_only = read_only;
    driver.mount_plan(&id(name), &request).unwrap()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn root_long_chains_are_mounted_in_homes_with_any_name() {
    if !is_root() {
        return;
    }
    let root = Root::new();
    let driver = root.open::<Overlay>(&["overlay.sync=none"]);
    for n in 0..=500 {
        let parent = (n > 0).then(|| format!("layer{}", n - 1));
        create(&*driver, &format!("layer{n}"), parent.as_deref());
        let diff = root.home("overlay").join(format!("layer{n}/diff"));
        fs::write(diff.join(format!("file{n}")), n.to_string()).unwrap();
    }
    for top in [0, 1, 300, 500] {
        for read_only in [false, true] {
            let name = format!("layer{top}");
            let plan = plan(&*driver, &name, read_only);
            let shown = mount::execute(&plan).unwrap();
            assert!(mount::is_mounted(&shown).unwrap());
            for n in [0, top / 2, top] {
                assert_eq!(
                    read(&shown.join(format!("file{n}"))),
                    n.to_string(),
                    "{top}"
                );
            }
            let written = fs::write(shown.join("written"), "x");
            assert_eq!(written.is_ok(), !read_only, "{top}");
            mount::undo(&plan, &shown).unwrap();
            assert!(!mount::is_mounted(&shown).unwrap());
            driver.released(&id(&name)).unwrap();
            assert!(shown.is_dir());
        }
    }
}

#[test]
fn root_a_vfs_layer_is_shown_read_only_when_asked() {
    if !is_root() {
        return;
    }
    let root = Root::new();
    let driver = root.open::<Vfs>(&[]);
    create(&*driver, "base", None);
    fs::write(root.home("vfs").join("dir/base/file"), "x").unwrap();
    let plain = mount::execute(&plan(&*driver, "base", false)).unwrap();
    assert_eq!(plain, root.home("vfs").join("dir/base"));

    let plan = plan(&*driver, "base", true);
    let shown = mount::execute(&plan).unwrap();
    assert_eq!(read(&shown.join("file")), "x");
    assert!(fs::write(shown.join("file"), "y").is_err());
    fs::write(plain.join("file"), "still writable").unwrap();
    mount::undo(&plan, &shown).unwrap();
    driver.released(&id("base")).unwrap();
    assert!(!shown.exists());
}
