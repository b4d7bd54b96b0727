// SPDX-License-Identifier: Apache-2.0
//! An attacker who changes the layer while a stream is unpacked into it.

use std::{
    fs,
    os::unix::fs::symlink,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use super::Victim;
use crate::{
    Case, Target,
    case::{Failure, Outcome, case, demand},
    cases::con::ended,
    tar_file::{Entry, TarFile},
    target::layer_id,
};

pub(in crate::cases) const CASES: &[Case] = &[case("GD-SEC-007", swapped_directories)];

/// Swaps `d` for a link to the host's directory, and back.
fn swap(layer: &Path, victim: &Path, over: &AtomicBool) -> usize {
    let (dir, away) = (layer.join("d"), layer.join("away"));
    let mut swaps = 0;
    while !over.load(Ordering::Relaxed) {
        // The unpacking may make or remove any of them at any moment.
        let moved = fs::rename(&dir, &away);
        let linked = symlink(victim, &dir);
        if moved.is_ok() && linked.is_ok() {
            swaps += 1;
        }
        thread::yield_now();
        let _removed = fs::remove_file(&dir);
        if fs::rename(&away, &dir).is_err() {
            let _cleared = fs::remove_dir_all(&away);
        }
    }
    swaps
}

fn swapped_directories(target: &mut Target) -> Outcome {
    const LONG_ENOUGH: Duration = Duration::from_millis(1500);
    target.without_sync()?;
    let victim = Victim::new(target)?;
    let mut tar = TarFile::new().directory("d/").directory("d/dir/");
    for number in 0..60 {
        tar = tar
            .file(&format!("d/file-{number}"), b"x")
            .add(Entry::directory(format!("d/dir-{number}/")).mode(0o777))
            .add(Entry::hard_link(format!("d/linked-{number}"), "d/secret"));
    }
    let attacks = tar
        .whiteout("d/.wh.secret")
        .whiteout("d/dir/.wh.secret")
        .add(
            Entry::file("d/secret", "overwritten")
                .mode(0o777)
                .owner(7, 7),
        )
        .add(Entry::file("d/hello", "overwritten").xattr("user.x", "y"))
        .done();
    let base = TarFile::new()
        .directory("d/")
        .file("d/secret", b"own")
        .done();
    target.put("base", None, &base)?;
    target.create_writable("layer", Some("base"))?;
    let over = AtomicBool::new(false);
    let applied = AtomicUsize::new(0);
    let target = &*target;
    let directory = target.driver.unpack_target(&layer_id("layer"))?.directory;
    let swaps = target.within("layer", |mounted| -> Result<usize, Failure> {
        thread::scope(|scope| {
            // Through the mount, and where it is kept: on some drivers that is the same.
            let places = [mounted, &directory];
            let attackers: Vec<_> = places
                .map(|place| scope.spawn(|| Ok(swap(place, &victim.place, &over))))
                .into_iter()
                .collect();
            let end = Instant::now() + LONG_ENOUGH;
            while Instant::now() < end {
                // What is swapped under it may make it fail; what counts is what it does.
                if target.apply("layer", &attacks[..]).is_ok() {
                    applied.fetch_add(1, Ordering::Relaxed);
                }
            }
            over.store(true, Ordering::Relaxed);
            let swaps: Vec<_> = attackers.into_iter().map(ended).collect();
            swaps.into_iter().sum()
        })
    })?;
    target.count("swaps", swaps)?;
    target.count("applied", applied.into_inner())?;
    demand!(
        swaps > 20,
        "the attacker swapped the directory {swaps} times only, which shows nothing"
    );
    victim.intact("after streams were unpacked while their directories were swapped for links")
}
