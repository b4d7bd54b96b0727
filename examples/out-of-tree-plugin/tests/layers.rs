// SPDX-License-Identifier: Apache-2.0
//! What the driver promises, without a program around it; the conformance suite tests the rest.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use plywood_driver_reflink::Reflink;
use plywood_plugin_sdk::{
    CreateRequest, Driver, DriverErrorCode, Host, LayerId, LogLevel, MountPlan, MountRequest,
    MountStep, OpenRequest, Plugin, Removed, Result,
};

#[derive(Default)]
struct Messages(Mutex<Vec<String>>);

impl Host for Messages {
    fn log(&self, _: LogLevel, _: &str, message: &str) {
        self.0.lock().unwrap().push(message.to_owned());
    }
}

/// A store in a directory of its own, removed at the end.
struct Store {
    root: PathBuf,
    log: Arc<Messages>,
}

impl Store {
    fn below(directory: &Path) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let root = directory.join(format!("reflink-test-{}-{count}", process::id()));
        fs::create_dir(&root).unwrap();
        let log = Arc::default();
        Self { root, log }
    }

    fn new() -> Self {
        Self::below(Path::new(env!("CARGO_TARGET_TMPDIR")))
    }

    fn open(&self, options: &[&str]) -> Result<Box<dyn Driver>> {
        let (home, run_dir) = (self.root.join("home"), self.root.join("run"));
        let mut request = OpenRequest::new(home, run_dir, Arc::clone(&self.log) as _);
        request.options = options.iter().map(ToString::to_string).collect();
        request.known_drivers = vec!["overlay".to_owned(), "reflink".to_owned()];
        Reflink::open(request)
    }

    /// Works on every file system.
    fn driver(&self) -> Box<dyn Driver> {
        self.open(&["reflink.fallback=copy"]).unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).unwrap();
    }
}

fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

fn new(layer: &str, parent: Option<&str>) -> CreateRequest {
    CreateRequest::new(id(layer), parent.map(id))
}

/// The layer's directory.
fn tree(driver: &dyn Driver, layer: &str) -> PathBuf {
    driver.unpack_target(&id(layer)).unwrap().directory
}

#[test]
fn a_layer_starts_as_its_parent_and_is_then_on_its_own() {
    let store = Store::new();
    let driver = store.driver();
    driver.create(&new("base", None)).unwrap();
    let base = tree(&*driver, "base");
    fs::write(base.join("one"), "text").unwrap();
    fs::hard_link(base.join("one"), base.join("two")).unwrap();
    driver.create(&new("top", Some("base"))).unwrap();
    let top = tree(&*driver, "top");
    let (one, two) = (top.join("one"), top.join("two"));
    assert_eq!(fs::read_to_string(&one).unwrap(), "text");
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&one), inode(&two), "hard links stay together");
    fs::write(&one, "changed").unwrap();
    assert_eq!(fs::read_to_string(base.join("one")).unwrap(), "text");
    assert_eq!(driver.remove(&id("base")).unwrap(), Removed::Now);
    assert_eq!(fs::read_to_string(&two).unwrap(), "changed");
    assert_eq!(driver.remove(&id("base")).unwrap(), Removed::AlreadyGone);
    assert_eq!(driver.list().unwrap(), [id("top")]);
}

#[test]
fn an_existing_layer_is_not_touched() {
    let store = Store::new();
    let driver = store.driver();
    driver.create(&new("one", None)).unwrap();
    let staged = driver.stage(&new("one", None)).unwrap();
    for error in [
        driver.create(&new("one", None)).unwrap_err(),
        driver.adopt(&staged.token, &new("one", None)).unwrap_err(),
    ] {
        assert_eq!(error.code, DriverErrorCode::ALREADY_EXISTS);
    }
    driver.discard(&staged.token).unwrap();
    let error = driver.create(&new("two", Some("none"))).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::NOT_FOUND);
    assert_eq!(driver.list().unwrap(), [id("one")]);
}

#[test]
fn what_is_staged_becomes_a_layer_by_its_adoption() {
    let store = Store::new();
    let driver = store.driver();
    let staged = driver.stage(&new("one", None)).unwrap();
    fs::write(staged.target.directory.join("file"), "text").unwrap();
    assert!(!driver.exists(&id("one")).unwrap());
    assert!(driver.recover().unwrap().is_empty(), "its owner is alive");
    driver.adopt(&staged.token, &new("one", None)).unwrap();
    let file = tree(&*driver, "one").join("file");
    assert_eq!(fs::read_to_string(&file).unwrap(), "text");
    let token = driver.trash(&id("one")).unwrap().unwrap();
    assert!(!file.exists());
    driver.reap(&token).unwrap();
    assert_eq!(driver.trash(&id("one")).unwrap(), None);
    assert!(!store.root.join("home/places").exists(), "nothing is left");
}

#[test]
fn what_a_dead_process_left_is_reclaimed() {
    let store = Store::new();
    let driver = store.driver();
    let left = store.root.join("home/places/temp-dir-123");
    fs::create_dir_all(left.join("0-addition")).unwrap();
    assert_eq!(driver.recover().unwrap(), ["temp-dir-123"]);
    assert!(!left.exists());
}

#[test]
fn a_read_only_mount_is_a_bind() {
    let store = Store::new();
    let driver = store.driver();
    driver.create(&new("one", None)).unwrap();
    let mut request = MountRequest::default();
    let plan = driver.mount_plan(&id("one"), &request).unwrap();
    assert_eq!(plan, MountPlan::Directory(tree(&*driver, "one")));
    request.read_only = true;
    let plan = driver.mount_plan(&id("one"), &request).unwrap();
    let MountPlan::Mounts(mounts) = plan else {
        panic!("{plan:?} has no steps")
    };
    assert_eq!(mounts.target, store.root.join("run/one"));
    let [MountStep::Bind { read_only, .. }] = &mounts.steps[..] else {
        panic!("{:?} is not one bind", mounts.steps)
    };
    assert!(read_only);
    driver.released(&id("one")).unwrap();
    driver.released(&id("one")).unwrap();
    assert!(!mounts.target.exists());
}

#[test]
fn options_are_checked() {
    let store = Store::new();
    for bad in ["reflink.fallback=maybe", "colour=red", "nobody.x=1", "x"] {
        let error = store.open(&[bad]).err().unwrap();
        assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT, "{bad}");
        assert_eq!(error.object.as_deref(), Some(bad));
    }
    let driver = store.open(&["overlay.mountopt=nodev", "fallback=copy"]);
    let mut request = new("one", None);
    request.storage_options.insert("size".into(), "1g".into());
    let error = driver.unwrap().create(&request).unwrap_err();
    assert_eq!(error.object.as_deref(), Some("size"));
}

#[test]
fn a_file_system_that_cannot_share_blocks_is_refused_with_a_remedy() {
    let tmpfs = Path::new("/dev/shm");
    if !tmpfs.is_dir() {
        println!("skipped: /dev/shm is missing");
        return;
    }
    let store = Store::below(tmpfs);
    let error = store.open(&[]).err().unwrap();
    assert_eq!(error.code, DriverErrorCode::INCOMPATIBLE_FILESYSTEM);
    assert!(error.means_unsuitable());
    assert!(error.remedy.unwrap().contains("reflink.fallback=copy"));
    store.driver();
    let log = store.log.0.lock().unwrap();
    assert_eq!(
        log[..],
        ["this file system cannot share blocks: layers are real copies"]
    );
}
