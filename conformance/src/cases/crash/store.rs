// SPDX-License-Identifier: Apache-2.0
//! Operations of core and the driver together, killed before each change that they make.

use std::fs;

use plywood::sdk::MountRequest;

use super::{
    cuts::Cuts,
    oracle::{BASE, NEW, WholeStore, because, differences, mounts_below, sample},
};
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, demand},
    manifest::Manifest,
    sweep::{self, Point},
    tar_file::TarFile,
};

pub(super) const CASES: &[Case] = &[
    bare("GD-CRA-003", put).roles(&[("put", put_role), ("delete", delete_role)]),
    bare("GD-CRA-005", mount).roles(&[("mount", mount_role)]),
    bare("GD-CRA-006", unmount).roles(&[("unmount", unmount_role)]),
    bare("GD-CRA-011", recovery).roles(&[("put", small_put_role), ("recover", recover_role)]),
];

/// Entries of the layer whose making is cut short.
const ENTRIES: usize = 200;
/// How many entries' points are tried in one run; the seed chooses them.
const SAMPLES: usize = 8;

pub(super) fn many() -> Vec<u8> {
    let mut tar = TarFile::new().directory("many/");
    for entry in 1..ENTRIES {
        let path = format!("many/{entry}");
        tar = match entry % 10 {
            0 => tar.directory(&format!("{path}/")),
            1 => tar.link(&path, tar::EntryType::Symlink, "elsewhere"),
            _ => tar.file(&path, path.as_bytes()),
        };
    }
    tar.done()
}

/// Starts the operation on the open store.
fn swept(site: &Site, operation: impl FnOnce(&Target) -> Outcome) -> Outcome {
    let target = site.open()?;
    sweep::begin()?;
    operation(&target)
}

fn put_role(site: &Site, _: &[String]) -> Outcome {
    swept(site, |target| {
        Ok(target.put(NEW, Some(BASE), &many()).map(drop)?)
    })
}

fn small_put_role(site: &Site, _: &[String]) -> Outcome {
    swept(site, |target| {
        Ok(target.put(NEW, Some(BASE), &sample()).map(drop)?)
    })
}

fn delete_role(site: &Site, _: &[String]) -> Outcome {
    swept(site, |target| Ok(target.delete(NEW)?))
}

fn put(site: &Site) -> Outcome {
    let (tar, small) = (many(), sample());
    let (mut complete, mut small_complete) = (Manifest::default(), Manifest::default());
    let store = WholeStore::new(site, |target| {
        for (tar, complete) in [(&tar, &mut complete), (&small, &mut small_complete)] {
            target.put(NEW, Some(BASE), tar)?;
            *complete = target.manifest(NEW)?;
            target.delete(NEW)?;
        }
        Ok(())
    })?;
    let settle = |target: &Target| {
        if !check_layer(target, &complete)? {
            // Another content under the same id: nothing of the first may be seen in it.
            target
                .put(NEW, Some(BASE), &small)
                .map_err(|error| because(error.into(), "the layer cannot be put again"))?;
            check_layer(target, &small_complete)?;
        }
        Ok(target.delete(NEW)?)
    };
    let wanted = sampled(site);
    let cuts = |role| Cuts {
        site,
        role,
        arguments: &[],
    };
    cuts("put").some(&wanted, |_| store.settle(settle))?;
    let again = || -> Outcome {
        let target = site.open()?;
        target.put(NEW, Some(BASE), &tar)?;
        Ok(target.close().map(drop)?)
    };
    again()?;
    cuts("delete").some(&wanted, |_| {
        store.settle(settle)?;
        again()
    })
}

/// Whether the layer is there; fails when it is and is not what it should be.
pub(super) fn check_layer(target: &Target, complete: &Manifest) -> Result<bool, Failure> {
    let recorded = target.layers()?.iter().any(|layer| layer.id == NEW);
    if recorded {
        let differences = differences(complete, &target.manifest(NEW)?);
        demand!(
            differences.is_empty(),
            "the layer is recorded and half: {}",
            differences.join("; ")
        );
    }
    Ok(recorded)
}

/// Every point around the entries, and some of those of the entries.
fn sampled(site: &Site) -> impl Fn(&Point) -> bool {
    let mut rng = site.rng();
    let chosen: Vec<usize> = (0..SAMPLES).map(|_| rng.usize(1..ENTRIES)).collect();
    move |point| {
        let Some((_, name)) = point.subject.rsplit_once("many/") else {
            return true;
        };
        name.parse().is_ok_and(|entry| chosen.contains(&entry))
    }
}

/// How a layer can be mounted with this driver.
fn requests(site: &Site) -> Result<Vec<&'static str>, Failure> {
    let read_only = site.driver()?.capabilities().read_only_mounts;
    Ok(if read_only {
        vec!["rw", "ro"]
    } else {
        vec!["rw"]
    })
}

