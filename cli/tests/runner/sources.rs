// SPDX-License-Identifier: Apache-2.0
//! Images whose layers an additional layer store has.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    images::docker_archive,
    podman::BUILD,
    support::{Place, can_run, podman_script, read},
};

/// Makes an additional layer store of the layers of an OCI layout; returns their digests.
fn stock(layout: &Path, store: &Path) -> Vec<String> {
    let blob = |digest: &str| layout.join("blobs/sha256").join(&digest["sha256:".len()..]);
    let json =
        |path: PathBuf| -> serde_json::Value { serde_json::from_slice(&read(path)).unwrap() };
    let digest = |value: &serde_json::Value| value["digest"].as_str().unwrap().to_owned();
    let index = json(layout.join("index.json"));
    let manifest = json(blob(&digest(&index["manifests"][0])));
    let config = json(blob(&digest(&manifest["config"])));
    let ids = config["rootfs"]["diff_ids"].as_array().unwrap();
    let layers = manifest["layers"].as_array().unwrap().iter();
    let digests = layers.zip(ids).map(|(layer, diff_id)| {
        let digest = digest(layer);
        let directory = store.join(&digest);
        fs::create_dir_all(directory.join("diff")).unwrap();
        fs::copy(blob(&digest), directory.join("blob")).unwrap();
        let mut tar = Command::new("tar");
        tar.arg("xf").arg(blob(&digest)).arg("-C");
        assert!(tar.arg(directory.join("diff")).status().unwrap().success());
        let info = serde_json::json!({
            "compressed-diff-digest": digest, "compressed-size": layer["size"],
            "diff-digest": diff_id, "compression": 2,
        });
        fs::write(directory.join("info"), info.to_string()).unwrap();
        digest
    });
    digests.collect()
}

#[test]
fn root_a_loaded_image_refers_to_the_layers_that_a_store_has() {
    if !can_run(&["tar"]) {
        return;
    }
    let from = Place::new("vfs");
    fs::write(from.path("in.tar"), docker_archive("example.com/x:1")).unwrap();
    from.plywood(&["image", "load", "in.tar"]).ok();
    from.plywood(&["image", "save", "example.com/x:1", "oci:layout:v1"])
        .ok();
    let layout = from.path("layout");
    let source = format!("oci:{}:v1", layout.display());

    let place = Place::new("overlay");
    let digests = stock(&layout, &place.path("layers"));
    assert_eq!(digests.len(), 2);
    let option = format!("additionallayerstore={}", place.path("layers").display());
    let run = |args: &[&str]| {
        let with = [&["--storage-opt", &option], args].concat();
        place.plywood(&with)
    };
    // The second one says something else than the image's configuration, so the file is used.
    let wrong = place.path("layers").join(&digests[1]).join("info");
    fs::write(wrong, "{\"diff-digest\":\"\"}").unwrap();
    let loaded = run(&["image", "load", "-j", &source, "example.com/x:1"])
        .ok()
        .json();
    assert_eq!(loaded[0]["layers_added"], 2);
    let layers = run(&["layers", "-j"]).ok().json();
    let marks = layers.as_array().unwrap().iter().filter_map(|layer| {
        let id = layer["id"].as_str().unwrap();
        fs::read_to_string(place.graph().join(format!("overlay/{id}/additionallayer"))).ok()
    });
    let first = place.path("layers").join(&digests[0]).display().to_string();
    assert_eq!(marks.collect::<Vec<_>>(), [first]);
    run(&["image", "save", "example.com/x:1", "oci:again:v1"]).ok();
    assert_eq!(stock(&place.path("again"), &place.path("more")).len(), 2);

    let info = run(&["info"]).ok().out;
    assert!(info.contains("additional-layer-store"), "{info}");
    let listed = run(&["driver", "list"]).ok().out;
    assert!(listed.contains("driver, layer-source"), "{listed}");
    let inspected = run(&["driver", "inspect", "additional-layer-store"])
        .ok()
        .out;
    assert!(inspected.contains("external_directory"), "{inspected}");
    run(&["delete-image", "example.com/x:1"]).ok();
    assert!(run(&["layers"]).ok().out.is_empty());

    // A layer store that is not there is told; what needs no driver works.
    let gone = format!("additionallayerstore={}", place.path("none").display());
    let refused = place.plywood(&["--storage-opt", &gone, "layers"]);
    assert!(
        refused.err.contains("additionallayerstore"),
        "{}",
        refused.err
    );
    let created = place.plywood(&["--storage-opt", &gone, "create-layer"]);
    assert_ne!(created.code, 0);
}

/// Podman runs what refers to an additional layer store, and deletes it.
#[test]
fn interop_podman_runs_and_deletes_an_image_by_reference() {
    if !can_run(&["podman", "buildah", "busybox", "unshare", "bash", "tar"]) {
        return;
    }
    let build = Place::new("overlay");
    let save = format!("{BUILD} $P save -q --format oci-dir -o oci example.com/bb:1");
    podman_script(&build, &save).ok();
    let place = Place::new("overlay");
    let digests = stock(&build.path("oci"), &place.path("layers"));
    let from = build.path("oci").display().to_string();
    let option = format!("additionallayerstore={}", place.path("layers").display());
    let script = format!(
        "$C --storage-opt {option} image load {from} example.com/bb:1 >&2; \
         run example.com/bb:1; \
         ls {graph}/overlay/*/additionallayer | wc -l; \
         $P rmi example.com/bb:1 >&2; \
         ls {graph}/overlay/l | wc -l",
        graph = place.graph().display()
    );
    let answer = podman_script(&place, &script).ok();
    let expected = format!("data\n{}\n0\n", digests.len());
    assert_eq!(answer.out, expected, "{}", answer.err);
    for digest in digests {
        assert!(place.path("layers").join(digest).join("diff").is_dir());
    }
}
