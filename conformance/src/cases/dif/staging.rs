// SPDX-License-Identifier: Apache-2.0
//! Private places that become layers.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use plywood::{
    ErrorKind,
    archive::import::{ImportOptions, unpack_plain},
    mount,
    plugin::DriverHandle,
    sdk::{CreateRequest, DriverErrorCode, IdMaps, MountPlan, MountRequest, Staged},
};

use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    manifest::{self, Manifest},
    tar_file::TarFile,
    target::layer_id,
    wire,
};

fn request(id: &str, parent: Option<&str>) -> CreateRequest {
    CreateRequest::new(layer_id(id), parent.map(layer_id))
}

fn content(text: &str) -> Vec<u8> {
    TarFile::new()
        .directory("d/")
        .file("d/file", text.as_bytes())
        .file("own", text.as_bytes())
        .whiteout("d/.wh.low")
        .done()
}

fn base(target: &Target) -> Outcome {
    let tar = TarFile::new()
        .directory("d/")
        .file("d/low", b"low")
        .file("low", b"low")
        .done();
    target.put("base", None, &tar)?;
    Ok(())
}

fn fill(staged: &Staged, text: &str) -> Outcome {
    let maps = IdMaps::default();
    unpack_plain(
        &content(text)[..],
        &ImportOptions::new(&staged.target, &maps),
    )?;
    Ok(())
}

/// Looks at a layer that has no record.
fn look(driver: &DriverHandle, id: &str) -> Result<Manifest, Failure> {
    let (id, request) = (layer_id(id), MountRequest::default());
    let plan = driver.mount_plan(&id, &request)?;
    let seen = match &plan {
        MountPlan::ByDriver { .. } => {
            let seen = manifest::of(&driver.mount(&id, &request)?);
            driver.unmount(&id)?;
            seen
        }
        plan => {
            let path = mount::execute(plan)?;
            let seen = manifest::of(&path);
            mount::undo(plan, &path)?;
            seen
        }
    };
    driver.released(&id)?;
    Ok(seen?.without_root())
}

/// Fails unless the layer has what was staged for it, and what its parent has.
fn check(driver: &DriverHandle, id: &str, text: &str) -> Outcome {
    let seen = look(driver, id)?;
    let names: Vec<_> = seen
        .0
        .keys()
        .map(|path| path.display().to_string())
        .collect();
    same!(["d", "d/file", "low", "own"], *names, "what `{id}` shows");
    let own = seen.0.get(Path::new("own"));
    same!(
        Some(manifest::hash(text.as_bytes())),
        own.and_then(|facts| facts.content.clone()),
        "the hash of `own` in `{id}`"
    );
    Ok(())
}

fn missing(driver: &DriverHandle, id: &str) -> Outcome {
    demand!(
        !driver.exists(&layer_id(id))?,
        "`{id}` exists before it was adopted"
    );
    if driver.capabilities().list {
        let listed = driver.list()?;
        demand!(
            !listed.contains(&layer_id(id)),
            "`{id}` is listed before it was adopted"
        );
    }
    Ok(())
}

pub(super) fn basic(target: &mut Target) -> Outcome {
    base(target)?;
    let driver = target.driver.clone();
    let staged = driver.stage(&request("staged", Some("base")))?;
    missing(&driver, "staged")?;
    fill(&staged, "staged")?;
    missing(&driver, "staged")?;
    target.step("other layers come and go meanwhile")?;
    target.put("other", Some("base"), &content("other"))?;
    target.delete("other")?;
    if driver.capabilities().sync {
        driver.sync_staged(&staged.token)?;
    }
    target.step("it becomes a layer, under another id")?;
    driver.adopt(&staged.token, &request("adopted", Some("base")))?;
    demand!(
        driver.exists(&layer_id("adopted"))?,
        "what was adopted does not exist"
    );
    missing(&driver, "staged")?;
    check(&driver, "adopted", "staged")?;
    target.step("its token means nothing any more")?;
    driver.discard(&staged.token)?;
    check(&driver, "adopted", "staged")?;
    let answer = driver
        .unguarded()
        .adopt(&staged.token, &request("twice", Some("base")));
    demand!(answer.is_err(), "one place became two layers");
    demand!(
        !driver.exists(&layer_id("twice"))?,
        "the refused adoption left a layer"
    );
    target.step("after a restart")?;
    let again = target.reopened()?;
    check(&again.driver, "adopted", "staged")?;
    again.driver.remove(&layer_id("adopted"))?;
    target.step("through core, whose layer is the same")?;
    target.put("put", Some("base"), &content("staged"))?;
    check(&driver, "put", "staged")
}

/// Every path below the driver's directories.
fn paths(site: &Site) -> Result<BTreeSet<PathBuf>, Failure> {
    let mut found = BTreeSet::new();
    let mut open = vec![site.home()?];
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                open.push(entry.path());
            }
            found.insert(entry.path());
        }
    }
    Ok(found)
}

