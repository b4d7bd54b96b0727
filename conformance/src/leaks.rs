// SPDX-License-Identifier: Apache-2.0
//! What a case may not leave behind, checked after the driver was closed.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{Site, wire::Leak};

/// How long threads and processes that were told to end may take.
const GRACE: Duration = Duration::from_secs(2);

/// The process's state around a case.
#[derive(Debug)]
pub(crate) struct Baseline {
    mounts: BTreeSet<String>,
    descriptors: usize,
    threads: usize,
    loops: BTreeSet<String>,
    places: Vec<PathBuf>,
}

impl Baseline {
    /// Looks at this process; `places` are empty directories for temporary files.
    pub(crate) fn take(places: &[&Path]) -> io::Result<Self> {
        Ok(Self {
            mounts: mounts()?,
            descriptors: entries("/proc/self/fd")?,
            threads: entries("/proc/self/task")?,
            loops: loops()?,
            places: places.iter().map(|place| (*place).to_owned()).collect(),
        })
    }

    /// What is there now and was not before.
    pub(crate) fn leaks(&self, site: &Site) -> io::Result<Vec<Leak>> {
        let mut found = Vec::new();
        let mut leak = |id: &str, what: String| {
            found.push(Leak {
                id: id.to_owned(),
                what,
            });
        };
        for mount in mounts()?.difference(&self.mounts) {
            leak("GD-LEK-001", format!("`{mount}` is still mounted"));
        }
        let open = descriptors()?;
        if open.len() > self.descriptors {
            let more = open.len() - self.descriptors;
            let names = open.join(", ");
            leak(
                "GD-LEK-002",
                format!("{more} more open files than before; open are {names}"),
            );
        }
        let root = site.root.to_string_lossy().into_owned();
        // The last mount of a device may have been detached, and goes when its last user does.
        let devices = settled(
            || {
                let mut devices = loops()?;
                devices.retain(|device| device.contains(&root) && !self.loops.contains(device));
                Ok(devices)
            },
            BTreeSet::is_empty,
        )?;
        for device in devices {
            leak("GD-LEK-003", format!("the loop device {device}"));
        }
        let (threads, processes) = settled(
            || Ok((entries("/proc/self/task")?, processes()?)),
            |(threads, processes)| *threads <= self.threads && processes.is_empty(),
        )?;
        if threads > self.threads {
            let more = threads - self.threads;
            leak("GD-LEK-005", format!("{more} more threads than before"));
        }
        for process in processes {
            leak("GD-LEK-005", format!("the process {process}"));
        }
        for place in &self.places {
            for entry in fs::read_dir(place)? {
                leak("GD-LEK-006", format!("`{}`", entry?.path().display()));
            }
        }
        Ok(found)
    }
}

/// What `look` finds, once that is in order or it had time enough to become so.
fn settled<T>(look: impl Fn() -> io::Result<T>, in_order: impl Fn(&T) -> bool) -> io::Result<T> {
    let end = Instant::now() + GRACE;
    loop {
        let found = look()?;
        if in_order(&found) || Instant::now() > end {
            return Ok(found);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Every mount's id and place, so that a mount on top of another counts.
fn mounts() -> io::Result<BTreeSet<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let place = |line: &str| {
        let mut words = line.split(' ');
        let id = words.next()?;
        Some(format!("{} (mount {id})", words.nth(3)?))
    };
    Ok(table.lines().filter_map(place).collect())
}

fn entries(directory: &str) -> io::Result<usize> {
    Ok(fs::read_dir(directory)?.count())
}

fn descriptors() -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        names.push(match fs::read_link(&path) {
            Ok(target) => target.display().to_string(),
            // The directory that is being read.
            Err(_) => path.display().to_string(),
        });
    }
    Ok(names)
}

/// Other processes of this PID namespace.
fn processes() -> io::Result<Vec<String>> {
    let own = std::process::id().to_string();
    let own_session = nix::unistd::getsid(None)?.as_raw();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(pid) = name.to_str().filter(|name| name.parse::<u32>().is_ok()) else {
            continue;
        };
        if pid == own {
            continue;
        }
        // It may end between the listing and the look at it.
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat"))
            && !ended_daemon(&stat, own_session)
        {
            let name = stat
                .split_once('(')
                .and_then(|(_, rest)| rest.rsplit_once(')'));
            found.push(format!("{pid} ({})", name.map_or("?", |(name, _)| name)));
        }
    }
    Ok(found)
}

/// Whether a line of `/proc/PID/stat` is that of a daemon that has ended: the first process of the
/// namespace inherits those and is the only one that could wait for them. A child that the driver
/// forgot to wait for is in the case's own session.
fn ended_daemon(stat: &str, own_session: i32) -> bool {
    let fields = stat.rsplit_once(") ").map(|(_, rest)| rest.split(' '));
    let mut fields = fields.into_iter().flatten();
    let (state, session) = (fields.next(), fields.nth(2));
    state == Some("Z") && session.is_some_and(|session| session.parse() != Ok(own_session))
}

/// Detaches the loop devices whose files lie below a case's root, which nobody else can have
/// attached; what is left of a driver that was killed must not stay on the machine.
///
/// The kernel tells paths from the mount on, once the case's namespace is gone: the root's own name,
/// which is drawn at random, stays in them.
pub(crate) fn detach_loops(root: &Path) -> io::Result<()> {
    let name = root.file_name().unwrap_or(root.as_os_str());
    let root = format!("/{}/", name.display());
    for device in loops()? {
        let Some((name, file)) = device.split_once(" on ") else {
            continue;
        };
        if file.contains(&root) {
            let status = std::process::Command::new("losetup")
                .args(["--detach", &format!("/dev/{name}")])
                .status()?;
            if !status.success() {
                return Err(io::Error::other(format!("cannot detach /dev/{name}")));
            }
        }
    }
    Ok(())
}

fn loops() -> io::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    let devices = match fs::read_dir("/sys/block") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        devices => devices?,
    };
    for device in devices {
        let device = device?;
        // A device without a backing file is free.
        if let Ok(file) = fs::read_to_string(device.path().join("loop/backing_file")) {
            let name = device.file_name();
            found.insert(format!("{} on {}", name.display(), file.trim()));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dead_process_of_another_session_is_no_leak() {
        assert!(ended_daemon("7 (a) b) Z 1 7 7 0 -1", 1));
        assert!(!ended_daemon("7 (a) Z 1 1 1 0 -1", 1));
        assert!(!ended_daemon("7 (a) S 1 7 7 0 -1", 1));
        assert!(!ended_daemon("", 1));
    }
}
