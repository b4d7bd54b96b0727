// SPDX-License-Identifier: Apache-2.0
//! Several processes on one store.

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use plywood::{
    ErrorKind,
    sdk::{CreateRequest, MountRequest},
};

use super::{allowed, listed, mounted, recorded, residue};
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, case, demand, same},
    cases::lifecycle::sample,
    site::Peer,
    tar_file::TarFile,
    target::layer_id,
    wire,
};

pub(in crate::cases) const CASES: &[Case] = &[
    case("GD-CON-003", create_same).roles(&[("maker", maker)]),
    case("GD-CON-011", mixed).roles(&[("worker", worker)]),
    case("GD-CON-012", without_lock).roles(&[("reader", reader)]),
];

/// Starts processes that wait for each other, and lets them go.
fn begin(site: &Site, role: &str, processes: usize) -> Result<Vec<Peer>, Failure> {
    let mut peers = Vec::new();
    for number in 0..processes {
        peers.push(site.peer(role, &[&number.to_string()])?);
    }
    for peer in &mut peers {
        peer.wait_for_step("ready")?;
    }
    fs::write(site.root.join("go"), "")?;
    Ok(peers)
}

/// The other side of [`begin`].
fn wait_for_the_others(site: &Site) -> Outcome {
    wire::step("ready")?;
    let end = Instant::now() + Duration::from_secs(30);
    while !site.root.join("go").exists() {
        if Instant::now() > end {
            return Err(Failure::harness("the other processes did not come"));
        }
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

fn number(arguments: &[String]) -> Result<u64, Failure> {
    let number = arguments.first().and_then(|text| text.parse().ok());
    number.ok_or_else(|| Failure::harness("the process was started without its number"))
}

fn create_same(target: &mut Target) -> Outcome {
    const PROCESSES: usize = 8;
    target.create("warm", None)?;
    target.delete("warm")?;
    let before = residue(target)?;
    for peer in begin(target, "maker", PROCESSES)? {
        peer.join()?;
    }
    let mut winners = Vec::new();
    for number in 0..PROCESSES {
        if target.root.join(format!("made-{number}")).exists() {
            winners.push(number);
        }
    }
    demand!(
        winners.len() == 1,
        "one of {PROCESSES} processes must make the layer, and these did: {winners:?}"
    );
    let manifest = target.manifest("one")?.without_root();
    let own = format!("of-{}", winners[0]);
    demand!(
        manifest.0.keys().eq([Path::new(&own)]),
        "the layer of process {} should have `{own}`, and has {manifest}",
        winners[0]
    );
    target.delete("one")?;
    let after = residue(target)?;
    let left: Vec<_> = after.difference(&before).collect();
    demand!(left.is_empty(), "the losers left in the home: {left:?}");
    Ok(())
}

fn maker(site: &Site, arguments: &[String]) -> Outcome {
    let number = number(arguments)?;
    let target = site.open()?;
    let tar = TarFile::new().file(&format!("of-{number}"), b"").done();
    wait_for_the_others(site)?;
    let made = target.put("one", None, &tar);
    let what = "making a layer whose id other processes take too";
    if allowed(made, &[ErrorKind::DuplicateId], what)?.is_some() {
        fs::write(site.root.join(format!("made-{number}")), "")?;
    }
    Ok(())
}

fn mixed(target: &mut Target) -> Outcome {
    const PROCESSES: usize = 4;
    target.without_sync()?;
    target.put("base", None, &sample())?;
    let before = target.manifest("base")?;
    for peer in begin(target, "worker", PROCESSES)? {
        peer.join()?;
    }
    let differences = before.differences(&target.manifest("base")?);
    demand!(
        differences.is_empty(),
        "the layer that all stand on changed: {}",
        differences.join("; ")
    );
    let left = mounted(target)?;
    demand!(left.is_empty(), "still mounted are {left:?}");
    let records = recorded(target)?;
    if let Some(listed) = listed(target)? {
        same!(
            records,
            listed,
            "recorded layers, and those that are listed"
        );
    }
    for id in &records {
        let manifest = target.manifest(id)?;
        demand!(
            manifest.has("d/e/deep") && manifest.has("plain"),
            "layer `{id}` is not whole: {manifest}"
        );
    }
    Ok(())
}

/// Makes, uses and removes layers that the other processes make, use and remove too.
fn worker(site: &Site, arguments: &[String]) -> Outcome {
    const OPERATIONS: usize = 100;
    let mut rng = fastrand::Rng::with_seed(site.rng().u64(..) ^ number(arguments)?);
    let mut target = site.open()?;
    target.without_sync()?;
    let tar = TarFile::new().file("own", b"own").done();
    wait_for_the_others(site)?;
    let gone = [
        ErrorKind::LayerUnknown,
        ErrorKind::LayerNotMounted,
        ErrorKind::Busy,
    ];
    for _ in 0..OPERATIONS {
        let id = format!("shared-{}", rng.u8(..6));
        let taken = [ErrorKind::DuplicateId];
        match rng.u8(..8) {
            0 => {
                allowed(target.create_writable(&id, Some("base")), &taken, "create")?;
            }
            1 | 2 => {
                allowed(target.put(&id, Some("base"), &tar), &taken, "put")?;
            }
            3 => {
                allowed(target.delete(&id), &gone, "delete")?;
            }
            4 | 5 => {
                let mount = target.mount(&id, &MountRequest::default());
                if let Some(path) = allowed(mount, &gone, "mount")? {
                    // Another process may remove it at any moment.
                    let _written = fs::write(path.join("written"), "x");
                    allowed(target.unmount(&id), &gone, "unmount")?;
                }
            }
            6 => {
                let listed = recorded(&target)?;
                demand!(listed.contains("base"), "a layer that stays is not listed");
            }
            _ => {
                target.diff("base")?;
                target.driver.exists(&layer_id(&id))?;
            }
        }
    }
    Ok(())
}

/// `stage`, `discard`, `reap` and what only reads are called without the layers lock.
fn without_lock(target: &mut Target) -> Outcome {
    target.without_sync()?;
    target.put("base", None, &sample())?;
    target.create("warm", Some("base"))?;
    target.delete("warm")?;
    let before = residue(target)?;
    let mut peers = begin(target, "reader", 3)?;
    for round in 0..15 {
        let id = format!("churn-{round}");
        target.put(&id, Some("base"), &sample())?;
        target.manifest(&id)?;
        target.delete(&id)?;
    }
    fs::write(target.root.join("over"), "")?;
    for peer in peers.drain(..) {
        peer.join()?;
    }
    // A plan may have come with a directory for the mount.
    target.driver.released(&layer_id("base"))?;
    let after = residue(target)?;
    let left: Vec<_> = after.difference(&before).collect();
    demand!(left.is_empty(), "left in the home: {left:?}");
    Ok(())
}

fn reader(site: &Site, arguments: &[String]) -> Outcome {
    let number = number(arguments)?;
    let driver = site.driver()?;
    let (base, mine) = (layer_id("base"), layer_id(&format!("staged-{number}")));
    wait_for_the_others(site)?;
    let mut rounds = 0_usize;
    while !site.root.join("over").exists() || rounds == 0 {
        rounds += 1;
        demand!(driver.exists(&base)?, "a layer that stays does not exist");
        demand!(!driver.exists(&mine)?, "a staged layer exists");
        driver.usage(&base)?;
        driver.metadata(&base)?;
        driver.content_roots(&base)?;
        driver.diff_view(&base, None)?;
        driver.mount_plan(&base, &MountRequest::default())?;
        if driver.capabilities().list {
            let listed = driver.list()?;
            demand!(listed.contains(&base), "a layer that stays is not listed");
            demand!(!listed.contains(&mine), "a staged layer is listed");
        }
        if driver.capabilities().staging {
            let staged = driver.stage(&CreateRequest::new(mine.clone(), Some(base.clone())))?;
            fs::write(staged.target.directory.join("staged"), "x")?;
            driver.discard(&staged.token)?;
            demand!(
                !staged.target.directory.exists(),
                "what was staged and given up is still at `{}`",
                staged.target.directory.display()
            );
        }
    }
    Ok(())
}
