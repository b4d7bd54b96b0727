// SPDX-License-Identifier: Apache-2.0
//! Creating, finding and removing layers.

use std::fs;

use plywood::sdk::{CreateRequest, Removed};

use crate::{
    Case, Target,
    case::{Failure, Outcome, case, demand},
    manifest,
    tar_file::TarFile,
    target::layer_id,
};

pub(super) const CASES: &[Case] = &[
    case("GD-LIF-001", create_empty),
    case("GD-LIF-003", create_child),
    case("GD-LIF-008", exists),
    case("GD-LIF-009", list_exact),
    case("GD-LIF-012", remove_leaf),
    case("GD-LIF-014", recreate),
    case("GD-LIF-021", deferred),
    case("GD-LIF-022", abandoned),
    case("GD-LIF-023", metadata),
];

fn create_empty(target: &mut Target) -> Outcome {
    target.create("base", None)?;
    target.within("base", |path| {
        use std::os::unix::fs::MetadataExt as _;
        let meta = fs::metadata(path)?;
        demand!(meta.is_dir(), "`{}` is no directory", path.display());
        demand!(
            fs::read_dir(path)?.next().is_none(),
            "a new layer is not empty"
        );
        demand!(
            meta.mode() & 0o7777 == 0o555,
            "the root's mode is {:o}",
            meta.mode() & 0o7777
        );
        demand!(
            (meta.uid(), meta.gid()) == (0, 0),
            "the root belongs to {}:{}",
            meta.uid(),
            meta.gid()
        );
        Ok(())
    })
}

pub(super) fn sample() -> Vec<u8> {
    use tar::EntryType;
    TarFile::new()
        .directory("d/")
        .directory("d/e/")
        .file("d/e/deep", b"deep")
        .file("plain", b"plain")
        .entry("setuid", EntryType::Regular, 0o4755, b"x")
        .entry("sticky/", EntryType::Directory, 0o1777, &[])
        .link("soft", EntryType::Symlink, "d/e/deep")
        .link("hard", EntryType::Link, "plain")
        .entry("pipe", EntryType::Fifo, 0o600, &[])
        .done()
}

fn create_child(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create("child", Some("base"))?;
    let (base, child) = (target.manifest("base")?, target.manifest("child")?);
    demand!(base.root_like(&child), "the roots differ in mode or owner");
    let (base, child) = (base.without_root(), child.without_root());
    let differences = base.differences(&child);
    demand!(differences.is_empty(), "the child differs: {differences:?}");
    demand!(base.has("d/e/deep"), "the parent has no content: {base}");
    Ok(())
}

fn exists(target: &mut Target) -> Outcome {
    let id = layer_id("one");
    demand!(
        !target.driver.exists(&id)?,
        "it exists before it is created"
    );
    target.create("one", None)?;
    demand!(
        target.driver.exists(&id)?,
        "it does not exist after it was created"
    );
    target.delete("one")?;
    demand!(
        !target.driver.exists(&id)?,
        "it exists after it was removed"
    );
    Ok(())
}

fn list_exact(target: &mut Target) -> Outcome {
    demand!(target.driver.list()?.is_empty(), "a new store has layers");
    target.put("a", None, &sample())?;
    target.create("b", Some("a"))?;
    target.create("c", None)?;
    let list = |target: &Target| -> Result<Vec<String>, Failure> {
        let mut ids: Vec<String> = target
            .driver
            .list()?
            .into_iter()
            .map(|id| id.to_string())
            .collect();
        ids.sort();
        Ok(ids)
    };
    demand!(
        list(target)? == ["a", "b", "c"],
        "listed: {:?}",
        list(target)?
    );
    target.delete("b")?;
    demand!(
        list(target)? == ["a", "c"],
        "listed after a removal: {:?}",
        list(target)?
    );
    Ok(())
}

fn remove_leaf(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.put("leaf", Some("base"), &sample())?;
    let path = target.within("leaf", |path| Ok::<_, Failure>(path.to_owned()))?;
    target.delete("leaf")?;
    demand!(!path.exists(), "`{}` is still there", path.display());
    demand!(!target.driver.exists(&layer_id("leaf"))?, "it still exists");
    let gone = target.driver.remove(&layer_id("leaf"))?;
    demand!(
        gone == Removed::AlreadyGone,
        "removing it again says {gone:?}"
    );
    demand!(
        target.manifest("base")?.has("plain"),
        "its parent lost content"
    );
    Ok(())
}

fn recreate(target: &mut Target) -> Outcome {
    target.put("one", None, &sample())?;
    target.delete("one")?;
    target.create("one", None)?;
    let manifest = target.manifest("one")?.without_root();
    demand!(manifest.0.is_empty(), "old content is visible: {manifest}");
    Ok(())
}

fn deferred(target: &mut Target) -> Outcome {
    let id = layer_id("one");
    target
        .driver
        .create(&CreateRequest::new(id.clone(), None))?;
    let Some(token) = target.driver.trash(&id)? else {
        return Err(Failure::new("trash says that the layer is already gone"));
    };
    demand!(!target.driver.exists(&id)?, "a trashed layer exists");
    target.driver.reap(&token)?;
    target.driver.reap(&token)?;
    demand!(
        target.driver.trash(&id)?.is_none(),
        "a removed layer can be trashed again"
    );
    target.driver.create(&CreateRequest::new(id, None))?;
    Ok(())
}

fn abandoned(target: &mut Target) -> Outcome {
    let home = target.home();
    target.create("keep", None)?;
    let before = manifest::of(&home)?;
    let id = layer_id("one");
    target
        .driver
        .create(&CreateRequest::new(id.clone(), None))?;
    target.driver.trash(&id)?;
    // Nobody reaps: the instance ends, and its locks with it.
    let again = target.reopened()?;
    drop(std::mem::replace(target, again));
    target.driver.recover()?;
    demand!(
        target.driver.recover()?.is_empty(),
        "something is reclaimed twice"
    );
    let left: Vec<_> = manifest::of(&home)?
        .0
        .into_keys()
        .filter(|path| !before.0.contains_key(path))
        .collect();
    demand!(left.is_empty(), "left in the home: {left:?}");
    Ok(())
}

fn metadata(target: &mut Target) -> Outcome {
    target.create("one", None)?;
    target.driver.metadata(&layer_id("one"))?;
    demand!(
        target.driver.metadata(&layer_id("unknown")).is_err(),
        "an unknown layer has metadata"
    );
    Ok(())
}
