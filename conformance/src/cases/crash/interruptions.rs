// SPDX-License-Identifier: Apache-2.0
//! Work that is interrupted from outside, and what whoever comes next finds of it.

use std::{
    fs,
    io::{self, Read, Write},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use plywood::{ErrorKind, layers::PutOptions, sdk::MountRequest};

use super::{
    oracle::{BASE, NEW, Paths, WholeStore, differences, request, sample},
    store::check_layer,
};
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, demand, same},
    excuses,
    manifest::Manifest,
    target::{layer_id, new_layer},
    wire,
};

pub(super) const CASES: &[Case] = &[
    bare("GD-CRA-012", incomplete),
    bare("GD-CRA-013", stale).roles(&[("stager", stager), ("remover", remover)]),
    bare("GD-CRA-014", terminated).roles(&[("putter", putter)]),
    bare("GD-CRA-015", reading).roles(&[("reader", reader)]),
];

/// Waits until it is killed.
fn forever() -> ! {
    loop {
        thread::sleep(Duration::from_hours(1));
    }
}

/// Marks a recorded layer as the other tool does while it fills one.
fn mark_incomplete(site: &Site, id: &str) -> Outcome {
    let name = site.source.name()?;
    let path = site.root.join(format!("graph/{name}-layers/layers.json"));
    let mut records: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    let record = records
        .as_array_mut()
        .and_then(|records| records.iter_mut().find(|record| record["id"] == id))
        .ok_or_else(|| Failure::harness(format!("layers.json has no record of `{id}`")))?;
    record["flags"] = serde_json::json!({ "incomplete": true });
    Ok(fs::write(&path, serde_json::to_vec(&records)?)?)
}

fn incomplete(site: &Site) -> Outcome {
    let tar = sample();
    let mut complete = Manifest::default();
    let store = WholeStore::new(site, |target| {
        target.put(NEW, Some(BASE), &tar)?;
        complete = target.manifest(NEW)?;
        Ok(target.delete(NEW)?)
    })?;
    let target = site.open()?;
    target.put(NEW, Some(BASE), &tar)?;
    target.close()?;
    mark_incomplete(site, NEW)?;
    store.settle(|target| {
        let answer = target.mount(NEW, &MountRequest::default());
        let kind = answer.as_ref().map_err(plywood::Error::kind);
        demand!(
            matches!(kind, Err(ErrorKind::LayerUnknown | ErrorKind::Corrupt)),
            "mounting an incomplete layer was answered with {answer:?}"
        );
        match target.delete(NEW) {
            Ok(()) => {}
            Err(error) => same!(
                ErrorKind::LayerUnknown,
                error.kind(),
                "the answer to removing an incomplete layer"
            ),
        }
        demand!(
            !target.driver.exists(&layer_id(NEW))?,
            "the content of an incomplete layer was not removed"
        );
        target.put(NEW, Some(BASE), &tar)?;
        demand!(
            check_layer(target, &complete)?,
            "the layer was put and has no record"
        );
        Ok(target.delete(NEW)?)
    })
}

fn stager(site: &Site, _: &[String]) -> Outcome {
    let driver = site.driver()?;
    let staged = driver.stage(&request(Some(BASE)))?;
    fs::write(staged.target.directory.join("file"), "staged")?;
    wire::step("staged")?;
    forever()
}

fn remover(site: &Site, _: &[String]) -> Outcome {
    let driver = site.driver()?;
    driver.create(&request(Some(BASE)))?;
    driver.trash(&layer_id(NEW))?;
    wire::step("trashed")?;
    forever()
}

fn stale(site: &Site) -> Outcome {
    let target = site.open()?;
    target.put(BASE, None, &sample())?;
    let base = target.manifest(BASE)?;
    let capabilities = target.driver.capabilities().clone();
    target.close()?;
    let clean = Paths::of(site)?;
    let all = [
        (capabilities.staging, "stager", "staged"),
        (capabilities.deferred_removal, "remover", "trashed"),
    ];
    let mut tried = false;
    for (_, role, step) in all.into_iter().filter(|(declared, ..)| *declared) {
        tried = true;
        let mut peer = site.peer(role, &[])?;
        peer.wait_for_step(step)?;
        let alive = Paths::of(site)?;
        demand!(alive != clean, "what is {step} is nowhere below the store");
        let driver = site.driver()?;
        let reclaimed = driver.recover()?;
        demand!(
            reclaimed.is_empty(),
            "`recover` reclaimed what a living process has {step}: {reclaimed:?}"
        );
        alive.unchanged(&Paths::of(site)?)?;
        peer.kill()?;
        let reclaimed = driver.recover()?;
        demand!(
            !reclaimed.is_empty(),
            "`recover` names nothing although a process died that had {step} a layer"
        );
        driver.close()?;
        clean.unchanged(&Paths::of(site)?)?;
    }
    if !tried {
        return Err(Failure::not_applicable(
            excuses::NO_STAGING,
            "the driver declares neither `staging` nor `deferred_removal`",
        ));
    }
    let target = site.open()?;
    let found = differences(&base, &target.manifest(BASE)?);
    demand!(
        found.is_empty(),
        "layer `{BASE}` changed: {}",
        found.join("; ")
    );
    Ok(target.close().map(drop)?)
}

