// SPDX-License-Identifier: Apache-2.0
//! What is recorded about a container, and what a new one is made from.

use std::collections::BTreeMap;

use plywood_plugin_sdk::{IdMap, IdMaps};
use serde::{Serialize, Serializer};

use crate::{
    Digest,
    images::BigDataItem,
    records::{Flags, MemberError, Members, Record, Timestamp, Unknown, id_map_list, take_id_maps},
};

/// The flag with the SELinux label of the container's mounts.
pub const MOUNT_LABEL: &str = "MountLabel";
/// The flag with the SELinux label of the container's processes.
pub const PROCESS_LABEL: &str = "ProcessLabel";
/// The flag of a container that need not survive a crash.
pub const VOLATILE: &str = "Volatile";
/// The flag with extra mount options.
pub const MOUNT_OPTS: &str = "MountOpts";

/// A container's record.
///
/// Members that this version does not know are kept and written back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Container {
    /// The container's id.
    pub id: String,
    /// Names, unique among containers.
    pub names: Vec<String>,
    /// The id of the image it was made from.
    pub image: Option<String>,
    /// The id of its own, writable layer.
    pub layer: String,
    /// Free text of the caller.
    pub metadata: String,
    /// The keys of its big data items, in the order of their first writing.
    pub big_data_names: Vec<String>,
    /// The items' sizes in bytes.
    pub big_data_sizes: BTreeMap<String, i64>,
    /// The items' digests.
    pub big_data_digests: BTreeMap<String, Digest>,
    /// When it was made.
    pub created: Timestamp,
    /// Who owns its files on the host.
    pub id_maps: IdMaps,
    /// Labels, options, and free values of the caller.
    pub flags: Flags,
    /// Members that this version does not know.
    pub unknown: Unknown,
}

impl Container {
    /// The SELinux label of its mounts; `None` without one.
    pub fn mount_label(&self) -> Option<String> {
        Some(self.flags.text(MOUNT_LABEL)).filter(|label| !label.is_empty())
    }

    /// The SELinux label of its processes; `None` without one.
    pub fn process_label(&self) -> Option<String> {
        Some(self.flags.text(PROCESS_LABEL)).filter(|label| !label.is_empty())
    }

    /// Extra options of its mounts.
    pub fn mount_options(&self) -> Vec<String> {
        self.flags.get(MOUNT_OPTS).unwrap_or_default()
    }

    /// Whether it need not survive a crash.
    pub fn is_volatile(&self) -> bool {
        self.flags.is_set(VOLATILE)
    }
}

/// The container to make.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewContainer {
    /// Its id; without one, a random id is drawn.
    pub id: Option<String>,
    /// Names that no other container has.
    pub names: Vec<String>,
    /// The image it is made from, by id, name or unique prefix.
    pub image: Option<String>,
    /// The id of its layer; without one, a random id is drawn.
    pub layer: Option<String>,
    /// Free text.
    pub metadata: String,
    /// The SELinux label of its mounts; given together with `process_label`.
    pub mount_label: Option<String>,
    /// The SELinux label of its processes.
    pub process_label: Option<String>,
    /// Neither it nor its layer need survive a crash.
    pub volatile: bool,
    /// Extra options of its mounts.
    pub mount_options: Vec<String>,
    /// Options of the driver for its layer, for instance `size`.
    pub storage_options: BTreeMap<String, String>,
    /// Values to record.
    pub flags: Flags,
    /// Big data items to store with it.
    pub big_data: Vec<BigDataItem>,
    /// Who owns its files on the host.
    pub id_maps: IdMaps,
}

#[derive(Serialize)]
struct Wire<'a> {
    id: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    names: &'a [String],
    image: &'a str,
    layer: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    #[serde(rename = "big-data-names", skip_serializing_if = "<[_]>::is_empty")]
    big_data_names: &'a [String],
    #[serde(rename = "big-data-sizes", skip_serializing_if = "BTreeMap::is_empty")]
    big_data_sizes: &'a BTreeMap<String, i64>,
    #[serde(
        rename = "big-data-digests",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    big_data_digests: &'a BTreeMap<String, Digest>,
    created: &'a Timestamp,
    #[serde(
        rename = "uidmap",
        skip_serializing_if = "<[_]>::is_empty",
        serialize_with = "id_map_list::serialize"
    )]
    uid_map: &'a [IdMap],
    #[serde(
        rename = "gidmap",
        skip_serializing_if = "<[_]>::is_empty",
        serialize_with = "id_map_list::serialize"
    )]
    gid_map: &'a [IdMap],
    #[serde(skip_serializing_if = "Flags::is_empty")]
    flags: &'a Flags,
    #[serde(flatten)]
    unknown: &'a Unknown,
}

impl Serialize for Container {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Wire {
            id: &self.id,
            names: &self.names,
            image: self.image.as_deref().unwrap_or_default(),
            layer: &self.layer,
            metadata: &self.metadata,
            big_data_names: &self.big_data_names,
            big_data_sizes: &self.big_data_sizes,
            big_data_digests: &self.big_data_digests,
            created: &self.created,
            uid_map: &self.id_maps.uids,
            gid_map: &self.id_maps.gids,
            flags: &self.flags,
            unknown: &self.unknown,
        }
        .serialize(serializer)
    }
}

impl Record for Container {
    const WHAT: &'static str = "container";

    fn read(mut members: Members<'_>) -> Result<Self, MemberError> {
        Ok(Self {
            id: members.take_or_default("id")?,
            names: members.take_or_default("names")?,
            image: members.take_text("image")?,
            layer: members.take_or_default("layer")?,
            metadata: members.take_or_default("metadata")?,
            big_data_names: members.take_or_default("big-data-names")?,
            big_data_sizes: members.take_or_default("big-data-sizes")?,
            big_data_digests: members.take_or_default("big-data-digests")?,
            created: members.take_or_default("created")?,
            id_maps: IdMaps {
                uids: take_id_maps(&mut members, "uidmap")?,
                gids: take_id_maps(&mut members, "gidmap")?,
            },
            flags: members.take_or_default("flags")?,
            unknown: members.rest(),
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

    fn alias(&self) -> Option<&str> {
        Some(&self.layer)
            .filter(|layer| !layer.is_empty())
            .map(String::as_str)
    }
}
