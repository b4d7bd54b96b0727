// SPDX-License-Identifier: Apache-2.0
//! Layers are filled, compared, mounted and exported, whatever the driver.

use std::{
    fs,
    io::{self, Cursor},
    path::Path,
    sync::Barrier,
};

use plywood::{
    Digest, Error, ErrorKind, Result,
    archive::Compression,
    layers::{DiffOptions, Layer, LayerStore, NewLayer, PutOptions, UnmountOptions, Unmounted},
    locking::order::Held,
    sdk::{self, ChangeKind, LayerKind, MountRequest},
};

use crate::layers_support::{
    Kind, STUBBORN, Store, child, collect_garbage, id, mounts_below, names, new, open, options,
    read, tar, wipe, write,
};

fn put(store: &LayerStore, layer: &NewLayer, bytes: Vec<u8>) -> Result<(Layer, u64)> {
    store.put(
        &mut Held::nothing(),
        layer,
        Cursor::new(bytes),
        PutOptions::default(),
    )
}

fn diff(store: &LayerStore, from: Option<&str>, to: &str, how: DiffOptions) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let length = store.diff(&mut Held::nothing(), from, to, how, &mut out)?;
    if how.compression == Some(Compression::None) {
        assert_eq!(out.len() as u64, length);
    }
    Ok(out)
}

fn plain() -> DiffOptions {
    let mut how = DiffOptions::default();
    how.compression = Some(Compression::None);
    how
}

fn container(digit: char, parent: &str) -> NewLayer {
    NewLayer {
        kind: LayerKind::ReadWrite,
        ..child(&id(digit), parent)
    }
}

/// A pulled layer must have the digests that were announced and give its stream back.
#[test]
fn root_a_put_layer_is_recorded_and_gives_its_stream_back() {
    for kind in Kind::ALL {
        let store = Store::new(kind);
        let stream = tar(&[("etc/hosts", "127.0.0.1"), ("bin/sh", "#!")]);
        let named = NewLayer {
            names: vec!["base".into()],
            ..new(&id('1'))
        };
        let (layer, size) = put(&store.layers, &named, stream.clone()).unwrap();
        let digest = Digest::sha256(&stream);
        assert_eq!(size, stream.len() as u64);
        assert_eq!(layer.diff_digest.as_ref(), Some(&digest));
        assert_eq!(layer.compressed_digest.as_ref(), Some(&digest));
        assert_eq!(layer.diff_size, Some(i64::try_from(size).unwrap()));
        assert_eq!((&layer.uids[..], &layer.gids[..]), (&[7][..], &[8][..]));
        assert_eq!(
            read(&store.other(), |r| r.get("base")).unwrap(),
            layer,
            "{kind:?}"
        );
        assert_eq!(
            diff(&store.layers, None, "base", plain()).unwrap(),
            stream,
            "{kind:?}"
        );
        assert!(!store.dir().join("tmp").exists());
        read(&store.layers, |r| {
            assert_eq!(r.by_diff_digest(&digest).len(), 1);
        });
    }
}

/// What a caller says about the stream as it came is recorded, for podman does the same.
#[test]
fn root_the_original_digest_of_the_caller_is_recorded() {
    let store = Store::new(Kind::Vfs);
    let given = NewLayer {
        original_digest: Some(Digest::sha256(b"blob")),
        original_size: Some(77),
        ..new(&id('1'))
    };
    let (layer, _) = put(&store.layers, &given, tar(&[("f", "x")])).unwrap();
    assert_eq!(layer.compressed_digest, given.original_digest);
    assert_eq!(layer.compressed_size, Some(77));
    assert_ne!(layer.diff_digest, layer.compressed_digest);
}

