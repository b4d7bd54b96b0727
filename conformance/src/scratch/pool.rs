// SPDX-License-Identifier: Apache-2.0
//! Pools of zfs on image files, and the datasets in them.
//!
//! On zfs a store has a dataset of its own, below which its layers are datasets. So on a pool every
//! root of a case is one: `POOL/NAME`, and `POOL/NAME.INNER` for one that lies inside another, which
//! must not look like a layer of it.

use std::{
    collections::BTreeSet, ffi::OsStr, fs, io, os::unix::fs::MetadataExt as _, path::Path,
    process::Command, thread, time::Duration,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        stat::{major, minor},
        statfs::statfs,
    },
};
use plywood::sdk::toolkit::{
    is_mount_point,
    mountinfo::{self, MountEntry},
};

use super::{ScratchError, is_in_memory};

pub(super) const FSTYPE: &str = "zfs";

/// The number of zfs in `statfs(2)`.
const MAGIC: nix::libc::__fsword_t = 0x2fc1_2fc1;

/// What zfs asks for at least.
pub(super) const LEAST: u64 = 64 << 20;

/// Makes a pool on an image file and mounts it.
pub(super) fn create(
    image: &Path,
    point: &Path,
    options: &[String],
) -> Result<String, ScratchError> {
    let name = format!("conformance-{:016x}", fastrand::u64(..));
    let mut command = Command::new("zpool");
    // No file tells the next boot of it.
    command
        .args(["create", "-f", "-o", "cachefile=none", "-m"])
        .arg(point);
    if is_in_memory(image) {
        command.args(["-o", "autotrim=on"]);
    }
    // Other file systems have it without being asked.
    if !options.iter().any(|option| option.starts_with("acltype=")) {
        command.args(["-O", "acltype=posix"]);
    }
    for option in options {
        command.args(["-O", option]);
    }
    command.arg(&name).arg(image);
    let output = match command.output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = "there is no `zpool`: install zfsutils-linux";
            return Err(ScratchError::Unavailable(text.to_owned()));
        }
        output => output.map_err(|error| ScratchError::Failed(format!("zpool: {error}")))?,
    };
    if output.status.success() {
        return Ok(name);
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if text.contains("modules") {
        return Err(ScratchError::Unavailable(format!(
            "the kernel has no zfs: {text}"
        )));
    }
    // What the kernel could not find is the image: `zpool` itself has looked at it before.
    let hint = if text.contains("no such pool") {
        format!(
            "; `{}` must not lie on a mount that only this process sees: choose with `--images`",
            image.display()
        )
    } else {
        String::new()
    };
    Err(ScratchError::Failed(format!("making a pool: {text}{hint}")))
}

/// Destroys a pool with everything in it.
pub(super) fn destroy(name: &str) -> io::Result<()> {
    tool("zpool", &["destroy", "-f", name]).map(drop)
}

/// Waits until what was removed is room again, of which `enough` is told.
///
/// # Behavior
/// - `syncfs` writes the intent log alone; what a group of transactions frees may be used when two
///   more have reached the disk (`TXG_DEFER_SIZE` of `OpenZFS`), and meanwhile counts as taken.
pub(super) fn settle(name: &str, enough: impl Fn() -> io::Result<bool>) -> io::Result<()> {
    for round in 1..=50 {
        tool("zpool", &["sync", name])?;
        if round >= 3 && enough()? {
            return Ok(());
        }
    }
    let text = format!("pool `{name}` does not give back the room of a file that was removed");
    Err(io::Error::other(text))
}

/// Takes a pool out of use; its image stays.
pub(super) fn export(name: &str) -> io::Result<()> {
    tool("zpool", &["export", "-f", name]).map(drop)
}

/// Takes a pool into use again.
pub(super) fn import(name: &str, image: &Path) -> io::Result<()> {
    let directory = image.parent().unwrap_or(Path::new("/"));
    let directory = directory
        .to_str()
        .ok_or_else(|| io::Error::other("a strange name"))?;
    tool(
        "zpool",
        &[
            "import",
            "-f",
            "-o",
            "cachefile=none",
            "-d",
            directory,
            name,
        ],
    )
    .map(drop)
}

fn tool(program: &str, arguments: &[&str]) -> io::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let arguments = arguments.join(" ");
    Err(io::Error::other(format!(
        "{program} {arguments}: {}",
        text.trim()
    )))
}

