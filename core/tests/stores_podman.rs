// SPDX-License-Identifier: Apache-2.0
//! One store, used by podman and by this library in turn.

use std::{
    fs,
    process::{Command, Stdio},
};

use plywood::{
    ErrorKind,
    store::{DiffOptions, MountOptions, NewContainer, NewImage, NewLayer},
};

use crate::{
    layers_support::Kind,
    stores_support::{Fixture, fails, strings},
};

struct Podman<'a>(&'a Fixture);

impl Podman<'_> {
    fn run(&self, arguments: &[&str]) -> String {
        let root = self.0.root.path();
        let output = Command::new("podman")
            .arg("--root")
            .arg(root.join("graph"))
            .arg("--runroot")
            .arg(root.join("run"))
            .args([
                "--storage-driver",
                self.0.kind.name(),
                "--log-level",
                "error",
            ])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }
}

fn podman_is_here() -> bool {
    let version = Command::new("podman").arg("--version").output();
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are configured by the environment"
    )]
    let required = std::env::var("REQUIRE").is_ok_and(|list| list.contains("interop"));
    assert!(
        version.is_ok() || !required,
        "podman is required and not installed"
    );
    if version.is_err() {
        println!("skipped: podman is not installed");
    }
    version.is_ok()
}

fn tar_with(name: &str, content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(1_700_000_000);
    tar.append_data(&mut header, name, content).unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn interop_podman_images_are_used_and_podman_uses_what_was_changed() {
    if !podman_is_here() {
        return;
    }
    for kind in [Kind::Vfs, Kind::Overlay] {
        let fixture = Fixture::new(kind);
        let podman = Podman(&fixture);
        let archive = fixture.root.path().join("rootfs.tar");
        let bytes = tar_with("hello", b"from podman");
        fs::write(&archive, &bytes).unwrap();
        podman.run(&["import", archive.to_str().unwrap(), "localhost/p:1"]);
        podman.run(&["tag", "localhost/p:1", "localhost/p:2"]);

        // What podman wrote is understood, and given back byte for byte.
        let store = &fixture.store;
        let image = store.image("localhost/p:2").unwrap();
        let mut names = image.names.clone();
        names.sort();
        assert_eq!(names, ["localhost/p:1", "localhost/p:2"], "{kind:?}");
        assert_eq!(image.names_history.len(), 2);
        let manifest = store.image_big_data(&image.id, "manifest").unwrap();
        assert!(manifest.starts_with(b"{"));
        let digest = image.digest.clone().unwrap();
        assert_eq!(store.images_by_digest(&digest).unwrap().len(), 1);
        let top = image.top_layer.clone().unwrap();
        let mut out = Vec::new();
        let mut plain = DiffOptions::default();
        plain.compression = Some(plywood::archive::Compression::None);
        store.diff(None, &top, plain, &mut out).unwrap();
        assert_eq!(out, bytes, "{kind:?}");
        let before = fixture.images_json();
        store.set_metadata(&image.id, "x").unwrap();
        store.set_metadata(&image.id, &image.metadata).unwrap();
        assert_eq!(fixture.images_json(), before, "a rewrite loses nothing");

        // Podman sees names, containers and files that were made here.
        store
            .add_names(&image.id, &strings(&["localhost/ours:3"]))
            .unwrap();
        let listed = podman.run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        assert!(
            listed.lines().any(|line| line == "localhost/ours:3"),
            "{listed}"
        );
        let container = store
            .create_container(NewContainer {
                names: strings(&["outside"]),
                image: Some("localhost/ours:3".to_owned()),
                ..NewContainer::default()
            })
            .unwrap();
        let path = store.mount("outside", &MountOptions::default()).unwrap();
        assert_eq!(fs::read(path.join("hello")).unwrap(), b"from podman");
        store.unmount("outside", false).unwrap();
        let shown = podman.run(&["ps", "--all", "--external", "--quiet", "--no-trunc"]);
        assert_eq!(shown, container.id, "{kind:?}");
        fails(
            store.delete_image("localhost/ours:3", true),
            ErrorKind::ImageUsedByContainer,
        );

        // A container of podman is seen and protected here.
        let theirs = podman.run(&["create", "--name", "inside", "localhost/p:1", "/hello"]);
        assert_eq!(store.container("inside").unwrap().id, theirs);
        store.delete_container("outside").unwrap();
        fails(
            store.delete_image(&image.id, true),
            ErrorKind::ImageUsedByContainer,
        );
        podman.run(&["rm", "inside"]);
        fails(store.container("inside"), ErrorKind::ContainerUnknown);
        let gone = store.delete_image(&image.id, true).unwrap();
        assert_eq!(gone, [top]);
        assert_eq!(podman.run(&["images", "--quiet"]), "", "{kind:?}");
    }
}

#[test]
fn interop_podman_mounts_and_removes_an_image_made_here() {
    if !podman_is_here() {
        return;
    }
    for kind in [Kind::Vfs, Kind::Overlay] {
        let fixture = Fixture::new(kind);
        let podman = Podman(&fixture);
        let store = &fixture.store;
        let bytes = tar_with("made", b"here");
        let (layer, _) = store.put_layer(NewLayer::default(), &*bytes).unwrap();
        let diff_id = layer.diff_digest.clone().unwrap();
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}},"history":[]}}"#
        );
        let config_digest = plywood::Digest::sha256(config.as_bytes());
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{config_digest}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{diff_id}","size":{}}}]}}"#,
            config.len(),
            bytes.len(),
        );
        let image = store
            .create_image(NewImage {
                id: Some(config_digest.hex().to_owned()),
                names: strings(&["localhost/made:1"]),
                layer: Some(layer.id.clone()),
                ..NewImage::default()
            })
            .unwrap();
        for (key, data) in [
            (config_digest.as_str(), &config),
            ("manifest", &manifest),
            (
                &*format!("manifest-{}", plywood::Digest::sha256(manifest.as_bytes())),
                &manifest,
            ),
        ] {
            store
                .set_image_big_data(&image.id, key, data.as_bytes(), None)
                .unwrap();
        }
        let shown = podman.run(&[
            "inspect",
            "--format",
            "{{.Id}} {{.RootFS.Layers}}",
            "made:1",
        ]);
        assert_eq!(shown, format!("{} [{diff_id}]", image.id), "{kind:?}");
        let path = podman.run(&["image", "mount", "localhost/made:1"]);
        assert_eq!(
            fs::read(std::path::Path::new(&path).join("made")).unwrap(),
            b"here",
            "{kind:?}"
        );
        assert_eq!(store.mounted(&layer.id).unwrap(), 1);
        podman.run(&["image", "unmount", "localhost/made:1"]);
        podman.run(&["rmi", "localhost/made:1"]);
        fails(store.image(&image.id), ErrorKind::ImageUnknown);
        fails(store.layer(&layer.id), ErrorKind::LayerUnknown);
        assert!(!store.driver_layers().unwrap().contains(&layer.id));
    }
}
