// SPDX-License-Identifier: Apache-2.0
//! What is recorded about an image, and what a new one is made from.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    Digest,
    records::{Flags, MemberError, Members, Record, Timestamp, Unknown},
};

/// Keys that begin so name manifests, whose digests identify the image.
const MANIFEST: &str = "manifest";

/// An image's record.
///
/// Members that this version does not know are kept and written back.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Image {
    /// The image's id.
    pub id: String,
    /// A digest to find it by: the one given, or that of the first manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Names, unique among images.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Names that it was given later, also those it lost; the newest first.
    #[serde(rename = "names-history", skip_serializing_if = "Vec::is_empty")]
    pub names_history: Vec<String>,
    /// Its topmost layer.
    #[serde(rename = "layer", skip_serializing_if = "Option::is_none")]
    pub top_layer: Option<String>,
    /// Copies of the top layer with other id maps.
    #[serde(rename = "mapped-layers", skip_serializing_if = "Vec::is_empty")]
    pub mapped_layers: Vec<String>,
    /// Free text of the caller.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// The keys of its big data items, in the order of their first writing.
    #[serde(rename = "big-data-names", skip_serializing_if = "Vec::is_empty")]
    pub big_data_names: Vec<String>,
    /// The items' sizes in bytes.
    #[serde(rename = "big-data-sizes", skip_serializing_if = "BTreeMap::is_empty")]
    pub big_data_sizes: BTreeMap<String, i64>,
    /// The items' digests.
    #[serde(
        rename = "big-data-digests",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub big_data_digests: BTreeMap<String, Digest>,
    /// When it was made.
    pub created: Timestamp,
    /// Free values of the caller.
    #[serde(skip_serializing_if = "Flags::is_empty")]
    pub flags: Flags,
    /// Members that this version does not know.
    #[serde(flatten)]
    pub unknown: Unknown,
    /// Every digest that it is found by; computed.
    #[serde(skip)]
    pub digests: Vec<Digest>,
    /// It is in a read-only store; not recorded.
    #[serde(skip)]
    pub read_only: bool,
}

/// The image to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewImage {
    /// Its id; without one, a random id is drawn.
    pub id: Option<String>,
    /// Names that no other image has.
    pub names: Vec<String>,
    /// Its topmost layer, by id, name or unique prefix.
    pub layer: Option<String>,
    /// Free text.
    pub metadata: String,
    /// When it was made; now, when not given.
    pub created: Option<Timestamp>,
    /// A digest to find it by.
    pub digest: Option<Digest>,
    /// Big data items to store with it.
    pub big_data: Vec<BigDataItem>,
    /// Names that it had before, the newest first.
    pub names_history: Vec<String>,
    /// Values to record.
    pub flags: Flags,
}

/// A named blob that is stored with a new image or container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BigDataItem {
    /// Its key.
    pub key: String,
    /// Its content.
    pub data: Vec<u8>,
    /// The digest to record; SHA-256 of the content, when not given.
    pub digest: Option<Digest>,
}

impl Image {
    /// Whether big data under `key` is a manifest, so that its digest identifies the image.
    pub fn key_is_manifest(key: &str) -> bool {
        key.starts_with(MANIFEST)
    }

    /// The ids of its top layer and of mapped copies of that.
    pub fn layers(&self) -> impl Iterator<Item = &str> {
        let mapped = self.mapped_layers.iter().map(String::as_str);
        self.top_layer.as_deref().into_iter().chain(mapped)
    }

    /// Computes `digests`, and gives `digest` the first of them when it has no value.
    ///
    /// Digests that have no valid form are left out: other tools may have recorded them.
    pub(super) fn find_digests(&mut self) {
        let manifests = self
            .big_data_digests
            .iter()
            .filter(|(key, _)| Self::key_is_manifest(key))
            .map(|(_, digest)| digest);
        let mut digests: Vec<Digest> = Vec::new();
        for digest in self.digest.iter().chain(manifests) {
            if !digests.contains(digest) && digest.as_str().parse::<Digest>().is_ok() {
                digests.push(digest.clone());
            }
        }
        if self.digest.is_none() {
            self.digest = digests.first().cloned();
        }
        self.digests = digests;
    }
}

impl Record for Image {
    const WHAT: &'static str = "image";

    fn read(mut members: Members<'_>) -> Result<Self, MemberError> {
        let mut image = Self {
            id: members.take_or_default("id")?,
            digest: members.take_digest("digest")?,
            names: members.take_or_default("names")?,
            names_history: members.take_or_default("names-history")?,
            top_layer: members.take_text("layer")?,
            mapped_layers: members.take_or_default("mapped-layers")?,
            metadata: members.take_or_default("metadata")?,
            big_data_names: members.take_or_default("big-data-names")?,
            big_data_sizes: members.take_or_default("big-data-sizes")?,
            big_data_digests: members.take_or_default("big-data-digests")?,
            created: members.take_or_default("created")?,
            flags: members.take_or_default("flags")?,
            unknown: members.rest(),
            digests: Vec::new(),
            read_only: false,
        };
        image.find_digests();
        Ok(image)
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn names_mut(&mut self) -> &mut Vec<String> {
        &mut self.names
    }
}
