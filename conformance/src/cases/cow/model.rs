// SPDX-License-Identifier: Apache-2.0
//! Random histories, compared with what a plain directory makes of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use fastrand::Rng;
use plywood::sdk::MountRequest;

use super::random::Tree;
use crate::{
    Site, Target,
    case::{Failure, Outcome, count_assertion, demand, same},
    manifest::{self, Manifest},
    ops::{self, Op},
    target::layer_id,
};

/// How many of the last operations a failure names.
const SHOWN: usize = 12;
const LAYERS: usize = 5;

/// Makes a change in the layer and in the flat tree, which must answer alike; says whether it was
/// made.
fn both(
    target: &Target,
    layer: &Path,
    flat: &Path,
    tree: &mut Tree,
    op: &Op,
) -> Result<bool, Failure> {
    let number = |answer: &Result<(), ops::OpError>| {
        answer
            .as_ref()
            .err()
            .map(|error| match error.source.raw_os_error() {
                // POSIX allows both for a directory that is not empty; xfs and ext4 differ.
                Some(libc::EEXIST) if matches!(op, Op::Rename(..)) => Some(libc::ENOTEMPTY),
                other => other,
            })
    };
    let seen = ops::apply(layer, std::slice::from_ref(op));
    let renames_directory = matches!(op, Op::Rename(from, _) if tree.is_directory(from));
    if renames_directory
        && !target.driver.capabilities().directory_rename
        && number(&seen) == Some(Some(libc::EXDEV))
    {
        return Ok(false);
    }
    let expected = ops::apply(flat, std::slice::from_ref(op));
    same!(
        number(&expected),
        number(&seen),
        "the error number of {} in the layer and in a directory",
        short(op)
    );
    if expected.is_ok() {
        tree.note(op);
    }
    Ok(expected.is_ok())
}

/// An operation without the bytes it writes.
fn short(op: &Op) -> String {
    let text = format!("{op:?}");
    match text.find('[') {
        Some(at) if text.len() > 100 => format!("{}...)", &text[..at]),
        _ => text,
    }
}

fn compare(expected: &Manifest, seen: &Manifest, what: &str) -> Outcome {
    count_assertion();
    let differences = expected.differences(seen);
    if differences.is_empty() {
        return Ok(());
    }
    let more = differences.len().saturating_sub(10);
    let text = differences[..differences.len().min(10)].join("; ");
    Err(Failure::new(format!(
        "{what} is not what a plain directory makes of the same operations: {text}{}",
        if more > 0 {
            format!("; and {more} more")
        } else {
            String::new()
        }
    )))
}

fn flat_directory(target: &Target, name: &str) -> Result<PathBuf, Failure> {
    let flat = target.scratch("flat")?.join(name);
    fs::create_dir(&flat)?;
    // As the root of an empty layer.
    fs::set_permissions(&flat, std::os::unix::fs::PermissionsExt::from_mode(0o555))?;
    Ok(flat)
}

/// Grows a chain of layers by random changes, and looks at all of it at the end.
fn grow(target: &Target, run: usize, mut rng: Rng, operations: usize) -> Outcome {
    let flat = flat_directory(target, &format!("chain-{run}"))?;
    let mut tree = Tree::new(target.driver.capabilities().hard_link_copy_up);
    let mut layers: Vec<(String, Manifest)> = Vec::new();
    for number in 0..LAYERS {
        let id = format!("run-{run}-layer-{number}");
        target.create_writable(&id, layers.last().map(|(id, _)| id.as_str()))?;
        let mut last = Vec::new();
        let mut left = operations / LAYERS;
        while left > 0 {
            let some = if rng.bool() {
                left
            } else {
                rng.usize(1..=left)
            };
            left -= some;
            let done = target.within(&id, |path| -> Outcome {
                for _ in 0..some {
                    if let Some(op) = tree.next(&mut rng) {
                        last.push(op.clone());
                        both(target, path, &flat, &mut tree, &op)?;
                    }
                }
                Ok(())
            });
            done.map_err(|failure| after(failure, &id, &last))?;
        }
        let expected = manifest::of(&flat)?.without_root_time();
        let seen = target.manifest(&id)?.without_root_time();
        compare(&expected, &seen, &format!("`{id}`"))
            .map_err(|failure| after(failure, &id, &last))?;
        layers.push((id, expected));
        tree = tree.inherit();
    }
    for (id, expected) in &layers {
        let seen = target.manifest(id)?.without_root_time();
        compare(
            expected,
            &seen,
            &format!("`{id}`, after its children were made,"),
        )?;
    }
    for (id, _) in layers.iter().rev() {
        target.delete(id)?;
    }
    fs::remove_dir_all(flat)?;
    Ok(())
}

