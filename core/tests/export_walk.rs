// SPDX-License-Identifier: Apache-2.0
//! Changes, sizes and exported streams of layers that were edited through real mounts.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use plywood::{
    ErrorKind,
    archive::{
        pack::{PackOptions, export, export_changes, pack_tree},
        walk::{Change, DiffMaps, changes, changes_from_native, diff_size},
    },
    sdk::{ChangeKind, DiffView, IdMap, IdMaps, NativeChange, WhiteoutForm},
};

use rustix::fs::{CWD, Mode, OFlags, mkdirat, openat};

use crate::export_support::{
    NO_MAPS, Overlay, Peer, has_peer, is_root, listing, modernised, run_script, timeless,
};

const MAPS: DiffMaps<'_> = DiffMaps {
    layer: &NO_MAPS,
    parent: &NO_MAPS,
};

/// What lies below, with everything that the edits touch.
const BASE: &str = "
    mkdir -p d/sub e opaque/x gone/deep todir a-b links moved keep/in
    echo hi > d/f; echo a > d/sub/a; echo b > e/b; ln -s nowhere dangling; ln -s f d/soft
    echo 1 > opaque/one; echo 2 > opaque/x/two; echo r > r1; echo r > r2; echo x > gone/deep/x
    echo l > links/one; ln links/one links/two; echo m > moved/m; echo k > keep/in/k; echo c > changed
    ln -s old retarget; mknod dev c 5 1; touch a-b/old a.b; echo same > touched
";

/// Edits of every kind.
const EDITS: &str = "
    rm -rf opaque; mkdir opaque; echo one > opaque/one; echo three > opaque/three
    rm r1 r2; rm -rf gone; echo more >> d/f; ln d/f d/g; mkfifo fifo
    setfattr -n user.foo -v bar d/g; mknod chr c 5 2; ln chr chr2; mknod blk b 7 300
    rm dangling; mkdir dangling; rmdir todir; echo f > todir; echo n > a-b/x; chmod u+s,g+s,o+t e/b
    long=$(printf 'n%.0s' {1..120}); half=$(printf 'p%.0s' {1..90}); echo s > e/$long
    mkdir -p new/$half; echo t > new/$half/longer-name-here; chown 3000000:5 new
    echo u > $'\\xc3\\xbcml'; echo v > $'\\xff'; mkdir dir-$'\\xc3\\xa4'; ln -s $long$long far
    echo changed > changed; ln -sf new retarget; chown 7:8 keep/in/k; truncate -s 100000 sparse
    echo cap > cap; setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 cap
    setfattr -n trusted.x -v no cap; setfattr -n user.dir -v v keep
    touch -d '1969-12-31 23:00:00.5' old; touch -d '2023-01-01 01:02:03.987654321' e/b; touch -d @9000000000 late
    head -c 300000 /dev/zero | tr '\\0' z > big; : > a-b/new; rm -f a.b; mkdir a.b
";

fn text(changes: &[Change]) -> Vec<String> {
    changes
        .iter()
        .map(|change| format!("{:?} {}", change.kind, change.path.display()))
        .collect()
}

fn stream(view: &DiffView) -> Vec<u8> {
    let mut out = Vec::new();
    let count = export(view, &MAPS, &mut out).unwrap();
    assert_eq!(count, out.len() as u64);
    out
}

fn same_tar(ours: &[u8], theirs: &[u8], context: &str) {
    let (ours_read, theirs_read) = (listing(ours), listing(theirs));
    for (left, right) in ours_read.iter().zip(&theirs_read) {
        assert_eq!(left, right, "{context}");
    }
    assert_eq!(ours_read.len(), theirs_read.len(), "{context}");
    let first = ours
        .iter()
        .zip(theirs)
        .position(|(left, right)| left != right);
    let near = first.map(|at| (at, ours[at & !511..].get(..512).map(<[u8]>::escape_ascii)));
    let near = near.map(|(at, block)| {
        format!(
            "{at}: {}",
            block.map_or_else(String::new, |b| b.to_string())
        )
    });
    assert_eq!((ours.len(), near), (theirs.len(), None), "{context}");
}

