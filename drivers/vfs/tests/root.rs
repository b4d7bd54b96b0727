// SPDX-License-Identifier: Apache-2.0
//! The vfs driver as a store uses it, with everything that only root can make.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failure of a helper is a failure of its test"
)]

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use plywood_driver_vfs::Vfs;
use plywood_plugin_sdk::{
    CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, Host, IdMap, LayerId, LogLevel,
    MountPlan, MountRequest, MountStep, OpenRequest, Plugin, Removed, WhiteoutForm,
};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};

struct Quiet;

impl Host for Quiet {
    fn log(&self, _: LogLevel, _: &str, _: &str) {}
}

struct Store {
    dir: tempfile::TempDir,
}

impl Store {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn home(&self) -> PathBuf {
        self.dir.path().join("g/vfs")
    }

    fn tree(&self, name: &str) -> PathBuf {
        self.home().join("dir").join(name)
    }

    fn open_with(&self, options: &[&str]) -> Result<Box<dyn Driver>, DriverError> {
        let run_dir = self.dir.path().join("r/vfs");
        let mut request = OpenRequest::new(self.home(), run_dir, Arc::new(Quiet));
        request.options = options.iter().map(|&option| option.to_owned()).collect();
        request.known_drivers = vec!["overlay".to_owned(), "vfs".to_owned()];
        Vfs::open(request)
    }

    fn open(&self) -> Box<dyn Driver> {
        self.open_with(&[]).unwrap()
    }
}

fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

fn layer(name: &str, parent: Option<&str>) -> CreateRequest {
    CreateRequest::new(id(name), parent.map(id))
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// Everything of a tree that a layer keeps.
fn picture(tree: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let mut waiting = vec![tree.to_owned()];
    while let Some(path) = waiting.pop() {
        let seen = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(tree).unwrap().to_owned();
        let mut text = format!(
            "{:o} {}:{} {}.{} {}",
            seen.mode(),
            seen.uid(),
            seen.gid(),
            seen.mtime(),
            seen.mtime_nsec(),
            seen.rdev(),
        );
        if seen.is_dir() {
            waiting.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if seen.is_symlink() {
            text = format!("{text} -> {}", fs::read_link(&path).unwrap().display());
        } else if seen.is_file() {
            text = format!("{text} {} {:?}", seen.len(), fs::read(&path).unwrap());
        }
        if !seen.is_dir() && seen.nlink() > 1 {
            let names: &mut Vec<PathBuf> = inodes.entry(seen.ino()).or_default();
            names.push(name.clone());
        }
        if !seen.is_symlink() {
            let mut list = vec![0; 4096];
            let size = rustix::fs::llistxattr(&path, &mut list).unwrap();
            let mut xattrs: Vec<&[u8]> = list[..size].split(|byte| *byte == 0).collect();
            xattrs.sort_unstable();
            for xattr in xattrs.into_iter().filter(|xattr| !xattr.is_empty()) {
                let mut value = vec![0; 4096];
                let size = rustix::fs::lgetxattr(&path, xattr, &mut value).unwrap();
                let name = String::from_utf8_lossy(xattr);
                text = format!("{text} {name}={:?}", &value[..size]);
            }
        }
        found.insert(name, text);
    }
    for mut names in inodes.into_values() {
        names.sort();
        found.insert(Path::new("linked").join(&names[0]), format!("{names:?}"));
    }
    found
}

/// A tree with one of each kind.
fn fill(tree: &Path) {
    let at = |name: &str| tree.join(name);
    fs::create_dir_all(at("dir/sub")).unwrap();
    fs::write(at("dir/file"), "content").unwrap();
    fs::hard_link(at("dir/file"), at("dir/sub/second")).unwrap();
    fs::write(at("tool"), "binary").unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, at(name), kind, Mode::from_raw_mode(0o640), device).unwrap();
    };
    node(
        "dir/null",
        FileType::CharacterDevice,
        rustix::fs::makedev(1, 3),
    );
    node("dir/gone", FileType::CharacterDevice, 0);
    node("disk", FileType::BlockDevice, rustix::fs::makedev(7, 9));
    node("pipe", FileType::Fifo, 0);
    node("socket", FileType::Socket, 0);
    fs::hard_link(at("pipe"), at("pipe2")).unwrap();
    std::os::unix::fs::symlink("/nowhere", at("symlink")).unwrap();
    std::os::unix::fs::lchown(at("symlink"), Some(11), Some(12)).unwrap();
    std::os::unix::fs::chown(at("tool"), Some(5), Some(6)).unwrap();
    rustix::fs::chmod(at("tool"), Mode::from_raw_mode(0o6755)).unwrap();
    rustix::fs::chmod(at("dir/sub"), Mode::from_raw_mode(0o1777)).unwrap();
    // CAP_NET_BIND_SERVICE, permitted and effective.
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let xattrs = [
        ("security.capability", &capability[..]),
        ("user.note", b"x"),
    ];
    for (name, value) in xattrs {
        rustix::fs::setxattr(at("tool"), name, value, XattrFlags::empty()).unwrap();
    }
    rustix::fs::setxattr(at("dir"), "user.empty", b"", XattrFlags::empty()).unwrap();
}

