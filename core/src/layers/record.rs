// SPDX-License-Identifier: Apache-2.0
//! What is recorded about a layer, and what a new one is made from.

use std::{collections::BTreeMap, path::PathBuf};

use plywood_plugin_sdk::{IdMap, IdMaps, LayerKind};
use serde::{Serialize, Serializer};

use crate::{
    Digest,
    archive::Compression,
    records::{Flags, MemberError, Members, Record, Timestamp, Unknown, id_map_list, take_id_maps},
};

/// The flag of a layer that is being made or removed; a store that finds it deletes the layer.
pub(super) const INCOMPLETE: &str = "incomplete";

/// A layer's record.
///
/// Members that this version does not know are kept and written back.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Layer {
    /// The layer's id; a store written by others may hold one that no driver accepts.
    pub id: String,
    /// Names, unique among layers.
    pub names: Vec<String>,
    /// The id of the layer below, possibly in a read-only store.
    pub parent: Option<String>,
    /// Free text of the caller.
    pub metadata: String,
    /// The SELinux label of its mounts; empty for none.
    pub mount_label: String,
    /// When it was made.
    pub created: Timestamp,
    /// The digest of the stream it was filled from, as it came.
    pub compressed_digest: Option<Digest>,
    /// The bytes of that stream.
    pub compressed_size: Option<i64>,
    /// The digest of the decompressed stream.
    pub diff_digest: Option<Digest>,
    /// The digest of the table of contents of a chunked stream.
    pub toc_digest: Option<Digest>,
    /// The bytes of the decompressed stream; -1 when a chunked pull did not learn them.
    pub diff_size: Option<i64>,
    /// The number of the stream's compression; see [`Layer::compression`].
    pub compression_number: i64,
    /// User ids in the stream, sorted.
    pub uids: Vec<u32>,
    /// Group ids in the stream, sorted.
    pub gids: Vec<u32>,
    /// Free values of the caller and of the store.
    pub flags: Flags,
    /// Who owns its files on the host.
    pub id_maps: IdMaps,
    /// The keys of its big data items, in the order of their first writing.
    pub big_data_names: Vec<String>,
    /// Members that this version does not know.
    pub unknown: Unknown,
    /// It is in a read-only store; not recorded.
    pub read_only: bool,
    /// Where it is mounted; recorded apart, and as true as the moment it was read.
    pub mount_point: Option<PathBuf>,
    /// How often it is mounted; recorded apart, and as true as the moment it was read.
    pub mount_count: u32,
}

impl Layer {
    /// The compression of the stream it was filled from; `None` when the number is unknown.
    pub fn compression(&self) -> Option<Compression> {
        Compression::from_number(self.compression_number)
    }

    /// The recorded number of bytes of its uncompressed stream, or -1 when it is not known.
    pub fn recorded_size(&self) -> i64 {
        if self.diff_digest.is_some() || self.toc_digest.is_some() {
            self.diff_size.unwrap_or_default()
        } else {
            -1
        }
    }

    /// Whether another program left it half made or half removed.
    pub fn is_incomplete(&self) -> bool {
        self.flags.is_set(INCOMPLETE)
    }
}

impl Record for Layer {
    const WHAT: &'static str = "layer";

