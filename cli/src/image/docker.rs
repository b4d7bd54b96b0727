// SPDX-License-Identifier: Apache-2.0
//! Reads docker archives: `manifest.json`, configurations and plain (or compressed) layers.

use std::io::{self, Read as _};

use plywood::{
    Digest,
    archive::{Compression, detect::detect},
};

use super::{
    ImageError,
    files::{Files, decompressed},
    json::{
        self, Config, DOCKER_CONFIG, DOCKER_LAYER_GZIP, DOCKER_MANIFEST, DockerItem, LIMIT,
        NewDescriptor, NewManifest,
    },
    load::{ImagePlan, LayerPlan},
    oci::diff_ids,
};

/// The images of an archive; with `name`, the one that has it.
pub(crate) fn plans(files: &Files, name: Option<&str>) -> Result<Vec<ImagePlan>, ImageError> {
    let bytes = files.read("manifest.json", LIMIT)?;
    let items: Vec<DockerItem> = json::parse("manifest.json", &bytes)?;
    if items.is_empty() {
        return Err(ImageError::Empty(files.path().display().to_string()));
    }
    let chosen: Vec<&DockerItem> = items
        .iter()
        .filter(|item| name.is_none_or(|name| has_name(item, name)))
        .collect();
    if let (Some(name), true) = (name, chosen.is_empty()) {
        let known: Vec<&str> = items
            .iter()
            .flat_map(|item| item.repo_tags.iter().map(String::as_str))
            .collect();
        return Err(ImageError::NoSuchTag {
            tag: name.to_owned(),
            known: known.join(", "),
        });
    }
    chosen.into_iter().map(|item| plan(files, item)).collect()
}

fn has_name(item: &DockerItem, name: &str) -> bool {
    let full = super::reference::normalize(name).ok();
    item.repo_tags
        .iter()
        .any(|tag| tag == name || (full.is_some() && super::reference::normalize(tag).ok() == full))
}

fn plan(files: &Files, item: &DockerItem) -> Result<ImagePlan, ImageError> {
    let config = files.read(&item.config, LIMIT)?;
    let parsed: Config = json::parse(&item.config, &config)?;
    let diff_ids = diff_ids(&parsed, &item.config)?;
    if diff_ids.len() != item.layers.len() {
        return Err(ImageError::LayerCount {
            layers: item.layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    let mut layers = Vec::with_capacity(diff_ids.len());
    let mut described = Vec::with_capacity(diff_ids.len());
    for (path, diff_id) in item.layers.iter().zip(diff_ids) {
        let size = plain_size(files, path)?;
        described.push(NewDescriptor {
            media_type: DOCKER_LAYER_GZIP,
            size,
            digest: diff_id.clone(),
        });
        layers.push(LayerPlan {
            path: path.clone(),
            blob: None,
            diff_id,
        });
    }
    let config_digest = Digest::sha256(&config);
    Ok(ImagePlan {
        names: item.repo_tags.clone(),
        manifest: manifest(&config, &config_digest, described)?,
        indexes: Vec::new(),
        config_digest,
        config,
        created: parsed.created,
        layers,
    })
}

/// The manifest that podman makes for an image of a docker archive, to the byte: so both tools
/// record the same digest.
fn manifest(
    config: &[u8],
    config_digest: &Digest,
    layers: Vec<NewDescriptor>,
) -> Result<Vec<u8>, ImageError> {
    let manifest = NewManifest {
        schema_version: 2,
        media_type: DOCKER_MANIFEST,
        config: NewDescriptor {
            media_type: DOCKER_CONFIG,
            size: config.len() as u64,
            digest: config_digest.clone(),
        },
        layers,
        annotations: std::collections::BTreeMap::new(),
    };
    serde_json::to_vec(&manifest).map_err(|source| ImageError::BadJson {
        path: "manifest".to_owned(),
        source,
    })
}

/// The size of a layer's tar, which may be compressed in the archive.
fn plain_size(files: &Files, path: &str) -> Result<u64, ImageError> {
    let (mut reader, size) = files.open(path)?;
    let mut start = Vec::new();
    reader
        .by_ref()
        .take(512)
        .read_to_end(&mut start)
        .map_err(ImageError::io("read", path))?;
    if detect(&start) == Compression::None {
        return Ok(size);
    }
    let (reader, _) = files.open(path)?;
    let mut plain = decompressed(reader).map_err(ImageError::io("decompress", path))?;
    io::copy(&mut plain, &mut io::sink()).map_err(ImageError::io("decompress", path))
}
