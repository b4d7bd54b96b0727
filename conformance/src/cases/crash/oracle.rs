// SPDX-License-Identifier: Apache-2.0
//! What must hold after a crash: nothing is half, nothing is lost, nothing is left over.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use plywood::{
    Error, ErrorKind, Result,
    locking::order::Held,
    mount,
    plugin::DriverHandle,
    sdk::{CreateRequest, LayerId, LayerKind, MountPlan, MountRequest, Removed},
};

use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    manifest::{self, Manifest},
    tar_file::TarFile,
    target::layer_id,
};

/// The layer that is there from the beginning and must never change.
pub(super) const BASE: &str = "base";
/// The layer that is worked on.
pub(super) const NEW: &str = "worked-on";

/// Every path of a store; those of two equal stores are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Paths(BTreeSet<PathBuf>);

impl Paths {
    pub(super) fn of(site: &Site) -> io::Result<Self> {
        let mut paths = BTreeSet::new();
        for part in ["graph", "run"] {
            collect(&site.root, Path::new(part), &mut paths)?;
        }
        Ok(Self(paths))
    }

    /// Fails when `now` is not what it was.
    pub(super) fn unchanged(&self, now: &Self) -> Outcome {
        let list = |more: &Self, less: &Self| {
            let only: Vec<String> = more
                .0
                .difference(&less.0)
                .map(|p| p.display().to_string())
                .collect();
            only.join(", ")
        };
        let (extra, missing) = (list(now, self), list(self, now));
        demand!(
            extra.is_empty(),
            "this was left over below the store: {extra}"
        );
        demand!(
            missing.is_empty(),
            "this was lost below the store: {missing}"
        );
        Ok(())
    }
}

fn collect(root: &Path, relative: &Path, paths: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    let path = root.join(relative);
    let meta = match fs::symlink_metadata(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        meta => meta?,
    };
    paths.insert(relative.to_owned());
    if meta.is_dir() {
        for entry in fs::read_dir(&path)? {
            collect(root, &relative.join(entry?.file_name()), paths)?;
        }
    }
    Ok(())
}

/// What is mounted below a store, apart from the driver's home itself.
pub(super) fn mounts_below(site: &Site) -> Result<Vec<String>, Failure> {
    let home = site.home()?;
    let table = plywood::sdk::toolkit::mountinfo::mounts()?;
    let below = table.into_iter().map(|mount| mount.target);
    let parts = ["graph", "run"].map(|part| site.root.join(part));
    Ok(below
        .filter(|target| parts.iter().any(|part| target.starts_with(part)) && *target != home)
        .map(|target| target.display().to_string())
        .collect())
}

/// Shows a layer as core shows it, without the store's records.
pub(super) fn seen(driver: &DriverHandle, id: &LayerId) -> Result<Manifest> {
    let request = MountRequest::default();
    let plan = driver.mount_plan(id, &request)?;
    let by_driver = matches!(plan, MountPlan::ByDriver { .. });
    let path = if by_driver {
        driver.mount(id, &request)?
    } else {
        mount::execute(&plan)?
    };
    let found = manifest::of(&path).map_err(|error| {
        Error::new(
            ErrorKind::Io,
            format!("cannot read the mounted layer: {error}"),
        )
    });
    if by_driver {
        driver.unmount(id)?;
    } else {
        mount::undo(&plan, &path)?;
    }
    driver.released(id)?;
    found
}

/// What differs, apart from the times of the roots.
pub(super) fn differences(expected: &Manifest, found: &Manifest) -> Vec<String> {
    let mut differences = expected
        .clone()
        .without_root()
        .differences(&found.clone().without_root());
    if !expected.root_like(found) {
        differences.push("the root has another mode or owner".to_owned());
    }
    differences
}

/// An operation that makes the layer [`NEW`].
pub(super) type Make = fn(&DriverHandle) -> Outcome;

/// A request for the layer [`NEW`].
pub(super) fn request(parent: Option<&str>) -> CreateRequest {
    let mut request = CreateRequest::new(layer_id(NEW), parent.map(layer_id));
    request.kind = LayerKind::ReadWrite;
    request
}

