// SPDX-License-Identifier: Apache-2.0
//! A store to maltreat, and what must be true of it afterwards.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::support::{Answer, Place, run, tar_of};

pub(super) const BASE: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
pub(super) const DRIVERS: [&str; 3] = ["vfs", "overlay", "btrfs"];

/// Makes the layer `base` with two files, the image `img` on it and the container `ctr`.
#[track_caller]
pub(super) fn seed(place: &Place) {
    let stream = tar_of(&[("d/", None), ("d/f", Some(b"hello")), ("top", Some(b"1"))]);
    let import = ["import-layer", "-i", BASE, "-n", "base"];
    place.drop_in(&import, &stream).ok();
    place.plywood(&["create-image", "-n", "img", BASE]).ok();
    place
        .plywood(&["create-container", "-n", "ctr", "img"])
        .ok();
}

/// A refusal as people must get it; returns the text.
#[track_caller]
pub(super) fn refused(answer: &Answer) -> &str {
    assert_ne!(answer.code, 0, "{answer:?}");
    assert!(answer.err.starts_with("error: "), "{answer:?}");
    assert!(!answer.err.contains("panicked"), "{answer:?}");
    &answer.err
}

/// A refusal that also says what to do.
#[track_caller]
pub(super) fn refused_with_hint(answer: &Answer) -> &str {
    let text = refused(answer);
    assert!(text.contains("\nhint: "), "{answer:?}");
    text
}

/// Makes a file system of `size` (as `truncate` takes it) and mounts it as the graph root; it goes
/// with the place.
#[track_caller]
pub(super) fn small_disk(place: &Place, size: &str) {
    let image = place.path("disk").display().to_string();
    let graph = place.graph().display().to_string();
    fs::create_dir(&graph).unwrap();
    let steps: [&[&str]; 3] = [
        &["truncate", "-s", size, &image],
        &["mkfs.ext4", "-q", &image],
        // The loop device goes when it is unmounted.
        &["mount", "-o", "loop", &image, &graph],
    ];
    for step in steps {
        run(Command::new(step[0]).args(&step[1..]), b"").ok();
    }
}

/// Mounts below the place, but for the ones that a store keeps while it is open.
pub(super) fn mounts(place: &Place) -> Vec<String> {
    let root = format!("{}/", place.dir.path().display());
    let home = place.graph().join(place.driver);
    let all = fs::read_to_string("/proc/self/mountinfo").unwrap();
    all.lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| point.starts_with(&root))
        .filter(|point| Path::new(point) != home && Path::new(point) != place.graph())
        .map(str::to_owned)
        .collect()
}

/// What no program should leave: staging, trash, notes, unfinished files, links to nothing.
pub(super) fn leftovers(place: &Place) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut dirs = vec![place.graph(), place.path("run")];
    while let Some(dir) = dirs.pop() {
        let Ok(entries) = fs::read_dir(&dir) else {
            continue;
        };
        for entry in entries {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap_or_default();
            let path = entry.path();
            let is_ours = ["lock-", "temp-dir-", ".tmp-", "intent-"]
                .iter()
                .any(|prefix| name.starts_with(prefix));
            let is_link_to_nothing = dir.ends_with("overlay/l") && !path.exists();
            if is_ours || is_link_to_nothing {
                found.push(path);
            } else if entry.file_type().unwrap().is_dir() && name != "diff" && name != "dir" {
                dirs.push(path);
            }
        }
    }
    found
}

/// Ids in the output of a listing command with `-j`.
pub(super) fn ids(answer: &Answer) -> BTreeSet<String> {
    let list = serde_json::from_str::<serde_json::Value>(&answer.out);
    let list = list.unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    let records = list.as_array().into_iter().flatten();
    records
        .map(|record| record["id"].as_str().unwrap().to_owned())
        .collect()
}

/// Checks that nothing is left over, that records and driver agree, and that containers-storage
/// sees the same where it is installed.
#[track_caller]
pub(super) fn check_store(place: &Place, theirs: bool) {
    let layers = ids(&place.plywood(&["layers", "-j"]).ok());
    let known: BTreeSet<String> = place
        .plywood(&["storage-layers"])
        .ok()
        .out
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(layers, known, "records and driver disagree");
    for (kind, layer) in [("images", "layer"), ("containers", "layer")] {
        let list = place.plywood(&[kind, "-j"]).ok().json();
        for record in list.as_array().into_iter().flatten() {
            let layer = record[layer].as_str().unwrap_or_default();
            assert!(layers.contains(layer), "{kind} lost a layer: {record}");
        }
    }
    for kind in ["layers", "images", "containers"] {
        if theirs {
            let [ours, theirs] = [
                ids(&place.plywood(&[kind, "-j"]).ok()),
                ids(&place.theirs(&[kind, "-j"], b"").ok()),
            ];
            assert_eq!(ours, theirs, "{kind}");
        }
    }
    let left = leftovers(place);
    assert!(left.is_empty(), "{left:?}");
}
