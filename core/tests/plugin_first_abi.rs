// SPDX-License-Identifier: Apache-2.0
//! The promise of the plugin ABI, with the plugin that was written for its first version.
//!
//! Its sources (`plugin-sdk/tests/first-abi`) are never edited, and neither is the SDK 1.0.0 beside
//! them, as cargo packed it: with that one the plugin is built, so that the file which is loaded is
//! one that a vendor built back then.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use plywood::{
    ErrorKind,
    plugin::DriverHandle,
    sdk::{
        Capabilities, ChangeKind, CreateRequest, DiffView, LayerId, LayerKind, MountPlan,
        MountRequest, MountStep, Removed, WhiteoutForm,
    },
};

use crate::{
    plugin_abi::{in_newer_program, next, plugin},
    support::plugins::{Place, artifacts, cargo, registry_of, workspace},
};

/// The plugin as a vendor built it with version 1.0 of the SDK.
pub(crate) fn first() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| build_first().unwrap_or_else(|error| panic!("{error}")));
    artifacts().join("libplywood_driver_first.so")
}

/// Builds it with the SDK that was packed as 1.0.0, and with this workspace's versions of what the
/// SDK needs.
fn build_first() -> Result<(), String> {
    const PACKED: &str = "plywood-plugin-sdk-1.0.0";
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("abi/published");
    let source = workspace().join("plugin-sdk/tests/first-abi");
    fs::create_dir_all(root.join("first/src")).unwrap();
    let unpacked = Command::new("tar")
        .arg("xzf")
        .arg(source.join(format!("{PACKED}.crate")))
        .current_dir(&root)
        .status();
    assert!(unpacked.unwrap().success(), "the packed SDK is unpacked");
    fs::copy(source.join("src/lib.rs"), root.join("first/src/lib.rs")).unwrap();
    let manifest = fs::read_to_string(source.join("Cargo.toml")).unwrap();
    let manifest = manifest.replace("\n[workspace]\n", "").replace(
        "plywood-plugin-sdk = \"1.0\"",
        &format!("plywood-plugin-sdk = {{ path = \"../{PACKED}\" }}"),
    );
    fs::write(root.join("first/Cargo.toml"), manifest).unwrap();
    let members = format!("[workspace]\nresolver = \"3\"\nmembers = [\"first\", \"{PACKED}\"]\n");
    fs::write(root.join("Cargo.toml"), members).unwrap();
    fs::copy(workspace().join("Cargo.lock"), root.join("Cargo.lock")).unwrap();
    cargo(&root, "build", &["-p", "first-abi-plugin"])
}

fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

fn new(layer: &str) -> CreateRequest {
    CreateRequest::new(id(layer), None)
}

fn status(driver: &DriverHandle, key: &str) -> Vec<String> {
    let status = driver.status().unwrap().into_iter();
    let found = status.filter(|(name, _)| name == key);
    found.map(|(_, value)| value).collect()
}

/// Does with a plugin everything that version 1.0 can.
fn work(path: &Path) {
    let place = Place::new();
    let registry = registry_of("first", path, None);
    let error = registry.open("first", place.request(&["refuse"]));
    let error = error.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DriverUnavailable);
    assert_eq!(error.remedy(), Some("do not ask"));
    let mut request = place.request(&[]);
    request.known_drivers = vec!["one".into(), "two".into()];
    request.image_store = Some("/images".into());
    request.rootless = true;
    let driver = registry.open("first", request).unwrap();
    let all = Capabilities::from_bits((1 << 17) - 1, Some(7));
    assert_eq!(*driver.capabilities(), all);
    assert_eq!(driver.image_stores().unwrap(), [Path::new("/images/first")]);
    for (key, value) in [
        ("Major", "1"),
        ("Known drivers", "2"),
        ("Rootless", "true"),
        ("Root", "Some((0, 0))"),
        ("Longest id", "128"),
    ] {
        assert_eq!(status(&driver, key), [value], "{key}");
    }
    layers(&driver);
    descriptions(&driver, &place);
    places(&driver);
    driver.close().unwrap();
    assert!(
        place
            .log
            .text()
            .ends_with("Info first: closed, 3 is Some(3)")
    );
    let error = driver.exists(&id("panic")).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("panicked in exists: asked to panic"),
        "{error}"
    );
    assert_eq!(
        driver.create(&new("x")).unwrap_err().kind(),
        ErrorKind::DriverPoisoned
    );
}

