// SPDX-License-Identifier: Apache-2.0
//! Reads OCI layouts: `oci-layout`, `index.json`, `blobs/ALGORITHM/HEX`.

use std::path::Path;

use plywood::Digest;

use super::{
    ImageError,
    files::{Files, check},
    json::{
        self, Config, DOCKER_CONFIG, DOCKER_INDEX, DOCKER_MANIFEST, Descriptor, Index, LIMIT,
        Manifest, OCI_CONFIG, OCI_INDEX, OCI_MANIFEST, Platform,
    },
    load::{ImagePlan, LayerPlan},
    reference::is_tag,
};

/// Indexes may point to indexes, but not for ever.
const MAX_DEPTH: usize = 4;

/// What is wanted of a layout.
pub(crate) struct Wanted<'a> {
    /// A tag, a name or a digest.
    pub(crate) tag: Option<&'a str>,
    /// For which platform.
    pub(crate) platform: &'a Platform,
}

/// The images of a layout that are wanted.
pub(crate) fn plans(files: &Files, wanted: &Wanted<'_>) -> Result<Vec<ImagePlan>, ImageError> {
    let bytes = files.read("index.json", LIMIT)?;
    let index: Index = json::parse("index.json", &bytes)?;
    if index.manifests.is_empty() {
        return Err(ImageError::Empty(files.path().display().to_string()));
    }
    let mut groups: Vec<(Option<String>, Vec<&Descriptor>)> = Vec::new();
    for descriptor in &index.manifests {
        let name = descriptor.name().map(str::to_owned);
        if wanted.tag.is_some_and(|tag| !answers(descriptor, tag)) {
            continue;
        }
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, group)) => group.push(descriptor),
            None => groups.push((name, vec![descriptor])),
        }
    }
    if let (Some(tag), true) = (wanted.tag, groups.is_empty()) {
        return Err(ImageError::NoSuchTag {
            tag: tag.to_owned(),
            known: known_names(&index),
        });
    }
    let mut plans: Vec<ImagePlan> = Vec::new();
    for (name, group) in groups {
        let chosen = choose(&group, wanted.platform)?;
        let mut plan = image(files, chosen, wanted.platform)?;
        plan.names
            .extend(name.map(|name| full_name(files.path(), &name)));
        // The same image under several tags is stored once.
        match plans.iter_mut().find(|p| p.manifest == plan.manifest) {
            Some(known) => known.names.extend(plan.names),
            None => plans.push(plan),
        }
    }
    Ok(plans)
}

fn answers(descriptor: &Descriptor, tag: &str) -> bool {
    let tagged = descriptor
        .name()
        .is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}")));
    tagged || descriptor.digest == tag
}

fn known_names(index: &Index) -> String {
    let names: Vec<&str> = index
        .manifests
        .iter()
        .map(|d| d.name().unwrap_or(&d.digest))
        .collect();
    names.join(", ")
}

/// A reference name that is a tag alone belongs to an image called like the layout.
fn full_name(layout: &Path, name: &str) -> String {
    if !is_tag(name) {
        return name.to_owned();
    }
    let stem = layout
        .file_stem()
        .map(|stem| stem.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    let stem: String = stem
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    match stem.trim_matches('-') {
        "" => format!("image:{name}"),
        stem => format!("{stem}:{name}"),
    }
}

/// The descriptor for the platform; one alone is taken as it is.
fn choose<'a>(group: &[&'a Descriptor], platform: &Platform) -> Result<&'a Descriptor, ImageError> {
    if let [only] = group {
        return Ok(only);
    }
    let matching: Vec<&&Descriptor> = group
        .iter()
        .filter(|d| d.platform.as_ref().is_some_and(|p| fits(p, platform)))
        .collect();
    // Among several the exact variant wins, then the first.
    matching
        .iter()
        .find(|d| d.platform.as_ref().and_then(|p| p.variant.as_ref()) == platform.variant.as_ref())
        .or(matching.first())
        .map(|d| **d)
        .ok_or_else(|| {
            let known: Vec<String> = group
                .iter()
                .filter_map(|d| d.platform.as_ref())
                .map(ToString::to_string)
                .collect();
            ImageError::NoPlatform {
                wanted: platform.to_string(),
                known: known.join(", "),
            }
        })
}

fn fits(offered: &Platform, wanted: &Platform) -> bool {
    offered.os == wanted.os
        && offered.architecture == wanted.architecture
        && (wanted.variant.is_none() || offered.variant == wanted.variant)
}

/// Follows `descriptor` through indexes to an image.
fn image(
    files: &Files,
    descriptor: &Descriptor,
    platform: &Platform,
) -> Result<ImagePlan, ImageError> {
    let mut descriptor = descriptor.clone();
    let mut indexes = Vec::new();
    for _ in 0..MAX_DEPTH {
        let bytes = blob(files, &descriptor)?;
        let path = descriptor.digest.clone();
        let media_type = media_type(&descriptor, &path, &bytes)?;
        match media_type.as_str() {
            OCI_INDEX | DOCKER_INDEX => {
                let index: Index = json::parse(&path, &bytes)?;
                let group: Vec<&Descriptor> = index.manifests.iter().collect();
                if group.is_empty() {
                    return Err(ImageError::Empty(path));
                }
                let next = choose(&group, platform)?.clone();
                indexes.push((digest(&descriptor)?, bytes));
                descriptor = next;
            }
            OCI_MANIFEST | DOCKER_MANIFEST => {
                return manifest(files, &descriptor, bytes, indexes);
            }
            _ => return Err(ImageError::MediaType(media_type)),
        }
    }
    Err(ImageError::MediaType(format!(
        "an index that is nested more than {MAX_DEPTH} times"
    )))
}

