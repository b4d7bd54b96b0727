// SPDX-License-Identifier: Apache-2.0
//! Ids that are accepted, and what they must not do to each other.

use std::{collections::BTreeSet, ffi::OsString, fs};

use plywood::{
    ErrorKind,
    sdk::{CreateRequest, DriverErrorCode, LayerId, MAX_ID_LENGTH},
};

use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    cases::{
        asks::{self, Traces, fully_usable},
        lif::random,
        lifecycle::sample,
    },
    scratch::Size,
    target::layer_id,
};

pub(super) fn hex(target: &mut Target) -> Outcome {
    let mut rng = target.rng();
    let drawn: String = (0..64)
        .map(|_| char::from(b"0123456789abcdef"[rng.usize(..16)]))
        .collect();
    for id in [&*drawn, &"0".repeat(64), &"f".repeat(64), &"1".repeat(64)] {
        target.step(id)?;
        fully_usable(target, id)?;
    }
    Ok(())
}

pub(super) fn short_and_mixed(target: &mut Target) -> Outcome {
    for id in [
        "a", "Base1", "x_y.z-1", "_", "0", "007", "a..b", "a--b", "A-._z", "null", "true",
    ] {
        target.step(id)?;
        fully_usable(target, id)?;
    }
    Ok(())
}

/// Layers of those ids, each with content of its own, are there at the same time; removing each
/// leaves the others.
fn all_distinct(target: &Target, ids: &[&str]) -> Outcome {
    for id in ids {
        target.step(&format!("create `{id}`"))?;
        target.create_writable(id, None)?;
        target.within(id, |path| -> Outcome {
            Ok(fs::write(path.join("mine"), id)?)
        })?;
    }
    let mut left: BTreeSet<&str> = ids.iter().copied().collect();
    let check = |left: &BTreeSet<&str>| -> Outcome {
        for id in ids {
            let there = target.driver.exists(&layer_id(id))?;
            same!(
                left.contains(id),
                there,
                "whether `{id}` exists, beside {left:?}"
            );
        }
        for id in left {
            let text = target.within(id, |path| -> Result<_, Failure> {
                Ok(fs::read_to_string(path.join("mine"))?)
            })?;
            same!(*id, text, "content of `{id}`, beside {left:?}");
        }
        if target.driver.capabilities().list {
            let listed = target.driver.list()?.into_iter().map(|id| id.to_string());
            let expected: BTreeSet<_> = left.iter().map(|id| (*id).to_owned()).collect();
            same!(expected, listed.collect::<BTreeSet<_>>(), "layers");
        }
        Ok(())
    };
    check(&left)?;
    for id in ids {
        target.step(&format!("remove `{id}`"))?;
        target.delete(id)?;
        left.remove(id);
        check(&left)?;
    }
    Ok(())
}

pub(super) fn case_distinct(target: &mut Target) -> Outcome {
    all_distinct(target, &["AbC", "abc", "ABC", "aBc"])
}

pub(super) fn longest(target: &mut Target) -> Outcome {
    same!(
        128,
        MAX_ID_LENGTH,
        "the documented length of the longest id"
    );
    for id in [
        "a".repeat(128),
        "a".repeat(127),
        format!("{}.-_z", "Q".repeat(124)),
    ] {
        target.step(&format!("{} bytes", id.len()))?;
        fully_usable(target, &id)?;
    }
    target.step("two that differ in the last byte")?;
    let long = "x".repeat(127);
    all_distinct(target, &[&format!("{long}1"), &format!("{long}2")])
}

/// Names that the driver or core may use for itself, and all that it really has in its home.
fn suspicious(target: &Target) -> Result<BTreeSet<String>, Failure> {
    let known = [
        "l",
        "staging",
        "tempdirs",
        "backingFsBlockDev",
        "dir",
        "layers",
        "subvolumes",
        "quotas",
        "tree",
        "merged",
        "diff",
        "diff1",
        "work",
        "lower",
        "link",
        "empty",
        "upper",
        "root",
        "graph",
        "run",
        "home",
        "tmp",
        "temp",
        "trash",
        "lock",
        "locks",
        "storage",
        "metadata",
        "volatile-layers",
        "mountpoints",
        "layers.json",
        "mountpoints.json",
        "layers.lock",
        "userns.lock",
        "storage.lock",
        "merged.1",
        "temp-dir-1",
        "lock-1",
        "0-addition",
        "1-x",
        "addition",
        "images",
        "containers",
        "canary",
        "proc",
        "dev",
    ];
    let mut names: BTreeSet<String> = known.map(str::to_owned).into();
    names.insert(target.driver.name().to_owned());
    names.insert(format!("{}-layers", target.driver.name()));
    for place in [
        target.home(),
        target.run_dir()?,
        target.root.join("graph"),
        target.root.join("run"),
    ] {
        let Ok(entries) = fs::read_dir(&place) else {
            continue;
        };
        for entry in entries {
            names.extend(entry?.file_name().into_string().ok());
        }
    }
    names.retain(|name| {
        LayerId::new(name.as_str()).is_ok() && name != "bystander" && name != "other"
    });
    Ok(names)
}

