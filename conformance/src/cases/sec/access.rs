// SPDX-License-Identifier: Apache-2.0
//! Other users, other programs, and ids that are none.

use std::{
    fs, io,
    os::unix::{
        fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    sys::statvfs::{FsFlags, statvfs},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use plywood::{
    ErrorKind,
    layers::UnmountOptions,
    sdk::{CreateRequest, MountRequest},
};
use tar::EntryType;

use super::Victim;
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, case, demand},
    cases::{con::residue, lek::work, lifecycle::sample},
    tar_file::{Entry, TarFile},
    target::layer_id,
    wire,
};

pub(in crate::cases) const CASES: &[Case] = &[
    case("GD-SEC-017", nodev_nosuid),
    bare("GD-SEC-018", file_modes),
    bare("GD-SEC-019", other_users).roles(&[("stranger", stranger)]),
    bare("GD-SEC-020", impostors).roles(&[("work", work_alone)]),
    case("GD-SEC-021", id_injection),
];

fn nodev_nosuid(target: &mut Target) -> Outcome {
    let tar = TarFile::new()
        .add(Entry::new(EntryType::Char, "null").device(1, 3).mode(0o666))
        .entry("setuid", EntryType::Regular, 0o4755, b"x")
        .done();
    target.put("base", None, &tar)?;
    target.create_writable("layer", Some("base"))?;
    let usual = target.within("layer", |path| {
        Ok::<_, Failure>(
            fs::OpenOptions::new()
                .write(true)
                .open(path.join("null"))
                .is_ok(),
        )
    })?;
    let mut request = MountRequest::default();
    request.options = vec!["nodev".to_owned(), "nosuid".to_owned()];
    target.within_as("layer", &request, |path| {
        let flags = statvfs(path)?.flags();
        demand!(
            flags.contains(FsFlags::ST_NODEV | FsFlags::ST_NOSUID),
            "mounted with nodev and nosuid, the layer's mount has the flags {flags:?}"
        );
        let opened = fs::OpenOptions::new().write(true).open(path.join("null"));
        let number = opened.err().and_then(|error| error.raw_os_error());
        demand!(
            number == Some(nix::libc::EACCES) || !usual,
            "mounted with nodev, a device in the layer can be opened: {number:?}"
        );
        Ok::<_, Failure>(())
    })
}

/// A store whose directories above the driver's own are open, as an operator may have them.
fn open_store(site: &Site) -> Result<Target, Failure> {
    let everybody = |mode| fs::Permissions::from_mode(mode);
    fs::set_permissions(&site.root, everybody(0o755))?;
    for name in ["graph", "run"] {
        fs::DirBuilder::new()
            .mode(0o755)
            .create(site.root.join(name))?;
    }
    let target = site.open()?;
    target.put("base", None, &sample())?;
    target.create_writable("layer", Some("base"))?;
    Ok(target)
}

fn file_modes(site: &Site) -> Outcome {
    let target = open_store(site)?;
    let contents: Vec<PathBuf> = ["base", "layer"]
        .iter()
        .map(|id| Ok(target.driver.unpack_target(&layer_id(id))?.directory))
        .collect::<Result<_, Failure>>()?;
    let mut open = Vec::new();
    let mut seen = 0;
    let path = target.mount("layer", &MountRequest::default())?;
    for place in [site.home()?, site.run_dir()?] {
        let mut waiting = vec![place];
        while let Some(path_of) = waiting.pop() {
            let Ok(meta) = fs::symlink_metadata(&path_of) else {
                continue;
            };
            seen += 1;
            let mode = meta.mode() & 0o7777;
            let is_content = contents.contains(&path_of) || path_of == path;
            if !is_content && !meta.is_symlink() {
                if mode & 0o022 != 0 {
                    open.push(format!(
                        "`{}` can be changed by others ({mode:o})",
                        path_of.display()
                    ));
                }
                if !meta.is_dir() && mode & 0o044 != 0 && reachable(&path_of, &site.root) {
                    open.push(format!(
                        "`{}` can be read by others ({mode:o})",
                        path_of.display()
                    ));
                }
            }
            if meta.is_dir() && !is_content {
                for entry in fs::read_dir(&path_of)? {
                    waiting.push(entry?.path());
                }
            }
        }
    }
    target.unmount("layer")?;
    target.close()?;
    // The home, the directory of the mounts and the mount: a pool has no more than that in it.
    demand!(seen > 2, "there was nothing to look at");
    demand!(open.is_empty(), "{}", open.join(", "));
    Ok(())
}

