// SPDX-License-Identifier: Apache-2.0
//! What others do to the layers while a stream is being read.

use std::{
    fs,
    io::{self, Read, Write},
};

use plywood::{
    ErrorKind, Result,
    archive::Compression,
    layers::{DiffOptions, Layer, LayerStore, NewLayer, PutOptions},
    locking::order::Held,
};

use crate::layers_support::{Kind, Store, child, new, read, tar, write};

/// Lets others work before it gives its first byte.
struct Meanwhile<F, R>(Option<F>, R);

impl<F: FnOnce(), R: Read> Read for Meanwhile<F, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(work) = self.0.take() {
            work();
        }
        self.1.read(buffer)
    }
}

/// Lets others work when it gets its first byte.
impl<F: FnOnce(), W: Write> Write for Meanwhile<F, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(work) = self.0.take() {
            work();
        }
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}

fn put(store: &LayerStore, new: &NewLayer, files: &[(&str, &str)]) -> Layer {
    let mut held = Held::nothing();
    let done = store.put(&mut held, new, &*tar(files), PutOptions::default());
    done.unwrap().0
}

fn put_while(
    store: &Store,
    new: &NewLayer,
    work: impl FnOnce(&LayerStore) + Send,
) -> Result<Layer> {
    let other = store.other();
    let stream = tar(&[("top", "t")]);
    let reader = Meanwhile(Some(|| work(&other)), &*stream);
    let mut held = Held::nothing();
    let done = store
        .layers
        .put(&mut held, new, reader, PutOptions::default());
    done.map(|(layer, _)| layer)
}

const STAGING: [Kind; 2] = [Kind::Vfs, Kind::Overlay];

#[test]
fn root_a_name_that_moves_does_not_change_the_parent() {
    for kind in STAGING {
        let store = Store::new(kind);
        put(&store.layers, &new("one"), &[("from-one", "1")]);
        put(&store.layers, &new("two"), &[("from-two", "2")]);
        let name = ["base".to_owned()];
        write(&store.layers, |w| w.set_names("one", &name)).unwrap();
        let made = put_while(&store, &child("top", "base"), |other| {
            write(other, |w| w.set_names("two", &name)).unwrap();
        });
        assert_eq!(made.unwrap().parent.as_deref(), Some("one"), "{kind:?}");
    }
}

#[test]
fn root_a_parent_that_was_made_again_is_another_one() {
    for kind in STAGING {
        let store = Store::new(kind);
        put(&store.layers, &new("base"), &[("file", "old")]);
        let made = put_while(&store, &child("top", "base"), |other| {
            let reaper = write(other, |w| w.delete(&["base"])).unwrap();
            reaper.run().unwrap();
            put(other, &new("base"), &[("file", "new")]);
        });
        assert_eq!(made.unwrap_err().kind(), ErrorKind::Busy, "{kind:?}");
        assert!(read(&store.layers, |r| r.lookup("top")).is_err());
        assert!(!store.driver_dir("top").exists());
    }
}

#[test]
fn root_a_longer_id_does_not_take_the_place_of_a_removed_parent() {
    for kind in STAGING {
        let store = Store::new(kind);
        put(&store.layers, &new("base"), &[]);
        put(&store.layers, &new("base2"), &[]);
        let made = put_while(&store, &child("top", "base"), |other| {
            let reaper = write(other, |w| w.delete(&["base"])).unwrap();
            reaper.run().unwrap();
        });
        assert!(made.is_err(), "{kind:?}: {made:?}");
        assert!(fs::symlink_metadata(store.driver_dir("top")).is_err());
    }
}

#[test]
fn root_a_layer_that_is_deleted_while_it_is_read_is_unknown_and_not_damaged() {
    for kind in STAGING {
        let store = Store::new(kind);
        let other = store.other();
        let content = "x".repeat(1 << 20);
        let files = [("a", content.as_str()), ("b", &content), ("c", &content)];
        put(&store.layers, &new("layer"), &files);
        let mut options = DiffOptions::default();
        options.compression = Some(Compression::None);
        let delete = || {
            let reaper = write(&other, |w| w.delete(&["layer"])).unwrap();
            reaper.run().unwrap();
        };
        let mut out = Meanwhile(Some(delete), io::sink());
        let mut held = Held::nothing();
        let error = store
            .layers
            .diff(&mut held, None, "layer", options, &mut out)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LayerUnknown, "{kind:?}: {error}");
    }
}