/// An empty stream is a layer; its sizes and sets are left out as containers/storage does.
#[test]
fn root_an_empty_stream_is_a_layer() {
    let store = Store::new(Kind::Vfs);
    let (layer, size) = put(&store.layers, &new(&id('1')), Vec::new()).unwrap();
    assert_eq!(size, 0);
    assert_eq!(layer.diff_digest, Some(Digest::sha256(b"")));
    assert_eq!(layer.diff_size, None);
    assert!(!store.json().contains("size") && !store.json().contains("uidset"));
    read(&store.layers, |r| assert_eq!(r.size(&id('1')).unwrap(), 0));
}

/// A stream that cannot be unpacked must leave nothing at all.
#[test]
fn root_a_refused_stream_leaves_nothing() {
    for kind in Kind::ALL {
        let store = Store::new(kind);
        put(&store.layers, &new(&id('1')), tar(&[("f", "x")])).unwrap();
        let before = store.json();
        let whole = tar(&[("f", "x"), ("g", "y")]);
        let cut = whole[..1100].to_vec();
        let twice = tar(&[("f", "x"), ("./f", "y")]);
        for (what, bytes) in [("cut", cut), ("twice", twice), ("noise", vec![b'?'; 2000])] {
            let error = put(&store.layers, &child(&id('2'), &id('1')), bytes).unwrap_err();
            assert_eq!(
                error.kind(),
                ErrorKind::InvalidArchive,
                "{kind:?} {what}: {error:?}"
            );
            assert_eq!(store.json(), before, "{kind:?} {what}");
            assert!(!store.driver_dir(&id('2')).exists(), "{kind:?} {what}");
            let left = names(&store.dir());
            assert!(!left.iter().any(|name| name.contains(&id('2'))), "{left:?}");
            assert!(!store.dir().join("tmp").exists(), "{kind:?} {what}");
            let staged = store.driver_dir("").parent().unwrap().join("tempdirs");
            assert!(!staged.exists(), "{kind:?} {what}");
        }
        put(&store.layers, &child(&id('2'), &id('1')), whole).unwrap();
    }
}

/// The caller's check is made under the lock, and what it refuses leaves nothing.
#[test]
fn root_the_callers_check_is_asked() {
    for kind in Kind::ALL {
        let store = Store::new(kind);
        put(&store.layers, &new(&id('1')), tar(&[])).unwrap();
        let asked = std::cell::RefCell::new(Vec::new());
        let mut how = PutOptions::default();
        let check = |_: &plywood::layers::LayersView<'_>,
                     parent: Option<&str>,
                     _: &mut Held<'_, plywood::locking::order::RoLayers>| {
            asked.borrow_mut().push(parent.map(str::to_owned));
            Err(Error::new(
                ErrorKind::ParentIsContainer,
                "would-be parent layer is a container",
            ))
        };
        how.check = Some(&check);
        let layer = child(&id('2'), &id('1')[..5]);
        let refused = store
            .layers
            .put(&mut Held::nothing(), &layer, Cursor::new(tar(&[])), how);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::ParentIsContainer);
        assert_eq!(*asked.borrow(), [Some(id('1'))]);
        assert!(!store.driver_dir(&id('2')).exists());
    }
}

/// Of two processes that make the same layer, one gets it and the other is told so.
#[test]
fn root_the_same_layer_put_by_many_appears_once() {
    for kind in Kind::ALL {
        let store = Store::new(kind);
        put(&store.layers, &new(&id('1')), tar(&[("base", "x")])).unwrap();
        let outcomes: Vec<_> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..6)
                .map(|number| {
                    let root = store.root.path();
                    scope.spawn(move || {
                        let layers = open(root, kind);
                        let text = number.to_string();
                        put(&layers, &child(&id('2'), &id('1')), tar(&[("who", &text)]))
                    })
                })
                .collect();
            workers
                .into_iter()
                .map(|worker| worker.join().unwrap())
                .collect()
        });
        let made: Vec<&Layer> = outcomes.iter().flatten().map(|(layer, _)| layer).collect();
        assert_eq!(made.len(), 1, "{kind:?}");
        for error in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
            assert_eq!(error.kind(), ErrorKind::DuplicateId, "{error:?}");
        }
        let stream = diff(&store.layers, None, &id('2'), plain()).unwrap();
        assert_eq!(
            Some(Digest::sha256(&stream)),
            made[0].diff_digest,
            "{kind:?}"
        );
        assert!(!store.dir().join("tmp").exists());
    }
}