/// Whether every directory from `root` down to the file lets others pass.
fn reachable(file: &Path, root: &Path) -> bool {
    let above = file
        .ancestors()
        .skip(1)
        .take_while(|path| path.starts_with(root));
    let mut above = above.map(|path| fs::metadata(path).map_or(0, |meta| meta.mode()));
    above.all(|mode| mode & 0o011 != 0)
}

fn other_users(site: &Site) -> Outcome {
    let target = open_store(site)?;
    target.create_writable("open", None)?;
    target.within("open", |path| -> Outcome {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777))?;
        fs::write(path.join("public"), "x")?;
        let mode = fs::Permissions::from_mode(0o666);
        Ok(fs::set_permissions(path.join("public"), mode)?)
    })?;
    let content = target.driver.unpack_target(&layer_id("open"))?.directory;
    let path = target.mount("open", &MountRequest::default())?;
    let text = |path: &Path| path.display().to_string();
    let looked = site.in_peer(
        "stranger",
        &[
            &text(&site.home()?),
            &text(&site.run_dir()?),
            &text(&content),
            &text(&path),
        ],
    );
    target.unmount("open")?;
    target.close()?;
    looked
}

/// Becomes somebody else, and tries to get in.
fn stranger(site: &Site, places: &[String]) -> Outcome {
    const NOBODY: u32 = 65_534;
    let mine = site.scratch("mine")?;
    fs::set_permissions(&mine, fs::Permissions::from_mode(0o777))?;
    setgroups(&[])?;
    setresgid(
        Gid::from_raw(NOBODY),
        Gid::from_raw(NOBODY),
        Gid::from_raw(NOBODY),
    )?;
    setresuid(
        Uid::from_raw(NOBODY),
        Uid::from_raw(NOBODY),
        Uid::from_raw(NOBODY),
    )?;
    // The way to the store is open, or this would show nothing.
    let tried = fs::write(mine.join("file"), "x");
    if let Err(error) = tried {
        return Err(Failure::not_run(format!(
            "the scratch directory cannot be reached by other users ({error}): use one whose \
             directories above let everybody pass"
        )));
    }
    for place in places {
        let listed = fs::read_dir(place).map(drop);
        denied(place, "list", &listed)?;
        let read = fs::read(Path::new(place).join("public")).map(drop);
        denied(place, "read a public file in", &read)?;
        let written = fs::write(Path::new(place).join("public"), "overwritten");
        denied(place, "write to a public file in", &written)?;
    }
    Ok(())
}

fn denied(place: &str, what: &str, answer: &io::Result<()>) -> Outcome {
    let kind = answer.as_ref().map_err(io::Error::kind);
    demand!(
        matches!(
            kind,
            Err(io::ErrorKind::PermissionDenied | io::ErrorKind::NotFound)
        ),
        "an unprivileged user can {what} `{place}`: {answer:?}"
    );
    Ok(())
}

/// Programs that a driver may call.
const HELPERS: [&str; 24] = [
    "sh",
    "bash",
    "mount",
    "umount",
    "losetup",
    "modprobe",
    "cp",
    "mv",
    "rm",
    "tar",
    "chown",
    "chmod",
    "chattr",
    "setfattr",
    "btrfs",
    "zfs",
    "zpool",
    "xfs_quota",
    "mkfs.ext4",
    "mkfs.xfs",
    "fuse-overlayfs",
    "fusermount",
    "fusermount3",
    "sudo",
];

fn work_alone(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    work(&target)?;
    target.close()?;
    Ok(())
}

