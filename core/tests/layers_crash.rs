// SPDX-License-Identifier: Apache-2.0
//! A process that is killed in the middle of an operation leaves the old state or the new one.
//!
//! The library names the points between its durable steps in trace events. A first run counts
//! them; then, for each of them, a child process is killed there and the store is looked at.

use std::{
    cell::RefCell, fmt, fs, io::Cursor, os::unix::process::ExitStatusExt, path::Path,
    process::Command, sync::OnceLock,
};

use plywood::{
    Result,
    layers::{LayerStore, NewLayer, PutOptions},
    locking::order::Held,
};
use tracing::{
    Event, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

use crate::layers_support::{
    Kind, Store, child, collect_garbage, id, names, new, open, read, tar, write,
};

const STEP: &str = "PLYWOOD_TEST_STEP";
const ROOT: &str = "PLYWOOD_TEST_ROOT";
const CASE: &str = "PLYWOOD_TEST_CASE";

/// What is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Create,
    Put,
    Delete,
}

const CASES: [(Kind, Operation); 9] = [
    (Kind::Vfs, Operation::Create),
    (Kind::Vfs, Operation::Put),
    (Kind::Vfs, Operation::Delete),
    (Kind::Overlay, Operation::Create),
    (Kind::Overlay, Operation::Put),
    (Kind::Overlay, Operation::Delete),
    (Kind::Plain, Operation::Create),
    (Kind::Plain, Operation::Put),
    (Kind::Plain, Operation::Delete),
];

/// The steps that this thread has passed, while that is of interest.
#[derive(Default)]
struct Passed {
    fatal: Option<usize>,
    steps: Vec<String>,
}

thread_local! {
    static PASSED: RefCell<Option<Passed>> = const { RefCell::new(None) };
}

/// Sees the steps of all threads; one for the whole process, since the interest in an event is
/// decided once.
struct Steps;

struct Name(String);

