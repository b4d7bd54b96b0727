// SPDX-License-Identifier: Apache-2.0
//! Id maps in their JSON form, `{"container_id":N,"host_id":N,"size":N}`.

use plywood_plugin_sdk::IdMap;
use serde::Deserialize;

use super::{MemberError, Members};

#[derive(Deserialize)]
struct Wire {
    #[serde(default)]
    container_id: u32,
    #[serde(default)]
    host_id: u32,
    #[serde(default)]
    size: u32,
}

/// Takes a list of id maps out of a record.
pub(crate) fn take_id_maps(
    members: &mut Members<'_>,
    name: &'static str,
) -> Result<Vec<IdMap>, MemberError> {
    let wire: Vec<Wire> = members.take_or_default(name)?;
    Ok(wire
        .into_iter()
        .map(|map| IdMap {
            container_id: map.container_id,
            host_id: map.host_id,
            size: map.size,
        })
        .collect())
}

/// For `#[serde(with = "...")]` on a list of id maps that is written.
pub(crate) mod id_map_list {
    use plywood_plugin_sdk::IdMap;
    use serde::{Serialize, Serializer};

    #[derive(Serialize)]
    struct Wire {
        container_id: u32,
        host_id: u32,
        size: u32,
    }

    pub(crate) fn serialize<S: Serializer>(maps: &[IdMap], out: S) -> Result<S::Ok, S::Error> {
        out.collect_seq(maps.iter().map(|map| Wire {
            container_id: map.container_id,
            host_id: map.host_id,
            size: map.size,
        }))
    }
}
