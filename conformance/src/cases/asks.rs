// SPDX-License-Identifier: Apache-2.0
//! What many cases ask: whether something was refused as it must be, and whether it left anything.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use plywood::{
    Error, ErrorKind,
    sdk::{self, DriverErrorCode, LayerKind},
};

use crate::{
    Target,
    case::{Failure, Outcome, demand},
    manifest::Manifest,
    scratch::pool,
    target::new_layer,
};

/// Core must have refused `what` with one of these kinds.
pub(super) fn refused<T>(what: &str, answer: plywood::Result<T>, kinds: &[ErrorKind]) -> Outcome {
    let kind = answer.as_ref().err().map(Error::kind);
    let said = told(answer);
    demand!(
        kind.is_some_and(|kind| kinds.contains(&kind)),
        "{what} must fail as {}, and {said}",
        any_of(kinds)
    );
    Ok(())
}

/// The driver itself must have refused `what` with one of these codes.
pub(super) fn driver_refused<T>(
    what: &str,
    answer: sdk::Result<T>,
    codes: &[DriverErrorCode],
) -> Outcome {
    let code = answer.as_ref().err().map(|error| error.code);
    let said = match answer {
        Ok(_) => "succeeded".to_owned(),
        Err(error) => format!("failed as {:?}: {error}", error.code),
    };
    demand!(
        code.is_some_and(|code| codes.contains(&code)),
        "asked for {what}, the driver must answer {}, and it {said}",
        any_of(codes)
    );
    Ok(())
}

/// `what` either worked, or failed with one of these kinds; says whether it worked.
pub(super) fn allowed<T>(
    what: &str,
    answer: plywood::Result<T>,
    kinds: &[ErrorKind],
) -> Result<bool, Failure> {
    if answer.is_ok() {
        return Ok(true);
    }
    refused(what, answer, kinds).map(|()| false)
}

fn told<T>(answer: plywood::Result<T>) -> String {
    match answer {
        Ok(_) => "it succeeded".to_owned(),
        Err(error) => {
            let kind = error.kind();
            format!("it failed as {kind:?}: {}", Failure::from(error).text)
        }
    }
}

fn any_of<T: std::fmt::Debug>(several: &[T]) -> String {
    let words: Vec<_> = several.iter().map(|one| format!("{one:?}")).collect();
    words.join(" or ")
}

/// Two trees must be the same.
pub(super) fn equal(what: &str, expected: &Manifest, seen: &Manifest) -> Outcome {
    let differences = expected.differences(seen);
    demand!(differences.is_empty(), "{what}: {}", differences.join("; "));
    Ok(())
}

/// The names of everything in the store's directories, to find what an operation left.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Traces(BTreeSet<PathBuf>);

impl Traces {
    pub(super) fn of(target: &Target) -> io::Result<Self> {
        let mut found = BTreeSet::new();
        for place in ["graph", "run"] {
            collect(&target.root.join(place), &target.root, &mut found)?;
        }
        // Where layers are datasets, most of them is seen in no directory.
        let datasets = pool::below(&target.root)?;
        found.extend(
            datasets
                .into_iter()
                .map(|name| Path::new("datasets").join(name)),
        );
        Ok(Self(found))
    }

    /// Nothing may be there that was not there before.
    pub(super) fn nothing_new(&self, target: &Target, after: &str) -> Outcome {
        let now = Self::of(target)?;
        let new: Vec<_> = now.0.difference(&self.0).collect();
        demand!(new.is_empty(), "{after} left behind: {new:?}");
        Ok(())
    }

    /// Nothing may have come or gone.
    pub(super) fn unchanged(&self, target: &Target, after: &str) -> Outcome {
        self.nothing_new(target, after)?;
        let now = Self::of(target)?;
        let gone: Vec<_> = self.0.difference(&now.0).collect();
        demand!(gone.is_empty(), "{after} took away: {gone:?}");
        Ok(())
    }

    /// Those in the driver's own home.
    pub(super) fn at_home(mut self, target: &Target) -> Self {
        let home = Path::new("graph").join(target.driver.name());
        self.0.retain(|path| path.starts_with(&home));
        self
    }
}

fn collect(directory: &Path, root: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(&path, root, found)?;
        }
        // The record of mounts stays once there was one.
        if entry.file_name() != "mountpoints.json" {
            let relative = path.strip_prefix(root).unwrap_or(&path);
            found.insert(relative.to_owned());
        }
    }
    Ok(())
}

/// The layer can be used in every way: as a parent, by stream, by mount, by question; in the end
/// it and its children are gone.
pub(super) fn fully_usable(target: &Target, id: &str) -> Outcome {
    let child = if id == "child-of" {
        "of-child"
    } else {
        "child-of"
    };
    let mut new = new_layer(id, None);
    new.kind = LayerKind::ReadWrite;
    target.create_with(&new)?;
    let driver_id = crate::target::layer_id(id);
    demand!(
        target.driver.exists(&driver_id)?,
        "layer `{id}` does not exist"
    );
    target.within(id, |path| {
        Ok::<_, Failure>(fs::write(path.join("file"), id)?)
    })?;
    target.put(child, Some(id), &super::lifecycle::sample())?;
    let text = target.within(child, |path| {
        Ok::<_, Failure>(fs::read_to_string(path.join("file"))?)
    })?;
    demand!(
        text == id,
        "in a child of layer `{id}`, its file reads {text:?} instead of {id:?}"
    );
    demand!(
        !target.diff(child)?.is_empty(),
        "the child of `{id}` has no diff"
    );
    let changes = target.changes(id)?;
    demand!(
        changes.len() == 1 && changes[0].path == Path::new("/file"),
        "layer `{id}` has one file, and changes list {changes:?}"
    );
    target.driver.usage(&driver_id)?;
    target.driver.metadata(&driver_id)?;
    if target.driver.capabilities().list {
        demand!(
            target.driver.list()?.contains(&driver_id),
            "layer `{id}` is not listed"
        );
    }
    target.delete(child)?;
    target.delete(id)?;
    demand!(
        !target.driver.exists(&driver_id)?,
        "layer `{id}` exists after it was deleted"
    );
    target.put(id, None, &super::lifecycle::sample())?;
    demand!(
        target.manifest(id)?.has("d/e/deep"),
        "layer `{id}` lacks what was put into it"
    );
    target.delete(id)?;
    Ok(())
}