/// A stream that says when half of it was read and then gives nothing any more, or goes on.
struct Halting<'a> {
    tar: &'a [u8],
    half: usize,
    read: usize,
    then: &'a (dyn Fn() + Sync),
}

impl<'a> Halting<'a> {
    fn new(tar: &'a [u8], then: &'a (dyn Fn() + Sync)) -> Self {
        Self {
            half: tar.len() / 2,
            tar,
            read: 0,
            then,
        }
    }
}

impl Read for Halting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let before = self.read < self.half;
        let end = if before { self.half } else { self.tar.len() };
        let read = (&self.tar[self.read..end]).read(buffer)?;
        self.read += read;
        if before && self.read == self.half {
            (self.then)();
        }
        Ok(read)
    }
}

/// Large enough that something of it is on disk before the end is read.
fn large() -> Vec<u8> {
    let data = vec![b'x'; 64 << 10];
    let mut tar = crate::tar_file::TarFile::new().directory("large/");
    for number in 0..64 {
        tar = tar.file(&format!("large/{number}"), &data);
    }
    tar.done()
}

fn putter(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    let tar = large();
    let stop = || {
        // Without it nobody waits, and the case ends by its time limit.
        wire::step("reading").ok();
        forever()
    };
    target.put_with(
        &new_layer(NEW, Some(BASE)),
        Halting::new(&tar, &stop),
        PutOptions::default(),
    )?;
    Ok(())
}

fn terminated(site: &Site) -> Outcome {
    let tar = large();
    let store = WholeStore::new(site, |_| Ok(()))?;
    let settle = |target: &Target| {
        let recorded = target.layers()?.iter().any(|layer| layer.id == NEW);
        demand!(
            !recorded,
            "a layer whose stream was never read to its end is recorded"
        );
        target.put(NEW, Some(BASE), &tar)?;
        Ok(target.delete(NEW)?)
    };
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut peer = site.peer("putter", &[])?;
        peer.wait_for_step("reading")?;
        let pid = i32::try_from(peer.id()).map_err(|_| Failure::harness("no process id"))?;
        kill(Pid::from_raw(pid), signal)?;
        let ended = peer.join();
        demand!(
            ended.is_err(),
            "the process ended well although its stream never did"
        );
        store.settle(settle)?;
    }
    // Asked to stop, core and the driver leave nothing that would have to be reclaimed.
    let target = site.open()?;
    let before = Paths::of(site)?;
    let cancel = AtomicBool::new(false);
    let stop = || cancel.store(true, Ordering::Release);
    let options = PutOptions {
        cancel: Some(&cancel),
        ..PutOptions::default()
    };
    let answer = target.put_with(
        &new_layer(NEW, Some(BASE)),
        Halting::new(&tar, &stop),
        options,
    );
    same!(
        Some(ErrorKind::Cancelled),
        answer.err().map(|error| error.kind()),
        "the answer to a cancelled put"
    );
    before.unchanged(&Paths::of(site)?)?;
    target.close()?;
    store.settle(settle)
}

/// Takes the first bytes of a diff and no more.
struct Clogged;

impl Write for Clogged {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        wire::step("reading")?;
        forever()
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn reader(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    target.diff_to(None, NEW, &mut Clogged)?;
    Ok(())
}

fn reading(site: &Site) -> Outcome {
    let tar = large();
    let mut complete = Manifest::default();
    let store = WholeStore::new(site, |target| {
        target.put(NEW, Some(BASE), &tar)?;
        complete = target.manifest(NEW)?;
        Ok(target.delete(NEW)?)
    })?;
    // One whose stream is rebuilt from its record, and one that must be walked.
    for walked in [false, true] {
        let target = site.open()?;
        if walked {
            target.create_writable(NEW, Some(BASE))?;
            target.within(NEW, |path| {
                Ok::<_, Failure>(fs::write(path.join("written"), "text")?)
            })?;
        } else {
            target.put(NEW, Some(BASE), &tar)?;
        }
        target.close()?;
        let mut peer = site.peer("reader", &[])?;
        peer.wait_for_step("reading")?;
        peer.kill()?;
        store.settle(|target| {
            if !walked {
                demand!(
                    check_layer(target, &complete)?,
                    "the layer that was read is gone"
                );
            }
            Ok(target.delete(NEW)?)
        })?;
    }
    Ok(())
}
