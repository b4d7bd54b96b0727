// SPDX-License-Identifier: Apache-2.0
use std::os::unix::fs::PermissionsExt;

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
