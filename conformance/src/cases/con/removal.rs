// SPDX-License-Identifier: Apache-2.0
//! What is removed, or closed, while others use it.

use std::{
    fs,
    io::{self, Write},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use plywood::{ErrorKind, locking::order::Held, sdk::MountRequest};

use super::{allowed, ended, mounted, recorded};
use crate::{
    Case, Target,
    case::{Failure, Outcome, case, demand, same},
    cases::lifecycle::sample,
    tar_file::TarFile,
};

pub(in crate::cases) const CASES: &[Case] = &[
    case("GD-CON-005", mount_or_remove),
    case("GD-CON-006", diff_or_remove),
    case("GD-CON-010", close_or_use),
];

fn mount_or_remove(target: &mut Target) -> Outcome {
    const ROUNDS: usize = 20;
    target.without_sync()?;
    target.put("base", None, &sample())?;
    let over = AtomicBool::new(false);
    let mut rng = target.rng();
    let target = &*target;
    let used = AtomicBool::new(false);
    let user = || -> Outcome {
        while !over.load(Ordering::Relaxed) {
            let request = MountRequest::default();
            let gone = [ErrorKind::LayerUnknown, ErrorKind::Busy];
            let mounted = target.mount("one", &request);
            let Some(path) = allowed(mounted, &gone, "mounting")? else {
                continue;
            };
            // It may be unmounted at any moment, but must not be somebody else's.
            if let Ok(data) = fs::read(path.join("plain")) {
                demand!(data == b"plain", "a mounted layer's file reads {data:?}");
                used.store(true, Ordering::Relaxed);
            }
            let gone = [ErrorKind::LayerUnknown, ErrorKind::LayerNotMounted];
            allowed(target.unmount("one"), &gone, "unmounting")?;
        }
        Ok(())
    };
    thread::scope(|scope| -> Outcome {
        let user = &user;
        let users: Vec<_> = (0..2).map(|_| scope.spawn(user)).collect();
        let mut removals = || -> Outcome {
            for _ in 0..ROUNDS {
                target.put("one", Some("base"), &sample())?;
                thread::sleep(Duration::from_micros(rng.u64(..2000)));
                while allowed(target.delete("one"), &[ErrorKind::Busy], "deleting")?.is_none() {}
            }
            Ok(())
        };
        let removed = removals();
        over.store(true, Ordering::Relaxed);
        let used: Vec<_> = users.into_iter().map(ended).collect();
        removed?;
        used.into_iter().collect()
    })?;
    demand!(
        used.into_inner(),
        "the layer was never seen mounted in {ROUNDS} rounds"
    );
    let left = mounted(target)?;
    demand!(left.is_empty(), "orphaned mounts: {left:?}");
    let layers = recorded(target)?;
    same!(
        vec!["base".to_owned()],
        layers.into_iter().collect::<Vec<_>>(),
        "the layers that are left"
    );
    Ok(())
}

/// Says once that it got something, and takes what follows slowly.
struct Slow {
    got: Vec<u8>,
    began: mpsc::Sender<()>,
}

impl Write for Slow {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.got.is_empty() {
            // The other side may have been told already and be gone.
            let _told = self.began.send(());
        }
        thread::sleep(Duration::from_micros(100));
        let taken = data.len().min(16 << 10);
        self.got.extend_from_slice(&data[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn diff_or_remove(target: &mut Target) -> Outcome {
    const ROUNDS: usize = 10;
    target.without_sync()?;
    let mut tar = TarFile::new();
    for number in 0..60_u8 {
        tar = tar.file(&format!("file-{number}"), &vec![number; 20_000]);
    }
    let tar = tar.done();
    let target = &*target;
    for round in 0..ROUNDS {
        target.put("one", None, &tar)?;
        let (began, begun) = mpsc::channel();
        let (read, got) = thread::scope(|scope| -> Result<_, Failure> {
            let reader = scope.spawn(move || {
                let mut out = Slow {
                    got: Vec::new(),
                    began,
                };
                let read = target.diff_to(None, "one", &mut out);
                Ok((read, out.got))
            });
            if round.is_multiple_of(2) {
                // Nothing comes when the diff failed before its first byte.
                let _begun = begun.recv();
            }
            target.delete("one")?;
            ended(reader)
        })?;
        match read {
            Ok(_) => demand!(
                got == tar,
                "a diff of a layer that was removed meanwhile ended well with {} of {} bytes",
                got.len(),
                tar.len()
            ),
            Err(error) => demand!(
                tar.starts_with(&got),
                "a diff of a layer that was removed meanwhile gave bytes that are not the \
                 layer's before it failed: {error}"
            ),
        }
    }
    Ok(())
}

/// Core closes the driver under the layers lock while nothing is mounted; what others do without
/// the lock at that moment must not be hurt.
fn close_or_use(target: &mut Target) -> Outcome {
    const THREADS: usize = 4;
    target.without_sync()?;
    target.put("base", None, &sample())?;
    let over = AtomicBool::new(false);
    let target = &*target;
    let work = |thread: usize| -> Outcome {
        let mut number = 0;
        while !over.load(Ordering::Relaxed) || number == 0 {
            let id = format!("of-{thread}-{number}");
            target.put(&id, Some("base"), &sample())?;
            let (base, child) = (target.manifest("base")?, target.manifest(&id)?);
            let differences = base
                .without_root_time()
                .differences(&child.without_root_time());
            demand!(
                differences.is_empty(),
                "layer `{id}`, made while the driver was closed, is not whole: {}",
                differences.join("; ")
            );
            demand!(target.diff(&id)? == sample(), "the diff of `{id}` changed");
            target.delete(&id)?;
            number += 1;
        }
        Ok(())
    };
    thread::scope(|scope| -> Outcome {
        let work = &work;
        let running: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || work(thread)))
            .collect();
        let closing = || -> Outcome {
            for _ in 0..20 {
                let mut held = Held::nothing();
                let (write, _) = target.store().write(&mut held)?;
                let busy = !write.mounted_layers()?.is_empty();
                let closed = target.driver.close();
                drop(write);
                match closed {
                    Err(error) if busy && error.kind() == ErrorKind::Busy => {}
                    closed => closed?,
                }
                thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        };
        let closed = closing();
        over.store(true, Ordering::Relaxed);
        let worked: Vec<_> = running.into_iter().map(ended).collect();
        closed?;
        worked.into_iter().collect()
    })?;
    let left = mounted(target)?;
    demand!(left.is_empty(), "still mounted are {left:?}");
    target.reopened()?.manifest("base")?;
    Ok(())
}
