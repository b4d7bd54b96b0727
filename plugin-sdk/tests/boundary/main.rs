// SPDX-License-Identifier: Apache-2.0
//! What crosses the plugin boundary arrives unchanged, and what is not understood is refused.

#![expect(unsafe_code, reason = "reads a plugin header as a loader does")]
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

mod echo;

use std::{
    path::PathBuf,
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use abi_stable::{
    erased_types::TD_Opaque,
    library::AbiHeader,
    std_types::{ROption, RResult, RStr, RVec},
};
use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, Host, IdMap,
    IdMaps, LayerId, LayerKind, LogLevel, MountPlan, MountRequest, MountStep, OpenRequest, Removed,
    Staged, UnpackTarget, Usage,
    abi::{
        Header, Loaded, PluginHeader, Refusal, VERSION, header_of,
        types::{AbiChange, AbiCreate, AbiMount, AbiPlan, AbiStep, AbiTarget, AbiView, Extra},
        vtable::{DriverModule_Ref, HostV, HostV_TO},
    },
};

use crate::echo::{Echo, changes, failures, id, odd_path, pairs, plans, rest_of, targets, views};

static HEADER: PluginHeader = header_of::<Echo>();

fn load() -> Loaded {
    // SAFETY: a static is never unloaded, and it is a whole header.
    let header = unsafe { Header::read(NonNull::from(&HEADER).cast()) };
    header.unwrap().admit().unwrap()
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl Host for Log {
    fn log(&self, level: LogLevel, target: &str, message: &str) {
        // The panic hook of a plugin writes here, also for the assertions of this file.
        println!("{level:?} {target}: {message}");
        let line = format!("{level:?} {target}: {message}");
        self.0.lock().unwrap().push(line);
        assert!(!message.contains("broken"), "the host's log panics");
    }
}

fn request(log: &Arc<Log>) -> OpenRequest {
    let host: Arc<dyn Host> = Arc::clone(log) as _;
    let mut request = OpenRequest::new(odd_path(), "/run", host);
    request.image_store = Some("/images".into());
    request.options = vec!["a=b".into(), String::new()];
    request.known_drivers = vec!["overlay".into()];
    request.id_maps = id_maps();
    request.rootless = true;
    request
}

fn open() -> Box<dyn Driver> {
    load().open(&request(&Arc::default())).unwrap()
}

fn id_maps() -> IdMaps {
    let map = |container_id| IdMap {
        container_id,
        host_id: 100_000,
        size: u32::MAX,
    };
    IdMaps {
        uids: vec![map(0), map(1)],
        gids: vec![map(2)],
    }
}

fn create_request(layer: &str) -> CreateRequest {
    let mut request = CreateRequest::new(id(layer), Some(id("parent")));
    request.kind = LayerKind::ReadWrite;
    request.mount_label = Some("label".into());
    request.storage_options = pairs();
    request.id_maps = id_maps();
    request.template = Some(id("template"));
    request
}

#[test]
fn a_plugin_says_who_it_is() {
    let loaded = load();
    assert_eq!(loaded.name(), "echo");
    assert_eq!(loaded.vendor(), "tests");
    assert_eq!(loaded.version(), "7.8.9");
    assert_eq!(loaded.abi(), VERSION);
}

#[test]
fn requests_arrive_unchanged() {
    let log = Arc::default();
    let request = request(&log);
    let driver = load().open(&request).unwrap();
    let mut mount = MountRequest::default();
    mount.read_only = true;
    mount.volatile = true;
    mount.label = Some("label".into());
    mount.options = vec!["x".into(), "y=z".into()];
    mount.id_maps = id_maps();
    let create = create_request("at-0");
    let plain = CreateRequest::new(id("plain"), None);
    driver.create(&create).unwrap();
    driver.create(&plain).unwrap();
    driver.stage(&create).unwrap();
    driver.adopt("t", &create).unwrap();
    driver.mount_plan(&id("at-0"), &mount).unwrap();
    driver.mount(&id("x"), &MountRequest::default()).unwrap();
    driver.diff_view(&id("at-0"), Some(&id("p"))).unwrap();
    driver.native_changes(&id("x"), None).unwrap();
    driver.metadata(&id("m")).unwrap();
    driver.released(&id("r")).unwrap();
    driver.sync(&id("s")).unwrap();
    driver.sync_staged("t").unwrap();
    driver.discard("t").unwrap();
    driver.reap("t").unwrap();
    driver.close().unwrap();
    let expected = [
        format!("{request:?} {:?}", rest_of(&request)),
        format!("{create:?}"),
        format!("{plain:?}"),
        format!("{create:?}"),
        format!("{:?}", ("adopt", "t", &create)),
        format!("{mount:?}"),
        format!("{:?}", (id("x"), MountRequest::default())),
        format!("{:?}", Some(id("p"))),
        format!("{:?}", None::<LayerId>),
        format!("{:?}", id("m")),
        format!("{:?}", id("r")),
        format!("{:?}", ("sync", id("s"))),
        format!("{:?}", ("sync_staged", "t")),
        format!("{:?}", ("discard", "t")),
        format!("{:?}", ("reap", "t")),
        format!("{:?}", "close"),
    ];
    let seen = driver.status().unwrap();
    let seen: Vec<_> = seen.into_iter().map(|(seen, _)| seen).collect();
    assert_eq!(seen, expected);
}

#[test]
fn answers_arrive_unchanged() {
    let driver = open();
    let numbered = |number: usize| id(&format!("at-{number}"));
    let request = MountRequest::default();
    for (number, plan) in plans().into_iter().enumerate() {
        let answer = driver.mount_plan(&numbered(number), &request);
        assert_eq!(answer, Ok(plan));
    }
    for (number, target) in targets().into_iter().enumerate() {
        let answer = driver.unpack_target(&numbered(number));
        assert_eq!(answer.as_ref(), Ok(&target));
        let staged = driver.stage(&create_request(numbered(number).as_str()));
        let token = "token".to_owned();
        assert_eq!(staged, Ok(Staged { token, target }));
    }
    for (number, view) in views().into_iter().enumerate() {
        assert_eq!(driver.diff_view(&numbered(number), None), Ok(view));
    }
    for (number, failure) in failures().into_iter().enumerate() {
        assert_eq!(driver.unmount(&numbered(number)), Err(failure));
    }
    let capabilities = Capabilities::from_bits(0b1_0101_0110_1001, Some(500));
    assert_eq!(driver.capabilities(), capabilities);
    assert_eq!(driver.remove(&numbered(0)), Ok(Removed::Now));
    assert_eq!(driver.remove(&numbered(1)), Ok(Removed::AlreadyGone));
    assert_eq!(driver.exists(&numbered(0)), Ok(false));
    assert_eq!(driver.exists(&numbered(1)), Ok(true));
    assert_eq!(driver.list(), Ok(vec![id("b"), id("a")]));
    assert_eq!(driver.metadata(&id("x")), Ok(pairs()));
    let usage = Usage {
        bytes: u64::MAX,
        inodes: 7,
    };
    assert_eq!(driver.usage(&id("x")), Ok(usage));
    assert_eq!(driver.mount(&id("x"), &request), Ok(odd_path()));
    let roots = vec![odd_path(), PathBuf::from("/b")];
    assert_eq!(driver.content_roots(&id("x")), Ok(roots));
    assert_eq!(driver.native_changes(&id("x"), None), Ok(changes()));
    assert_eq!(driver.trash(&numbered(0)), Ok(None));
    assert_eq!(driver.trash(&numbered(1)), Ok(Some("trash".to_owned())));
    assert_eq!(driver.recover(), Ok(vec!["one".into(), "two".into()]));
    assert_eq!(driver.image_stores(), [odd_path()]);
}

#[test]
fn messages_reach_the_log_and_a_panic_of_the_log_stays_there() {
    let log = Arc::<Log>::default();
    let driver = load().open(&request(&log)).unwrap();
    assert_eq!(driver.exists(&id("at-1")), Ok(true));
    let lines = log.0.lock().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(lines[..2], ["Warn echo: careful", "Error echo: broken"]);
}

struct Deaf;

impl HostV for Deaf {
    fn abi_version(&self) -> u64 {
        0
    }
    fn log(&self, _: u32, _: RStr<'_>, _: RStr<'_>) {}
}

#[test]
fn an_id_that_could_leave_the_home_does_not_reach_the_driver() {
    let module = HEADER.init_root_module::<DriverModule_Ref>().unwrap();
    let host = HostV_TO::from_value(Deaf, TD_Opaque);
    let RResult::ROk(driver) = (module.open())((&request(&Arc::default())).into(), host) else {
        panic!("it opens")
    };
    let bad = RStr::from_str("../at-1");
    let good = RStr::from_str("at-1");
    let mut create = AbiCreate::from(&create_request("x"));
    let codes = [
        driver.exists(bad).map(drop),
        driver.remove(bad).map(drop),
        driver.metadata(bad).map(drop),
        driver.usage(bad).map(drop),
        driver
            .mount_plan(bad, (&MountRequest::default()).into())
            .map(drop),
        driver
            .mount(bad, (&MountRequest::default()).into())
            .map(drop),
        driver.unmount(bad),
        driver.released(bad),
        driver.unpack_target(bad).map(drop),
        driver.diff_view(bad, ROption::RNone).map(drop),
        driver.diff_view(good, ROption::RSome(bad)).map(drop),
        driver.content_roots(bad).map(drop),
        driver.native_changes(bad, ROption::RNone).map(drop),
        driver.native_changes(good, ROption::RSome(bad)).map(drop),
        driver.trash(bad).map(drop),
        driver.sync(bad),
        driver.create({
            create.parent = ROption::RSome(bad.into());
            create.clone()
        }),
        driver.stage(create.clone()).map(drop),
        driver.adopt(good, create),
    ];
    for (number, answer) in codes.into_iter().enumerate() {
        let error = DriverError::from(answer.into_result().expect_err("it is refused"));
        assert_eq!(
            error.code,
            DriverErrorCode::INVALID_ARGUMENT,
            "call {number}"
        );
        assert_eq!(error.object.as_deref(), Some("../at-1"), "call {number}");
    }
    assert!(matches!(driver.exists(good), RResult::ROk(true)));
}

#[test]
fn what_a_newer_side_says_is_refused_and_not_guessed() {
    let plan = |kind, steps| AbiPlan {
        kind,
        target: odd_path().as_path().into(),
        steps,
        extra: Extra::new(),
    };
    let step = |kind, flags| {
        let mut step = AbiStep::default();
        (step.kind, step.flags) = (kind, flags);
        MountStep::try_from(step).err()
    };
    let view = |kind, whiteouts, flags| {
        let mut view = AbiView::from(DiffView::Mounted);
        (view.kind, view.whiteouts, view.flags) = (kind, whiteouts, flags);
        DiffView::try_from(view).err()
    };
    let mut target = AbiTarget::from(UnpackTarget::tree("/"));
    target.flags |= 1 << 40;
    let mut create = AbiCreate::from(&create_request("x"));
    create.kind = 9;
    let mut mount = AbiMount::from(&MountRequest::default());
    mount.flags = 4;
    let refused = [
        MountPlan::try_from(plan(3, RVec::new())).err(),
        step(3, 0),
        step(0, 1),
        step(1, 2),
        view(3, 0, 0),
        view(0, 4, 0),
        view(2, 0, 1),
        UnpackTarget::try_from(target).err(),
        CreateRequest::try_from(create).err(),
        MountRequest::try_from(mount).err(),
    ];
    for (number, error) in refused.into_iter().enumerate() {
        let error = error.unwrap_or_else(|| panic!("case {number} was accepted"));
        assert_eq!(error.code, DriverErrorCode::NOT_SUPPORTED, "{error}");
        assert!(error.remedy.is_some(), "{error}");
    }
}

#[test]
fn what_is_no_header_is_refused() {
    let read = |header: &'static AbiHeader| {
        // SAFETY: a static is never unloaded, and it has the size of a header.
        let header = unsafe { Header::read(NonNull::from(header).cast()) };
        header.err().map(|refusal| refusal.to_string())
    };
    let leaked = |change: &dyn Fn(&mut AbiHeader)| {
        let mut header = AbiHeader::VALUE;
        change(&mut header);
        &*Box::leak(Box::new(header))
    };
    assert_eq!(
        read(leaked(&|header| header.magic_string[0] ^= 1)),
        Some(Refusal::NotAPlugin.to_string())
    );
    assert_eq!(
        read(leaked(&|header| header.abi_minor = 10)),
        Some(Refusal::Toolkit(0, 10).to_string())
    );
    assert_eq!(read(leaked(&|_| ())), None);
}