/// What a driver may answer about a layer after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Absent,
    Complete,
    /// It is there, and said to be unusable.
    Refused,
}

/// A store with one good layer, on which a driver's operations are cut short.
pub(super) struct DriverStore<'a> {
    pub(super) site: &'a Site,
    base: Manifest,
    complete: Manifest,
    clean: Paths,
    make: Make,
}

impl<'a> DriverStore<'a> {
    /// Makes the store, and [`NEW`] once undisturbed to see what it must look like.
    pub(super) fn new(site: &'a Site, make: Make) -> Result<Self, Failure> {
        if !site.home()?.exists() {
            let target = site.open()?;
            target.put(BASE, None, &sample())?;
            target.close()?;
        }
        let driver = site.driver()?;
        let base = seen(&driver, &layer_id(BASE))?;
        make(&driver)?;
        let complete = seen(&driver, &layer_id(NEW))?;
        driver.remove(&layer_id(NEW))?;
        driver.close()?;
        Ok(Self {
            site,
            base,
            complete,
            clean: Paths::of(site)?,
            make,
        })
    }

    /// Makes [`NEW`] for an operation that needs it.
    pub(super) fn made(&self) -> Outcome {
        let driver = self.site.driver()?;
        (self.make)(&driver)?;
        driver.close()?;
        Ok(())
    }

    /// The whole oracle, as whoever comes after a crash would go about it.
    ///
    /// # Behavior
    /// - [`NEW`] does not exist afterwards.
    pub(super) fn settle(&self) -> Outcome {
        let driver = self.site.driver()?;
        let state = self.state(&driver)?;
        driver.recover()?;
        same!(
            state,
            self.state(&driver)?,
            "`recover` changed what can be seen of the layer"
        );
        self.again(&driver, state)?;
        self.end(&driver)
    }

    /// The same, but the layer is made again before anything is reclaimed.
    pub(super) fn recreate(&self) -> Outcome {
        let driver = self.site.driver()?;
        let state = self.state(&driver)?;
        self.again(&driver, state)?;
        driver.recover()?;
        self.end(&driver)
    }

    /// Removing what is there, of which nothing may stay.
    pub(super) fn settle_removal(&self) -> Outcome {
        let driver = self.site.driver()?;
        let state = self.state(&driver)?;
        driver.recover()?;
        let removed = driver.remove(&layer_id(NEW))?;
        same!(
            state == State::Absent,
            removed == Removed::AlreadyGone,
            "whether the layer was gone already when it was removed once more"
        );
        self.end(&driver)
    }

    fn again(&self, driver: &DriverHandle, state: State) -> Outcome {
        let id = layer_id(NEW);
        if state == State::Complete {
            let answer = driver
                .create(&request(Some(BASE)))
                .map_err(|error| error.kind());
            same!(
                Err(ErrorKind::DuplicateId),
                answer,
                "the answer to making the layer over one that exists"
            );
            whole(driver, NEW, &self.complete)?;
            same!(Removed::Now, driver.remove(&id)?, "removing the layer");
        }
        (self.make)(driver)
            .map_err(|failure| because(failure, "the layer cannot be made again"))?;
        whole(driver, NEW, &self.complete)?;
        same!(Removed::Now, driver.remove(&id)?, "removing the layer");
        Ok(())
    }

    fn end(&self, driver: &DriverHandle) -> Outcome {
        demand!(!driver.exists(&layer_id(NEW))?, "the removed layer exists");
        whole(driver, BASE, &self.base)?;
        driver.close()?;
        nothing_mounted(self.site)?;
        self.clean.unchanged(&Paths::of(self.site)?)
    }

