// SPDX-License-Identifier: Apache-2.0
//! How long things take on a store of 43,000 layers; run with `--ignored --nocapture`.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use plywood::store::{NewImage, NewLayer};

use crate::{
    layers_support::Kind,
    stores_support::{Fixture, go_is_here, open, strings},
};

const IMAGES: usize = 3_600;
const LAYERS: usize = 12;

/// Records of images with twelve layers each, without content.
fn plant(fixture: &Fixture) {
    let mut layers = String::from("[");
    let mut images = String::from("[");
    for image in 0..IMAGES {
        for layer in 0..LAYERS {
            let id = format!("{image:032x}{layer:032x}");
            let parent = match layer {
                0 => String::new(),
                _ => format!(r#""parent":"{image:032x}{:032x}","#, layer - 1),
            };
            write!(
                layers,
                r#"{}{{"id":"{id}",{parent}"created":"2026-11-21T22:28:20.952311062Z","compressed-diff-digest":"sha256:{id}","compressed-size":20480,"diff-digest":"sha256:{id}","diff-size":20480,"compression":2,"uidset":[0,10,1000],"gidset":[0,20]}}"#,
                if layers.len() > 1 { "," } else { "" },
            )
            .unwrap();
        }
        write!(
            images,
            r#"{}{{"id":"{image:064x}","names":["localhost/i:{image}"],"layer":"{image:032x}{:032x}","created":"2026-11-21T22:28:20.952311062Z"}}"#,
            if images.len() > 1 { "," } else { "" },
            LAYERS - 1,
        )
        .unwrap();
    }
    fixture.plant("layers/layers.json", &(layers + "]"));
    fixture.plant("images/images.json", &(images + "]"));
}

fn timed(what: &str, work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    let took = start.elapsed();
    println!("{what}: {took:?}");
    took
}

/// A new process that asks one question must not take longer than containers-storage does.
#[test]
#[ignore = "measures; wants an optimised build and a quiet machine"]
fn long_a_large_store_answers_quickly() {
    if !go_is_here() {
        return;
    }
    let fixture = Fixture::vfs();
    plant(&fixture);
    let name = format!("localhost/i:{}", IMAGES - 1);
    let ask = |arguments: &[&str]| {
        timed(&format!("containers-storage {}", arguments[0]), || {
            fixture.go(arguments);
        })
    };
    let theirs = ask(&["exists", &name]);
    let list = ask(&["layers"]);
    let other = || open(fixture.root.path(), Kind::Vfs);
    let ours = timed("exists", || {
        let store = other();
        assert!(store.exists(&name).unwrap());
    });
    assert!(ours < theirs, "{ours:?} {theirs:?}");
    timed("exists, an image among images alone", || {
        assert_eq!(other().image(&name).unwrap().names.len(), 1);
    });
    let layers = timed("layers", || {
        assert_eq!(other().layers().unwrap().len(), IMAGES * LAYERS);
    });
    assert!(layers < list, "{layers:?} {list:?}");
    let store = other();
    timed("exists, first", || assert!(store.exists(&name).unwrap()));
    timed("exists, again", || assert!(store.exists(&name).unwrap()));
    timed("create_layer", || {
        store.create_layer(NewLayer::default()).map(drop).unwrap();
    });
    timed("create_image", || {
        let new = NewImage {
            names: strings(&["new"]),
            ..NewImage::default()
        };
        store.create_image(new).map(drop).unwrap();
    });
    timed("delete_image without commit", || {
        assert_eq!(store.delete_image(&name, false).unwrap().len(), LAYERS);
    });
    ask(&["delete-image", "localhost/i:0"]);
    timed("delete_image", || {
        assert_eq!(store.delete_image(&name, true).unwrap().len(), LAYERS);
    });
    assert_eq!(other().layers().unwrap().len(), (IMAGES - 2) * LAYERS + 1);
}
