// SPDX-License-Identifier: Apache-2.0
//! Damaged, emptied and half-written record files.

use std::{fs, path::PathBuf};

use super::{
    abuse_support::{DRIVERS, check_store, ids, mounts, refused, refused_with_hint, seed},
    support::{Place, can_run, read},
};

const WRITERS: [&[&str]; 5] = [
    &["create-layer"],
    &["create-container", "img"],
    &["delete-container", "ctr"],
    &["delete-image", "img"],
    &["gc"],
];

fn files(place: &Place) -> [(&'static str, PathBuf); 3] {
    ["layers", "images", "containers"].map(|kind| {
        let dir = place.graph().join(format!("{}-{kind}", place.driver));
        (kind, dir.join(format!("{kind}.json")))
    })
}

#[test]
fn root_damaged_records_are_named_and_nothing_is_deleted() {
    if !can_run(&[]) {
        return;
    }
    for driver in DRIVERS {
        let place = Place::new(driver);
        seed(&place);
        let known = place.plywood(&["storage-layers"]).ok().out;
        for (kind, file) in files(&place) {
            let good = read(&file);
            let half = &good[..good.len() / 2];
            for bad in [b"".as_slice(), half, b"hello", b"{}", b"[1]", b"\0\0\0\0"] {
                fs::write(&file, bad).unwrap();
                let answer = place.plywood(&[kind, "-j"]);
                let text = refused_with_hint(&answer);
                assert!(text.contains(file.to_str().unwrap()), "{text}");
                for words in WRITERS {
                    // Whatever it needs: it must not be answered by a fresh record file.
                    let answer = place.plywood(words);
                    assert!(!answer.err.contains("panicked"), "{answer:?}");
                    assert_eq!(read(&file), bad, "{words:?} after {bad:?}");
                }
                let home = match driver {
                    "vfs" => place.graph().join("vfs/dir"),
                    "btrfs" => place.graph().join("btrfs/subvolumes"),
                    _ => place.graph().join(driver),
                };
                for id in known.lines() {
                    assert!(home.join(id).is_dir(), "{kind} {id}");
                }
                fs::write(&file, &good).unwrap();
                restore(&place);
            }
        }
        check_store(&place, false);
    }
}

/// Makes what the writers could change as it was.
fn restore(place: &Place) {
    if place.plywood(&["exists", "-q", "-i", "img"]).code != 0 {
        let base = super::abuse_support::BASE;
        place.plywood(&["create-image", "-n", "img", base]).ok();
    }
    if place.plywood(&["exists", "-q", "-c", "ctr"]).code != 0 {
        place
            .plywood(&["create-container", "-n", "ctr", "img"])
            .ok();
    }
}

#[test]
fn root_damaged_mount_records_say_what_to_do() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("overlay");
    seed(&place);
    place.plywood(&["mount", "ctr"]).ok();
    let file = place.path("run/overlay-layers/mountpoints.json");
    let good = read(&file);
    for bad in [
        &good[..good.len() / 2],
        b"x",
        b"[{\"id\":\"a\",\"count\":1e99}]",
    ] {
        fs::write(&file, bad).unwrap();
        for words in [
            ["mount", "ctr"],
            ["unmount", "ctr"],
            ["delete-container", "ctr"],
        ] {
            let answer = place.plywood(&words);
            let text = refused_with_hint(&answer);
            assert!(text.contains("mountpoints.json"), "{text}");
            assert!(text.contains("findmnt"), "{text}");
        }
        // Lists do without it.
        place.plywood(&["layers"]).ok();
        assert_eq!(read(&file), bad);
        assert_eq!(mounts(&place).len(), 1);
    }
    // A mount of a layer that is gone does not keep the store from being shut down.
    let text = String::from_utf8(good).unwrap();
    let id = text.split('"').nth(3).unwrap().to_owned();
    fs::write(&file, text.replacen(&id, "gone", 1)).unwrap();
    place.plywood(&["shutdown", "-f"]).ok();
    assert_eq!(mounts(&place), Vec::<String>::new());
    // Nor does one that a killed process could not record stay.
    place.plywood(&["mount", "ctr"]).ok();
    fs::write(&file, "[]").unwrap();
    assert_eq!(mounts(&place).len(), 1);
    place.plywood(&["gc"]).ok();
    assert_eq!(mounts(&place), Vec::<String>::new());
    place.plywood(&["delete-container", "ctr"]).ok();
    check_store(&place, false);
}

