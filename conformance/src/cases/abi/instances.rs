// SPDX-License-Identifier: Apache-2.0
//! Several instances of a driver, several drivers, several threads.

use std::{fs, sync::Barrier, thread};

use plywood::{ErrorKind, sdk::Plugin as _};
use plywood_conformance_faulty::Reference;

use super::life;
use crate::{
    Case, Site, Source, Target,
    case::{Failure, Outcome, bare, case, demand, same},
    excuses,
    target::layer_id,
};

pub(in crate::cases) const CASES: &[Case] = &[
    bare("GD-ABI-010", capabilities_stable),
    bare("GD-ABI-013", two_drivers),
    bare("GD-ABI-014", two_roots),
    bare("GD-ABI-015", same_root),
    bare("GD-ABI-016", again),
    case("GD-ABI-022", errors_of_threads),
    bare("GD-ABI-023", any_thread),
];

fn capabilities_stable(site: &Site) -> Outcome {
    let target = site.open()?;
    let first = target.driver.capabilities().clone();
    let asked = |target: &Target| target.driver.unguarded().capabilities();
    same!(first, asked(&target), "the capabilities, asked for again");
    life(&target, "one")?;
    same!(first, asked(&target), "the capabilities after use");
    let (site, _) = target.close()?;
    let target = site.open()?;
    same!(
        first,
        asked(&target),
        "the capabilities after opening again"
    );
    let elsewhere = site.at(site.scratch("elsewhere")?).open()?;
    same!(first, asked(&elsewhere), "the capabilities on another root");
    elsewhere.close()?;
    target.close()?;
    Ok(())
}

/// The same plugin file under another path, and the driver that every program of the suite has.
fn others(site: &Site) -> Result<Vec<(String, Source)>, Failure> {
    let mut others = Vec::new();
    if let Source::Plugin(path) = &site.source {
        let name = path
            .file_name()
            .ok_or_else(|| Failure::harness("a file has a name"))?;
        let copy = site.scratch("copy")?.join(name);
        fs::copy(path, &copy)?;
        others.push((
            "the same file under another path".to_owned(),
            Source::Plugin(copy),
        ));
    }
    let own = Reference::NAME.to_owned();
    if site.source.name()? != own {
        let what = "the suite's own driver".to_owned();
        others.push((what, Source::Embedded(own)));
    }
    Ok(others)
}

fn two_drivers(site: &Site) -> Outcome {
    let others = others(site)?;
    if others.is_empty() {
        return Err(Failure::not_applicable(
            excuses::NO_OTHER_DRIVER,
            "it is the suite's own driver, beside which there is no other",
        ));
    }
    let one = site.at(site.scratch("this")?).open()?;
    let mut fitting = 0;
    for (number, (what, source)) in others.into_iter().enumerate() {
        let mut other = site.at(site.scratch(&format!("other-{number}"))?);
        other.source = source;
        // Its options are for another driver.
        if !matches!(other.source, Source::Plugin(_)) {
            other.options.clear();
        }
        let other = match other.open() {
            Ok(other) => other,
            // Another driver may not fit the file system; that is not this one's fault.
            Err(error) if error.kind() == ErrorKind::DriverUnavailable => continue,
            Err(error) => return Err(error.into()),
        };
        fitting += 1;
        let shared = format!("shared-{number}");
        one.create(&shared, None)?;
        demand!(
            !other.driver.exists(&layer_id(&shared))?,
            "a layer of this driver is seen by {what}"
        );
        other.create(&shared, None)?;
        life(&one, "mine")?;
        life(&other, "theirs")?;
        other.delete(&shared)?;
        demand!(
            one.driver.exists(&layer_id(&shared))?,
            "{what} removed a layer of this driver"
        );
        other.close()?;
        life(&one, "after")?;
    }
    one.close()?;
    if fitting == 0 {
        return Err(Failure::not_applicable(
            excuses::NO_OTHER_DRIVER,
            "no other driver that is linked in fits the file system",
        ));
    }
    Ok(())
}

fn two_roots(site: &Site) -> Outcome {
    let one = site.at(site.scratch("one")?).open()?;
    let two = site.at(site.scratch("two")?).open()?;
    one.create("layer", None)?;
    one.within("layer", |path| {
        fs::write(path.join("file"), "one").map_err(Failure::from)
    })?;
    let id = layer_id("layer");
    demand!(
        !two.driver.exists(&id)?,
        "a layer is seen from another root"
    );
    two.create("layer", None)?;
    let empty = two.manifest("layer")?;
    demand!(!empty.has("file"), "content is seen from another root");
    two.delete("layer")?;
    demand!(one.driver.exists(&id)?, "removal reached another root");
    life(&two, "two")?;
    two.close()?;
    demand!(one.manifest("layer")?.has("file"), "the content is gone");
    life(&one, "one")?;
    one.close()?;
    Ok(())
}

