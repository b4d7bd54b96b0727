// SPDX-License-Identifier: Apache-2.0
//! One store, used by containers-storage 1.43 and by this library in turn.

use std::{
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use plywood::{
    ErrorKind, Flags,
    layers::{Layer, NewLayer, UnmountOptions, Unmounted},
    sdk::MountRequest,
};

use crate::layers_support::{Kind, Store, child, id, new, read, write};

/// The other program, on the same store.
struct Oracle<'a>(&'a Store);

impl Oracle<'_> {
    fn try_run(&self, arguments: &[&str], input: &[u8]) -> Result<String, String> {
        let root = self.0.root.path();
        let mut child = Command::new("containers-storage")
            .arg("--graph")
            .arg(root.join("graph"))
            .arg("--run")
            .arg(root.join("run"))
            .args(["--storage-driver", self.0.kind.name()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stdout) + &text(output.stderr))
        }
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments, b"")
            .unwrap_or_else(|text| panic!("{arguments:?}: {text}"))
    }

    /// Its own JSON for the layer, as it reads and would write the record.
    fn record(&self, layer: &str) -> String {
        self.run(&["layer", "--json", layer]).trim().to_owned()
    }
}

/// Whether the other program is here; `REQUIRE=interop` makes its absence a failure.
fn available() -> bool {
    let found = Command::new("containers-storage")
        .arg("--help")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are configured by the environment"
    )]
    let required = std::env::var("REQUIRE").is_ok_and(|list| list.contains("interop"));
    assert!(
        found || !required,
        "containers-storage is required and not installed"
    );
    #[expect(clippy::print_stdout, reason = "a test that cannot run says so")]
    if !found {
        println!("skipped: containers-storage is not installed");
    }
    found
}