#[test]
fn root_unfinished_record_files_are_collected() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("overlay");
    seed(&place);
    place.plywood(&["mount", "ctr"]).ok();
    place.plywood(&["unmount", "ctr"]).ok();
    let image = place.plywood(&["image", "-j", "img"]).ok().json();
    let image = image[0]["id"].as_str().unwrap().to_owned();
    place
        .own(&["set-image-data", "img", "key"], b"some bytes")
        .ok();
    for file in [
        "graph/overlay-layers/.tmp-layers.json123",
        "graph/overlay-layers/.tmp-volatile-layers.json9",
        "graph/overlay-images/.tmp-images.json77",
        "graph/overlay-containers/.tmp-containers.json5",
        "run/overlay-layers/.tmp-mountpoints.json1",
        &format!("graph/overlay-images/{image}/.tmp-key31"),
    ] {
        fs::write(place.path(file), b"[").unwrap();
    }
    place.plywood(&["gc"]).ok();
    check_store(&place, false);
    let data = place.plywood(&["get-image-data", "img", "key"]).ok();
    assert_eq!(data.out, "some bytes");
}

#[test]
fn root_objects_that_are_not_there_are_named() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    seed(&place);
    for line in [
        "layer no-such",
        "image no-such",
        "container no-such",
        "mount no-such",
        "unmount no-such",
        "delete no-such",
        "delete-layer no-such",
        "delete-image no-such",
        "delete-container no-such",
        "diff no-such",
        "changes no-such",
        "diffsize no-such",
        "metadata no-such",
        "set-metadata -m a no-such",
        "get-names no-such",
        "add-names -n a no-such",
        "create-image no-such",
        "create-container no-such",
        "create-layer no-such",
        "get-image-data no-such k",
        "get-layer-data no-such k",
        "get-container-data no-such k",
        "image save no-such oci:out",
        "mounted no-such",
        "layer-parent-owners no-such",
        "container-parent-owners no-such",
    ] {
        let answer = place.plywood(&super::support::words(line));
        let text = refused_with_hint(&answer);
        assert!(text.contains("no-such"), "{line}: {text}");
    }
    for line in [
        "create-layer -n base",
        "create-image -n img base",
        "create-container -n ctr img",
        "create-layer -i aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "create-layer -i ../x",
        "create-layer -i a/b",
        "create-layer -i .",
        "delete-layer base",
        "delete-image img",
        "images-by-digest sha256:00",
    ] {
        refused_with_hint(&place.plywood(&super::support::words(line)));
    }
    // Two ids with a common beginning.
    for last in ["0", "1"] {
        let id = format!("{}{last}", "e".repeat(63));
        place.plywood(&["create-layer", "-i", &id]).ok();
    }
    let answer = place.plywood(&["delete-layer", "eeee"]);
    refused(&answer);
    assert_eq!(ids(&place.plywood(&["layers", "-j"]).ok()).len(), 4);
    let id = format!("{}1", "e".repeat(63));
    place.plywood(&["delete-layer", &id]).ok();
    place.plywood(&["delete-layer", "eeee"]).ok();
    check_store(&place, false);
}

/// What images and containers need is not collected because its record was lost.
#[test]
fn root_lost_layer_records_are_no_reason_to_delete_layers() {
    if !can_run(&[]) {
        return;
    }
    for driver in DRIVERS {
        let place = Place::new(driver);
        seed(&place);
        let known = place.plywood(&["storage-layers"]).ok().out;
        let file = place.graph().join(format!("{driver}-layers/layers.json"));
        let moved = place.path("layers.json");
        fs::rename(&file, &moved).unwrap();
        let answer = place.plywood(&["gc"]);
        assert!(
            refused_with_hint(&answer).contains("needs it"),
            "{answer:?}"
        );
        assert_eq!(place.plywood(&["storage-layers"]).ok().out, known);
        fs::rename(&moved, &file).unwrap();
        place.plywood(&["gc"]).ok();
        check_store(&place, false);
        assert_eq!(place.plywood(&["storage-layers"]).ok().out, known);
    }
}