/// The same edits through podman's library and through ours must give the same digest.
#[test]
fn interop_streams_and_changes_equal_those_of_the_other_program() {
    if !has_peer() {
        return;
    }
    for driver in ["overlay", "vfs"] {
        let peer = Peer::new(driver);
        let base = peer.layer(None, BASE);
        let top = peer.layer(Some(&base), EDITS);
        for (id, parent) in [(&base, None), (&top, Some(base.as_str()))] {
            let context = format!("{driver} with parent {parent:?}");
            let view = peer.view(id, parent);
            let theirs = modernised(peer.bytes(&["diff", "-u", id]));
            same_tar(&timeless(stream(&view)), &timeless(theirs), &context);

            let mut expected: Vec<String> = String::from_utf8_lossy(&peer.bytes(&["changes", id]))
                .lines()
                .map(str::to_owned)
                .collect();
            let mut found: Vec<String> = changes(&view, &MAPS)
                .unwrap()
                .iter()
                .map(|change| format!("{:?} {}", change.kind, go_quoted(&change.path)))
                .collect();
            expected.sort();
            found.sort();
            assert_eq!(found, expected, "{context}");

            let size = peer.word(&["diffsize", id]);
            assert_eq!(
                diff_size(&view, &MAPS).unwrap().to_string(),
                size,
                "{context}"
            );
        }
    }
}

/// Three layers: deletions and opaque directories in the middle one decide what is new on top.
#[test]
fn interop_kinds_regard_all_layers_below() {
    if !has_peer() {
        return;
    }
    let peer = Peer::new("overlay");
    let base = peer.layer(None, BASE);
    let middle = peer.layer(
        Some(&base),
        "rm -rf gone opaque r1; mkdir opaque; echo q > opaque/q; rm -rf e",
    );
    let top = peer.layer(
        Some(&middle),
        "mkdir -p gone/deep; echo x > gone/deep/x; echo new > r1; echo 1 > opaque/one
         rm -rf opaque; mkdir opaque; echo q > opaque/q; mkdir e; echo f > e/f; rm -rf moved",
    );
    let view = peer.view(&top, Some(&middle));
    let theirs = modernised(peer.bytes(&["diff", "-u", &top]));
    same_tar(&stream(&view), &theirs, "three layers");
    let expected = String::from_utf8(peer.bytes(&["changes", &top])).unwrap();
    let found: Vec<String> = changes(&view, &MAPS)
        .unwrap()
        .iter()
        .map(|change| format!("{:?} {}", change.kind, go_quoted(&change.path)))
        .collect();
    let mut expected: Vec<&str> = expected.lines().collect();
    expected.sort_unstable();
    let mut sorted = found.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
}

/// Quotes the names of these tests as Go does: they have no control characters.
fn go_quoted(path: &Path) -> String {
    use std::{fmt::Write as _, os::unix::ffi::OsStrExt};

    let mut quoted = String::new();
    for chunk in path.as_os_str().as_bytes().utf8_chunks() {
        quoted.push_str(chunk.valid());
        for byte in chunk.invalid() {
            write!(quoted, "\\x{byte:02x}").unwrap();
        }
    }
    format!("\"{quoted}\"")
}

/// An upper directory and the merged tree tell of the same edits.
#[test]
fn root_both_views_show_the_same_edits() {
    if !is_root() {
        return;
    }
    let overlay = Overlay::new(BASE, "");
    overlay.edit(EDITS);
    let upper = changes(&overlay.view(WhiteoutForm::Overlay), &MAPS).unwrap();
    let merged = changes(&overlay.trees(), &MAPS).unwrap();
    // The two ways differ by design where a directory replaced something, where the target of a
    // symlink below is missing, and about directories in which files were only modified.
    let differing = ["/opaque", "/dangling", "/a.b", "/retarget", "/keep"];
    let comparable = |changes: &[Change]| -> Vec<String> {
        text(changes)
            .into_iter()
            .filter(|line| !differing.iter().any(|path| line.contains(path)))
            .collect()
    };
    assert_eq!(comparable(&upper), comparable(&merged));
}

