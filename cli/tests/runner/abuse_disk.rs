// SPDX-License-Identifier: Apache-2.0
//! Full and read-only disks.

use std::{fs, io::Write as _, process::Command};

use super::{
    abuse_support::{BASE, check_store, ids, refused_with_hint, seed, small_disk},
    images::docker_archive,
    support::{Place, can_run, run, tar_of},
};

/// The drivers that need no file system of their own.
const DRIVERS: [&str; 2] = ["vfs", "overlay"];

/// Writes until not one block is left.
fn fill(place: &Place) {
    let mut file = fs::File::create(place.graph().join("fill")).unwrap();
    for size in [1 << 16, 1 << 12, 1] {
        let bytes = vec![1; size];
        while file.write_all(&bytes).is_ok() {}
    }
    drop(file.sync_all());
}

#[test]
fn root_a_full_disk_loses_nothing_and_can_be_freed() {
    if !can_run(&["mkfs.ext4"]) {
        return;
    }
    for driver in DRIVERS {
        let place = Place::new(driver);
        small_disk(&place, "24M");
        seed(&place);
        let noise = vec![0x5a; 4 << 20];
        let big = tar_of(&[("noise", Some(&noise))]);
        place.drop_in(&["import-layer", "-n", "big"], &big).ok();
        place
            .plywood(&["import-layer", "-n", "large", "-f", "/dev/null"])
            .ok();
        let archive = place.path("image.tar");
        fs::write(&archive, docker_archive("x:1")).unwrap();
        let archive = archive.to_str().unwrap();
        place.plywood(&["image", "load", archive, "spare"]).ok();
        // It becomes full while a layer is unpacked.
        let much = vec![0x5b; 30 << 20];
        let answer = place.own(
            &["import-layer", "-n", "l"],
            &tar_of(&[("much", Some(&much))]),
        );
        assert!(
            refused_with_hint(&answer).contains("No space left"),
            "{answer:?}"
        );
        check_store(&place, false);
        // It is full.
        let before = ["layers", "images", "containers"].map(|kind| place.plywood(&[kind]).ok().out);
        fill(&place);
        let metadata = "m".repeat(9000);
        let writers: [&[&str]; 6] = [
            &["import-layer", "-f", archive],
            &["create-layer"],
            &["create-container", "img"],
            &["set-metadata", "-m", &metadata, "img"],
            &["add-names", "-n", "another", "img"],
            &["set-image-data", "-f", archive, "img", "key"],
        ];
        for words in writers {
            let answer = place.plywood(words);
            let text = refused_with_hint(&answer);
            assert!(text.contains("No space left"), "{words:?}: {text}");
        }
        let after = ["layers", "images", "containers"].map(|kind| place.plywood(&[kind]).ok().out);
        assert_eq!(before, after);
        // What is there can be read, mounted and unmounted.
        let mounted = place.plywood(&["mount", "ctr"]).ok();
        let file = format!("{}/d/f", mounted.line());
        assert_eq!(fs::read(file).unwrap(), b"hello");
        place.plywood(&["unmount", "ctr"]).ok();
        place
            .plywood(&["diff", "-f", place.path("out").to_str().unwrap(), "base"])
            .ok();
        // Deleting works, on the full disk.
        place.plywood(&["delete-layer", "big"]).ok();
        fill(&place);
        place
            .plywood(&["delete-image", "localhost/spare:latest"])
            .ok();
        place.plywood(&["delete-container", "ctr"]).ok();
        place.plywood(&["delete-image", "img"]).ok();
        fs::remove_file(place.graph().join("fill")).unwrap();
        place.plywood(&["gc"]).ok();
        assert_eq!(ids(&place.plywood(&["layers", "-j"]).ok()).len(), 1);
        check_store(&place, false);
        seed(&place);
        check_store(&place, false);
    }
}

#[test]
fn root_a_read_only_store_is_refused_by_its_path() {
    if !can_run(&["mkfs.ext4"]) {
        return;
    }
    for driver in DRIVERS {
        let place = Place::new(driver);
        small_disk(&place, "24M");
        seed(&place);
        place.plywood(&["shutdown", "-f"]).ok();
        let graph = place.graph().display().to_string();
        let remount = |mode: &str| {
            run(
                Command::new("mount").args(["-o", &format!("remount,{mode}"), &graph]),
                b"",
            )
            .ok();
        };
        remount("ro");
        for words in [
            &["layers"][..],
            &["import-layer", "-f", "/dev/null"],
            &["mount", "ctr"],
            &["delete-image", "img"],
            &["gc"],
        ] {
            let answer = place.plywood(words);
            let text = refused_with_hint(&answer);
            assert!(text.contains(&graph), "{text}");
            assert!(text.contains("Read-only file system"), "{text}");
        }
        let answer = place.drop_in(&["layers"], b"");
        assert_eq!(answer.code, 1);
        assert!(answer.out.starts_with("error initializing: "), "{answer:?}");
        remount("rw");
        assert!(ids(&place.plywood(&["layers", "-j"]).ok()).contains(BASE));
        check_store(&place, false);
    }
}