/// Writing through a mount shows in changes, size and diff; the diff makes the same layer again.
#[test]
fn root_what_is_written_through_a_mount_is_the_diff() {
    for kind in Kind::ALL {
        let store = Store::new(kind);
        let base = tar(&[("keep", "k"), ("change", "old"), ("remove", "r")]);
        put(&store.layers, &new(&id('1')), base).unwrap();
        store.create(&container('2', &id('1'))).unwrap();
        let request = MountRequest::default();
        let path = write(&store.layers, |w| w.mount(&id('2'), &request)).unwrap();
        assert_eq!(fs::read(path.join("keep")).unwrap(), b"k", "{kind:?}");
        fs::write(path.join("change"), "newer").unwrap();
        fs::remove_file(path.join("remove")).unwrap();
        fs::write(path.join("add"), "a").unwrap();
        let mut held = Held::nothing();
        let changes = store.layers.changes(&mut held, None, &id('2')).unwrap();
        let changes: Vec<_> = changes
            .iter()
            .filter(|change| change.path != Path::new("/"))
            .map(|change| (change.path.to_str().unwrap(), change.kind))
            .collect();
        let expected = [
            ("/add", ChangeKind::Add),
            ("/change", ChangeKind::Modify),
            ("/remove", ChangeKind::Delete),
        ];
        assert_eq!(changes, expected, "{kind:?}");
        let size = store.layers.diff_size(&mut held, None, &id('2')).unwrap();
        assert_eq!(size, 6, "{kind:?}");
        let once = UnmountOptions::default();
        assert_eq!(
            write(&store.layers, |w| w.unmount(&id('2'), once)).unwrap(),
            Unmounted::Gone
        );
        assert_eq!(
            mounts_below(&path),
            [""; 0].map(Into::<std::path::PathBuf>::into)
        );
        let stream = diff(&store.layers, None, &id('2'), plain()).unwrap();
        put(&store.layers, &container('3', &id('1')), stream).unwrap();
        let path = write(&store.layers, |w| w.mount(&id('3'), &request)).unwrap();
        assert_eq!(names(&path), ["add", "change", "keep"], "{kind:?}");
        assert_eq!(fs::read(path.join("change")).unwrap(), b"newer", "{kind:?}");
        write(&store.layers, |w| w.unmount(&id('3'), once)).unwrap();
    }
}

/// A stream unpacked into an existing layer is recorded as that layer's.
#[test]
fn root_a_stream_is_applied_to_a_layer() {
    for kind in Kind::ALL {
        let store = Store::new(kind);
        store.create(&new(&id('1'))).unwrap();
        let stream = tar(&[("f", "x")]);
        let mut held = Held::nothing();
        let how = PutOptions::default();
        let size = store
            .layers
            .apply(&mut held, &id('1'), Cursor::new(stream.clone()), how);
        assert_eq!(size.unwrap(), stream.len() as u64);
        let layer = read(&store.layers, |r| r.get(&id('1'))).unwrap();
        assert_eq!(layer.diff_digest, Some(Digest::sha256(&stream)));
        assert_eq!(
            diff(&store.layers, None, &id('1'), plain()).unwrap(),
            stream
        );
        let unknown = store
            .layers
            .apply(&mut held, "zz", Cursor::new(stream), how);
        assert_eq!(unknown.unwrap_err().kind(), ErrorKind::LayerUnknown);
    }
}

