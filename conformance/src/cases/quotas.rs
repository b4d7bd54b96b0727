// SPDX-License-Identifier: Apache-2.0
//! Limits of layers.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use plywood::{
    ErrorKind,
    layers::{NewLayer, PutOptions},
    sdk::LayerKind,
};

use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, case, demand, same},
    excuses,
    tar_file::TarFile,
    target::{layer_id, new_layer},
};

pub(super) const CASES: &[Case] = &[
    case("GD-QUO-001", enforced).on_disk(),
    case("GD-QUO-002", below).on_disk(),
    case("GD-QUO-003", exact).on_disk(),
    case("GD-QUO-004", inodes).on_disk(),
    case("GD-QUO-005", parent).on_disk(),
    case("GD-QUO-006", siblings).on_disk(),
    case("GD-QUO-007", persists)
        .on_disk()
        .roles(&[("write", write_role)]),
    case("GD-QUO-008", released).on_disk(),
    case("GD-QUO-009", default_limit).on_disk(),
    case("GD-QUO-010", refused).on_disk(),
    case("GD-QUO-011", apply).on_disk(),
    case("GD-QUO-012", visible).on_disk(),
];

const MIB: u64 = 1 << 20;
/// The limit of most cases: 16 MiB, as it is given to the driver.
const LIMIT: (u64, &str) = (16 * MIB, "16m");
/// A larger one, of which a file system's own blocks are a smaller part.
const LARGE: (u64, &str) = (64 * MIB, "64m");

/// A writable layer with one storage option.
fn limited(id: &str, parent: Option<&str>, key: &str, value: &str) -> NewLayer {
    NewLayer {
        kind: LayerKind::ReadWrite,
        storage_options: [(key.to_owned(), value.to_owned())].into(),
        ..new_layer(id, parent)
    }
}

fn create(target: &Target, id: &str, parent: Option<&str>, limit: (u64, &str)) -> Outcome {
    Ok(target
        .create_with(&limited(id, parent, "size", limit.1))
        .map(drop)?)
}

/// Writes until `bytes` are written or there is no space any more; says how much there was.
///
/// Any other failure than a full disk or an exhausted quota is one of the case.
fn write_up_to(directory: &Path, name: &str, bytes: u64) -> Result<u64, Failure> {
    const CHUNK: usize = 64 << 10;
    let full = |error: io::Error| match error.raw_os_error() {
        Some(libc::EDQUOT | libc::ENOSPC) => Ok(()),
        _ => Err(Failure::from(error)),
    };
    // Bytes that no file system stores in less than they take.
    let mut rng = fastrand::Rng::with_seed(bytes);
    let data: Vec<u8> = (0..CHUNK).map(|_| rng.u8(..)).collect();
    let path = directory.join(name);
    let mut file = match File::create(&path) {
        Err(error) => return full(error).map(|()| 0),
        Ok(file) => file,
    };
    let mut written = 0;
    while written < bytes {
        match file.write(&data) {
            Ok(count) => written += count as u64,
            Err(error) => {
                full(error)?;
                break;
            }
        }
        // What is only in memory is not on the disk yet, and counts nowhere.
        if written % MIB < CHUNK as u64
            && let Err(error) = file.sync_data()
        {
            full(error)?;
            break;
        }
    }
    Ok(written)
}

fn demand_limited(written: u64, limit: u64, what: &str) -> Outcome {
    demand!(
        written <= limit + limit / 20,
        "{what}: {written} bytes were written with a limit of {limit}"
    );
    Ok(())
}

fn demand_room(written: u64, wanted: u64, what: &str) -> Outcome {
    demand!(
        written >= wanted,
        "{what}: only {written} of {wanted} bytes could be written"
    );
    Ok(())
}

fn enforced(target: &mut Target) -> Outcome {
    let (limit, _) = LIMIT;
    create(target, "limited", None, LIMIT)?;
    target.within("limited", |path| {
        let written = write_up_to(path, "file", limit + limit / 2)?;
        demand_limited(written, limit, "in one file")
    })?;
    create(target, "many", None, LIMIT)?;
    target.within("many", |path| {
        let mut written = 0;
        for file in 0..24 {
            written += write_up_to(path, &file.to_string(), MIB)?;
        }
        demand_limited(written, limit, "in files of 1 MiB")
    })
}

fn below(target: &mut Target) -> Outcome {
    let (limit, _) = LIMIT;
    create(target, "limited", None, LIMIT)?;
    target.within("limited", |path| {
        let written = write_up_to(path, "file", limit / 2)?;
        demand_room(written, limit / 2, "half of the limit")?;
        // What was deleted can be written again.
        fs::remove_file(path.join("file"))?;
        let written = write_up_to(path, "again", limit / 2)?;
        demand_room(written, limit / 2, "half of the limit again")?;
        same!(
            limit / 2,
            fs::metadata(path.join("again"))?.len(),
            "the size of the file"
        );
        Ok(())
    })
}

