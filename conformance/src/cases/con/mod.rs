// SPDX-License-Identifier: Apache-2.0
//! Concurrency (CON): many threads and many processes on one store.

pub(super) mod crowd;
pub(super) mod processes;
pub(super) mod removal;
pub(super) mod sharing;

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Barrier,
    thread::{self, ScopedJoinHandle},
};

use plywood::{ErrorKind, Result, sdk::toolkit::mountinfo};

use crate::{
    Site, Target,
    case::{Failure, Outcome},
    manifest,
};

/// Does `work` in that many threads, which begin together; fails as the first that failed.
pub(super) fn together(threads: usize, work: impl Fn(usize) -> Outcome + Sync) -> Outcome {
    let begin = Barrier::new(threads);
    let (begin, work) = (&begin, &work);
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|number| {
                scope.spawn(move || {
                    begin.wait();
                    work(number)
                })
            })
            .collect();
        let ended: Vec<_> = running.into_iter().map(ended).collect();
        ended.into_iter().collect()
    })
}

/// What a thread came to; a panic is a failure like others.
pub(super) fn ended<T>(thread: ScopedJoinHandle<'_, Result<T, Failure>>) -> Result<T, Failure> {
    thread.join().unwrap_or_else(|_| {
        Err(Failure::new(
            "a panic ended a thread of the case; its message is in the output",
        ))
    })
}

/// Every layer that has a record.
pub(super) fn recorded(target: &Target) -> Result<BTreeSet<String>> {
    Ok(target.layers()?.into_iter().map(|layer| layer.id).collect())
}

/// Every layer that the driver lists, when it can.
pub(super) fn listed(target: &Target) -> Result<Option<BTreeSet<String>>> {
    if !target.driver.capabilities().list {
        return Ok(None);
    }
    let ids = target.driver.list()?;
    Ok(Some(ids.iter().map(ToString::to_string).collect()))
}

/// What is mounted below the store's directories, and is not the driver's own home.
pub(super) fn mounted(target: &Target) -> Result<Vec<PathBuf>, Failure> {
    let (graph, run) = (target.root.join("graph"), target.root.join("run"));
    let home = target.home();
    let mounts = mountinfo::mounts()?.into_iter().map(|mount| mount.target);
    Ok(mounts
        .filter(|place| place.starts_with(&graph) || place.starts_with(&run))
        .filter(|place| *place != home)
        .collect())
}

/// Every path in the driver's home.
pub(super) fn residue(site: &Site) -> Result<BTreeSet<PathBuf>, Failure> {
    Ok(manifest::of(&site.home()?)?.0.into_keys().collect())
}

/// Whether an operation worked, or failed in one of the ways that others may cause.
pub(super) fn allowed<T>(
    result: Result<T>,
    kinds: &[ErrorKind],
    what: &str,
) -> Result<Option<T>, Failure> {
    match result {
        Ok(done) => Ok(Some(done)),
        Err(error) if kinds.contains(&error.kind()) => Ok(None),
        Err(error) => {
            let kind = error.kind();
            let text = Failure::from(error).text;
            Err(Failure::new(format!(
                "{what} may succeed or fail as one of {kinds:?} while others work on the store, \
                 and failed as {kind:?}: {text}"
            )))
        }
    }
}