/// Podman must see a layer made here with every member, and keep it when it writes.
#[test]
fn interop_records_made_here_are_read_and_kept() {
    if !available() {
        return;
    }
    for kind in [Kind::Vfs, Kind::Overlay] {
        let store = Store::new(kind);
        let oracle = Oracle(&store);
        let mut flags = Flags::default();
        flags.set("purpose", "a<b>&c").unwrap();
        store.create(&new(&id('1'))).unwrap();
        store
            .create(&NewLayer {
                names: vec!["n1".into(), "caf\u{e9}<".into()],
                mount_label: Some("system_u:object_r:container_file_t:s0".into()),
                flags,
                big_data: vec![
                    ("some-key".into(), b"data".to_vec()),
                    ("plain".into(), vec![]),
                ],
                ..child(&id('2'), &id('1'))
            })
            .unwrap();
        write(&store.layers, |w| w.set_metadata(&id('2'), "{\"m\":1}")).unwrap();
        let ours = store.json();
        for digit in ['1', '2'] {
            let theirs = oracle.record(&id(digit));
            assert!(
                ours.contains(theirs.trim_matches(['[', ']'])),
                "{kind:?}: {theirs} in {ours}"
            );
        }
        assert_eq!(oracle.run(&["get-layer-data", "n1", "some-key"]), "data");
        // It writes the file anew from what it read.
        oracle.run(&["set-names", "--name", "x", &id('1')]);
        let rewritten = store.json().replace(r#","names":["x"]"#, "");
        assert_eq!(rewritten, ours, "{kind:?}");
        read(&store.layers, |r| {
            assert_eq!(r.lookup("x").unwrap(), id('1'));
        });
    }
}

/// What podman made must be found here with every member, and survive a change here.
#[test]
fn interop_records_made_there_are_read_and_kept() {
    if !available() {
        return;
    }
    for kind in [Kind::Vfs, Kind::Overlay] {
        let store = Store::new(kind);
        let oracle = Oracle(&store);
        oracle.run(&["create-layer", "--id", &id('1'), "--name", "base"]);
        let tar = crate::layers_support::tar(&[("etc/hosts", "127.0.0.1")]);
        let imported = oracle
            .try_run(&["import-layer", "--id", &id('2'), &id('1')], &tar)
            .unwrap();
        assert!(imported.contains(&id('2')), "{imported}");
        oracle
            .try_run(&["set-layer-data", &id('2'), "Key"], b"value")
            .unwrap();
        let theirs = store.json();
        let layer: Layer = read(&store.layers, |r| r.get(&id('2')[..9])).unwrap();
        assert_eq!(layer.parent, Some(id('1')));
        assert_eq!(layer.diff_size, Some(i64::try_from(tar.len()).unwrap()));
        assert_eq!(layer.diff_digest, Some(plywood::Digest::sha256(&tar)));
        assert_eq!(layer.compressed_digest, layer.diff_digest);
        assert_eq!((&layer.uids[..], &layer.gids[..]), (&[7][..], &[8][..]));
        assert_eq!(layer.big_data_names, ["Key"]);
        read(&store.layers, |r| {
            assert!(r.has_tar_split(&id('2')).unwrap());
            let mut value = String::new();
            let mut file = r.big_data(&id('2'), "Key").unwrap();
            std::io::Read::read_to_string(&mut file, &mut value).unwrap();
            assert_eq!(value, "value");
            let missing = r.big_data(&id('2'), "key").unwrap_err();
            assert_eq!(missing.kind(), ErrorKind::BigDataMissing);
        });
        write(&store.layers, |w| w.set_names("base", &["moved".into()])).unwrap();
        assert_eq!(store.json().replace("moved", "base"), theirs, "{kind:?}");
    }
}

/// Removing on either side must leave nothing behind, of either side's layers.
#[test]
fn interop_each_removes_what_the_other_made() {
    if !available() {
        return;
    }
    for kind in [Kind::Vfs, Kind::Overlay] {
        let store = Store::new(kind);
        let oracle = Oracle(&store);
        let tar = crate::layers_support::tar(&[("f", "x")]);
        store
            .create(&NewLayer {
                big_data: vec![("k".into(), vec![1])],
                ..new(&id('1'))
            })
            .unwrap();
        oracle
            .try_run(&["import-layer", "--id", &id('2'), &id('1')], &tar)
            .unwrap();
        oracle
            .try_run(&["set-layer-data", &id('2'), "k"], b"v")
            .unwrap();
        store.delete(&[&id('2')]).unwrap();
        assert!(oracle.try_run(&["layer", &id('2')], b"").is_err());
        oracle.run(&["delete-layer", &id('1')]);
        read(&store.layers, |r| assert!(r.is_empty()));
        assert_eq!(store.json(), "[]");
        for digit in ['1', '2'] {
            assert!(!store.driver_dir(&id(digit)).exists(), "{kind:?} {digit}");
            assert!(!store.dir().join(id(digit)).exists(), "{kind:?} {digit}");
            let tar_split = store.dir().join(format!("{}.tar-split.gz", id(digit)));
            assert!(!tar_split.exists(), "{kind:?} {digit}");
        }
        assert!(!store.dir().join("tmp").exists());
    }
}

/// Both count the users of one mount together; it goes with the last of them.
#[test]
fn interop_mounts_are_counted_together() {
    if !available() {
        return;
    }
    let store = Store::new(Kind::Vfs);
    let oracle = Oracle(&store);
    let one = id('1');
    store.create(&new(&one)).unwrap();
    let request = MountRequest::default();
    let path = write(&store.layers, |w| w.mount(&one, &request)).unwrap();
    assert_eq!(oracle.run(&["mount", &one]).trim(), path.to_str().unwrap());
    assert_eq!(
        write(&store.layers, |w| w.mount(&one, &request)).unwrap(),
        path
    );
    let count = || read(&store.layers, |r| r.mounted(&one)).unwrap();
    assert_eq!(count(), 3);
    assert!(oracle.run(&["mounted", &one]).contains("mounted"));
    oracle.run(&["unmount", &one]);
    assert_eq!(count(), 2);
    let once = UnmountOptions::default();
    let by_path = write(&store.layers, |w| w.unmount(path.to_str().unwrap(), once)).unwrap();
    assert_eq!(by_path, Unmounted::StillMounted);
    oracle.run(&["unmount", &one]);
    assert_eq!(count(), 0);
    let run = store.root.path().join("run/vfs-layers/mountpoints.json");
    assert_eq!(fs::read_to_string(run).unwrap(), "[]");
    let strict = UnmountOptions {
        only_if_mounted: true,
        ..once
    };
    let error = write(&store.layers, |w| w.unmount(&one, strict)).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::LayerNotMounted, "layer is not mounted")
    );
}

