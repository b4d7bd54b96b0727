// SPDX-License-Identifier: Apache-2.0
//! Records images from files as podman records those it pulls, so that both share layers.
//!
//! # Compatibility
//! A layer's id is the digest of its chain (the parent's id, `+`, the layer's uncompressed digest,
//! all in hex; the base's is its uncompressed digest), an image's id is the digest of its
//! configuration. The configuration is stored under its digest, indexes and the manifest under
//! `manifest-DIGEST`, the manifest also as `manifest`, and an empty list of signatures under
//! `signature-HEX` (containers/image, `storage/storage_dest.go`).

use std::{collections::BTreeMap, io::Read};

use anyhow::Context as _;
use plywood::{
    Digest, ErrorKind, Timestamp,
    layers::PutOptions,
    sdk::LayerKind,
    store::{BigDataItem, Image, Layer, NewImage, NewLayer, Store},
};

use super::{
    ImageError, Place, docker,
    files::{Files, Verified, decompressed},
    json::Platform,
    oci::{self, Wanted},
    reference::normalize,
};
use crate::{
    output::note,
    progress::{Meter, Metered},
    signals::Interruptible,
};

/// An image as it is to be recorded.
#[derive(Debug)]
pub(crate) struct ImagePlan {
    /// Names, as the file gives them.
    pub(crate) names: Vec<String>,
    /// The manifest's bytes.
    pub(crate) manifest: Vec<u8>,
    /// The indexes that led to it, outermost first.
    pub(crate) indexes: Vec<(Digest, Vec<u8>)>,
    /// The configuration's digest.
    pub(crate) config_digest: Digest,
    /// The configuration's bytes.
    pub(crate) config: Vec<u8>,
    /// When the image was made, as the configuration says.
    pub(crate) created: Option<String>,
    /// Base first.
    pub(crate) layers: Vec<LayerPlan>,
}

/// A layer as it is to be stored.
#[derive(Debug)]
pub(crate) struct LayerPlan {
    /// The file's name inside the image.
    pub(crate) path: String,
    /// Digest and size of that file when they were announced; without them it is decompressed
    /// before it is stored, as in docker archives.
    pub(crate) blob: Option<(Digest, u64)>,
    /// The uncompressed digest.
    pub(crate) diff_id: Digest,
}

/// What to load, and how.
#[derive(Debug, Default)]
pub(crate) struct LoadOptions {
    /// The name to give; without it the names in the file count.
    pub(crate) name: Option<String>,
    /// For which platform; without it this machine's.
    pub(crate) platform: Option<String>,
}

/// An image that was loaded.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Loaded {
    /// Its id.
    pub(crate) id: String,
    /// The manifest's digest.
    pub(crate) digest: Digest,
    /// The names it was given.
    pub(crate) names: Vec<String>,
    /// How many of its layers were stored.
    pub(crate) layers_added: usize,
    /// How many were there already.
    pub(crate) layers_reused: usize,
}

/// Loads the images of `place` into `store`.
pub(crate) fn load(
    store: &Store,
    place: &Place,
    options: &LoadOptions,
) -> anyhow::Result<Vec<Loaded>> {
    let platform = platform(options.platform.as_deref())?;
    let (files, mut plans) = read(place, &platform)?;
    if let Some(name) = &options.name {
        if plans.len() > 1 {
            let known: Vec<&str> = plans
                .iter()
                .filter_map(|plan| plan.names.first().map(String::as_str))
                .collect();
            return Err(ImageError::Ambiguous {
                name: name.clone(),
                count: plans.len(),
                known: known.join(", "),
            }
            .into());
        }
        for plan in &mut plans {
            plan.names = vec![name.clone()];
        }
    }
    // Bad names are found before anything is stored.
    for plan in &mut plans {
        let mut names = Vec::new();
        for name in &plan.names {
            let name = normalize(name)?;
            if !names.contains(&name) {
                names.push(name);
            }
        }
        plan.names = names;
    }
    plans
        .iter()
        .map(|plan| record(store, &files, plan))
        .collect()
}

