// SPDX-License-Identifier: Apache-2.0
//! Opening a driver, on roots of every kind.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    unistd::{Gid, Uid, setgroups, setresgid, setresuid},
};
use plywood::{
    Error, ErrorKind,
    plugin::{DriverHandle, load_plugin},
    sdk::CreateRequest,
};

use super::{abi::life, lifecycle::sample};
use crate::{
    Case, Site, Source, Target,
    case::{Failure, Outcome, bare, case, demand, same},
    manifest,
    scratch::Size,
    target::layer_id,
    wire,
};

pub(super) const CASES: &[Case] = &[
    bare("GD-INI-001", fresh_root),
    bare("GD-INI-002", other_file_systems),
    bare("GD-INI-003", missing_programs).roles(&[("use", use_or_refuse)]),
    bare("GD-INI-004", unprivileged).roles(&[("use", use_unprivileged)]),
    case("GD-INI-005", read_only),
    case("GD-INI-006", foreign_files),
    case("GD-INI-008", full).on_disk(),
    bare("GD-INI-009", awkward_paths),
    bare("GD-INI-010", long_path),
    bare("GD-INI-011", symlinked_root),
    bare("GD-INI-012", relative_root),
    case("GD-INI-013", permissions),
    bare("GD-INI-014", first_together).roles(&[("first", first)]),
];

fn fresh_root(site: &Site) -> Outcome {
    let home = site.home()?;
    demand!(!home.exists(), "the suite's root is not empty");
    let target = site.open()?;
    demand!(
        home.is_dir(),
        "opening made no home at `{}`",
        home.display()
    );
    demand!(
        !target.driver.exists(&layer_id("layer"))?,
        "a layer is there"
    );
    if target.driver.capabilities().list {
        same!(0, target.driver.list()?.len(), "how many layers are listed");
    }
    let reclaimed = target.driver.recover()?;
    demand!(
        reclaimed.is_empty(),
        "there was something to reclaim: {reclaimed:?}"
    );
    target.close()?;
    Ok(())
}

/// Works end to end, or is refused as unsuitable with a remedy.
fn works_or_unsuitable(site: &Site, place: &str) -> Outcome {
    let target = match site.open() {
        Ok(target) => target,
        Err(error) => return unsuitable(&error, place),
    };
    life(&target, "one").map_err(|failure| Failure {
        text: format!("on {place} it opened, and then: {}", failure.text),
        ..failure
    })?;
    target.close()?;
    Ok(())
}

fn unsuitable(error: &Error, place: &str) -> Outcome {
    same!(
        ErrorKind::DriverUnavailable,
        error.kind(),
        "the kind of the refusal on {place}: {error}"
    );
    demand!(
        error
            .remedy()
            .is_some_and(|remedy| !remedy.trim().is_empty()),
        "the refusal on {place} has no remedy: {error}"
    );
    Ok(())
}

/// A mount that ends with this value.
struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        // The case's own mount namespace takes what is left with it.
        let _gone = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

fn other_file_systems(site: &Site) -> Outcome {
    let memory = site.scratch("memory")?;
    mount(
        Some("tmpfs"),
        &memory,
        Some("tmpfs"),
        MsFlags::empty(),
        Some("mode=0755"),
    )?;
    let memory = Mounted(memory);
    works_or_unsuitable(&site.at(memory.0.join("root")), "tmpfs")?;
    let [lower, upper, work] = ["lower", "upper", "work"].map(|name| memory.0.join(name));
    for directory in [&lower, &upper, &work] {
        fs::create_dir(directory)?;
    }
    let shown = |path: &Path| path.display().to_string();
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        shown(&lower),
        shown(&upper),
        shown(&work)
    );
    let merged = site.scratch("merged")?;
    let fstype = Some("overlay");
    mount(
        fstype,
        &merged,
        fstype,
        MsFlags::empty(),
        Some(&options[..]),
    )?;
    let merged = Mounted(merged);
    works_or_unsuitable(
        &site.at(merged.0.join("root")),
        "an overlay of other directories",
    )?;
    Ok(())
}

fn missing_programs(site: &Site) -> Outcome {
    let nowhere = site.scratch("nowhere")?;
    let (mut command, messages) = site.role("use", &[])?;
    command.env("PATH", &nowhere);
    crate::site::Peer::start(command, messages)?.join()?;
    same!(
        0,
        fs::read_dir(&nowhere)?.count(),
        "what was made on the search path"
    );
    Ok(())
}

