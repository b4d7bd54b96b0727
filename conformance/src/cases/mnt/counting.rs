// SPDX-License-Identifier: Apache-2.0
//! How often a layer is mounted, and what is mounted without having been counted.

use std::{fs, path::Path};

use nix::mount::{MntFlags, umount2};
use plywood::{
    ErrorKind,
    layers::{NewLayer, UnmountOptions},
    locking::order::Held,
    sdk::{DriverErrorCode, LayerKind, MountPlan, MountRequest},
};

use super::{sample, table};
use crate::{
    Site, Target,
    case::{Outcome, demand, same},
    target::{layer_id, new_layer},
    wire,
};

/// How many layers are mounted at once.
const MANY: usize = 100;

fn base_and_child(target: &Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    Ok(())
}

fn demand_seen(path: &Path, when: &str) -> Outcome {
    let text = fs::read_to_string(path.join("plain"));
    demand!(
        text.as_deref().is_ok_and(|text| text == "plain"),
        "the parent's file reads {text:?} {when}"
    );
    Ok(())
}

pub(super) fn counted(target: &mut Target) -> Outcome {
    base_and_child(target)?;
    let before = table::below(&target.root)?;
    for request in table::requests(target) {
        let path = target.mount("child", &request)?;
        let mounted = table::at(&path)?;
        target.mount("child", &request)?;
        same!(mounted, table::at(&path)?, "mounts after mounting twice");
        same!(2, table::count(target, "child")?, "the count after two");
        target.unmount("child")?;
        same!(mounted, table::at(&path)?, "mounts after one unmount");
        same!(1, table::count(target, "child")?, "the count after one");
        demand_seen(&path, "after one of two unmounts")?;
        target.unmount("child")?;
        table::demand_unmounted(target, "child", &before)?;
    }
    Ok(())
}

pub(super) fn same_path(target: &mut Target) -> Outcome {
    base_and_child(target)?;
    for request in table::requests(target) {
        let first = target.mount("child", &request)?;
        let again = target.mount("child", &request)?;
        let other = target.reopened()?.mount("child", &request)?;
        for _ in 0..3 {
            target.unmount("child")?;
        }
        same!(first, again, "the path of the second mount");
        same!(first, other, "the path of another instance's mount");
    }
    Ok(())
}

pub(super) fn unmount_alone(target: &mut Target) -> Outcome {
    base_and_child(target)?;
    let before = table::below(&target.root)?;
    let strict = UnmountOptions {
        only_if_mounted: true,
        ..UnmountOptions::default()
    };
    let refused = target.unmount_with("child", strict);
    same!(
        Some(ErrorKind::LayerNotMounted),
        refused.err().map(|error| error.kind()),
        "the answer to unmounting what is not mounted, when that matters"
    );
    for request in table::requests(target) {
        for _ in 0..3 {
            // Without asking for it, it is no error, as with containers/storage.
            target.unmount("child")?;
        }
        same!(0, table::count(target, "child")?, "the count");
        let path = target.mount("child", &request)?;
        demand_seen(&path, "after needless unmounts")?;
        same!(
            1,
            table::count(target, "child")?,
            "the count of a mount after needless unmounts"
        );
        target.unmount("child")?;
        table::demand_unmounted(target, "child", &before)?;
    }
    Ok(())
}

pub(super) fn unknown(target: &mut Target) -> Outcome {
    base_and_child(target)?;
    let before = table::below(&target.root)?;
    for request in table::requests(target) {
        let answer = target.mount("nobody", &request).err();
        same!(
            Some(ErrorKind::LayerUnknown),
            answer.map(|error| error.kind()),
            "the answer to mounting an unknown layer"
        );
        let answer = target
            .driver
            .unguarded()
            .mount_plan(&layer_id("nobody"), &request);
        same!(
            Some(DriverErrorCode::NOT_FOUND),
            answer.as_ref().err().map(|error| error.code),
            "the driver's own answer to {request:?} for an unknown layer"
        );
    }
    let answer = target.unmount("nobody").err();
    same!(
        Some(ErrorKind::LayerUnknown),
        answer.map(|error| error.kind()),
        "the answer to unmounting an unknown layer"
    );
    demand!(
        !target.driver.exists(&layer_id("nobody"))?,
        "asking for an unknown layer made it"
    );
    same!(before, table::below(&target.root)?, "what is mounted");
    Ok(())
}

/// Unmounts whatever is at `path`, as an administrator would.
fn take_away(path: &Path) -> Outcome {
    while table::at(path)? > 0 {
        umount2(path, MntFlags::MNT_DETACH)?;
    }
    Ok(())
}

