// SPDX-License-Identifier: Apache-2.0

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::*;
use crate::image::json::{OCI_LAYER, OCI_LAYER_GZIP, REF_NAME};

fn put(dir: &Path, bytes: &[u8]) -> Value {
    let digest = Digest::sha256(bytes);
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    fs::write(blobs.join(digest.hex()), bytes).unwrap();
    json!({"digest": digest, "size": bytes.len()})
}

fn with(mut descriptor: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        descriptor[key] = value.clone();
    }
    descriptor
}

/// An image with one layer, which is called `text`.
fn put_image(dir: &Path, text: &str, layer: &Value) -> Value {
    let config = json!({
        "created": "2020-01-02T03:04:05Z", "architecture": "amd64", "os": "linux", "note": text,
        "rootfs": {"type": "layers", "diff_ids": [Digest::sha256(text.as_bytes())]},
    });
    let config = put(dir, config.to_string().as_bytes());
    let layer = with(put(dir, text.as_bytes()), layer);
    let manifest = json!({
        "schemaVersion": 2,
        "config": with(config, &json!({"mediaType": OCI_CONFIG})),
        "layers": [layer],
    });
    with(
        put(dir, manifest.to_string().as_bytes()),
        &json!({"mediaType": OCI_MANIFEST}),
    )
}

fn plain() -> Value {
    json!({"mediaType": OCI_LAYER})
}

fn put_index(dir: &Path, manifests: &[Value]) {
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    fs::write(dir.join("index.json"), index.to_string()).unwrap();
}

fn amd64() -> Platform {
    Platform {
        architecture: "amd64".into(),
        os: "linux".into(),
        variant: None,
        other: serde_json::Map::new(),
    }
}

fn read(dir: &Path, tag: Option<&str>) -> Result<Vec<ImagePlan>, ImageError> {
    let files = Files::directory(dir).unwrap();
    plans(
        &files,
        &Wanted {
            tag,
            platform: &amd64(),
        },
    )
}

#[test]
fn tags_choose_images() {
    let dir = tempfile::tempdir().unwrap();
    let named = |text: &str, name: &str| {
        with(
            put_image(dir.path(), text, &plain()),
            &json!({"annotations": {REF_NAME: name}}),
        )
    };
    let (one, two) = (named("one", "v1"), named("two", "q.io/two:v2"));
    let again = named("one", "q.io/one:latest");
    put_index(dir.path(), &[one, two, again]);
    let all = read(dir.path(), None).unwrap();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].names[1], "q.io/one:latest");
    assert!(all[0].names[0].ends_with(":v1"), "{:?}", all[0].names);
    let v2 = read(dir.path(), Some("v2")).unwrap();
    assert_eq!(v2.len(), 1);
    assert_eq!(v2[0].names, ["q.io/two:v2"]);
    assert_eq!(v2[0].layers[0].diff_id, Digest::sha256(b"two"));
    let missing = read(dir.path(), Some("v3")).err().unwrap();
    assert_eq!(
        missing.to_string(),
        "no image is tagged `v3` there; there are: v1, q.io/two:v2, q.io/one:latest"
    );
}

#[test]
fn indexes_choose_by_platform() {
    let dir = tempfile::tempdir().unwrap();
    let of = |text: &str, architecture: &str, os: &str| {
        with(
            put_image(dir.path(), text, &plain()),
            &json!({"platform": {"architecture": architecture, "os": os}}),
        )
    };
    let manifests = [
        of("arm", "arm64", "linux"),
        of("pc", "amd64", "linux"),
        of("at", "unknown", "unknown"),
    ];
    let nested = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
    let nested = put(dir.path(), nested.to_string().as_bytes());
    put_index(
        dir.path(),
        &[with(nested, &json!({"mediaType": OCI_INDEX}))],
    );
    let plans = read(dir.path(), None).unwrap();
    assert_eq!(plans[0].layers[0].diff_id, Digest::sha256(b"pc"));
    assert_eq!(plans[0].indexes.len(), 1);
    let arm_only = json!({"schemaVersion": 2, "mediaType": OCI_INDEX,
        "manifests": [manifests[0], manifests[2]]});
    let arm_only = put(dir.path(), arm_only.to_string().as_bytes());
    put_index(
        dir.path(),
        &[with(arm_only, &json!({"mediaType": OCI_INDEX}))],
    );
    let error = read(dir.path(), None).err().unwrap();
    assert!(matches!(error, ImageError::NoPlatform { .. }), "{error:?}");
}

#[test]
fn what_cannot_be_trusted_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let refused = |manifest: Value| {
        put_index(dir, &[manifest]);
        read(dir, None).expect_err("it was accepted")
    };
    let foreign = json!({
        "mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "urls": ["https://example.org/"],
    });
    let error = refused(put_image(dir, "foreign", &foreign));
    assert!(matches!(error, ImageError::Foreign { .. }), "{error:?}");

    let odd = put_image(dir, "odd", &json!({"mediaType": "application/x-sfs"}));
    assert!(matches!(refused(odd), ImageError::MediaType(_)));

    let gzip = put_image(dir, "gzip", &json!({"mediaType": OCI_LAYER_GZIP}));
    put_index(dir, std::slice::from_ref(&gzip));
    assert!(read(dir, None).is_ok());

    let longer = with(gzip.clone(), &json!({"size": 1}));
    assert!(matches!(refused(longer), ImageError::WrongSize { .. }));

    let escaping = with(
        gzip.clone(),
        &json!({"digest": "sha256:../../../../etc/passwd"}),
    );
    assert!(matches!(refused(escaping), ImageError::BadDigest(_)));

    let hex = gzip["digest"].as_str().unwrap()["sha256:".len()..].to_owned();
    let blob = dir.join("blobs/sha256").join(hex);
    let changed = fs::read_to_string(&blob)
        .unwrap()
        .replace("schema", "sch3ma");
    fs::write(&blob, changed).unwrap();
    assert!(matches!(refused(gzip), ImageError::WrongDigest { .. }));

    let artifact = json!({"schemaVersion": 2, "layers": [],
        "config": with(put(dir, b"{}"), &json!({"mediaType": "application/vnd.oci.empty.v1+json"}))});
    let artifact = put(dir, artifact.to_string().as_bytes());
    assert!(matches!(refused(artifact), ImageError::MediaType(_)));
}