fn after(mut failure: Failure, id: &str, operations: &[Op]) -> Failure {
    let skipped = operations.len().saturating_sub(SHOWN);
    let last: Vec<_> = operations[skipped..].iter().map(short).collect();
    failure.text = format!(
        "{}; this was operation {} in `{id}`, the last ones were {}",
        failure.text,
        operations.len(),
        last.join(", ")
    );
    failure
}

fn chains(target: &Target, runs: usize, operations: usize) -> Outcome {
    let mut rng = target.rng();
    for run in 0..runs {
        let seed = rng.u64(..);
        target.step(&format!("chain {run} of {operations} operations"))?;
        grow(target, run, Rng::with_seed(seed), operations)?;
    }
    Ok(())
}

pub(super) fn chain(target: &mut Target) -> Outcome {
    chains(target, 3, 500)
}

pub(super) fn long(target: &mut Target) -> Outcome {
    chains(target, 12, 2000)
}

/// One layer of a store that changes all the time.
struct Layer {
    parent: Option<String>,
    tree: Tree,
    history: Vec<Op>,
    mounts: usize,
}

/// A store under random operations, and what must be in it.
struct Life<'a> {
    target: &'a Target,
    rng: Rng,
    layers: BTreeMap<String, Layer>,
    made: usize,
}