pub(super) fn reserved(target: &mut Target) -> Outcome {
    target.put("bystander", None, &sample())?;
    target.put("other", Some("bystander"), &sample())?;
    let before = target.manifest("other")?;
    let can = target.driver.capabilities().clone();
    // Its private places are there while something is in them.
    let staged = if can.staging {
        let request = CreateRequest::new(layer_id("staged"), Some(layer_id("other")));
        Some(target.driver.stage(&request)?)
    } else {
        None
    };
    let mut refused = 0;
    for id in suspicious(target)? {
        target.step(&id)?;
        let traces = Traces::of(target)?;
        match target.create(&id, None) {
            Err(error) if error.kind() == ErrorKind::InvalidArgument => {
                refused += 1;
                demand!(
                    !target.driver.exists(&layer_id(&id))?,
                    "the refused id `{id}` exists"
                );
                traces.unchanged(target, &format!("the refused id `{id}`"))?;
                let put = target.put(&id, None, &sample());
                asks::refused(
                    &format!("putting a layer `{id}`"),
                    put,
                    &[ErrorKind::InvalidArgument],
                )?;
                let answer = target.driver.unguarded().remove(&layer_id(&id));
                if answer.is_err() {
                    let codes = [DriverErrorCode::INVALID_ARGUMENT];
                    asks::driver_refused(&format!("removing `{id}`"), answer, &codes)?;
                }
                traces.unchanged(target, &format!("removing the refused id `{id}`"))?;
            }
            Err(error) => {
                let text =
                    format!("`{id}` must be refused as InvalidArgument or work, and is {error:?}");
                return Err(Failure::new(text));
            }
            Ok(_) => {
                target.delete(&id)?;
                fully_usable(target, &id)?;
                traces.unchanged(target, &format!("a layer called `{id}`, made and removed,"))?;
            }
        }
    }
    target.measure("refused_names", f64::from(refused))?;
    if let Some(staged) = staged {
        target.driver.adopt(
            &staged.token,
            &CreateRequest::new(layer_id("staged"), Some(layer_id("other"))),
        )?;
        target.driver.remove(&layer_id("staged"))?;
    }
    asks::equal("another layer changed", &before, &target.manifest("other")?)
}

pub(super) fn no_aliasing(target: &mut Target) -> Outcome {
    all_distinct(
        target,
        &[
            "a", "A", "aa", "a-", "a_", "a.a", "a-a", "a_a", "_a", "a0", "0a", "a.1", "1-a", "0-a",
            "a.tmp", "a.new", "new-a",
        ],
    )
}

pub(super) fn two_roots(target: &mut Target) -> Outcome {
    let other = target.at(target.scratch("other-root")?).open()?;
    for (which, store) in [("first", &*target), ("second", &other)] {
        store.create_writable("base", None)?;
        store.within("base", |path| -> Outcome {
            Ok(fs::write(path.join("whose"), which)?)
        })?;
        store.create_writable("same", Some("base"))?;
        store.within("same", |path| -> Outcome {
            Ok(fs::write(path.join(which), which)?)
        })?;
    }
    let check = |which: &str, store: &Target| -> Outcome {
        store.within("same", |path| -> Outcome {
            same!(
                which,
                fs::read_to_string(path.join("whose"))?,
                "content of the {which} root's layer"
            );
            let mut names: Vec<_> = fs::read_dir(path)?
                .map(|entry| entry.map(|entry| entry.file_name()))
                .collect::<Result<_, _>>()?;
            names.sort();
            let mut expected = [which, "whose"].map(OsString::from).to_vec();
            expected.sort();
            same!(expected, names, "names in the {which} root's layer");
            Ok(())
        })
    };
    target.step("mounted at the same time")?;
    target.within("same", |_| check("second", &other))?;
    other.within("same", |_| check("first", target))?;
    target.step("removed in one")?;
    target.delete("same")?;
    target.delete("base")?;
    check("second", &other)?;
    demand!(
        !target.driver.exists(&layer_id("same"))?,
        "the removed layer exists"
    );
    target.step("recovered in one")?;
    target.driver.recover()?;
    check("second", &other)?;
    other.close()?;
    Ok(())
}

pub(super) fn after_failure(target: &mut Target) -> Outcome {
    target.step("a parent that does not exist")?;
    let unknown = [ErrorKind::LayerUnknown, ErrorKind::ParentUnknown];
    asks::refused(
        "a layer on an unknown parent",
        target.create("one", Some("no")),
        &unknown,
    )?;
    let request = CreateRequest::new(layer_id("one"), Some(layer_id("no")));
    asks::driver_refused(
        "a layer on an unknown parent",
        target.driver.unguarded().create(&request),
        &[DriverErrorCode::NOT_FOUND],
    )?;
    fully_usable(target, "one")?;
    target.step("a stream that breaks off")?;
    let cut = sample();
    let broken = target.put("one", None, &cut[..cut.len() / 3]);
    demand!(broken.is_err(), "a stream that breaks off was accepted");
    fully_usable(target, "one")?;
    target.step("an option that is unknown")?;
    let mut new = crate::target::new_layer("one", None);
    new.storage_options
        .insert("no-such-option".to_owned(), "1".to_owned());
    let kinds = [ErrorKind::InvalidArgument, ErrorKind::NotSupported];
    asks::refused(
        "a layer with an unknown option",
        target.create_with(&new),
        &kinds,
    )?;
    fully_usable(target, "one")?;
    target.step("a full file system")?;
    let small = target.small(Size::mib(48))?;
    small.create("keep", None)?;
    let data = random(&small, 1 << 20)?;
    let mut tar = crate::tar_file::TarFile::new();
    for number in 0..8 {
        tar = tar.file(&format!("file-{number}"), &data);
    }
    let tar = tar.done();
    small.small_filesystem()?.fill(256 << 10)?;
    asks::refused(
        "a layer that does not fit",
        small.put("one", Some("keep"), &tar),
        &[ErrorKind::NoSpace],
    )?;
    demand!(
        !small.driver.exists(&layer_id("one"))?,
        "a layer exists that did not fit"
    );
    small.small_filesystem()?.unfill()?;
    fully_usable(&small, "one")?;
    small.put("one", Some("keep"), &tar)?;
    small.close()?;
    Ok(())
}
