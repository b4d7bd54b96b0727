// SPDX-License-Identifier: Apache-2.0
//! The list of changes from the file system is the list of a walk.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path, thread, time::Duration};

use plywood::archive::{
    pack,
    walk::{self, Change, DiffMaps},
};
use plywood_plugin_sdk::{ChangeKind, Driver, IdMaps, NativeChange};

use crate::{
    script::{Random, edit, fill},
    support::{Store, btrfs, container, id, layer, run},
};

const PLAIN: DiffMaps<'static> = DiffMaps {
    layer: &NONE,
    parent: &NONE,
};
static NONE: IdMaps = IdMaps {
    uids: Vec::new(),
    gids: Vec::new(),
};

struct Lists {
    native: Vec<NativeChange>,
    checked: Vec<Change>,
    walked: Vec<Change>,
}

fn lists(store: &Store, driver: &dyn Driver, name: &str, parent: &str) -> Lists {
    let view = driver.diff_view(&id(name), Some(&id(parent))).unwrap();
    let native = driver.native_changes(&id(name), Some(&id(parent))).unwrap();
    let (tree, below) = (store.tree(name), store.tree(parent));
    let checked = walk::changes_from_native(&tree, &below, &native, &PLAIN).unwrap();
    let walked = walk::changes(&view, &PLAIN).unwrap();
    let size = walk::size_of(&tree, &checked).unwrap();
    assert_eq!(size, walk::diff_size(&view, &PLAIN).unwrap());
    Lists {
        native,
        checked,
        walked,
    }
}

fn exports_are_equal(
    store: &Store,
    driver: &dyn Driver,
    name: &str,
    parent: &str,
    list: &[Change],
) {
    let view = driver.diff_view(&id(name), Some(&id(parent))).unwrap();
    let (mut walked, mut native) = (Vec::new(), Vec::new());
    pack::export(&view, &PLAIN, &mut walked).unwrap();
    pack::export_changes(&store.tree(name), list, &NONE, &mut native).unwrap();
    forget_export_times(&mut walked);
    forget_export_times(&mut native);
    assert!(walked == native, "the streams of {name} differ");
}

/// Blanks the time, and the checksum, of whiteouts: it is that of the export.
fn forget_export_times(tar: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = tar.get_mut(at..at + 512) {
        let size = std::str::from_utf8(&header[124..135]).unwrap();
        let size = usize::from_str_radix(size, 8).unwrap_or_default();
        let mode = std::str::from_utf8(&header[100..107]).unwrap();
        if header[156] == b'0' && size == 0 && mode.parse() == Ok(0) {
            header[136..156].fill(0);
        }
        at += 512 + size.next_multiple_of(512);
    }
}

/// How many scripts are run.
fn rounds() -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test's own switch")]
    let given = std::env::var("PLYWOOD_SCRIPTS");
    given.map_or(60, |text| text.parse().unwrap())
}

#[test]
fn root_random_edits_are_found_as_a_walk_finds_them() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    for seed in 0..rounds() {
        let mut random = Random::new(seed + 1);
        if seed % 20 == 0 {
            for left in driver.list().unwrap() {
                driver.remove(&left).unwrap();
            }
            driver.create(&layer("base", None)).unwrap();
            fill(&store.tree("base"), &mut random);
        }
        // What it starts with: the parent, or a sibling as template.
        let mut request = container("top", Some("base"));
        let mut log = Vec::new();
        if random.below(4) == 0 {
            driver.create(&layer("origin", Some("base"))).unwrap();
            for _ in 0..random.below(6) {
                log.push(edit(&store.tree("origin"), &mut random));
            }
            request.template = Some(id("origin"));
        }
        driver.create(&request).unwrap();
        for _ in 0..random.below(25) {
            // A parent that is written to afterwards is no good idea, and possible.
            let changes_parent = seed % 3 == 0 && random.below(4) == 0;
            let tree = store.tree(if changes_parent { "base" } else { "top" });
            log.push(edit(&tree, &mut random));
            if random.below(20) == 0 {
                btrfs(&["filesystem", "sync"], &store.mounted());
            }
        }
        let found = lists(&store, &*driver, "top", "base");
        assert!(
            found.checked == found.walked,
            "seed {seed}:\n{}\nnative: {:#?}\nfound: {:#?}\nwalked: {:#?}",
            log.join("\n"),
            found.native,
            found.checked,
            found.walked,
        );
        if seed % 10 == 0 && !has_stub(&store.tree("top")) {
            exports_are_equal(&store, &*driver, "top", "base", &found.checked);
        }
        for name in ["top", "origin"] {
            driver.remove(&id(name)).unwrap();
        }
        assert!(!store.home().join("tempdirs").exists());
    }
}

/// Whether there was a subvolume in what the layer is a snapshot of. In its place is an empty
/// directory whose time is that of the first look at it.
fn has_stub(directory: &Path) -> bool {
    fs::read_dir(directory).unwrap().any(|entry| {
        let entry = entry.unwrap();
        let found = entry.metadata().unwrap();
        found.is_dir() && (found.ino() == 2 || has_stub(&entry.path()))
    })
}

fn write(tree: &Path, name: &str, text: &str) {
    fs::write(tree.join(name), text).unwrap();
}

