// SPDX-License-Identifier: Apache-2.0
//! What a mount can be asked for.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::Path,
    process::Command,
};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use plywood::{
    ErrorKind,
    sdk::{DriverErrorCode, MountPlan, MountRequest, MountStep},
};
use rustix::fs::{StatVfsMountFlags, XattrFlags};

use super::{sample, table};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    target::layer_id,
};

/// What a change through the mount gives: the error number, if any.
type Answer = (&'static str, Option<i32>);

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn changes(path: &Path) -> Vec<Answer> {
    let file = path.join("plain");
    let set = |name: &str| {
        rustix::fs::setxattr(&file, name, b"1", XattrFlags::empty()).map_err(io::Error::from)
    };
    vec![
        ("creating a file", errno(fs::write(path.join("new"), "x"))),
        ("writing", errno(fs::write(&file, "x"))),
        (
            "opening for appending",
            errno(fs::OpenOptions::new().append(true).open(&file)),
        ),
        ("unlinking", errno(fs::remove_file(&file))),
        ("mkdir", errno(fs::create_dir(path.join("dir")))),
        ("rename", errno(fs::rename(&file, path.join("moved")))),
        ("link", errno(fs::hard_link(&file, path.join("linked")))),
        (
            "chmod",
            errno(fs::set_permissions(
                &file,
                fs::Permissions::from_mode(0o600),
            )),
        ),
        (
            "chown",
            errno(std::os::unix::fs::chown(&file, Some(1), Some(1))),
        ),
        ("setxattr", errno(set("user.suite"))),
        (
            "chmod of the root",
            errno(fs::set_permissions(path, fs::Permissions::from_mode(0o700))),
        ),
    ]
}

fn demand_read_only(answers: Vec<Answer>) -> Outcome {
    for (what, error) in answers {
        same!(
            Some(libc::EROFS),
            error,
            "the error number of {what} through a read-only mount"
        );
    }
    Ok(())
}

pub(super) fn read_only(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    for id in ["base", "child"] {
        let before = target.manifest(id)?;
        let answers = target.within_as(id, &table::read_only(), |path| {
            let text = fs::read_to_string(path.join("plain"))?;
            same!("plain", text, "a file in the read-only mount of `{id}`");
            Ok::<_, Failure>(changes(path))
        })?;
        demand_read_only(answers)?;
        let differences = before.differences(&target.manifest(id)?);
        demand!(
            differences.is_empty(),
            "the refused changes changed `{id}`: {differences:?}"
        );
    }
    target.within("child", |path| {
        let written = fs::write(path.join("new"), "x");
        demand!(
            written.is_ok(),
            "after a read-only mount a writable one answers {written:?}"
        );
        Ok(())
    })
}

pub(super) fn read_only_is_real(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    let before = table::below(&target.root)?;
    let mut by_option = MountRequest::default();
    by_option.options = vec!["ro".to_owned()];
    for request in [table::read_only(), by_option] {
        if target.driver.capabilities().read_only_mounts {
            let answers =
                target.within_as("base", &request, |path| Ok::<_, Failure>(changes(path)))?;
            demand_read_only(answers)?;
            continue;
        }
        let answer = target.mount("base", &request);
        same!(
            Some(ErrorKind::NotSupported),
            answer.as_ref().err().map(plywood::Error::kind),
            "the answer to {request:?} without the capability"
        );
        let own = target
            .driver
            .unguarded()
            .mount_plan(&layer_id("base"), &request);
        demand!(
            own.as_ref().err().is_some_and(|error| matches!(
                error.code,
                DriverErrorCode::NOT_SUPPORTED | DriverErrorCode::INVALID_ARGUMENT
            )),
            "the driver does not declare read-only mounts and answers {request:?} with {own:?}"
        );
        table::demand_unmounted(target, "base", &before)?;
    }
    Ok(())
}

pub(super) fn both_ways(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    let before = table::below(&target.root)?;
    let writable = MountRequest::default();
    let can = target.driver.capabilities().read_only_mounts;
    // Also where nothing can be mounted read-only: that it is mounted is seen first.
    let expected = ErrorKind::Busy;
    let path = target.mount("child", &writable)?;
    let refused = target.mount("child", &table::read_only());
    same!(
        Some(expected),
        refused.err().map(|error| error.kind()),
        "the answer to a read-only mount of what is mounted writable"
    );
    let written = fs::write(path.join("new"), "x");
    demand!(
        written.is_ok(),
        "the refused read-only mount took the writable one: {written:?}"
    );
    same!(1, table::count(target, "child")?, "the count");
    target.unmount("child")?;
    table::demand_unmounted(target, "child", &before)?;
    if !can {
        return Ok(());
    }
    let path = target.mount("child", &table::read_only())?;
    let refused = target.mount("child", &writable);
    same!(
        Some(expected),
        refused.err().map(|error| error.kind()),
        "the answer to a writable mount of what is mounted read-only"
    );
    demand_read_only(changes(&path))?;
    same!(1, table::count(target, "child")?, "the count");
    target.unmount("child")?;
    table::demand_unmounted(target, "child", &before)
}

pub(super) fn unknown(target: &mut Target) -> Outcome {
    target.create("one", None)?;
    let before = table::below(&target.root)?;
    for option in [
        "nosuchoption",
        "nosuchoption=1",
        "",
        "=",
        "ro=maybe",
        "nosuchoption,ro",
    ] {
        let mut request = MountRequest::default();
        request.options = vec![option.to_owned()];
        match target.mount("one", &request) {
            Ok(_) => {
                target.unmount("one")?;
                return Err(Failure::new(format!("the option `{option}` was accepted")));
            }
            Err(error) => demand!(
                matches!(
                    error.kind(),
                    ErrorKind::NotSupported | ErrorKind::InvalidArgument
                ),
                "the option `{option}` was refused as {:?}: {error}",
                error.kind()
            ),
        }
        table::demand_unmounted(target, "one", &before)?;
    }
    Ok(())
}

/// What the mount does to a script, a device and a program that changes its user.
struct Effects {
    script: io::Result<bool>,
    device: io::Result<()>,
    user: String,
}

impl Effects {
    fn of(path: &Path) -> Result<Self, Failure> {
        // By a relative name: the user may not pass through the directories above the mount.
        std::env::set_current_dir(path)?;
        let output = Command::new("./id")
            .arg("-u")
            .uid(12_345)
            .gid(12_345)
            .output();
        std::env::set_current_dir("/")?;
        let user = match output {
            Ok(output) => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
            Err(error) => error.to_string(),
        };
        Ok(Self {
            script: Command::new(path.join("script"))
                .status()
                .map(|status| status.code() == Some(7)),
            device: fs::File::open(path.join("null")).map(drop),
            user,
        })
    }
}

fn fill_for_restrictions(path: &Path) -> Outcome {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755))?;
    let executable = fs::Permissions::from_mode(0o755);
    fs::write(path.join("script"), "#!/bin/sh\nexit 7\n")?;
    fs::set_permissions(path.join("script"), executable)?;
    let null = path.join("null");
    let mode = Mode::from_bits_retain(0o666);
    mknod(&null, SFlag::S_IFCHR, mode, makedev(1, 3))?;
    let program = ["/usr/bin/id", "/bin/id"].into_iter().map(Path::new);
    let Some(program) = program.into_iter().find(|path| path.exists()) else {
        return Err(Failure::not_run("there is no program `id`: install it"));
    };
    fs::copy(program, path.join("id"))?;
    fs::set_permissions(path.join("id"), fs::Permissions::from_mode(0o4755))?;
    Ok(())
}

