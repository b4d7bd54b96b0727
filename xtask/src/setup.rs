// SPDX-License-Identifier: Apache-2.0
//! Installs Debian packages that the tasks need and that are missing.

use std::process::Command;

use anyhow::{Result, bail};

use crate::run;

/// Which tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// To compile and to run the demo.
    Demo,
    /// To run every test.
    Test,
    /// To run the benchmarks too.
    All,
}

/// A program and the package that brings it.
const DEMO: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("busybox", "busybox-static"),
    ("tar", "tar"),
    ("podman", "podman"),
    ("crun", "crun"),
    ("fuse-overlayfs", "fuse-overlayfs"),
];
const TEST: &[(&str, &str)] = &[
    ("buildah", "buildah"),
    ("skopeo", "skopeo"),
    ("containers-storage", "containers-storage"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("openssl", "openssl"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkfs.ext4", "e2fsprogs"),
    ("mount", "mount"),
    ("pigz", "pigz"),
    ("zstd", "zstd"),
    ("xz", "xz-utils"),
    ("bzip2", "bzip2"),
    ("python3", "python3"),
    ("setfattr", "attr"),
    ("setcap", "libcap2-bin"),
    ("debootstrap", "debootstrap"),
];
const BENCH: &[(&str, &str)] = &[
    ("bsdtar", "libarchive-tools"),
    ("npm", "npm"),
    ("time", "time"),
    ("strace", "strace"),
];

fn wanted(need: Need) -> Vec<(&'static str, &'static str)> {
    let mut list = DEMO.to_vec();
    if need != Need::Demo {
        list.extend(TEST);
    }
    if need == Need::All {
        list.extend(BENCH);
    }
    list
}

/// The tools that are not here, as (program, package).
pub(crate) fn missing(need: Need) -> Vec<(&'static str, &'static str)> {
    wanted(need)
        .into_iter()
        .filter(|(program, _)| !run::on_path(program))
        .collect()
}

/// Installs what is missing with apt-get; as another user, says what is missing.
pub(crate) fn install(need: Need) -> Result<()> {
    let missing = missing(need);
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().map(|(_, package)| *package).collect();
    if !run::is_root() || !run::on_path("apt-get") {
        bail!(
            "these programs are missing: {}\nhint: as root on Debian, `apt-get install {}`",
            missing
                .iter()
                .map(|(program, _)| *program)
                .collect::<Vec<_>>()
                .join(" "),
            packages.join(" ")
        );
    }
    println!("installing {}", packages.join(" "));
    apt(&["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(packages);
    apt(&arguments)
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command: Command = run::command("apt-get", arguments);
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdout(std::process::Stdio::null());
    run::check(command)
}
