// SPDX-License-Identifier: Apache-2.0
//! Which layers there are, and what is known of them.

use std::{fs, path::Path};

use plywood::sdk::{CreateRequest, DriverErrorCode, MountRequest};

use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    cases::{asks, lifecycle::sample},
    target::layer_id,
    wire,
};

pub(super) fn exists(target: &mut Target) -> Outcome {
    let id = layer_id("one");
    let there = |target: &Target| target.driver.exists(&id);
    demand!(!there(target)?, "a layer exists before it is created");
    target.create("one", None)?;
    demand!(
        there(target)?,
        "a layer does not exist after it was created"
    );
    let again = target.reopened()?;
    demand!(there(&again)?, "another instance does not find a layer");
    target.put("two", Some("one"), &sample())?;
    demand!(
        again.driver.exists(&layer_id("two"))?,
        "an open instance does not find a layer that another one made"
    );
    for near in ["on", "onee", "One", "one.1", "ONE"] {
        demand!(
            !target.driver.exists(&layer_id(near))?,
            "there is no layer `{near}`, only `one`"
        );
    }
    target.delete("two")?;
    target.delete("one")?;
    for (which, instance) in [("the instance", &*target), ("another instance", &again)] {
        demand!(!there(instance)?, "{which} finds a layer that was removed");
    }
    target.step("what was staged and given up is no layer")?;
    if target.driver.capabilities().staging {
        let staged = target.driver.stage(&CreateRequest::new(id.clone(), None))?;
        demand!(
            !there(target)?,
            "a staged layer exists before it is adopted"
        );
        target.driver.discard(&staged.token)?;
        demand!(!there(target)?, "a layer that was given up exists");
    }
    Ok(())
}

fn list(target: &Target) -> Result<Vec<String>, Failure> {
    let ids = target.driver.list()?;
    let mut ids: Vec<_> = ids.into_iter().map(|id| id.to_string()).collect();
    ids.sort();
    Ok(ids)
}

pub(super) fn list_exact(target: &mut Target) -> Outcome {
    same!(Vec::<String>::new(), list(target)?, "layers of a new store");
    target.put("a", None, &sample())?;
    target.create("b", Some("a"))?;
    target.create("c", None)?;
    target.create_writable("long.name_with-all", Some("b"))?;
    same!(
        ["a", "b", "c", "long.name_with-all"]
            .map(str::to_owned)
            .to_vec(),
        list(target)?,
        "layers"
    );
    target.delete("long.name_with-all")?;
    target.delete("b")?;
    same!(
        ["a", "c"].map(str::to_owned).to_vec(),
        list(target)?,
        "layers after two were removed"
    );
    target.create("b", None)?;
    same!(
        ["a", "b", "c"].map(str::to_owned).to_vec(),
        list(&target.reopened()?)?,
        "layers that another instance lists"
    );
    Ok(())
}

pub(super) fn list_hides_internals(target: &mut Target) -> Outcome {
    target.put("a", None, &sample())?;
    target.create_writable("b", Some("a"))?;
    let expected = vec!["a".to_owned(), "b".to_owned()];
    let check = |target: &Target, when: &str| -> Outcome {
        same!(expected, list(target)?, "layers, {when}");
        Ok(())
    };
    target.within("b", |path| -> Outcome {
        fs::write(path.join("file"), "x")?;
        check(target, "while one is mounted")
    })?;
    let can = target.driver.capabilities().clone();
    if can.staging {
        target.step("staged")?;
        let request = CreateRequest::new(layer_id("staged"), Some(layer_id("a")));
        let staged = target.driver.stage(&request)?;
        check(target, "while one is staged")?;
        target.driver.discard(&staged.token)?;
    }
    if can.deferred_removal {
        target.step("in the trash")?;
        target
            .driver
            .create(&CreateRequest::new(layer_id("trashed"), None))?;
        let token = target.driver.trash(&layer_id("trashed"))?;
        check(target, "while one waits to be deleted")?;
        target
            .driver
            .reap(&token.ok_or_else(|| Failure::new("trash found no layer"))?)?;
    }
    target.step("left by a process that was killed")?;
    let mut leaver = target.peer("leaver", &[])?;
    leaver.wait_for_step("left")?;
    check(target, "while another process stages and deletes")?;
    leaver.kill()?;
    check(target, "after a process was killed that staged and deleted")?;
    target.driver.recover()?;
    check(target, "after what it left was reclaimed")
}

/// Stages a layer and throws one away, and then waits to be killed.
pub(super) fn leaver(site: &Site, _: &[String]) -> Outcome {
    let driver = site.driver()?;
    let can = driver.capabilities().clone();
    if can.staging {
        driver.stage(&CreateRequest::new(layer_id("left"), Some(layer_id("a"))))?;
    }
    if can.deferred_removal {
        driver.create(&CreateRequest::new(layer_id("thrown"), None))?;
        driver.trash(&layer_id("thrown"))?;
    }
    wire::step("left")?;
    loop {
        std::thread::sleep(std::time::Duration::from_mins(1));
    }
}

pub(super) fn list_order(target: &mut Target) -> Outcome {
    // Neither the names nor the order of creation tell what stands on what.
    let chain = ["m", "a", "z", "b", "y", "0"];
    for (number, id) in chain.into_iter().enumerate() {
        let parent = number.checked_sub(1).map(|below| layer_id(chain[below]));
        target
            .driver
            .create(&CreateRequest::new(layer_id(id), parent))?;
    }
    let listed = target.driver.list()?;
    same!(chain.len(), listed.len(), "how many layers are listed");
    for id in listed {
        target.step(&format!("remove {id}"))?;
        target.driver.remove(&id)?;
        demand!(
            !target.driver.exists(&id)?,
            "layer `{id}` exists after it was removed"
        );
    }
    same!(
        Vec::<String>::new(),
        list(target)?,
        "layers after all were removed"
    );
    Ok(())
}

pub(super) fn metadata(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create("middle", Some("base"))?;
    target.create_writable("top", Some("middle"))?;
    let root = fs::canonicalize(&target.root)?;
    for id in ["base", "middle", "top"] {
        let facts = target.metadata(id)?;
        for (key, value) in &facts {
            let word = |c: char| c.is_ascii_alphanumeric() || "_-. ".contains(c);
            demand!(
                !key.is_empty() && key.chars().all(word),
                "the name {key:?} of a fact about `{id}` is no word"
            );
            // Lists of paths are joined with colons.
            for path in value.split(':').filter(|part| part.starts_with('/')) {
                let inside =
                    Path::new(path).starts_with(&target.root) || Path::new(path).starts_with(&root);
                let climbs = path.split('/').any(|part| part == "..");
                demand!(
                    inside && !climbs,
                    "`{key}` of `{id}` is `{path}`, outside of the store's roots"
                );
            }
        }
        same!(
            facts,
            target.metadata(id)?,
            "facts about `{id}`, asked again"
        );
        let again = target.reopened()?.metadata(id)?;
        same!(facts, again, "facts about `{id}` from another instance");
    }
    target.mount("top", &MountRequest::default())?;
    let mounted = target.metadata("top");
    target.unmount("top")?;
    same!(
        target.metadata("top")?,
        mounted?,
        "facts about a layer, while it is mounted"
    );
    asks::driver_refused(
        "facts about a layer that does not exist",
        target.driver.unguarded().metadata(&layer_id("unknown")),
        &[DriverErrorCode::NOT_FOUND],
    )
}
