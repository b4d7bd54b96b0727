// SPDX-License-Identifier: Apache-2.0
//! `image load`, `image save`, `image list`.

use anyhow::Context as _;
use plywood::store::Store;
use serde::Serialize;

use crate::{
    image::{LoadOptions, Place, SaveOptions, load as load_images, save as save_image},
    output::{human_size, human_table, note},
    run::{Outcome, Run},
    signals,
};

pub(crate) fn load(run: &mut Run<'_>, store: &Store) -> Outcome {
    signals::watch()?;
    let options = LoadOptions {
        name: Some(run.arg(1)).filter(|name| !name.is_empty()),
        platform: run.values.text("--platform"),
    };
    let loaded = load_images(store, &Place::parse(&run.arg(0)), &options)
        .with_context(|| format!("cannot load `{}`", run.arg(0)))?;
    if run.json() {
        run.out.json(&loaded)?;
        return Ok(0);
    }
    for image in loaded {
        if run.values.is("--quiet") {
            run.out.line(&image.id)?;
            continue;
        }
        let name = image
            .names
            .first()
            .map_or(image.id.as_str(), String::as_str);
        let (added, reused) = (image.layers_added, image.layers_reused);
        run.out.line(format_args!("Loaded {name}"))?;
        for name in image.names.iter().skip(1) {
            run.out.line(format_args!("  also {name}"))?;
        }
        run.out.line(format_args!("  id     {}", image.id))?;
        run.out.line(format_args!("  digest {}", image.digest))?;
        run.out.line(format_args!(
            "  layers {added} stored, {reused} there already"
        ))?;
    }
    Ok(0)
}

pub(crate) fn save(run: &mut Run<'_>, store: &Store) -> Outcome {
    signals::watch()?;
    let options = SaveOptions {
        uncompressed: run.values.is("--uncompressed"),
    };
    let place = Place::parse(&run.arg(1));
    let saved = save_image(store, &run.arg(0), &place, &options)?;
    if place.path().as_os_str() == "-" {
        // Standard output is the image.
        return Ok(0);
    }
    if run.json() {
        run.out.json(&saved)?;
        return Ok(0);
    }
    let name = saved.name.as_deref().unwrap_or(&saved.id);
    note(format!("Saved {name} ({})", human_size(saved.size)));
    if let Some(digest) = saved.digest {
        run.out.line(digest)?;
    }
    Ok(0)
}

#[derive(Serialize)]
struct Row {
    id: String,
    names: Vec<String>,
    created: String,
    size: Option<u64>,
}

pub(crate) fn list(run: &mut Run<'_>, store: &Store) -> Outcome {
    let rows: Vec<Row> = store
        .images()?
        .into_iter()
        .map(|image| Row {
            size: store.image_size(&image.id).ok(),
            created: image.created.as_str().to_owned(),
            id: image.id,
            names: image.names,
        })
        .collect();
    if run.json() {
        run.out.json(&rows)?;
        return Ok(0);
    }
    let lines = rows.into_iter().flat_map(|row| {
        let id: String = row.id.chars().take(12).collect();
        let day: String = row.created.chars().take(10).collect();
        let size = row.size.map_or_else(|| "unknown".to_owned(), human_size);
        let names = if row.names.is_empty() {
            vec!["<none>".to_owned()]
        } else {
            row.names
        };
        names
            .into_iter()
            .map(move |name| vec![name, id.clone(), day.clone(), size.clone()])
    });
    run.out
        .text(&human_table(&["NAME", "ID", "CREATED", "SIZE"], lines))?;
    Ok(0)
}
