// SPDX-License-Identifier: Apache-2.0
//! Layers that an additional layer store has, put into a store and given back.

use std::{
    fs,
    io::{Read, Write as _},
    path::{Path, PathBuf},
};

use flate2::{Compression as Level, write::GzEncoder};
use plywood::{
    Digest, ErrorKind, Result,
    archive::Compression,
    layers::PutOptions,
    plugin::PluginOptions,
    sdk::{IdMap, IdMaps, embed_layer_source},
    store::{DiffOptions, MountOptions, NewContainer, NewImage, NewLayer, Store, StoreOptions},
};

use crate::{
    layers_support::Kind,
    stores_support::{Fixture, fails, go_is_here, id, options, strings},
    support::plugins::is_root,
};

embed_layer_source!(plywood_driver_additional_layer_store::AdditionalLayerStore);

/// A layer as a store has it: `diff`, `info` and `blob`.
pub(crate) struct Remote {
    pub(crate) tar: Vec<u8>,
    pub(crate) blob: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) diff_digest: Digest,
    pub(crate) directory: PathBuf,
}

const TOC: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

fn tar_with(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o640);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Puts a layer with `files` into the directory `stores`, under its digest.
pub(crate) fn remote(stores: &Path, files: &[(&str, &str)]) -> Remote {
    let tar = tar_with(files);
    let mut gzip = GzEncoder::new(Vec::new(), Level::default());
    gzip.write_all(&tar).unwrap();
    let blob = gzip.finish().unwrap();
    let (digest, diff_digest) = (Digest::sha256(&blob), Digest::sha256(&tar));
    let directory = stores.join(digest.as_str());
    let diff = directory.join("diff");
    fs::create_dir_all(&diff).unwrap();
    tar::Archive::new(&*tar).unpack(&diff).unwrap();
    fs::write(directory.join("blob"), &blob).unwrap();
    let info = format!(
        "{{\"id\":\"theirs\",\"names\":[\"theirs\"],\"parent\":\"other\",\
         \"compressed-diff-digest\":\"{digest}\",\"compressed-size\":{},\
         \"diff-digest\":\"{diff_digest}\",\"toc-digest\":\"{TOC}\",\"diff-size\":{},\
         \"compression\":2,\"flags\":{{\"note\":\"kept\",\"incomplete\":true}},\"extra\":7}}",
        blob.len(),
        tar.len()
    );
    fs::write(directory.join("info"), info).unwrap();
    Remote {
        tar,
        blob,
        digest,
        diff_digest,
        directory,
    }
}

/// A store with the layer stores in `stores`, and with drivers and sources that are linked in.
fn open(fixture: &Fixture, stores: &Path) -> Store {
    let given = StoreOptions {
        driver: Some(fixture.kind.name().to_owned()),
        driver_options: vec![format!("additionallayerstore={}", stores.display())],
        plugins: PluginOptions::only_embedded(),
        ..options(fixture.root.path())
    };
    Store::open(given).unwrap()
}

fn diff(store: &Store, layer: &str, compression: Option<Compression>) -> Result<(u64, Vec<u8>)> {
    let mut options = DiffOptions::default();
    options.compression = compression;
    let mut out = Vec::new();
    let size = store.diff(None, layer, options, &mut out)?;
    Ok((size, out))
}

fn stores_of(fixture: &Fixture) -> PathBuf {
    let stores = fixture.root.path().join("layer-store");
    fs::create_dir(&stores).unwrap();
    stores
}

