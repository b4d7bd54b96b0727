// SPDX-License-Identifier: Apache-2.0
//! Mounts by a FUSE program, fuse-overlayfs above all.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use plywood_plugin_sdk::{DriverError, DriverErrorCode, IdMap, IdMaps, Result};
use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount_remount, unmount},
};

use crate::mount::{Options, Stack, is_flag};

/// The program that is used when the kernel cannot do it.
pub(crate) const FUSE_OVERLAYFS: &str = "fuse-overlayfs";

/// Whether the program can be started, from wherever the system finds programs.
pub(crate) fn is_installed(program: &str) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// What is written after `-o`.
///
/// # Errors
/// A path with `:` or `,` cannot be written there.
///
/// # Compatibility
/// `get` and `optsAppendMappings` in `drivers/overlay/overlay.go`, but for a stray `:` in the id
/// maps.
pub(crate) fn data(
    home: &Path,
    stack: &Stack,
    options: &Options,
    label: Option<&str>,
    id_maps: &IdMaps,
    force_mask: bool,
) -> Result<String> {
    let shown = |path: &Path| {
        let path = home.join(path);
        match path.to_str() {
            Some(text) if !text.contains([':', ',']) => Ok(text.to_owned()),
            _ => {
                let path = path.display();
                let message = format!("the mount program cannot be given the path `{path}`");
                Err(DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message)
                    .object(path.to_string())
                    .remedy("use a graph root without `:` and `,` in its path"))
            }
        }
    };
    let lowers = stack.lowers.iter().map(|path| shown(path));
    let lowers = lowers.collect::<Result<Vec<_>>>()?.join(":");
    let mut data = format!("lowerdir={lowers}");
    if let Some((upper, work)) = &stack.upper_and_work {
        data = data + ",upperdir=" + &shown(upper)? + ",workdir=" + &shown(work)?;
    }
    for option in options.list.iter().filter(|option| !is_flag(option)) {
        data = data + "," + option;
    }
    if let Some(label) = label.filter(|label| !label.is_empty()) {
        data = data + ",context=\"" + label + "\"";
    }
    data += &mapping("uid", &id_maps.uids);
    data += &mapping("gid", &id_maps.gids);
    if force_mask {
        data += ",xattr_permissions=2";
    }
    Ok(data)
}

fn mapping(kind: &str, maps: &[IdMap]) -> String {
    match maps {
        [] => String::new(),
        [map] if map.size == 1 => format!(",squash_to_{kind}={}", map.host_id),
        maps => {
            let triple = |map: &IdMap| format!("{}:{}:{}", map.container_id, map.host_id, map.size);
            let triples: Vec<String> = maps.iter().map(triple).collect();
            format!(",{kind}mapping={}", triples.join(":"))
        }
    }
}

/// Runs the program, and adds the flags that only the kernel can set.
pub(crate) fn mount(
    program: &Path,
    home: &Path,
    target: &Path,
    data: &str,
    options: &Options,
) -> Result<()> {
    let failed = |reason: String| {
        let message = format!("using mount program {}: {reason}", program.display());
        DriverError::new(DriverErrorCode::IO, message).object(target.display().to_string())
    };
    let output = Command::new(program)
        .arg("-o")
        .arg(data)
        .arg(target)
        .current_dir(home)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let text = match text.trim() {
            "" => "<stderr empty>",
            text => text,
        };
        return Err(failed(format!("{text}: {}", output.status)));
    }
    if let Some(option) = ignored(&String::from_utf8_lossy(&output.stderr), &options.list) {
        unmount_target(target)?;
        let message = format!("mount program {} does not know it", program.display());
        return Err(DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message)
            .object(option)
            .remedy("leave it out of the mount options"));
    }
    let mut flags = flags(&options.list);
    if options.read_only {
        flags |= MountFlags::RDONLY;
    }
    if flags.is_empty() {
        return Ok(());
    }
    match mount_remount(target, flags | MountFlags::BIND, c"") {
        Ok(()) => Ok(()),
        Err(error) => {
            unmount_target(target)?;
            Err(failed(format!("cannot set the mount's flags: {error}")))
        }
    }
}