/// A layer that podman was making when it was killed must go, with everything of it.
#[test]
fn interop_incomplete_layers_are_removed_by_the_first_reader() {
    if !available() {
        return;
    }
    let store = Store::new(Kind::Vfs);
    let oracle = Oracle(&store);
    let tar = crate::layers_support::tar(&[("f", "x")]);
    oracle
        .try_run(&["import-layer", "--id", &id('1')], &tar)
        .unwrap();
    oracle
        .try_run(&["import-layer", "--id", &id('2')], &tar)
        .unwrap();
    let path = store.dir().join("layers.json");
    let marked = store.json().replacen(
        "],\"gidset\":[8]}]",
        "],\"gidset\":[8],\"flags\":{\"incomplete\":true}}]",
        1,
    );
    assert_ne!(marked, store.json());
    fs::write(&path, marked).unwrap();
    let other = store.other();
    read(&other, |r| {
        assert!(r.exists(&id('1')));
        assert!(!r.exists(&id('2')));
    });
    assert!(!store.json().contains("incomplete"));
    assert!(!store.driver_dir(&id('2')).exists());
    assert!(
        !store
            .dir()
            .join(format!("{}.tar-split.gz", id('2')))
            .exists()
    );
    assert_eq!(
        other.take_reclaimed(),
        [format!("incomplete layer {}", id('2'))]
    );
    assert!(other.take_reclaimed().is_empty());
}

/// Podman and Plywood at work at the same time must not lose each other's layers.
#[test]
fn interop_both_change_layers_at_the_same_time() {
    if !available() {
        return;
    }
    for kind in [Kind::Vfs, Kind::Overlay] {
        let store = Store::new(kind);
        let oracle = Oracle(&store);
        let tar = crate::layers_support::tar(&[("f", "x")]);
        oracle
            .try_run(&["import-layer", "--id", &id('b')], &tar)
            .unwrap();
        let name = |who: &str, number: usize| format!("{who}{number:063}");
        let (rounds, kept) = (12, [1, 4, 7, 10]);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..rounds {
                    let id = name("a", number);
                    oracle
                        .try_run(&["import-layer", "--id", &id, &self::id('b')], &tar)
                        .unwrap();
                    if !kept.contains(&number) {
                        oracle.run(&["delete-layer", &id]);
                    }
                }
            });
            for who in ["c", "d"] {
                let (layers, tar) = (store.other(), &tar);
                scope.spawn(move || {
                    for number in 0..rounds {
                        let layer = child(&name(who, number), &id('b'));
                        let mut held = plywood::locking::order::Held::nothing();
                        let how = plywood::layers::PutOptions::default();
                        layers.put(&mut held, &layer, &tar[..], how).unwrap();
                        if !kept.contains(&number) {
                            write(&layers, |w| w.delete(&[name(who, number)]))
                                .unwrap()
                                .run()
                                .unwrap();
                        }
                    }
                });
            }
        });
        let mut expected = vec![id('b')];
        for who in ["a", "c", "d"] {
            expected.extend(kept.map(|number| name(who, number)));
        }
        expected.sort();
        let mut seen = read(&store.layers, |r| {
            r.iter().map(|l| l.id.clone()).collect::<Vec<_>>()
        });
        seen.sort();
        assert_eq!(seen, expected, "{kind:?}");
        for id in &expected {
            let stream = oracle.run(&["diff", "--uncompressed", id]);
            assert_eq!(stream.as_bytes(), tar, "{kind:?} {id}");
        }
        assert_eq!(
            crate::layers_support::collect_garbage(&store.layers),
            [""; 0],
            "{kind:?}"
        );
    }
}