fn layers(driver: &DriverHandle) {
    let mut request = new("plain");
    request.kind = LayerKind::ReadWrite;
    driver.create(&request).unwrap();
    assert_eq!(status(driver, "create"), ["plain rw None"]);
    let error = driver.create(&request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DuplicateId);
    let mut request = new("options");
    request
        .storage_options
        .insert("colour".into(), "red".into());
    let error = driver.create(&request).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = driver.usage(&id("nothing")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LayerUnknown);
    let tree = driver.content_roots(&id("plain")).unwrap().remove(0);
    fs::write(tree.join("file"), "12345").unwrap();
    let usage = driver.usage(&id("plain")).unwrap();
    assert_eq!((usage.bytes, usage.inodes), (5, 2));
    let metadata = driver.metadata(&id("plain")).unwrap();
    assert_eq!(metadata["Directory"], tree.display().to_string());
    assert_eq!(driver.list().unwrap(), [id("plain")]);
    driver.sync(&id("plain")).unwrap();
    let changes = driver.native_changes(&id("plain"), None).unwrap();
    let kinds: Vec<_> = changes.iter().map(|change| change.kind).collect();
    assert_eq!(
        kinds,
        [ChangeKind::Add, ChangeKind::Modify, ChangeKind::Delete]
    );
}

/// A plan and a view of each kind.
fn descriptions(driver: &DriverHandle, place: &Place) {
    for layer in ["overlay", "filesystem", "bind", "itself"] {
        driver.create(&new(layer)).unwrap();
    }
    let mut request = MountRequest::default();
    request.read_only = true;
    request.label = Some("label".into());
    request.options = vec!["nodev".into()];
    let plan = |layer: &str| driver.mount_plan(&id(layer), &request).unwrap();
    let step = |layer: &str| match plan(layer) {
        MountPlan::Mounts(mut mounts) => {
            assert_eq!(mounts.target, place.path("run").join(layer));
            mounts.steps.remove(0)
        }
        other => panic!("{layer}: {other:?}"),
    };
    let tree = |layer: &str| place.path("home/layers").join(layer);
    assert_eq!(plan("plain"), MountPlan::Directory(tree("plain")));
    let target = place.path("run/itself");
    assert_eq!(plan("itself"), MountPlan::ByDriver { target });
    let MountStep::Overlay(overlay) = step("overlay") else {
        panic!("it is an overlay")
    };
    assert_eq!(overlay.lowers, [tree("overlay")]);
    assert_eq!(overlay.label.as_deref(), Some("label"));
    let MountStep::Filesystem {
        fstype, options, ..
    } = step("filesystem")
    else {
        panic!("it is a file system")
    };
    assert_eq!(
        (fstype.as_str(), options),
        ("tmpfs", vec!["nodev".to_owned()])
    );
    let MountStep::Bind {
        source, read_only, ..
    } = step("bind")
    else {
        panic!("it is a bind")
    };
    assert_eq!((source, read_only), (tree("bind"), true));
    let seen = status(driver, "mount");
    assert_eq!(seen[0], "true false Some(\"label\") [\"nodev\"]");
    assert_eq!(
        driver.mount(&id("itself"), &request).unwrap(),
        tree("itself")
    );
    driver.unmount(&id("itself")).unwrap();
    driver.released(&id("itself")).unwrap();
    let target = driver.unpack_target(&id("plain")).unwrap();
    assert_eq!(target.whiteouts, WhiteoutForm::Literal);
    assert_eq!(
        (target.implied_directory_mode, target.force_mask),
        (0o711, Some(0o700))
    );
    assert!(target.fresh);
    let view = |layer: &str| driver.diff_view(&id(layer), Some(&id("plain"))).unwrap();
    assert!(matches!(
        view("overlay"),
        DiffView::Upper {
            whiteouts: WhiteoutForm::Overlay,
            ..
        }
    ));
    assert_eq!(view("itself"), DiffView::Mounted);
    let (tree, parent) = (tree("bind"), Some(tree("plain")));
    assert_eq!(view("bind"), DiffView::Trees { tree, parent });
}

fn places(driver: &DriverHandle) {
    let staged = driver.stage(&new("staged")).unwrap();
    fs::write(staged.target.directory.join("file"), "").unwrap();
    driver.sync_staged(&staged.token).unwrap();
    driver.adopt(&staged.token, &new("staged")).unwrap();
    assert!(driver.exists(&id("staged")).unwrap());
    let staged = driver.stage(&new("other")).unwrap();
    driver.discard(&staged.token).unwrap();
    let token = driver.trash(&id("staged")).unwrap().unwrap();
    assert!(driver.recover().unwrap().is_empty(), "it is held");
    driver.reap(&token).unwrap();
    assert_eq!(driver.trash(&id("staged")).unwrap(), None);
    assert_eq!(driver.remove(&id("plain")).unwrap(), Removed::Now);
    assert_eq!(driver.remove(&id("plain")).unwrap(), Removed::AlreadyGone);
}

#[test]
fn the_plugin_of_the_first_abi_works_in_this_program() {
    work(&first());
}

#[test]
fn the_plugin_of_the_first_abi_works_in_a_newer_program() {
    assert_eq!(
        in_newer_program(&first()),
        "1.0 first licence=None exists=true colour=not-supported\n"
    );
}

#[test]
fn what_was_written_for_the_first_abi_compiles_with_a_newer_sdk_and_works() {
    next();
    work(&plugin("first_next"));
}
