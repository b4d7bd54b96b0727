// SPDX-License-Identifier: Apache-2.0
//! Many threads that do the same at once.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use plywood::{ErrorKind, sdk::MountRequest};

use super::{allowed, ended, listed, mounted, recorded, residue, together};
use crate::{
    Case, Target,
    case::{Outcome, case, demand, same},
    cases::lifecycle::sample,
    tar_file::TarFile,
    target::layer_id,
};

pub(in crate::cases) const CASES: &[Case] = &[
    case("GD-CON-001", create_distinct),
    case("GD-CON-002", create_same),
    case("GD-CON-004", storm),
    case("GD-CON-007", apply_parallel),
    case("GD-CON-016", deadline),
];

/// A stream with one file of that name.
fn with_file(name: &str) -> Vec<u8> {
    TarFile::new().file(name, name.as_bytes()).done()
}

fn create_distinct(target: &mut Target) -> Outcome {
    const THREADS: usize = 64;
    const EACH: usize = 2;
    target.without_sync()?;
    let target = &*target;
    let id = |thread: usize, number: usize| format!("t{thread}-{number}");
    together(THREADS, |thread| {
        for number in 0..EACH {
            let id = id(thread, number);
            // The last one is unpacked outside the lock, where the driver can stage.
            if number + 1 == EACH {
                target.put(&id, None, &with_file(&id))?;
            } else {
                target.create(&id, None)?;
            }
        }
        Ok(())
    })?;
    let all = 0..THREADS;
    let expected: BTreeSet<String> = all
        .flat_map(|thread| (0..EACH).map(move |number| id(thread, number)))
        .collect();
    same!(expected, recorded(target)?, "the recorded layers");
    if let Some(listed) = listed(target)? {
        same!(expected, listed, "what the driver lists");
    }
    for thread in 0..THREADS {
        let id = id(thread, EACH - 1);
        let manifest = target.manifest(&id)?.without_root();
        demand!(
            manifest.0.keys().eq([Path::new(&id)]),
            "layer `{id}` should have the one file `{id}`, and has {manifest}"
        );
    }
    Ok(())
}

fn create_same(target: &mut Target) -> Outcome {
    const THREADS: usize = 16;
    target.create("warm", None)?;
    target.delete("warm")?;
    let before = residue(target)?;
    for put in [false, true] {
        target.step(if put { "put" } else { "create" })?;
        let target = &*target;
        let winners = Mutex::new(Vec::new());
        together(THREADS, |thread| {
            let made = if put {
                target.put("one", None, &with_file(&format!("of-{thread}")))
            } else {
                target.create("one", None)
            };
            let what = "making a layer whose id 15 others take too";
            if allowed(made, &[ErrorKind::DuplicateId], what)?.is_some() {
                winners.lock().expect("no holder panics").push(thread);
            }
            Ok(())
        })?;
        let winners = winners.into_inner().expect("no holder panics");
        demand!(
            winners.len() == 1,
            "one of {THREADS} threads must make the layer, and these did: {winners:?}"
        );
        let manifest = target.manifest("one")?.without_root();
        let own = format!("of-{}", winners[0]);
        let expected: Vec<&Path> = if put { vec![Path::new(&own)] } else { vec![] };
        demand!(
            manifest.0.keys().eq(expected.iter()),
            "the layer of thread {} should have {expected:?}, and has {manifest}",
            winners[0]
        );
        target.delete("one")?;
        let after = residue(target)?;
        let left: Vec<_> = after.difference(&before).collect();
        demand!(left.is_empty(), "the losers left in the home: {left:?}");
    }
    Ok(())
}

