// SPDX-License-Identifier: Apache-2.0
//! Persistence (PER): what another process finds, another day, under other circumstances.

pub(super) mod exchange;
pub(super) mod place;
pub(super) mod restart;

use std::{fmt::Write as _, fs, io};

use nix::mount::{MntFlags, umount2};
use plywood::sdk::toolkit::mountinfo;

use crate::{
    Site, Target,
    case::{Failure, Outcome, demand},
    cases::lifecycle::sample,
    ops::{self, Op},
    tar_file::TarFile,
};

/// A small store: a base, a child with deletions, a layer that was written to.
pub(super) fn populate(target: &Target) -> Outcome {
    target.put("base", None, &sample())?;
    let child = TarFile::new()
        .whiteout(".wh.plain")
        .directory("d/")
        .whiteout("d/.wh..wh..opq")
        .file("d/of-child", b"child")
        .done();
    target.put("child", Some("base"), &child)?;
    target.create_writable("top", Some("child"))?;
    let ops = [
        Op::Write("written".into(), b"written".to_vec()),
        Op::Chmod("written".into(), 0o640),
        Op::Unlink("d/of-child".into()),
        Op::Symlink("link".into(), "written".into()),
    ];
    target.within("top", |path| Ok(ops::apply(path, &ops)?))
}

/// Everything that can be seen of a store, one fact on a line.
pub(super) fn snapshot(target: &Target) -> Result<String, Failure> {
    let mut layers = target.layers()?;
    layers.sort_by(|one, other| one.id.cmp(&other.id));
    let mut text = String::new();
    if target.driver.capabilities().list {
        let mut ids = target.driver.list()?;
        ids.sort();
        // Writing to a string does not fail.
        let _written = writeln!(text, "the driver lists {ids:?}");
    }
    for layer in layers {
        let _written = writeln!(
            text,
            "layer {} on {:?}, diff {:?}",
            layer.id, layer.parent, layer.diff_digest
        );
        let manifest = target.manifest(&layer.id)?.without_root_time();
        for (path, facts) in &manifest.0 {
            let _written = writeln!(text, "{} {}: {facts:?}", layer.id, path.display());
        }
    }
    Ok(text)
}

/// Compares what is seen now with what was seen before.
pub(super) fn unchanged(before: &str, target: &Target, when: &str) -> Outcome {
    let now = snapshot(target)?;
    let missing: Vec<_> = before
        .lines()
        .filter(|line| !now.lines().any(|other| other == *line))
        .collect();
    let extra: Vec<_> = now
        .lines()
        .filter(|line| !before.lines().any(|other| other == *line))
        .collect();
    demand!(
        missing.is_empty() && extra.is_empty(),
        "{when} the store shows something else: gone are {missing:#?}, new are {extra:#?}"
    );
    Ok(())
}

/// The store can be used: a layer is made on `parent`, written to, exported and removed.
pub(super) fn usable(target: &Target, parent: &str) -> Outcome {
    target.create_writable("probe", Some(parent))?;
    target.within("probe", |path| {
        Ok::<_, Failure>(fs::write(path.join("probe"), "probe")?)
    })?;
    let manifest = target.manifest("probe")?;
    demand!(
        manifest.has("probe"),
        "a new layer lost what was written: {manifest}"
    );
    let tar = target.diff("probe")?;
    target.put("probe-again", Some(parent), &tar)?;
    demand!(
        target.manifest("probe-again")?.has("probe"),
        "an exported layer cannot be loaded again"
    );
    target.delete("probe-again")?;
    Ok(target.delete("probe")?)
}

/// Takes everything away that is mounted below the case's root, as a reboot does.
pub(super) fn unmount_all(site: &Site) -> Outcome {
    let mounts = mountinfo::mounts()?.into_iter().rev();
    let below = [site.root.join("graph"), site.root.join("run")];
    for mount in mounts.filter(|mount| below.iter().any(|place| mount.target.starts_with(place))) {
        match umount2(&mount.target, MntFlags::MNT_DETACH) {
            Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
            done => done.map_err(io::Error::from)?,
        }
    }
    Ok(())
}
