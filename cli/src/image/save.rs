// SPDX-License-Identifier: Apache-2.0
//! Writes images as files that podman, skopeo and docker read.

use std::{
    collections::BTreeMap,
    io::{self, BufWriter, Write},
};

use plywood::{
    Digest, ErrorKind,
    archive::{Compression, encode::encoded},
    store::{DiffOptions, Image, Layer, Store},
};
use sha2::{Digest as _, Sha256};
use tempfile::NamedTempFile;

use super::{
    ImageError, Place,
    json::{
        self, Config, DockerItem, Index, NewDescriptor, NewManifest, OCI_CONFIG, OCI_LAYER,
        OCI_LAYER_GZIP, OCI_MANIFEST, REF_NAME,
    },
    oci::diff_ids,
    reference::{candidates, normalize},
    writer::Writer,
};
use crate::progress::Meter;

/// How to save.
#[derive(Debug, Default)]
pub(crate) struct SaveOptions {
    /// Layers of an OCI image stay plain tars.
    pub(crate) uncompressed: bool,
}

/// An image that was saved.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Saved {
    /// Its id.
    pub(crate) id: String,
    /// The digest of the manifest that was written; docker archives have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<Digest>,
    /// The name inside the file.
    pub(crate) name: Option<String>,
    /// Bytes of the layers as written.
    pub(crate) size: u64,
}

