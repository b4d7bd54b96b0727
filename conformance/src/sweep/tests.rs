// SPDX-License-Identifier: Apache-2.0
//! The engine itself: what a kill leaves is exactly what was done before it.
#![expect(
    clippy::disallowed_methods,
    reason = "the child's halves of the tests get their directory in the environment"
)]

use std::{
    fs,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use super::{Action, Run, begin, run};

const DIRECTORY: &str = "SWEEP_TEST_DIRECTORY";

fn child(helper: &str, directory: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--ignored", "--nocapture", "--test-threads=1"])
        .arg(format!("sweep::tests::{helper}"))
        .env(DIRECTORY, directory)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn directory() -> PathBuf {
    PathBuf::from(std::env::var_os(DIRECTORY).unwrap())
}

fn sweep(helper: &str, action: Action<'_>) -> (Run, Vec<String>) {
    let place = tempfile::tempdir().unwrap();
    let done = run(
        child(helper, place.path()),
        action,
        &place.path().join("report"),
    )
    .unwrap();
    let mut names: Vec<String> = fs::read_dir(place.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    (done, names)
}

#[test]
#[ignore = "the child's half of other tests"]
fn five_directories() {
    begin().unwrap();
    for name in 0..5 {
        fs::create_dir(directory().join(name.to_string())).unwrap();
    }
    // What tells of the run is no part of it.
    fs::write(directory().join("report"), "done").unwrap();
    fs::remove_file(directory().join("report")).unwrap();
}

#[test]
#[ignore = "the child's half of other tests"]
fn one_file() {
    let path = directory().join("file");
    begin().unwrap();
    fs::write(&path, "text").unwrap();
    fs::rename(&path, directory().join("moved")).unwrap();
    fs::remove_file(directory().join("moved")).unwrap();
}

#[test]
#[ignore = "the child's half of other tests"]
fn threads_and_children() {
    begin().unwrap();
    thread::scope(|scope| {
        for name in ["thread-a", "thread-b"] {
            scope.spawn(move || fs::create_dir(directory().join(name)).unwrap());
        }
    });
    let status = Command::new("mkdir")
        .arg(directory().join("child"))
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
#[ignore = "the child's half of other tests"]
fn lingers() {
    begin().unwrap();
    drop(Command::new("sleep").arg("1000").spawn().unwrap());
}

#[test]
#[ignore = "the child's half of other tests"]
fn never_begins() {}

#[test]
fn counts_what_changes_something() {
    let (done, names) = sweep("five_directories", Action::Count);
    assert_eq!(done.points, 5, "{:?}", done.trace);
    assert!(done.status.unwrap().success());
    assert_eq!(names, ["0", "1", "2", "3", "4"]);
    assert!(
        done.trace
            .iter()
            .all(|point| point.call.starts_with("mkdir"))
    );
    assert!(done.trace[3].subject.ends_with("/3"), "{}", done.trace[3]);
}

#[test]
fn names_each_kind_of_change() {
    let (done, names) = sweep("one_file", Action::Count);
    let calls: Vec<&str> = done.trace.iter().map(|point| point.call).collect();
    assert_eq!(calls.len(), 4, "{calls:?}");
    assert!(
        calls[0].starts_with("open") && calls[1] == "write",
        "{calls:?}"
    );
    assert!(calls[2].starts_with("rename") && calls[3].starts_with("unlink"));
    assert!(
        done.trace[1].subject.ends_with("/file"),
        "{}",
        done.trace[1]
    );
    assert!(names.is_empty());
}

#[test]
fn a_kill_leaves_what_was_done_before_it() {
    for at in 1..=5_usize {
        let (done, names) = sweep("five_directories", Action::KillAt(at as u64));
        assert_eq!(names.len(), at - 1, "killed before change {at}: {names:?}");
        assert_eq!(done.cut.unwrap().number, at as u64);
        assert_eq!(done.status.unwrap().signal(), Some(libc::SIGKILL));
    }
    let (done, names) = sweep("five_directories", Action::KillAt(6));
    assert!(done.cut.is_none() && done.status.unwrap().success());
    assert_eq!(names.len(), 5);
}

#[test]
fn something_can_be_done_before_the_kill() {
    let place = tempfile::tempdir().unwrap();
    let mut seen = 0;
    let mut deed = || {
        seen = fs::read_dir(place.path())?.count();
        Ok(())
    };
    run(
        child("five_directories", place.path()),
        Action::DoAndKillAt(3, &mut deed),
        &place.path().join("report"),
    )
    .unwrap();
    assert_eq!(seen, 2);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 2);
}

#[test]
fn threads_and_other_processes_are_followed() {
    let (done, names) = sweep("threads_and_children", Action::Count);
    assert!(done.status.unwrap().success());
    assert_eq!(names, ["child", "thread-a", "thread-b"]);
    let made = |call: &&super::Point| call.call.starts_with("mkdir");
    assert_eq!(
        done.trace.iter().filter(made).count(),
        3,
        "{:?}",
        done.trace
    );
    let (done, names) = sweep("threads_and_children", Action::KillAt(1));
    assert_eq!(done.status.unwrap().signal(), Some(libc::SIGKILL));
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn a_call_can_be_made_to_fail() {
    let (done, names) = sweep("five_directories", Action::FailAt(3, libc::ENOSPC));
    assert_eq!(done.cut.unwrap().number, 3);
    assert_eq!(
        done.status.unwrap().code(),
        Some(101),
        "the helper panics on errors"
    );
    assert_eq!(names, ["0", "1"]);
}

#[test]
fn what_outlives_the_run_is_killed() {
    let (done, _) = sweep("lingers", Action::Count);
    assert!(done.status.unwrap().success());
}

#[test]
fn a_process_that_never_begins_has_no_points() {
    let (done, _) = sweep("never_begins", Action::KillAt(1));
    assert_eq!(done.points, 0);
    assert!(done.cut.is_none() && done.status.unwrap().success());
}

#[test]
#[ignore = "the child's half of other tests"]
fn tries_three_directories() {
    begin().unwrap();
    for name in 0..3 {
        fs::create_dir(directory().join(name.to_string())).ok();
    }
    fs::remove_dir(directory().join("0")).unwrap();
}

#[test]
fn a_disk_can_stay_full() {
    let (done, names) = sweep("tries_three_directories", Action::FailFrom(2, libc::ENOSPC));
    assert_eq!(done.points, 3, "removals need no space");
    assert!(done.status.unwrap().success());
    assert!(names.is_empty(), "{names:?}");
}