/// Whoever mounts a mounted layer shares the mount; a mount that the kernel lost is made anew.
#[test]
fn root_mounts_are_counted_and_renewed() {
    let store = Store::new(Kind::Overlay);
    put(&store.layers, &new(&id('1')), tar(&[("f", "x")])).unwrap();
    store.create(&container('2', &id('1'))).unwrap();
    let request = MountRequest::default();
    let mount = |layers: &LayerStore| write(layers, |w| w.mount(&id('2'), &request)).unwrap();
    let unmount = |force| {
        let how = UnmountOptions {
            force,
            ..UnmountOptions::default()
        };
        write(&store.layers, |w| w.unmount(&id('2'), how)).unwrap()
    };
    let path = mount(&store.layers);
    assert_eq!(mount(&store.other()), path);
    assert_eq!(mounts_below(&path).len(), 1, "the second one only counts");
    rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!(mount(&store.layers), path);
    assert_eq!(fs::read(path.join("f")).unwrap(), b"x");
    assert_eq!(read(&store.layers, |r| r.mounted(&id('2'))).unwrap(), 3);
    assert_eq!(unmount(false), Unmounted::StillMounted);
    assert_eq!(unmount(true), Unmounted::Gone);
    assert_eq!(mounts_below(&path).len(), 0);
    mount(&store.layers);
    mount(&store.layers);
    store.delete(&[&id('2')]).unwrap();
    assert_eq!(
        mounts_below(&path).len(),
        0,
        "a removed layer is unmounted first"
    );
    read(&store.layers, |r| {
        assert!(r.mounted_layers().unwrap().is_empty());
    });
}

/// A mount that a killed process could not record must neither be covered nor stay for ever.
#[test]
fn root_a_mount_without_a_record_is_taken_over() {
    let store = Store::new(Kind::Overlay);
    store.create(&new(&id('1'))).unwrap();
    let request = MountRequest::default();
    let path = write(&store.layers, |w| w.mount(&id('1'), &request)).unwrap();
    let record = store
        .root
        .path()
        .join("run/overlay-layers/mountpoints.json");
    let forget = || {
        fs::write(&record, "[]").unwrap();
        store.other()
    };
    let layers = forget();
    assert_eq!(
        write(&layers, |w| w.mount(&id('1'), &request)).unwrap(),
        path
    );
    assert_eq!(mounts_below(&path).len(), 1);
    let layers = forget();
    let force = UnmountOptions {
        force: true,
        ..UnmountOptions::default()
    };
    assert_eq!(
        write(&layers, |w| w.unmount(&id('1'), force)).unwrap(),
        Unmounted::Gone
    );
    assert_eq!(mounts_below(&path).len(), 0);
    write(&layers, |w| w.mount(&id('1'), &request)).unwrap();
    let layers = forget();
    let deleted = write(&layers, |w| w.delete(&[id('1')])).unwrap();
    deleted.run().unwrap();
    assert_eq!(mounts_below(&path).len(), 0, "and removed with its layer");
}

/// Whoever asks for a read-only mount must not get a writable one, nor the other way round.
#[test]
fn root_a_mount_is_shared_only_by_those_who_want_the_same() {
    let store = Store::new(Kind::Overlay);
    store.create(&new(&id('1'))).unwrap();
    let (writable, mut read_only) = (MountRequest::default(), MountRequest::default());
    read_only.read_only = true;
    for (first, second) in [(&writable, &read_only), (&read_only, &writable)] {
        let path = write(&store.layers, |w| w.mount(&id('1'), first)).unwrap();
        let refused = write(&store.layers, |w| w.mount(&id('1'), second)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Busy);
        let written = fs::write(path.join("probe"), "x");
        assert_eq!(written.is_err(), first.read_only);
        let once = UnmountOptions::default();
        assert_eq!(
            write(&store.layers, |w| w.unmount(&id('1'), once)).unwrap(),
            Unmounted::Gone
        );
    }
}

/// A mount that the driver refuses is not counted.
#[test]
fn root_a_refused_mount_is_not_counted() {
    let store = Store::new(Kind::Overlay);
    store.create(&new(&id('1'))).unwrap();
    let mut request = MountRequest::default();
    request.options = vec!["no-such-option=1".into()];
    assert!(write(&store.layers, |w| w.mount(&id('1'), &request)).is_err());
    read(&store.layers, |r| {
        assert_eq!(r.mounted(&id('1')).unwrap(), 0);
    });
    assert_eq!(mounts_below(&store.driver_dir(&id('1'))).len(), 0);
}

