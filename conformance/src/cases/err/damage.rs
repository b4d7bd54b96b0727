// SPDX-License-Identifier: Apache-2.0
//! Disks that fail, and files that somebody deleted.

use std::{
    fs, io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
};

use plywood::{
    ErrorKind,
    sdk::{CreateRequest, LayerId, MountRequest, toolkit},
};

use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    cases::{asks, lif::random, lifecycle::sample},
    manifest::Manifest,
    scratch::{Size, pool},
    target::layer_id,
};

/// How a failing disk is told; above all it is no success, and no unknown layer.
const BROKEN: [ErrorKind; 4] = [
    ErrorKind::Io,
    ErrorKind::Driver,
    ErrorKind::Corrupt,
    ErrorKind::ReadOnlyFilesystem,
];

pub(super) fn eio(target: &mut Target) -> Outcome {
    disk_that_is_gone(target)?;
    unreadable_file(target)
}

/// A file system that answers everything with an error from some moment on.
fn disk_that_is_gone(target: &Target) -> Outcome {
    let fstype = if target.backing.fstype == "xfs" {
        "xfs"
    } else {
        "ext4"
    };
    let filesystem = target.filesystem_of(fstype, Size::mib(64))?;
    let small = match target.on(filesystem) {
        // The kernel cuts off few file systems, and this driver works on none of them.
        Err(error) if error.kind() == ErrorKind::DriverUnavailable => return Ok(()),
        other => other?,
    };
    small.put("base", None, &sample())?;
    small.create_writable("child", Some("base"))?;
    let before = small.manifest("child")?;
    small.step("the disk is gone")?;
    small.small_filesystem()?.cut_off()?;
    let failed = everything_fails(&small);
    // Whatever closing says, the process goes on.
    let small = small.abandon();
    failed?;
    let small = small?;
    target.step("the disk is back")?;
    small.mount_again()?;
    let again = target.on(small)?;
    asks::equal("a layer changed", &before, &again.manifest("child")?)?;
    same!(2, again.layers()?.len(), "how many layers are recorded");
    again.put("new", Some("base"), &sample())?;
    for id in ["new", "child", "base"] {
        again.delete(id)?;
    }
    again.close()?;
    Ok(())
}

fn everything_fails(small: &Target) -> Outcome {
    let (base, child) = (layer_id("base"), layer_id("child"));
    asks::refused(
        "creating a layer",
        small.create("new", Some("base")),
        &BROKEN,
    )?;
    asks::refused(
        "putting a layer",
        small.put("new", Some("base"), &sample()),
        &BROKEN,
    )?;
    asks::refused(
        "applying to a layer",
        small.apply("child", &sample()[..]),
        &BROKEN,
    )?;
    asks::refused("deleting a layer", small.delete("child"), &BROKEN)?;
    let driver = &small.driver;
    asks::refused("removing a layer", driver.remove(&child), &BROKEN)?;
    let request = CreateRequest::new(layer_id("new"), Some(base.clone()));
    asks::refused("the driver's new layer", driver.create(&request), &BROKEN)?;
    for id in [&base, &child] {
        match driver.exists(id) {
            Ok(there) => demand!(
                there,
                "the disk is gone, and the driver says that there is no layer `{id}`"
            ),
            Err(error) => asks::refused::<()>("asking for a layer", Err(error), &BROKEN)?,
        }
        asks::allowed("facts about a layer", driver.metadata(id), &BROKEN)?;
        if let Ok(usage) = driver.usage(id) {
            demand!(
                id != &base || usage.bytes > 0,
                "the disk is gone, and the driver says that a layer with content has none"
            );
        }
    }
    if driver.capabilities().list
        && let Ok(listed) = driver.list()
    {
        demand!(
            listed.contains(&base) && listed.contains(&child),
            "the disk is gone, and the driver lists {listed:?} without an error"
        );
    }
    match small.diff("base") {
        Ok(tar) => demand!(
            tar == sample(),
            "the disk is gone, and a diff is wrong without an error"
        ),
        Err(error) => asks::refused::<()>("a diff", Err(error), &BROKEN)?,
    }
    demand!(
        driver.poisoned().is_none(),
        "the driver panicked: {:?}",
        driver.poisoned()
    );
    Ok(())
}