#[test]
fn root_a_child_starts_with_all_of_its_parent() {
    if !is_root() {
        return;
    }
    let store = Store::new();
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    assert_eq!(
        fs::metadata(store.tree("base")).unwrap().mode() & 0o7777,
        0o555
    );
    fill(&store.tree("base"));
    rustix::fs::chmod(store.tree("base"), Mode::from_raw_mode(0o751)).unwrap();
    driver.create(&layer("child", Some("base"))).unwrap();
    let mut copy = layer("copy", None);
    copy.template = Some(id("child"));
    driver.create(&copy).unwrap();
    let expected = picture(&store.tree("base"));
    assert!(expected.len() >= 15);
    assert_eq!(picture(&store.tree("child")), expected);
    assert_eq!(picture(&store.tree("copy")), expected);

    // In a tree of its own even overlay's marks are content: of a store inside the layer.
    let mark = "trusted.overlay.opaque";
    rustix::fs::setxattr(
        store.tree("base").join("dir"),
        mark,
        b"y",
        XattrFlags::empty(),
    )
    .unwrap();
    driver.create(&layer("other", Some("base"))).unwrap();
    let marked = picture(&store.tree("base"));
    assert_ne!(marked, expected);
    assert_eq!(picture(&store.tree("other")), marked);
    assert_eq!(driver.list().unwrap().len(), 4);
    assert!(!store.home().join("tempdirs").exists());
    assert!(
        fs::symlink_metadata(store.tree("child").join("socket"))
            .unwrap()
            .file_type()
            .is_socket()
    );
}

#[test]
fn root_the_copy_is_the_one_of_containers_storage() {
    if !is_root() {
        return;
    }
    let store = Store::new();
    let run = |arguments: &[&str]| {
        let output = Command::new("containers-storage")
            .args(["-s", "vfs", "-g"])
            .arg(store.dir.path().join("g"))
            .arg("-R")
            .arg(store.dir.path().join("r"))
            .args(arguments)
            .output()
            .expect("containers-storage is missing: `cargo xtask setup` installs it");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().next().unwrap().trim().to_owned()
    };
    let base = run(&["create-layer"]);
    fill(&store.tree(&base));
    // 1.43 fails on sockets.
    fs::remove_file(store.tree(&base).join("socket")).unwrap();
    let theirs = run(&["create-layer", &base]);
    let driver = store.open();
    driver.create(&layer("ours", Some(&base))).unwrap();
    let mut ours = picture(&store.tree("ours"));
    // It copies each name of a pipe by itself.
    assert!(ours.remove(Path::new("linked/pipe")).is_some());
    assert_eq!(ours, picture(&store.tree(&theirs)));
    let mode = |path: &str| fs::metadata(store.home().join(path)).unwrap().mode() & 0o7777;
    let made = Store::new();
    made.open();
    assert_eq!(fs::metadata(made.home()).unwrap().mode() & 0o7777, mode(""));
    assert_eq!(
        fs::metadata(made.home().join("dir")).unwrap().mode() & 0o7777,
        mode("dir")
    );
}

#[test]
fn layers_are_staged_adopted_and_thrown_away() {
    let store = Store::new();
    let driver = store.open();
    let staged = driver.stage(&layer("a", None)).unwrap();
    assert_eq!(staged.target.whiteouts, WhiteoutForm::Removal);
    assert!(staged.target.apply_root && staged.target.fresh);
    assert_eq!(driver.list().unwrap(), []);
    driver.sync_staged(&staged.token).unwrap();
    driver.adopt(&staged.token, &layer("a", None)).unwrap();
    driver.sync(&id("a")).unwrap();
    assert_eq!(driver.list().unwrap(), [id("a")]);

    // An empty directory is what a rename would silently replace.
    let staged = driver.stage(&layer("a", None)).unwrap();
    let error = driver.adopt(&staged.token, &layer("a", None)).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::ALREADY_EXISTS);
    driver.adopt(&staged.token, &layer("b", None)).unwrap();
    let existing = driver.create(&layer("a", None)).unwrap_err();
    assert_eq!(existing, error);

    let token = driver.trash(&id("b")).unwrap().unwrap();
    assert!(!driver.exists(&id("b")).unwrap());
    driver.reap(&token).unwrap();
    assert_eq!(driver.remove(&id("b")).unwrap(), Removed::AlreadyGone);
    assert_eq!(driver.remove(&id("a")).unwrap(), Removed::Now);
    let staged = driver.stage(&layer("c", None)).unwrap();
    assert_eq!(driver.recover().unwrap(), [""; 0], "its owner is alive");
    driver.discard(&staged.token).unwrap();
    assert!(!store.home().join("tempdirs").exists());

    let dead = store.home().join("tempdirs/temp-dir-7/0-addition");
    fs::create_dir_all(dead).unwrap();
    assert_eq!(driver.recover().unwrap(), ["temp-dir-7"]);
}

