// SPDX-License-Identifier: Apache-2.0
//! What a library could change in the process that it is loaded into.

use std::{collections::BTreeMap, fs, io, path::Path};

/// The parts of `/proc/thread-self/status` that a library could change.
const STATUS: &[&str] = &[
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
];

const NAMESPACES: &[&str] = &["mnt", "user", "pid", "net", "ipc", "uts", "cgroup"];

/// The process's and the calling thread's state, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct State(BTreeMap<String, String>);

impl State {
    /// Looks at the calling thread.
    pub(super) fn now() -> io::Result<Self> {
        let own = Path::new("/proc/thread-self");
        let mut state = BTreeMap::new();
        for link in ["cwd", "root"] {
            let target = fs::read_link(own.join(link))?;
            state.insert(link.to_owned(), target.display().to_string());
        }
        for name in NAMESPACES {
            let target = fs::read_link(own.join("ns").join(name))?;
            let name = format!("namespace {name}");
            state.insert(name, target.display().to_string());
        }
        for line in fs::read_to_string(own.join("status"))?.lines() {
            if let Some((name, value)) = line.split_once(':')
                && STATUS.contains(&name)
            {
                let value = if name.starts_with("Sig") {
                    without_reserved(value.trim())
                } else {
                    value.trim().to_owned()
                };
                state.insert(name.to_owned(), value);
            }
        }
        for line in fs::read_to_string(own.join("limits"))?.lines().skip(1) {
            let (name, value) = line.split_at(line.len().min(26));
            state.insert(format!("limit {}", name.trim()), value.trim().to_owned());
        }
        for (name, value) in std::env::vars_os() {
            let name = format!("variable {}", name.display());
            state.insert(name, value.display().to_string());
        }
        Ok(Self(state))
    }

    /// What differs, in words.
    pub(super) fn changes(&self, now: &Self) -> Vec<String> {
        let names = self.0.keys().chain(now.0.keys());
        let names: std::collections::BTreeSet<_> = names.collect();
        names
            .into_iter()
            .filter_map(|name| {
                let (old, new) = (self.0.get(name), now.0.get(name));
                (old != new).then(|| format!("{name}: {old:?} became {new:?}"))
            })
            .collect()
    }
}

/// A set of signals without those that the C library keeps to itself: it takes them over when the
/// first thread is started.
fn without_reserved(set: &str) -> String {
    const RESERVED: u128 = 1 << (32 - 1) | 1 << (33 - 1) | 1 << (34 - 1);
    let number = u128::from_str_radix(set, 16).map(|set| set & !RESERVED);
    number.map_or_else(|_| set.to_owned(), |set| format!("{set:x}"))
}

/// The threads of this process and the processes that it started.
pub(super) fn company() -> io::Result<(usize, Vec<String>)> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    let mut children = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        // Needs CONFIG_PROC_CHILDREN; a thread may end while it is looked at.
        if let Ok(list) = fs::read_to_string(task?.path().join("children")) {
            children.extend(list.split_whitespace().map(str::to_owned));
        }
    }
    Ok((threads, children))
}

/// The open descriptors, by number and what they refer to.
pub(super) fn descriptors() -> io::Result<Vec<String>> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let path = entry?.path();
        // The directory that is being read is gone when it is looked at.
        if let Ok(target) = fs::read_link(&path)
            && !target.starts_with("/proc")
        {
            open.push(format!("{} ({})", path.display(), target.display()));
        }
    }
    open.sort();
    Ok(open)
}

/// The process's timers, where the kernel shows them.
pub(super) fn timers() -> usize {
    fs::read_to_string("/proc/self/timers").map_or(0, |text| text.matches("ID:").count())
}
