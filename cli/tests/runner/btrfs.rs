// SPDX-License-Identifier: Apache-2.0
//! A btrfs store that is used by our program, containers-storage and podman in turns.

use std::{fs, path::Path, process::Command};

use super::{
    podman::BUILD,
    support::{LIST, Place, can_run, podman_script, same, tar_of},
};

const TOOLS: [&str; 4] = ["containers-storage", "mkfs.btrfs", "btrfs", "setfattr"];

fn id(letter: char) -> String {
    letter.to_string().repeat(64)
}

#[derive(Clone, Copy, PartialEq)]
enum Who {
    Ours,
    Theirs,
}

impl Who {
    #[track_caller]
    fn run(self, place: &Place, args: &[&str]) -> String {
        let answer = match self {
            Self::Ours => place.drop_in(args, b""),
            Self::Theirs => place.theirs(args, b""),
        };
        answer.ok().out
    }

    /// Makes a layer, and changes it through a mount.
    fn make(self, place: &Place, letter: char, parent: char, edit: &str) {
        let layer = id(letter);
        self.run(place, &["create-layer", "--id", &layer, &id(parent)]);
        let path = self.run(place, &["mount", &layer]);
        let mut shell = Command::new("sh");
        shell.args(["-e", "-c", edit]).current_dir(path.trim());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        self.run(place, &["unmount", &layer]);
    }
}

fn sorted(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

fn subvolume(place: &Place, letter: char) -> String {
    place
        .path(&format!("graph/btrfs/subvolumes/{}", id(letter)))
        .display()
        .to_string()
}

fn uuid(place: &Place, letter: char, name: &str) -> String {
    let mut show = Command::new("btrfs");
    let output = show
        .args(["subvolume", "show", &subvolume(place, letter)])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let line = text
        .lines()
        .find(|line| line.trim().starts_with(name))
        .unwrap();
    line.split_whitespace().last().unwrap().to_owned()
}

/// Everything below the root of a base layer, as GNU tar sees it.
fn picture(place: &Place, letter: char) -> String {
    let script = format!(
        "tar --xattrs --xattrs-include='*' --format=pax --sort=name \
         --pax-option=delete=atime,delete=ctime -C {} -cf - bin etc | sha256sum",
        subvolume(place, letter)
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// What one makes, the other reads, changes and removes.
#[test]
fn interop_a_btrfs_store_is_used_in_turns() {
    if !can_run(&TOOLS) {
        return;
    }
    for (one, other) in [(Who::Ours, Who::Theirs), (Who::Theirs, Who::Ours)] {
        let place = Place::new("btrfs");
        let file = place.path("base.tar");
        let base = tar_of(&[
            ("etc", None),
            ("etc/hosts", Some(b"hosts")),
            ("bin", None),
            ("bin/sh", Some(b"#!")),
        ]);
        fs::write(&file, base).unwrap();
        let file = file.display().to_string();
        one.run(&place, &["import-layer", "--id", &id('a'), "--file", &file]);
        other.make(
            &place,
            'b',
            'a',
            "echo b >b; rm etc/hosts; ln b c; setfattr -n user.x -v y bin",
        );
        one.make(
            &place,
            'c',
            'b',
            "mv etc moved; mknod null c 1 3; chmod 700 bin; chown 7:8 c",
        );
        other.make(
            &place,
            'd',
            'c',
            "rm -r moved; mkdir moved; echo d >moved/d; ln -s d l",
        );

        for (layer, parent) in [('b', 'a'), ('c', 'b'), ('d', 'c')] {
            let of = uuid(&place, layer, "Parent UUID:");
            assert_eq!(of, uuid(&place, parent, "UUID:"), "{layer}");
        }
        for letter in ['a', 'b', 'c', 'd'] {
            let layer = id(letter);
            for args in [
                &["layer", "--json", &layer][..],
                &["diffsize", &layer],
                &["changes", &layer],
                &["changes", &layer, &id('a')],
            ] {
                let [ours, theirs] = [Who::Ours, Who::Theirs].map(|who| who.run(&place, args));
                same(&format!("{args:?}"), &sorted(&ours), &sorted(&theirs));
            }
            let [ours, theirs] = [Who::Ours, Who::Theirs].map(|who| streams(&place, who, &layer));
            same(&format!("the stream of {letter}"), &ours, &theirs);
        }
        // The other tool makes the same tree of the same stream.
        let again = Place::new("btrfs");
        fs::copy(place.path("base.tar"), again.path("base.tar")).unwrap();
        let file = again.path("base.tar").display().to_string();
        other.run(&again, &["import-layer", "--id", &id('a'), "--file", &file]);
        assert_eq!(picture(&place, 'a'), picture(&again, 'a'));

        other.run(&place, &["delete-layer", &id('d')]);
        one.run(&place, &["delete-layer", &id('c')]);
        one.run(&place, &["delete-layer", &id('b')]);
        other.run(&place, &["delete-layer", &id('a')]);
        let left = fs::read_dir(place.path("graph/btrfs/subvolumes")).unwrap();
        assert_eq!(left.count(), 0);
        assert!(!Path::new(&place.path("graph/btrfs/tempdirs")).exists());
    }
}

/// The entries of a layer's stream.
fn streams(place: &Place, who: Who, layer: &str) -> String {
    let file = place.path("stream.tar").display().to_string();
    who.run(place, &["diff", "--uncompressed", "--file", &file, layer]);
    let list = format!("{LIST}; list {file}");
    let output = Command::new("sh").args(["-c", &list]).output().unwrap();
    fs::remove_file(file).unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn interop_podman_runs_what_is_loaded_into_a_btrfs_store() {
    let tools = [
        &TOOLS[..],
        &["podman", "unshare", "bash", "busybox", "buildah"],
    ]
    .concat();
    if !can_run(&tools) {
        return;
    }
    let build = Place::new("btrfs");
    let script = |place: &Place, text: &str| podman_script(place, text).ok().out;
    // Podman builds here, our program shows and saves what it built.
    let built = script(
        &build,
        &format!(
            "{BUILD} $P save -q --format oci-archive -o oa.tar example.com/bb:1; \
             $C image save example.com/bb:1 docker-archive:ours.tar >&2; \
             run example.com/bb:1"
        ),
    );
    assert_eq!(built, "data\n");
    // Our program loads there, podman runs, and each removes what the other made.
    let place = Place::new("btrfs");
    for file in ["oa.tar", "ours.tar"] {
        let from = build.path(file).display().to_string();
        let out = script(
            &place,
            &format!(
                "$C image load {from} >&2; run example.com/bb:1; \
                 $P run --name kept --network=none --cgroups=disabled example.com/bb:1 \
                   /bin/busybox touch /made; \
                 $C changes \"$($C container -j kept | sed 's/.*\"layer\":\"\\([0-9a-f]*\\)\".*/\\1/')\" \
                   | grep made; \
                 $C delete-container kept >&2; $P rmi -f example.com/bb:1 >&2; $C layers -q"
            ),
        );
        assert!(out.starts_with("data\n"), "{file}: {out}");
        assert!(out.contains("/made\""), "{file}: {out}");
    }
    let left = fs::read_dir(place.path("graph/btrfs/subvolumes")).unwrap();
    assert_eq!(left.count(), 0);
}
