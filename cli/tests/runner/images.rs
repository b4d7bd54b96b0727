// SPDX-License-Identifier: Apache-2.0
//! Image files without another tool.

use std::path::Path;

use super::support::{Place, can_run, read, tar_of};

/// A docker archive with one image of two small layers.
pub(super) fn docker_archive(name: &str) -> Vec<u8> {
    let layers = [
        tar_of(&[("etc/", None), ("etc/one", Some(b"1"))]),
        tar_of(&[("etc/", None), ("etc/two", Some(b"2"))]),
    ];
    docker_archive_with(name, &layers)
}

/// A docker archive with one image of these two layers.
pub(super) fn docker_archive_with(name: &str, layers: &[Vec<u8>; 2]) -> Vec<u8> {
    let ids = layers
        .each_ref()
        .map(|layer| plywood::Digest::sha256(layer));
    let config = serde_json::json!({
        "created": "2021-02-03T04:05:06.789Z",
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/etc/one"]},
        "rootfs": {"type": "layers", "diff_ids": ids},
    })
    .to_string();
    let manifest = serde_json::json!([{
        "Config": "config.json", "RepoTags": [name], "Layers": ["a.tar", "b/layer.tar"],
    }])
    .to_string();
    tar_of(&[
        ("a.tar", Some(&layers[0])),
        ("b/", None),
        ("b/layer.tar", Some(&layers[1])),
        ("config.json", Some(config.as_bytes())),
        ("manifest.json", Some(manifest.as_bytes())),
    ])
}

fn put(place: &Place, name: &str, bytes: &[u8]) -> String {
    let path = place.path(name);
    std::fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_image_goes_round_in_every_form() {
    if !can_run(&[]) {
        return;
    }
    for driver in ["vfs", "overlay"] {
        let place = Place::new(driver);
        let file = put(&place, "in.tar", &docker_archive("example.com/x:1"));
        let loaded = place.plywood(&["image", "load", "-j", &file]).ok().json();
        assert_eq!(loaded[0]["names"][0], "example.com/x:1");
        assert_eq!(loaded[0]["layers_added"], 2);
        let image = place
            .plywood(&["image", "-j", "example.com/x:1"])
            .ok()
            .json();
        assert_eq!(image[0]["created"], "2021-02-03T04:05:06.789Z");
        let layers = place.plywood(&["layers", "-j"]).ok().json();
        for (to, from) in [
            ("oci:out-oci:v1", "oci:out-oci:v1"),
            ("oci-archive:out-oci.tar", "out-oci.tar"),
            ("docker-archive:out-docker.tar", "out-docker.tar"),
        ] {
            place
                .plywood(&["image", "save", "example.com/x:1", to])
                .ok();
            place.plywood(&["delete-image", "example.com/x:1"]).ok();
            assert_eq!(place.plywood(&["layers"]).ok().out, "", "{to}");
            let again = place.plywood(&["image", "load", "-j", from, "example.com/x:1"]);
            let again = again.ok().json();
            assert_eq!(again[0]["id"], loaded[0]["id"], "{to}");
            assert_eq!(again[0]["layers_added"], 2, "{to}");
            let now = place.plywood(&["layers", "-j"]).ok().json();
            for at in 0..2 {
                for key in ["id", "parent", "diff-digest", "diff-size"] {
                    assert_eq!(now[at][key], layers[at][key], "{driver} {to} {key}");
                }
            }
            let twice = place
                .plywood(&["image", "load", "-j", from, "other:2"])
                .ok()
                .json();
            assert_eq!(twice[0]["layers_reused"], 2, "{to}");
            assert_eq!(twice[0]["names"][0], "localhost/other:2", "{to}");
        }
        let path = place
            .plywood(&["mount", "-r", "localhost/other:2"])
            .ok()
            .line()
            .to_owned();
        assert_eq!(read(Path::new(&path).join("etc/one")), b"1");
        assert_eq!(read(Path::new(&path).join("etc/two")), b"2");
        place.plywood(&["unmount", "localhost/other:2"]).ok();
    }
}

#[test]
fn saving_twice_gives_the_same_bytes() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    let file = put(&place, "in.tar", &docker_archive("x:1"));
    place.plywood(&["image", "load", &file]).ok();
    for form in ["oci-archive", "docker-archive"] {
        for name in ["one", "two"] {
            place
                .plywood(&["image", "save", "x:1", &format!("{form}:{form}-{name}")])
                .ok();
        }
        let [one, two] = ["one", "two"].map(|name| read(place.path(&format!("{form}-{name}"))));
        assert_eq!(one, two, "{form}");
        let refused = place.plywood(&["image", "save", "x:1", &format!("{form}:{form}-one")]);
        assert_eq!(refused.code, 1);
        assert!(refused.err.contains("exists already"), "{refused:?}");
    }
    let left: Vec<_> = std::fs::read_dir(place.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().starts_with(".plywood-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn damaged_files_leave_nothing_behind() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    let archive = docker_archive("x:1");
    let file = put(&place, "in.tar", &archive);
    place.plywood(&["image", "load", &file]).ok();
    place
        .plywood(&["image", "save", "x:1", "oci:layout:1"])
        .ok();
    place.plywood(&["wipe"]).ok();
    let changed = String::from_utf8_lossy(&archive).find("etc/two").unwrap();
    let mut archive = archive;
    archive[changed + 4] = b'T';
    // The header's checksum covers the name; keep it true.
    archive[changed + 5] += b't' - b'T';
    let file = put(&place, "bad.tar", &archive);
    let refused = place.plywood(&["image", "load", &file]);
    assert_eq!(refused.code, 1);
    for part in ["layer 2", "unpacks to", "hint: "] {
        assert!(refused.err.contains(part), "{refused:?}");
    }
    assert_eq!(place.plywood(&["images"]).ok().out, "");
    assert_eq!(place.plywood(&["layers", "-q"]).ok().out.lines().count(), 1);

    place.plywood(&["wipe"]).ok();
    let blobs = place.path("layout/blobs/sha256");
    let largest = std::fs::read_dir(&blobs)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| read(path).starts_with(&[0x1f, 0x8b]))
        .unwrap();
    let mut bytes = read(&largest);
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&largest, bytes).unwrap();
    let refused = place.plywood(&["image", "load", "oci:layout"]);
    assert_eq!(refused.code, 1);
    assert_eq!(place.plywood(&["images"]).ok().out, "");
    for text in [
        "nothing-there",
        "oci:nothing-there",
        "docker-archive:nothing-there",
    ] {
        assert_eq!(place.plywood(&["image", "load", text]).code, 1, "{text}");
    }
    let unknown = put(&place, "text", b"not an image");
    assert_eq!(place.plywood(&["image", "load", &unknown]).code, 1);
}