#[test]
fn root_a_layer_is_put_mounted_given_back_and_deleted() {
    if !is_root() {
        return;
    }
    for kind in [Kind::Overlay, Kind::Vfs] {
        let fixture = Fixture::new(kind);
        let stores = stores_of(&fixture);
        let lower = remote(&stores, &[("a", "lower"), ("b", "lower")]);
        let upper = remote(&stores, &[("a", "upper")]);
        let store = open(&fixture, &stores);

        let found = store.lookup_additional_layer(Some(&lower.digest), None, None);
        let found = found.unwrap();
        assert_eq!(found.info().diff_digest.as_ref(), Some(&lower.diff_digest));
        assert_eq!(
            found.compressed_size(),
            i64::try_from(lower.blob.len()).ok()
        );
        let mut stream = Vec::new();
        found.blob().unwrap().read_to_end(&mut stream).unwrap();
        assert_eq!(stream, lower.blob);
        let first = found
            .put_as(Some(&id('1')), None, &strings(&["n"]))
            .unwrap();
        drop(found);
        assert_eq!(first.names, ["n"], "{kind:?}");
        let found = store.lookup_additional_layer(Some(&upper.digest), None, None);
        let second = found.unwrap().put_as(None, Some("n"), &[]).unwrap();
        assert_eq!(second.parent, Some(id('1')));
        for (layer, remote) in [(&first, &lower), (&second, &upper)] {
            assert_eq!(layer.compressed_digest.as_ref(), Some(&remote.digest));
            assert_eq!(layer.diff_digest.as_ref(), Some(&remote.diff_digest));
            assert_eq!(layer.toc_digest.as_ref().unwrap().as_str(), TOC);
            assert_eq!(layer.compression(), Some(Compression::Gzip));
            assert_eq!(layer.diff_size, i64::try_from(remote.tar.len()).ok());
            assert!(!layer.is_incomplete());
            let seen = store.layers_by_compressed_digest(&remote.digest).unwrap();
            assert_eq!(seen.len(), 1);

            // The stream, plain and as it came.
            let (size, plain) = diff(&store, &layer.id, Some(Compression::None)).unwrap();
            assert!(plain == remote.tar, "{kind:?}");
            assert_eq!(size, remote.tar.len() as u64);
            let (size, zstd) = diff(&store, &layer.id, Some(Compression::Zstd)).unwrap();
            assert_eq!(size, remote.tar.len() as u64);
            assert!(zstd::decode_all(&*zstd).unwrap() == remote.tar);
        }
        let image = NewImage {
            names: strings(&["img"]),
            layer: Some(second.id.clone()),
            ..NewImage::default()
        };
        store.create_image(image).unwrap();
        let container = NewContainer {
            image: Some("img".to_owned()),
            ..NewContainer::default()
        };
        let container = store.create_container(container).unwrap();
        let path = store
            .mount(&container.id, &MountOptions::default())
            .unwrap();
        assert_eq!(fs::read_to_string(path.join("a")).unwrap(), "upper");
        assert_eq!(fs::read_to_string(path.join("b")).unwrap(), "lower");
        fs::write(path.join("a"), "own").unwrap();
        store.unmount(&container.id, false).unwrap();
        let theirs = fs::read_to_string(upper.directory.join("diff/a")).unwrap();
        assert_eq!(theirs, "upper");
        store.delete_container(&container.id).unwrap();
        store.delete_image("img", true).unwrap();
        assert!(store.layers().unwrap().is_empty());
        assert!(lower.directory.join("diff/b").exists() && !lower.directory.join("use").exists());
        assert!(
            !fixture
                .root
                .path()
                .join("graph/additional-layer-store")
                .exists()
        );
    }
}