/// A file whose content cannot be read any more, as the checksums of btrfs or zfs find it out.
fn unreadable_file(target: &Target) -> Outcome {
    let own = target.backing.fstype.as_str();
    let fstype = if own == "zfs" { own } else { "btrfs" };
    let small = target.small_of(fstype, Size::mib(128))?;
    let data = random(&small, 1 << 20)?;
    small.create_writable("base", None)?;
    small.within("base", |path| -> Outcome {
        fs::write(path.join("data"), &data)?;
        Ok(fs::write(path.join("whole"), "whole")?)
    })?;
    let stream = crate::tar_file::TarFile::new()
        .file("streamed", &data[..500_000])
        .done();
    small.put("streamed", None, &stream)?;
    small.step("a block of each file is overwritten on the disk")?;
    let file_system = small.abandon()?;
    let image = file_system
        .image()
        .ok_or_else(|| Failure::harness("no image"))?;
    overwrite(image, &data[8192..8192 + 4096])?;
    file_system.mount_again()?;
    let small = target.on(file_system)?;
    let read = small.within("base", |path| -> Result<_, Failure> {
        Ok(fs::read(path.join("data")))
    })?;
    if read.is_ok() {
        return Err(Failure::harness("the damaged file can be read"));
    }
    for id in ["base", "streamed"] {
        asks::refused(
            &format!("a diff of `{id}`, a file of which cannot be read,"),
            small.diff(id),
            &BROKEN,
        )?;
    }
    small.step("a child of it")?;
    let made = small.create("child", Some("base"));
    if asks::allowed("a child of a layer that cannot be read", made, &BROKEN)? {
        let (broken, whole) = small.within("child", |path| -> Result<_, Failure> {
            Ok((
                fs::read(path.join("data")),
                fs::read_to_string(path.join("whole")),
            ))
        })?;
        demand!(
            broken.is_err() || broken.is_ok_and(|seen| seen == data),
            "a child shows other content for a file that cannot be read"
        );
        same!("whole", whole?, "a file that can be read");
        small.delete("child")?;
    } else {
        demand!(
            !small.driver.exists(&layer_id("child"))?,
            "the refused child exists"
        );
    }
    small.step("such a layer can be deleted")?;
    for id in ["streamed", "base"] {
        small.delete(id)?;
    }
    small.put("base", None, &sample())?;
    small.close()?;
    Ok(())
}

/// Overwrites every copy of `pattern`, which takes whole sectors, in the image.
fn overwrite(image: &Path, pattern: &[u8]) -> Outcome {
    /// Blocks of every file system begin at a multiple of it.
    const SECTOR: usize = 512;
    let file = fs::File::options().read(true).write(true).open(image)?;
    let size = file.metadata()?.len();
    let mut found = 0;
    let mut block = vec![0; 1 << 20];
    let mut at = 0;
    while at < size {
        let length = file.read_at(&mut block, at)?;
        for (number, sector) in block[..length].chunks(SECTOR).enumerate() {
            // The first sector is enough to know it; the rest may be in the next part.
            if sector == &pattern[..SECTOR] {
                file.write_all_at(&[0x55; 64], at + (number * SECTOR) as u64)?;
                found += 1;
            }
        }
        at += length as u64;
    }
    file.sync_all()?;
    if found == 0 {
        return Err(Failure::harness(
            "the file's content is nowhere in the image",
        ));
    }
    Ok(())
}

/// How a layer is refused whose files somebody deleted.
const GONE: [ErrorKind; 4] = [
    ErrorKind::Corrupt,
    ErrorKind::LayerUnknown,
    ErrorKind::ParentUnknown,
    // Core found it out by a file that it could not open.
    ErrorKind::Io,
];