fn is_pool(path: &Path) -> io::Result<bool> {
    Ok(statfs(path)?.filesystem_type().0 == MAGIC)
}

/// The mount that shows the file system of `path`.
fn mount_of<'a>(mounts: &'a [MountEntry], path: &Path) -> io::Result<&'a MountEntry> {
    let device = fs::metadata(path)?.dev();
    let device = format!("{}:{}", major(device), minor(device));
    let mut here = mounts
        .iter()
        .filter(|it| it.fstype == FSTYPE && it.device == device);
    here.next()
        .ok_or_else(|| io::Error::other(format!("no dataset is mounted for `{}`", path.display())))
}

/// The dataset that is seen at `path`.
fn dataset_of(path: &Path) -> io::Result<String> {
    let mounts = mountinfo::mounts().map_err(io::Error::other)?;
    let source = &mount_of(&mounts, path)?.source;
    Ok(source.to_string_lossy().into_owned())
}

fn pool_of(dataset: &str) -> &str {
    dataset.split('/').next().unwrap_or(dataset)
}

/// Makes a dataset for the root of a store at `path`, an empty directory on a pool.
///
/// # Behavior
/// - Elsewhere, and where something is mounted already, nothing is done.
pub(crate) fn own_root(path: &Path) -> io::Result<()> {
    if !path.is_dir() || !is_pool(path)? || is_mount_point(path).map_err(io::Error::other)? {
        return Ok(());
    }
    let path = fs::canonicalize(path)?;
    let mounts = mountinfo::mounts().map_err(io::Error::other)?;
    let here = mount_of(&mounts, &path)?;
    let source = here
        .source
        .to_str()
        .ok_or_else(|| io::Error::other("a strange dataset"))?;
    let inner = path.strip_prefix(&here.target).map_err(io::Error::other)?;
    let names: Vec<_> = inner.iter().map(OsStr::to_string_lossy).collect();
    let between = if source.contains('/') { '.' } else { '/' };
    let name = format!("{source}{between}{}", names.join("."));
    tool("zfs", &["create", "-o", "mountpoint=legacy", &name])?;
    let mode = fs::metadata(&path)?.permissions();
    mount_dataset(&name, &path)?;
    fs::set_permissions(&path, mode)
}

fn mount_dataset(name: &str, path: &Path) -> io::Result<()> {
    mount(
        Some(name),
        path,
        Some(FSTYPE),
        MsFlags::empty(),
        None::<&str>,
    )?;
    Ok(())
}

/// Unmounts the datasets that [`own_root`] made inside the case's root at `path`.
pub(crate) fn leave_inner_roots(path: &Path) -> io::Result<()> {
    if !is_pool(path)? {
        return Ok(());
    }
    let mounts = mountinfo::mounts().map_err(io::Error::other)?;
    let root = mount_of(&mounts, path)?;
    let prefix = format!("{}.", root.source.display());
    for mount in mounts.iter().rev() {
        let source = mount.source.to_str().unwrap_or_default();
        if mount.fstype == FSTYPE
            && source.starts_with(&prefix)
            && !source[prefix.len()..].contains('/')
        {
            umount2(&mount.target, MntFlags::MNT_DETACH)?;
        }
    }
    Ok(())
}

/// Unmounts the roots of the cases that run at the same time, of which this process has got copies
/// with its mount namespace: they could not be destroyed before this case ends.
pub(crate) fn leave_other_roots(path: &Path) -> io::Result<()> {
    if !is_pool(path)? {
        return Ok(());
    }
    let mounts = mountinfo::mounts().map_err(io::Error::other)?;
    let own = &mount_of(&mounts, path)?.source;
    let own = own.to_str().unwrap_or_default();
    let pool = pool_of(own);
    for mount in mounts.iter().rev() {
        let source = mount.source.to_str().unwrap_or_default();
        let inside = source
            .strip_prefix(pool)
            .is_some_and(|rest| rest.starts_with('/'));
        if mount.fstype == FSTYPE && inside && source != own {
            umount2(&mount.target, MntFlags::MNT_DETACH)?;
        }
    }
    Ok(())
}