fn read(place: &Place, platform: &Platform) -> anyhow::Result<(Files, Vec<ImagePlan>)> {
    let unknown = || ImageError::UnknownFormat(place.path().display().to_string());
    let files = match place {
        Place::OciDir(path, _) => Files::directory(path)?,
        Place::Plain(path) if path.is_dir() => Files::directory(path)?,
        _ => Files::archive(place.path())?,
    };
    let is_docker = match place {
        Place::DockerArchive(..) => true,
        Place::OciDir(..) | Place::OciArchive(..) => false,
        // `docker save` of today writes both forms into one archive; the OCI one says more.
        Place::Plain(_) if files.has("index.json") => false,
        Place::Plain(_) if files.has("manifest.json") => true,
        Place::Plain(_) => return Err(unknown().into()),
    };
    let plans = if is_docker {
        docker::plans(&files, place.inner_name())?
    } else {
        let wanted = Wanted {
            tag: place.inner_name(),
            platform,
        };
        oci::plans(&files, &wanted)?
    };
    Ok((files, plans))
}

fn platform(text: Option<&str>) -> Result<Platform, ImageError> {
    let make = |os: &str, architecture: &str, variant: Option<&str>| Platform {
        os: os.to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.map(str::to_owned),
        other: serde_json::Map::new(),
    };
    let Some(text) = text else {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        return Ok(make("linux", architecture, None));
    };
    match text.split('/').collect::<Vec<_>>()[..] {
        [os, architecture] if !os.is_empty() && !architecture.is_empty() => {
            Ok(make(os, architecture, None))
        }
        [os, architecture, variant] if ![os, architecture, variant].contains(&"") => {
            Ok(make(os, architecture, Some(variant)))
        }
        _ => Err(ImageError::BadPlatform(text.to_owned())),
    }
}

/// Stores the layers, then the image.
fn record(store: &Store, files: &Files, plan: &ImagePlan) -> anyhow::Result<Loaded> {
    let mut parent: Option<String> = None;
    let mut added = 0;
    for (at, layer) in plan.layers.iter().enumerate() {
        let id = chain_id(parent.as_deref(), &layer.diff_id);
        match store.layer(&id) {
            Ok(known) => {
                check_known(&known, layer, at)?;
                if known.parent != parent {
                    return Err(ImageError::OtherParent { id }.into());
                }
            }
            Err(error) if error.kind() == ErrorKind::LayerUnknown => {
                let reference = plan.names.first().map(String::as_str);
                let new = (id.as_str(), parent.take());
                let stored = match from_source(store, layer, reference, &new, at)? {
                    Some(stored) => stored,
                    None => put(store, files, layer, new, at)?,
                };
                added += usize::from(stored);
            }
            Err(error) => return Err(error.into()),
        }
        parent = Some(id);
    }
    let digest = Digest::sha256(&plan.manifest);
    let image = put_image(store, plan, &digest, parent.as_deref())?;
    if !plan.names.is_empty() {
        store.add_names(&image.id, &plan.names)?;
    }
    Ok(Loaded {
        id: image.id,
        digest,
        names: plan.names.clone(),
        layers_added: added,
        layers_reused: plan.layers.len() - added,
    })
}

/// The id under which podman stores a layer.
fn chain_id(parent: Option<&str>, diff_id: &Digest) -> String {
    match parent {
        None => diff_id.hex().to_owned(),
        Some(parent) => Digest::sha256(format!("{parent}+{}", diff_id.hex()).as_bytes())
            .hex()
            .to_owned(),
    }
}

/// A stored layer of that id must have that content, whoever made it.
fn check_known(known: &Layer, plan: &LayerPlan, at: usize) -> Result<(), ImageError> {
    match &known.diff_digest {
        Some(actual) if *actual != plan.diff_id => Err(ImageError::WrongDiffId {
            number: at + 1,
            expected: plan.diff_id.clone(),
            actual: actual.clone(),
        }),
        _ => Ok(()),
    }
}