pub(super) fn taken_away(target: &mut Target) -> Outcome {
    base_and_child(target)?;
    let before = table::below(&target.root)?;
    for request in table::requests(target) {
        let path = target.mount("child", &request)?;
        take_away(&path)?;
        target.step("unmount what is not mounted any more")?;
        target.unmount("child")?;
        table::demand_unmounted(target, "child", &before)?;
        target.step("mount it after that")?;
        let path = target.mount("child", &request)?;
        demand_seen(&path, "in a mount after one that was taken away")?;
        take_away(&path)?;
        target.step("mount what should be mounted and is not")?;
        let path = target.mount("child", &request)?;
        demand_seen(&path, "in a mount that was made anew")?;
        let all = UnmountOptions {
            force: true,
            ..UnmountOptions::default()
        };
        target.unmount_with("child", all)?;
        table::demand_unmounted(target, "child", &before)?;
    }
    Ok(())
}

/// Mounts as a program does that dies before it can record it, and as one that dies after that.
pub(super) fn holder(site: &Site, arguments: &[String]) -> Outcome {
    let target = site.open()?;
    let request = match arguments.last().map(String::as_str) {
        Some("read-only") => table::read_only(),
        _ => MountRequest::default(),
    };
    if arguments.iter().any(|argument| argument == "recorded") {
        target.mount("child", &request)?;
    } else {
        let id = layer_id("child");
        match target.driver.mount_plan(&id, &request)? {
            MountPlan::ByDriver { .. } => drop(target.driver.mount(&id, &request)?),
            plan => drop(plywood::mount::execute(&plan)?),
        }
    }
    wire::step("mounted")?;
    loop {
        std::thread::park();
    }
}

pub(super) fn left_over(target: &mut Target) -> Outcome {
    base_and_child(target)?;
    let before = table::below(&target.root)?;
    for request in table::requests(target) {
        let kind = if request.read_only {
            "read-only"
        } else {
            "writable"
        };
        target.mount("child", &request)?;
        let usual = table::below(&target.root)?.len();
        target.unmount("child")?;
        for (how, holders) in [("unrecorded", 1), ("unrecorded", 2), ("recorded", 1)] {
            target.step(&format!("a dead process left a {how}, {kind} mount"))?;
            for _ in 0..holders {
                let mut peer = target.peer("holder", &[how, kind])?;
                peer.wait_for_step("mounted")?;
                peer.kill()?;
            }
            let left = table::below(&target.root)?.len();
            let most = left.max(usual);
            let path = target.mount("child", &request)?;
            demand_seen(&path, "in a mount that a dead process left")?;
            demand!(
                table::below(&target.root)?.len() <= most,
                "a mount was stacked on the one that a dead process left: {:?}",
                table::below(&target.root)?
            );
            let options = UnmountOptions {
                // A count that a dead process left can only be given up as a whole.
                force: how == "recorded",
                ..UnmountOptions::default()
            };
            target.unmount_with("child", options)?;
            table::demand_unmounted(target, "child", &before)?;
        }
    }
    Ok(())
}

pub(super) fn hundred(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    let before = table::below(&target.root)?;
    let ids: Vec<String> = (0..MANY).map(|number| format!("child-{number}")).collect();
    let mut held = Held::nothing();
    let (mut write, _) = target.store().write(&mut held)?;
    for id in &ids {
        write.create(&NewLayer {
            kind: LayerKind::ReadWrite,
            ..new_layer(id, Some("base"))
        })?;
    }
    let mut paths = Vec::new();
    for id in &ids {
        let path = write.mount(id, &MountRequest::default())?;
        fs::write(path.join("own"), id)?;
        paths.push(path);
    }
    for (id, path) in ids.iter().zip(&paths) {
        demand_seen(path, "with a hundred layers mounted")?;
        same!(
            *id,
            fs::read_to_string(path.join("own"))?,
            "the own file of `{id}` with a hundred layers mounted"
        );
    }
    for id in &ids {
        write.unmount(id, UnmountOptions::default())?;
    }
    drop(write);
    same!(
        before,
        table::below(&target.root)?,
        "what is mounted after a hundred unmounts"
    );
    let counted = target
        .layers()?
        .iter()
        .filter(|l| l.mount_count > 0)
        .count();
    same!(0, counted, "layers that count as mounted");
    Ok(())
}

pub(super) fn after_failure(target: &mut Target) -> Outcome {
    base_and_child(target)?;
    let before = table::below(&target.root)?;
    for mut request in table::requests(target) {
        let good = request.clone();
        request.options = vec!["nosuchoption=1".to_owned()];
        demand!(
            target.mount("child", &request).is_err(),
            "an option that nobody knows was accepted"
        );
        table::demand_unmounted(target, "child", &before)?;
        let path = target.mount("child", &good)?;
        demand_seen(&path, "after a mount that failed")?;
        demand!(
            target.mount("child", &request).is_err() || table::count(target, "child")? == 2,
            "a mount that was granted is not counted"
        );
        let counted = table::count(target, "child")?;
        for _ in 0..counted {
            target.unmount("child")?;
        }
        table::demand_unmounted(target, "child", &before)?;
    }
    let refused = target.mount("nobody", &MountRequest::default());
    demand!(refused.is_err(), "an unknown layer was mounted");
    Ok(())
}