    fn read(mut members: Members<'_>) -> Result<Self, MemberError> {
        let taken = &mut members;
        let layer = Self {
            id: taken.take_or_default("id")?,
            names: taken.take_or_default("names")?,
            parent: taken.take_text("parent")?,
            metadata: taken.take_or_default("metadata")?,
            mount_label: taken.take_or_default("mountlabel")?,
            created: taken.take_or_default("created")?,
            compressed_digest: take_digest(taken, "compressed-diff-digest")?,
            compressed_size: take_number(taken, "compressed-size")?,
            diff_digest: take_digest(taken, "diff-digest")?,
            toc_digest: take_digest(taken, "toc-digest")?,
            diff_size: take_number(taken, "diff-size")?,
            compression_number: taken.take_or_default("compression")?,
            uids: taken.take_or_default("uidset")?,
            gids: taken.take_or_default("gidset")?,
            flags: taken.take_or_default("flags")?,
            id_maps: IdMaps {
                uids: take_id_maps(taken, "uidmap")?,
                gids: take_id_maps(taken, "gidmap")?,
            },
            big_data_names: taken.take_or_default("big-data-names")?,
            ..Self::default()
        };
        Ok(Self {
            unknown: members.rest(),
            ..layer
        })
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

fn take_digest(
    members: &mut Members<'_>,
    name: &'static str,
) -> Result<Option<Digest>, MemberError> {
    let digest: Option<Digest> = members.take(name)?;
    Ok(digest.filter(|digest| !digest.as_str().is_empty()))
}

/// Go leaves a zero out, so both mean the same.
fn take_number(members: &mut Members<'_>, name: &'static str) -> Result<Option<i64>, MemberError> {
    let number: Option<i64> = members.take(name)?;
    Ok(number.filter(|number| *number != 0))
}

impl Serialize for Layer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire {
            id: &self.id,
            names: &self.names,
            parent: self.parent.as_deref(),
            metadata: &self.metadata,
            mount_label: &self.mount_label,
            created: &self.created,
            compressed_digest: self.compressed_digest.as_ref(),
            compressed_size: self.compressed_size.unwrap_or(0),
            diff_digest: self.diff_digest.as_ref(),
            toc_digest: self.toc_digest.as_ref(),
            diff_size: self.diff_size.unwrap_or(0),
            compression: self.compression_number,
            uids: &self.uids,
            gids: &self.gids,
            flags: &self.flags,
            uid_map: &self.id_maps.uids,
            gid_map: &self.id_maps.gids,
            big_data_names: &self.big_data_names,
            unknown: &self.unknown,
        }
        .serialize(serializer)
    }
}

/// The members in the order that containers/storage writes them.
#[derive(Serialize)]
struct Wire<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    names: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    #[serde(rename = "mountlabel", skip_serializing_if = "str::is_empty")]
    mount_label: &'a str,
    created: &'a Timestamp,
    #[serde(
        rename = "compressed-diff-digest",
        skip_serializing_if = "Option::is_none"
    )]
    compressed_digest: Option<&'a Digest>,
    #[serde(rename = "compressed-size", skip_serializing_if = "is_zero")]
    compressed_size: i64,
    #[serde(rename = "diff-digest", skip_serializing_if = "Option::is_none")]
    diff_digest: Option<&'a Digest>,
    #[serde(rename = "toc-digest", skip_serializing_if = "Option::is_none")]
    toc_digest: Option<&'a Digest>,
    #[serde(rename = "diff-size", skip_serializing_if = "is_zero")]
    diff_size: i64,
    #[serde(skip_serializing_if = "is_zero")]
    compression: i64,
    #[serde(rename = "uidset", skip_serializing_if = "<[_]>::is_empty")]
    uids: &'a [u32],
    #[serde(rename = "gidset", skip_serializing_if = "<[_]>::is_empty")]
    gids: &'a [u32],
    #[serde(skip_serializing_if = "Flags::is_empty")]
    flags: &'a Flags,
    #[serde(
        rename = "uidmap",
        with = "id_map_list",
        skip_serializing_if = "<[_]>::is_empty"
    )]
    uid_map: &'a [IdMap],
    #[serde(
        rename = "gidmap",
        with = "id_map_list",
        skip_serializing_if = "<[_]>::is_empty"
    )]
    gid_map: &'a [IdMap],
    #[serde(rename = "big-data-names", skip_serializing_if = "<[_]>::is_empty")]
    big_data_names: &'a [String],
    #[serde(flatten)]
    unknown: &'a Unknown,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The layer to make.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewLayer {
    /// Its id; without one, a random id is drawn.
    pub id: Option<String>,
    /// The layer below, by id, name or unique prefix.
    pub parent: Option<String>,
    /// Names that no other layer has.
    pub names: Vec<String>,
    /// The SELinux label of its mounts.
    pub mount_label: Option<String>,
    /// What it is for.
    pub kind: LayerKind,
    /// Options of the driver for this layer, for instance `size`.
    pub storage_options: BTreeMap<String, String>,
    /// It need not survive a crash; its record is in `layers.json` all the same.
    pub volatile: bool,
    /// Who owns its files on the host; those of its parent when there is no map.
    pub id_maps: IdMaps,
    /// A layer whose content and record it starts with, by id, name or unique prefix.
    pub template: Option<String>,
    /// The digest of the stream as it came, when the caller has verified it.
    pub original_digest: Option<Digest>,
    /// The bytes of that stream.
    pub original_size: Option<i64>,
    /// The digest of the table of contents of that stream, to be recorded.
    pub toc_digest: Option<Digest>,
    /// Values to record.
    pub flags: Flags,
    /// Big data items to store with it.
    pub big_data: Vec<(String, Vec<u8>)>,
}