fn same_root(site: &Site) -> Outcome {
    let one = site.open()?;
    one.create("before", None)?;
    let two = match site.open() {
        Ok(two) => two,
        Err(error) => {
            same!(
                ErrorKind::Busy,
                error.kind(),
                "the refusal of a second instance: {error}"
            );
            life(&one, "alone")?;
            one.close()?;
            return Ok(());
        }
    };
    let exists = |target: &Target, id: &str| target.driver.exists(&layer_id(id));
    demand!(
        exists(&two, "before")?,
        "the second instance does not see an older layer"
    );
    one.create("one", Some("before"))?;
    two.create("two", Some("one"))?;
    demand!(
        exists(&one, "two")?,
        "the first instance does not see a layer of the second"
    );
    let error = one.create("two", None).err();
    demand!(
        error.as_ref().map(plywood::Error::kind) == Some(ErrorKind::DuplicateId),
        "the first instance made a layer that the second one has: {error:?}"
    );
    one.within("one", |path| {
        fs::write(path.join("file"), "text").map_err(Failure::from)
    })?;
    demand!(
        two.manifest("one")?.has("file"),
        "the second instance sees other content"
    );
    two.delete("two")?;
    demand!(
        !exists(&one, "two")?,
        "the first instance sees a layer that is gone"
    );
    two.close()?;
    demand!(
        one.manifest("one")?.has("file"),
        "closing the second instance took content away"
    );
    life(&one, "after")?;
    one.close()?;
    Ok(())
}

fn again(site: &Site) -> Outcome {
    let target = site.open()?;
    target.create("layer", None)?;
    target.within("layer", |path| {
        fs::write(path.join("file"), "text").map_err(Failure::from)
    })?;
    let before = target.manifest("layer")?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let (mut site, _) = target.close()?;
    for round in 1..=3 {
        let target = site.open()?;
        let differences = before.differences(&target.manifest("layer")?);
        demand!(
            differences.is_empty(),
            "after opening {round} times more: {differences:?}"
        );
        life(&target, "round")?;
        site = target.close()?.0;
    }
    let target = site.open()?;
    let after = fs::read_to_string("/proc/self/mountinfo")?;
    let lines = |text: &str| text.lines().count();
    same!(
        lines(&mounts),
        lines(&after),
        "the number of mounts while it is open"
    );
    target.close()?;
    Ok(())
}

fn errors_of_threads(target: &mut Target) -> Outcome {
    const THREADS: usize = 8;
    const EACH: usize = 50;
    let barrier = Barrier::new(THREADS);
    let driver = target.driver.clone();
    let ask = |thread: usize| {
        barrier.wait();
        let ids = (0..EACH).map(|n| format!("unknown-{thread}-{n}"));
        let ask = |id: String| {
            let error = driver.unguarded().usage(&layer_id(&id)).err();
            (id, error)
        };
        ids.map(ask).collect::<Vec<_>>()
    };
    let answers = thread::scope(|scope| {
        let ask = &ask;
        let threads: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || ask(n))).collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.collect::<Result<Vec<_>, _>>()
    });
    let answers = answers.map_err(|_| Failure::new("a thread that asked panicked"))?;
    for (id, error) in answers.into_iter().flatten() {
        let Some(error) = error else {
            return Err(Failure::new(format!("`{id}` was measured")));
        };
        let named = error.message.contains(&id) || error.object.as_ref() == Some(&id);
        demand!(
            named,
            "the error about `{id}` names something else: {error:?}"
        );
    }
    Ok(())
}

fn any_thread(site: &Site) -> Outcome {
    let elsewhere = |work: &mut (dyn FnMut() -> Outcome + Send)| {
        let ended = thread::scope(|scope| scope.spawn(work).join());
        ended.unwrap_or_else(|_| Err(Failure::new("the thread panicked")))
    };
    let mut target = None;
    elsewhere(&mut || {
        target = Some(site.open()?);
        Ok(())
    })?;
    let target = target.ok_or_else(|| Failure::harness("nothing was opened"))?;
    // Opened by a thread that has ended, used by others, one after the other and together.
    elsewhere(&mut || life(&target, "alone"))?;
    let together = thread::scope(|scope| {
        let target = &target;
        let works = |n: usize| move || life(target, &format!("thread-{n}"));
        let threads: Vec<_> = (0..4).map(|n| scope.spawn(works(n))).collect();
        let joined = threads.into_iter().map(thread::ScopedJoinHandle::join);
        joined.collect::<Result<Vec<_>, _>>()
    });
    for outcome in together.map_err(|_| Failure::new("a thread panicked"))? {
        outcome?;
    }
    let mut target = Some(target);
    elsewhere(&mut || match target.take() {
        Some(target) => Ok(target.close().map(drop)?),
        None => Err(Failure::harness("it was closed twice")),
    })?;
    demand!(site.home()?.is_dir(), "the home is gone after closing");
    Ok(())
}