pub(super) fn vanished(target: &mut Target) -> Outcome {
    for part in ["the layer's directory", "the directory with its files"] {
        target.step(&format!("{part} is deleted"))?;
        target.put("base", None, &sample())?;
        target.create_writable("child", Some("base"))?;
        target.within("child", |path| -> Outcome {
            Ok(fs::write(path.join("own"), "x")?)
        })?;
        target.put("above", Some("child"), &sample())?;
        let whole = target.manifest("above")?;
        lose(target, part, &layer_id("child"))?;
        not_there(target, part)?;
        above(target, part, &whole)?;
        target.step("it can be deleted and made anew")?;
        for id in ["above", "child"] {
            target.delete(id)?;
        }
        target.create("child", Some("base"))?;
        demand!(
            target.manifest("child")?.has("plain"),
            "a layer made anew lacks its parent's files"
        );
        target.delete("child")?;
        target.delete("base")?;
    }
    Ok(())
}

/// Deletes a part of a layer as if there were no driver.
fn lose(target: &mut Target, part: &str, id: &LayerId) -> Outcome {
    if let Some(dataset) = pool::layer(&target.root, id.as_str())? {
        // Nobody can destroy a dataset that the driver shows.
        target.driver.close()?;
        *target = target.reopened()?;
        return Ok(pool::lose(&dataset)?);
    }
    let lost = if part.contains("files") {
        target.driver.unpack_target(id)?.directory
    } else {
        directory_of(target, id)?
    };
    Ok(toolkit::remove_tree(&lost)?)
}

/// The topmost directory in the home that is called like the layer, or else where its files are.
fn directory_of(target: &Target, id: &LayerId) -> Result<PathBuf, Failure> {
    fn search(directory: &Path, name: &str, depth: usize) -> io::Result<Option<PathBuf>> {
        let mut below = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if !entry.file_type()?.is_dir() {
                continue;
            }
            if entry.file_name() == name {
                return Ok(Some(entry.path()));
            }
            below.push(entry.path());
        }
        for directory in below.iter().filter(|_| depth > 0) {
            if let Some(found) = search(directory, name, depth - 1)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
    match search(&target.home(), id.as_str(), 1)? {
        Some(directory) => Ok(directory),
        None => Ok(target.driver.unpack_target(id)?.directory),
    }
}

fn not_there(target: &Target, part: &str) -> Outcome {
    let said = |what: &str| format!("{part} of the layer was deleted, and {what}");
    let mounted = target.mount("child", &MountRequest::default());
    if mounted.is_ok() {
        target.unmount("child")?;
    }
    asks::refused(&said("mounting it"), mounted, &GONE)?;
    asks::refused(&said("its changes"), target.changes("child"), &GONE)?;
    asks::refused(&said("its diff"), target.diff("child"), &GONE)?;
    asks::refused(
        &said("the size of its diff"),
        target.diff_size(None, "child"),
        &GONE,
    )?;
    asks::refused(
        &said("its usage"),
        target.driver.usage(&layer_id("child")),
        &GONE,
    )?;
    asks::refused(
        &said("where to unpack into it"),
        target.driver.unpack_target(&layer_id("child")),
        &GONE,
    )?;
    asks::refused(
        &said("applying to it"),
        target.apply("child", &sample()[..]),
        &GONE,
    )?;
    asks::refused(
        &said("a new layer on it"),
        target.create("further", Some("child")),
        &GONE,
    )?;
    demand!(
        !target.driver.exists(&layer_id("further"))?,
        "the refused layer exists"
    );
    Ok(())
}

/// A layer above either has everything of its own, or says that something is missing.
fn above(target: &Target, part: &str, whole: &Manifest) -> Outcome {
    match target.mount("above", &MountRequest::default()) {
        Err(error) => {
            let what = format!("{part} of the parent was deleted, and mounting");
            asks::refused::<()>(&what, Err(error), &GONE)
        }
        Ok(path) => {
            let seen = crate::manifest::of(&path);
            target.unmount("above")?;
            asks::equal(
                &format!(
                    "{part} of the parent was deleted, and without an error its child shows another tree"
                ),
                &whole.clone().without_root_time(),
                &seen?.without_root_time(),
            )
        }
    }
}