fn mount_request(arguments: &[String]) -> MountRequest {
    let mut request = MountRequest::default();
    request.read_only = arguments.first().is_some_and(|how| how == "ro");
    request
}

fn mount_role(site: &Site, arguments: &[String]) -> Outcome {
    let request = mount_request(arguments);
    swept(site, |target| Ok(target.mount(NEW, &request).map(drop)?))
}

fn unmount_role(site: &Site, arguments: &[String]) -> Outcome {
    let target = site.open()?;
    target.mount(NEW, &mount_request(arguments))?;
    sweep::begin()?;
    Ok(target.unmount(NEW)?)
}

fn mount(site: &Site) -> Outcome {
    mounting(site, "mount")
}

fn unmount(site: &Site) -> Outcome {
    mounting(site, "unmount")
}

fn mounting(site: &Site, role: &'static str) -> Outcome {
    let store = WholeStore::new(site, |target| {
        target.create_writable(NEW, Some(BASE))?;
        for how in requests(site)? {
            let request = mount_request(&[how.to_owned()]);
            target.within_as(NEW, &request, |_| Ok::<_, Failure>(()))?;
        }
        Ok(target.delete(NEW)?)
    })?;
    for how in requests(site)? {
        let arguments = [how];
        let cuts = Cuts {
            site,
            role,
            arguments: &arguments,
        };
        let request = mount_request(&arguments.map(str::to_owned));
        // The layer is made anew for every run, so that the store can be compared with a clean one.
        let make = || -> Outcome {
            let target = site.open()?;
            target.create_writable(NEW, Some(BASE))?;
            Ok(target.close().map(drop)?)
        };
        make()?;
        cuts.each(|point| {
            store.settle(|target| {
                mount_again(target, &request)?;
                Ok(target.delete(NEW)?)
            })?;
            point.map_or(Ok(()), |_| make())
        })?;
    }
    Ok(())
}

/// One more user comes and goes after the crash, and then those that the dead one still counts for.
fn mount_again(target: &Target, request: &MountRequest) -> Outcome {
    let path = target.mount(NEW, request)?;
    let here = path.display().to_string();
    let mounts = mounts_below(target)?;
    demand!(
        mounts.iter().filter(|mount| **mount == here).count() <= 1,
        "mounts are stacked at `{here}`"
    );
    demand!(
        fs::read(path.join("d/file"))? == b"content",
        "the layer does not show its parent's file"
    );
    target.unmount(NEW)?;
    let counted = target.layers()?.into_iter().find(|layer| layer.id == NEW);
    let counted = counted.map_or(0, |layer| layer.mount_count);
    demand!(
        counted <= 1,
        "one dead process counts as {counted} users of the mount"
    );
    if counted > 0 {
        target.unmount(NEW)?;
    }
    let mounts = mounts_below(target)?;
    demand!(
        mounts.is_empty(),
        "still mounted after the last user: {}",
        mounts.join(", ")
    );
    Ok(())
}

fn recover_role(site: &Site, _: &[String]) -> Outcome {
    sweep::begin()?;
    let target = site.open()?;
    super::oracle::collect_garbage(&target)
}

/// Every fifth point of the first crash, each with every third point of the recovery from it: with
/// another third each time, since recoveries from neighbouring crashes do much the same.
fn recovery(site: &Site) -> Outcome {
    let tar = sample();
    let mut complete = Manifest::default();
    let store = WholeStore::new(site, |target| {
        target.put(NEW, Some(BASE), &tar)?;
        complete = target.manifest(NEW)?;
        Ok(target.delete(NEW)?)
    })?;
    let put = Cuts {
        site,
        role: "put",
        arguments: &[],
    };
    let recover = Cuts {
        site,
        role: "recover",
        arguments: &[],
    };
    let settle = |target: &Target| {
        if !check_layer(target, &complete)? {
            target.put(NEW, Some(BASE), &tar)?;
            check_layer(target, &complete)?;
        }
        Ok(target.delete(NEW)?)
    };
    let phase = site.rng().u64(0..5);
    let (counted, ended) = put.run(sweep::Action::Count)?;
    ended?;
    store.settle(settle)?;
    let mut second = 0_u64;
    for first in (1..=counted.points).filter(|at| at % 5 == phase) {
        let mut at = 1 + first % 3;
        loop {
            put.run(sweep::Action::KillAt(first))?.1?;
            let (run, ended) = recover.run(sweep::Action::KillAt(at))?;
            let undisturbed = run.cut.is_none();
            if undisturbed {
                ended?;
            }
            store.settle(settle).map_err(|failure| {
                let cut = run.cut.map_or_else(String::new, |point| point.to_string());
                because(
                    failure,
                    &format!("killed at {first}, and while recovering at {cut}"),
                )
            })?;
            if undisturbed {
                break;
            }
            second += 1;
            at += 3;
        }
    }
    demand!(second > 0, "recovering changed nothing after any kill");
    Ok(())
}
