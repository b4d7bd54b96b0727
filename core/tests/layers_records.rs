// SPDX-License-Identifier: Apache-2.0
//! Layers are recorded as containers/storage does it, and changes by others are seen.

use std::fs;

use plywood::{
    Digest, ErrorKind,
    layers::{LayerStore, NewLayer},
};

use crate::layers_support::{Kind, Store, child, id, names, new, options, read, write};

/// Podman must find a layer that was made here exactly as it would have written it.
#[test]
fn a_new_layer_has_the_members_of_the_format_in_their_order() {
    let store = Store::new(Kind::Vfs);
    let base = store
        .create(&NewLayer {
            names: vec!["base".into(), "base".into(), "b&b".into()],
            mount_label: Some("system_u:object_r:x".into()),
            big_data: vec![("some-key".into(), b"data".to_vec())],
            ..new(&id('1'))
        })
        .unwrap();
    assert_eq!(
        store.json(),
        format!(
            concat!(
                r#"[{{"id":"{}","names":["base","b\u0026b"],"mountlabel":"system_u:object_r:x","#,
                r#""created":"{}","big-data-names":["some-key"]}}]"#
            ),
            id('1'),
            base.created
        )
    );
    let data = store.dir().join(id('1')).join("=c29tZS1rZXk=");
    assert_eq!(fs::read(data).unwrap(), b"data");
    assert!(store.driver_dir(&id('1')).is_dir());
    assert_eq!(names(&store.dir().join("tmp")), [""; 0]);
    assert!(!store.dir().join("tmp").exists(), "1.43 trips over it");
}

/// Each refused creation must leave neither record nor directory.
#[test]
fn creation_is_refused_in_the_order_of_go_and_without_a_trace() {
    let store = Store::new(Kind::Vfs);
    store
        .create(&NewLayer {
            names: vec!["taken".into()],
            ..new(&id('1'))
        })
        .unwrap();
    let before = store.json();
    let cases = [
        (
            child(&id('1'), "none"),
            ErrorKind::LayerUnknown,
            "layer not known",
        ),
        (
            new(&id('1')),
            ErrorKind::DuplicateId,
            "that ID is already in use",
        ),
        (
            NewLayer {
                names: vec!["free".into(), "taken".into()],
                template: Some("none".into()),
                ..new(&id('2'))
            },
            ErrorKind::DuplicateName,
            "that name is already in use",
        ),
        (
            NewLayer {
                template: Some("none".into()),
                ..new(&id('2'))
            },
            ErrorKind::LayerUnknown,
            "layer not known",
        ),
        (
            NewLayer {
                big_data: vec![(String::new(), Vec::new())],
                ..new(&id('2'))
            },
            ErrorKind::InvalidBigDataName,
            "can't set empty name for layer big data item: not a valid name for a big data item",
        ),
    ];
    for (case, kind, text) in cases {
        let error = store.create(&case).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().as_str()),
            (kind, text),
            "{case:?}"
        );
    }
    let of_another = format!("{}.tar-split.gz", id('1'));
    let reserved = [
        "tmp",
        "layers.json",
        "layers.lock",
        "volatile-layers.json",
        &of_another,
    ];
    for bad in ["../bad", "", "a/b", "x."].into_iter().chain(reserved) {
        let error = store.create(&new(bad)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad:?}");
    }
    let unusable = NewLayer {
        big_data: vec![("/".into(), b"x".to_vec())],
        ..new(&id('3'))
    };
    assert_eq!(
        store.create(&unusable).unwrap_err().kind(),
        ErrorKind::InvalidBigDataName
    );
    assert_eq!(store.json(), before);
    assert!(!store.driver_dir(&id('3')).exists());
    assert!(!store.dir().join(id('3')).exists());
}