/// Renames the root of a store. A mount point cannot be renamed: on a pool its dataset is mounted at
/// the new place.
pub(crate) fn rename_root(old: &Path, new: &Path) -> io::Result<()> {
    if !is_pool(old)? || !is_mount_point(old).map_err(io::Error::other)? {
        return fs::rename(old, new);
    }
    let dataset = dataset_of(old)?;
    umount2(old, MntFlags::empty())?;
    fs::rename(old, new)?;
    mount_dataset(&dataset, new)
}

/// Destroys the dataset of the case's root at `path`, and those inside, with all layers.
pub(crate) fn remove_root(path: &Path) -> io::Result<()> {
    if !is_pool(path)? || !is_mount_point(path).map_err(io::Error::other)? {
        return Ok(());
    }
    let name = dataset_of(path)?;
    umount2(path, MntFlags::MNT_DETACH)?;
    let pool = pool_of(&name);
    let listed = tool(
        "zfs",
        &[
            "list",
            "-H",
            "-o",
            "name",
            "-t",
            "filesystem",
            "-d",
            "1",
            pool,
        ],
    )?;
    let inner = format!("{name}.");
    listed
        .lines()
        .filter(|it| **it == name || it.starts_with(&inner))
        .try_for_each(|dataset| destroy_dataset(&["-R", "-f", dataset]))
}

fn destroy_dataset(arguments: &[&str]) -> io::Result<()> {
    let arguments = [&["destroy"], arguments].concat();
    // The kernel may still be closing what a process had open that is gone.
    let mut patience = 100;
    while let Err(error) = tool("zfs", &arguments) {
        if patience == 0 {
            return Err(error);
        }
        patience -= 1;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The dataset of the store at `path` that is called like a layer; `None` where there is none, or
/// no pool.
pub(crate) fn layer(path: &Path, id: &str) -> io::Result<Option<String>> {
    let datasets = below(path)?;
    let called = |dataset: &String| dataset.rsplit_once('/').is_some_and(|(_, name)| name == id);
    Ok(datasets.into_iter().find(called))
}

/// Destroys the dataset of a layer; what was cloned from it stays whole.
pub(crate) fn lose(dataset: &str) -> io::Result<()> {
    let (above, _) = dataset
        .rsplit_once('/')
        .ok_or_else(|| io::Error::other(format!("`{dataset}` is no layer's dataset")))?;
    let listed = tool("zfs", &["list", "-H", "-r", "-o", "name,origin", above])?;
    for line in listed.lines() {
        let Some((clone, origin)) = line.split_once('\t') else {
            continue;
        };
        if origin.split('@').next() == Some(dataset) {
            tool("zfs", &["promote", clone])?;
        }
    }
    destroy_dataset(&["-r", "-f", dataset])
}

/// The bytes that the dataset at `path` takes with all below it; `None` where that is no pool.
pub(crate) fn used(path: &Path) -> io::Result<Option<u64>> {
    if !is_pool(path)? {
        return Ok(None);
    }
    let name = dataset_of(path)?;
    let pool = pool_of(&name);
    // What was written and freed is accounted for with the next transaction.
    tool("zpool", &["sync", pool])?;
    let text = tool("zfs", &["get", "-Hp", "-o", "value", "used", &name])?;
    text.trim().parse().map(Some).map_err(io::Error::other)
}

/// Reads everything that is in the pool at `path`; what is wrong with it, `None` where nothing is.
pub(crate) fn damage(path: &Path) -> io::Result<Option<String>> {
    let name = dataset_of(path)?;
    let pool = pool_of(&name);
    tool("zpool", &["scrub", "-w", pool])?;
    let status = tool("zpool", &["status", "-x", pool])?;
    Ok((!status.contains("is healthy")).then_some(status))
}

/// The names of the datasets and snapshots below the store at `path`.
pub(crate) fn below(path: &Path) -> io::Result<BTreeSet<String>> {
    if !is_pool(path)? {
        return Ok(BTreeSet::new());
    }
    let name = dataset_of(path)?;
    let arguments = [
        "list",
        "-H",
        "-r",
        "-o",
        "name,defer_destroy",
        "-t",
        "filesystem,snapshot",
        &name,
    ];
    let listed = tool("zfs", &arguments)?;
    // A snapshot that is destroyed with its last clone is a part of that.
    let lasting = listed.lines().filter_map(|line| {
        let (dataset, deferred) = line.split_once('\t')?;
        (deferred != "on" && dataset != name).then(|| dataset.to_owned())
    });
    Ok(lasting.collect())
}