#[test]
fn mounts_are_directories_or_read_only_binds_or_refused() {
    let store = Store::new();
    let driver = store.open();
    driver.create(&layer("a", None)).unwrap();
    let plan = |request: &MountRequest| driver.mount_plan(&id("a"), request);
    let mut request = MountRequest::default();
    assert_eq!(
        plan(&request).unwrap(),
        MountPlan::Directory(store.tree("a"))
    );
    request.options = vec!["ro".to_owned()];
    let MountPlan::Mounts(steps) = plan(&request).unwrap() else {
        panic!()
    };
    let step = MountStep::Bind {
        source: store.tree("a"),
        target: steps.target.clone(),
        read_only: true,
    };
    assert_eq!(steps.steps, [step]);
    assert!(steps.target.is_dir());
    driver.released(&id("a")).unwrap();
    assert!(!steps.target.exists());
    request.options = vec!["nodev".to_owned()];
    let error = plan(&request).unwrap_err();
    assert_eq!(error.message, "vfs driver does not support mount options");
    let missing = driver
        .mount_plan(&id("nobody"), &MountRequest::default())
        .unwrap_err();
    assert_eq!(missing.code, DriverErrorCode::NOT_FOUND);
}

#[test]
fn changes_are_found_by_comparing_trees() {
    let store = Store::new();
    let driver = store.open();
    driver.create(&layer("a", None)).unwrap();
    driver.create(&layer("b", Some("a"))).unwrap();
    let view = driver.diff_view(&id("b"), Some(&id("a"))).unwrap();
    let (tree, parent) = (store.tree("b"), Some(store.tree("a")));
    assert_eq!(view, DiffView::Trees { tree, parent });
    assert_eq!(driver.content_roots(&id("b")).unwrap(), [store.tree("b")]);
    assert_eq!(driver.usage(&id("b")).unwrap().inodes, 1);
    assert!(driver.metadata(&id("b")).unwrap().is_empty());
    assert_eq!(driver.status().unwrap(), []);
}

#[test]
fn root_layers_of_image_stores_are_copied_and_never_written() {
    if !is_root() {
        return;
    }
    let theirs = Store::new();
    theirs.open().create(&layer("image", None)).unwrap();
    fill(&theirs.tree("image"));
    let store = Store::new();
    let option = format!("vfs.imagestore={}", theirs.dir.path().join("g").display());
    let driver = store.open_with(&[&option]).unwrap();
    assert_eq!(driver.image_stores(), [theirs.home()]);
    driver.create(&layer("child", Some("image"))).unwrap();
    assert_eq!(
        picture(&store.tree("child")),
        picture(&theirs.tree("image"))
    );
    let plan = driver
        .mount_plan(&id("image"), &MountRequest::default())
        .unwrap();
    assert!(
        matches!(plan, MountPlan::Mounts(_)),
        "a layer of an image store is read-only"
    );
    assert_eq!(driver.list().unwrap(), [id("child")]);
    assert_eq!(driver.remove(&id("image")).unwrap(), Removed::AlreadyGone);
}

#[test]
fn refused_requests_leave_nothing() {
    let store = Store::new();
    let driver = store.open();
    let mut limited = layer("a", None);
    limited
        .storage_options
        .insert("size".to_owned(), "1g".to_owned());
    let error = driver.create(&limited).unwrap_err();
    assert_eq!(error.message, "--storage-opt is not supported for vfs");
    let orphan = driver.create(&layer("a", Some("nobody"))).unwrap_err();
    assert_eq!(orphan.code, DriverErrorCode::NOT_FOUND);
    let mut unmapped = layer("a", None);
    unmapped.id_maps.uids = vec![IdMap {
        container_id: 1,
        host_id: 1,
        size: 1,
    }];
    let error = driver.create(&unmapped).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::INVALID_ARGUMENT);
    assert_eq!(driver.list().unwrap(), []);
    assert!(!store.home().join("tempdirs").exists());
    let without = store.open_with(&["vfs.sync=none"]).unwrap();
    assert!(!without.capabilities().sync);
    let error = without.sync(&id("a")).unwrap_err();
    assert_eq!(error.code, DriverErrorCode::NOT_SUPPORTED);
}