/// A list that names everything would be as right as one that names what changed.
#[test]
fn root_few_changes_are_a_short_list_however_much_is_there() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    let base = store.tree("base");
    for directory in 0..50 {
        let directory = base.join(format!("d{directory}"));
        fs::create_dir(&directory).unwrap();
        for file in 0..40 {
            write(&directory, &format!("f{file}"), "text");
        }
    }
    driver.create(&container("top", Some("base"))).unwrap();
    let none = driver.native_changes(&id("top"), Some(&id("base")));
    assert_eq!(none.unwrap(), []);
    let top = store.tree("top");
    // Reading is no change, though it changes access times.
    for number in 0..50 {
        let directory = top.join(format!("d{number}"));
        assert_eq!(fs::read_dir(directory).unwrap().count(), 40);
    }
    write(&top, "d1/f1", "other");
    write(&top, "d2/new", "new");
    fs::remove_file(top.join("d3/f3")).unwrap();
    fs::rename(top.join("d4"), top.join("moved")).unwrap();
    let found = lists(&store, &*driver, "top", "base");
    assert_eq!(found.checked, found.walked);
    let named: Vec<_> = found
        .native
        .iter()
        .map(|it| (it.path.to_str().unwrap(), it.kind))
        .collect();
    let expected = [
        ("d1/f1", ChangeKind::Modify),
        ("d2", ChangeKind::Modify),
        ("d2/new", ChangeKind::Add),
        ("d3", ChangeKind::Modify),
        ("d3/f3", ChangeKind::Delete),
        ("d4", ChangeKind::Delete),
        ("moved", ChangeKind::Add),
    ];
    assert_eq!(named, expected);
}

/// Podman compares whole trees, which changes the access times of both.
#[test]
fn root_trees_that_were_read_on_both_sides_are_not_compared_again() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    for number in 0..20 {
        let directory = store.tree("base").join(format!("d{number}"));
        fs::create_dir(&directory).unwrap();
        write(&directory, "file", "text");
    }
    // Times of directories within two seconds of the snapshot prove nothing.
    thread::sleep(Duration::from_secs(4));
    driver.create(&container("top", Some("base"))).unwrap();
    let before = lists(&store, &*driver, "top", "base");
    assert_eq!((before.native.len(), before.walked.len()), (0, 0));
    write(&store.tree("top"), "d7/file", "more text");
    write(&store.tree("base"), "d8/new", "new");
    let after = lists(&store, &*driver, "top", "base");
    assert_eq!(after.checked, after.walked);
    let named: Vec<_> = after
        .native
        .iter()
        .map(|it| it.path.to_str().unwrap())
        .collect();
    assert_eq!(named, ["d7/file", "d8", "d8/new"]);
}

#[test]
fn root_all_names_of_a_file_are_listed() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    let base = store.tree("base");
    fs::create_dir(base.join("links")).unwrap();
    write(&base, "file", "x");
    // So many that the file system stores some of them in another form.
    for number in 0..600 {
        let name = format!("links/{number}-{}", "l".repeat(100));
        fs::hard_link(base.join("file"), base.join(name)).unwrap();
    }
    driver.create(&container("top", Some("base"))).unwrap();
    write(&store.tree("top"), "file", "y, and more");
    let found = lists(&store, &*driver, "top", "base");
    assert_eq!(found.checked, found.walked);
    assert_eq!(found.native.len(), 601);
}

/// No snapshot can be made there.
#[test]
fn root_changes_are_listed_on_a_read_only_file_system() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    write(&store.tree("base"), "file", "x");
    driver.create(&container("top", Some("base"))).unwrap();
    write(&store.tree("top"), "file", "changed");
    let mut remount = std::process::Command::new("mount");
    run(remount.args(["-o", "remount,ro"]).arg(store.mounted()));
    let found = lists(&store, &*driver, "top", "base");
    assert_eq!(found.checked, found.walked);
    assert_eq!(found.native.len(), 1);
    assert_eq!(driver.usage(&id("top")).unwrap().bytes, 7);
}

/// What was made in both since they split may have the same number and is not the same.
#[test]
fn root_equal_inode_numbers_do_not_make_files_equal() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    driver.create(&container("top", Some("base"))).unwrap();
    for name in ["base", "top"] {
        fs::create_dir(store.tree(name).join("d")).unwrap();
        write(&store.tree(name).join("d"), name, "x");
        write(&store.tree(name), "same", name);
    }
    let found = lists(&store, &*driver, "top", "base");
    assert_eq!(found.checked, found.walked);
    let kinds: Vec<_> = found
        .checked
        .iter()
        .map(|it| (it.path.to_str().unwrap(), it.kind))
        .collect();
    assert!(kinds.contains(&("/d/top", ChangeKind::Add)), "{kinds:?}");
    assert!(
        kinds.contains(&("/d/base", ChangeKind::Delete)),
        "{kinds:?}"
    );
}

/// Layers that were copied from somewhere else are related to nothing.
#[test]
fn root_layers_that_share_no_history_are_compared_whole() {
    let Some(store) = Store::new() else { return };
    let driver = store.open();
    driver.create(&layer("base", None)).unwrap();
    driver.create(&layer("other", None)).unwrap();
    for name in ["base", "other"] {
        fs::create_dir(store.tree(name).join("d")).unwrap();
        write(&store.tree(name), "d/same", "x");
        write(&store.tree(name), name, "x");
    }
    let found = lists(&store, &*driver, "other", "base");
    assert_eq!(found.checked, found.walked);
    let all = driver.native_changes(&id("base"), None).unwrap();
    let all: Vec<_> = all.iter().map(|it| it.path.to_str().unwrap()).collect();
    assert_eq!(all, ["base", "d", "d/same"]);
    // Two children of one parent.
    for name in ["one", "two"] {
        driver.create(&container(name, Some("base"))).unwrap();
        write(&store.tree(name), "d/same", name);
    }
    driver.remove(&id("base")).unwrap();
    let found = lists(&store, &*driver, "one", "two");
    assert_eq!(found.checked, found.walked);
    assert_eq!(found.native.len(), 1, "{:?}", found.native);
}
