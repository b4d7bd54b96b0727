// SPDX-License-Identifier: Apache-2.0
//! `layer-parent-owners`, `container-parent-owners`.

use anyhow::anyhow;
use plywood::store::{ParentOwners, Store};
use serde::Serialize;

use crate::{
    hints::one_line,
    output::go_list,
    run::{Outcome, Run},
};

#[derive(Serialize)]
struct Owners {
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "UIDs")]
    uids: Option<Vec<u32>>,
    #[serde(rename = "GIDs")]
    gids: Option<Vec<u32>>,
}

pub(crate) fn layer(run: &mut Run<'_>, store: &Store) -> Outcome {
    let args = run.args();
    let ids: Vec<String> = args
        .iter()
        .filter_map(|arg| run.found(store.layer(arg)).map(|layer| layer.id))
        .collect();
    for id in &ids {
        let ParentOwners { uids, gids } = store
            .layer_parent_owners(id)
            .map_err(|error| anyhow!("LayerParentOwner: {}", one_line(&error)))?;
        if run.json() {
            json(run, id, uids, gids)?;
            continue;
        }
        run.out.line(format_args!("ID: {id}"))?;
        if !uids.is_empty() {
            run.out.line(format_args!("UIDs: {}", go_list(&uids)))?;
        }
        if !gids.is_empty() {
            run.out.line(format_args!("GIDs: {}", go_list(&gids)))?;
        }
    }
    Ok(u8::from(ids.len() != args.len()))
}

pub(crate) fn container(run: &mut Run<'_>, store: &Store) -> Outcome {
    let args = run.args();
    let ids: Vec<String> = args
        .iter()
        .filter_map(|arg| {
            run.found(store.container(arg))
                .map(|container| container.id)
        })
        .collect();
    for id in &ids {
        let ParentOwners { uids, gids } = store
            .container_parent_owners(id)
            .map_err(|error| anyhow!("ContainerParentOwner: {}", one_line(&error)))?;
        if run.json() {
            json(run, id, uids, gids)?;
            continue;
        }
        run.out.line(format_args!("ID: {id}"))?;
        run.out.line(format_args!("UIDs: {}", go_list(&uids)))?;
        run.out.line(format_args!("GIDs: {}", go_list(&gids)))?;
    }
    Ok(u8::from(ids.len() != args.len()))
}

/// Empty lists are nil in Go.
fn json(run: &mut Run<'_>, id: &str, uids: Vec<u32>, gids: Vec<u32>) -> anyhow::Result<()> {
    let list = |ids: Vec<u32>| Some(ids).filter(|ids| !ids.is_empty());
    run.out.json(&Owners {
        id: id.to_owned(),
        uids: list(uids),
        gids: list(gids),
    })?;
    Ok(())
}
