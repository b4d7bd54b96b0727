// SPDX-License-Identifier: Apache-2.0

use std::sync::atomic::{AtomicU32, Ordering};

use plywood_plugin_sdk::{MountSteps, OverlayMount, Result as DriverResult};

use super::*;

/// A driver that does what its fields say and counts the calls that reach it.
#[derive(Default)]
pub(crate) struct Fake {
    can: Capabilities,
    plan: Option<MountPlan>,
    panics: bool,
    calls: Arc<AtomicU32>,
}

impl Fake {
    fn called(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        assert!(!self.panics, "boom");
    }
}

impl Driver for Fake {
    fn capabilities(&self) -> Capabilities {
        self.can.clone()
    }

    fn status(&self) -> DriverResult<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn create(&self, _: &CreateRequest) -> DriverResult<()> {
        self.called();
        Ok(())
    }

    fn remove(&self, _: &LayerId) -> DriverResult<Removed> {
        self.called();
        Ok(Removed::Now)
    }

    fn exists(&self, _: &LayerId) -> DriverResult<bool> {
        Ok(true)
    }

    fn let_go(&self, directory: &Path) -> DriverResult<()> {
        assert!(directory.starts_with("/proc/self/fd"));
        self.called();
        Ok(())
    }

    fn metadata(&self, id: &LayerId) -> DriverResult<BTreeMap<String, String>> {
        Err(DriverError::no_layer(id))
    }

    fn usage(&self, _: &LayerId) -> DriverResult<Usage> {
        Ok(Usage::default())
    }

    fn mount_plan(&self, _: &LayerId, request: &MountRequest) -> DriverResult<MountPlan> {
        assert!(!request.volatile || self.can.volatile_mounts);
        let plan = self.plan.clone();
        self.called();
        Ok(plan.unwrap_or_else(|| MountPlan::Directory("/somewhere".into())))
    }

    fn unpack_target(&self, _: &LayerId) -> DriverResult<UnpackTarget> {
        self.called();
        Ok(UnpackTarget::tree("relative"))
    }

    fn diff_view(&self, _: &LayerId, _: Option<&LayerId>) -> DriverResult<DiffView> {
        Ok(DiffView::Trees {
            tree: "/ok".into(),
            parent: Some("relative".into()),
        })
    }

    fn content_roots(&self, _: &LayerId) -> DriverResult<Vec<PathBuf>> {
        Ok(Vec::new())
    }
}

fn id() -> LayerId {
    LayerId::new("layer").unwrap()
}

fn create() -> CreateRequest {
    CreateRequest::new(id(), None)
}

fn guarded(driver: Fake) -> DriverHandle {
    DriverHandle::from_driver("fake", Box::new(driver))
}

