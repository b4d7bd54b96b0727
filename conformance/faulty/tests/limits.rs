// SPDX-License-Identifier: Apache-2.0
//! Layers with a limit of the correct driver; they need the rights to mount.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use plywood_conformance_faulty::Reference;
use plywood_plugin_sdk::{
    CreateRequest, Driver, DriverErrorCode, Host, LayerId, LogLevel, MountPlan, MountRequest,
    OpenRequest, Plugin as _,
};

struct Quiet;

impl Host for Quiet {
    fn log(&self, _: LogLevel, _: &str, _: &str) {}
}

const MIB: u64 = 1 << 20;

fn open(root: &Path) -> Box<dyn Driver> {
    let request = OpenRequest::new(root.join("home"), root.join("run"), Arc::new(Quiet));
    Reference::open(request).unwrap()
}

fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

fn limited(name: &str, parent: Option<&str>, size: &str) -> CreateRequest {
    let mut request = CreateRequest::new(id(name), parent.map(id));
    request.storage_options.insert("size".into(), size.into());
    request
}

/// Writes until it fails; the bytes written.
fn fill(file: &Path) -> u64 {
    let mut file = fs::File::create(file).unwrap();
    let block = vec![1; 64 << 10];
    let mut written = 0;
    loop {
        match file.write(&block) {
            Ok(got) => written += got as u64,
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(28), "{error}");
                return written;
            }
        }
        assert!(written < 1 << 30, "there is no limit");
    }
}

fn loops_of(root: &Path) -> Vec<PathBuf> {
    let devices = fs::read_dir("/sys/block").unwrap();
    let files = devices.map(|device| device.unwrap().path().join("loop/backing_file"));
    let root = fs::canonicalize(root).unwrap();
    files
        .filter_map(|file| Some(PathBuf::from(fs::read_to_string(file).ok()?)))
        .filter(|file| file.starts_with(&root))
        .collect()
}

/// The kernel gives a device up a moment after its last user.
fn assert_no_loops(root: &Path) {
    let end = Instant::now() + Duration::from_secs(5);
    while !loops_of(root).is_empty() && Instant::now() < end {
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(loops_of(root), Vec::<PathBuf>::new());
}

fn close_to(written: u64, limit: u64) -> bool {
    written <= limit + limit / 20 && written >= limit - limit / 20
}

#[test]
fn root_a_limit_is_kept_exactly_and_survives() {
    let root = tempfile::tempdir().unwrap();
    let driver = open(root.path());
    if !driver.capabilities().size_quota {
        return;
    }
    for (name, size) in [("a", 8 * MIB), ("b", 64 * MIB)] {
        driver
            .create(&limited(name, None, &size.to_string()))
            .unwrap();
        let tree = driver.unpack_target(&id(name)).unwrap().directory;
        assert_eq!(fs::read_dir(&tree).unwrap().count(), 0);
        let written = fill(&tree.join("file"));
        assert!(close_to(written, size), "{written} of {size}");
    }
    // What the child starts with does not count.
    driver.create(&limited("child", Some("b"), "8M")).unwrap();
    let tree = driver.unpack_target(&id("child")).unwrap().directory;
    let written = fill(&tree.join("more"));
    assert!(close_to(written, 8 * MIB), "{written} of 8 MiB");
    driver.close().unwrap();
    drop(driver);
    assert_no_loops(root.path());

    let driver = open(root.path());
    let tree = driver.unpack_target(&id("child")).unwrap().directory;
    assert!(fill(&tree.join("again")) < MIB);
    assert_eq!(fs::metadata(tree.join("more")).unwrap().len(), written);
    for name in ["child", "b", "a"] {
        driver.remove(&id(name)).unwrap();
    }
    assert_no_loops(root.path());
    assert_eq!(driver.list().unwrap(), []);
}

#[test]
fn root_a_limit_of_inodes_leaves_what_the_layer_starts_with_aside() {
    let root = tempfile::tempdir().unwrap();
    let driver = open(root.path());
    if !driver.capabilities().inode_quota {
        return;
    }
    driver
        .create(&CreateRequest::new(id("base"), None))
        .unwrap();
    let tree = driver.unpack_target(&id("base")).unwrap().directory;
    for n in 0..300 {
        fs::write(tree.join(format!("old-{n}")), b"x").unwrap();
    }
    let make = |name: &str, options: &[(&str, &str)]| {
        let mut request = CreateRequest::new(id(name), Some(id("base")));
        for (key, value) in options {
            request
                .storage_options
                .insert((*key).to_owned(), (*value).to_owned());
        }
        driver.create(&request)
    };
    for (name, options) in [
        ("alone", &[("inodes", "200")][..]),
        ("both", &[("inodes", "200"), ("size", "8M")]),
        ("wide", &[("inodes", "2000"), ("size", "1G")]),
    ] {
        make(name, options).unwrap();
        let tree = driver.unpack_target(&id(name)).unwrap().directory;
        let limit = options[0].1.parse::<usize>().unwrap();
        let made = (0..2 * limit)
            .take_while(|n| fs::write(tree.join(n.to_string()), b"").is_ok())
            .count();
        assert!((limit * 9 / 10..=limit).contains(&made), "{name}: {made}");
    }
    let error = make("few", &[("inodes", "20"), ("size", "8G")]).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT);
    assert_eq!(error.object.as_deref(), Some("inodes"));
    assert!(!driver.exists(&id("few")).unwrap());
}