/// `rm` of several files makes one whiteout inode with several names: not hard links in a tar.
#[test]
fn root_whiteouts_that_share_an_inode_stay_apart() {
    if !is_root() {
        return;
    }
    let overlay = Overlay::new("echo 1 > one; echo 2 > two; echo 3 > three", "");
    overlay.edit("rm one two three");
    let view = overlay.view(WhiteoutForm::Overlay);
    let DiffView::Upper { upper, .. } = &view else {
        unreachable!("it is an upper directory")
    };
    assert!(fs::symlink_metadata(upper.join("one")).unwrap().nlink() > 2);
    let lines = listing(&stream(&view));
    let entries: Vec<&str> = lines
        .iter()
        .map(|line| &line[..line.find(" mode").unwrap_or(0)])
        .collect();
    assert_eq!(entries, ["0 .wh.one", "0 .wh.three", "0 .wh.two", ""]);
    assert_eq!(
        text(&changes(&view, &MAPS).unwrap()),
        ["Delete /one", "Delete /three", "Delete /two"]
    );
}

/// With these options the upper directory lacks content: reading it would lose data silently.
#[test]
fn root_metacopy_and_redirects_are_refused() {
    if !is_root() {
        return;
    }
    for (options, edit, name, mark) in [
        (
            ",metacopy=on",
            "chmod 600 file",
            "file",
            "trusted.overlay.metacopy",
        ),
        (
            ",redirect_dir=on",
            "mv dir elsewhere",
            "elsewhere",
            "trusted.overlay.redirect",
        ),
    ] {
        let overlay = Overlay::new("echo content > file; mkdir dir; echo f > dir/f", options);
        overlay.edit(edit);
        let view = overlay.view(WhiteoutForm::Overlay);
        let mut out = Vec::new();
        for error in [
            changes(&view, &MAPS).unwrap_err(),
            export(&view, &MAPS, &mut out).unwrap_err(),
        ] {
            assert_eq!(error.kind(), ErrorKind::NotSupported);
            let text = error.to_string();
            assert!(text.contains(mark) && text.contains(name), "{text}");
        }
        // The mounted tree has it all.
        let tar = listing(&stream(&overlay.trees())).join("\n");
        assert!(tar.contains(name), "{tar}");
    }
}

/// Without anything below, an opaque directory is just new.
#[test]
fn root_a_directory_made_on_top_has_no_opaque_mark() {
    if !is_root() {
        return;
    }
    let overlay = Overlay::new("mkdir was", "");
    overlay.edit("mkdir new; mkdir new/sub; rmdir was; mkdir was; mv new renamed");
    let lines = listing(&stream(&overlay.view(WhiteoutForm::Overlay))).join("\n");
    assert!(lines.contains("was/.wh..wh..opq"), "{lines}");
    assert!(!lines.contains("renamed/.wh..wh..opq"), "{lines}");
    assert!(!lines.contains("new"), "{lines}");
}

#[test]
fn root_marks_of_a_user_namespace_are_understood() {
    if !is_root() {
        return;
    }
    let overlay = Overlay::new("mkdir was; echo 1 > was/one; echo 2 > two", ",userxattr");
    overlay.edit("rm -rf was two; mkdir was; echo 3 > was/three");
    let view = overlay.view(WhiteoutForm::OverlayUserXattr);
    assert_eq!(
        text(&changes(&view, &MAPS).unwrap()),
        ["Delete /two", "Delete /was", "Add /was/three"]
    );
    let lines = listing(&stream(&view)).join("\n");
    assert!(lines.contains("was/.wh..wh..opq"), "{lines}");
    assert!(!lines.contains("SCHILY"), "{lines}");
}

