// SPDX-License-Identifier: Apache-2.0
//! Who keeps a dataset from being destroyed.

use std::{collections::BTreeSet, ffi::OsStr, fs, path::Path};

use plywood_plugin_sdk::toolkit::mountinfo;

/// How many processes are named.
const MOST: usize = 4;

/// Where the dataset `name` is mounted, in words; `None` when it is seen nowhere.
///
/// # Behavior
/// - Every mount namespace is looked at once, through the first process in it.
/// - What cannot be read, since its process has ended, is passed over.
pub(crate) fn of(name: &str) -> Option<String> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    let mut processes: Vec<u32> = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    processes.sort_unstable();
    for process in processes {
        let proc = Path::new("/proc").join(process.to_string());
        let Ok(namespace) = fs::read_link(proc.join("ns/mnt")) else {
            continue;
        };
        if !seen.insert(namespace) {
            continue;
        }
        let Ok(table) = fs::read(proc.join("mountinfo")) else {
            continue;
        };
        if let Some(place) = mounted_at(&table, name) {
            let command = fs::read_to_string(proc.join("comm")).unwrap_or_default();
            let command = command.trim();
            found.push(format!(
                "`{place}` as process {process} ({command}) sees it"
            ));
        }
    }
    let more = found.len().saturating_sub(MOST);
    found.truncate(MOST);
    if found.is_empty() {
        return None;
    }
    let mut text = format!("it is mounted at {}", found.join(", "));
    if more > 0 {
        text = format!("{text} and in {more} other mount namespaces");
    }
    Some(text)
}

fn mounted_at(table: &[u8], name: &str) -> Option<String> {
    let mounts = mountinfo::parse(table).ok()?;
    let mount = mounts
        .iter()
        .find(|mount| mount.fstype == "zfs" && mount.source == OsStr::new(name))?;
    Some(mount.target.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dataset_is_found_by_its_name_alone() {
        let table =
            b"36 22 0:31 / /a rw - zfs tank/c/x rw,xattr\n37 22 0:32 / /b rw - tmpfs x rw\n";
        assert_eq!(mounted_at(table, "tank/c/x").as_deref(), Some("/a"));
        assert_eq!(mounted_at(table, "tank/c"), None);
        assert_eq!(mounted_at(table, "x"), None);
        assert_eq!(of("no-such-pool/dataset"), None);
    }
}
