// SPDX-License-Identifier: Apache-2.0
//! `image`, `images`, `images-by-digest`, and where an image's own files are.

use plywood::{
    Digest,
    store::{Image, Store},
};

use crate::{
    hints::one_line,
    run::{Outcome, Run},
};

pub(crate) fn show(run: &mut Run<'_>, store: &Store) -> Outcome {
    let args = run.args();
    let found: Vec<Image> = args
        .iter()
        .filter_map(|arg| run.found(store.image(arg)))
        .collect();
    if run.json() {
        run.out.json(&found)?;
    } else {
        for image in &found {
            let out = &mut *run.out;
            out.line(format_args!("ID: {}", image.id))?;
            for name in &image.names {
                out.line(format_args!("Name: {name}"))?;
            }
            out.line(format_args!(
                "Top Layer: {}",
                image.top_layer.as_deref().unwrap_or_default()
            ))?;
            for layer in &image.mapped_layers {
                out.line(format_args!("Top Layer: {layer}"))?;
            }
            for digest in &image.digests {
                out.line(format_args!("Digest: {digest}"))?;
            }
            for key in &image.big_data_names {
                out.line(format_args!("Data: {key}"))?;
            }
            match store.image_size(&image.id) {
                Ok(size) => out.line(format_args!("Size: {size}"))?,
                Err(error) => out.line(format_args!("Size unknown: {}", one_line(&error)))?,
            }
            if image.read_only {
                out.line("Read Only: true")?;
            }
        }
    }
    Ok(u8::from(found.len() != args.len()))
}

pub(crate) fn list(run: &mut Run<'_>, store: &Store) -> Outcome {
    let images = store.images()?;
    if run.json() {
        // No image at all is nil in Go.
        run.out
            .json(&Some(images).filter(|images| !images.is_empty()))?;
        return Ok(0);
    }
    print(run, &images)
}

pub(crate) fn by_digest(run: &mut Run<'_>, store: &Store) -> Outcome {
    let digest: Digest = run.arg(0).parse()?;
    let images = store.images_by_digest(&digest)?;
    if run.json() {
        run.out.json(&images)?;
        return Ok(0);
    }
    print(run, &images)
}

fn print(run: &mut Run<'_>, images: &[Image]) -> Outcome {
    let quiet = run.values.is("--quiet");
    for image in images {
        run.out.line(&image.id)?;
        if quiet {
            continue;
        }
        for name in &image.names {
            run.out.line(format_args!("\tname: {name}"))?;
        }
        for digest in &image.digests {
            run.out.line(format_args!("\tdigest: {digest}"))?;
        }
        for key in &image.big_data_names {
            run.out.line(format_args!("\tdata: {key}"))?;
        }
    }
    Ok(0)
}

pub(crate) fn directory(run: &mut Run<'_>, store: &Store) -> Outcome {
    let path = store.image_directory(&run.arg(0))?;
    run.out.line(path.display())?;
    Ok(0)
}

pub(crate) fn run_directory(run: &mut Run<'_>, store: &Store) -> Outcome {
    let path = store.image_run_directory(&run.arg(0))?;
    run.out.line(path.display())?;
    Ok(0)
}