/// The deepest images have hundreds of layers, more than descriptors may be at hand.
#[test]
fn root_hundreds_of_layers_below_are_regarded() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    run_script(
        root.path(),
        "for n in {0..399}; do mkdir -p $n/d; echo $n > $n/d/f$n; done; mknod 3/d/f350 c 0 0
         mkdir -p upper/d; for n in 2 350 399 400; do echo new > upper/d/f$n; done; mknod upper/d/f7 c 0 0",
    );
    let view = DiffView::Upper {
        upper: root.path().join("upper"),
        lowers: (0..400).map(|n| root.path().join(n.to_string())).collect(),
        whiteouts: WhiteoutForm::Overlay,
    };
    assert_eq!(
        text(&changes(&view, &MAPS).unwrap()),
        [
            "Modify /d",
            "Modify /d/f2",
            "Add /d/f350",
            "Modify /d/f399",
            "Add /d/f400",
            "Delete /d/f7",
        ]
    );
}

/// FUSE mount programs write whiteouts as files.
#[test]
fn a_name_that_means_a_deletion_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let (tree, parent) = (place.path().join("tree"), place.path().join("parent"));
    for directory in [&tree, &parent] {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("kept"), "").unwrap();
    }
    fs::write(tree.join(".wh.kept"), "").unwrap();
    let upper = DiffView::Upper {
        upper: tree.clone(),
        lowers: vec![parent.clone()],
        whiteouts: WhiteoutForm::Overlay,
    };
    let trees = DiffView::Trees {
        tree,
        parent: Some(parent),
    };
    for view in [upper, trees] {
        let error = export(&view, &MAPS, &mut Vec::new()).unwrap_err();
        assert_eq!(error.kind(), plywood::ErrorKind::InvalidArchive);
        assert!(error.to_string().contains("`.wh.kept`"), "{error}");
    }
}

#[test]
fn literal_whiteouts_are_understood() {
    let root = tempfile::tempdir().unwrap();
    run_script(
        root.path(),
        "mkdir -p lower/dir upper/dir upper/fresh; echo 1 > lower/dir/a; echo 2 > lower/gone
         touch upper/dir/.wh..wh..opq upper/.wh.gone; echo 3 > upper/dir/b; echo 4 > upper/fresh/c",
    );
    let view = DiffView::Upper {
        upper: root.path().join("upper"),
        lowers: vec![root.path().join("lower")],
        whiteouts: WhiteoutForm::Literal,
    };
    assert_eq!(
        text(&changes(&view, &MAPS).unwrap()),
        [
            "Delete /dir",
            "Add /dir/b",
            "Add /fresh",
            "Add /fresh/c",
            "Delete /gone"
        ]
    );
    let lines = listing(&stream(&view)).join("\n");
    assert!(
        lines.contains(".wh.gone") && lines.contains("dir/.wh..wh..opq"),
        "{lines}"
    );
}