/// Layers of another store can be parents and are shown, and are never changed.
#[test]
fn root_layers_of_a_read_only_store_are_parents() {
    let base = Store::new(Kind::Vfs);
    put(&base.layers, &new(&id('1')), tar(&[("f", "x")])).unwrap();
    write(&base.layers, |w| w.set_names(&id('1'), &["base".into()])).unwrap();
    let store = Store::new(Kind::Vfs);
    let home = base.root.path().join("graph/vfs");
    let layers = {
        let mut with = options(store.root.path(), store.kind);
        with.read_only_stores = vec![base.dir()];
        with.driver = Some(Kind::Vfs.open_with(
            store.root.path(),
            &[&format!(
                "vfs.imagestore={}",
                base.root.path().join("graph").display()
            )],
        ));
        LayerStore::open(with).unwrap()
    };
    let before = base.json();
    write(&layers, |w| {
        let layer = w.create(&child(&id('2'), "base")).unwrap();
        assert_eq!(layer.parent, Some(id('1')));
        for refused in [
            w.set_metadata("base", "m"),
            w.set_names("base", &[]),
            w.set_big_data("base", "k", b""),
            w.delete(&["base"]).map(drop),
            w.mount("base", &MountRequest::default()).map(drop),
        ] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::StoreIsReadOnly);
            assert!(
                error
                    .to_string()
                    .ends_with("called a write method on a read-only store")
            );
        }
    });
    read(&layers, |r| {
        let all = r.list();
        let seen: Vec<_> = all.iter().map(|l| (l.id.clone(), l.read_only)).collect();
        assert_eq!(seen, [(id('2'), false), (id('1'), true)]);
        assert_eq!(r.chain(&id('2')).unwrap().len(), 2);
        assert!(r.has_tar_split("base").unwrap());
    });
    assert_eq!(
        diff(&layers, None, "base", plain()).unwrap(),
        tar(&[("f", "x")])
    );
    assert_eq!(base.json(), before);
    assert!(home.join("dir").join(id('1')).exists());
}

/// Everything that no record knows goes, and nothing else.
#[test]
fn root_garbage_is_collected_and_wiped() {
    for kind in Kind::ALL {
        let store = Store::new(kind);
        put(&store.layers, &new(&id('1')), tar(&[("f", "x")])).unwrap();
        put(&store.layers, &new(&id('2')), tar(&[("g", "y")])).unwrap();
        let one_only = store.json();
        store.delete(&[&id('2')]).unwrap();
        let path = store.dir().join("layers.json");
        let without = store.json();
        put(&store.layers, &new(&id('2')), tar(&[("g", "y")])).unwrap();
        fs::write(&path, &without).unwrap();
        fs::write(store.dir().join(format!("{}.tar-split.gz", id('3'))), "x").unwrap();
        fs::create_dir(store.dir().join(id('4'))).unwrap();
        fs::write(store.dir().join(".tmp-layers.json123"), "x").unwrap();
        let found = collect_garbage(&store.layers);
        assert_eq!(found.len(), 4, "{kind:?} {found:?}");
        assert!(!store.driver_dir(&id('2')).exists() && store.driver_dir(&id('1')).exists());
        let left = names(&store.dir());
        let expected = [
            format!("{}.tar-split.gz", id('1')),
            "layers.json".into(),
            "layers.lock".into(),
        ];
        assert_eq!(left, expected, "{kind:?}");
        assert_eq!(
            diff(&store.layers, None, &id('1'), plain()).unwrap(),
            tar(&[("f", "x")])
        );
        let found = collect_garbage(&store.layers);
        assert_eq!(found, [""; 0]);

        fs::write(&path, one_only.replace(&id('2'), &id('5'))).unwrap();
        wipe(&store.layers);
        assert_eq!(store.json(), "[]", "{kind:?}");
        assert_eq!(names(&store.dir()), ["layers.json", "layers.lock"]);
        assert!(!store.driver_dir(&id('1')).exists());
    }
}