fn use_or_refuse(site: &Site, _: &[String]) -> Outcome {
    works_or_unsuitable(site, "a machine without programs")
}

/// The user whom nothing belongs to.
const NOBODY: u32 = 65534;

fn unprivileged(site: &Site) -> Outcome {
    // Where every user can go: the suite's own directories are closed to others.
    let public = Path::new("/mnt");
    if !public.is_dir() {
        return Err(Failure::not_run("there is no directory /mnt to mount on"));
    }
    let own = site.scratch("own")?;
    chown(&own, Some(NOBODY), Some(NOBODY))?;
    let none = None::<&str>;
    mount(Some(&own), public, none, MsFlags::MS_BIND, none)?;
    let _mounted = Mounted(public.to_owned());
    let before = fs::read_to_string("/proc/self/mountinfo")?;
    site.in_peer("use", &["/mnt"])?;
    let after = fs::read_to_string("/proc/self/mountinfo")?;
    same!(
        before,
        after,
        "the mounts before and after an unprivileged use"
    );
    Ok(())
}

fn use_unprivileged(site: &Site, words: &[String]) -> Outcome {
    let public = words
        .first()
        .ok_or_else(|| Failure::harness("no directory is named"))?;
    // While the file can still be reached; it stays loaded.
    let loaded = match &site.source {
        Source::Plugin(path) => Some(load_plugin(path)?),
        Source::Embedded(_) => None,
    };
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    setgroups(&[])?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    let request = site.at(public).request()?;
    let opened = match loaded {
        Some(loaded) => {
            let driver = loaded.open(&request).map_err(Error::from);
            driver.map(|driver| DriverHandle::from_driver(loaded.name(), driver))
        }
        None => site.driver_with(request),
    };
    let orderly = |error: &Error| {
        matches!(
            error.kind(),
            ErrorKind::Permission | ErrorKind::DriverUnavailable
        )
    };
    let driver = match opened {
        Ok(driver) => driver,
        Err(error) => {
            demand!(
                orderly(&error),
                "the refusal is {:?}: {error}",
                error.kind()
            );
            return Ok(());
        }
    };
    let id = layer_id("layer");
    match driver.create(&CreateRequest::new(id.clone(), None)) {
        Ok(()) => {
            demand!(driver.exists(&id)?, "the layer that was made is not there");
            driver.remove(&id)?;
        }
        Err(error) => demand!(
            orderly(&error) && !driver.exists(&id)?,
            "the refusal to make a layer is {:?}: {error}",
            error.kind()
        ),
    }
    driver.close()?;
    Ok(())
}

fn read_only(target: &mut Target) -> Outcome {
    let small = target.small(Size::mib(64))?;
    small.put("layer", None, &sample())?;
    let content = small.manifest("layer")?;
    let root = small.root.clone();
    let (site, filesystem) = small.close()?;
    let filesystem = filesystem.ok_or_else(|| Failure::harness("it has no file system"))?;
    let before = manifest::of(&root)?;
    filesystem.remount(true)?;
    let refused = |error: &Error, what: &str| {
        same!(
            ErrorKind::ReadOnlyFilesystem,
            error.kind(),
            "the kind of the refusal of {what}: {error}"
        );
        Ok::<_, Failure>(())
    };
    match site.driver() {
        Err(error) => refused(&error, "opening")?,
        Ok(driver) => {
            let (id, new) = (layer_id("layer"), layer_id("new"));
            demand!(driver.exists(&id)?, "the layer is not seen");
            driver.metadata(&id)?;
            driver.usage(&id)?;
            let made = driver.create(&CreateRequest::new(new.clone(), None));
            let Err(error) = made else {
                return Err(Failure::new("a layer was made on a read-only file system"));
            };
            refused(&error, "making a layer")?;
            let Err(error) = driver.remove(&id) else {
                return Err(Failure::new(
                    "a layer was removed from a read-only file system",
                ));
            };
            refused(&error, "removing a layer")?;
            driver.close()?;
        }
    }
    filesystem.remount(false)?;
    let differences = before.differences(&manifest::of(&root)?);
    demand!(
        differences.is_empty(),
        "what is on disk changed: {differences:?}"
    );
    let again = site.open()?;
    let differences = content.differences(&again.manifest("layer")?);
    demand!(differences.is_empty(), "the layer changed: {differences:?}");
    again.close()?;
    Ok(())
}

