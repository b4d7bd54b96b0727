// SPDX-License-Identifier: Apache-2.0
//! Types of files, their modes, owners and links.

use std::{
    fs, io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::Path,
};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use super::{kept, path};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    ops::Op,
};

/// The number of modes: read, write, execute three times, set-user-id, set-group-id, sticky.
const MODES: u32 = 0o10000;

pub(super) fn modes(target: &mut Target) -> Outcome {
    target.create_writable("base", None)?;
    target.within("base", |root| -> Outcome {
        for mode in 0..MODES {
            let (file, directory) = (
                root.join(format!("f{mode:o}")),
                root.join(format!("d{mode:o}")),
            );
            fs::write(&file, "")?;
            fs::set_permissions(&file, fs::Permissions::from_mode(mode))?;
            fs::create_dir(&directory)?;
            fs::set_permissions(&directory, fs::Permissions::from_mode(mode))?;
        }
        check_modes(root, "the layer's mount")
    })?;
    target.create("child", Some("base"))?;
    target.within("child", |root| check_modes(root, "a child"))?;
    let again = target.reopened()?;
    again.within("base", |root| {
        check_modes(root, "the layer after a restart")
    })
}

fn check_modes(root: &Path, place: &str) -> Outcome {
    for mode in 0..MODES {
        for kind in ["f", "d"] {
            let seen = fs::symlink_metadata(root.join(format!("{kind}{mode:o}")))?;
            let seen = seen.mode() & 0o7777;
            demand!(
                seen == mode,
                "`{kind}{mode:o}` has mode {seen:04o} instead of {mode:04o} in {place}"
            );
        }
    }
    Ok(())
}

pub(super) fn owners(target: &mut Target) -> Outcome {
    let mut ops = Vec::new();
    for id in [
        0,
        1000,
        65_534,
        65_536,
        2_097_152,
        3_000_000,
        4_294_967_294_u32,
    ] {
        let name = |kind: &str| path(&format!("{kind}-{id}"));
        ops.extend([
            Op::Write(name("file"), b"owned".to_vec()),
            Op::Mkdir(name("directory")),
            Op::Symlink(name("link"), path("file-0")),
        ]);
        for kind in ["file", "directory", "link"] {
            ops.push(Op::Chown(name(kind), id, u32::MAX - 1 - id));
        }
    }
    kept(target, &ops).map(drop)
}

pub(super) fn symlinks(target: &mut Target) -> Outcome {
    let longest = longest_link(&target.scratch("probe")?)?;
    demand!(
        longest.len() >= 255,
        "the scratch file system takes symbolic links of {} bytes at most",
        longest.len()
    );
    let ops = [
        Op::Mkdir(path("d")),
        Op::Write(path("d/file"), b"there".to_vec()),
        Op::Symlink(path("d/relative"), path("file")),
        Op::Symlink(path("absolute"), path("/d/file")),
        Op::Symlink(path("outwards"), path("../../../../etc/passwd")),
        Op::Symlink(path("dangling"), path("no/such/file")),
        Op::Symlink(path("itself"), path("itself")),
        Op::Symlink(path("directory"), path("d")),
        Op::Symlink(path("longest"), path(&longest)),
        Op::Chown(path("dangling"), 1234, 4321),
        Op::Mtime(path("dangling"), 1_234_567_890, 987_654_321),
    ];
    kept(target, &ops).map(drop)
}