    fn state(&self, driver: &DriverHandle) -> Result<State, Failure> {
        let id = layer_id(NEW);
        let there = driver.exists(&id)?;
        if driver.capabilities().list {
            let listed = driver.list()?;
            same!(
                there,
                listed.contains(&id),
                "`exists` and `list` of `{id}` after the crash"
            );
            demand!(
                listed.contains(&layer_id(BASE)),
                "`{BASE}` is not listed any more"
            );
        }
        if !there {
            return Ok(State::Absent);
        }
        match seen(driver, &id) {
            Ok(found) => {
                let differences = differences(&self.complete, &found);
                demand!(
                    differences.is_empty(),
                    "the layer can be mounted and is half: {}",
                    differences.join("; ")
                );
                Ok(State::Complete)
            }
            Err(error) => {
                demand!(
                    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::LayerUnknown),
                    "a half layer must be refused as corrupt, not with {:?}: {error}",
                    error.kind()
                );
                Ok(State::Refused)
            }
        }
    }
}

fn whole(driver: &DriverHandle, id: &str, expected: &Manifest) -> Outcome {
    let found = seen(driver, &layer_id(id))?;
    let differences = differences(expected, &found);
    demand!(
        differences.is_empty(),
        "layer `{id}` is not what it was: {}",
        differences.join("; ")
    );
    Ok(())
}

/// Says what was being done when a failure came about.
pub(super) fn because(mut failure: Failure, what: &str) -> Failure {
    failure.text = format!("{what}: {}", failure.text);
    failure
}

pub(super) fn nothing_mounted(site: &Site) -> Outcome {
    let mounted = mounts_below(site)?;
    demand!(mounted.is_empty(), "still mounted: {}", mounted.join(", "));
    Ok(())
}

/// A store on which the operations of core with the driver are cut short.
pub(super) struct WholeStore<'a> {
    pub(super) site: &'a Site,
    base: Manifest,
    clean: Paths,
}

impl<'a> WholeStore<'a> {
    /// Makes the store; `prepare` gets it once, to do what every run finds done.
    pub(super) fn new(
        site: &'a Site,
        prepare: impl FnOnce(&Target) -> Outcome,
    ) -> Result<Self, Failure> {
        let target = site.open()?;
        target.put(BASE, None, &sample())?;
        prepare(&target)?;
        // What the first use of every part makes.
        let base = target.manifest(BASE)?;
        target.create(NEW, Some(BASE))?;
        target.delete(NEW)?;
        collect_garbage(&target)?;
        target.close()?;
        Ok(Self {
            site,
            base,
            clean: Paths::of(site)?,
        })
    }

    /// Opens the store as the next program does, lets `check` look at it, and asks for a store as
    /// clean as at the beginning.
    pub(super) fn settle(&self, check: impl FnOnce(&Target) -> Outcome) -> Outcome {
        let target = self.site.open()?;
        for layer in target.layers()? {
            demand!(
                target.driver.exists(&layer_id(&layer.id))?,
                "layer `{}` has a record and no content",
                layer.id
            );
        }
        check(&target)?;
        collect_garbage(&target)?;
        if target.driver.capabilities().list {
            let recorded: BTreeSet<String> = target.layers()?.into_iter().map(|l| l.id).collect();
            let listed: BTreeSet<String> = target
                .driver
                .list()?
                .iter()
                .map(ToString::to_string)
                .collect();
            same!(recorded, listed, "the layers that core and the driver know");
        }
        let differences = differences(&self.base, &target.manifest(BASE)?);
        demand!(
            differences.is_empty(),
            "layer `{BASE}` is not what it was: {}",
            differences.join("; ")
        );
        target.close()?;
        nothing_mounted(self.site)?;
        self.clean.unchanged(&Paths::of(self.site)?)
    }
}

/// Reclaims what dead processes left.
pub(super) fn collect_garbage(target: &Target) -> Outcome {
    let mut held = Held::nothing();
    let reaper = {
        let (mut write, _) = target.store().write(&mut held)?;
        write.garbage_collect()?.1
    };
    reaper.run()?;
    Ok(())
}

/// A layer with a little of everything.
pub(super) fn sample() -> Vec<u8> {
    use tar::EntryType;
    TarFile::new()
        .directory("d/")
        .file("d/file", b"content")
        .entry("setuid", EntryType::Regular, 0o4755, b"x")
        .link("soft", EntryType::Symlink, "d/file")
        .link("hard", EntryType::Link, "d/file")
        .done()
}
