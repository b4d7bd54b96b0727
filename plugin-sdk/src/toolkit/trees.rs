// SPDX-License-Identifier: Apache-2.0
//! What drivers share whose layers are whole trees, each in a directory of its own.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use rustix::{fs::CWD, io::Errno, mount::OpenTreeFlags};

use super::{TempDir, is_there, remove_tree};
use crate::{
    DriverError, DriverErrorCode, IdMap, IdMaps, IoContext, LayerId, MountPlan, MountRequest,
    MountStep, MountSteps, Removed, Result, UnpackTarget,
    sys::{mount_attr, user_namespace},
};

/// The layers whose directories are in `directory`, sorted; what is no directory or cannot be the
/// name of a layer is passed over.
///
/// # Errors
/// When the directory cannot be read.
pub fn list_layers(directory: &Path) -> Result<Vec<LayerId>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(directory).at("cannot read", directory)? {
        let entry = entry.at("cannot read", directory)?;
        let name = entry.file_name().into_string().ok();
        let is_dir = entry.file_type().at("cannot stat", entry.path())?.is_dir();
        if let Some(id) = name
            .and_then(|name| LayerId::new(name).ok())
            .filter(|_| is_dir)
        {
            ids.push(id);
        }
    }
    ids.sort();
    Ok(ids)
}

/// Removes the layer at `tree`: it disappears at once, and its files are deleted below `places`, where
/// [`temp_dir::recover`](super::temp_dir::recover) finds them after a crash.
///
/// # Behavior
/// - On a full file system, where nothing can be made to move it to, it is deleted where it is.
///
/// # Errors
/// What the file system reports.
pub fn remove_layer(places: &Path, tree: &Path) -> Result<Removed> {
    if !is_there(tree)? {
        return Ok(Removed::AlreadyGone);
    }
    match TempDir::create(places) {
        Ok(mut place) => {
            place.take(tree)?;
            place.close()?;
        }
        Err(error) if error.code == DriverErrorCode::NO_SPACE => remove_tree(tree)?,
        Err(error) => return Err(error),
    }
    Ok(Removed::Now)
}

/// Whether `directory` can be shown with other ids by an idmapped mount, found out by making one
/// that is attached nowhere.
///
/// # Errors
/// What the kernel reports beside that it cannot: the file system must allow it, and the process
/// must have the file system's user namespace (`mount_setattr(2)`).
pub fn can_map_ids(directory: &Path) -> Result<bool> {
    let range = vec![IdMap {
        container_id: 0,
        host_id: 1,
        size: 1,
    }];
    let maps = IdMaps {
        uids: range.clone(),
        gids: range,
    };
    let Ok(namespace) = user_namespace::with_maps(&maps) else {
        // Nobody could show anything then.
        return Ok(false);
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mapped = rustix::mount::open_tree(CWD, directory, flags)
        .map_err(io::Error::from)
        .and_then(|mount| mount_attr::map_ids(&mount, &namespace));
    match mapped {
        Ok(()) => Ok(true),
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EINVAL | libc::EPERM | libc::ENOSYS | libc::EOPNOTSUPP)
            ) =>
        {
            Ok(false)
        }
        Err(error) => Err(error).at("cannot find out about id maps of", directory),
    }
}

/// Whether files below `directory`, which is made when it is missing, can share their blocks until
/// one of them is written to, found out by trying.
///
/// # Errors
/// What the file system reports beside that it cannot.
pub fn can_share_blocks(directory: &Path) -> Result<bool> {
    let mut place = TempDir::create(directory)?;
    let (one, other) = (place.addition(), place.addition());
    fs::write(&one, [b'x'; 4096]).at("cannot write", &one)?;
    let from = File::open(&one).at("cannot open", &one)?;
    let to = File::create(&other).at("cannot create", &other)?;
    let tried = rustix::fs::ioctl_ficlone(&to, &from);
    drop((from, to));
    place.close()?;
    match tried {
        Ok(()) => Ok(true),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::XDEV | Errno::NOSYS | Errno::INVAL) => {
            Ok(false)
        }
        Err(error) => Err(error).at("cannot share blocks below", directory),
    }
}

/// Where a diff is unpacked into the tree at `directory`.
///
/// # Errors
/// When the directory cannot be read.
pub fn tree_target(directory: PathBuf) -> Result<UnpackTarget> {
    let mut entries = fs::read_dir(&directory).at("cannot read", &directory)?;
    let fresh = entries.next().is_none();
    let mut target = UnpackTarget::tree(directory);
    target.fresh = fresh;
    Ok(target)
}

