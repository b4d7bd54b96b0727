// SPDX-License-Identifier: Apache-2.0
//! `layer`, `layers`, `storage-layers`.

mod tree;

use std::collections::HashMap;

use plywood::{
    sdk::IdMap,
    store::{Container, Image, Layer, Store},
};

use self::tree::Node;
use crate::run::{Outcome, Run};

pub(crate) fn show(run: &mut Run<'_>, store: &Store) -> Outcome {
    let args = run.args();
    let found: Vec<Layer> = args
        .iter()
        .filter_map(|arg| run.found(store.layer(arg)))
        .collect();
    if run.json() {
        run.out.json(&found)?;
    } else {
        for layer in &found {
            let out = &mut *run.out;
            out.line(format_args!("ID: {}", layer.id))?;
            for map in &layer.id_maps.uids {
                out.line(format_args!("UID mapping: {}", mapping(map)))?;
            }
            for map in &layer.id_maps.gids {
                out.line(format_args!("GID mapping: {}", mapping(map)))?;
            }
            if let Some(parent) = &layer.parent {
                out.line(format_args!("Parent: {parent}"))?;
            }
            for name in &layer.names {
                out.line(format_args!("Name: {name}"))?;
            }
            if layer.read_only {
                out.line("Read Only: true")?;
            }
        }
    }
    Ok(u8::from(found.len() != args.len()))
}

fn mapping(map: &IdMap) -> String {
    format!(
        "(container={}, host={}, size={})",
        map.container_id, map.host_id, map.size
    )
}

/// Who stands on which layer.
struct Owners {
    images: HashMap<String, Vec<Image>>,
    containers: HashMap<String, Container>,
}

impl Owners {
    fn of(store: &Store) -> plywood::Result<Self> {
        let mut images: HashMap<String, Vec<Image>> = HashMap::new();
        for image in store.images()? {
            for layer in image.layers().map(str::to_owned).collect::<Vec<_>>() {
                images.entry(layer).or_default().push(image.clone());
            }
        }
        let containers = store.containers()?;
        Ok(Self {
            images,
            containers: containers
                .into_iter()
                .map(|c| (c.layer.clone(), c))
                .collect(),
        })
    }

    fn images_on(&self, layer: &str) -> &[Image] {
        self.images.get(layer).map_or(&[], Vec::as_slice)
    }
}

pub(crate) fn list(run: &mut Run<'_>, store: &Store) -> Outcome {
    let layers = store.layers()?;
    if run.json() {
        // No layer at all is nil in Go.
        run.out
            .json(&Some(layers).filter(|layers| !layers.is_empty()))?;
        return Ok(0);
    }
    if run.values.is("--quick") && !run.values.is("--tree") {
        for layer in &layers {
            run.out.line(&layer.id)?;
        }
        return Ok(0);
    }
    let owners = Owners::of(store)?;
    if run.values.is("--tree") {
        let nodes: Vec<Node> = layers.iter().map(|layer| node(layer, &owners)).collect();
        run.out.text(&tree::render(&nodes))?;
        return Ok(0);
    }
    for layer in &layers {
        let out = &mut *run.out;
        out.line(&layer.id)?;
        for name in &layer.names {
            out.line(format_args!("\tname: {name}"))?;
        }
        for image in owners.images_on(&layer.id) {
            out.line(format_args!("\timage: {}", image.id))?;
            for name in &image.names {
                out.line(format_args!("\t\tname: {name}"))?;
            }
        }
        if let Some(container) = owners.containers.get(&layer.id) {
            out.line(format_args!("\tcontainer: {}", container.id))?;
            for name in &container.names {
                out.line(format_args!("\t\tname: {name}"))?;
            }
        }
    }
    Ok(0)
}

fn node(layer: &Layer, owners: &Owners) -> Node {
    let mut notes: Vec<String> = layer
        .names
        .iter()
        .map(|name| format!("name: {name}"))
        .collect();
    if let Some(path) = &layer.mount_point {
        notes.push(format!("mount: {}", path.display()));
    }
    for image in owners.images_on(&layer.id) {
        notes.push(format!("image: {}", image.id));
        notes.extend(image.names.iter().map(|name| format!("image name: {name}")));
    }
    if let Some(container) = owners.containers.get(&layer.id) {
        notes.push(format!("container: {}", container.id));
        notes.extend(
            container
                .names
                .iter()
                .map(|name| format!("container name: {name}")),
        );
    }
    Node {
        parent: layer.parent.clone().unwrap_or_else(|| "(base)".to_owned()),
        id: layer.id.clone(),
        notes,
    }
}

pub(crate) fn in_driver(run: &mut Run<'_>, store: &Store) -> Outcome {
    let ids = store.driver_layers()?;
    if run.json() {
        run.out.json(&ids)?;
        return Ok(0);
    }
    for id in ids {
        run.out.line(id)?;
    }
    Ok(0)
}