/// The first of `options` that the program says it has ignored.
///
/// # Compatibility
/// The text is that of fuse-overlayfs (`fuse_opt_proc` in its `main.c`); it names options of its
/// own, too.
fn ignored<'a>(errors: &str, options: &'a [String]) -> Option<&'a str> {
    let names = errors
        .lines()
        .filter_map(|line| line.trim().strip_prefix("unknown argument ignored: "));
    // The driver itself adds `userxattr`, which concerns the kernel's overlay alone.
    let mut names = names.filter(|name| *name != "userxattr");
    names.find_map(|name| options.iter().map(String::as_str).find(|own| own == &name))
}

fn flags(options: &[String]) -> MountFlags {
    options
        .iter()
        .map(|option| match option.as_str() {
            "ro" => MountFlags::RDONLY,
            "nodev" => MountFlags::NODEV,
            "nosuid" => MountFlags::NOSUID,
            "noexec" => MountFlags::NOEXEC,
            "noatime" => MountFlags::NOATIME,
            "nodiratime" => MountFlags::NODIRATIME,
            "relatime" => MountFlags::RELATIME,
            "strictatime" => MountFlags::STRICTATIME,
            _ => MountFlags::empty(),
        })
        .collect()
}

/// Unmounts what the program has mounted; nothing mounted is no error.
pub(crate) fn unmount_target(target: &Path) -> Result<()> {
    for helper in ["fusermount3", "fusermount"] {
        let status = Command::new(helper)
            .arg("-u")
            .arg(target)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if status.is_ok_and(|status| status.success()) {
            return Ok(());
        }
    }
    // A lazy unmount does not wait for the program to write what it has.
    if let Ok(dir) = std::fs::File::open(target) {
        // A file system that cannot be synced is unmounted all the same.
        let _ = rustix::fs::syncfs(&dir);
    }
    match unmount(target, UnmountFlags::DETACH) {
        Ok(()) | Err(Errno::INVAL | Errno::NOENT) => Ok(()),
        Err(error) => Err(DriverError::io("cannot unmount", target, &error.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stack(upper: bool) -> Stack {
        Stack {
            lowers: vec!["l/AAA".into(), "/other/overlay/l/BBB".into()],
            upper_and_work: upper.then(|| ("/h/id/diff".into(), "/h/id/work".into())),
            target: "/h/id/merged".into(),
        }
    }

    fn options(list: &[&str]) -> Options {
        Options {
            list: list.iter().map(|&option| option.to_owned()).collect(),
            read_only: false,
            warning: None,
        }
    }

    #[test]
    fn data_has_the_form_that_containers_storage_gives() {
        let maps = IdMaps {
            uids: vec![
                IdMap {
                    container_id: 0,
                    host_id: 1000,
                    size: 1,
                },
                IdMap {
                    container_id: 1,
                    host_id: 100_000,
                    size: 65536,
                },
            ],
            gids: vec![IdMap {
                container_id: 0,
                host_id: 7,
                size: 1,
            }],
        };
        let home = Path::new("/h");
        let given = options(&["nodev", "fsync=0", "volatile"]);
        assert_eq!(
            data(home, &stack(true), &given, Some("a:b"), &maps, true).unwrap(),
            "lowerdir=/h/l/AAA:/other/overlay/l/BBB,upperdir=/h/id/diff,workdir=/h/id/work,fsync=0,\
             volatile,context=\"a:b\",uidmapping=0:1000:1:1:100000:65536,squash_to_gid=7,\
             xattr_permissions=2"
        );
        let none = IdMaps::default();
        assert_eq!(
            data(home, &stack(false), &options(&[]), None, &none, false).unwrap(),
            "lowerdir=/h/l/AAA:/other/overlay/l/BBB"
        );
        let bad = data(
            Path::new("/h:i"),
            &stack(true),
            &options(&[]),
            None,
            &none,
            false,
        );
        assert_eq!(bad.unwrap_err().code, DriverErrorCode::INVALID_ARGUMENT);
    }

    #[test]
    fn a_failing_program_is_reported_with_its_words() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, "#!/bin/sh\necho \"got $2\" >&2\nexit 3\n").unwrap();
        std::fs::set_permissions(
            &program,
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let error = mount(
            &program,
            dir.path(),
            dir.path(),
            "lowerdir=x",
            &options(&[]),
        )
        .unwrap_err();
        assert_eq!(
            error.message,
            format!(
                "using mount program {}: got lowerdir=x: exit status: 3",
                program.display()
            )
        );
        let missing = mount(
            Path::new("/nonex"),
            dir.path(),
            dir.path(),
            "",
            &options(&[]),
        );
        assert!(missing.unwrap_err().message.contains("No such file"));
    }
}