pub(super) fn restricted(target: &mut Target) -> Outcome {
    target.create_writable("base", None)?;
    target.within("base", fill_for_restrictions)?;
    target.create_writable("child", Some("base"))?;
    target.step("without the options")?;
    let free = target.within("child", Effects::of)?;
    demand!(
        free.script.as_ref().is_ok_and(|ran| *ran),
        "a script in an unrestricted mount: {:?}",
        free.script
    );
    for (option, flag) in [
        ("noexec", StatVfsMountFlags::NOEXEC),
        ("nodev", StatVfsMountFlags::NODEV),
        ("nosuid", StatVfsMountFlags::NOSUID),
    ] {
        target.step(&format!("with {option}"))?;
        let mut request = MountRequest::default();
        request.options = vec![option.to_owned()];
        let (flags, effects) = target.within_as("child", &request, |path| {
            let flags = rustix::fs::statvfs(path)?.f_flag;
            Ok::<_, Failure>((flags, Effects::of(path)?))
        })?;
        demand!(
            flags.contains(flag),
            "the mount with `{option}` has the flags {flags:?}"
        );
        match option {
            "noexec" => same!(
                Some(libc::EACCES),
                errno(effects.script),
                "the error number of running a script under noexec"
            ),
            "nodev" => same!(
                Some(libc::EACCES),
                errno(effects.device),
                "the error number of opening a device under nodev"
            ),
            _ => same!(
                "12345",
                effects.user,
                "the user that a setuid program has under nosuid"
            ),
        }
    }
    let outside = rustix::fs::statvfs(&target.root)?.f_flag;
    if !outside.contains(StatVfsMountFlags::NOSUID) {
        same!("0", free.user, "the user without nosuid");
    }
    if !outside.contains(StatVfsMountFlags::NODEV) {
        demand!(free.device.is_ok(), "without nodev: {:?}", free.device);
    }
    Ok(())
}

pub(super) fn label(target: &mut Target) -> Outcome {
    const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    let before = table::below(&target.root)?;
    let mut request = MountRequest::default();
    request.label = Some(LABEL.to_owned());
    let plan = target.driver.mount_plan(&layer_id("child"), &request)?;
    match &plan {
        MountPlan::Mounts(mounts) => {
            let carried = mounts.steps.iter().any(|step| match step {
                MountStep::Overlay(overlay) => overlay.label.as_deref() == Some(LABEL),
                MountStep::Filesystem { options, .. } => options
                    .iter()
                    .any(|option| option.starts_with("context=") && option.contains(LABEL)),
                _ => false,
            });
            demand!(carried, "the label is not in the plan: {plan:?}");
        }
        MountPlan::Directory(path) => {
            let path = path.display();
            demand!(
                false,
                "the label was dropped: the plan is the directory `{path}`"
            );
        }
        // The driver applies it itself, which the mount below shows.
        _ => {}
    }
    target.driver.released(&layer_id("child"))?;
    let active = Path::new("/sys/fs/selinux/enforce").exists();
    match target.mount("child", &request) {
        Ok(path) => {
            let mut value = vec![0; 4096];
            let read = rustix::fs::getxattr(path.join("plain"), "security.selinux", &mut value[..]);
            target.unmount("child")?;
            let length = read.map_err(|error| {
                Failure::new(format!(
                    "the mount with a label was granted, and its files have none: {error}"
                ))
            })?;
            let seen = String::from_utf8_lossy(&value[..length]);
            same!(
                LABEL,
                seen.trim_end_matches('\0'),
                "the label of a file in the mount"
            );
        }
        Err(error) => demand!(
            !active,
            "a label is refused although SELinux is on: {error}"
        ),
    }
    table::demand_unmounted(target, "child", &before)
}
