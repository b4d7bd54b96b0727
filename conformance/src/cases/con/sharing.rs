// SPDX-License-Identifier: Apache-2.0
//! Reading, calling back and starting programs in the middle of other work.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Cursor, Read, Write},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
};

use plywood::{
    layers::PutOptions,
    locking::order::Held,
    plugin::DriverHandle,
    sdk::{Host, LogLevel},
};

use super::{ended, listed, recorded, together};
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, case, demand, same},
    cases::lifecycle::sample,
    scratch::Size,
    target::{layer_id, new_layer},
};

pub(in crate::cases) const CASES: &[Case] = &[
    case("GD-CON-008", list_churn),
    bare("GD-CON-009", callbacks),
    case("GD-CON-013", children_of_mounted),
    bare("GD-CON-014", inherited).roles(&[("child", child)]),
    case("GD-CON-015", file_systems),
];

fn list_churn(target: &mut Target) -> Outcome {
    const ROUNDS: usize = 100;
    target.without_sync()?;
    target.put("stays", None, &sample())?;
    let over = AtomicBool::new(false);
    let looks = AtomicUsize::new(0);
    let target = &*target;
    let look = || -> Outcome {
        while !over.load(Ordering::Relaxed) {
            let listed = listed(target)?.unwrap_or_default();
            demand!(listed.contains("stays"), "a layer that stays is not listed");
            let strange: Vec<_> = listed
                .iter()
                .filter(|id| !id.starts_with("churn-") && *id != "stays")
                .collect();
            demand!(
                strange.is_empty(),
                "listed is what is no layer: {strange:?}"
            );
            // Nobody changes anything while the lock is held.
            let mut held = Held::nothing();
            let (read, _) = target.store().read(&mut held)?;
            let records: BTreeSet<String> = read.list().into_iter().map(|layer| layer.id).collect();
            let listed = super::listed(target)?.unwrap_or_default();
            same!(
                records,
                listed,
                "recorded layers, and those that are listed"
            );
            for id in &records {
                let usage = target.driver.usage(&layer_id(id));
                demand!(usage.is_ok(), "layer `{id}` is half there: {usage:?}");
            }
            looks.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    };
    thread::scope(|scope| -> Outcome {
        let looking = scope.spawn(look);
        let churn = || -> Outcome {
            for round in 0..ROUNDS {
                target.create(&format!("churn-{round}"), Some("stays"))?;
                if let Some(old) = round.checked_sub(3) {
                    target.delete(&format!("churn-{old}"))?;
                }
            }
            Ok(())
        };
        let churned = churn();
        over.store(true, Ordering::Relaxed);
        let looked = ended(looking);
        churned?;
        looked
    })?;
    demand!(
        looks.into_inner() > 10,
        "there were not enough looks for this to mean anything"
    );
    Ok(())
}

/// Asks the driver whenever it is called itself.
#[derive(Default)]
struct Curious {
    driver: Mutex<Option<DriverHandle>>,
    asking: AtomicBool,
    asked: AtomicUsize,
    refused: Mutex<Option<String>>,
}

impl Curious {
    fn ask(&self) {
        // An answer that is logged must not be answered for ever.
        if self.asking.swap(true, Ordering::SeqCst) {
            return;
        }
        let driver = self.driver.lock().expect("no holder panics").clone();
        if let Some(driver) = driver {
            let mut asked = driver.exists(&layer_id("base")).map(drop);
            if driver.capabilities().list {
                asked = asked.and(driver.list().map(drop));
            }
            if let Err(error) = asked {
                let text = error.to_string();
                *self.refused.lock().expect("no holder panics") = Some(text);
            }
            self.asked.fetch_add(1, Ordering::SeqCst);
        }
        self.asking.store(false, Ordering::SeqCst);
    }
}

impl Host for Curious {
    fn log(&self, _: LogLevel, _: &str, _: &str) {
        self.ask();
    }
}

/// A stream that asks whenever it is read or written.
struct Asking<'a, T>(&'a Curious, T);

impl<T: Read> Read for Asking<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.ask();
        self.1.read(buffer)
    }
}