/// A user who types the beginning of an id must get that layer or be told which ones there are.
#[test]
fn layers_are_found_by_id_name_and_unique_prefix() {
    let store = Store::new(Kind::Vfs);
    let (one, two) = (
        format!("ab{}", "1".repeat(62)),
        format!("ab{}", "2".repeat(62)),
    );
    for id in [&one, &two] {
        store.create(&new(id)).unwrap();
    }
    write(&store.layers, |w| w.set_names(&one, &["ab2".into()])).unwrap();
    read(&store.layers, |r| {
        assert_eq!(r.lookup(&one).unwrap(), one);
        assert_eq!(r.lookup("ab2").unwrap(), one, "a name goes before a prefix");
        assert_eq!(r.lookup("ab22").unwrap(), two);
        let error = r.lookup("ab").unwrap_err();
        assert_eq!(error.to_string(), "layer not known");
        let hint = error.remedy().unwrap();
        assert!(hint.contains("ab11") && hint.contains("ab22"), "{hint}");
        assert!(r.lookup("c").unwrap_err().remedy().is_none());
        assert!(r.lookup("").is_err());
    });
}

/// A name belongs to one layer; giving it away must not leave it in two records.
#[test]
fn names_move_between_layers() {
    let store = Store::new(Kind::Vfs);
    for digit in ['1', '2'] {
        store.create(&new(&id(digit))).unwrap();
    }
    let list = |text: &str| -> Vec<String> { text.split_whitespace().map(str::to_owned).collect() };
    write(&store.layers, |w| {
        w.set_names(&id('1'), &list("a b c")).unwrap();
        w.add_names(&id('2'), &list("x b")).unwrap();
        w.remove_names(&id('1'), &list("c")).unwrap();
        w.set_metadata("x", "m").unwrap();
        w.set_flag("x", "seen", &true).unwrap();
        let refused = w.set_flag("x", "incomplete", &true).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
        assert_eq!(
            w.set_names("zz", &[]).unwrap_err().kind(),
            ErrorKind::LayerUnknown
        );
    });
    read(&store.other(), |r| {
        assert_eq!(r.names(&id('1')).unwrap(), ["a"]);
        assert_eq!(r.names(&id('2')).unwrap(), ["x", "b"]);
        assert_eq!(r.metadata("b").unwrap(), "m");
        assert!(r.get("b").unwrap().flags.is_set("seen"));
    });
}

