// SPDX-License-Identifier: Apache-2.0
//! What the process itself would keep: mounts, files, threads, memory, watches.

use std::{collections::BTreeSet, fs, io, os::unix::process::ExitStatusExt as _, path::Path};

use plywood::{ErrorKind, sdk::toolkit::mountinfo};
use rustix::process::{Resource, Rlimit, setrlimit};

use super::{nothing_left, work};
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, case, demand, same},
    cases::{con::residue, direct},
    wire,
};

pub(in crate::cases) const CASES: &[Case] = &[
    bare("GD-LEK-001", mounts),
    bare("GD-LEK-002", descriptors),
    bare("GD-LEK-005", processes),
    bare("GD-LEK-006", files).roles(&[("work", work_alone)]),
    bare("GD-LEK-007", memory).roles(&[("rounds", rounds)]),
    bare("GD-LEK-008", home_mount),
    bare("GD-LEK-012", core_dumps).roles(&[("work", work_alone)]),
    case("GD-LEK-014", watches_and_keys),
];

fn mount_ids() -> Result<BTreeSet<(u64, String)>, Failure> {
    let mounts = mountinfo::mounts()?.into_iter();
    Ok(mounts
        .map(|mount| (mount.id, mount.target.display().to_string()))
        .collect())
}

fn mounts(site: &Site) -> Outcome {
    let target = site.open()?;
    let open = mount_ids()?;
    work(&target)?;
    let now = mount_ids()?;
    same!(
        open,
        now,
        "mounts when the driver was opened, and after everyday work that unmounted all it mounted"
    );
    target.close()?;
    nothing_left(&site.at(site.scratch("second")?), "GD-LEK-001")
}

fn descriptors(site: &Site) -> Outcome {
    let count = || -> Result<usize, Failure> { Ok(fs::read_dir("/proc/self/fd")?.count()) };
    let target = site.open()?;
    work(&target)?;
    let before = count()?;
    for _ in 0..3 {
        work(&target)?;
    }
    same!(
        before,
        count()?,
        "open files after one round of everyday work, and after three more"
    );
    target.close()?;
    nothing_left(&site.at(site.scratch("second")?), "GD-LEK-002")
}

fn processes(site: &Site) -> Outcome {
    nothing_left(site, "GD-LEK-005")?;
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path().join("stat");
        // Not every entry is a process.
        let Ok(stat) = fs::read_to_string(&path) else {
            continue;
        };
        let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
        demand!(
            state != Some("Z"),
            "a dead process is waited for by nobody: {stat}"
        );
    }
    Ok(())
}

/// Everyday work in a process of its own.
fn work_alone(site: &Site, arguments: &[String]) -> Outcome {
    if arguments
        .first()
        .is_some_and(|word| word == "with-core-dumps")
    {
        let all = Rlimit {
            current: None,
            maximum: None,
        };
        setrlimit(Resource::Core, all)?;
    }
    let target = site.open()?;
    work(&target)?;
    target.close()?;
    Ok(())
}

/// Runs [`work_alone`] where files that are dropped carelessly would be seen.
fn work_in(site: &Site, arguments: &[&str], place: &Path) -> Outcome {
    let (mut command, messages) = site.role("work", arguments)?;
    command.current_dir(place).env("TMPDIR", place);
    let status = command.status()?;
    let ended = wire::read(&messages)?.verdict;
    demand!(
        status.signal().is_none(),
        "everyday work in a process of its own was killed: {status}"
    );
    let passed = ended
        .as_ref()
        .is_some_and(|end| end.status == wire::Status::Pass);
    demand!(
        passed,
        "everyday work in a process of its own failed: {}",
        ended.map(|end| end.message).unwrap_or_default()
    );
    Ok(())
}

/// What is in a directory; nothing, when it is not there.
fn names(directory: &Path) -> Result<Vec<String>, Failure> {
    let mut names = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
        entries => entries?,
    };
    for entry in entries {
        names.push(entry?.file_name().display().to_string());
    }
    names.sort();
    Ok(names)
}

fn files(site: &Site) -> Outcome {
    let place = site.scratch("temporary")?;
    work_in(site, &[], &place)?;
    let before = (residue(site)?, names(&site.run_dir()?)?, names(&site.root)?);
    work_in(site, &[], &place)?;
    let dropped = names(&place)?;
    demand!(
        dropped.is_empty(),
        "work left in its current directory, which is also TMPDIR: {dropped:?}"
    );
    same!(
        before.0,
        residue(site)?,
        "the home after one round of work that removed all layers, and after another"
    );
    same!(
        before.1,
        names(&site.run_dir()?)?,
        "the same for the run directory"
    );
    same!(before.2, names(&site.root)?, "the same beside the store");
    let name = site.source.name()?;
    let home = site.home()?;
    let graph_root = home.parent().unwrap_or(&home);
    same!(
        vec![name.clone(), format!("{name}-layers")],
        names(graph_root)?,
        "what is in the graph root"
    );
    Ok(())
}