#[test]
fn what_is_not_declared_never_reaches_the_driver() {
    let calls = Arc::default();
    let driver = guarded(Fake {
        calls: Arc::clone(&calls),
        ..Fake::default()
    });
    let mount = |change: &dyn Fn(&mut MountRequest)| {
        let mut request = MountRequest::default();
        change(&mut request);
        driver.mount_plan(&id(), &request).map(drop)
    };
    let mut from_template = create();
    from_template.template = Some(id());
    let refused: [(&str, Result<()>); 14] = [
        ("templates", driver.create(&from_template)),
        ("listing its layers", driver.list().map(drop)),
        (
            "read-only mounts",
            mount(&|request| request.read_only = true),
        ),
        (
            "read-only mounts",
            mount(&|request| request.options = vec!["ro".into()]),
        ),
        (
            "mount options",
            mount(&|request| request.options = vec!["nodev".into()]),
        ),
        (
            "labels on mounts",
            mount(&|request| request.label = Some("x".into())),
        ),
        (
            "listing changes itself",
            driver.native_changes(&id(), None).map(drop),
        ),
        ("staging", driver.stage(&create()).map(drop)),
        ("staging", driver.sync_staged("t")),
        ("staging", driver.adopt("t", &create())),
        ("staging", driver.discard("t")),
        ("deferred removal", driver.trash(&id()).map(drop)),
        ("deferred removal", driver.reap("t")),
        ("syncing one layer", driver.sync(&id())),
    ];
    for (what, outcome) in refused {
        let error = outcome.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::NotSupported, "{what}");
        assert!(
            error.to_string().ends_with(what),
            "{error} is not about {what}"
        );
        assert!(error.to_string().contains("fake"), "{error}");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
    assert_eq!(driver.image_stores().unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn permission_to_lose_data_is_withheld_from_drivers_that_cannot_use_it() {
    let mut request = MountRequest::default();
    request.volatile = true;
    // The fake asserts that it sees only what it declares.
    assert!(guarded(Fake::default()).mount_plan(&id(), &request).is_ok());
}

#[test]
fn a_panic_refuses_writes_and_leaves_reading_possible() {
    let driver = guarded(Fake {
        panics: true,
        can: {
            let mut can = Capabilities::default();
            can.read_only_mounts = true;
            can
        },
        ..Fake::default()
    });
    let error = driver.create(&create()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DriverPoisoned);
    assert_eq!(error.to_string(), "driver `fake`: panicked in create: boom");
    assert_eq!(driver.poisoned(), Some("panicked in create: boom"));

    let error = driver.remove(&id()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "driver `fake` is refused for remove since it panicked in create: boom"
    );
    let calls = [
        driver.mount_plan(&id(), &MountRequest::default()).map(drop),
        driver.unpack_target(&id()).map(drop),
        driver.recover().map(drop),
    ];
    for outcome in calls {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::DriverPoisoned);
    }
    assert!(driver.status().is_ok());
    assert!(driver.exists(&id()).unwrap());
    assert!(driver.released(&id()).is_ok());
    assert!(driver.close().is_ok());
    let again = driver.clone();
    assert!(again.poisoned().is_some(), "clones share the refusal");
}

#[test]
fn an_answer_that_core_cannot_use_is_an_error() {
    let plan = |plan| {
        let driver = guarded(Fake {
            plan: Some(plan),
            ..Fake::default()
        });
        let outcome = driver.mount_plan(&id(), &MountRequest::default());
        outcome.unwrap_err().to_string()
    };
    let steps = |target: &str, steps| {
        MountPlan::Mounts(MountSteps {
            target: target.into(),
            steps,
        })
    };
    let overlay = MountStep::Overlay(OverlayMount {
        base: "/home".into(),
        lowers: Vec::new(),
        upper: None,
        work: None,
        target: "/merged".into(),
        options: Vec::new(),
        label: None,
    });
    for (answer, why) in [
        (MountPlan::Directory("x".into()), "`x` is not absolute"),
        (steps("/merged", Vec::new()), "there is no step in it"),
        (
            steps("/other", vec![overlay]),
            "its last step does not end at `/other`",
        ),
    ] {
        let expected =
            format!("driver `fake` gave an answer to mount_plan that cannot be used: {why}");
        assert_eq!(plan(answer), expected);
    }
    let driver = guarded(Fake::default());
    assert!(driver.unpack_target(&id()).is_err());
    assert!(driver.diff_view(&id(), None).is_err());
}

#[test]
fn a_drivers_error_keeps_its_kind_object_and_sentence() {
    let error = guarded(Fake::default()).metadata(&id()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LayerUnknown);
    assert_eq!(error.about(), Some("layer"));
    assert_eq!(
        error.to_string(),
        "driver `fake`: layer `layer` does not exist"
    );
}

#[test]
fn only_directories_that_are_descriptors_are_given_back() {
    let fake = Fake::default();
    let calls = Arc::clone(&fake.calls);
    let driver = guarded(fake);
    for (directory, expected) in [("/layers/a", 0), ("/proc/self/fd/7/.", 1)] {
        driver.let_go(Path::new(directory)).unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), expected);
    }
}