impl<T: Write> Write for Asking<'_, T> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.ask();
        self.1.write(data)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.1.flush()
    }
}

fn callbacks(site: &Site) -> Outcome {
    let host = Arc::new(Curious::default());
    let mut request = site.request()?;
    request.host = Arc::clone(&host) as Arc<dyn Host>;
    let target = Target::with(site.clone(), site.driver_with(request)?)?;
    *host.driver.lock().expect("no holder panics") = Some(target.driver.clone());
    let worked = ask_in_streams(&target, &host);
    // The driver holds the host: the circle would keep both alive.
    *host.driver.lock().expect("no holder panics") = None;
    target.close()?;
    worked
}

fn ask_in_streams(target: &Target, host: &Curious) -> Outcome {
    let tar = sample();
    target.step("put, with a reader that asks the driver")?;
    let reader = Asking(host, Cursor::new(&tar));
    target.put_with(&new_layer("base", None), reader, PutOptions::default())?;
    target.step("apply, with a reader that asks the driver")?;
    target.create("child", Some("base"))?;
    target.apply("child", Asking(host, Cursor::new(&tar)))?;
    target.step("diff, with a writer that asks the driver")?;
    let mut out = Vec::new();
    target.diff_to(None, "base", &mut Asking(host, &mut out))?;
    demand!(out == tar, "the stream came back changed");
    target.step("mounts and removal, with a log that asks the driver")?;
    target.manifest("child")?;
    target.delete("child")?;
    let asked = host.asked.load(Ordering::SeqCst);
    demand!(asked >= 3, "the driver was asked {asked} times");
    let refused = host.refused.lock().expect("no holder panics").take();
    demand!(
        refused.is_none(),
        "asked during other work, the driver said {refused:?}"
    );
    Ok(())
}

fn children_of_mounted(target: &mut Target) -> Outcome {
    target.without_sync()?;
    target.put("base", None, &sample())?;
    let before = target.manifest("base")?;
    let over = AtomicBool::new(false);
    let target = &*target;
    target.within("base", |path| {
        thread::scope(|scope| -> Outcome {
            let writing = scope.spawn(|| -> Outcome {
                let mut number = 0_u32;
                while !over.load(Ordering::Relaxed) {
                    number += 1;
                    fs::write(
                        path.join(format!("new-{}", number % 50)),
                        number.to_string(),
                    )?;
                }
                Ok(())
            });
            let made = together(4, |thread| {
                for number in 0..5 {
                    let id = format!("child-{thread}-{number}");
                    target.create_writable(&id, Some("base"))?;
                    target.within(&id, |path| {
                        Ok::<_, Failure>(fs::write(path.join("own"), &id)?)
                    })?;
                }
                Ok(())
            });
            over.store(true, Ordering::Relaxed);
            let written = ended(writing);
            made?;
            written
        })
    })?;
    for thread in 0..4 {
        for number in 0..5 {
            let id = format!("child-{thread}-{number}");
            let child = target.manifest(&id)?;
            demand!(child.has("own"), "`{id}` lost what was written to it");
            let missing: Vec<_> = before
                .0
                .iter()
                .filter(|(path, facts)| {
                    **path != *Path::new("") && child.0.get(*path) != Some(*facts)
                })
                .map(|(path, _)| path)
                .collect();
            demand!(
                missing.is_empty(),
                "`{id}` was made while its parent was written to, and differs in {missing:?}, \
                 which nobody touched"
            );
        }
    }
    let parent = target.manifest("base")?;
    demand!(
        parent.has("new-1"),
        "the parent lost what was written to it"
    );
    demand!(!parent.has("own"), "a child's file is in the parent");
    same!(21, recorded(target)?.len(), "the number of layers");
    Ok(())
}

/// Starts a program from within a stream, when as much as possible is open.
struct Starting<'a> {
    target: &'a Target,
    before: &'a [String],
    data: Cursor<Vec<u8>>,
    outcome: Option<Outcome>,
}

impl Read for Starting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.outcome.is_none() {
            let started = start_child(self.target, self.before);
            self.outcome = Some(started.and_then(|()| all_close(self.before)));
        }
        self.data.read(buffer)
    }
}

