// SPDX-License-Identifier: Apache-2.0
//! Layer sources as plugin files: a file that holds just one, and one that holds a driver too.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use plywood::{
    ErrorKind,
    plugin::load_plugin,
    sdk::{LayerQuery, OpenRequest, abi::Kinds},
};

use crate::{
    plugin_abi::{build, next, plugin},
    support::plugins::{Place, artifacts, cargo_build, minimal, registry_of, workspace},
};

/// The plugin that was written for version 1.1, built with the SDK as it is.
fn second() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| build("now", &[], &["second"]));
    plugin("second_now")
}

fn ours() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let package = "plywood-driver-additional-layer-store-plugin";
    BUILT.get_or_init(|| cargo_build(workspace(), &["-p", package]));
    artifacts().join("libplywood_driver_additional_layer_store.so")
}

fn query(digest: &str, reference: Option<&str>) -> LayerQuery {
    let mut query = LayerQuery::default();
    query.digest = Some(digest.to_owned());
    query.reference = reference.map(str::to_owned);
    query
}

/// A layer store, and a request with it; a name in it is not UTF-8.
fn stocked(place: &Place, digest: &str) -> (PathBuf, OpenRequest) {
    let store = place.path("layers");
    let layer = store.join(digest);
    fs::create_dir_all(layer.join("diff")).unwrap();
    fs::write(layer.join("info"), b"{\"metadata\":\"\xff\"}").unwrap();
    fs::write(layer.join("blob"), "stream").unwrap();
    fs::create_dir(store.join(OsString::from_vec(b"\xff".to_vec()))).unwrap();
    let option = format!("additionallayerstore={}", store.display());
    let request = place.request(&[&option, "additionallayerstore_timeout=3"]);
    (layer, request)
}

/// Does with a source in a file everything that version 1.1 can.
fn work(name: &str, path: &Path) {
    let place = Place::new();
    let (layer, request) = stocked(&place, "sha256:aa");
    let registry = registry_of(name, path, None);
    let source = registry.open_source(name, request).unwrap();
    assert_eq!(source.name(), name);
    assert_eq!(source.lookup(&query("sha256:bb", None)).unwrap(), None);
    let found = source
        .lookup(&query("sha256:aa", Some("x")))
        .unwrap()
        .unwrap();
    assert_eq!(found.directory, layer);
    assert_eq!(found.diff, layer.join("diff"));
    assert_eq!(found.blob, Some(layer.join("blob")));
    assert_eq!(found.info, b"{\"metadata\":\"\xff\"}");
    assert_eq!(found.timeout, Duration::from_secs(3));
    source.release(&found.directory).unwrap();
    source.status().unwrap();
}

#[test]
fn sources_in_files_work() {
    work("additional-layer-store", &ours());
    work("second", &second());
}

#[test]
fn what_was_written_for_the_second_abi_compiles_with_a_newer_sdk_and_works() {
    next();
    work("second", &plugin("second_next"));
}

#[test]
fn a_source_counts_and_its_errors_and_panics_arrive() {
    let place = Place::new();
    let registry = registry_of("second", &second(), None);
    let refused = registry.open_source("second", place.request(&["refuse"]));
    let error = refused.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DriverUnavailable);
    assert_eq!(error.remedy(), Some("do not ask"));
    let (layer, request) = stocked(&place, "sha256:aa");
    let source = registry.open_source("second", request).unwrap();
    source.lookup(&query("sha256:aa", None)).unwrap();
    let used = ("In use".to_owned(), layer.display().to_string());
    assert_eq!(source.status().unwrap(), [used]);
    source.release(&layer).unwrap();
    let error = source.release(&layer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    let error = source
        .lookup(&query("sha256:aa", Some("panic")))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("panicked in lookup: asked to panic"),
        "{error}"
    );
    assert!(
        place.log.text().contains("panicked at"),
        "{}",
        place.log.text()
    );
    let error = source.lookup(&query("sha256:aa", None)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DriverPoisoned);
}

#[test]
fn a_file_says_what_it_holds_and_nothing_else_is_opened() {
    let kinds = |path: &Path| load_plugin(path).unwrap().kinds();
    let both = Kinds {
        driver: true,
        layer_source: true,
    };
    assert_eq!(kinds(&ours()), both);
    let alone = Kinds {
        driver: false,
        ..both
    };
    assert_eq!(kinds(&second()), alone);
    let driver = Kinds {
        layer_source: false,
        ..both
    };
    assert_eq!(kinds(&minimal()), driver);
    assert_eq!(kinds(&crate::plugin_first_abi::first()), driver);

    let place = Place::new();
    for (name, path) in [
        ("minimal", minimal()),
        ("first", crate::plugin_first_abi::first()),
    ] {
        let opened = registry_of(name, &path, None).open_source(name, place.request(&[]));
        assert_eq!(
            opened.unwrap_err().kind(),
            ErrorKind::NotSupported,
            "{name}"
        );
    }
    let error = place.open("second", &second()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotSupported);
    assert!(error.to_string().contains("no driver"), "{error}");
}
