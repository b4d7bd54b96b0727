// SPDX-License-Identifier: Apache-2.0
//! Data items of layers, images and containers.

use std::io::Write as _;

use anyhow::anyhow;
use plywood::{Digest, store::Store};

use super::{create_file, input_bytes};
use crate::{
    output::go_error,
    run::{Outcome, Run},
};

pub(crate) fn list_layer(run: &mut Run<'_>, store: &Store) -> Outcome {
    let keys = store.list_layer_big_data(&run.arg(0))?;
    list(run, keys)
}

pub(crate) fn list_image(run: &mut Run<'_>, store: &Store) -> Outcome {
    let keys = store.list_image_big_data(&run.arg(0))?;
    list(run, keys)
}

pub(crate) fn list_container(run: &mut Run<'_>, store: &Store) -> Outcome {
    let keys = store.list_container_big_data(&run.arg(0))?;
    list(run, keys)
}

fn list(run: &mut Run<'_>, keys: Vec<String>) -> Outcome {
    if run.json() {
        // An empty list is nil in Go.
        run.out.json(&Some(keys).filter(|keys| !keys.is_empty()))?;
    } else {
        for key in keys {
            run.out.line(key)?;
        }
    }
    Ok(0)
}

pub(crate) fn get_layer(run: &mut Run<'_>, store: &Store) -> Outcome {
    let id = store.layer(&run.arg(0))?.id;
    get(run, |key| store.layer_big_data(&id, key))
}

pub(crate) fn get_image(run: &mut Run<'_>, store: &Store) -> Outcome {
    let id = store.image(&run.arg(0))?.id;
    get(run, |key| store.image_big_data(&id, key))
}

pub(crate) fn get_container(run: &mut Run<'_>, store: &Store) -> Outcome {
    let id = store.container(&run.arg(0))?.id;
    get(run, |key| store.container_big_data(&id, key))
}

fn get(run: &mut Run<'_>, read: impl Fn(&str) -> plywood::Result<Vec<u8>>) -> Outcome {
    let Some(path) = run.values.path("--file") else {
        let bytes = read(&run.arg(1))?;
        run.out.raw()?.write_all(&bytes)?;
        return Ok(0);
    };
    let bytes = read(&run.arg(1))?;
    create_file(&path)?
        .write_all(&bytes)
        .map_err(|error| anyhow!("write {}: {}", path.display(), go_error(&error)))?;
    Ok(0)
}

pub(crate) fn size_image(run: &mut Run<'_>, store: &Store) -> Outcome {
    let id = store.image(&run.arg(0))?.id;
    let size = store.image_big_data_size(&id, &run.arg(1))?;
    run.out.line(size)?;
    Ok(0)
}

pub(crate) fn size_container(run: &mut Run<'_>, store: &Store) -> Outcome {
    let id = store.container(&run.arg(0))?.id;
    let size = store.container_big_data_size(&id, &run.arg(1))?;
    run.out.line(size)?;
    Ok(0)
}

pub(crate) fn digest_image(run: &mut Run<'_>, store: &Store) -> Outcome {
    let id = store.image(&run.arg(0))?.id;
    let digest = store.image_big_data_digest(&id, &run.arg(1))?;
    print_digest(run, &digest)
}

pub(crate) fn digest_container(run: &mut Run<'_>, store: &Store) -> Outcome {
    let id = store.container(&run.arg(0))?.id;
    let digest = store.container_big_data_digest(&id, &run.arg(1))?;
    print_digest(run, &digest)
}

/// A recorded digest may come from anywhere; only a well-formed one is an answer.
fn print_digest(run: &mut Run<'_>, digest: &Digest) -> Outcome {
    digest.as_str().parse::<Digest>()?;
    run.out.line(digest)?;
    Ok(0)
}

pub(crate) fn set_layer(run: &mut Run<'_>, store: &Store) -> Outcome {
    let id = store.layer(&run.arg(0))?.id;
    let bytes = input_bytes(&run.values)?;
    store.set_layer_big_data(&id, &run.arg(1), &bytes)?;
    Ok(0)
}

pub(crate) fn set_image(run: &mut Run<'_>, store: &Store) -> Outcome {
    let id = store.image(&run.arg(0))?.id;
    let bytes = input_bytes(&run.values)?;
    store.set_image_big_data(&id, &run.arg(1), &bytes, None)?;
    Ok(0)
}

pub(crate) fn set_container(run: &mut Run<'_>, store: &Store) -> Outcome {
    let id = store.container(&run.arg(0))?.id;
    let bytes = input_bytes(&run.values)?;
    store.set_container_big_data(&id, &run.arg(1), &bytes)?;
    Ok(0)
}
