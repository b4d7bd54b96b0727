// SPDX-License-Identifier: Apache-2.0
//! What the machine would keep: devices, and complaints of the kernel.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::OpenOptionsExt as _,
};

use plywood::sdk::toolkit::mountinfo;

use super::{nothing_left, work};
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, case, demand},
};

pub(in crate::cases) const CASES: &[Case] =
    &[bare("GD-LEK-003", devices), case("GD-LEK-011", kernel_log)];

/// Devices that a driver may make by the way; loop devices are told apart by their files.
fn made_devices() -> Result<BTreeSet<String>, Failure> {
    let mut found = BTreeSet::new();
    for device in fs::read_dir("/sys/block")? {
        let name = device?.file_name().display().to_string();
        if ["dm-", "zd", "nbd"]
            .iter()
            .any(|kind| name.starts_with(kind))
        {
            let size = fs::read_to_string(format!("/sys/block/{name}/size"));
            // One without a size is not in use.
            if size.is_ok_and(|size| size.trim() != "0") {
                found.insert(name);
            }
        }
    }
    Ok(found)
}

fn devices(site: &Site) -> Outcome {
    let before = made_devices()?;
    nothing_left(site, "GD-LEK-003")?;
    let after = made_devices()?;
    let new: Vec<_> = after.difference(&before).collect();
    demand!(
        new.is_empty(),
        "devices that were not there before: {new:?}"
    );
    Ok(())
}

/// The kernel's messages from now on.
struct KernelLog(fs::File);

impl KernelLog {
    fn begin() -> Result<Self, Failure> {
        let mut file = fs::OpenOptions::new()
            .read(true)
            .custom_flags(nix::libc::O_NONBLOCK)
            .open("/dev/kmsg")
            .map_err(|error| {
                Failure::not_run(format!(
                    "/dev/kmsg cannot be read, give access to it: {error}"
                ))
            })?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self(file))
    }

    fn lines(&mut self) -> Result<Vec<String>, Failure> {
        let mut lines = Vec::new();
        let mut record = [0; 8192];
        loop {
            match self.0.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    let text = text.split_once(';').map_or(&*text, |(_, text)| text);
                    lines.push(text.trim_end().to_owned());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(lines),
                // Older ones were overwritten meanwhile.
                Err(error) if error.raw_os_error() == Some(nix::libc::EPIPE) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// What a kernel says when something is wrong with itself.
const ALARMS: [&str; 8] = [
    "WARNING: ",
    "BUG: ",
    "kernel BUG at",
    "Oops",
    "general protection fault",
    "refcount_t: ",
    "blocked for more than",
    "possible circular locking",
];

/// What it says of a file system, together with the device's name.
const FS_ALARMS: [&str; 6] = [
    "error",
    "orruption",
    "critical",
    "Unmount and run",
    "shut down",
    "I/O",
];

fn is_alarm(line: &str, device: Option<&str>) -> bool {
    let names_device = device.is_some_and(|device| {
        line.contains(&format!("({device})")) || line.contains(&format!("device {device}"))
    });
    ALARMS.iter().any(|alarm| line.contains(alarm))
        || names_device && FS_ALARMS.iter().any(|alarm| line.contains(alarm))
}

fn kernel_log(target: &mut Target) -> Outcome {
    let device = mountinfo::mounts()?
        .into_iter()
        .filter(|mount| target.root.starts_with(&mount.target))
        .max_by_key(|mount| mount.target.components().count())
        .and_then(|mount| {
            mount
                .source
                .to_str()?
                .strip_prefix("/dev/")
                .map(str::to_owned)
        });
    let mut log = KernelLog::begin()?;
    work(target)?;
    let mut alarms = log.lines()?;
    alarms.retain(|line| is_alarm(line, device.as_deref()));
    demand!(
        alarms.is_empty(),
        "during everyday work the kernel said: {}",
        alarms.join("; ")
    );
    demand!(
        is_alarm("EXT4-fs error (device loop9): ext4_lookup", Some("loop9"))
            && is_alarm("WARNING: CPU: 1 PID: 2 at fs/x.c:1", None)
            && !is_alarm("EXT4-fs (loop9): mounted filesystem", Some("loop9")),
        "the words that are looked for are not found"
    );
    Ok(())
}
