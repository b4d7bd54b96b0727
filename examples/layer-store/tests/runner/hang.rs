// SPDX-License-Identifier: Apache-2.0
//! A store that stops answering, or is gone.

use std::{
    fs,
    io::{self, Write},
    path::PathBuf,
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use plywood::{
    Error, ErrorKind,
    archive::Compression,
    layers::PutOptions,
    store::{DiffOptions, MountOptions, NewLayer, Store},
};
use rustix::process::Signal;

use crate::support::{BOUND, Place, Remote, Server, bounded, is_ready, noise};

/// The error is about the served directory and came in time.
fn timed_out<T: std::fmt::Debug>(place: &Place, what: &str, result: Result<T, Error>) {
    let error = result.unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    let served = place.path("served");
    assert!(text.contains(served.to_str().unwrap()), "{what}: {text}");
    assert_eq!(error.kind(), ErrorKind::TimedOut, "{what}: {text}");
    assert!(error.remedy().is_some(), "{what}: {text}");
}

fn lookup(store: &Store, layer: &Remote) -> Result<String, Error> {
    let found = store.lookup_additional_layer(Some(&layer.digest), None, None)?;
    found.put_as(None, None, &[]).map(|layer| layer.id)
}

fn diff(store: &Store, layer: &str, out: &mut (dyn Write + Send)) -> Result<u64, Error> {
    let mut options = DiffOptions::default();
    options.compression = Some(Compression::None);
    store.diff(None, layer, options, out)
}

/// Stops the server when the first bytes arrive.
struct Stopper<'a>(&'a Server, bool);

impl Write for Stopper<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if !std::mem::replace(&mut self.1, true) {
            self.0.stop();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn root_a_stopped_store_is_an_error_in_time_for_everything() {
    if !is_ready() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("disk")).unwrap();
    let layer = place.layer(&[("a", noise(48 << 20))]);
    let other = place.layer(&[("b", b"text".to_vec())]);
    let server = place.serve();
    let store = place.store("overlay", &[]);
    let id = lookup(&store, &layer).unwrap();

    // In the middle of a stream.
    let mut out = Stopper(&server, false);
    let cut = bounded("diff", || diff(&store, &id, &mut out));
    timed_out(&place, "diff", cut);

    // Stopped already.
    let mut out = io::sink();
    let late = bounded("diff", || diff(&store, &id, &mut out));
    timed_out(&place, "diff", late);
    timed_out(
        &place,
        "lookup",
        bounded("lookup", || lookup(&store, &other)),
    );
    let mounted = bounded("mount", || store.mount(&id, &MountOptions::default()));
    timed_out(&place, "mount", mounted);
    let child = NewLayer {
        parent: Some(id.clone()),
        ..NewLayer::default()
    };
    timed_out(
        &place,
        "create",
        bounded("create", || store.create_layer(child)),
    );
    timed_out(
        &place,
        "changes",
        bounded("changes", || store.changes(None, &id)),
    );

    // Everything else of the store goes on, and the layer can be deleted.
    assert_eq!(bounded("layers", || store.layers().unwrap().len()), 1);
    bounded("delete", || store.delete_layer(&id).unwrap());
    assert!(store.layers().unwrap().is_empty());
    let own = bounded("create", || {
        store.create_layer(NewLayer::default()).unwrap()
    });
    store.delete_layer(&own.id).unwrap();

    // When it answers again, all is well.
    server.signal(Signal::CONT);
    let id = lookup(&store, &other).unwrap();
    store.delete_layer(&id).unwrap();
}

#[test]
fn root_a_store_that_stops_while_its_stream_is_unpacked_leaves_nothing() {
    if !is_ready() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("disk")).unwrap();
    let layer = place.layer(&[("a", noise(48 << 20))]);
    let server = place.serve();
    let store = place.store("vfs", &[]);
    let found = store.lookup_additional_layer(Some(&layer.digest), None, None);
    let found = found.unwrap();
    let stopped = std::sync::Once::new();
    let progress = |_: u64| stopped.call_once(|| server.stop());
    let options = PutOptions {
        progress: Some(&progress),
        ..PutOptions::default()
    };
    let put = bounded("put", || found.put(NewLayer::default(), options));
    timed_out(&place, "put", put);
    assert!(store.layers().unwrap().is_empty());
    let left = fs::read_dir(place.path("disk/graph-vfs/vfs/dir")).unwrap();
    assert_eq!(left.count(), 0);
    server.signal(Signal::CONT);
    found.put_as(None, None, &[]).unwrap();
}

#[test]
fn root_a_store_that_is_gone_is_an_error_that_says_so() {
    if !is_ready() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("disk")).unwrap();
    let layer = place.layer(&[("a", b"text".to_vec())]);
    let server = place.serve();
    let store = place.store("overlay", &[]);
    let id = lookup(&store, &layer).unwrap();
    drop(server);
    // What it leaves is a mount of a connection that has ended.
    let served = place.path("served");
    let mut out = io::sink();
    for (what, error) in [
        ("diff", diff(&store, &id, &mut out).unwrap_err()),
        (
            "mount",
            store.mount(&id, &MountOptions::default()).unwrap_err(),
        ),
    ] {
        assert!(
            format!("{error:?}").contains(served.to_str().unwrap()),
            "{what}: {error:?}"
        );
        assert!(error.remedy().is_some(), "{what}: {error:?}");
    }
    let error = lookup(&store, &layer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LayerUnknown, "{error:?}");
    store.delete_layer(&id).unwrap();
}

/// A thread that waits for the store must not keep the process.
#[test]
fn root_a_process_ends_though_the_store_hangs() {
    if !is_ready() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.path("disk")).unwrap();
    let layer = place.layer(&[("a", b"text".to_vec())]);
    let server = place.serve();
    // The first one finds it: what the second one says is due to the hang.
    for (stopped, expected) in [(false, 0), (true, 3)] {
        if stopped {
            server.stop();
        }
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "hang::part_looks_a_layer_up",
                "--exact",
                "--ignored",
                "--nocapture",
            ])
            .env(
                "PLYWOOD_ALS_TEST",
                format!("{} {}", layer.digest, place.path("served").display()),
            )
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            if start.elapsed() > BOUND {
                child.kill().unwrap();
                panic!("the process does not end");
            }
            sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(expected), "stopped: {stopped}");
    }
}

/// Looks at the layer as a program does that has not opened the store before it hung.
#[test]
#[ignore = "a part of another test"]
fn part_looks_a_layer_up() {
    #[expect(
        clippy::disallowed_methods,
        reason = "the parent test passes it in the environment"
    )]
    let Ok(given) = std::env::var("PLYWOOD_ALS_TEST") else {
        return;
    };
    let (digest, served) = given.split_once(' ').unwrap();
    let directory = PathBuf::from(served).join(digest);
    let layer =
        plywood::sdk::toolkit::layer_store::LayerDirectory::new(directory, crate::support::TIMEOUT);
    let code = match layer.is_complete() {
        Ok(true) => 0,
        Ok(false) => 2,
        Err(error) if error.code == plywood::sdk::DriverErrorCode::TIMEOUT => 3,
        Err(_) => 4,
    };
    std::process::exit(code);
}