fn memory(site: &Site) -> Outcome {
    site.in_peer("rounds", &[])
}

fn resident() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages = text
        .split(' ')
        .nth(1)
        .and_then(|word| word.parse::<u64>().ok());
    let pages = pages.ok_or_else(|| Failure::harness(format!("no number in {text:?}")))?;
    Ok(pages * rustix::param::page_size() as u64)
}

fn rounds(site: &Site, _: &[String]) -> Outcome {
    const MOST: u64 = 8 << 20;
    let mut target = site.open()?;
    target.without_sync()?;
    let round = |number: usize| -> Outcome {
        let id = format!("round-{}", number % 7);
        direct::create(&target, &id, None)?;
        direct::within(&target, &id, |path| Ok(fs::write(path.join("file"), "x")?))?;
        Ok(target
            .driver
            .remove(&crate::target::layer_id(&id))
            .map(drop)?)
    };
    for number in 0..100 {
        round(number)?;
    }
    let before = resident()?;
    for number in 0..1000 {
        round(number)?;
    }
    let growth = resident()?.saturating_sub(before);
    target.count("growth_bytes", growth)?;
    demand!(
        growth < MOST,
        "1000 rounds of create, mount, write, unmount and remove made the process grow by {} KiB; \
         8192 KiB are allowed",
        growth >> 10
    );
    target.close()?;
    Ok(())
}

fn home_mount(site: &Site) -> Outcome {
    let at_home = || -> Result<Vec<String>, Failure> {
        let home = site.home()?;
        let mounts = mountinfo::mounts()?.into_iter().map(|mount| mount.target);
        Ok(mounts
            .filter(|place| place.starts_with(&home))
            .map(|place| place.display().to_string())
            .collect())
    };
    let first = site.open()?;
    first.create("one", None)?;
    let second = site.open()?;
    target_works(&second)?;
    // With a layer mounted, closing may be refused, and takes nothing away.
    first.within("one", |path| -> Outcome {
        fs::write(path.join("before"), "x")?;
        match first.driver.close() {
            Err(error) if error.kind() == ErrorKind::Busy => {}
            closed => closed?,
        }
        demand!(
            path.join("before").exists(),
            "closing the driver took a mounted layer away"
        );
        Ok(fs::write(path.join("after"), "x")?)
    })?;
    let manifest = first.manifest("one")?;
    demand!(
        manifest.has("before") && manifest.has("after"),
        "what was written around the closing is lost: {manifest}"
    );
    first.close()?;
    // The other instance goes on.
    target_works(&second)?;
    second.close()?;
    let left = at_home()?;
    demand!(left.is_empty(), "still mounted at the home: {left:?}");
    Ok(())
}

fn target_works(target: &Target) -> Outcome {
    target.create_writable("probe", None)?;
    target.within("probe", |path| {
        Ok::<_, Failure>(fs::write(path.join("x"), "x")?)
    })?;
    demand!(
        target.manifest("probe")?.has("x"),
        "what was written is lost"
    );
    Ok(target.delete("probe")?)
}

fn core_dumps(site: &Site) -> Outcome {
    let place = site.scratch("here")?;
    work_in(site, &["with-core-dumps"], &place)?;
    let dumps: Vec<_> = [&place, &site.root]
        .into_iter()
        .map(|place| names(place))
        .collect::<Result<Vec<_>, _>>()?
        .concat()
        .into_iter()
        .filter(|name| name.starts_with("core"))
        .collect();
    demand!(dumps.is_empty(), "core dumps: {dumps:?}");
    Ok(())
}

/// Keys of this user, but for keyrings, which come and go with logins.
fn keys() -> BTreeSet<String> {
    let Ok(text) = fs::read_to_string("/proc/keys") else {
        // A kernel without keys.
        return BTreeSet::new();
    };
    let mut found = BTreeSet::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [id, _, _, _, _, _, _, kind, ..] = words[..]
            && kind != "keyring"
        {
            found.insert(format!("{id} ({kind})"));
        }
    }
    found
}

fn watches_and_keys(target: &mut Target) -> Outcome {
    let before = keys();
    work(target)?;
    let after = keys();
    let new: Vec<_> = after.difference(&before).collect();
    demand!(new.is_empty(), "keys that were not there before: {new:?}");
    target.driver.close()?;
    for entry in fs::read_dir("/proc/self/fd")? {
        // The directory that is read is among them.
        let Ok(file) = fs::read_link(entry?.path()) else {
            continue;
        };
        let file = file.display().to_string();
        demand!(
            !file.contains("inotify") && !file.contains("fanotify"),
            "a watch is still open: {file}"
        );
    }
    Ok(())
}
