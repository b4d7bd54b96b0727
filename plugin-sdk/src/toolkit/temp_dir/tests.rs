// SPDX-License-Identifier: Apache-2.0
use std::{
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use super::*;

fn names(root: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_place_has_the_names_and_modes_of_the_protocol() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("tempdirs");
    let mut place = TempDir::create(&root).unwrap();
    let digits = place.name().strip_prefix("temp-dir-").unwrap().to_owned();
    assert!(digits.bytes().all(|b| b.is_ascii_digit()));
    assert_eq!(
        names(&root),
        [format!("lock-{digits}"), format!("temp-dir-{digits}")]
    );
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&place.path()), 0o700);
    assert_eq!(mode(&root.join(format!("lock-{digits}"))), 0o600);

    assert_eq!(place.addition(), place.path().join("0-addition"));
    let doomed = top.path().join("doomed");
    fs::create_dir(&doomed).unwrap();
    let moved = place.take(&doomed).unwrap().unwrap();
    assert_eq!(moved, place.path().join("1-doomed"));
    assert!(moved.is_dir() && !doomed.exists());
    assert_eq!(place.take(&doomed).unwrap(), None);

    place.close().unwrap();
    assert!(!root.exists(), "an empty root would trip the link repair");
}

#[test]
fn only_what_nobody_holds_is_reclaimed() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("tempdirs");
    let alive = TempDir::create(&root).unwrap();
    fs::write(root.join("lock-17"), "").unwrap();
    fs::create_dir_all(root.join("temp-dir-17/0-addition")).unwrap();
    fs::create_dir(root.join("temp-dir-18")).unwrap();
    fs::create_dir(root.join("temp-dir-x")).unwrap();

    assert_eq!(recover(&root).unwrap(), ["temp-dir-17", "temp-dir-18"]);
    let mut kept = vec![
        alive.name().replace("temp-dir", "lock"),
        alive.name(),
        "temp-dir-x".to_owned(),
    ];
    kept.sort();
    assert_eq!(names(&root), kept);

    drop(alive);
    assert_eq!(names(&root), ["temp-dir-x"]);
    fs::remove_dir(root.join("temp-dir-x")).unwrap();
    assert_eq!(recover(&root).unwrap(), [""; 0]);
    assert!(!root.exists());
    assert_eq!(recover(&root).unwrap(), [""; 0]);
}

#[test]
fn many_threads_make_and_reclaim_without_losing_anything() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("a/tempdirs");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..50 {
                    let mut place = TempDir::create(&root).unwrap();
                    let path = place.addition();
                    fs::write(&path, "x").unwrap();
                    recover(&root).unwrap();
                    assert!(path.exists(), "a live place was reclaimed");
                    place.close().unwrap();
                }
            });
        }
    });
    assert!(!root.exists());
}

/// A process that dies without tidying up.
struct Doomed(Child);

impl Doomed {
    /// Starts it and waits for its first line.
    fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("ready") {
            line.clear();
            assert_ne!(output.read_line(&mut line).unwrap(), 0, "it ended early");
        }
        Self(child)
    }

    fn die(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Go's locks are POSIX record locks.
fn go_process(lock: &Path) -> Command {
    let program = "
import fcntl, sys, time
file = open(sys.argv[1], 'r+b')
fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
print('ready', flush=True)
time.sleep(600)
";
    let mut command = Command::new("python3");
    command.args(["-c", program]).arg(lock);
    command
}

#[test]
fn a_place_of_a_go_process_is_left_alone_until_it_dies() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("tempdirs");
    fs::create_dir_all(root.join("temp-dir-17/0-addition")).unwrap();
    fs::write(root.join("lock-17"), "").unwrap();
    let go = Doomed::start(go_process(&root.join("lock-17")));
    assert_eq!(recover(&root).unwrap(), [""; 0]);
    go.die();
    assert_eq!(recover(&root).unwrap(), ["temp-dir-17"]);
}

#[test]
fn a_go_process_leaves_a_place_of_ours_alone() {
    let top = tempfile::tempdir().unwrap();
    let place = TempDir::create(top.path()).unwrap();
    let lock = top.path().join(place.name().replace("temp-dir", "lock"));
    let mut command = go_process(&lock);
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("BlockingIOError"), "{text}");
}

#[test]
fn places_come_and_go_side_by_side_with_their_root() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("tmp");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    TempDir::create(&root).unwrap().close().unwrap();
                }
            });
        }
    });
    assert!(!root.exists());
}

#[test]
fn a_root_that_is_a_file_is_an_error() {
    let top = tempfile::tempdir().unwrap();
    let root = top.path().join("tmp");
    fs::write(&root, "").unwrap();
    assert!(TempDir::create(&root).is_err());
}

#[test]
fn a_place_of_a_killed_process_is_reclaimed() {
    let top = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture"])
        .arg("toolkit::temp_dir::tests::the_process_that_is_killed")
        .current_dir(top.path());
    let child = Doomed::start(command);
    let root = top.path().join("killed");
    let file = fs::read_dir(&root)
        .unwrap()
        .map(|entry| entry.unwrap().path().join("0-addition"))
        .find(|path| path.exists())
        .unwrap();
    assert_eq!(recover(&root).unwrap(), [""; 0]);
    child.die();
    assert_eq!(recover(&root).unwrap().len(), 1);
    assert!(!file.exists() && !root.exists());
}

#[test]
#[ignore = "a part of `a_place_of_a_killed_process_is_reclaimed`"]
fn the_process_that_is_killed() {
    let mut place = TempDir::create(Path::new("killed")).unwrap();
    fs::write(place.addition(), "x").unwrap();
    println!("ready");
    std::thread::sleep(std::time::Duration::from_mins(10));
}
