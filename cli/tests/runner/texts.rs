// SPDX-License-Identifier: Apache-2.0
//! Answers of the version that we follow where the installed oracle is older.

use std::os::unix::fs::MetadataExt as _;

use super::support::{Place, can_run, tar_of};

fn base() -> Vec<u8> {
    tar_of(&[("f", Some(b"1"))])
}

fn store() -> Place {
    let place = Place::new("vfs");
    place.drop_in(&["import-layer", "-n", "base"], &base()).ok();
    place
        .drop_in(&["create-image", "-n", "img", "base"], b"")
        .ok();
    place
}

#[test]
fn names_are_put_first_and_taken_away() {
    if !can_run(&[]) {
        return;
    }
    let place = store();
    let names = |args: &[&str]| place.drop_in(args, b"").ok().out;
    assert_eq!(
        names(&["add-names", "-j", "-n", "x", "img"]),
        "[\"x\",\"img\"]\n"
    );
    assert_eq!(
        names(&["remove-names", "-j", "-n", "img", "x"]),
        "[\"x\"]\n"
    );
    assert_eq!(names(&["remove-names", "-j", "-n", "x", "x"]), "null\n");
}

#[test]
fn containers_end_with_a_newline() {
    if !can_run(&[]) {
        return;
    }
    let place = store();
    let answer = place
        .drop_in(&["create-container", "-n", "a", "-n", "b", "img"], b"")
        .ok();
    assert!(answer.out.ends_with("\n\ta\n\tb\n"), "{answer:?}");
}

#[test]
fn newer_commands_answer() {
    if !can_run(&[]) {
        return;
    }
    let place = store();
    let layer = place.drop_in(&["layers", "-q"], b"").ok().line().to_owned();
    assert_eq!(place.drop_in(&["storage-layers"], b"").ok().line(), layer);
    assert_eq!(
        place.drop_in(&["storage-layers", "-j"], b"").ok().line(),
        format!("[\"{layer}\"]")
    );
    let dir = place.drop_in(&["get-image-dir", "img"], b"").ok();
    assert!(dir.line().ends_with("/userdata"), "{dir:?}");
    let run_dir = place.drop_in(&["get-image-run-dir", "img"], b"").ok();
    assert!(
        run_dir
            .line()
            .starts_with(place.path("run").to_str().unwrap()),
        "{run_dir:?}"
    );
    let made = place
        .drop_in(&["create-storage-layer", "-j"], b"")
        .ok()
        .json();
    assert_eq!(made.as_str().unwrap().len(), 64);
    assert_eq!(place.drop_in(&["gc", "-j"], b"").ok().out, "\"\"\n");
    // A layer that no record has is garbage.
    assert_eq!(place.drop_in(&["storage-layers"], b"").ok().line(), layer);
    let config = place.drop_in(&["config"], b"").ok().json();
    assert!(config["root"].is_string(), "{config}");
    let version = place.drop_in(&["version"], b"").ok();
    assert!(
        version.err.starts_with("Version: ") && version.out.is_empty(),
        "{version:?}"
    );
    let bad = place.drop_in(&["images-by-digest", "bad"], b"");
    assert_eq!(
        (bad.code, bad.err.as_str()),
        (1, "invalid checksum digest format\n")
    );
}

#[test]
fn a_layer_is_mounted_by_its_name() {
    if !can_run(&[]) {
        return;
    }
    let place = store();
    let path = place
        .drop_in(&["mount", "base"], b"")
        .ok()
        .line()
        .to_owned();
    assert_eq!(super::support::read(format!("{path}/f")), b"1");
    place.drop_in(&["unmount", "base"], b"").ok();
}

#[test]
fn files_are_copied_between_host_and_layers() {
    if !can_run(&[]) {
        return;
    }
    let place = store();
    place
        .drop_in(&["create-container", "-n", "ctr", "img"], b"")
        .ok();
    let layer = place.drop_in(&["container", "-j", "ctr"], b"").ok().json()[0]["layer"]
        .as_str()
        .unwrap()
        .to_owned();
    let host = place.path("host");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("a"), "one").unwrap();
    std::os::unix::fs::symlink("/etc", host.join("out")).unwrap();
    let host_text = host.to_str().unwrap();
    let to_dir = format!("{layer}:/sub/dir");
    place
        .drop_in(&["copy", "--chown", "7:8", host_text, &to_dir], b"")
        .ok();
    let to_file = format!("{layer}:/renamed");
    place
        .drop_in(&["copy", &format!("{host_text}/a"), &to_file], b"")
        .ok();
    let root = place
        .drop_in(&["mount", &layer], b"")
        .ok()
        .line()
        .to_owned();
    let meta = std::fs::metadata(format!("{root}/sub/dir/a")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (7, 8));
    assert_eq!(super::support::read(format!("{root}/renamed")), b"one");
    place.drop_in(&["unmount", &layer], b"").ok();
    let bad = place.drop_in(&["copy", "-o", "x", host_text, &to_file], b"");
    assert_eq!(
        (bad.code, bad.err.as_str()),
        (
            1,
            "bad UID: strconv.ParseUint: parsing \"x\": invalid syntax\n"
        )
    );
    // A link inside the layer leads to the layer's own /etc, which it does not have.
    let through = format!("{layer}:/sub/dir/out/passwd");
    let refused = place.drop_in(&["copy", &through, &format!("{host_text}/stolen")], b"");
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(!host.join("stolen").exists());
    let back = format!("{layer}:/f");
    place
        .drop_in(&["copy", &back, &format!("{host_text}/")], b"")
        .ok();
    assert_eq!(super::support::read(host.join("f")), b"1");
}