fn foreign_files(target: &mut Target) -> Outcome {
    let run_dir = target.run_dir()?;
    fs::create_dir_all(&run_dir)?;
    let places = [target.root.join("graph"), target.home(), run_dir];
    let mut planted = Vec::new();
    for place in &places {
        let directory = place.join("lost+found");
        fs::create_dir(&directory)?;
        let inside = directory.join("#12");
        let file = place.join("README");
        let link = place.join("link");
        symlink(target.root.join("canary"), &link)?;
        for path in [inside, file] {
            fs::write(&path, "somebody else's")?;
            planted.push(path);
        }
        planted.push(link);
    }
    target.put("one", None, &sample())?;
    life(target, "two")?;
    target.driver.recover()?;
    if target.driver.capabilities().list {
        same!(
            [layer_id("one")][..],
            target.driver.list()?[..],
            "the layers that are listed"
        );
    }
    let again = target.reopened()?;
    life(&again, "three")?;
    again.delete("one")?;
    again.close()?;
    for path in planted {
        demand!(
            path.symlink_metadata().is_ok(),
            "`{}` was there before and is gone",
            path.display()
        );
        if !path.is_symlink() {
            same!(
                "somebody else's",
                fs::read_to_string(&path)?,
                "what is in `{}`",
                path.display()
            );
        }
    }
    Ok(())
}

fn full(target: &mut Target) -> Outcome {
    let small = target.small(Size::mib(64))?;
    let (site, filesystem) = small.close()?;
    let filesystem = filesystem.ok_or_else(|| Failure::harness("it has no file system"))?;
    for name in ["graph", "run"] {
        plywood::sdk::toolkit::remove_tree(&site.root.join(name))?;
    }
    filesystem.fill(0)?;
    match site.driver() {
        Ok(driver) => driver.close()?,
        Err(error) => same!(
            ErrorKind::NoSpace,
            error.kind(),
            "the kind of the refusal on a full file system: {error}"
        ),
    }
    filesystem.unfill()?;
    let again = site.open()?;
    life(&again, "one")?;
    again.close()?;
    Ok(())
}

fn awkward_paths(site: &Site) -> Outcome {
    for name in [
        "with space",
        "caf\u{e9} \u{65e5}\u{672c}",
        "colon:colon",
        "comma,comma=equals",
        "back\\slash",
        "quote'\"quote",
        "new\nline",
        "tab\there",
        "percent%20",
        "-dash",
        "\u{202e}reversed",
    ] {
        let root = site.root.join("awkward").join(name);
        fs::create_dir_all(&root)?;
        let target = match site.at(&root).open() {
            Ok(target) => target,
            Err(error) => {
                same!(
                    ErrorKind::InvalidArgument,
                    error.kind(),
                    "the kind of the refusal of the root {name:?}: {error}"
                );
                continue;
            }
        };
        life(&target, "one").map_err(|failure| Failure {
            text: format!("below a directory called {name:?}: {}", failure.text),
            ..failure
        })?;
        target.close()?;
        demand!(
            root.join("graph").is_dir(),
            "the store below {name:?} is elsewhere"
        );
    }
    Ok(())
}

fn long_path(site: &Site) -> Outcome {
    let mut root = site.root.clone();
    while root.as_os_str().len() < 1000 {
        root.push("d".repeat(90));
    }
    fs::create_dir_all(&root)?;
    let target = site.at(&root).open()?;
    let mut parent: Option<String> = None;
    for number in 0..20 {
        let id = format!("layer-{number}");
        target.create(&id, parent.as_deref())?;
        target.within(&id, |path| {
            fs::write(path.join(&id), &id).map_err(Failure::from)
        })?;
        parent = Some(id);
    }
    let all = target.within("layer-19", |path| -> Result<_, Failure> {
        Ok(fs::read_dir(path)?.count())
    })?;
    same!(20, all, "how many files the last layer shows");
    target.close()?;
    Ok(())
}

fn symlinked_root(site: &Site) -> Outcome {
    let (real, link) = (site.scratch("real")?, site.root.join("link"));
    symlink(&real, &link)?;
    let target = site.at(&link).open()?;
    target.put("layer", None, &sample())?;
    let content = target.manifest("layer")?;
    life(&target, "one")?;
    target.close()?;
    demand!(
        real.join("graph").is_dir(),
        "the store is not where the link leads"
    );
    let target = site.at(&real).open()?;
    let differences = content.differences(&target.manifest("layer")?);
    demand!(
        differences.is_empty(),
        "under the real path: {differences:?}"
    );
    life(&target, "two")?;
    target.close()?;
    Ok(())
}