/// Stores a layer that a layer source has: false when another program stored the same one
/// meanwhile, and `None` when the file is to be used.
///
/// # Behavior
/// - The source must say that the layer has the content that the image's configuration names.
/// - A source that fails is named in a warning: the file has everything.
fn from_source(
    store: &Store,
    plan: &LayerPlan,
    reference: Option<&str>,
    (id, parent): &(&str, Option<String>),
    at: usize,
) -> anyhow::Result<Option<bool>> {
    let Some((digest, _)) = &plan.blob else {
        return Ok(None);
    };
    if store.layer_source_names().is_empty() {
        return Ok(None);
    }
    let new = NewLayer {
        id: Some((*id).to_owned()),
        parent: parent.clone(),
        kind: LayerKind::ReadOnly,
        ..NewLayer::default()
    };
    let stored = store
        .lookup_additional_layer(Some(digest), None, reference)
        .and_then(|found| {
            if found.info().diff_digest.as_ref() != Some(&plan.diff_id) {
                return Ok(false);
            }
            found.put(new, PutOptions::default()).map(|_| true)
        });
    match stored {
        Ok(stored) => Ok(stored.then_some(true)),
        Err(error) if error.kind() == ErrorKind::LayerUnknown => Ok(None),
        Err(error) if error.kind() == ErrorKind::DuplicateId => {
            check_known(&store.layer(id)?, plan, at)?;
            Ok(Some(false))
        }
        Err(error) => {
            let text = crate::hints::one_line(&error);
            note(format!(
                "warning: layer {} is read from the file: {text}",
                at + 1
            ));
            Ok(None)
        }
    }
}

/// Stores a layer; false when another program stored the same one meanwhile.
fn put(
    store: &Store,
    files: &Files,
    plan: &LayerPlan,
    (id, parent): (&str, Option<String>),
    at: usize,
) -> anyhow::Result<bool> {
    let (reader, size) = files.open(&plan.path)?;
    let meter = Meter::new(
        format!("layer {} {}", at + 1, id.get(..12).unwrap_or(id)),
        Some(size),
    );
    let reader = Interruptible(Metered::new(reader, meter));
    let mut reader: Box<dyn Read + Send> = match &plan.blob {
        Some((digest, size)) => Box::new(Verified::new(reader, &plan.path, digest.clone(), *size)),
        None => decompressed(Box::new(reader)).map_err(ImageError::io("decompress", &plan.path))?,
    };
    let new = NewLayer {
        id: Some(id.to_owned()),
        parent,
        kind: LayerKind::ReadOnly,
        ..NewLayer::default()
    };
    let options = PutOptions {
        expected_diff: Some(&plan.diff_id),
        ..PutOptions::default()
    };
    match store.put_layer_with(new, &mut reader, options) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::DuplicateId => {
            check_known(&store.layer(id)?, plan, at)?;
            Ok(false)
        }
        Err(error) => Err(error).with_context(|| format!("cannot store layer {}", at + 1)),
    }
}

fn put_image(
    store: &Store,
    plan: &ImagePlan,
    digest: &Digest,
    top: Option<&str>,
) -> anyhow::Result<Image> {
    let id = plan.config_digest.hex().to_owned();
    let item = |key: String, data: &[u8]| BigDataItem {
        key,
        digest: Some(Digest::sha256(data)),
        data: data.to_vec(),
    };
    let mut items = vec![item(plan.config_digest.to_string(), &plan.config)];
    for (index, bytes) in &plan.indexes {
        items.push(item(format!("manifest-{index}"), bytes));
    }
    items.push(item(format!("manifest-{digest}"), &plan.manifest));
    items.push(item("manifest".to_owned(), &plan.manifest));
    items.push(item(format!("signature-{}", digest.hex()), b""));
    let metadata = metadata(plan, digest);
    let known = match store.image(&id) {
        Ok(known) => known,
        Err(error) if error.kind() == ErrorKind::ImageUnknown => {
            let created = plan.created.as_deref();
            let new = NewImage {
                id: Some(id.clone()),
                layer: top.map(str::to_owned),
                metadata: metadata.clone(),
                created: created.and_then(|text| Timestamp::parse(text).ok()),
                big_data: items.clone(),
                ..NewImage::default()
            };
            match store.create_image(new) {
                Ok(image) => return Ok(image),
                // Another program loaded the same image meanwhile.
                Err(error) if error.kind() == ErrorKind::DuplicateId => store.image(&id)?,
                Err(error) => return Err(error.into()),
            }
        }
        Err(error) => return Err(error.into()),
    };
    if known.top_layer.as_deref().unwrap_or_default() != top.unwrap_or_default() {
        return Err(ImageError::OtherImage { id }.into());
    }
    // The same image, possibly with another manifest (layers compressed otherwise): podman, too,
    // replaces what is recorded about it.
    for item in items {
        store.set_image_big_data(&known.id, &item.key, &item.data, None)?;
    }
    store.set_metadata(&known.id, &metadata)?;
    Ok(known)
}

