// SPDX-License-Identifier: Apache-2.0
//! `create-layer`, `create-storage-layer`, `import-layer`, `create-image`, `create-container`.

use plywood::{
    Digest,
    sdk::LayerKind,
    store::{Layer, NewContainer, NewImage, NewLayer, Store},
};
use serde::Serialize;

use super::{input, metadata_text, unpack_failed};
use crate::{
    output::go_quote,
    progress::{Meter, Metered},
    run::{Outcome, Run},
    signals::{self, Interruptible},
};

pub(crate) fn layer(run: &mut Run<'_>, store: &Store) -> Outcome {
    let layer = store.create_layer(new_layer(run))?;
    created(run, &layer, &layer.id, &layer.names)
}

pub(crate) fn storage_layer(run: &mut Run<'_>, store: &Store) -> Outcome {
    let id = store.create_driver_layer(new_layer(run))?;
    if run.json() {
        run.out.json(&id)?;
    } else {
        run.out.line(&id)?;
    }
    Ok(0)
}

pub(crate) fn import(run: &mut Run<'_>, store: &Store) -> Outcome {
    let path = run.values.path("--file");
    let total = path
        .and_then(|path| path.metadata().ok())
        .filter(std::fs::Metadata::is_file)
        .map(|meta| meta.len());
    let stream = input(&run.values)?;
    signals::watch()?;
    let meter = Meter::new("importing", total);
    let mut stream = Interruptible(Metered::new(stream, meter));
    let (layer, _): (Layer, u64) = store
        .put_layer(new_layer(run), &mut stream)
        .map_err(|error| unpack_failed(run, store, error))?;
    created(run, &layer, &layer.id, &layer.names)
}

pub(crate) fn image(run: &mut Run<'_>, store: &Store) -> Outcome {
    let metadata = metadata_text(&run.values)?.unwrap_or_default();
    let digest = run.values.text("--digest").map(|text| image_digest(&text));
    let new = NewImage {
        id: run.values.text("--id"),
        names: run.values.list("--name"),
        layer: Some(run.arg(0)).filter(|layer| !layer.is_empty()),
        metadata,
        digest: digest.transpose()?,
        ..NewImage::default()
    };
    let image = store.create_image(new)?;
    created(run, &image, &image.id, &image.names)
}

fn image_digest(text: &str) -> plywood::Result<Digest> {
    text.parse().map_err(|error: plywood::Error| {
        let shown = go_quote(text.as_bytes());
        error.prefixed(format_args!(
            "validating digests for new image: validating image digest {shown}"
        ))
    })
}

pub(crate) fn container(run: &mut Run<'_>, store: &Store) -> Outcome {
    let metadata = metadata_text(&run.values)?.unwrap_or_default();
    let new = NewContainer {
        id: run.values.text("--id"),
        names: run.values.list("--name"),
        image: Some(run.arg(0)).filter(|image| !image.is_empty()),
        metadata,
        volatile: run.values.is("--volatile"),
        ..NewContainer::default()
    };
    let container = store.create_container(new)?;
    created(run, &container, &container.id, &container.names)
}

fn new_layer(run: &Run<'_>) -> NewLayer {
    NewLayer {
        id: run.values.text("--id"),
        parent: Some(run.arg(0)).filter(|parent| !parent.is_empty()),
        names: run.values.list("--name"),
        mount_label: run.values.text("--label"),
        kind: if run.values.is("--readonly") {
            LayerKind::ReadOnly
        } else {
            LayerKind::ReadWrite
        },
        ..NewLayer::default()
    }
}

fn created(run: &mut Run<'_>, record: &impl Serialize, id: &str, names: &[String]) -> Outcome {
    if run.json() {
        run.out.json(record)?;
        return Ok(0);
    }
    run.out.line(id)?;
    for name in names {
        run.out.line(format_args!("\t{name}"))?;
    }
    Ok(0)
}
