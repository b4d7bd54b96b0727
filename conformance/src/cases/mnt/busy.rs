// SPDX-License-Identifier: Apache-2.0
//! Mounts that somebody stands in.

use std::{env, fs, io, path::Path};

use plywood::{ErrorKind, sdk::MountRequest};

use super::{processes::wait_for, sample, table};
use crate::{
    Site, Target,
    case::{Failure, Outcome, demand, same},
    wire,
};

/// Stays in a directory until it may go.
pub(super) fn sitter(site: &Site, arguments: &[String]) -> Outcome {
    let [directory] = arguments else {
        return Err(Failure::harness("one argument"));
    };
    env::set_current_dir(directory)?;
    wire::step("sitting")?;
    wait_for(&site.root.join("go"))
}

pub(super) fn busy(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    let before = table::below(&target.root)?;
    for (number, request) in table::requests(target).into_iter().enumerate() {
        for how in ["an open file", "a working directory"] {
            target.step(how)?;
            let id = format!("child-{number}-{}", how.len());
            target.create_writable(&id, Some("base"))?;
            let path = target.mount(&id, &request)?;
            let mut sitter = None;
            let mut open = None;
            if how == "an open file" {
                open = Some(fs::File::open(path.join("plain"))?);
            } else {
                let inside = path.join("d/e").display().to_string();
                let mut peer = target.peer("sitter", &[&inside])?;
                peer.wait_for_step("sitting")?;
                sitter = Some(peer);
            }
            let unmounted = target.unmount(&id);
            if let Some(file) = open {
                let text = io::read_to_string(file);
                demand!(
                    text.as_deref().is_ok_and(|text| text == "plain"),
                    "a file that was open at the unmount reads {text:?}"
                );
            }
            if let Some(peer) = sitter {
                fs::write(target.root.join("go"), "")?;
                peer.join()?;
                fs::remove_file(target.root.join("go"))?;
            }
            if let Err(error) = unmounted {
                same!(
                    ErrorKind::Busy,
                    error.kind(),
                    "the answer to unmounting while {how} is inside ({error})"
                );
                target.unmount(&id)?;
            }
            table::demand_unmounted(target, &id, &before)?;
            let deleted = target.delete(&id);
            demand!(
                deleted.is_ok(),
                "after {how} was inside at the unmount, deleting the layer says {deleted:?}"
            );
        }
    }
    Ok(())
}

/// Asks for the working directory's path while the directory is changed around it.
pub(super) fn walker(_: &Site, arguments: &[String]) -> Outcome {
    let [root] = arguments else {
        return Err(Failure::harness("one argument"));
    };
    let root = fs::canonicalize(root)?;
    let deep = root.join("d/e");
    env::set_current_dir(&deep)?;
    same!(deep, env::current_dir()?, "getcwd in a lower directory");
    let removed = fs::remove_dir(&deep);
    same!(
        Some(libc::ENOTEMPTY),
        removed.err().and_then(|error| error.raw_os_error()),
        "the error number of removing a directory with content"
    );
    same!(deep, env::current_dir()?, "getcwd after a failed rmdir");
    fs::write("new", "x")?;
    fs::write("deep", "changed")?;
    same!(deep, env::current_dir()?, "getcwd after a copy-up");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(root.join("d"), mode)?;
    same!(
        deep,
        env::current_dir()?,
        "getcwd after the parent's copy-up"
    );
    demand!(
        Path::new("../e/new").exists(),
        "`../e/new` is not found from inside of `e`"
    );
    Ok(())
}

pub(super) fn working_directory(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.create_writable("child", Some("base"))?;
    let path = target.mount("child", &MountRequest::default())?;
    let done = target.in_peer("walker", &[&path.display().to_string()]);
    target.unmount("child")?;
    done?;
    let child = target.manifest("child")?;
    demand!(
        child.has("d/e/new"),
        "what was made from inside is missing: {child}"
    );
    Ok(())
}