/// The document's type: what it says itself, or what points to it; both must agree.
fn media_type(descriptor: &Descriptor, path: &str, bytes: &[u8]) -> Result<String, ImageError> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        layers: Option<serde::de::IgnoredAny>,
    }
    let typed: Typed = json::parse(path, bytes)?;
    let own = typed.media_type.filter(|t| !t.is_empty());
    // A document that could be read as both would be seen differently by different tools.
    if typed.manifests.is_some() && typed.layers.is_some() {
        return Err(ImageError::MediaType(
            "manifest and index at once".to_owned(),
        ));
    }
    match own {
        Some(own) if descriptor.media_type.is_empty() || descriptor.media_type == own => Ok(own),
        Some(own) => Err(ImageError::MediaType(format!(
            "{own}, announced as {}",
            descriptor.media_type
        ))),
        None if !descriptor.media_type.is_empty() => Ok(descriptor.media_type.clone()),
        None if typed.manifests.is_some() => Ok(OCI_INDEX.to_owned()),
        None => Ok(OCI_MANIFEST.to_owned()),
    }
}

fn manifest(
    files: &Files,
    descriptor: &Descriptor,
    bytes: Vec<u8>,
    indexes: Vec<(Digest, Vec<u8>)>,
) -> Result<ImagePlan, ImageError> {
    let path = &descriptor.digest;
    let manifest: Manifest = json::parse(path, &bytes)?;
    let config = manifest
        .config
        .as_ref()
        .filter(|_| manifest.schema_version == 2)
        .ok_or_else(|| ImageError::MediaType("a manifest without a configuration".to_owned()))?;
    if !matches!(config.media_type.as_str(), OCI_CONFIG | DOCKER_CONFIG) {
        return Err(ImageError::MediaType(config.media_type.clone()));
    }
    let config_bytes = blob(files, config)?;
    let parsed: Config = json::parse(&config.digest, &config_bytes)?;
    let diff_ids = diff_ids(&parsed, &config.digest)?;
    if diff_ids.len() != manifest.layers.len() {
        return Err(ImageError::LayerCount {
            layers: manifest.layers.len(),
            diff_ids: diff_ids.len(),
        });
    }
    let layers = manifest
        .layers
        .iter()
        .zip(diff_ids)
        .map(|(layer, diff_id)| {
            check_layer_type(layer)?;
            Ok(LayerPlan {
                path: blob_path(&digest(layer)?),
                blob: Some((digest(layer)?, layer.size)),
                diff_id,
            })
        })
        .collect::<Result<Vec<_>, ImageError>>()?;
    Ok(ImagePlan {
        names: Vec::new(),
        manifest: bytes,
        indexes,
        config_digest: digest(config)?,
        config: config_bytes,
        created: parsed.created,
        layers,
    })
}

/// The layers' uncompressed digests of a configuration.
pub(crate) fn diff_ids(config: &Config, path: &str) -> Result<Vec<Digest>, ImageError> {
    let rootfs = config
        .rootfs
        .as_ref()
        .ok_or_else(|| ImageError::NoLayers(path.to_owned()))?;
    rootfs.diff_ids.iter().map(|id| parse_digest(id)).collect()
}

fn check_layer_type(layer: &Descriptor) -> Result<(), ImageError> {
    let kind = layer.media_type.as_str();
    if kind.contains("nondistributable") || kind.contains(".foreign.") || !layer.urls.is_empty() {
        return Err(ImageError::Foreign {
            digest: layer.digest.clone(),
            media_type: kind.to_owned(),
        });
    }
    let known = [
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.docker.image.rootfs.diff.tar",
    ];
    let plain = known.iter().find_map(|prefix| kind.strip_prefix(prefix));
    match plain {
        Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd") => Ok(()),
        _ => Err(ImageError::MediaType(kind.to_owned())),
    }
}

fn digest(descriptor: &Descriptor) -> Result<Digest, ImageError> {
    parse_digest(&descriptor.digest)
}

/// A digest that can be checked here.
pub(crate) fn parse_digest(text: &str) -> Result<Digest, ImageError> {
    text.parse::<Digest>()
        .ok()
        .filter(|digest| digest.algorithm() == "sha256")
        .ok_or_else(|| ImageError::BadDigest(text.to_owned()))
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// Reads and checks a small blob.
fn blob(files: &Files, descriptor: &Descriptor) -> Result<Vec<u8>, ImageError> {
    let digest = digest(descriptor)?;
    let path = blob_path(&digest);
    let bytes = files.read(&path, LIMIT)?;
    let actual = (Digest::sha256(&bytes), bytes.len() as u64);
    check(&path, (&digest, descriptor.size), actual)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests;
