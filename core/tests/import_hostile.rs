// SPDX-License-Identifier: Apache-2.0
//! No tar reaches a file outside the target, and each refusal says why and names the entry.

use std::{
    fs,
    path::{Path, PathBuf},
};

use plywood::{
    ErrorKind,
    archive::import::{ImportOptions, unpack_plain},
    sdk::{IdMaps, UnpackTarget, WhiteoutForm},
};

use super::import_support::{
    Item, Scratch, Tree, dir, file, hardlink, header, item, names, symlink, tar, tree,
};

/// A target with a directory beside it that must not change.
struct Trap {
    scratch: Scratch,
    outside: PathBuf,
    before: Tree,
}

impl Trap {
    fn new() -> Self {
        let scratch = Scratch::new();
        let outside = scratch.place.path().join("outside");
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("victim"), "untouched").unwrap();
        fs::create_dir(outside.join("directory")).unwrap();
        let before = tree(&outside);
        Self {
            scratch,
            outside,
            before,
        }
    }

    fn outside(&self) -> &str {
        self.outside.to_str().unwrap()
    }

    /// Unpacks in every way; the answers, after a check that nothing outside changed.
    fn spring(&self, items: &[Item]) -> Vec<plywood::Result<()>> {
        let tar = tar(items);
        let mut answers = Vec::new();
        for form in [
            WhiteoutForm::Overlay,
            WhiteoutForm::Removal,
            WhiteoutForm::Literal,
        ] {
            self.empty();
            answers.push(self.scratch.import(form, &tar).map(|_| ()));
            self.check();
        }
        self.empty();
        answers.push(self.unpack_plain(&tar));
        self.check();
        answers
    }

    fn unpack_plain(&self, tar: &[u8]) -> plywood::Result<()> {
        let target = UnpackTarget::tree(self.scratch.root());
        let maps = IdMaps::default();
        unpack_plain(tar, &ImportOptions::new(&target, &maps)).map(|_| ())
    }

    fn empty(&self) {
        let root = self.scratch.root();
        fs::remove_dir_all(&root).unwrap();
        fs::create_dir(&root).unwrap();
    }

    fn check(&self) {
        assert_eq!(tree(&self.outside), self.before);
        let place = tree(self.scratch.place.path());
        let stray = names(&place)
            .into_iter()
            .find(|name| !name.starts_with("root") && !name.starts_with("outside"))
            .map(str::to_owned);
        assert_eq!(stray, None);
    }
}

/// Every way must refuse with this sentence, about this entry.
fn refused(items: &[Item], sentence: &str, entry: &str) {
    for answer in Trap::new().spring(items) {
        let error = answer.expect_err(sentence);
        assert_eq!(error.to_string(), sentence);
        assert_eq!(error.about(), Some(entry), "{sentence}");
        assert_eq!(error.kind(), ErrorKind::InvalidArchive, "{sentence}");
    }
}

#[test]
fn root_names_that_lead_out_are_refused() {
    for name in ["../evil", "a/../../evil", "..", "../", "./../x/../.."] {
        let cleaned = format!("{name:?} is outside of the layer");
        refused(&[file(name, "x")], &cleaned, name);
    }
}

#[test]
fn root_names_that_only_look_so_stay_inside() {
    let trap = Trap::new();
    let items = [
        file("/abs/evil", "x"),
        file("/../up", "x"),
        file("d/../flat", "x"),
        file("..dots", "x"),
    ];
    for answer in trap.spring(&items) {
        answer.unwrap();
    }
    let tree = trap.scratch.tree();
    assert_eq!(names(&tree), ["..dots", "abs", "abs/evil", "flat", "up"]);
}

#[test]
fn root_links_to_the_outside_are_never_followed() {
    let trap = Trap::new();
    let outside = trap.outside().to_owned();
    let victim = format!("{outside}/victim");
    let relative = "../../../../../../../../../../../../../../../../".to_owned() + &outside[1..];
    for target in [
        outside.as_str(),
        "../outside",
        relative.as_str(),
        "/proc/self/root/tmp",
    ] {
        let link = || symlink("l", target);
        let attempts = [
            file("l/victim", "evil"),
            file("l/new", "evil"),
            dir("l/directory/").mode(0o777),
            hardlink("h", "l/victim"),
            symlink("l/link", "x"),
            item(b'6', "l/fifo"),
            item(b'0', "l/.wh.victim"),
            item(b'0', "l/.wh..wh..opq"),
            file("l/../victim", "evil"),
        ];
        for attempt in attempts {
            // Some are refused, some land inside: what counts is checked by `spring`.
            let answers = trap.spring(&[link(), attempt.clone()]);
            assert_eq!(answers.len(), 4, "{target}");
        }
    }
    let replaced = [
        vec![symlink("s", &victim), file("s", "evil")],
        vec![
            symlink("s", &victim),
            hardlink("h", "s"),
            file("./h", "evil"),
        ],
        vec![symlink("s", &outside), dir("s/").mode(0o777).mtime(5)],
        vec![dir("s/").mtime(5), symlink("s", &outside)],
        vec![
            symlink("s", &victim),
            hardlink("h", "s").mode(0o777).owner(9, 9).mtime(5),
        ],
    ];
    for items in replaced {
        let answers = trap.spring(&items);
        assert!(answers.last().unwrap().is_ok(), "{:?}", answers.last());
    }
}