/// `{"signatures-sizes":{DIGEST:[]}}` for the manifest.
fn metadata(plan: &ImagePlan, digest: &Digest) -> String {
    #[derive(serde::Serialize)]
    struct Metadata<'a> {
        #[serde(rename = "signatures-sizes")]
        sizes: BTreeMap<&'a str, Vec<u64>>,
    }
    let sizes = plan
        .indexes
        .iter()
        .map(|(index, _)| index.as_str())
        .chain([digest.as_str()])
        .map(|digest| (digest, Vec::new()))
        .collect();
    serde_json::to_string(&Metadata { sizes }).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_ids_are_those_of_podman() {
        // As `podman load` of 4.3.1 named them.
        let base = "a9c87939adb618468bfca89175b3bf6de0e31b9dc9eae94e848c840b0558937f";
        let second = "035eaae33f00f4906aa3d16e9aa51687c0ba57d1947309269b971d1b0192851b";
        let digest = |hex: &str| format!("sha256:{hex}").parse::<Digest>().unwrap();
        assert_eq!(chain_id(None, &digest(base)), base);
        assert_eq!(
            chain_id(Some(base), &digest(second)),
            "7e6806a892db041a2dea00421656919bc313310f310e9dcf30347d7be5989360"
        );
    }

    #[test]
    fn a_layer_that_another_program_made_is_not_taken_away() {
        use plywood::{plugin, sdk::Plugin as _};
        let root = tempfile::tempdir().unwrap();
        let (graph_root, run_root) = (root.path().join("graph"), root.path().join("run"));
        let request = plywood::sdk::OpenRequest::new(
            graph_root.join("vfs"),
            run_root.join("vfs"),
            plugin::tracing_host(),
        );
        let driver = plywood_driver_vfs::Vfs::open(request).unwrap();
        let options = plywood::store::StoreOptions {
            graph_root,
            run_root,
            ..Default::default()
        };
        let driver = plugin::DriverHandle::from_driver("vfs", driver);
        let store = Store::open_with_driver(options, driver).unwrap();
        let id = "1".repeat(64);
        let new = NewLayer {
            id: Some(id.clone()),
            ..NewLayer::default()
        };
        store.put_layer(new, &[0; 1024][..]).unwrap();
        let image = root.path().join("image");
        std::fs::create_dir(&image).unwrap();
        std::fs::write(image.join("layer"), [0; 2048]).unwrap();
        let plan = LayerPlan {
            path: "layer".to_owned(),
            blob: None,
            diff_id: Digest::sha256(&[0; 2048]),
        };
        let files = Files::directory(&image).unwrap();
        assert!(put(&store, &files, &plan, (&id, None), 0).is_err());
        assert!(store.layer(&id).is_ok());
    }

    #[test]
    fn platforms() {
        assert_eq!(
            platform(Some("linux/arm/v7")).unwrap().to_string(),
            "linux/arm/v7"
        );
        assert_eq!(platform(Some("a/b")).unwrap().to_string(), "a/b");
        for bad in ["linux", "linux/", "/", "a/b/c/d", "a/b/"] {
            assert!(platform(Some(bad)).is_err(), "{bad}");
        }
    }
}