/// A reader that waits in the middle until it is told to go on.
struct Slow<'a> {
    bytes: Cursor<Vec<u8>>,
    halfway: &'a Barrier,
    waited: bool,
}

impl io::Read for Slow<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.waited && self.bytes.position() > 0 {
            self.waited = true;
            // Once to say that it is under way, once to be told to go on.
            self.halfway.wait();
            self.halfway.wait();
        }
        let end = buffer.len().min(600);
        io::Read::read(&mut self.bytes, &mut buffer[..end])
    }
}

/// A long pull must not keep others from using the store.
#[test]
fn root_nobody_waits_for_a_stream() {
    for kind in [Kind::Vfs, Kind::Overlay] {
        let store = Store::new(kind);
        put(&store.layers, &new(&id('1')), tar(&[("f", "x")])).unwrap();
        let halfway = Barrier::new(2);
        std::thread::scope(|scope| {
            let putting = scope.spawn(|| {
                let reader = Slow {
                    bytes: Cursor::new(tar(&[("a", "1"), ("b", "2")])),
                    halfway: &halfway,
                    waited: false,
                };
                let layer = child(&id('2'), &id('1'));
                let how = PutOptions::default();
                store
                    .layers
                    .put(&mut Held::nothing(), &layer, reader, how)
                    .map(drop)
            });
            halfway.wait();
            let other = store.other();
            write(&other, |w| {
                assert!(!w.exists(&id('2')), "{kind:?}");
                w.create(&new(&id('3'))).unwrap();
            });
            assert_eq!(
                collect_garbage(&other),
                [""; 0],
                "what is staged is not garbage"
            );
            halfway.wait();
            putting.join().unwrap().unwrap();
        });
        let stream = diff(&store.layers, None, &id('2'), plain()).unwrap();
        assert_eq!(stream, tar(&[("a", "1"), ("b", "2")]), "{kind:?}");
    }
}

/// A parent that is removed during a long pull is missed at its end, not later by a user.
#[test]
fn root_a_parent_that_goes_meanwhile_is_missed() {
    for kind in [Kind::Vfs, Kind::Overlay] {
        let store = Store::new(kind);
        put(&store.layers, &new(&id('1')), tar(&[("f", "x")])).unwrap();
        let halfway = Barrier::new(2);
        let outcome = std::thread::scope(|scope| {
            let putting = scope.spawn(|| {
                let reader = Slow {
                    bytes: Cursor::new(tar(&[("a", "1")])),
                    halfway: &halfway,
                    waited: false,
                };
                let layer = child(&id('2'), &id('1'));
                let how = PutOptions::default();
                store
                    .layers
                    .put(&mut Held::nothing(), &layer, reader, how)
                    .map(drop)
            });
            halfway.wait();
            store.delete(&[&id('1')]).unwrap();
            halfway.wait();
            putting.join().unwrap()
        });
        assert_eq!(
            outcome.unwrap_err().kind(),
            ErrorKind::LayerUnknown,
            "{kind:?}"
        );
        assert_eq!(store.json(), "[]");
        assert!(!store.driver_dir(&id('2')).exists());
        assert_eq!(collect_garbage(&store.other()), [""; 0], "{kind:?}");
    }
}

