// SPDX-License-Identifier: Apache-2.0
//! Mounts that several processes and mount namespaces see.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use plywood::{layers::UnmountOptions, sdk::MountRequest};

use super::{sample, table};
use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    wire,
};

/// Waits until another process has made a file.
pub(super) fn wait_for(path: &Path) -> Outcome {
    let end = Instant::now() + Duration::from_secs(30);
    while !path.exists() {
        if Instant::now() > end {
            let path = path.display();
            return Err(Failure::new(format!("no `{path}` after 30 s")));
        }
        thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

fn demand_text(path: &Path, expected: &str, when: &str) -> Outcome {
    let text = fs::read_to_string(path);
    demand!(
        text.as_deref().is_ok_and(|text| text == expected),
        "`{}` reads {text:?} {when}",
        path.display()
    );
    Ok(())
}

pub(super) fn volatile_writer(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    let mut request = MountRequest::default();
    request.volatile = true;
    let path = target.mount("child", &request)?;
    fs::write(path.join("new"), "from the first")?;
    fs::write(path.join("plain"), "changed")?;
    wire::step("written")?;
    loop {
        thread::park();
    }
}

pub(super) fn volatile(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    let before = table::below(&target.root)?;
    for asked_again in [true, false] {
        let mut writer = target.peer("writer", &[])?;
        writer.wait_for_step("written")?;
        writer.kill()?;
        let all = UnmountOptions {
            force: true,
            ..UnmountOptions::default()
        };
        target.unmount_with("child", all)?;
        table::demand_unmounted(target, "child", &before)?;
        target.step("mount it again after the process was killed")?;
        let mut request = MountRequest::default();
        request.volatile = asked_again;
        target.within_as("child", &request, |path| {
            let when = "after the process that wrote it was killed";
            demand_text(&path.join("new"), "from the first", when)?;
            demand_text(&path.join("plain"), "changed", when)?;
            let written = fs::write(path.join("second"), "x");
            demand!(
                written.is_ok(),
                "writing after a killed volatile mount: {written:?}"
            );
            Ok::<_, Failure>(())
        })?;
    }
    Ok(())
}

/// Looks at the mounts from a namespace of its own, which gets what propagates.
pub(super) fn observer(site: &Site, arguments: &[String]) -> Outcome {
    let [receives] = arguments else {
        return Err(Failure::harness("one argument"));
    };
    unshare(CloneFlags::CLONE_NEWNS)?;
    let kind = match receives.as_str() {
        "receiving" => MsFlags::MS_SLAVE,
        _ => MsFlags::MS_PRIVATE,
    };
    mount::<str, str, str, str>(None, "/", None, MsFlags::MS_REC | kind, None)?;
    wire::step("looking")?;
    for moment in ["mounted", "unmounted"] {
        wait_for(&site.root.join(moment))?;
        let mut text = String::new();
        for target in table::below(&site.root)? {
            text.push_str(&target.to_string_lossy());
            text.push('\n');
        }
        let half = site.root.join(format!("half-{moment}-{receives}"));
        fs::write(&half, text)?;
        fs::rename(half, site.root.join(format!("seen-{moment}-{receives}")))?;
    }
    Ok(())
}

fn seen(site: &Site, moment: &str, receives: &str) -> Result<Vec<PathBuf>, Failure> {
    let path = site.root.join(format!("seen-{moment}-{receives}"));
    wait_for(&path)?;
    let text = fs::read_to_string(path)?;
    Ok(text.lines().map(PathBuf::from).collect())
}

/// Everything below the case's root is propagated to other namespaces, as it is on a host.
fn share(root: &Path) -> Outcome {
    mount::<_, _, str, str>(Some(root), root, None, MsFlags::MS_BIND, None)?;
    mount::<str, _, str, str>(None, root, None, MsFlags::MS_SHARED, None)?;
    Ok(())
}

pub(super) fn private(site: &Site) -> Outcome {
    share(&site.root)?;
    let done = private_on(site);
    umount2(&site.root, MntFlags::MNT_DETACH)?;
    done
}

fn private_on(site: &Site) -> Outcome {
    let target = site.open()?;
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    for request in table::requests(&target) {
        for moment in ["mounted", "unmounted"] {
            for receives in ["receiving", "keeping"] {
                // Of the request before this one.
                let _absent = fs::remove_file(site.root.join(format!("seen-{moment}-{receives}")));
            }
            let _absent = fs::remove_file(site.root.join(moment));
        }
        private_mount(&target, &request)?;
    }
    target.delete("child")?;
    target.close()?;
    Ok(())
}

fn private_mount(target: &Target, request: &MountRequest) -> Outcome {
    let before = table::below(&target.root)?;
    let mut receiving = target.peer("observer", &["receiving"])?;
    receiving.wait_for_step("looking")?;
    let path = target.mount("child", request)?;
    let outer = table::below(&target.root)?;
    // A namespace that has a copy of the mount and never hears of its end.
    let mut keeping = target.peer("observer", &["keeping"])?;
    keeping.wait_for_step("looking")?;
    let inside = fs::canonicalize(&path)?.join("d");
    let no_data: Option<&str> = None;
    mount(
        Some("tmpfs"),
        &inside,
        Some("tmpfs"),
        MsFlags::empty(),
        no_data,
    )?;
    fs::write(inside.join("visible"), "x")?;
    fs::write(target.root.join("mounted"), "")?;
    let others = seen(target, "mounted", "receiving")?;
    seen(target, "mounted", "keeping")?;
    let own_mounts = table::at(&path)?;
    let now = table::below(&target.root)?;
    let base = target.within("base", |path| {
        Ok::<_, Failure>(path.join("d/visible").exists())
    });
    umount2(&inside, MntFlags::MNT_DETACH)?;
    target.unmount("child")?;
    fs::write(target.root.join("unmounted"), "")?;
    let left = seen(target, "unmounted", "receiving")?;
    same!(
        outer.len() + 1,
        now.len(),
        "mounts below the root after one mount inside of a layer"
    );
    demand!(!base?, "a mount inside of the child shows in its parent");
    if own_mounts > 0 {
        demand!(
            !others.contains(&inside),
            "a mount inside of a mounted layer reached another namespace: {others:?}"
        );
    }
    let left: Vec<_> = left.iter().filter(|path| !before.contains(path)).collect();
    demand!(
        left.is_empty(),
        "after the unmount another namespace still has {left:?}"
    );
    receiving.join()?;
    target.step("unmount and mount while another namespace keeps a copy")?;
    target.within_as("child", request, |path| {
        demand_text(
            &path.join("plain"),
            "plain",
            "while a copy is kept elsewhere",
        )
    })?;
    seen(target, "unmounted", "keeping")?;
    keeping.join()
}

/// Writes into the layer beside the case itself.
pub(super) fn other(site: &Site, _: &[String]) -> Outcome {
    let target = site.open()?;
    write_beside(&target)
}

/// The same from a mount namespace of its own.
pub(super) fn elsewhere(site: &Site, _: &[String]) -> Outcome {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount::<str, str, str, str>(None, "/", None, flags, None)?;
    let target = site.open()?;
    write_beside(&target)
}

fn write_beside(target: &Target) -> Outcome {
    let path = target.mount("child", &MountRequest::default())?;
    demand_text(&path.join("ours"), "ours", "in the second process")?;
    fs::write(path.join("theirs"), "theirs")?;
    fs::write(path.join("plain"), "changed by the second")?;
    wire::step("written")?;
    wait_for(&target.root.join("go-on"))?;
    demand_text(&path.join("ours"), "ours again", "in the second process")?;
    target.unmount("child")?;
    Ok(())
}

pub(super) fn shared(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    let before = table::below(&target.root)?;
    for role in ["other", "elsewhere"] {
        target.step(role)?;
        let path = target.mount("child", &MountRequest::default())?;
        fs::write(path.join("ours"), "ours")?;
        let mut peer = target.peer(role, &[])?;
        peer.wait_for_step("written")?;
        demand_text(&path.join("theirs"), "theirs", "in the first process")?;
        let plain = path.join("plain");
        demand_text(&plain, "changed by the second", "in the first process")?;
        same!(
            2,
            table::count(target, "child")?,
            "the count of two processes"
        );
        fs::write(path.join("ours"), "ours again")?;
        fs::write(target.root.join("go-on"), "")?;
        peer.join()?;
        fs::remove_file(target.root.join("go-on"))?;
        let when = "after the other process unmounted";
        demand_text(&path.join("theirs"), "theirs", when)?;
        let written = fs::write(path.join("later"), "later");
        demand!(written.is_ok(), "writing {when}: {written:?}");
        same!(1, table::count(target, "child")?, "the count {when}");
        target.unmount("child")?;
        table::demand_unmounted(target, "child", &before)?;
        target.within("child", |path| {
            demand_text(&path.join("later"), "later", "after the last unmount")?;
            demand_text(&path.join("theirs"), "theirs", "after the last unmount")
        })?;
    }
    Ok(())
}