/// A driver's own list gives what the comparison of everything gives, whatever it adds.
#[test]
fn root_a_native_list_gives_the_changes_of_the_trees() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    run_script(root.path(), &format!("mkdir old; cd old; {BASE}"));
    run_script(
        root.path(),
        &format!("cp -a old new; cd new; {EDITS}\nmv keep kept"),
    );
    let (tree, parent) = (root.path().join("new"), root.path().join("old"));
    let view = DiffView::Trees {
        tree: tree.clone(),
        parent: Some(parent.clone()),
    };
    let expected = changes(&view, &MAPS).unwrap();
    assert!(expected.len() > 40);
    // Parents that changed only through their content are not in such lists; false alarms are.
    let mut native: Vec<NativeChange> = expected
        .iter()
        .filter(|change| {
            let inside = change.path.strip_prefix("/").unwrap();
            change.kind != ChangeKind::Modify
                || !parent.join(inside).is_dir()
                || !tree.join(inside).is_dir()
        })
        .map(|change| NativeChange {
            path: change.path.strip_prefix("/").unwrap().to_path_buf(),
            kind: change.kind,
        })
        .collect();
    for (path, kind) in [
        ("touched", ChangeKind::Modify),
        ("moved", ChangeKind::Modify),
        ("links", ChangeKind::Add),
        ("never/was", ChangeKind::Add),
    ] {
        native.push(NativeChange {
            path: path.into(),
            kind,
        });
    }
    // A renamed directory is listed without what is in it.
    native.retain(|change| change.path == Path::new("kept") || !change.path.starts_with("kept"));
    native.reverse();
    let found = changes_from_native(&tree, &parent, &native, &MAPS).unwrap();
    assert_eq!(text(&found), text(&expected));

    let mut one = Vec::new();
    export_changes(&tree, &found, &NO_MAPS, &mut one).unwrap();
    same_tar(&timeless(one), &timeless(stream(&view)), "native list");
}

/// Attributes count; what a copy cannot keep does not.
#[test]
fn root_files_are_modified_by_each_attribute() {
    if !is_root() {
        return;
    }
    for (edit, differs) in [
        ("true", false),
        ("cp --preserve=all f copy; mv copy f", false),
        ("touch -d '2020-01-01 00:00:00' f", false),
        ("touch -d '2020-01-01 00:00:00.5' f", true),
        ("touch -d '2020-01-01 00:00:01' f", true),
        ("chmod 600 f; touch -r ../old/f f", true),
        ("chown 1 f; touch -r ../old/f f", true),
        ("echo longer > f; touch -r ../old/f f", true),
        ("echo wrong > f; touch -r ../old/f f", false),
        ("setfattr -n user.a -v b f", true),
        ("setfattr -n trusted.a -v b f", false),
        ("touch d; touch d/x; rm d/x", false),
        ("chmod 700 d", true),
        ("ln -sfn elsewher l; touch -hr ../old/l l", true),
        ("rm n; mknod n c 1 4; touch -r ../old/n n", true),
    ] {
        let root = tempfile::tempdir().unwrap();
        run_script(
            root.path(),
            "mkdir -p old/d; cd old; echo right > f; ln -s somewher l; mknod n c 1 3
             touch -d '2020-01-01 00:00:00.25' f; touch -hd '2020-01-01' l; cp -a ../old ../new",
        );
        run_script(&root.path().join("new"), edit);
        let view = DiffView::Trees {
            tree: root.path().join("new"),
            parent: Some(root.path().join("old")),
        };
        let found = changes(&view, &MAPS).unwrap();
        assert_eq!(!found.is_empty(), differs, "{edit}: {found:?}");
    }
}

#[test]
fn root_owners_are_mapped_and_unknown_ones_refused() {
    if !is_root() {
        return;
    }
    let maps = |host| IdMaps {
        uids: vec![IdMap {
            container_id: 0,
            host_id: host,
            size: 100,
        }],
        gids: vec![IdMap {
            container_id: 0,
            host_id: host,
            size: 100,
        }],
    };
    let root = tempfile::tempdir().unwrap();
    run_script(
        root.path(),
        "mkdir -p old/d new/d; echo f > old/d/f; cp -p old/d/f new/d/f; mknod new/w c 0 0
         chown -R 5000:5001 old; chown -R 6000:6001 new; chown 0:0 new/w",
    );
    let view = DiffView::Trees {
        tree: root.path().join("new/d"),
        parent: Some(root.path().join("old/d")),
    };
    let (layer, parent) = (maps(6000), maps(5000));
    let mapped = DiffMaps {
        layer: &layer,
        parent: &parent,
    };
    assert_eq!(changes(&view, &mapped).unwrap(), []);
    assert_eq!(changes(&view, &MAPS).unwrap().len(), 1);

    let upper = DiffView::Upper {
        upper: root.path().join("new"),
        lowers: Vec::new(),
        whiteouts: WhiteoutForm::Overlay,
    };
    let mut out = Vec::new();
    export(&upper, &mapped, &mut out).unwrap();
    let lines = listing(&out).join("\n");
    assert!(
        lines.contains("d/f mode 0000644 owner 0000000:0000001"),
        "{lines}"
    );
    assert!(
        lines.contains(".wh.w mode 0000000 owner 0000000:0000000"),
        "{lines}"
    );

    let error = export(
        &upper,
        &DiffMaps {
            layer: &parent,
            parent: &parent,
        },
        &mut out,
    )
    .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidArgument);
    assert!(error.about().unwrap().ends_with("new/d"));
    assert_eq!(
        error.to_string(),
        "host owner 6000:6001 cannot be mapped to one of the container"
    );
}