/// The sentences of `drivers/overlay` and `chrootarchive`, with their helper's wrapping.
#[test]
fn refused_streams_are_told_as_by_the_helper_processes() {
    if !can_run(&[]) {
        return;
    }
    let mut odd = tar_of(&[("a", Some(b""))]);
    odd[156] = b'S';
    let sum: u32 = (0..512)
        .map(|at| {
            if (148..156).contains(&at) {
                32
            } else {
                u32::from(odd[at])
            }
        })
        .sum();
    odd[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let twice = tar_of(&[("a", Some(b"1")), ("a", Some(b"2"))]);
    let duplicates = "duplicates of file paths not supported";
    for (driver, stream, text) in [
        (
            "overlay",
            &odd,
            "unpacking failed (error: exit status 1; output: unhandled tar header type 83)"
                .to_owned(),
        ),
        (
            "vfs",
            &odd,
            "ApplyLayer stdout:  stderr: unhandled tar header type 83 exit status 1".to_owned(),
        ),
        (
            "overlay",
            &twice,
            format!(
                "unpacking failed (error: {duplicates}; output: )\n\
                 exhausting input failed (error: {duplicates})"
            ),
        ),
    ] {
        let place = Place::new(driver);
        let answer = place.drop_in(&["import-layer"], stream);
        assert_eq!((answer.code, answer.err), (1, text + "\n"), "{driver}");
        assert_eq!(place.drop_in(&["layers"], b"").ok().out, "", "{driver}");
    }
}

/// Stores that cannot be opened say why on standard output.
#[test]
fn interop_stores_that_cannot_be_opened() {
    if !can_run(&["containers-storage"]) {
        return;
    }
    for (driver, option) in [
        ("vfs", "vfs.mountopt=nodev"),
        ("overlay", "zz"),
        ("overlay", "overlay.imagestore=rel"),
        ("overlay", "overlay.imagestore=/nonexistent"),
        ("overlay", "overlay.mount_program=/nonexistent"),
        ("overlay", "overlay.size=1x"),
    ] {
        let place = Place::new(driver);
        let args = ["--storage-opt", option, "layers"];
        let (ours, theirs) = (place.drop_in(&args, b""), place.theirs(&args, b""));
        assert_eq!(ours, theirs, "{option}");
        assert_eq!(ours.code, 1, "{option}");
        let own = place.plywood(&args);
        assert!(
            own.err.starts_with("error: cannot open the store\n"),
            "{own:?}"
        );
    }
}

/// What is copied where, for whom, and what is an error.
#[test]
fn interop_copies_are_the_same() {
    if !can_run(&["containers-storage", "find", "sort"]) {
        return;
    }
    let layer = "2".repeat(64);
    let trees = [true, false].map(|is_ours| {
        let place = Place::new("overlay");
        let run = |args: &[&str]| {
            if is_ours {
                place.drop_in(args, b"")
            } else {
                place.theirs(args, b"")
            }
        };
        let host = place.path("src");
        std::fs::create_dir_all(host.join("sub")).unwrap();
        std::fs::write(host.join("a"), "a").unwrap();
        std::fs::write(host.join("sub/b"), "b").unwrap();
        std::fs::hard_link(host.join("a"), host.join("hard")).unwrap();
        std::os::unix::fs::symlink("a", host.join("link")).unwrap();
        std::os::unix::fs::chown(host.join("a"), Some(5), Some(6)).unwrap();
        let out = place.path("out").display().to_string();
        run(&["create-layer", "-n", "w", "-i", &layer]).ok();
        let mut told = Vec::new();
        for line in [
            "src L:/d1",
            "src/ L:/d2/deep/er",
            "src/a L:/f1",
            "src/a L:/n1/n2/f2",
            "src/a L:/new/",
            "src/link L:/f3",
            "src/sub L:/",
            "--chown 7 src L:/d4",
            "--chown 7:9 src/a L:/d5/x/y",
            "src L:/f1",
            "src/sub/b w:/by-name",
            "/nonexistent L:/x",
            "L:/nonexistent out",
            "L:/d1/a out/file",
            "L:/d1 OUT/tree",
            "src/a out/tree/",
            "src/a out/new/",
        ] {
            let line = format!(
                "copy {}",
                line.replace("L:", &format!("{layer}:"))
                    .replace("OUT", &out)
            );
            let answer = run(&super::support::words(&line));
            let err = answer
                .err
                .replace(place.dir.path().to_str().unwrap(), "PLACE");
            let line = line.replace(&out, "OUT");
            told.push(format!("{line}: {} {err}", answer.code));
        }
        let mount = run(&["mount", &layer]).ok();
        let find = "find . -printf '%p %y %m %U:%G %l %n\\n' | sort";
        let list = format!(
            "cd {} && {find}; cd {} && {find}",
            mount.line(),
            place.path("out").display()
        );
        let tree = super::support::run(std::process::Command::new("sh").args(["-c", &list]), b"");
        run(&["unmount", &layer]).ok();
        format!("{}\n{}", told.join("\n"), tree.ok().out)
    });
    super::support::same("copy", &trees[0], &trees[1]);
}