fn exact(target: &mut Target) -> Outcome {
    let (limit, _) = LARGE;
    create(target, "limited", None, LARGE)?;
    target.within("limited", |path| {
        let written = write_up_to(path, "file", limit * 2)?;
        demand_limited(written, limit, "in all")?;
        demand_room(written, limit - limit / 20, "95 % of the limit")
    })
}

fn inodes(target: &mut Target) -> Outcome {
    const LIMIT: usize = 200;
    target.create_with(&limited("limited", None, "inodes", "200"))?;
    target.within("limited", |path| {
        let mut made = 0;
        while made < 2 * LIMIT {
            match File::create(path.join(made.to_string())) {
                Ok(_) => made += 1,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EDQUOT | libc::ENOSPC) => break,
                    _ => return Err(error.into()),
                },
            }
        }
        demand!(
            (LIMIT * 9 / 10..=LIMIT).contains(&made),
            "{made} files could be made with a limit of {LIMIT} inodes"
        );
        Ok(())
    })
}

fn heavy_tar(bytes: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(bytes);
    let mut tar = TarFile::new();
    for file in 0..bytes / MIB {
        let data: Vec<u8> = (0..MIB / 8)
            .flat_map(|_| rng.u64(..).to_ne_bytes())
            .collect();
        tar = tar.file(&format!("heavy-{file}"), &data);
    }
    tar.done()
}

fn parent(target: &mut Target) -> Outcome {
    let (limit, _) = LIMIT;
    target.put("base", None, &heavy_tar(limit + limit / 2))?;
    create(target, "child", Some("base"), LIMIT)?;
    target.within("child", |path| {
        let written = write_up_to(path, "file", limit / 2)?;
        demand_room(
            written,
            limit / 2,
            "above a parent that is larger than the limit",
        )?;
        let more = write_up_to(path, "more", limit)?;
        demand_limited(written + more, limit, "above a parent")?;
        same!(
            MIB,
            fs::metadata(path.join("heavy-0"))?.len(),
            "the size of a file of the parent"
        );
        Ok(())
    })
}

fn siblings(target: &mut Target) -> Outcome {
    let (limit, _) = LIMIT;
    target.put("base", None, &TarFile::new().file("file", b"text").done())?;
    for id in ["full", "other"] {
        create(target, id, Some("base"), LIMIT)?;
    }
    target.within("full", |path| {
        let written = write_up_to(path, "big", 2 * limit)?;
        demand_limited(written, limit, "in the first sibling")
    })?;
    target.within("other", |path| {
        let written = write_up_to(path, "big", limit / 2)?;
        demand_room(written, limit / 2, "beside a full sibling")
    })?;
    target.create_writable("unlimited", Some("base"))?;
    target.within("unlimited", |path| {
        let written = write_up_to(path, "big", limit + limit / 2)?;
        demand_room(written, limit + limit / 2, "in a sibling without a limit")
    })
}

fn write_role(site: &Site, arguments: &[String]) -> Outcome {
    let (limit, _) = LIMIT;
    let target = site.open()?;
    let first = arguments.first().is_some_and(|which| which == "first");
    let done = target.within("limited", |path| {
        if first {
            let written = write_up_to(path, "first", limit / 2)?;
            return demand_room(written, limit / 2, "before the restart");
        }
        let written = write_up_to(path, "second", limit)?;
        demand_limited(limit / 2 + written, limit, "before and after a restart")?;
        demand_room(
            written,
            limit / 4,
            "after the restart, with half of the limit left",
        )
    });
    target.close()?;
    done
}

fn persists(target: &mut Target) -> Outcome {
    create(target, "limited", None, LIMIT)?;
    target.in_peer("write", &["first"])?;
    target.in_peer("write", &["second"])?;
    target.within("limited", |path| {
        let mut held = 0;
        for name in ["first", "second"] {
            held += fs::metadata(path.join(name))?.len();
        }
        demand_limited(held, LIMIT.0, "in two processes")
    })
}

fn released(target: &mut Target) -> Outcome {
    const ROUNDS: u32 = 40;
    let (limit, _) = LIMIT;
    let home = || -> io::Result<usize> { count(&target.home()) };
    create(target, "limited", None, LIMIT)?;
    target.delete("limited")?;
    let before = home()?;
    for round in 0..ROUNDS {
        create(target, "limited", None, LIMIT)?;
        if round % 20 == 0 {
            target.within("limited", |path| {
                let written = write_up_to(path, "file", limit / 2)?;
                demand_room(
                    written,
                    limit / 2,
                    &format!("in round {round} of create and delete"),
                )
            })?;
        }
        target.delete("limited")?;
    }
    same!(
        before,
        home()?,
        "the files in the driver's home after {ROUNDS} rounds"
    );
    // Under the same id, a layer without a limit has none.
    target.create_writable("limited", None)?;
    target.within("limited", |path| {
        let written = write_up_to(path, "file", limit + limit / 2)?;
        demand_room(
            written,
            limit + limit / 2,
            "in a layer of the same id without a limit",
        )
    })
}