fn relative_root(site: &Site) -> Outcome {
    let before = manifest::of(&site.root)?;
    std::env::set_current_dir(&site.root)?;
    for (home, run_dir) in [
        ("graph/x", "/run/x"),
        ("./graph/x", "/run/x"),
        ("", "/run/x"),
        ("/", "run/x"),
    ] {
        let mut request = site.request()?;
        if home == "/" {
            request.run_dir = run_dir.into();
        } else {
            request.home = home.into();
        }
        let Err(error) = site.driver_with(request) else {
            return Err(Failure::new(format!(
                "the home `{home}` and run directory `{run_dir}` were accepted"
            )));
        };
        same!(
            ErrorKind::InvalidArgument,
            error.kind(),
            "the kind of the refusal of `{home}` and `{run_dir}`: {error}"
        );
    }
    std::env::set_current_dir("/")?;
    let differences = before.differences(&manifest::of(&site.root)?);
    demand!(
        differences.is_empty(),
        "a refused root was made: {differences:?}"
    );
    Ok(())
}

/// Whether somebody who is neither the owner nor in the group can get through all of `path` below
/// `top`.
fn open_to_others(top: &Path, path: &Path) -> std::io::Result<bool> {
    for directory in path.ancestors().take_while(|path| path.starts_with(top)) {
        if fs::symlink_metadata(directory)?.mode() & 0o001 == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}

fn permissions(target: &mut Target) -> Outcome {
    target.put("layer", None, &sample())?;
    target.create("child", Some("layer"))?;
    let home = target.home();
    let mut content = Vec::new();
    for id in ["layer", "child"] {
        content.push(target.driver.unpack_target(&layer_id(id))?.directory);
        content.extend(target.driver.content_roots(&layer_id(id))?);
    }
    for root in &content {
        // What lies elsewhere (an image store's) is not the driver's own.
        if root.starts_with(&home) {
            demand!(
                !open_to_others(&home, root)?,
                "other users can reach the content of layers at `{}`",
                root.display()
            );
        }
    }
    let mut waiting = vec![home];
    while let Some(path) = waiting.pop() {
        let found = fs::symlink_metadata(&path)?;
        if content.contains(&path) || found.is_symlink() {
            continue;
        }
        demand!(
            found.permissions().mode() & 0o022 == 0,
            "`{}` can be written by others (mode {:o})",
            path.display(),
            found.permissions().mode() & 0o7777
        );
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                waiting.push(entry?.path());
            }
        }
    }
    Ok(())
}

const OPENERS: usize = 8;

fn first_together(site: &Site) -> Outcome {
    let mut peers = Vec::new();
    for number in 0..OPENERS {
        peers.push(site.peer("first", &[&number.to_string()])?);
    }
    for peer in &mut peers {
        peer.wait_for_step("ready")?;
    }
    fs::write(site.root.join("go"), "")?;
    for peer in &mut peers {
        peer.wait_for_step("done")?;
    }
    // None closes the driver before all have used it: closing is for the last one.
    fs::write(site.root.join("end"), "")?;
    for peer in peers {
        peer.join()?;
    }
    let target = site.open()?;
    for number in 0..OPENERS {
        let id = format!("layer-{number}");
        demand!(target.driver.exists(&layer_id(&id))?, "`{id}` is not there");
        demand!(
            target.manifest(&id)?.has(&id),
            "`{id}` has lost its content"
        );
    }
    life(&target, "after")?;
    target.close()?;
    Ok(())
}

fn first(site: &Site, words: &[String]) -> Outcome {
    let number = words
        .first()
        .ok_or_else(|| Failure::harness("no number is given"))?;
    wire::step("ready")?;
    wait_for(&site.root.join("go"))?;
    let target = site.open()?;
    let id = format!("layer-{number}");
    target.create(&id, None)?;
    target.within(&id, |path| {
        fs::write(path.join(&id), "").map_err(Failure::from)
    })?;
    demand!(target.driver.exists(&layer_id(&id))?, "`{id}` is not there");
    wire::step("done")?;
    wait_for(&site.root.join("end"))
}

fn wait_for(path: &Path) -> Outcome {
    let end = Instant::now() + Duration::from_secs(20);
    while !path.exists() {
        demand!(Instant::now() < end, "`{}` did not appear", path.display());
        thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}
