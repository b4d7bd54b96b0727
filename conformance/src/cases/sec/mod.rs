// SPDX-License-Identifier: Apache-2.0
//! Security (SEC): hostile streams, hostile layers, other users.

pub(super) mod access;
pub(super) mod bombs;
pub(super) mod export;
pub(super) mod fuzz;
pub(super) mod race;
pub(super) mod removal;
pub(super) mod unpack;

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use plywood::Error;

use crate::{
    Site, Target,
    case::{Failure, Outcome, demand},
    cases::lifecycle::sample,
    manifest::{self, Manifest},
};

/// What the secret file says: in no layer, stream or error.
pub(super) const SECRET: &[u8] = b"a secret of the host, not of any layer";

/// Files of the host outside the store, which an attacker wants to read or change.
pub(super) struct Victim {
    pub(super) place: PathBuf,
    before: Manifest,
}

impl Victim {
    pub(super) fn new(site: &Site) -> Result<Self, Failure> {
        let place = site.scratch("victim")?;
        fs::create_dir(place.join("dir"))?;
        for name in ["secret", "dir/secret", "hello"] {
            fs::write(place.join(name), SECRET)?;
            fs::set_permissions(place.join(name), fs::Permissions::from_mode(0o600))?;
        }
        let before = manifest::of(&place)?;
        Ok(Self { place, before })
    }

    /// The way to it from anywhere, however deep.
    pub(super) fn relative(&self) -> String {
        let path = self.place.display().to_string();
        format!("{}{}", "../".repeat(40), path.trim_start_matches('/'))
    }

    pub(super) fn absolute(&self) -> String {
        self.place.display().to_string()
    }

    /// Fails when anything of it was changed.
    pub(super) fn intact(&self, after: &str) -> Outcome {
        let now = manifest::of(&self.place);
        let now = now.map_err(|error| {
            Failure::new(format!("{after}: files of the host are gone: {error}"))
        })?;
        let differences = self.before.differences(&now);
        demand!(
            differences.is_empty(),
            "{after}: files of the host outside the store were changed: {}",
            differences.join("; ")
        );
        Ok(())
    }
}

/// What came of a hostile stream.
pub(super) struct Attempt {
    /// The layer that it became, or why not.
    pub(super) layer: Result<Manifest, Error>,
    /// What it made of a layer that stands on others.
    pub(super) child: Result<Manifest, Error>,
}

/// Loads a hostile stream as a new layer, and applies it to a layer with a parent; whatever comes
/// of that, the host's files must be as they were, and nothing of them in a layer.
pub(super) fn attempt(
    target: &Target,
    victim: &Victim,
    what: &str,
    tar: &[u8],
) -> Result<Attempt, Failure> {
    target.step(what)?;
    if target.layers()?.iter().all(|layer| layer.id != "sample") {
        target.put("sample", None, &sample())?;
    }
    let layer = match target.put("hostile", None, tar) {
        Ok(_) => Ok(target.manifest("hostile")?),
        Err(error) => Err(error),
    };
    victim.intact(what)?;
    target.create("hostile-child", Some("sample"))?;
    let child = match target.apply("hostile-child", tar) {
        Ok(_) => Ok(target.manifest("hostile-child")?),
        Err(error) => {
            // What was unpacked before the refusal can be looked at.
            target.manifest("hostile-child")?;
            Err(error)
        }
    };
    victim.intact(what)?;
    for id in ["hostile", "hostile-child"] {
        if target.layers()?.iter().any(|layer| layer.id == id) {
            target.within(id, |path| holds_no_secret(path, what))?;
            target.delete(id)?;
        }
    }
    victim.intact(what)?;
    Ok(Attempt { layer, child })
}

/// No file below `root` is one of the host's, or a copy of one.
pub(super) fn holds_no_secret(root: &Path, what: &str) -> Outcome {
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path)?;
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        } else if meta.is_file() && meta.len() == SECRET.len() as u64 {
            demand!(
                fs::read(&path)? != SECRET,
                "{what}: `{}` of the layer is the host's secret",
                path.display()
            );
        }
    }
    Ok(())
}
