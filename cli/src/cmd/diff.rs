// SPDX-License-Identifier: Apache-2.0
//! `changes`, `diffsize`, `diff`, `applydiff`.

use std::{
    io::{BufWriter, Write as _},
    os::unix::ffi::OsStrExt as _,
};

use plywood::{
    archive::Compression,
    sdk::ChangeKind,
    store::{DiffOptions, Store},
};
use serde::Serialize;

use super::{create_file, input, unpack_failed};
use crate::{
    output::go_quote,
    progress::{Meter, Metered},
    run::{Outcome, Run},
    signals::{self, Interruptible},
};

#[derive(Serialize)]
struct Changed {
    #[serde(rename = "Path")]
    path: String,
    #[serde(rename = "Kind")]
    kind: u8,
}

pub(crate) fn changes(run: &mut Run<'_>, store: &Store) -> Outcome {
    let changes = store.changes(reference(run).as_deref(), &run.arg(0))?;
    if run.json() {
        let told: Vec<Changed> = changes
            .iter()
            .map(|change| Changed {
                path: change.path.to_string_lossy().into_owned(),
                kind: match change.kind {
                    ChangeKind::Modify => 0,
                    ChangeKind::Add => 1,
                    ChangeKind::Delete => 2,
                },
            })
            .collect();
        // No change at all is nil in Go.
        run.out.json(&Some(told).filter(|told| !told.is_empty()))?;
        return Ok(0);
    }
    for change in changes {
        let kind = match change.kind {
            ChangeKind::Modify => "Modify",
            ChangeKind::Add => "Add",
            ChangeKind::Delete => "Delete",
        };
        let path = go_quote(change.path.as_os_str().as_bytes());
        run.out.line(format_args!("{kind} {path}"))?;
    }
    Ok(0)
}

pub(crate) fn size(run: &mut Run<'_>, store: &Store) -> Outcome {
    let size = store.diff_size(reference(run).as_deref(), &run.arg(0))?;
    run.out.line(size)?;
    Ok(0)
}

pub(crate) fn diff(run: &mut Run<'_>, store: &Store) -> Outcome {
    // The last of this order wins; the flags' own order does not matter.
    let chosen = [
        ("--uncompressed", Compression::None),
        ("--gzip", Compression::Gzip),
        ("--bzip2", Compression::Bzip2),
        ("--xz", Compression::Xz),
    ];
    let compression = chosen
        .iter()
        .rev()
        .find(|(flag, _)| run.values.is(flag))
        .map(|(_, compression)| *compression);
    let mut options = DiffOptions::default();
    options.compression = compression;
    let from = reference(run);
    let to = run.arg(0);
    if let Some(path) = run.values.path("--file") {
        let mut out = BufWriter::with_capacity(1 << 20, create_file(&path)?);
        store.diff(from.as_deref(), &to, options, &mut out)?;
        out.flush()?;
    } else {
        run.out.flush()?;
        // The lock of standard output cannot cross threads; nothing else writes there now.
        let mut out = BufWriter::with_capacity(1 << 20, std::io::stdout());
        store.diff(from.as_deref(), &to, options, &mut out)?;
        out.flush()?;
    }
    Ok(0)
}

pub(crate) fn apply(run: &mut Run<'_>, store: &Store) -> Outcome {
    let stream = input(&run.values)?;
    signals::watch()?;
    let meter = Meter::new("applying", None);
    let mut stream = Interruptible(Metered::new(stream, meter));
    store
        .apply_diff(&run.arg(0), &mut stream)
        .map_err(|error| unpack_failed(run, store, error))?;
    Ok(0)
}

fn reference(run: &Run<'_>) -> Option<String> {
    Some(run.arg(1)).filter(|reference| !reference.is_empty())
}