fn impostors(site: &Site) -> Outcome {
    let place = site.scratch("impostors")?;
    let called = site.root.join("called");
    for name in HELPERS {
        let script = format!(
            "#!/bin/sh\necho {name} \"$@\" >> '{}'\nexit 1\n",
            called.display()
        );
        let path = place.join(name);
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    let (mut command, messages) = site.role("work", &[])?;
    let status = command.env("PATH", &place).current_dir(&place).status()?;
    let verdict = wire::read(&messages)?.verdict;
    let log = fs::read_to_string(&called).unwrap_or_default();
    demand!(
        log.is_empty(),
        "programs were searched in PATH, where somebody else's may lie: {}",
        log.trim()
    );
    demand!(status.signal().is_none(), "everyday work ended as {status}");
    let passed = verdict
        .as_ref()
        .is_some_and(|end| end.status == wire::Status::Pass);
    demand!(
        passed,
        "everyday work without programs in PATH failed: {}",
        verdict.map(|end| end.message).unwrap_or_default()
    );
    Ok(())
}

fn id_injection(target: &mut Target) -> Outcome {
    let victim = Victim::new(target)?;
    target.put("base", None, &sample())?;
    target.manifest("base")?;
    let before = residue(target)?;
    let long = "x".repeat(300);
    let absolute = victim.absolute();
    let relative = victim.relative();
    for id in [
        "",
        ".",
        "..",
        "../victim",
        "a/b",
        "a/../..",
        "base/../base",
        "a\0b",
        "a\nb",
        "-x",
        ".x",
        "x.",
        "a:b",
        "a,b",
        "a b",
        "\u{e9}",
        "$(x)",
        "*",
        &long,
        &absolute,
        &relative,
    ] {
        let what = format!("{id:?}");
        target.step(&format!(
            "the id {}",
            what.chars().take(60).collect::<String>()
        ))?;
        for (operation, answer) in try_everything(target, id) {
            // An empty id asks for a new one, and an empty parent for none.
            if id.is_empty() && answer.is_ok() {
                continue;
            }
            demand!(
                answer.is_err(),
                "`{operation}` took {what} for the id of a layer"
            );
        }
        victim.intact(&format!("after operations on the id {what}"))?;
        for layer in target.layers()? {
            if layer.id != "base" {
                target.delete(&layer.id)?;
            }
        }
    }
    tokens(target, &victim)?;
    same_home(&before, target)
}

/// What every operation that takes an id says to this one.
fn try_everything(target: &Target, id: &str) -> Vec<(&'static str, plywood::Result<()>)> {
    let force = UnmountOptions {
        force: true,
        only_if_mounted: false,
    };
    vec![
        ("create", target.create(id, None).map(drop)),
        (
            "create as a child",
            target.create(id, Some("base")).map(drop),
        ),
        ("put", target.put(id, None, &sample()).map(drop)),
        (
            "put on it",
            target.put("child", Some(id), &sample()).map(drop),
        ),
        ("apply", target.apply(id, &sample()[..]).map(drop)),
        (
            "mount",
            target.mount(id, &MountRequest::default()).map(drop),
        ),
        ("unmount", target.unmount_with(id, force)),
        ("diff", target.diff(id).map(drop)),
        ("changes", target.changes(id).map(drop)),
        ("diff size", target.diff_size(None, id).map(drop)),
        (
            "diff against it",
            target.diff_between(Some(id), "base").map(drop),
        ),
        ("delete", target.delete(id)),
    ]
}

fn same_home(before: &std::collections::BTreeSet<PathBuf>, target: &Target) -> Outcome {
    let after = residue(target)?;
    let new: Vec<_> = after.difference(before).collect();
    demand!(
        new.is_empty(),
        "operations on bad ids left {new:?} in the home"
    );
    Ok(())
}

/// What names staged and removed layers is text as well.
fn tokens(target: &Target, victim: &Victim) -> Outcome {
    let driver = target.driver.unguarded();
    let can = target.driver.capabilities();
    let request = CreateRequest::new(layer_id("adopted"), None);
    for token in [
        "",
        ".",
        "..",
        "../base",
        "/",
        "a/b",
        &victim.absolute(),
        &victim.relative(),
    ] {
        if can.staging {
            let adopted = driver.adopt(token, &request);
            demand!(
                adopted.is_err(),
                "`adopt` took {token:?} for something staged"
            );
            // Something that is not there any more is no error.
            let _answer = driver.discard(token);
            let synced = driver.sync_staged(token);
            demand!(
                synced.is_err() || !can.sync,
                "`sync_staged` took {token:?} for something staged"
            );
        }
        if can.deferred_removal {
            let _answer = driver.reap(token);
        }
        victim.intact(&format!("after operations on the token {token:?}"))?;
    }
    demand!(
        target.manifest("base")?.has("plain"),
        "a layer was damaged by tokens that name nothing"
    );
    let adopted = target.driver.exists(&request.id);
    demand!(
        matches!(adopted, Ok(false)),
        "a layer exists that was made of nothing: {:?}",
        adopted.map_err(|error: plywood::Error| (error.kind() == ErrorKind::Io, error.to_string()))
    );
    Ok(())
}