/// What another program adds to a record must survive a change made here.
#[test]
fn unknown_members_survive_and_changes_by_hand_are_seen() {
    let store = Store::new(Kind::Vfs);
    store.create(&new(&id('1'))).unwrap();
    let text = store.json().replace(
        r#""created""#,
        r#""Future":{"n":12345678901234567890,"z":[1.50]},"created""#,
    );
    fs::write(store.dir().join("layers.json"), &text).unwrap();
    write(&store.layers, |w| w.set_metadata(&id('1'), "new")).unwrap();
    let json = store.json();
    assert!(
        json.contains(r#""Future":{"n":12345678901234567890,"z":[1.50]}"#),
        "{json}"
    );
    assert!(json.contains(r#""metadata":"new""#), "{json}");
}

/// A half-written file must neither be taken for an empty store nor be overwritten.
#[test]
fn damaged_records_are_reported_and_never_overwritten() {
    let store = Store::new(Kind::Vfs);
    store.create(&new(&id('1'))).unwrap();
    let path = store.dir().join("layers.json");
    let whole = store.json();
    for damaged in [
        &whole[..whole.len() / 2],
        "{",
        "[1]",
        r#"[{"id":3}]"#,
        "[]x",
        "",
    ] {
        fs::write(&path, damaged).unwrap();
        for layers in [store.layers.clone(), store.other()] {
            let mut held = plywood::locking::order::Held::nothing();
            let error = layers.read(&mut held).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{damaged}");
            assert!(error.to_string().contains("layers.json"), "{error}");
            assert_eq!(
                layers.write(&mut held).unwrap_err().kind(),
                ErrorKind::Corrupt
            );
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
    }
    fs::write(&path, &whole).unwrap();
    read(&store.layers, |r| assert!(r.exists(&id('1'))));
    for empty in ["null", "[]"] {
        fs::write(&path, empty).unwrap();
        read(&store.layers, |r| assert!(r.is_empty(), "{empty:?}"));
    }
}

/// Names and ids that two records claim are resolved as containers/storage resolves them.
#[test]
fn repeated_ids_and_names_are_resolved() {
    let store = Store::new(Kind::Vfs);
    let record = |digit: char, names: &str| {
        format!(
            r#"{{"id":"{}","names":[{names}],"created":"2026-01-02T03:04:05Z"}}"#,
            id(digit)
        )
    };
    let text = format!(
        "[{},{},{}]",
        record('1', r#""a","b""#),
        record('2', r#""b""#),
        record('1', r#""late""#)
    );
    fs::write(store.dir().join("layers.json"), text).unwrap();
    let volatile = format!("[{},{}]", record('2', r#""v""#), record('3', r#""w""#));
    fs::write(store.dir().join("volatile-layers.json"), &volatile).unwrap();
    read(&store.layers, |r| {
        assert_eq!(r.len(), 3);
        assert_eq!(r.names(&id('1')).unwrap(), ["a"]);
        assert_eq!(r.lookup("b").unwrap(), id('2'));
        assert_eq!(r.lookup("w").unwrap(), id('3'));
        assert!(r.lookup("late").is_err() && r.lookup("v").is_err());
    });
    assert!(
        !store.json().contains(r#""a","b""#),
        "the resolution is saved at once"
    );
    write(&store.layers, |w| w.set_metadata("w", "kept where it was")).unwrap();
    assert!(!store.json().contains(&id('3')));
}

/// Layers must be found by every digest of theirs, also after one of them is gone.
#[test]
fn layers_are_found_by_digest() {
    let store = Store::new(Kind::Vfs);
    let (a, b) = (Digest::sha256(b"a"), Digest::sha256(b"b"));
    let record = |digit: char, members: &str| {
        format!(
            r#"{{"id":"{}","created":"2026-01-02T03:04:05Z",{members}}}"#,
            id(digit)
        )
    };
    let text = format!(
        "[{},{}]",
        record(
            '1',
            &format!(r#""compressed-diff-digest":"{a}","diff-digest":"{b}","diff-size":9"#)
        ),
        record(
            '2',
            &format!(r#""diff-digest":"{b}","toc-digest":"{a}","diff-size":-1"#)
        ),
    );
    fs::write(store.dir().join("layers.json"), text).unwrap();
    read(&store.layers, |r| {
        let ids = |layers: Vec<plywood::layers::Layer>| -> Vec<String> {
            layers.into_iter().map(|layer| layer.id).collect()
        };
        assert_eq!(ids(r.by_compressed_digest(&a)), [id('1')]);
        assert_eq!(ids(r.by_diff_digest(&b)), [id('1'), id('2')]);
        assert_eq!(ids(r.by_toc_digest(&a)), [id('2')]);
        assert_eq!(
            (r.size(&id('1')).unwrap(), r.size(&id('2')).unwrap()),
            (9, -1)
        );
    });
    store.delete(&[&id('1')]).unwrap();
    read(&store.layers, |r| {
        assert!(r.by_compressed_digest(&a).is_empty());
        assert_eq!(r.by_diff_digest(&b).len(), 1);
    });
}

/// Without its driver a store must still be listed and described.
#[test]
fn records_are_usable_without_the_driver() {
    let store = Store::new(Kind::Vfs);
    store.create(&new(&id('1'))).unwrap();
    let layers = LayerStore::open(options(store.root.path(), store.kind)).unwrap();
    read(&layers, |r| assert_eq!(r.list().len(), 1));
    write(&layers, |w| {
        w.set_metadata(&id('1'), "m").unwrap();
        for refused in [
            w.create(&new(&id('2'))).map(drop),
            w.delete(&[id('1')]).map(drop),
            w.mount(&id('1'), &plywood::sdk::MountRequest::default())
                .map(drop),
        ] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::DriverUnavailable);
        }
    });
    assert!(store.json().contains(&id('1')));
}

/// A failed save must not leave records in memory that nobody has written.
#[test]
fn after_a_failed_save_the_records_are_those_on_disk() {
    let store = Store::new(Kind::Vfs);
    store.create(&new(&id('1'))).unwrap();
    let path = store.dir().join("layers.json");
    let text = store.json();
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    let mut held = plywood::locking::order::Held::nothing();
    assert!(store.layers.read(&mut held).is_err());
    fs::remove_dir(&path).unwrap();
    fs::write(&path, &text).unwrap();
    write(&store.layers, |w| {
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(w.set_metadata(&id('1'), "lost").is_err());
        assert!(w.create(&new(&id('2'))).is_err());
        fs::remove_dir(&path).unwrap();
        fs::write(&path, &text).unwrap();
        w.set_names(&id('1'), &["n".into()]).unwrap();
        assert_eq!(w.metadata("n").unwrap(), "");
        assert!(!w.exists(&id('2')));
    });
    assert!(!store.driver_dir(&id('2')).exists());
}

/// An id that another program accepted must not lead to files of the store or outside of it.
#[test]
fn ids_of_others_lead_to_no_file_of_the_store() {
    let store = Store::new(Kind::Vfs);
    store.create(&new(&id('1'))).unwrap();
    let ids = ["../../outside", "layers.json", "tmp", "a/b", "-x"];
    let record = |id: &str| format!(r#"{{"id":"{id}","created":"2026-01-02T03:04:05Z"}}"#);
    let text = store
        .json()
        .replace(']', &format!(",{}]", ids.map(record).join(",")));
    fs::write(store.dir().join("layers.json"), text).unwrap();
    let outside = store.root.path().join("outside");
    fs::create_dir_all(store.dir().join("tmp/kept")).unwrap();
    for directory in [&outside, &store.root.path().join("graph/outside")] {
        fs::create_dir_all(directory).unwrap();
    }
    read(&store.layers, |r| {
        for id in ids {
            assert_eq!(r.lookup(id).unwrap(), id);
            assert!(r.big_data(id, "k").is_err());
        }
    });
    store.delete(&ids).unwrap();
    assert!(outside.exists() && store.root.path().join("graph/outside").exists());
    assert!(store.dir().join("tmp/kept").exists());
    read(&store.other(), |r| assert_eq!(r.len(), 1));
}

/// Parents that are missing or go round in circles must be reported, not followed for ever.
#[test]
fn damaged_chains_are_reported() {
    let store = Store::new(Kind::Vfs);
    let record = |digit: char, parent: char| {
        format!(
            r#"{{"id":"{}","parent":"{}","created":"2026-01-02T03:04:05Z"}}"#,
            id(digit),
            id(parent)
        )
    };
    let records = [record('1', '2'), record('2', '1'), record('3', '9')];
    let text = format!("[{}]", records.join(","));
    fs::write(store.dir().join("layers.json"), text).unwrap();
    read(&store.layers, |r| {
        for (digit, parent, why) in [('1', '1', "stands on it in turn"), ('3', '9', "is missing")] {
            let error = r.chain(&id(digit)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert_eq!(error.about(), Some(&*id(parent)));
            assert!(error.to_string().ends_with(why), "{error}");
        }
        assert_eq!(r.children(&id('1')), [id('2')]);
        assert_eq!(r.list().len(), 3);
    });
}

/// A long-running program must not read a large store again and again while nobody changes it.
#[test]
fn records_are_read_again_only_after_a_change() {
    let store = Store::new(Kind::Vfs);
    store.create(&new(&id('1'))).unwrap();
    read(&store.layers, |r| assert_eq!(r.len(), 1));
    // The same length, inode and time, so that nothing but reading it could tell.
    let path = store.dir().join("layers.json");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    let text = store.json();
    fs::write(&path, "x".repeat(text.len())).unwrap();
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_modified(modified).unwrap();
    read(&store.layers, |r| assert_eq!(r.len(), 1));
    write(&store.layers, |w| assert_eq!(w.len(), 1));
    let mut held = plywood::locking::order::Held::nothing();
    assert_eq!(
        store.other().read(&mut held).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    fs::write(&path, &text).unwrap();
    write(&store.other(), |w| w.set_metadata(&id('1'), "new")).unwrap();
    read(&store.layers, |r| {
        assert_eq!(r.metadata(&id('1')).unwrap(), "new");
    });
}