#[test]
fn the_numbers_of_version_1_0_are_unchanged() {
    let bits = [
        "list",
        "read_only_mounts",
        "mount_options",
        "mount_labels",
        "volatile_mounts",
        "idmapped_mounts",
        "native_diff",
        "native_changes",
        "staging",
        "deferred_removal",
        "sync",
        "size_quota",
        "inode_quota",
        "template",
        "image_stores",
        "external_directory",
        "cheap_usage",
    ];
    for (bit, name) in bits.into_iter().enumerate() {
        let capabilities = Capabilities::from_bits(1 << bit, None);
        assert_eq!(capabilities.names(), [name], "bit {bit}");
        assert_eq!(capabilities.to_bits(), 1 << bit, "{name}");
    }
    let codes = [
        "other",
        "not-found",
        "already-exists",
        "invalid-argument",
        "not-supported",
        "prerequisites",
        "incompatible-filesystem",
        "busy",
        "too-deep",
        "no-space",
        "read-only",
        "permission",
        "corrupt",
        "io",
        "panicked",
        "timeout",
    ];
    for (code, word) in (0..).zip(codes) {
        assert_eq!(DriverErrorCode(code).word(), word, "code {code}");
    }
    let forms = targets().into_iter().map(AbiTarget::from);
    let forms: Vec<_> = forms.map(|form| (form.whiteouts, form.flags)).collect();
    assert_eq!(forms, [(0, 1), (1, 2), (2, 4), (3, 8)]);
    let kinds: Vec<_> = views()
        .into_iter()
        .map(|view| AbiView::from(view).kind)
        .collect();
    assert_eq!(kinds, [0, 1, 1, 2]);
    let kinds = changes().into_iter().map(AbiChange::from);
    assert_eq!(
        kinds.map(|change| change.kind).collect::<Vec<_>>(),
        [0, 1, 2]
    );
    let plans: Vec<_> = plans().into_iter().map(AbiPlan::from).collect();
    let kinds: Vec<_> = plans.iter().map(|plan| plan.kind).collect();
    assert_eq!(kinds, [0, 2, 1, 1, 1]);
    let steps = plans.iter().flat_map(|plan| &plan.steps);
    let steps: Vec<_> = steps.map(|step| (step.kind, step.flags)).collect();
    assert_eq!(steps, [(0, 0), (0, 0), (2, 0), (1, 1)]);
    let mut mount = MountRequest::default();
    mount.read_only = true;
    assert_eq!(AbiMount::from(&mount).flags, 1);
    mount.volatile = true;
    assert_eq!(AbiMount::from(&mount).flags, 3);
    assert_eq!(AbiCreate::from(&create_request("x")).kind, 1);
}