/// A diff of two trees returns only when a change of the same second cannot be missed any more.
#[test]
fn a_fresh_change_is_not_exported_within_its_second() {
    let root = tempfile::tempdir().unwrap();
    run_script(root.path(), "mkdir old new; echo f > new/f");
    let view = DiffView::Trees {
        tree: root.path().join("new"),
        parent: Some(root.path().join("old")),
    };
    stream(&view);
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let time = fs::metadata(root.path().join("new/f")).unwrap().mtime();
    assert!(i64::try_from(now.as_secs()).unwrap() > time);
}

/// `copy` unpacks at once what it packs: times are exact, owners are as asked.
#[test]
fn packed_trees_keep_nanoseconds() {
    let root = tempfile::tempdir().unwrap();
    run_script(
        root.path(),
        "mkdir t; echo f > t/f; touch -d '2020-01-01 00:00:00.125Z' t/f",
    );
    let options = PackOptions {
        id_maps: &NO_MAPS,
        owner: Some((3, 4)),
        nanoseconds: true,
    };
    for source in ["t", "t/f"] {
        let mut out = Vec::new();
        pack_tree(&root.path().join(source), &options, &mut out).unwrap();
        let lines = listing(&out);
        assert_eq!(lines[1], "  24 mtime=1577836800.125\\n");
        assert!(
            lines[2].starts_with("0 f mode 0000644 owner 0000003:0000004 size 2"),
            "{lines:?}"
        );
        assert_eq!(lines[3], "1024 bytes at the end");
    }
}

/// More directories than are kept open, and then a path that is too long for any tool.
#[test]
fn deep_trees_are_walked() {
    let root = tempfile::tempdir().unwrap();
    let name = "d".repeat(25);
    let mut here = openat(CWD, root.path(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut deepen = |levels: usize| {
        for _ in 0..levels {
            mkdirat(&here, &*name, Mode::RWXU).unwrap();
            here = openat(&here, &*name, OFlags::DIRECTORY, Mode::empty()).unwrap();
            drop(openat(&here, "f", OFlags::CREATE, Mode::RUSR).unwrap());
        }
    };
    deepen(150);
    let view = DiffView::Trees {
        tree: root.path().to_path_buf(),
        parent: None,
    };
    assert_eq!(changes(&view, &MAPS).unwrap().len(), 300);
    let files = listing(&stream(&view))
        .iter()
        .filter(|line| line.starts_with("0 "))
        .count();
    assert_eq!(files, 150);
    let nothing = tempfile::tempdir().unwrap();
    let against_nothing = DiffView::Trees {
        tree: root.path().to_path_buf(),
        parent: Some(nothing.path().to_path_buf()),
    };
    assert_eq!(changes(&against_nothing, &MAPS).unwrap().len(), 300);
    assert_eq!(stream(&against_nothing), stream(&view));

    deepen(10);
    let error = changes(&view, &MAPS).unwrap_err();
    assert!(error.to_string().starts_with("cannot walk"), "{error}");
}
