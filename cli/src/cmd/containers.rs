// SPDX-License-Identifier: Apache-2.0
//! `container`, `containers`, and where a container's own files are.

use plywood::store::{Container, Store};

use crate::{
    hints::one_line,
    run::{Outcome, Run},
};

pub(crate) fn show(run: &mut Run<'_>, store: &Store) -> Outcome {
    let images = store.images()?;
    let args = run.args();
    let found: Vec<Container> = args
        .iter()
        .filter_map(|arg| run.found(store.container(arg)))
        .collect();
    if run.json() {
        run.out.json(&found)?;
    } else {
        for container in &found {
            let out = &mut *run.out;
            let image_id = container.image.as_deref().unwrap_or_default();
            out.line(format_args!("ID: {}", container.id))?;
            for name in &container.names {
                out.line(format_args!("Name: {name}"))?;
            }
            out.line(format_args!("Image: {image_id}"))?;
            let image = images.iter().find(|image| image.id == image_id);
            for name in image.iter().flat_map(|image| &image.names) {
                out.line(format_args!("Image name: {name}"))?;
            }
            match store.container_size(&container.id) {
                Ok(size) => out.line(format_args!("Size: {size}"))?,
                Err(error) => out.line(format_args!("Size unknown: {}", one_line(&error)))?,
            }
            out.line(format_args!("Layer: {}", container.layer))?;
            for name in &container.big_data_names {
                out.line(format_args!("Data: {name}"))?;
            }
        }
    }
    Ok(u8::from(found.len() != args.len()))
}

pub(crate) fn list(run: &mut Run<'_>, store: &Store) -> Outcome {
    let containers = store.containers()?;
    if run.json() {
        run.out.json(&containers)?;
        return Ok(0);
    }
    for container in &containers {
        run.out.line(&container.id)?;
        for name in &container.names {
            run.out.line(format_args!("\tname: {name}"))?;
        }
        for name in &container.big_data_names {
            run.out.line(format_args!("\tdata: {name}"))?;
        }
    }
    Ok(0)
}

pub(crate) fn directory(run: &mut Run<'_>, store: &Store) -> Outcome {
    let path = store.container_directory(&run.arg(0))?;
    run.out.line(path.display())?;
    Ok(0)
}

pub(crate) fn run_directory(run: &mut Run<'_>, store: &Store) -> Outcome {
    let path = store.container_run_directory(&run.arg(0))?;
    run.out.line(path.display())?;
    Ok(0)
}