impl Life<'_> {
    fn flat(&self, id: &str) -> Result<PathBuf, Failure> {
        Ok(self.target.scratch("flat")?.join(id))
    }

    fn any(&mut self, fits: impl Fn(&Self, &str) -> bool) -> Option<String> {
        let fitting = self.layers.keys().filter(|id| fits(self, id)).cloned();
        let fitting: Vec<_> = fitting.collect();
        self.rng.choice(fitting)
    }

    fn is_leaf(&self, id: &str) -> bool {
        let mut layers = self.layers.values();
        !layers.any(|layer| layer.parent.as_deref() == Some(id))
    }

    /// Makes the record and the flat tree of a new layer on a random one.
    fn begin(&mut self) -> Result<(String, Option<String>), Failure> {
        let parent = self.any(|_, _| true).filter(|_| self.rng.u8(..6) > 0);
        let id = format!("layer-{}", self.made);
        self.made += 1;
        let flat = flat_directory(self.target, &id)?;
        let below = parent.as_ref().map(|parent| &self.layers[parent]);
        let (tree, history) = if let Some(layer) = below {
            (layer.tree.inherit(), layer.history.clone())
        } else {
            let keeps_links = self.target.driver.capabilities().hard_link_copy_up;
            (Tree::new(keeps_links), Vec::new())
        };
        for op in &history {
            ops::apply(&flat, std::slice::from_ref(op))?;
        }
        let layer = Layer {
            parent: parent.clone(),
            tree,
            history,
            mounts: 0,
        };
        self.layers.insert(id.clone(), layer);
        Ok((id, parent))
    }

    fn create(&mut self) -> Outcome {
        let (id, parent) = self.begin()?;
        self.target.create_writable(&id, parent.as_deref())?;
        self.check(&id)
    }

    fn apply(&mut self) -> Outcome {
        let (id, parent) = self.begin()?;
        let flat = self.flat(&id)?;
        let layer = self.layers.get_mut(&id).expect("it was made just now");
        let (tar, ops) = layer.tree.stream(&mut self.rng);
        self.target.put(&id, parent.as_deref(), &tar)?;
        for op in &ops {
            ops::apply(&flat, std::slice::from_ref(op))?;
        }
        layer.history.extend(ops);
        self.check(&id)
    }

    fn write(&mut self) -> Outcome {
        let Some(id) = self.any(Self::is_leaf) else {
            return Ok(());
        };
        let flat = self.flat(&id)?;
        let layer = self.layers.get_mut(&id).expect("it was chosen of these");
        let path = self.target.mount(&id, &MountRequest::default())?;
        layer.mounts += 1;
        let mut done = Vec::new();
        for _ in 0..self.rng.usize(1..15) {
            let Some(op) = layer.tree.next(&mut self.rng) else {
                continue;
            };
            done.push(op.clone());
            if both(self.target, &path, &flat, &mut layer.tree, &op)
                .map_err(|failure| after(failure, &id, &done))?
            {
                // It is replayed for every child.
                layer.history.push(op);
            }
        }
        if self.rng.bool() {
            self.unmount(&id)?;
        }
        self.check(&id)
            .map_err(|failure| after(failure, &id, &done))
    }

    fn unmount(&mut self, id: &str) -> Outcome {
        let layer = self.layers.get_mut(id).expect("it was chosen of these");
        if layer.mounts > 0 {
            layer.mounts -= 1;
            self.target.unmount(id)?;
        }
        Ok(())
    }

    fn check(&self, id: &str) -> Outcome {
        check(self.target, id, &self.flat(id)?)
    }

    fn remove(&mut self) -> Outcome {
        let Some(id) = self.any(Self::is_leaf) else {
            return Ok(());
        };
        while self.layers[&id].mounts > 0 {
            self.unmount(&id)?;
        }
        self.target.delete(&id)?;
        self.layers.remove(&id);
        fs::remove_dir_all(self.flat(&id)?)?;
        demand!(
            !self.target.driver.exists(&layer_id(&id))?,
            "the removed layer `{id}` exists"
        );
        Ok(())
    }

    fn restart(&self) -> Outcome {
        let ids: Vec<_> = self.layers.keys().map(String::as_str).collect();
        self.target.in_peer("restarted", &ids)
    }

    fn step(&mut self) -> Outcome {
        let drawn = match self.layers.len() {
            0 => 0,
            1..12 => self.rng.u8(..20),
            _ => 15,
        };
        let name = match drawn {
            0..=3 => "create",
            4..=6 => "apply",
            7..=12 => "write",
            13 | 14 => "remount",
            15..=17 => "remove",
            _ => "restart",
        };
        self.target.step(name)?;
        match name {
            "create" => self.create(),
            "apply" => self.apply(),
            "write" => self.write(),
            "remount" => {
                let Some(id) = self.any(|life, id| life.layers[id].mounts > 0) else {
                    return Ok(());
                };
                self.unmount(&id)?;
                self.check(&id)
            }
            "remove" => self.remove(),
            _ => self.restart(),
        }
    }
}

fn check(target: &Target, id: &str, flat: &Path) -> Outcome {
    let expected = manifest::of(flat)?.without_root_time();
    let seen = target.manifest(id)?.without_root_time();
    compare(&expected, &seen, &format!("`{id}`"))
}

/// Looks at every layer from a process that has never seen the store.
pub(super) fn restarted(site: &Site, arguments: &[String]) -> Outcome {
    let target = site.open()?;
    let expected: BTreeSet<_> = arguments.iter().cloned().collect();
    let seen: BTreeSet<_> = target.layers()?.into_iter().map(|layer| layer.id).collect();
    same!(expected, seen, "the layers in a new process");
    for id in arguments {
        check(&target, id, &target.scratch("flat")?.join(id))?;
    }
    Ok(())
}

pub(super) fn life(target: &mut Target) -> Outcome {
    let mut life = Life {
        rng: target.rng(),
        target,
        layers: BTreeMap::new(),
        made: 0,
    };
    for _ in 0..60 {
        life.step()?;
    }
    let ids: Vec<_> = life.layers.keys().cloned().collect();
    for id in &ids {
        while life.layers[id].mounts > 0 {
            life.unmount(id)?;
        }
        life.check(id)?;
    }
    life.restart()?;
    while !life.layers.is_empty() {
        life.remove()?;
    }
    let left = target.layers()?;
    demand!(
        left.is_empty(),
        "all layers are removed, and {left:?} is left"
    );
    Ok(())
}