#[test]
fn root_a_limited_layer_is_mounted_and_unmounted() {
    let root = tempfile::tempdir().unwrap();
    let driver = open(root.path());
    if !driver.capabilities().size_quota {
        return;
    }
    driver.create(&limited("a", None, "8M")).unwrap();
    let mut request = MountRequest::default();
    request.options.push("nodev".into());
    let a = id("a");
    let MountPlan::ByDriver { target } = driver.mount_plan(&a, &request).unwrap() else {
        panic!("only the driver can mount it");
    };
    let other = open(root.path());
    for read_only in [false, true, false] {
        request.read_only = read_only;
        assert_eq!(driver.mount(&a, &request).unwrap(), target);
        assert_eq!(fs::write(target.join("f"), b"x").is_err(), read_only);
        let seen = other.unpack_target(&a).unwrap().directory;
        assert_eq!(fs::read(seen.join("f")).unwrap(), b"x");
        let busy = other.remove(&a).unwrap_err();
        assert_eq!(busy.code, DriverErrorCode::BUSY);
        driver.unmount(&a).unwrap();
        driver.released(&a).unwrap();
        assert!(!target.exists());
    }
    drop(other);
    driver.remove(&a).unwrap();
    drop(driver);
    assert_no_loops(root.path());
}

#[test]
fn root_a_staged_limit_is_kept_until_it_is_a_layer() {
    let root = tempfile::tempdir().unwrap();
    let driver = open(root.path());
    if !driver.capabilities().size_quota {
        return;
    }
    let request = limited("a", None, "8M");
    let staged = driver.stage(&request).unwrap();
    assert!(!driver.exists(&request.id).unwrap());
    let written = fill(&staged.target.directory.join("file"));
    assert!(close_to(written, 8 * MIB), "{written}");
    driver.sync_staged(&staged.token).unwrap();
    driver.adopt(&staged.token, &request).unwrap();
    let tree = driver.unpack_target(&request.id).unwrap().directory;
    assert_eq!(fs::metadata(tree.join("file")).unwrap().len(), written);

    let given_up = driver.stage(&limited("b", Some("a"), "1M")).unwrap();
    driver.discard(&given_up.token).unwrap();
    driver.discard(&given_up.token).unwrap();
    let token = driver.trash(&request.id).unwrap().unwrap();
    driver.reap(&token).unwrap();
    assert_no_loops(root.path());
    assert!(!root.path().join("home/tempdirs").exists());
}

#[test]
fn chains_end_at_the_declared_depth() {
    let root = tempfile::tempdir().unwrap();
    let driver = open(root.path());
    let limit = driver.capabilities().depth_limit.unwrap();
    let mut parent = None;
    for n in 0..=limit {
        let name = id(&format!("l{n}"));
        driver
            .create(&CreateRequest::new(name.clone(), parent.take()))
            .unwrap();
        parent = Some(name);
    }
    let error = driver
        .create(&CreateRequest::new(id("one-more"), parent))
        .unwrap_err();
    assert_eq!(error.code, DriverErrorCode::TOO_DEEP);
    assert!(!driver.exists(&id("one-more")).unwrap());
}