#[test]
fn an_archive_can_hold_several_images() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    let layer = tar_of(&[("f", Some(b"1"))]);
    let config = |note: &str| {
        serde_json::json!({
            "author": note, "architecture": "amd64", "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [plywood::Digest::sha256(&layer)]},
        })
        .to_string()
    };
    let (one, two) = (config("one"), config("two"));
    let manifest = serde_json::json!([
        {"Config": "1.json", "RepoTags": ["one:1", "q.io/one:2"], "Layers": ["l.tar"]},
        {"Config": "2.json", "RepoTags": null, "Layers": ["l.tar"]},
    ])
    .to_string();
    let archive = tar_of(&[
        ("l.tar", Some(&layer)),
        ("1.json", Some(one.as_bytes())),
        ("2.json", Some(two.as_bytes())),
        ("manifest.json", Some(manifest.as_bytes())),
    ]);
    let file = put(&place, "in.tar", &archive);
    let refused = place.plywood(&["image", "load", &file, "name"]);
    assert_eq!(refused.code, 1);
    assert!(refused.err.contains("2 images are there"), "{refused:?}");
    let loaded = place.plywood(&["image", "load", "-j", &file]).ok().json();
    assert_eq!(
        loaded[0]["names"],
        serde_json::json!(["localhost/one:1", "q.io/one:2"])
    );
    assert_eq!(loaded[1]["names"], serde_json::json!([]));
    assert_eq!(loaded[1]["layers_reused"], 1);
    let from = format!("docker-archive:{file}:one:1");
    // The name goes from the image that has it to the one that is loaded under it.
    let second = loaded[1]["id"].as_str().unwrap();
    place
        .plywood(&["set-names", "-n", "localhost/moved:latest", second])
        .ok();
    place.plywood(&["image", "load", &from, "moved"]).ok();
    let names = place
        .plywood(&["get-names", loaded[0]["id"].as_str().unwrap()])
        .ok()
        .out;
    assert_eq!(
        names,
        "localhost/moved:latest\nlocalhost/one:1\nq.io/one:2\n"
    );
    assert_eq!(place.plywood(&["get-names", second]).ok().out, "");
    let missing = place.plywood(&["image", "load", &format!("docker-archive:{file}:three")]);
    assert!(
        missing.err.contains("there are: one:1, q.io/one:2"),
        "{missing:?}"
    );
}

#[test]
fn a_layout_keeps_the_images_that_it_has() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    let file = put(&place, "in.tar", &docker_archive("x:1"));
    place.plywood(&["image", "load", &file]).ok();
    for tag in ["a", "b", "a"] {
        place
            .plywood(&["image", "save", "x:1", &format!("oci:layout:{tag}")])
            .ok();
    }
    let index: serde_json::Value =
        serde_json::from_slice(&read(place.path("layout/index.json"))).unwrap();
    let tags: Vec<&str> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| {
            m["annotations"]["org.opencontainers.image.ref.name"]
                .as_str()
                .unwrap()
        })
        .collect();
    assert_eq!(tags, ["b", "a"]);
    std::fs::create_dir(place.path("full")).unwrap();
    std::fs::write(place.path("full/file"), "").unwrap();
    let refused = place.plywood(&["image", "save", "x:1", "oci:full"]);
    assert!(refused.err.contains("exists already"), "{refused:?}");
    // Through a pipe.
    let out = place
        .plywood(&["image", "save", "x:1", "docker-archive:-"])
        .ok()
        .out;
    assert!(out.contains("manifest.json"));
}

#[test]
fn the_same_image_is_loaded_by_several_at_once() {
    if !can_run(&[]) {
        return;
    }
    for driver in ["vfs", "overlay"] {
        let place = Place::new(driver);
        let file = put(&place, "in.tar", &docker_archive("x:1"));
        let ids: Vec<String> = std::thread::scope(|scope| {
            let load = || {
                let loaded = place.plywood(&["image", "load", "-q", &file]).ok();
                loaded.line().to_owned()
            };
            let loads: Vec<_> = (0..4).map(|_| scope.spawn(load)).collect();
            loads.into_iter().map(|load| load.join().unwrap()).collect()
        });
        assert!(ids.iter().all(|id| *id == ids[0]), "{driver}: {ids:?}");
        assert_eq!(
            place.plywood(&["layers", "-q"]).ok().out.lines().count(),
            2,
            "{driver}"
        );
        assert_eq!(
            place.plywood(&["storage-layers"]).ok().out.lines().count(),
            2,
            "{driver}"
        );
        assert_eq!(
            place.plywood(&["images", "-q"]).ok().out.lines().count(),
            1,
            "{driver}"
        );
    }
}