#[test]
fn root_hard_links_that_lead_out_are_refused() {
    for target in ["../outside/victim", "a/../../outside/victim", ".", "/"] {
        let sentence = format!("invalid hardlink \"h\" -> {target:?}");
        refused(&[hardlink("h", target)], &sentence, "h");
    }
}

#[test]
fn root_whiteouts_of_the_directory_itself_are_refused() {
    for name in ["d/.wh.", "d/.wh..", "d/.wh...", ".wh...", ".wh.."] {
        let tar = tar(&[dir("d/"), file("d/kept", "x"), item(b'0', name)]);
        let literal = WhiteoutForm::Literal;
        for form in [WhiteoutForm::Overlay, WhiteoutForm::Removal, literal] {
            let trap = Trap::new();
            let error = trap.scratch.import(form, &tar).unwrap_err();
            assert_eq!(error.to_string(), format!("invalid whiteout path {name:?}"));
            assert!(trap.scratch.root().join("d/kept").exists());
            trap.check();
        }
    }
}

#[test]
fn root_marks_of_the_overlay_driver_are_refused() {
    for (key, flag) in [
        ("trusted.overlay.opaque", b'5'),
        ("trusted.overlay.redirect", b'5'),
        ("user.overlay.opaque", b'0'),
        ("trusted.overlay.metacopy", b'0'),
    ] {
        let marked = item(flag, "d").pax(format!("SCHILY.xattr.{key}"), "y");
        let sentence = format!("extended attribute {key:?} of \"d\" must not be in a layer");
        refused(&[marked], &sentence, "d");
    }
    let sentence = "character device 0:0 \"w\" must not be in a layer";
    refused(&[item(b'3', "w")], sentence, "w");
    let marked_root = dir("./").pax("SCHILY.xattr.trusted.overlay.opaque", "y");
    let sentence = "extended attribute \"trusted.overlay.opaque\" of \"./\" must not be in a layer";
    refused(&[marked_root], sentence, "./");
}

#[test]
fn root_the_root_can_only_be_a_directory() {
    let sentence = "refusing to act on a non-directory entry as the archive root";
    refused(&[symlink("./", "/etc")], sentence, "./");
    refused(&[file("a/..", "x")], sentence, "a/..");
}

#[test]
fn root_unknown_types_are_refused() {
    for flag in [b'7', b'S', b'V', b'X'] {
        let sentence = format!("unhandled tar header type {flag}");
        refused(&[item(flag, "odd")], &sentence, "odd");
    }
}

#[test]
fn root_ids_that_no_file_can_have_are_refused() {
    for id in ["4294967295", "4294967296", "-1"] {
        let sentence = format!("{id} is no user or group ID");
        refused(&[file("f", "x").pax("uid", id)], &sentence, "f");
        refused(&[file("f", "x").pax("gid", id)], &sentence, "f");
    }
}

#[test]
fn root_broken_headers_are_refused() {
    let sentence = "archive/tar: invalid tar header";
    let mut damaged = tar(&[file("f", "x")]);
    damaged[0] ^= 1;
    let negative = header(&file("f", ""), |block| block[124..136].fill(0xff));
    let cases: [(&str, Vec<u8>); 5] = [
        ("checksum", damaged),
        ("negative size", [&negative[..], &[0; 1024]].concat()),
        ("nul in a path", tar(&[file("f", "").pax("path", "a\0b")])),
        (
            "record",
            tar(&[Item {
                content: b"5 a=b".to_vec(),
                ..item(b'x', "p")
            }]),
        ),
        ("text", vec![b'x'; 2048]),
    ];
    for (name, layer) in cases {
        let trap = Trap::new();
        let error = trap
            .scratch
            .import(WhiteoutForm::Overlay, &layer)
            .unwrap_err();
        assert_eq!(error.to_string(), sentence, "{name}");
        trap.check();
    }
}

#[test]
fn root_oversized_extension_headers_are_refused() {
    let sentence = "archive/tar: header field too long";
    let huge = Item {
        claimed: Some(1 << 40),
        ..item(b'x', "p")
    };
    let endless: Vec<Item> = (0..20_000)
        .map(|_| Item {
            content: b"8 a=bcd\n".to_vec(),
            ..item(b'x', "p")
        })
        .collect();
    for items in [vec![huge], endless] {
        let error = Trap::new()
            .scratch
            .import(WhiteoutForm::Overlay, &tar(&items))
            .unwrap_err();
        assert_eq!(error.to_string(), sentence);
    }
}

#[test]
fn root_names_that_the_kernel_refuses_are_named() {
    let long = "n".repeat(300);
    let trap = Trap::new();
    for answer in trap.spring(&[file("f", "x").pax("path", &long)]) {
        let error = answer.unwrap_err();
        assert!(error.to_string().contains(&long), "{error}");
        assert!(Path::new(error.about().unwrap()).ends_with(&long));
    }
}

#[test]
fn root_deep_trees_are_removed() {
    let deep = vec!["d"; 900].join("/");
    let trap = Trap::new();
    let items = [
        file("x", "").pax("path", format!("a/{deep}/f")),
        file("a/../a", "now a file"),
    ];
    for answer in trap.spring(&items) {
        answer.unwrap();
    }
    assert_eq!(names(&trap.scratch.tree()), ["a"]);
}