impl Visit for Name {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "step" {
            value.clone_into(&mut self.0);
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

impl Subscriber for Steps {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "plywood::step"
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut name = Name(String::new());
        event.record(&mut name);
        PASSED.with_borrow_mut(|passed| {
            let Some(passed) = passed else { return };
            passed.steps.push(name.0);
            if passed.fatal == Some(passed.steps.len()) {
                let this = rustix::process::getpid();
                let sent = rustix::process::kill_process(this, rustix::process::Signal::KILL);
                assert!(sent.is_ok(), "a process may kill itself");
            }
        });
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// Runs `work`; the process dies at the step with that number, counted from 1.
fn watched(fatal: Option<usize>, work: impl FnOnce()) -> Vec<String> {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| tracing::subscriber::set_global_default(Steps).unwrap());
    PASSED.set(Some(Passed {
        fatal,
        ..Passed::default()
    }));
    work();
    PASSED.take().unwrap().steps
}

fn content() -> Vec<u8> {
    tar(&[("etc/hosts", "127.0.0.1"), ("empty", "")])
}

fn put(store: &LayerStore, layer: &NewLayer) -> Result<()> {
    let mut held = Held::nothing();
    store
        .put(
            &mut held,
            layer,
            Cursor::new(content()),
            PutOptions::default(),
        )
        .map(drop)
}

/// Layers 1 and, on it, 2 and 3, each with everything that a layer can have.
fn prepare(store: &LayerStore) {
    put(store, &new(&id('1'))).unwrap();
    for digit in ['2', '3'] {
        put(store, &full(digit)).unwrap();
    }
}

fn full(digit: char) -> NewLayer {
    NewLayer {
        names: vec![format!("name-{digit}")],
        big_data: vec![("k".into(), b"v".to_vec())],
        ..child(&id(digit), &id('1'))
    }
}

fn operate(store: &LayerStore, operation: Operation) {
    match operation {
        Operation::Create => drop(write(store, |w| w.create(&full('4'))).unwrap()),
        Operation::Put => put(store, &full('4')).unwrap(),
        Operation::Delete => {
            let reaper = write(store, |w| w.delete(&[id('2'), id('3')])).unwrap();
            reaper.run().unwrap();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "how the parent tells the child what to do"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The process that dies; without being told so it does nothing.
#[test]
fn crash_child() {
    let (Some(step), Some(root), Some(case)) = (variable(STEP), variable(ROOT), variable(CASE))
    else {
        return;
    };
    let (kind, operation) = CASES[case.parse::<usize>().unwrap()];
    let store = open(Path::new(&root), kind);
    watched(Some(step.parse().unwrap()), || operate(&store, operation));
    panic!("there is no step {step}");
}

fn run_child(root: &Path, case: usize, step: usize) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "layers_crash::crash_child", "--nocapture"])
        .env(STEP, step.to_string())
        .env(ROOT, root)
        .env(CASE, case.to_string())
        .output()
        .unwrap();
    assert_eq!(
        output.status.signal(),
        Some(9),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
}

/// Whether the layer is there with everything; it must not be there in part.
fn is_whole(store: &Store, layers: &LayerStore, digit: char, filled: bool, context: &str) -> bool {
    let id = id(digit);
    let (data, tar_split) = (
        store.dir().join(&id),
        store.dir().join(format!("{id}.tar-split.gz")),
    );
    let recorded = read(layers, |r| r.get(&id).ok());
    let Some(layer) = recorded else {
        assert!(
            !store.driver_dir(&id).exists(),
            "{context}: content without record"
        );
        assert!(
            !data.exists() && !tar_split.exists(),
            "{context}: files without record"
        );
        return false;
    };
    assert!(!layer.is_incomplete(), "{context}");
    assert_eq!(layer.names, [format!("name-{digit}")], "{context}");
    assert!(
        store.driver_dir(&id).is_dir(),
        "{context}: record without content"
    );
    assert_eq!(fs::read(data.join("k")).unwrap(), b"v", "{context}");
    assert_eq!(layer.diff_digest.is_some(), filled, "{context}");
    assert_eq!(tar_split.exists(), filled, "{context}");
    if filled {
        let files = layers
            .driver()
            .unwrap()
            .content_roots(&id.parse().unwrap())
            .unwrap();
        let hosts = files
            .iter()
            .map(|root| root.join("etc/hosts"))
            .find(|path| path.exists());
        let hosts = hosts.unwrap_or_else(|| panic!("{context}: no content"));
        assert_eq!(fs::read(hosts).unwrap(), b"127.0.0.1", "{context}");
    }
    true
}

/// Whether the state is the new one; it must be the old one otherwise.
fn check(store: &Store, operation: Operation, context: &str) -> bool {
    assert!(
        !store.json().contains("incomplete"),
        "{context}: Go would delete it"
    );
    let layers = store.other();
    // The first writer finishes what was interrupted.
    write(&layers, |w| w.set_metadata(&id('1'), "seen").unwrap());
    let is_new = match operation {
        Operation::Create => is_whole(store, &layers, '4', false, context),
        Operation::Put => is_whole(store, &layers, '4', true, context),
        Operation::Delete => {
            let both = ['2', '3'].map(|digit| is_whole(store, &layers, digit, true, context));
            assert_eq!(both[0], both[1], "{context}: one of two");
            !both[0]
        }
    };
    assert!(
        !store.dir().join("tmp").exists(),
        "{context}: {:?}",
        names(&store.dir().join("tmp"))
    );
    let home = store.root.path().join("graph").join(store.kind.name());
    assert!(
        !home.join("tempdirs").exists(),
        "{context}: {:?}",
        names(&home.join("tempdirs"))
    );
    let found = layers.take_reclaimed();
    // What remains is at most a version of the records that was never finished.
    let reclaimed = collect_garbage(&layers);
    for what in &reclaimed {
        assert!(
            what.contains("/.tmp-layers.json"),
            "{context}: {what}, after {found:?}"
        );
    }
    let left = names(&store.dir());
    assert!(
        !left.iter().any(|name| name.starts_with(".tmp")),
        "{context}: {left:?}"
    );
    // And the operation can be done.
    if !is_new {
        operate(&layers, operation);
    }
    is_new
}

fn interrupt(case: usize) {
    let (kind, operation) = CASES[case];
    let whole = Store::new(kind);
    prepare(&whole.layers);
    let steps = watched(None, || operate(&whole.layers, operation));
    assert!(steps.len() >= 4, "{steps:?}");
    let mut outcomes = Vec::new();
    for (number, name) in steps.iter().enumerate() {
        let store = Store::new(kind);
        prepare(&store.layers);
        run_child(store.root.path(), case, number + 1);
        let context = format!("{kind:?} {operation:?} killed at {name}");
        outcomes.push(check(&store, operation, &context));
    }
    assert!(outcomes.is_sorted(), "{steps:?} {outcomes:?}");
    let ends = (outcomes.first(), outcomes.last());
    assert_eq!(ends, (Some(&false), Some(&true)), "{steps:?}");
}

#[test]
fn a_killed_creation_is_undone_or_done_vfs() {
    interrupt(0);
}

#[test]
fn a_killed_put_is_undone_or_done_vfs() {
    interrupt(1);
}

#[test]
fn a_killed_removal_is_undone_or_done_vfs() {
    interrupt(2);
}

#[test]
fn a_killed_creation_is_undone_or_done_overlay() {
    interrupt(3);
}

#[test]
fn a_killed_put_is_undone_or_done_overlay() {
    interrupt(4);
}

#[test]
fn a_killed_removal_is_undone_or_done_overlay() {
    interrupt(5);
}

#[test]
fn a_killed_creation_is_undone_or_done_without_staging() {
    interrupt(6);
}

#[test]
fn a_killed_put_is_undone_or_done_without_staging() {
    interrupt(7);
}

#[test]
fn a_killed_removal_is_undone_or_done_without_staging() {
    interrupt(8);
}