fn storm(target: &mut Target) -> Outcome {
    const THREADS: usize = 32;
    const ROUNDS: usize = 60;
    target.without_sync()?;
    target.put("base", None, &sample())?;
    target.create_writable("one", Some("base"))?;
    let most = AtomicUsize::new(0);
    let inside = AtomicUsize::new(0);
    let target = &*target;
    together(THREADS, |thread| {
        for round in 0..ROUNDS {
            let path = target.mount("one", &MountRequest::default())?;
            most.fetch_max(inside.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let read = fs::read(path.join("plain"));
            if round == 0 {
                // On a busy machine they may come one after the other.
                let end = Instant::now() + Duration::from_secs(10);
                while most.load(Ordering::SeqCst) < 2 && Instant::now() < end {
                    thread::sleep(Duration::from_millis(1));
                }
                fs::write(path.join(format!("of-{thread}")), "x")?;
            }
            inside.fetch_sub(1, Ordering::SeqCst);
            target.unmount("one")?;
            demand!(
                read.as_deref().is_ok_and(|data| data == b"plain"),
                "thread {thread} mounted the layer, and read `plain` as {read:?}"
            );
        }
        Ok(())
    })?;
    demand!(
        most.into_inner() > 1,
        "no two threads had it mounted at the same time"
    );
    let left = mounted(target)?;
    demand!(left.is_empty(), "still mounted are {left:?}");
    let layers = target.layers()?;
    let count: u32 = layers.iter().map(|layer| layer.mount_count).sum();
    demand!(count == 0, "{count} mounts are still recorded");
    let manifest = target.manifest("one")?;
    for thread in 0..THREADS {
        demand!(
            manifest.has(&format!("of-{thread}")),
            "what thread {thread} wrote is lost"
        );
    }
    Ok(())
}

fn apply_parallel(target: &mut Target) -> Outcome {
    const THREADS: usize = 8;
    target.put("base", None, &sample())?;
    let before = target.manifest("base")?;
    let tar = |thread: usize| {
        let mut tar = TarFile::new().directory("own/");
        for number in 0..20 {
            let data = thread.to_string().repeat(1000 * (number + 1));
            tar = tar.file(&format!("own/{thread}-{number}"), data.as_bytes());
        }
        let tar = if thread.is_multiple_of(2) {
            tar.whiteout(".wh.plain")
        } else {
            tar.file("plain", b"replaced")
        };
        tar.done()
    };
    let target = &*target;
    together(THREADS, |thread| {
        let parallel = format!("parallel-{thread}");
        Ok(target
            .put(&parallel, Some("base"), &tar(thread))
            .map(drop)?)
    })?;
    for thread in 0..THREADS {
        let alone = format!("alone-{thread}");
        target.put(&alone, Some("base"), &tar(thread))?;
        let expected = target.manifest(&alone)?.without_root_time();
        let parallel = target.manifest(&format!("parallel-{thread}"))?;
        let differences = expected.differences(&parallel.without_root_time());
        demand!(
            differences.is_empty(),
            "stream {thread}, unpacked while 7 others were, differs from the same unpacked alone: {}",
            differences.join("; ")
        );
    }
    let differences = before.differences(&target.manifest("base")?);
    demand!(
        differences.is_empty(),
        "the parent changed: {}",
        differences.join("; ")
    );
    Ok(())
}

/// Eight threads on one store keep every operation waiting, but none may starve.
fn deadline(target: &mut Target) -> Outcome {
    const THREADS: usize = 8;
    const LONG_ENOUGH: Duration = Duration::from_millis(1500);
    let limit = target.bound(Duration::from_secs(10));
    target.put("base", None, &sample())?;
    let over = AtomicBool::new(false);
    let target = &*target;
    let longest = Mutex::new((Duration::ZERO, ""));
    let timed = |what: &'static str, done: &mut dyn FnMut() -> Outcome| -> Outcome {
        let start = Instant::now();
        done()?;
        let mut longest = longest.lock().expect("no holder panics");
        *longest = (*longest).max((start.elapsed(), what));
        Ok(())
    };
    let work = |thread: usize| -> Outcome {
        let id = format!("own-{thread}");
        let mut rounds = 0;
        while !over.load(Ordering::Relaxed) || rounds == 0 {
            timed("put", &mut || {
                Ok(target.put(&id, Some("base"), &sample()).map(drop)?)
            })?;
            timed("mount", &mut || {
                Ok(target.mount(&id, &MountRequest::default()).map(drop)?)
            })?;
            timed("unmount", &mut || Ok(target.unmount(&id)?))?;
            timed("diff", &mut || Ok(target.diff(&id).map(drop)?))?;
            timed("list", &mut || Ok(target.layers().map(drop)?))?;
            timed("exists", &mut || {
                Ok(target.driver.exists(&layer_id(&id)).map(drop)?)
            })?;
            timed("delete", &mut || Ok(target.delete(&id)?))?;
            rounds += 1;
        }
        Ok(())
    };
    thread::scope(|scope| -> Outcome {
        let work = &work;
        let running: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        thread::sleep(LONG_ENOUGH);
        over.store(true, Ordering::Relaxed);
        let ended: Vec<_> = running.into_iter().map(ended).collect();
        ended.into_iter().collect()
    })?;
    let (longest, what) = longest.into_inner().expect("no holder panics");
    target.measure("longest_operation_ms", longest.as_secs_f64() * 1000.0)?;
    demand!(
        longest < limit,
        "with {THREADS} threads on the store the slowest operation, `{what}`, took {longest:?}; \
         each must end within {limit:?}"
    );
    Ok(())
}