/// The longest target that the file system takes: 4095 bytes is the kernel's limit, xfs has 1023.
fn longest_link(place: &Path) -> Result<String, Failure> {
    let link = place.join("link");
    for length in (255..=4095).rev() {
        let target = format!("/{}", "x/".repeat(2048))[..length].to_owned();
        match symlink(&target, &link) {
            Ok(()) => {
                fs::remove_file(&link)?;
                return Ok(target);
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(String::new())
}

pub(super) fn hard_links(target: &mut Target) -> Outcome {
    let ops = [
        Op::Mkdir(path("one")),
        Op::Mkdir(path("two")),
        Op::Write(path("one/first"), b"shared".to_vec()),
        Op::Link(path("one/second"), path("one/first")),
        Op::Link(path("two/third"), path("one/first")),
        Op::Symlink(path("one/soft"), path("first")),
        Op::Link(path("two/soft"), path("one/soft")),
        Op::Write(path("alone"), b"shared".to_vec()),
    ];
    let mut chain = kept(target, &ops)?;
    for layer in ["base", "child"] {
        target.within(layer, |root| -> Outcome {
            let links = ["one/first", "one/second", "two/third"];
            let seen = links.map(|name| fs::symlink_metadata(root.join(name)));
            let [first, second, third] = seen;
            let inode = first?.ino();
            for meta in [second?, third?] {
                same!(
                    inode,
                    meta.ino(),
                    "the inode of the links' names in `{layer}`"
                );
                same!(3, meta.nlink(), "the number of links in `{layer}`");
            }
            Ok(())
        })?;
    }
    target.step("remove one name in the child")?;
    chain.change(target, &[Op::Unlink(path("one/first"))])?;
    chain.check_all(target)
}

pub(super) fn fifo(target: &mut Target) -> Outcome {
    let mut ops = vec![
        Op::Fifo(path("pipe")),
        Op::Chmod(path("pipe"), 0o620),
        Op::Chown(path("pipe"), 1000, 5),
    ];
    ops.push(Op::Mtime(path("pipe"), 1_111_111_111, 222_222_222));
    kept(target, &ops).map(drop)
}

pub(super) fn devices(target: &mut Target) -> Outcome {
    // Numbers of one byte each are the old form; xfs keeps nine and eighteen bits.
    let mut numbers = vec![(1, 3), (8, 0), (255, 255), (256, 65_536), (511, 262_143)];
    if takes_device(&target.scratch("probe")?, 4095, 1_048_575)? {
        numbers.push((4095, 1_048_575));
    }
    let mut ops = Vec::new();
    for &(major, minor) in &numbers {
        let (char, block) = (format!("c-{major}-{minor}"), format!("b-{major}-{minor}"));
        ops.extend([
            Op::Device(path(&char), major, minor),
            Op::BlockDevice(path(&block), major, minor),
            Op::Chown(path(&block), 0, 6),
            Op::Chmod(path(&block), 0o660),
        ]);
    }
    // The block device 0:0 is a device like any other.
    ops.push(Op::BlockDevice(path("b-0-0"), 0, 0));
    kept(target, &ops)?;
    target.within("child", |root| {
        for (major, minor) in numbers {
            let meta = fs::symlink_metadata(root.join(format!("b-{major}-{minor}")))?;
            same!(
                makedev(major.into(), minor.into()),
                meta.rdev(),
                "the numbers of the device {major}:{minor}"
            );
        }
        Ok(())
    })
}

/// Whether the scratch file system itself keeps such numbers.
fn takes_device(place: &Path, major: u32, minor: u32) -> Result<bool, Failure> {
    let device = makedev(major.into(), minor.into());
    let mode = Mode::from_bits_retain(0o600);
    match mknod(&place.join("device"), SFlag::S_IFCHR, mode, device) {
        Ok(()) => Ok(true),
        Err(nix::Error::EINVAL) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn sockets(target: &mut Target) -> Outcome {
    target.create_writable("base", None)?;
    target.within("base", |root| -> Outcome {
        mknod(
            &root.join("socket"),
            SFlag::S_IFSOCK,
            Mode::from_bits_retain(0o600),
            0,
        )?;
        is_socket(root, "the layer's mount")
    })?;
    target.create_writable("child", Some("base"))?;
    target.within("child", |root| -> Outcome {
        is_socket(root, "a child")?;
        fs::remove_file(root.join("socket"))?;
        demand!(
            fs::read_dir(root)?.next().is_none(),
            "the socket is still listed in the child that removed it"
        );
        Ok(())
    })?;
    let again = target.reopened()?;
    again.within("base", |root| is_socket(root, "the layer after a restart"))
}

fn is_socket(root: &Path, place: &str) -> Outcome {
    use std::os::unix::fs::FileTypeExt as _;
    let meta = fs::symlink_metadata(root.join("socket"));
    let what = match &meta {
        Ok(meta) => format!("{:?}", meta.file_type()),
        Err(error) => error.to_string(),
    };
    let is_socket = meta.is_ok_and(|meta| meta.file_type().is_socket());
    demand!(is_socket, "`socket` is no socket in {place}: {what}");
    Ok(())
}
