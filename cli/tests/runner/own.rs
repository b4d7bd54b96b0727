// SPDX-License-Identifier: Apache-2.0
//! Our own commands, and how we behave in pipes and under signals.

use std::{
    io::{Read as _, Write as _},
    process::Stdio,
    time::{Duration, Instant},
};

use super::support::{As, Place, can_run, ours, program, run, tar_of};

#[test]
fn failures_have_hints() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    let answer = place.plywood(&["delete-layer", "nothing"]);
    assert_eq!(answer.code, 1);
    assert_eq!(answer.out, "");
    assert!(answer.err.starts_with("error: nothing: "), "{answer:?}");
    assert!(answer.err.contains("\n\nhint: "), "{answer:?}");
}

#[test]
fn info_says_which_store_it_is() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    let info = place.plywood(&["info", "--json"]).ok().json();
    assert_eq!(info["driver"], "vfs");
    assert_eq!(info["driver_reason"], "named by --storage-driver");
    assert_eq!(info["graph_root"], place.graph().to_str().unwrap());
    assert_eq!(info["layers"], 0);
    let text = place.plywood(&["info"]).ok().out;
    assert!(
        text.contains("driver         vfs (named by --storage-driver)"),
        "{text}"
    );
}

#[test]
fn drivers_are_listed_and_checked_in_a_child() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    let list = place.plywood(&["driver", "list", "--json"]).ok().json();
    let vfs = list
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["name"] == "vfs")
        .unwrap_or_else(|| panic!("{list}"));
    assert_eq!(vfs["refusal"], serde_json::Value::Null, "{list}");
    let inspect = place.plywood(&["driver", "inspect", "vfs"]).ok().out;
    assert!(inspect.contains("capabilities"), "{inspect}");
    let probe = place.plywood(&["driver", "probe"]).ok().out;
    assert!(
        probe
            .lines()
            .any(|line| line.starts_with("vfs") && line.contains("yes")),
        "{probe}"
    );
    let plugin = program().with_file_name("libplywood_driver_vfs.so");
    let check = place
        .plywood(&["driver", "check", plugin.to_str().unwrap()])
        .ok()
        .out;
    assert!(check.contains("name           vfs"), "{check}");
    // Cut short, the file may not take the program down.
    let half = place.path("libplywood_driver_half.so");
    let bytes = super::support::read(&plugin);
    std::fs::write(&half, &bytes[..16 << 10]).unwrap();
    let refused = place.plywood(&["driver", "check", half.to_str().unwrap()]);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(refused.err.starts_with("error: "), "{refused:?}");
    let unknown = place.plywood(&["driver", "inspect", "nothing"]);
    assert_eq!(unknown.code, 1);
}

#[test]
fn configuration_is_explained_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("storage.conf");
    std::fs::write(
        &conf,
        "[storage]\ndriver = \"vfs\"\nrunroot = \"/r\"\ngraphroot = \"/g\"\n",
    )
    .unwrap();
    let mut command = ours(As::Own);
    command.env("CONTAINERS_STORAGE_CONF", &conf);
    let lines = run(command.args(["config", "explain", "-j"]), b"")
        .ok()
        .json();
    let driver = lines
        .as_array()
        .unwrap()
        .iter()
        .find(|line| line["key"].as_str().unwrap().ends_with("driver"))
        .unwrap_or_else(|| panic!("{lines}"));
    assert_eq!(driver["value"], "vfs");
    assert_eq!(driver["origins"][0], format!("{}:2", conf.display()));
}

/// A reader that goes away early is no error worth a text.
#[test]
fn closed_output_ends_the_program_quietly() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    let big = vec![7; 4 << 20];
    place
        .drop_in(
            &["import-layer", "-n", "l"],
            &tar_of(&[("big", Some(&big))]),
        )
        .ok();
    let mut command = ours(As::Own);
    command
        .arg("-g")
        .arg(place.graph())
        .arg("-R")
        .arg(place.path("run"));
    command.args(["-s", "vfs", "diff", "l"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut some = [0; 100];
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut some).unwrap();
    drop(stdout);
    let done = child.wait_with_output().unwrap();
    assert_eq!(done.status.code(), Some(141), "{done:?}");
    assert!(done.stderr.is_empty(), "{done:?}");
}

#[test]
fn a_full_output_is_an_error() {
    let mut command = ours(As::Own);
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    command.arg("--help").stdout(full).stderr(Stdio::piped());
    let done = command.output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&done.stderr).contains("standard output"),
        "{done:?}"
    );
}

/// An import that is interrupted leaves no layer and no staging.
#[test]
fn an_interrupted_import_leaves_nothing() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    place.drop_in(&["layers"], b"").ok();
    let stream = tar_of(&[("big", Some(&vec![1; 8 << 20]))]);
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut command = ours(As::Own);
        command
            .arg("-g")
            .arg(place.graph())
            .arg("-R")
            .arg(place.path("run"));
        command.args(["-s", "vfs", "import-layer"]);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(&stream[..4 << 20]).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        run(
            std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]),
            b"",
        )
        .ok();
        std::thread::sleep(Duration::from_millis(200));
        // What comes now is not taken any more.
        drop(stdin.write_all(&stream[4 << 20..5 << 20]));
        let since = Instant::now();
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{done:?}");
        assert!(since.elapsed() < Duration::from_secs(10));
        assert_eq!(place.drop_in(&["layers"], b"").ok().out, "");
        assert_eq!(place.drop_in(&["storage-layers"], b"").ok().out, "");
    }
}
