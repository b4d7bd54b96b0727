// SPDX-License-Identifier: Apache-2.0
//! What the driver does when parts of its own bookkeeping are gone.
//!
//! The suite does not know what a home consists of. It tells the layers' content from the driver's
//! own files by name: everything in the layers is called `content...`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use plywood::{ErrorKind, sdk::toolkit};

use super::table;
use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    manifest::{self, Manifest},
    tar_file::TarFile,
};

const PREFIX: &str = "content";

fn fill(target: &Target) -> Result<Manifest, Failure> {
    let base = TarFile::new()
        .directory("content-d/")
        .file("content-d/content-deep", b"deep")
        .file("content-plain", b"plain")
        .file("content-gone", b"gone")
        .done();
    let child = TarFile::new()
        .whiteout(".wh.content-gone")
        .directory("content-d/")
        .file("content-d/content-new", b"new")
        .done();
    target.put("base", None, &base)?;
    target.put("middle", Some("base"), &child)?;
    let top = TarFile::new().file("content-top", b"top").done();
    target.put("top", Some("middle"), &top)?;
    let tree = target.manifest("top")?;
    demand!(
        tree.has("content-d/content-new") && tree.has("content-d/content-deep"),
        "the undamaged layer lacks content: {tree}"
    );
    demand!(!tree.has("content-gone"), "the deleted file is there");
    Ok(tree)
}

/// Everything of the driver's own below its home, parents first.
fn own_paths(home: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found: Vec<PathBuf> = manifest::of(home)?.0.into_keys().collect();
    found.retain(|path| {
        let mut names = path.iter().map(|name| name.to_string_lossy());
        !path.as_os_str().is_empty() && !names.any(|name| name.contains(PREFIX))
    });
    Ok(found)
}

pub(super) fn rebuilt(target: &mut Target) -> Outcome {
    let expected = fill(target)?;
    for request in table::requests(target) {
        let path = target.mount("top", &request)?;
        let is_mount = table::at(&path)? > 0;
        target.unmount("top")?;
        if is_mount && path.exists() {
            target.step("remove the directory at which the layer was mounted")?;
            fs::remove_dir(&path)?;
            let seen = target.within_as("top", &request, |path| {
                Ok::<_, Failure>(manifest::of(path)?)
            })?;
            let differences = expected.differences(&seen);
            demand!(
                differences.is_empty(),
                "without its old mount point the layer differs: {differences:?}"
            );
        }
    }
    target.step("remove the run directory, as a restart of the machine does")?;
    let site: Site = (**target).clone();
    target.driver.close()?;
    for place in [site.run_dir()?, site.root.join("run")] {
        match fs::remove_dir_all(place) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let again = site.open()?;
        for request in table::requests(&again) {
            let seen = again.within_as("top", &request, |path| {
                Ok::<_, Failure>(manifest::of(path)?)
            })?;
            let differences = expected.differences(&seen);
            demand!(
                differences.is_empty(),
                "without the run directory the layer differs: {differences:?}"
            );
        }
        again.close()?;
    }
    Ok(())
}

/// How a path is damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Damage {
    Removed,
    Emptied,
    Overwritten,
}

pub(super) fn reported(target: &mut Target) -> Outcome {
    let expected = fill(target)?;
    let home = target.home();
    let site: Site = (**target).clone();
    target.driver.close()?;
    let own = own_paths(&home)?;
    demand!(!own.is_empty(), "the driver keeps nothing in its home");
    for path in own {
        for damage in [Damage::Removed, Damage::Emptied, Damage::Overwritten] {
            let victim = home.join(&path);
            let is_file = fs::symlink_metadata(&victim)?.is_file();
            if damage != Damage::Removed && !is_file {
                continue;
            }
            let kept = site.scratch("kept")?.join("victim");
            fs::rename(&victim, &kept)?;
            match damage {
                Damage::Removed => {}
                Damage::Emptied => fs::write(&victim, "")?,
                Damage::Overwritten => fs::write(&victim, "no driver writes this\n")?,
            }
            let outcome = look(&site, &expected);
            toolkit::remove_tree(&victim)?;
            if let Some(parent) = victim.parent() {
                fs::create_dir_all(parent)?;
            }
            fs::rename(&kept, &victim)?;
            outcome.map_err(|mut failure| {
                let path = path.display();
                failure.text = format!("with `{path}` {damage:?}: {}", failure.text);
                failure
            })?;
        }
    }
    Ok(())
}

/// The right tree or an error that says that it is damaged; nothing else.
fn look(site: &Site, expected: &Manifest) -> Outcome {
    let before = table::below(&site.root)?;
    let seen = site.open().and_then(|target| {
        let seen = target.within("top", |path| {
            let read = manifest::of(path);
            read.map_err(|error| plywood::Error::new(ErrorKind::Io, error.to_string()))
        });
        target.close()?;
        seen
    });
    same!(before, table::below(&site.root)?, "what is mounted");
    match seen {
        Ok(seen) => {
            let differences = expected.differences(&seen);
            demand!(
                differences.is_empty(),
                "the layer is shown without an error, and differs: {differences:?}"
            );
        }
        Err(error) => demand!(
            matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::LayerUnknown),
            "the damage is reported as {:?}: {error}",
            error.kind()
        ),
    }
    Ok(())
}
