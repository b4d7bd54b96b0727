// SPDX-License-Identifier: Apache-2.0
//! Power cuts: what is on the disk at a moment is all that the next process finds.

use std::{fs, path::Path};

use super::{
    cuts::Cuts,
    oracle::{BASE, NEW, WholeStore, because, differences, sample},
    store::{check_layer, many},
};
use crate::{
    Case, Site, Target,
    case::{Outcome, bare, demand, same},
    manifest::Manifest,
    scratch::{Size, SmallFilesystem},
    sweep::{self, Action},
    target::new_layer,
};

pub(super) const CASES: &[Case] = &[
    bare("GD-CRA-018", after_success)
        .on_disk()
        .roles(&[("do", do_role)]),
    bare("GD-CRA-019", during)
        .on_disk()
        .roles(&[("put", put_role), ("delete", delete_role)]),
];

const DISK: Size = Size::mib(64);
/// Power cuts in each operation of one run; the seed chooses where.
const CUTS: usize = 8;

/// One operation in a process of its own, which ends without closing anything.
fn do_role(site: &Site, arguments: &[String]) -> Outcome {
    let target = site.open()?;
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["put", id] => drop(target.put(id, None, &many())?),
        ["put-on", id, parent] => drop(target.put(id, Some(parent), &sample())?),
        ["copy", id, of] => {
            let mut new = new_layer(id, None);
            new.template = Some(of.to_owned());
            target.create_with(&new)?;
        }
        ["delete", id] => target.delete(id)?,
        _ => return Err(crate::case::Failure::harness("no such operation")),
    }
    Ok(())
}

fn after_success(site: &Site) -> Outcome {
    let disk = SmallFilesystem::on_disk(site, DISK)?;
    let cut = site.at(disk.mount_point());
    let calm = site.at(site.scratch("calm")?);
    let driver = calm.driver()?;
    let copies = driver.capabilities().template;
    driver.close()?;
    let mut steps = vec![
        vec!["put", BASE],
        vec!["put-on", "child", BASE],
        vec!["delete", "child"],
    ];
    if copies {
        steps.insert(1, vec!["copy", "copied", BASE]);
    }
    for step in steps {
        let words = step.join(" ");
        calm.in_peer("do", &step)?;
        cut.in_peer("do", &step)?;
        disk.keep_disk()?;
        disk.power_up()?;
        lasted(&calm, &cut)
            .map_err(|failure| because(failure, &format!("the power was cut after `{words}`")))?;
    }
    Ok(())
}

/// Everything that a calm store has is on the one whose power was cut.
fn lasted(calm: &Site, cut: &Site) -> Outcome {
    let (calm, cut) = (calm.open()?, cut.open()?);
    let ids = |target: &Target| -> plywood::Result<Vec<String>> {
        Ok(target.layers()?.into_iter().map(|layer| layer.id).collect())
    };
    let expected = ids(&calm)?;
    same!(expected, ids(&cut)?, "the recorded layers");
    for id in &expected {
        let found = differences(&calm.manifest(id)?, &cut.manifest(id)?);
        demand!(
            found.is_empty(),
            "layer `{id}` is not whole: {}",
            found.join("; ")
        );
        same!(
            calm.diff(id)?.len(),
            cut.diff(id)?.len(),
            "the bytes of the diff of `{id}`"
        );
    }
    calm.close()?;
    cut.close()?;
    Ok(())
}

fn put_role(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    sweep::begin()?;
    target.put(NEW, Some(BASE), &sample())?;
    Ok(())
}

fn delete_role(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    sweep::begin()?;
    Ok(target.delete(NEW)?)
}

fn during(site: &Site) -> Outcome {
    let disk = SmallFilesystem::on_disk(site, DISK)?;
    let cut = site.at(disk.mount_point());
    let tar = sample();
    let mut complete = Manifest::default();
    let store = WholeStore::new(&cut, |target| {
        target.put(NEW, Some(BASE), &tar)?;
        complete = target.manifest(NEW)?;
        Ok(target.delete(NEW)?)
    })?;
    let settle = |target: &Target| {
        if !check_layer(target, &complete)? {
            target
                .put(NEW, Some(BASE), &tar)
                .map_err(|error| because(error.into(), "the layer cannot be put again"))?;
            check_layer(target, &complete)?;
        }
        Ok(target.delete(NEW)?)
    };
    let mut rng = site.rng();
    for role in ["put", "delete"] {
        let ready = || -> Outcome {
            if role == "delete" {
                let target = cut.open()?;
                target.put(NEW, Some(BASE), &tar)?;
                target.close()?;
            }
            settled(disk.mount_point())
        };
        let cuts = Cuts {
            site: &cut,
            role,
            arguments: &[],
        };
        ready()?;
        let (run, ended) = cuts.run(Action::Count)?;
        ended?;
        store.settle(settle)?;
        for _ in 0..CUTS {
            ready()?;
            let at = rng.u64(1..=run.points);
            let mut keep = || disk.keep_disk();
            let (run, ended) = cuts.run(Action::DoAndKillAt(at, &mut keep))?;
            let Some(point) = run.cut else {
                // Several threads do not always make the same number of changes.
                ended?;
                store.settle(settle)?;
                continue;
            };
            disk.power_up()?;
            store
                .settle(settle)
                .map_err(|failure| cuts.told(failure, "without power", &point))?;
        }
    }
    Ok(())
}

/// What is there now is there after every power cut that follows.
fn settled(disk: &Path) -> Outcome {
    Ok(nix::unistd::syncfs(fs::File::open(disk)?)?)
}