/// A layer by reference is recorded as containers/storage records it, but for its names.
#[test]
fn root_the_record_and_the_stream_are_those_of_the_source() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(Kind::Overlay);
    let stores = stores_of(&fixture);
    let theirs = remote(&stores, &[("a", "text")]);
    let store = open(&fixture, &stores);
    let found = store
        .lookup_additional_layer(None, Some(&theirs.digest), None)
        .unwrap();
    let layer = found.put_as(Some(&id('1')), None, &[]).unwrap();
    let created = layer.created.as_str();
    let expected = format!(
        "[{{\"id\":\"{}\",\"created\":\"{created}\",\
         \"compressed-diff-digest\":\"{}\",\"compressed-size\":{},\
         \"diff-digest\":\"{}\",\"toc-digest\":\"{TOC}\",\"diff-size\":{},\"compression\":2,\
         \"flags\":{{\"note\":\"kept\"}},\"extra\":7}}]",
        id('1'),
        theirs.digest,
        theirs.blob.len(),
        theirs.diff_digest,
        theirs.tar.len()
    );
    assert_eq!(fixture.layers_json(), expected);
    // As it came, when nothing else is asked for: not one byte differs.
    let (size, raw) = diff(&store, &id('1'), None).unwrap();
    assert_eq!(raw, theirs.blob);
    assert_eq!(size, theirs.tar.len() as u64);
    let names = store.changes(None, &id('1')).unwrap();
    assert_eq!(names.len(), 1, "{names:?}");

    // Another stream in its place is noticed.
    let other = tar_with(&[("a", "other")]);
    fs::write(theirs.directory.join("blob"), other).unwrap();
    for compression in [None, Some(Compression::None)] {
        fails(diff(&store, &id('1'), compression), ErrorKind::Corrupt);
    }
    // A source that is gone is an error that says so, and the layer can still be deleted.
    fs::rename(&stores, fixture.root.path().join("elsewhere")).unwrap();
    let error = diff(&store, &id('1'), None).unwrap_err();
    assert!(
        error.remedy().unwrap().contains("layer source"),
        "{error:?}"
    );
    drop(found);
    store.delete_layer(&id('1')).unwrap();
    assert_eq!(fixture.layers_json(), "[]");
}

#[test]
fn root_what_is_not_there_or_makes_no_sense_is_refused() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(Kind::Overlay);
    let stores = stores_of(&fixture);
    let theirs = remote(&stores, &[("a", "text")]);
    let store = open(&fixture, &stores);
    let lookup = |store: &Store, digest: &Digest| {
        let found = store.lookup_additional_layer(Some(digest), None, Some("docker.io/x:1"));
        found.map(|found| found.directory().to_owned())
    };
    fails(
        lookup(&store, &Digest::sha256(b"none")),
        ErrorKind::LayerUnknown,
    );
    let nothing = store.lookup_additional_layer(None, None, None).map(drop);
    fails(nothing, ErrorKind::InvalidArgument);
    // Without a source there is nothing to be found.
    fails(
        lookup(&fixture.store, &theirs.digest),
        ErrorKind::LayerUnknown,
    );
    for wrong in ["", "{", "[]", "7", "{\"id\":7}", "{},{}"] {
        fs::write(theirs.directory.join("info"), wrong).unwrap();
        let error = fails(lookup(&store, &theirs.digest), ErrorKind::Corrupt);
        assert!(error.to_string().contains("/info"), "{wrong}: {error:?}");
    }
    fs::write(theirs.directory.join("info"), "{\"diff-digest\":\"\"}").unwrap();
    let found = store.lookup_additional_layer(Some(&theirs.digest), None, None);
    let found = found.unwrap();
    fails(
        found.put_as(None, Some("none"), &[]),
        ErrorKind::LayerUnknown,
    );
    found
        .put_as(Some(&id('1')), None, &strings(&["n"]))
        .unwrap();
    fails(
        found.put_as(Some(&id('1')), None, &[]),
        ErrorKind::DuplicateId,
    );
    fails(
        found.put_as(None, None, &strings(&["n"])),
        ErrorKind::DuplicateName,
    );
    let graph = fixture.root.path().join("graph");
    assert!(!graph.join("overlay/tempdirs").exists());
    assert!(!graph.join("overlay-layers/tmp").exists());
    assert_eq!(store.layers().unwrap().len(), 1);
}

