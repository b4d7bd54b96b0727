// SPDX-License-Identifier: Apache-2.0
//! What a mounted layer looks like.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _, symlink},
        net::UnixListener,
    },
    path::Path,
};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use rustix::fs::{Dir, FileType};

use super::{sample, table};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
};

pub(super) fn path(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    let root = target.root.clone();
    for request in table::requests(target) {
        target.within_as("child", &request, |path| {
            let shown = path.display();
            demand!(path.is_absolute(), "`{shown}` is not absolute");
            demand!(path.is_dir(), "`{shown}` is no directory");
            demand!(path.starts_with(&root), "`{shown}` is outside the store");
            demand!(path.join("d/e/deep").is_file(), "`{shown}` has no content");
            Ok::<_, Failure>(())
        })?;
    }
    Ok(())
}

pub(super) fn persists(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    target.within("child", |path| {
        fs::write(path.join("new"), "data")?;
        fs::write(path.join("d/e/deep"), "changed")?;
        fs::remove_file(path.join("soft"))?;
        Ok::<_, Failure>(())
    })?;
    let again = target.reopened()?;
    for target in [&*target, &again] {
        target.within("child", |path| {
            let text = |name: &str| fs::read_to_string(path.join(name));
            same!("data", text("new")?, "a new file");
            same!("changed", text("d/e/deep")?, "a changed file");
            demand!(
                fs::symlink_metadata(path.join("soft")).is_err(),
                "a removed link is there again"
            );
            Ok::<_, Failure>(())
        })?;
    }
    Ok(())
}

pub(super) fn closed_to_others(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    let root = target.root.clone();
    for request in table::requests(target) {
        target.within_as("child", &request, |path| {
            let above = path.ancestors().skip(1);
            let above = above.take_while(|above| *above != root);
            let mut modes = Vec::new();
            for directory in above {
                let mode = fs::metadata(directory)?.mode() & 0o7777;
                modes.push(format!("{} {mode:04o}", directory.display()));
                if mode & 0o001 == 0 {
                    return Ok(true);
                }
            }
            demand!(
                false,
                "setuid programs and other users' files in the layer are open to everybody: no \
                 directory above the mount keeps others out: {modes:?}"
            );
            Ok::<_, Failure>(false)
        })?;
        crate::case::count_assertion();
    }
    Ok(())
}

/// Makes one entry of each type, with names that begin with `prefix`.
fn one_of_each(path: &Path, prefix: &str) -> Result<(), Failure> {
    let at = |name: &str| path.join(format!("{prefix}-{name}"));
    fs::write(at("file"), "x")?;
    fs::create_dir(at("directory"))?;
    symlink("file", at("symlink"))?;
    let mode = Mode::from_bits_retain(0o600);
    mknod(&at("fifo"), SFlag::S_IFIFO, mode, 0)?;
    mknod(&at("character"), SFlag::S_IFCHR, mode, makedev(1, 3))?;
    mknod(&at("block"), SFlag::S_IFBLK, mode, makedev(7, 200))?;
    // A socket's address is short: it is bound by a relative name.
    let before = std::env::current_dir()?;
    std::env::set_current_dir(path)?;
    let bound = UnixListener::bind(format!("{prefix}-socket"));
    std::env::set_current_dir(before)?;
    drop(bound?);
    Ok(())
}

fn type_of(name: &str) -> Option<FileType> {
    Some(match name.split_once('-')?.1 {
        "file" => FileType::RegularFile,
        "directory" => FileType::Directory,
        "symlink" => FileType::Symlink,
        "fifo" => FileType::Fifo,
        "character" => FileType::CharacterDevice,
        "block" => FileType::BlockDevice,
        "socket" => FileType::Socket,
        _ => return None,
    })
}

pub(super) fn entry_types(target: &mut Target) -> Outcome {
    target.create_writable("base", None)?;
    target.within("base", |path| one_of_each(path, "lower"))?;
    target.create_writable("child", Some("base"))?;
    target.within("child", |path| {
        one_of_each(path, "upper")?;
        fs::set_permissions(path.join("lower-file"), fs::Permissions::from_mode(0o640))?;
        Ok::<_, Failure>(())
    })?;
    for request in table::requests(target) {
        let found = target.within_as("child", &request, |path| {
            let mut found = BTreeMap::new();
            for entry in Dir::new(fs::File::open(path)?)? {
                let entry = entry?;
                let name = entry.file_name().to_string_lossy().into_owned();
                found.insert(name, entry.file_type());
            }
            Ok::<_, Failure>(found)
        })?;
        same!(
            16,
            found.len(),
            "entries that readdir lists, with `.` and `..`"
        );
        for (name, seen) in found {
            if let Some(expected) = type_of(&name) {
                same!(expected, seen, "the type that readdir gives for `{name}`");
            }
        }
    }
    Ok(())
}

/// Inode numbers by path, as stat and as readdir tell them.
fn numbers(root: &Path, paths: &[&str]) -> Result<BTreeMap<String, u64>, Failure> {
    let mut found = BTreeMap::new();
    let device = fs::metadata(root.join("d/e/deep"))?.dev();
    for path in paths {
        let full = root.join(path);
        let meta = fs::symlink_metadata(&full)?;
        if meta.is_file() {
            same!(device, meta.dev(), "st_dev of `{path}` and of another file");
        }
        let name = full.file_name().unwrap_or_default().to_owned();
        let parent = full.parent().unwrap_or(root);
        for entry in Dir::new(fs::File::open(parent)?)? {
            let entry = entry?;
            if entry.file_name().to_bytes() == name.as_encoded_bytes() {
                same!(
                    meta.ino(),
                    entry.ino(),
                    "the inode number of `{path}` in stat and in readdir"
                );
            }
        }
        found.insert((*path).to_owned(), meta.ino());
    }
    Ok(found)
}

/// Writes to everything, and renames a file there and back.
fn copy_up(path: &Path) -> Result<u64, Failure> {
    fs::write(path.join("d/e/deep"), "changed")?;
    fs::write(path.join("d/new"), "new")?;
    fs::set_permissions(path.join("setuid"), fs::Permissions::from_mode(0o700))?;
    std::os::unix::fs::lchown(path.join("soft"), Some(7), Some(7))?;
    std::os::unix::fs::lchown(path.join("pipe"), Some(7), Some(7))?;
    fs::rename(path.join("setuid"), path.join("d/moved"))?;
    let moved = fs::metadata(path.join("d/moved"))?.ino();
    fs::rename(path.join("d/moved"), path.join("setuid"))?;
    Ok(moved)
}

pub(super) fn inodes(target: &mut Target) -> Outcome {
    // Files with several names are the affair of `hard_link_copy_up`.
    const PATHS: [&str; 6] = ["d", "d/e", "d/e/deep", "setuid", "soft", "pipe"];
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    let (before, moved, after) = target.within("child", |path| {
        let before = numbers(path, &PATHS)?;
        let moved = copy_up(path)?;
        Ok::<_, Failure>((before, moved, numbers(path, &PATHS)?))
    })?;
    same!(before, after, "inode numbers before and after the copy-up");
    same!(before["setuid"], moved, "the inode number after a rename");
    let again = target.within("child", |path| numbers(path, &PATHS))?;
    same!(before, again, "inode numbers in two mounts");
    Ok(())
}
