// SPDX-License-Identifier: Apache-2.0
//! Processes that die in the middle, and processes that want the same at once.

use std::{
    fs,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use super::{
    abuse_support::{check_store, ids, leftovers, mounts, refused, seed},
    images::docker_archive_with,
    support::{As, Place, can_run, ours, tar_of},
};

fn start(place: &Place, words: &[&str]) -> Child {
    let mut command = ours(As::Own);
    place.roots(&mut command);
    command
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

fn files(count: usize, size: usize) -> Vec<u8> {
    let names: Vec<String> = (0..count)
        .map(|n| format!("dir{}/file{n}", n % 9))
        .collect();
    let data = vec![7; size];
    let entries: Vec<(&str, Option<&[u8]>)> =
        names.iter().map(|name| (&**name, Some(&*data))).collect();
    tar_of(&entries)
}

/// Each operation is killed at `ROUNDS` points spread over the time it takes.
const ROUNDS: u32 = 9;

#[test]
fn interop_killed_processes_leave_a_store_that_all_can_use() {
    if !can_run(&["containers-storage"]) {
        return;
    }
    for driver in ["vfs", "overlay"] {
        let place = Place::new(driver);
        seed(&place);
        fs::write(place.path("layer.tar"), files(300, 3000)).unwrap();
        let layers = [files(120, 9000), files(200, 100)];
        fs::write(place.path("image.tar"), docker_archive_with("x:1", &layers)).unwrap();
        let operations: [(&[&str], &[&str]); 6] = [
            (&[], &["import-layer", "-f", "layer.tar", "base"]),
            (
                &["delete-image", "localhost/k:1"],
                &["image", "load", "image.tar", "k:1"],
            ),
            (
                &["image", "load", "image.tar", "k:1"],
                &["delete-image", "localhost/k:1"],
            ),
            (
                &["delete-container", "new"],
                &["create-container", "-n", "new", "img"],
            ),
            (&["unmount", "-f", "ctr"], &["mount", "ctr"]),
            (&["mount", "ctr"], &["unmount", "-f", "ctr"]),
        ];
        let mut killed = 0;
        for (prepare, operation) in operations {
            // How long it takes when it is left alone.
            prepared(&place, prepare);
            let since = Instant::now();
            start(&place, operation).wait().unwrap();
            let whole = since.elapsed();
            for round in 1..=ROUNDS {
                prepared(&place, prepare);
                let mut child = start(&place, operation);
                std::thread::sleep(whole * round / (ROUNDS + 1));
                killed += u32::from(child.try_wait().unwrap().is_none());
                child.kill().unwrap();
                child.wait().unwrap();
                // Whatever comes next finds a store in order.
                place.plywood(&["layers"]).ok();
                let made = place.plywood(&["create-layer"]).ok();
                place.plywood(&["delete-layer", made.line()]).ok();
            }
            place.plywood(&["gc"]).ok();
            check_store(&place, true);
            assert_eq!(mounts(&place), Vec::<String>::new(), "{operation:?}");
        }
        assert!(killed > 30, "only {killed} of {} were killed", 6 * ROUNDS);
        place.plywood(&["wipe"]).ok();
        place.plywood(&["gc"]).ok();
        assert_eq!(ids(&place.plywood(&["layers", "-j"]).ok()).len(), 0);
        check_store(&place, true);
    }
}

/// What an earlier round may have done already is no failure.
fn prepared(place: &Place, words: &[&str]) {
    if !words.is_empty() {
        let answer = place.plywood(words);
        assert!(!answer.err.contains("panicked"), "{answer:?}");
    }
}

#[test]
fn root_a_signal_ends_a_load_without_traces() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("overlay");
    place.plywood(&["layers"]).ok();
    let layers = [files(100, 200_000), files(10, 10)];
    let archive = place.path("image.tar");
    fs::write(&archive, docker_archive_with("x:1", &layers)).unwrap();
    let mut ended = 0;
    for (signal, code, wait) in [("INT", 130, 40), ("TERM", 143, 80), ("TERM", 143, 160)] {
        let mut child = start(&place, &["image", "load", "image.tar"]);
        std::thread::sleep(Duration::from_millis(wait));
        let alive = child.try_wait().unwrap().is_none();
        super::support::run(
            std::process::Command::new("kill").args([format!("-{signal}"), child.id().to_string()]),
            b"",
        );
        let done = child.wait_with_output().unwrap();
        if alive && !done.status.success() {
            use std::os::unix::process::ExitStatusExt as _;
            // Before it watches for signals it has nothing to clean up.
            assert!(
                done.status.code() == Some(code) || done.status.signal().is_some(),
                "{done:?}"
            );
            ended += 1;
        }
        assert!(leftovers(&place).is_empty(), "{:?}", leftovers(&place));
        drop(place.plywood(&["delete-image", "localhost/x:1"]));
    }
    assert!(ended > 0, "every load was faster than the signal");
    place.plywood(&["gc"]).ok();
    check_store(&place, false);
}

#[test]
fn root_of_two_who_want_the_same_one_gets_it() {
    if !can_run(&[]) {
        return;
    }
    for driver in ["vfs", "overlay"] {
        let place = Place::new(driver);
        fs::write(place.path("layer.tar"), files(50, 20_000)).unwrap();
        let layers = [files(20, 2000), files(30, 100)];
        fs::write(place.path("image.tar"), docker_archive_with("x:1", &layers)).unwrap();
        let id = "e".repeat(64);
        for words in [
            ["import-layer", "-f", "layer.tar", "-i", &id],
            ["import-layer", "-f", "layer.tar", "-n", "name"],
        ] {
            let done = at_once(&place, 4, &words);
            let won = done.iter().filter(|answer| answer.0 == 0).count();
            assert_eq!(won, 1, "{done:?}");
            for (code, text) in done.iter().filter(|answer| answer.0 != 0) {
                assert_eq!(*code, 1, "{text}");
                assert!(text.contains("already in use"), "{text}");
                assert!(text.contains("\nhint: "), "{text}");
            }
        }
        // The same image is loaded by all, and stored once.
        let done = at_once(&place, 4, &["image", "load", "-j", "image.tar"]);
        assert!(done.iter().all(|answer| answer.0 == 0), "{done:?}");
        let stored: u64 = done
            .iter()
            .map(|(_, text)| {
                let list: serde_json::Value = serde_json::from_str(text).unwrap();
                list[0]["layers_added"].as_u64().unwrap()
            })
            .sum();
        assert_eq!(stored, 2, "{done:?}");
        assert_eq!(ids(&place.plywood(&["layers", "-j"]).ok()).len(), 4);
        check_store(&place, false);
        let done = at_once(&place, 3, &["delete-image", "localhost/x:1"]);
        assert_eq!(done.iter().filter(|answer| answer.0 == 0).count(), 1);
        assert_eq!(ids(&place.plywood(&["layers", "-j"]).ok()).len(), 2);
        check_store(&place, false);
        refused(&place.plywood(&["delete-image", "localhost/x:1"]));
    }
}

/// Exit codes and what was printed of several that start together.
fn at_once(place: &Place, count: usize, words: &[&str]) -> Vec<(i32, String)> {
    let children: Vec<Child> = (0..count).map(|_| start(place, words)).collect();
    children
        .into_iter()
        .map(|child| {
            let done = child.wait_with_output().unwrap();
            let text = [done.stdout, done.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            (done.status.code().unwrap(), text)
        })
        .collect()
}