/// A layer that its driver cannot remove is gone from the records and is removed later.
#[test]
fn root_what_the_driver_cannot_remove_is_reported_and_collected_later() {
    let store = Store::new(Kind::Plain);
    put(&store.layers, &new(&id('1')), tar(&[(STUBBORN, "x")])).unwrap();
    put(&store.layers, &new(&id('2')), tar(&[("f", "x")])).unwrap();
    let error = store.delete(&[&id('1'), &id('2')]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert_eq!(store.json(), "[]");
    assert!(store.driver_dir(&id('1')).exists() && !store.driver_dir(&id('2')).exists());
    let text = |error: plywood::Error| format!("{error}");
    let (mut held, again) = (Held::nothing(), new(&id('1')));
    let refused = store
        .layers
        .write(&mut held)
        .unwrap()
        .0
        .create(&again)
        .map_err(text);
    assert_eq!(
        refused.unwrap_err(),
        format!("driver `vfs`: the layer is busy"),
        "the leftover would have to be replaced"
    );
    fs::remove_file(store.driver_dir(&id('1')).join(STUBBORN)).unwrap();
    assert!(!collect_garbage(&store.other()).is_empty());
    assert!(!store.driver_dir(&id('1')).exists());
}

/// An incomplete layer that cannot be removed must not stop readers, nor be waited for each time.
#[test]
fn root_incomplete_layers_do_not_stop_readers() {
    let store = Store::new(Kind::Plain);
    put(&store.layers, &new(&id('1')), tar(&[(STUBBORN, "x")])).unwrap();
    let marked = store
        .json()
        .replacen("}]", ",\"flags\":{\"incomplete\":true}}]", 1);
    fs::write(store.dir().join("layers.json"), &marked).unwrap();
    let without = LayerStore::open(options(store.root.path(), store.kind)).unwrap();
    read(&without, |r| {
        let layer = r.get(&id('1')).unwrap();
        assert!(
            layer.is_incomplete(),
            "without the driver it is shown as it is"
        );
    });
    assert_eq!(store.json(), marked);
    read(&store.layers, |r| assert!(r.is_empty()));
    assert!(store.driver_dir(&id('1')).exists());
}

/// Ids of directories above a mount that the container cannot map are told to the caller.
#[test]
fn root_owners_above_a_mount_that_are_not_mapped_are_found() {
    let store = Store::new(Kind::Vfs);
    let map = |host_id| sdk::IdMap {
        container_id: 0,
        host_id,
        size: 1000,
    };
    let mapped = NewLayer {
        id_maps: sdk::IdMaps {
            uids: vec![map(100_000)],
            gids: vec![map(0)],
        },
        ..new(&id('1'))
    };
    store.create(&mapped).unwrap();
    store.create(&new(&id('2'))).unwrap();
    let owners = |digit| read(&store.layers, |r| r.parent_owners(&id(digit)));
    assert_eq!(owners('2').unwrap(), (vec![], vec![]));
    assert_eq!(owners('1').unwrap_err().kind(), ErrorKind::LayerNotMounted);
    let request = MountRequest::default();
    write(&store.layers, |w| w.mount(&id('1'), &request)).unwrap();
    assert_eq!(owners('1').unwrap(), (vec![0], vec![]));
    let text = store.json();
    assert!(text.contains(r#""uidmap":[{"container_id":0,"host_id":100000,"size":1000}]"#));
    let child = store.create(&child(&id('3'), &id('1'))).unwrap();
    assert_eq!(child.id_maps, mapped.id_maps, "those of the parent");
}

/// A damaged list of mounts must not hide the layers, nor be overwritten.
#[test]
fn root_a_damaged_list_of_mounts_is_reported() {
    let store = Store::new(Kind::Vfs);
    store.create(&new(&id('1'))).unwrap();
    let path = store.root.path().join("run/vfs-layers/mountpoints.json");
    fs::write(&path, "[{").unwrap();
    read(&store.layers, |r| {
        assert_eq!(r.list().len(), 1);
        assert_eq!(r.get(&id('1')).unwrap().mount_count, 0);
        let error = r.mounted(&id('1')).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains("mountpoints.json"), "{error}");
    });
    let request = MountRequest::default();
    let refused = write(&store.layers, |w| w.mount(&id('1'), &request)).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt);
    assert_eq!(
        store.delete(&[&id('1')]).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    assert_eq!(fs::read_to_string(&path).unwrap(), "[{");
    assert!(store.json().contains(&id('1')));
}
