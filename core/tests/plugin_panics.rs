// SPDX-License-Identifier: Apache-2.0
//! A driver that panics gives an error and is refused for writes; the same whether it is loaded or
//! linked in.

use plywood::{
    Error, ErrorKind, Result,
    plugin::{DriverHandle, Origin, PluginOptions, Registry},
    sdk::{CreateRequest, DriverErrorCode, LayerId, embed_driver},
};

use crate::support::plugins::{Place, faulty, registry_of};

embed_driver!(plugin_fixture_faulty::Faulty);

/// Opens the driver from its file and the linked-in one.
fn both(place: &Place, options: &[&str]) -> [Result<DriverHandle>; 2] {
    let loaded = registry_of("faulty", &faulty(), None);
    let linked = Registry::discover(PluginOptions::only_embedded());
    [loaded, linked].map(|registry| registry.open("faulty", place.request(options)))
}

fn layer() -> CreateRequest {
    CreateRequest::new(LayerId::new("layer").unwrap(), None)
}

fn panicked(error: &Error, text: &str) {
    assert_eq!(error.kind(), ErrorKind::DriverPoisoned, "{error}");
    assert!(
        error.to_string().ends_with(text),
        "{error} does not end in {text}"
    );
}

#[test]
fn both_kinds_are_the_same_driver() {
    let place = Place::new();
    let [loaded, linked] = both(&place, &[]).map(Result::unwrap);
    assert_eq!(loaded.origin(), &Origin::File(faulty()));
    assert_eq!(linked.origin(), &Origin::Embedded);
    assert_eq!(loaded.capabilities(), linked.capabilities());
    assert_eq!(loaded.status().unwrap(), linked.status().unwrap());
    let id = layer().id;
    let errors = [&loaded, &linked].map(|driver| driver.metadata(&id).unwrap_err());
    for error in errors {
        assert_eq!(error.kind(), ErrorKind::LayerUnknown);
        assert_eq!(
            error.to_string(),
            "driver `faulty`: layer `layer` does not exist"
        );
        assert_eq!(error.about(), Some("layer"));
        assert_eq!(error.remedy(), Some("make it first"));
    }
    let code = DriverErrorCode::INVALID_ARGUMENT;
    assert_eq!(code.word(), "invalid-argument");
    for refused in both(&place, &["nonsense"]) {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(error.about(), Some("nonsense"));
        assert_eq!(error.remedy(), Some("use faulty.panic=METHOD"));
    }
}

#[test]
fn a_panic_while_opening_is_an_error() {
    let place = Place::new();
    for outcome in both(&place, &["faulty.panic=open"]) {
        panicked(&outcome.unwrap_err(), "panicked in open: boom in open");
    }
    let log = place.log.text();
    assert!(log.contains("Error faulty: panicked at "), "{log}");
    assert!(log.contains("boom in open"), "{log}");
}

#[test]
fn a_panic_in_a_method_refuses_writes_from_then_on() {
    let place = Place::new();
    for driver in both(&place, &["faulty.panic=create"]).map(Result::unwrap) {
        panicked(
            &driver.create(&layer()).unwrap_err(),
            "panicked in create: boom in create",
        );
        let error = driver.remove(&layer().id).unwrap_err();
        panicked(
            &error,
            "refused for remove since it panicked in create: boom in create",
        );
        assert!(!driver.exists(&layer().id).unwrap());
        assert!(driver.status().is_ok());
    }
    // Another instance is not affected.
    for driver in both(&place, &[]).map(Result::unwrap) {
        driver.create(&layer()).unwrap();
        driver.remove(&layer().id).unwrap();
    }
}

#[test]
fn a_panic_in_capabilities_is_found_at_once() {
    let place = Place::new();
    let [loaded, linked] = both(&place, &["faulty.panic=capabilities"]);
    panicked(
        &loaded.unwrap_err(),
        "panicked in capabilities: boom in capabilities",
    );
    let linked = linked.unwrap();
    assert_eq!(
        linked.poisoned(),
        Some("panicked in capabilities: boom in capabilities")
    );
    assert!(linked.create(&layer()).is_err());
}

#[test]
fn a_panic_whose_payload_panics_is_an_error() {
    let place = Place::new();
    for outcome in both(&place, &["faulty.panic=bomb"]) {
        panicked(&outcome.unwrap_err(), "panicked in open: (no text)");
    }
}

#[test]
fn a_panic_while_a_driver_is_dropped_ends_there() {
    let place = Place::new();
    for driver in both(&place, &["faulty.panic=drop"]).map(Result::unwrap) {
        drop(driver);
    }
    assert!(
        place.log.text().contains("boom in drop"),
        "{}",
        place.log.text()
    );
}

#[test]
fn a_panicking_thread_does_not_disturb_the_others() {
    let place = Place::new();
    for driver in both(&place, &["faulty.panic=remove"]).map(Result::unwrap) {
        std::thread::scope(|scope| {
            for number in 0..8 {
                let driver = &driver;
                scope.spawn(move || {
                    let id = LayerId::new(format!("layer{number}")).unwrap();
                    for _ in 0..50 {
                        let error = driver.remove(&id).unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::DriverPoisoned);
                        assert!(!driver.exists(&id).unwrap());
                    }
                });
            }
        });
    }
}