/// Files that need other owners than the source gives them are the store's own.
#[test]
fn root_a_layer_with_id_maps_is_unpacked() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::new(Kind::Overlay);
    let stores = stores_of(&fixture);
    let theirs = remote(&stores, &[("a", "text")]);
    let store = open(&fixture, &stores);
    let found = store.lookup_additional_layer(Some(&theirs.digest), None, None);
    let map = IdMap {
        container_id: 0,
        host_id: 100_000,
        size: 65_536,
    };
    let new = NewLayer {
        id: Some(id('1')),
        id_maps: IdMaps {
            uids: vec![map],
            gids: vec![map],
        },
        ..NewLayer::default()
    };
    found.unwrap().put(new, PutOptions::default()).unwrap();
    let file = format!("graph/overlay/{}/diff/a", id('1'));
    let file = fs::symlink_metadata(fixture.root.path().join(file)).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&file), 100_000);
    let (_, plain) = diff(&store, &id('1'), Some(Compression::None)).unwrap();
    assert!(plain == theirs.tar);
}

/// A stream that is not the one that the source describes must not become a layer.
#[test]
fn root_a_stream_that_is_unpacked_is_checked() {
    if !is_root() {
        return;
    }
    let fixture = Fixture::vfs();
    let stores = stores_of(&fixture);
    let theirs = remote(&stores, &[("a", "text")]);
    let store = open(&fixture, &stores);
    let found = store.lookup_additional_layer(Some(&theirs.digest), None, None);
    let found = found.unwrap();
    let mut gzip = GzEncoder::new(Vec::new(), Level::none());
    gzip.write_all(&theirs.tar).unwrap();
    fs::write(theirs.directory.join("blob"), gzip.finish().unwrap()).unwrap();
    fails(found.put_as(None, None, &[]), ErrorKind::InvalidDigest);
    fs::write(theirs.directory.join("blob"), tar_with(&[("b", "")])).unwrap();
    fails(found.put_as(None, None, &[]), ErrorKind::InvalidDigest);
    assert!(store.layers().unwrap().is_empty());
}

/// The other program finds the layer, mounts it, gives the same stream and deletes it.
#[test]
fn interop_containers_storage_uses_layers_by_reference() {
    if !is_root() || !go_is_here() {
        return;
    }
    let fixture = Fixture::new(Kind::Overlay);
    let stores = stores_of(&fixture);
    let lower = remote(&stores, &[("a", "lower"), ("b", "lower")]);
    let store = open(&fixture, &stores);
    let found = store.lookup_additional_layer(Some(&lower.digest), None, None);
    let put = found.unwrap().put_as(Some(&id('1')), None, &[]);
    assert_eq!(put.unwrap().id, id('1'));
    let own = NewLayer {
        id: Some(id('2')),
        parent: Some(id('1')),
        ..NewLayer::default()
    };
    let tar = tar_with(&[("c", "own")]);
    store.put_layer(own, &*tar).unwrap();

    assert!(
        fixture
            .go(&["layers", "--json"])
            .contains(lower.diff_digest.as_str())
    );
    let out = fixture.root.path().join("out.tar");
    let file = out.to_str().unwrap();
    fixture.go(&["diff", "--uncompressed", "--file", file, &id('1')]);
    assert!(fs::read(&out).unwrap() == lower.tar);
    fixture.go(&["create-layer", "--id", &id('3'), &id('2')]);
    let mounted = fixture.go(&["mount", &id('3')]);
    let mounted = Path::new(mounted.trim());
    assert_eq!(fs::read_to_string(mounted.join("b")).unwrap(), "lower");
    assert_eq!(fs::read_to_string(mounted.join("c")).unwrap(), "own");
    fixture.go(&["unmount", &id('3')]);
    for layer in ['3', '2', '1'] {
        fixture.go(&["delete-layer", &id(layer)]);
    }
    assert!(store.layers().unwrap().is_empty());
    assert!(lower.directory.join("diff/b").exists());
}
