// SPDX-License-Identifier: Apache-2.0
//! `mount`, `unmount`, `mounted`.

use std::path::PathBuf;

use plywood::store::{MountOptions, Store};
use serde::Serialize;

use crate::{
    hints::one_line,
    run::{Outcome, Run},
};

#[derive(Serialize)]
struct Mounted<'a> {
    id: &'a str,
    mountpoint: String,
    error: String,
}

#[derive(Serialize)]
struct Told<'a> {
    id: &'a str,
    error: String,
}

pub(crate) fn mount(run: &mut Run<'_>, store: &Store) -> Outcome {
    let args = run.args();
    let options: Vec<String> = run
        .values
        .text("--opt")
        .iter()
        .flat_map(|text| text.split(','))
        .map(str::to_owned)
        .collect();
    let label = run.values.text("--label");
    let one = |what: &str| -> plywood::Result<PathBuf> {
        let read_only = run.values.is("--read-only");
        let options = MountOptions {
            label: label.clone(),
            options: options.clone(),
            read_only,
        };
        if read_only {
            store.mount_image(what, &options)
        } else {
            store.mount(what, &options)
        }
    };
    let results: Vec<plywood::Result<PathBuf>> = args.iter().map(|what| one(what)).collect();
    let failed = results.iter().any(Result::is_err);
    if run.json() {
        let told: Vec<Mounted<'_>> = args
            .iter()
            .zip(&results)
            .map(|(id, result)| Mounted {
                id,
                mountpoint: path_of(result.as_ref().ok()),
                error: text_of(result.as_ref().err()),
            })
            .collect();
        run.out.json(&told)?;
    } else {
        for (what, result) in args.iter().zip(&results) {
            if let Err(error) = result {
                let text = one_line(error);
                run.item_failed(&format!("{text} while mounting {what}"), error);
            }
            let path = path_of(result.as_ref().ok());
            run.out.line(path)?;
        }
    }
    Ok(u8::from(failed))
}

fn path_of(path: Option<&PathBuf>) -> String {
    path.map(|path| path.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn text_of(error: Option<&plywood::Error>) -> String {
    error.map(|error| one_line(error)).unwrap_or_default()
}

pub(crate) fn unmount(run: &mut Run<'_>, store: &Store) -> Outcome {
    let force = run.values.is("--force");
    let args = run.args();
    let mut errors = Vec::new();
    for what in &args {
        let error = match store.unmount(what, force) {
            Ok(still_mounted) => {
                if !still_mounted {
                    run.out.line(format_args!("{what} mountpoint unmounted"))?;
                }
                None
            }
            // It may be an image that is mounted read-only.
            Err(error) => store.unmount_image(what, force).err().map(|_| error),
        };
        errors.push(error);
    }
    tell(run, &args, &errors, "while unmounting")
}

pub(crate) fn mounted(run: &mut Run<'_>, store: &Store) -> Outcome {
    let args = run.args();
    let mut errors = Vec::new();
    for what in &args {
        let error = match store.mounted(what) {
            Ok(count) => {
                if count > 0 {
                    run.out.line(format_args!("{what} mounted"))?;
                }
                None
            }
            Err(error) => Some(error),
        };
        errors.push(error);
    }
    if run.json() {
        return tell(run, &args, &errors, "");
    }
    for (what, error) in args.iter().zip(&errors) {
        if let Some(error) = error {
            let text = one_line(error);
            run.item_failed(&format!("{text} checking if {what} is mounted"), error);
        }
    }
    Ok(u8::from(errors.iter().any(Option::is_some)))
}

fn tell(
    run: &mut Run<'_>,
    args: &[String],
    errors: &[Option<plywood::Error>],
    doing: &str,
) -> Outcome {
    if run.json() {
        let told: Vec<Told<'_>> = args
            .iter()
            .zip(errors)
            .map(|(id, error)| Told {
                id,
                error: text_of(error.as_ref()),
            })
            .collect();
        run.out.json(&told)?;
    } else {
        for (what, error) in args.iter().zip(errors) {
            if let Some(error) = error {
                run.item_failed(&format!("{} {doing} {what}", one_line(error)), error);
            }
        }
    }
    Ok(u8::from(errors.iter().any(Option::is_some)))
}