/// How the tree at `tree` is mounted: as it is, or read-only at `target`, which is made.
///
/// # Behavior
/// - `writable` says whether it may be written to at all.
///
/// # Errors
/// Options other than `ro` are refused in the name of `driver`, and so is a label.
pub fn tree_plan(
    driver: &str,
    tree: PathBuf,
    target: PathBuf,
    request: &MountRequest,
    writable: bool,
) -> Result<MountPlan> {
    let (read_only, others): (Vec<_>, Vec<_>) =
        request.options.iter().partition(|option| *option == "ro");
    if let Some(option) = others.first() {
        let message = format!("{driver} driver does not support mount options");
        return Err(
            DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message).object(option.as_str())
        );
    }
    if let Some(label) = &request.label {
        return Err(DriverError::not_supported("mount labels").object(label.as_str()));
    }
    if writable && !request.read_only && read_only.is_empty() {
        return Ok(MountPlan::Directory(tree));
    }
    make_directories(&target, 0o700)?;
    Ok(MountPlan::Mounts(MountSteps {
        steps: vec![MountStep::Bind {
            source: tree,
            target: target.clone(),
            read_only: true,
        }],
        target,
    }))
}

/// Removes the empty directory at which something was mounted; one that is gone is no error.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_mount_point(target: &Path) -> Result<()> {
    match fs::remove_dir(target) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(DriverError::io("cannot remove", target, &error))
        }
        _ => Ok(()),
    }
}

/// Makes a directory and those above it that are missing.
///
/// # Errors
/// What the file system reports.
pub fn make_directories(path: &Path, mode: u32) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(mode).create(path);
    made.at("cannot create", path)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// What the file system reports.
pub fn sync_directory(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.at("cannot sync", path)
}

/// Makes everything on the file system of `directory` durable.
///
/// # Errors
/// What the file system reports, also about what other processes wrote.
pub fn sync_file_system(directory: &Path) -> Result<()> {
    let file = File::open(directory).at("cannot open", directory)?;
    rustix::fs::syncfs(&file).at("cannot sync", directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_directories_with_the_names_of_layers_are_layers() {
        let root = tempfile::tempdir().unwrap();
        for name in ["b", "a", "with/inner"] {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("file"), "").unwrap();
        let found = list_layers(root.path()).unwrap();
        let names: Vec<_> = found.iter().map(LayerId::as_str).collect();
        assert_eq!(names, ["a", "b", "with"]);
    }

    #[test]
    fn a_layer_is_removed_once_and_nothing_stays() {
        let root = tempfile::tempdir().unwrap();
        let (tree, places) = (root.path().join("layer"), root.path().join("places"));
        fs::create_dir_all(tree.join("inner")).unwrap();
        assert_eq!(remove_layer(&places, &tree), Ok(Removed::Now));
        assert_eq!(remove_layer(&places, &tree), Ok(Removed::AlreadyGone));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn files_in_memory_share_no_blocks_and_the_try_leaves_nothing() {
        let memory = Path::new("/dev/shm");
        if !memory.is_dir() {
            return;
        }
        let root = tempfile::tempdir_in(memory).unwrap();
        assert_eq!(can_share_blocks(&root.path().join("places")), Ok(false));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_tree_is_shown_as_it_is_or_read_only_elsewhere() {
        let root = tempfile::tempdir().unwrap();
        let (tree, target) = (root.path().to_owned(), root.path().join("run/id"));
        let plan = |request: &MountRequest, writable: bool| {
            tree_plan("x", tree.clone(), target.clone(), request, writable)
        };
        let mut request = MountRequest::default();
        let directory = MountPlan::Directory(tree.clone());
        assert_eq!(plan(&request, true), Ok(directory));
        assert!(!target.exists());
        for writable in [true, false] {
            request.read_only = writable;
            let Ok(MountPlan::Mounts(mounts)) = plan(&request, writable) else {
                panic!("it is to be mounted");
            };
            assert_eq!(mounts.target, target);
            assert!(target.is_dir());
        }
        remove_mount_point(&target).unwrap();
        remove_mount_point(&target).unwrap();
        request.options = vec!["ro".to_owned(), "nodev".to_owned()];
        let error = plan(&request, true).unwrap_err();
        assert_eq!(error.message, "x driver does not support mount options");
        assert_eq!(error.object.as_deref(), Some("nodev"));
    }
}
