// SPDX-License-Identifier: Apache-2.0
//! Removing layers.

use std::{
    fs::{self, File},
    io::Read as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::sched::{CloneFlags, unshare};
use plywood::{
    ErrorKind,
    sdk::{MountRequest, Removed},
};

use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    cases::{
        asks::{self, Traces},
        lifecycle::sample,
    },
    manifest::Manifest,
    target::layer_id,
    wire,
};

pub(super) fn leaf(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    let before = target.manifest("base")?;
    let traces = Traces::of(target)?;
    target.put("leaf", Some("base"), &sample())?;
    let path = target.within("leaf", |path| -> Result<PathBuf, Failure> {
        fs::write(path.join("more"), "x")?;
        Ok(path.to_owned())
    })?;
    target.delete("leaf")?;
    demand!(!path.exists(), "`{}` is still there", path.display());
    demand!(
        !target.driver.exists(&layer_id("leaf"))?,
        "the removed layer exists"
    );
    if target.driver.capabilities().list {
        let listed = target.driver.list()?;
        same!(vec![layer_id("base")], listed, "layers after the removal");
    }
    traces.nothing_new(target, "making and removing a layer")?;
    let again = target.driver.remove(&layer_id("leaf"))?;
    same!(
        Removed::AlreadyGone,
        again,
        "the answer to removing it again"
    );
    asks::equal("the parent changed", &before, &target.manifest("base")?)
}

pub(super) fn made_again(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    for (round, parent) in [None, Some("base"), None].into_iter().enumerate() {
        target.step(&format!("round {round}, on {parent:?}"))?;
        target.create_writable("one", parent)?;
        let manifest = target.manifest("one")?.without_root();
        let expected = if parent.is_some() {
            target.manifest("base")?.without_root()
        } else {
            Manifest::default()
        };
        asks::equal(
            "a layer shows what its predecessor of that name had",
            &expected,
            &manifest,
        )?;
        target.within("one", |path| -> Outcome {
            fs::write(path.join(format!("of-round-{round}")), "x")?;
            fs::create_dir(path.join("gone"))?;
            if parent.is_some() {
                fs::remove_file(path.join("plain"))?;
            }
            Ok(())
        })?;
        target.delete("one")?;
    }
    target.step("as a stream, after it was filled as a stream")?;
    target.put("one", None, &sample())?;
    target.delete("one")?;
    target.create("one", Some("base"))?;
    let changes = target.changes("one")?;
    demand!(
        changes.is_empty(),
        "a new layer has changes of its predecessor: {changes:?}"
    );
    Ok(())
}

pub(super) fn parent(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.put("middle", Some("base"), &sample())?;
    target.create("top", Some("middle"))?;
    let before = target.manifest("top")?;
    let traces = Traces::of(target)?.at_home(target);
    let store = target.whole_store()?;
    for id in ["base", "middle"] {
        asks::refused(
            &format!("deleting layer `{id}`, on which another one stands,"),
            store.delete_layer(id),
            &[ErrorKind::LayerHasChildren],
        )?;
        demand!(
            target.driver.exists(&layer_id(id))?,
            "the refused deletion removed `{id}`"
        );
    }
    same!(
        traces,
        Traces::of(target)?.at_home(target),
        "what is in the home after refused deletions"
    );
    asks::equal("a child changed", &before, &target.manifest("top")?)?;
    target.step("from the top it is possible")?;
    for id in ["top", "middle", "base"] {
        store.delete_layer(id)?;
    }
    demand!(store.layers()?.is_empty(), "layers are left");
    Ok(())
}

pub(super) fn chain(target: &mut Target) -> Outcome {
    let traces = {
        target.put("warm", None, &sample())?;
        target.delete("warm")?;
        Traces::of(target)?
    };
    let id = |number: usize| format!("layer-{number:02}");
    for number in 0_usize..20 {
        let below = number.checked_sub(1).map(id);
        target.create(&id(number), below.as_deref())?;
    }
    for number in (0..20).rev() {
        target.step(&format!("remove {}", id(number)))?;
        target.delete(&id(number))?;
        demand!(
            !target.driver.exists(&layer_id(&id(number)))?,
            "{} exists after it was removed",
            id(number)
        );
        if let Some(below) = number.checked_sub(1) {
            demand!(
                target.driver.exists(&layer_id(&id(below)))?,
                "{} went with its child",
                id(below)
            );
        }
    }
    demand!(target.layers()?.is_empty(), "records are left");
    traces.unchanged(target, "a chain of twenty layers that came and went")
}

pub(super) fn open_files(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    for apart in ["beside", "apart"] {
        target.step(&format!("the other process is {apart}"))?;
        let go = target.scratch("signs")?.join(apart);
        let go = go
            .to_str()
            .ok_or_else(|| Failure::harness("the scratch has a strange name"))?;
        target.create_writable("held", Some("base"))?;
        let path = target.mount("held", &MountRequest::default())?;
        fs::write(path.join("file"), "still here")?;
        let text = path
            .to_str()
            .ok_or_else(|| Failure::new("the mount's path is no text"))?;
        let mut holder = target.peer("holder", &[text, go, apart])?;
        let held = holder.wait_for_step("holding");
        target.unmount("held")?;
        held?;
        target.delete("held")?;
        demand!(
            !target.driver.exists(&layer_id("held"))?,
            "the layer exists after its removal"
        );
        demand!(!path.join("file").exists(), "its file is still there");
        fs::write(go, "")?;
        holder.join()?;
    }
    let listed = target.layers()?;
    same!(1, listed.len(), "layers that are left");
    Ok(())
}

/// Holds a file of the layer and one of its parent open while the layer is removed, and reads
/// them afterwards.
pub(super) fn holder(_: &Site, arguments: &[String]) -> Outcome {
    let [path, go, apart] = arguments else {
        return Err(Failure::harness("three arguments are needed"));
    };
    if apart == "apart" {
        unshare(CloneFlags::CLONE_NEWNS)?;
    }
    let path = Path::new(path);
    let mut files = [
        File::open(path.join("file"))?,
        File::open(path.join("plain"))?,
    ];
    wire::step("holding")?;
    let end = Instant::now() + Duration::from_secs(30);
    while !Path::new(go).exists() {
        if Instant::now() > end {
            return Err(Failure::harness("no sign after 30 s"));
        }
        thread::sleep(Duration::from_millis(2));
    }
    // What is deleted keeps its content for those who have it open; a driver that takes the
    // file system away under them answers with an error, never with other content.
    for (file, expected) in files.iter_mut().zip(["still here", "plain"]) {
        let mut text = String::new();
        if file.read_to_string(&mut text).is_ok() {
            same!(
                expected,
                text,
                "content of a file that was open while its layer was removed"
            );
        }
    }
    Ok(())
}