/// What is there now and was not there, but for one empty directory that all places may be in.
fn residue(site: &Site, before: &BTreeSet<PathBuf>) -> Result<Vec<PathBuf>, Failure> {
    let after = paths(site)?;
    let new: Vec<_> = after.difference(before).cloned().collect();
    let empty_folder = |path: &PathBuf| {
        path.parent() == site.home().ok().as_deref()
            && fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
    };
    Ok(new.into_iter().filter(|path| !empty_folder(path)).collect())
}

pub(super) fn abandoned(target: &mut Target) -> Outcome {
    base(target)?;
    let before = paths(target)?;
    target.step("given up")?;
    let staged = target.driver.stage(&request("staged", Some("base")))?;
    fill(&staged, "given up")?;
    target.driver.discard(&staged.token)?;
    let left = residue(target, &before)?;
    demand!(left.is_empty(), "a place that was given up leaves {left:?}");
    target.driver.discard(&staged.token)?;
    target.step("left behind by a process that was killed")?;
    let mut peer = target.peer("stager", &[])?;
    peer.wait_for_step("staged")?;
    peer.kill()?;
    demand!(!residue(target, &before)?.is_empty(), "nothing was staged");
    target.step("a live one is not touched by recovery")?;
    let live = target.driver.stage(&request("live", Some("base")))?;
    fill(&live, "live")?;
    target.driver.recover()?;
    demand!(
        live.target.directory.join("own").exists(),
        "recovery removed a place whose owner is alive"
    );
    target.driver.discard(&live.token)?;
    let left = residue(target, &before)?;
    demand!(left.is_empty(), "after recovery there still is {left:?}");
    missing(&target.driver, "staged")
}

pub(super) fn stager(site: &Site, _: &[String]) -> Outcome {
    let driver = site.driver()?;
    let staged = driver.stage(&request("staged", Some("base")))?;
    fill(&staged, "left behind")?;
    wire::step("staged")?;
    thread::sleep(Duration::from_mins(1));
    Err(Failure::harness("this process was to be killed"))
}

pub(super) fn parallel(target: &mut Target) -> Outcome {
    const COUNT: usize = 16;
    base(target)?;
    let driver = target.driver.clone();
    let mut staged: Vec<(String, Staged)> = thread::scope(|scope| -> Result<_, Failure> {
        let driver = &driver;
        let threads: Vec<_> = (0..COUNT)
            .map(|number| {
                scope.spawn(move || -> Result<_, Failure> {
                    let id = format!("layer{number}");
                    let staged = driver.stage(&request(&id, Some("base")))?;
                    fill(&staged, &id)?;
                    Ok((id, staged))
                })
            })
            .collect();
        let joined = threads.into_iter().map(|thread| {
            thread
                .join()
                .map_err(|_| Failure::harness("a thread that stages panicked"))?
        });
        joined.collect()
    })?;
    let places: BTreeSet<_> = staged
        .iter()
        .map(|(_, staged)| &staged.target.directory)
        .collect();
    same!(COUNT, places.len(), "the number of different places");
    let tokens: BTreeSet<_> = staged.iter().map(|(_, staged)| &staged.token).collect();
    same!(COUNT, tokens.len(), "the number of different tokens");
    for (id, _) in &staged {
        missing(&driver, id)?;
    }
    target.rng().shuffle(&mut staged);
    for (id, staged) in &staged {
        driver.adopt(&staged.token, &request(id, Some("base")))?;
    }
    for (id, _) in &staged {
        check(&driver, id, id)?;
    }
    if driver.capabilities().list {
        same!(COUNT + 1, driver.list()?.len(), "the number of layers");
    }
    Ok(())
}

pub(super) fn existing(target: &mut Target) -> Outcome {
    base(target)?;
    target.put("taken", Some("base"), &content("taken"))?;
    let driver = target.driver.clone();
    let staged = driver.stage(&request("new", Some("base")))?;
    fill(&staged, "staged")?;
    let answer = driver
        .unguarded()
        .adopt(&staged.token, &request("taken", Some("base")));
    let code = answer.as_ref().err().map(|error| error.code);
    demand!(
        code == Some(DriverErrorCode::ALREADY_EXISTS),
        "adopting onto a layer that exists gave {answer:?}"
    );
    check(&driver, "taken", "taken")?;
    let answer = driver.adopt(&staged.token, &request("taken", Some("base")));
    let kind = answer.as_ref().err().map(plywood::Error::kind);
    demand!(
        kind == Some(ErrorKind::DuplicateId),
        "once more, it gave {answer:?}"
    );
    target.step("what was staged is still there, and becomes another layer")?;
    driver.adopt(&staged.token, &request("new", Some("base")))?;
    check(&driver, "new", "staged")?;
    check(&driver, "taken", "taken")?;
    target.step("the same through core")?;
    let answer = target.put("taken", Some("base"), &content("other"));
    let kind = answer.as_ref().err().map(plywood::Error::kind);
    demand!(
        kind == Some(ErrorKind::DuplicateId),
        "a second layer of one id gave {answer:?}"
    );
    check(&driver, "taken", "taken")
}