fn count(path: &Path) -> io::Result<usize> {
    let mut found = 1;
    if fs::symlink_metadata(path)?.is_dir() {
        for entry in fs::read_dir(path)? {
            found += count(&entry?.path())?;
        }
    }
    Ok(found)
}

fn default_limit(target: &mut Target) -> Outcome {
    let (limit, text) = LIMIT;
    let mut site = target.at(target.scratch("limited-store")?);
    site.options
        .push(format!("{}.size={text}", target.driver.name()));
    let store = match site.open() {
        Err(error) if error.kind() == ErrorKind::InvalidArgument => {
            return Err(Failure::not_applicable(
                excuses::NO_DEFAULT_LIMIT,
                format!("there is no limit for all layers of this driver: {error}"),
            ));
        }
        store => store?,
    };
    // Opened once more below, so nothing of it may stay behind a failure.
    let done = limits_writable_ones(&store, limit);
    store.close()?;
    done
}

fn limits_writable_ones(store: &Target, limit: u64) -> Outcome {
    store.put("image", None, &heavy_tar(limit + limit / 2))?;
    store.create_writable("container", Some("image"))?;
    store.within("container", |path| {
        let written = write_up_to(path, "file", 2 * limit)?;
        demand_limited(
            written,
            limit,
            "in a writable layer of a driver with a limit",
        )?;
        demand_room(
            written,
            limit / 2,
            "in a writable layer of a driver with a limit",
        )
    })
}

fn refused(target: &mut Target) -> Outcome {
    let can = target.driver.capabilities().clone();
    let mut wrong = vec![
        ("size", "nonsense"),
        ("size", "-1"),
        ("no-such-option", "1"),
    ];
    if !can.size_quota {
        wrong.push(("size", "16m"));
    }
    if !can.inode_quota {
        wrong.push(("inodes", "100"));
    }
    for (key, value) in wrong {
        let answer = target.create_with(&limited("limited", None, key, value));
        let kind = answer.map_err(|error| error.kind()).map(drop);
        demand!(
            matches!(
                kind,
                Err(ErrorKind::NotSupported | ErrorKind::InvalidArgument)
            ),
            "`{key}={value}` was answered with {kind:?} and not refused"
        );
        demand!(
            !target.driver.exists(&layer_id("limited"))?,
            "the refused `{key}={value}` left a layer"
        );
    }
    target.create_writable("limited", None)?;
    Ok(())
}

fn apply(target: &mut Target) -> Outcome {
    let (limit, text) = LIMIT;
    let tar = heavy_tar(limit + limit / 2);
    let new = limited("put", None, "size", text);
    let answer = target.put_with(&new, &tar[..], PutOptions::default());
    same!(
        Err(ErrorKind::NoSpace),
        answer.map(drop).map_err(|error| error.kind()),
        "the answer to putting more than the limit"
    );
    demand!(
        !target.driver.exists(&layer_id("put"))?,
        "a layer was left of a put that failed"
    );
    create(target, "applied", None, LIMIT)?;
    let answer = target.apply("applied", &tar[..]);
    same!(
        Err(ErrorKind::NoSpace),
        answer.map(drop).map_err(|error| error.kind()),
        "the answer to applying more than the limit"
    );
    target.within("applied", |path| {
        let held = fs::read_dir(path)?.count() as u64 * MIB;
        demand_limited(held.saturating_sub(MIB), limit, "after the failed apply")
    })?;
    target.delete("applied")?;
    let new = limited("put", None, "size", text);
    target.put_with(&new, &heavy_tar(limit / 2)[..], PutOptions::default())?;
    Ok(())
}

fn visible(target: &mut Target) -> Outcome {
    let (limit, _) = LIMIT;
    let near = |found: u64, wanted: u64| found.abs_diff(wanted) <= wanted / 5;
    create(target, "limited", None, LIMIT)?;
    let shown = target.within("limited", |path| {
        let written = write_up_to(path, "file", limit / 2)?;
        demand_room(written, limit / 2, "half of the limit")?;
        let stat = nix::sys::statvfs::statvfs(path)?;
        Ok::<_, Failure>(stat.blocks() * stat.fragment_size())
    })?;
    let facts = target.metadata("limited")?;
    let stated: Vec<u64> = facts
        .values()
        .filter_map(|value| value.parse().ok())
        .collect();
    demand!(
        near(shown, limit) || stated.contains(&limit),
        "a limit of {limit} bytes is shown nowhere: statfs says {shown}, metadata {facts:?}"
    );
    let usage = target.driver.usage(&layer_id("limited"))?;
    demand!(
        near(usage.bytes, limit / 2),
        "{} bytes are in use, says `usage`, after {} were written",
        usage.bytes,
        limit / 2
    );
    Ok(())
}