fn start_child(target: &Target, before: &[String]) -> Outcome {
    let words: Vec<&str> = before.iter().map(String::as_str).collect();
    target.in_peer("child", &words)
}

fn inherited(site: &Site) -> Outcome {
    // The suite itself may have been started with more than the three.
    let before: Vec<String> = open_files()?.into_iter().map(|(_, file)| file).collect();
    let target = site.open()?;
    target.put("base", None, &sample())?;
    target.step("with a mounted layer")?;
    target.within("base", |_| start_child(&target, &before))?;
    target.step("while a stream is unpacked")?;
    let mut stream = Starting {
        target: &target,
        before: &before,
        data: Cursor::new(sample()),
        outcome: None,
    };
    let new = new_layer("child", Some("base"));
    target.put_with(&new, &mut stream, PutOptions::default())?;
    let started = stream.outcome.take();
    demand!(started.is_some(), "the stream was not read");
    started.unwrap_or(Ok(()))?;
    target.close()?;
    Ok(())
}

/// Looks at the flags of what is open, since a program that is started a moment later would be
/// too late for what is open for a moment.
fn all_close(before: &[String]) -> Outcome {
    for (number, file) in open_files()? {
        // The directory that was read is closed again.
        let Ok(info) = fs::read_to_string(format!("/proc/self/fdinfo/{number}")) else {
            continue;
        };
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:"));
        let flags = flags.and_then(|text| i32::from_str_radix(text.trim(), 8).ok());
        let flags = flags.ok_or_else(|| Failure::harness(format!("no flags in {info:?}")))?;
        demand!(
            flags & nix::libc::O_CLOEXEC != 0 || before.contains(&file),
            "a program that the host starts inherits `{file}`, which is open without O_CLOEXEC"
        );
    }
    Ok(())
}

/// Numbers of descriptors, and what they are together with that number.
fn open_files() -> io::Result<Vec<(u32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let target = fs::read_link(entry.path());
        if let (Some(number), Ok(target)) = (number, target) {
            found.push((number, format!("{number} {}", target.display())));
        }
    }
    Ok(found)
}

/// Must have nothing open but what the suite had before the driver was opened, and its messages.
fn child(site: &Site, before: &[String]) -> Outcome {
    let messages = site.messages.display().to_string();
    let inherited: Vec<_> = open_files()?
        .into_iter()
        .map(|(_, file)| file)
        .filter(|file| !before.contains(file))
        .filter(|file| !file.ends_with(&messages) && !file.contains(" /proc/"))
        .filter(|file| !file.starts_with("0 "))
        .collect();
    demand!(
        inherited.is_empty(),
        "a program that the host started inherited {inherited:?}"
    );
    Ok(())
}

fn file_systems(target: &mut Target) -> Outcome {
    let mut small = Vec::new();
    for _ in 0..3 {
        small.push(Mutex::new(target.small(Size::mib(32))?));
    }
    let own = |number: usize| small[number].lock().expect("no holder panics");
    for round in 0..3 {
        let (layer, child) = (format!("layer-{round}"), format!("child-{round}"));
        together(small.len(), |number| {
            let own = own(number);
            own.put(&layer, None, &sample())?;
            own.create_writable(&child, Some(&layer))?;
            own.within(&child, |path| {
                demand!(
                    fs::read(path.join("plain"))? == b"plain",
                    "file system {number} shows something else"
                );
                Ok::<_, Failure>(fs::write(path.join("own"), number.to_string())?)
            })
        })?;
        // Now that all of them have written.
        together(small.len(), |number| {
            let read = own(number).within(&child, |path| {
                Ok::<_, Failure>(fs::read_to_string(path.join("own"))?)
            })?;
            same!(number.to_string(), read, "a file of file system {number}");
            Ok(())
        })?;
    }
    for own in small {
        own.into_inner().expect("no holder panics").close()?;
    }
    // It is still there after its neighbours are gone.
    target.put("here", None, &sample())?;
    demand!(
        target.manifest("here")?.has("plain"),
        "the layer has no content"
    );
    Ok(())
}