/// The image that `name` means, and the name by which it was found.
pub(crate) fn find(store: &Store, name: &str) -> plywood::Result<(Image, String)> {
    let mut first = None;
    for candidate in candidates(name) {
        match store.image(&candidate) {
            Ok(image) => return Ok((image, candidate)),
            Err(error) if error.kind() == ErrorKind::ImageUnknown => {
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(first.unwrap_or_else(|| plywood::Error::new(ErrorKind::ImageUnknown, "image not known")))
}

/// Saves the image called `name` to `place`.
pub(crate) fn save(
    store: &Store,
    name: &str,
    place: &Place,
    options: &SaveOptions,
) -> anyhow::Result<Saved> {
    let (image, found) = find(store, name)?;
    let name = image
        .names
        .iter()
        .find(|known| **known == found)
        .or(image.names.first())
        .cloned();
    let source = Source::open(store, image)?;
    // A path alone: the format that keeps most.
    let place = match place {
        Place::Plain(path) if path.is_dir() || !has_tar_name(path) => {
            Place::OciDir(path.clone(), None)
        }
        Place::Plain(path) => Place::OciArchive(path.clone(), None),
        other => other.clone(),
    };
    let is_docker = matches!(place, Place::DockerArchive(..));
    let mut writer = Writer::create(&place)?;
    let name = place.inner_name().map(str::to_owned).or(name);
    let saved = if is_docker {
        docker_archive(store, &source, name, &mut writer)?
    } else {
        oci_layout(store, &source, name, options, &mut writer)?
    };
    writer.finish()?;
    Ok(saved)
}

fn has_tar_name(path: &std::path::Path) -> bool {
    path.as_os_str() == "-"
        || path
            .extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("tar"))
}

/// What the store has of an image.
struct Source {
    image: Image,
    config: Vec<u8>,
    config_digest: Digest,
    annotations: BTreeMap<String, String>,
    /// Base first, with their uncompressed digests.
    layers: Vec<(Layer, Digest)>,
}

impl Source {
    fn open(store: &Store, image: Image) -> anyhow::Result<Self> {
        let incomplete = |item: &str| ImageError::NotAnImage {
            image: image.id.clone(),
            item: item.to_owned(),
        };
        let manifest = store
            .image_big_data(&image.id, "manifest")
            .map_err(|_| incomplete("manifest"))?;
        let manifest: json::Manifest = json::parse("manifest", &manifest)?;
        let key = manifest
            .config
            .ok_or_else(|| incomplete("configuration"))?
            .digest;
        let config_digest: Digest = key.parse()?;
        let config = store
            .image_big_data(&image.id, &key)
            .map_err(|_| incomplete(&key))?;
        super::files::check(
            &key,
            (&config_digest, config.len() as u64),
            (Digest::sha256(&config), config.len() as u64),
        )?;
        let parsed: Config = json::parse(&key, &config)?;
        let diff_ids = diff_ids(&parsed, &key)?;
        let mut chain = Vec::new();
        let mut next = image.top_layer.clone().filter(|id| !id.is_empty());
        while let Some(id) = next {
            if chain.len() == diff_ids.len() {
                return Err(ImageError::Incomplete(image.id.clone()).into());
            }
            let layer = store.layer(&id)?;
            next = layer.parent.clone().filter(|id| !id.is_empty());
            chain.push(layer);
        }
        if chain.len() != diff_ids.len() {
            return Err(ImageError::Incomplete(image.id.clone()).into());
        }
        chain.reverse();
        Ok(Self {
            image,
            config,
            config_digest,
            annotations: manifest.annotations,
            layers: chain.into_iter().zip(diff_ids).collect(),
        })
    }
}

fn oci_layout(
    store: &Store,
    source: &Source,
    name: Option<String>,
    options: &SaveOptions,
    writer: &mut Writer,
) -> anyhow::Result<Saved> {
    let (compression, media_type) = if options.uncompressed {
        (Compression::None, OCI_LAYER)
    } else {
        (Compression::Gzip, OCI_LAYER_GZIP)
    };
    writer.put("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let mut layers = Vec::new();
    for (layer, diff_id) in &source.layers {
        let blob = export(store, layer, diff_id, compression, writer.scratch()?)?;
        writer.put_file(&blob_path(&blob.digest), blob.file)?;
        layers.push(NewDescriptor {
            media_type,
            size: blob.size,
            digest: blob.digest,
        });
    }
    writer.put(&blob_path(&source.config_digest), &source.config)?;
    let size = layers.iter().map(|layer| layer.size).sum();
    let manifest = to_json(&NewManifest {
        schema_version: 2,
        media_type: OCI_MANIFEST,
        config: NewDescriptor {
            media_type: OCI_CONFIG,
            size: source.config.len() as u64,
            digest: source.config_digest.clone(),
        },
        layers,
        annotations: source.annotations.clone(),
    })?;
    let digest = Digest::sha256(&manifest);
    writer.put(&blob_path(&digest), &manifest)?;
    // Read only now: others may have added images while the layers were written.
    let _lock = writer.lock()?;
    let old_index = writer.existing("index.json")?;
    let index = index(old_index, (&digest, manifest.len() as u64), name.as_deref())?;
    // The index comes last: it is what makes an image of blobs.
    writer.put("index.json", &index)?;
    Ok(Saved {
        id: source.image.id.clone(),
        digest: Some(digest),
        name,
        size,
    })
}

/// The index with the new image; an entry of the same name is replaced.
fn index(
    old: Option<Vec<u8>>,
    (digest, size): (&Digest, u64),
    name: Option<&str>,
) -> Result<Vec<u8>, ImageError> {
    let mut index: Index = match old {
        Some(bytes) => json::parse("index.json", &bytes)?,
        None => Index {
            schema_version: 2,
            media_type: None,
            manifests: Vec::new(),
            other: serde_json::Map::new(),
        },
    };
    index.manifests.retain(|known| match name {
        Some(name) => known.name() != Some(name),
        None => known.name().is_some() || known.digest != digest.as_str(),
    });
    index.manifests.push(json::Descriptor {
        media_type: OCI_MANIFEST.to_owned(),
        digest: digest.to_string(),
        size,
        urls: Vec::new(),
        annotations: name
            .map(|name| (REF_NAME.to_owned(), name.to_owned()))
            .into_iter()
            .collect(),
        platform: None,
        other: serde_json::Map::new(),
    });
    to_json(&index)
}

fn docker_archive(
    store: &Store,
    source: &Source,
    name: Option<String>,
    writer: &mut Writer,
) -> anyhow::Result<Saved> {
    let mut paths: Vec<String> = Vec::new();
    let mut size = 0;
    for (layer, diff_id) in &source.layers {
        let path = format!("{}.tar", diff_id.hex());
        // The same content can be a layer twice.
        if !paths.contains(&path) {
            let blob = export(store, layer, diff_id, Compression::None, writer.scratch()?)?;
            writer.put_file(&path, blob.file)?;
            size += blob.size;
        }
        paths.push(path);
    }
    // Tools refuse an archive whose tags are not complete names.
    let name = match name {
        Some(name) => Some(normalize(&name)?),
        None => None,
    };
    let config = format!("{}.json", source.config_digest.hex());
    writer.put(&config, &source.config)?;
    let manifest = to_json(&[DockerItem {
        config,
        repo_tags: name
            .iter()
            .filter(|name| !name.contains('@'))
            .cloned()
            .collect(),
        layers: paths,
    }])?;
    writer.put("manifest.json", &manifest)?;
    Ok(Saved {
        id: source.image.id.clone(),
        digest: None,
        name,
        size,
    })
}

fn to_json<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, ImageError> {
    serde_json::to_vec(value).map_err(|source| ImageError::BadJson {
        path: "the new document".to_owned(),
        source,
    })
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm(), digest.hex())
}

/// A layer's tar.
struct Blob {
    file: NamedTempFile,
    digest: Digest,
    size: u64,
}

/// Exports a layer and checks that it is still what the configuration says.
fn export(
    store: &Store,
    layer: &Layer,
    diff_id: &Digest,
    compression: Compression,
    file: NamedTempFile,
) -> anyhow::Result<Blob> {
    let total = layer.diff_size.and_then(|size| u64::try_from(size).ok());
    let mut meter = Meter::new(
        format!("layer {}", layer.id.get(..12).unwrap_or(&layer.id)),
        total,
    );
    let mut blob = Hashed::new(BufWriter::with_capacity(1 << 20, file));
    let actual = encoded(compression, &mut blob, |out| {
        let mut plain = Hashed::new(out);
        plain.meter = Some(&mut meter);
        let mut options = DiffOptions::default();
        options.compression = Some(Compression::None);
        store.diff(None, &layer.id, options, &mut plain)?;
        Ok(plain.finish().digest)
    })?;
    if actual != *diff_id {
        return Err(ImageError::ChangedLayer {
            id: layer.id.clone(),
            expected: diff_id.clone(),
            actual,
        }
        .into());
    }
    let done = blob.finish();
    let written = done.inner.into_inner();
    let file = written.map_err(|e| ImageError::io("write", "temporary file")(e.into_error()))?;
    Ok(Blob {
        file,
        digest: done.digest,
        size: done.size,
    })
}

/// A writer that hashes and counts.
struct Hashed<'a, W> {
    inner: W,
    hash: Sha256,
    size: u64,
    meter: Option<&'a mut Meter>,
}

struct Done<W> {
    inner: W,
    digest: Digest,
    size: u64,
}

impl<W: Write> Hashed<'_, W> {
    fn new(inner: W) -> Self {
        Self {
            inner,
            hash: Sha256::new(),
            size: 0,
            meter: None,
        }
    }

    fn finish(self) -> Done<W> {
        Done {
            inner: self.inner,
            digest: Digest::from_sha256(&self.hash.finalize()),
            size: self.size,
        }
    }
}

impl<W: Write> Write for Hashed<'_, W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        crate::signals::check()?;
        let written = self.inner.write(buffer)?;
        self.hash.update(&buffer[..written]);
        self.size += written as u64;
        if let Some(meter) = &mut self.meter {
            meter.add(written as u64);
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
