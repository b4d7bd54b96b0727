// SPDX-License-Identifier: Apache-2.0
//! Layers that are large, many, or awkward to remove.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use plywood::{
    ErrorKind, mount,
    sdk::{CreateRequest, MountPlan, MountRequest},
};
use rustix::fs::{IFlags, Mode, OFlags};

use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    cases::{
        asks::{self, Traces},
        lifecycle::sample,
    },
    target::layer_id,
};

/// Removes a layer whose content `fill` made: wholly, or not at all.
fn removed_or_whole(
    target: &Target,
    id: &str,
    fill: impl FnOnce(&Path) -> Outcome,
    undo: impl FnOnce(&Path) -> Outcome,
) -> Outcome {
    target.step(&format!("remove a layer with {id}"))?;
    let traces = Traces::of(target)?;
    target.create_writable(id, Some("base"))?;
    target.within(id, fill)?;
    if let Err(error) = target.delete(id) {
        asks::refused::<()>(
            &format!("removing a layer with {id}"),
            Err(error),
            &[ErrorKind::Permission],
        )?;
        demand!(
            target.driver.exists(&layer_id(id))?,
            "the removal of a layer with {id} failed, and the layer is not there any more"
        );
        target.within(id, undo)?;
        target.delete(id)?;
    }
    demand!(
        !target.driver.exists(&layer_id(id))?,
        "the layer exists after its removal"
    );
    target.driver.recover()?;
    traces.nothing_new(target, &format!("removing a layer with {id}"))
}

fn freeze(path: &Path, frozen: bool) -> Result<bool, Failure> {
    let file = File::open(path)?;
    let flags = match rustix::fs::ioctl_getflags(&file) {
        Ok(flags) => flags,
        // The layer's file system has no such flags.
        Err(rustix::io::Errno::NOTTY | rustix::io::Errno::OPNOTSUPP) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let wanted = if frozen {
        flags | IFlags::IMMUTABLE
    } else {
        flags - IFlags::IMMUTABLE
    };
    match rustix::fs::ioctl_setflags(&file, wanted) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::NOTTY | rustix::io::Errno::OPNOTSUPP) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub(super) fn awkward(target: &mut Target) -> Outcome {
    target.put("base", None, &sample())?;
    target.put("warm", Some("base"), &sample())?;
    target.delete("warm")?;
    let nothing = |_: &Path| Ok(());
    let closed = |path: &Path| -> Outcome {
        fs::create_dir_all(path.join("closed/inner/more"))?;
        fs::write(path.join("closed/inner/file"), "x")?;
        for name in ["closed/inner/more", "closed/inner", "closed", "d"] {
            fs::set_permissions(path.join(name), fs::Permissions::from_mode(0o000))?;
        }
        Ok(())
    };
    removed_or_whole(target, "closed-directories", closed, nothing)?;
    removed_or_whole(target, "deep-directories", |path| deep(path, 2000), nothing)?;
    removed_or_whole(target, "many-files", |path| many(path, 100_000), nothing)?;
    let names = ["frozen/dir/file", "frozen/dir", "frozen"];
    let frozen = |path: &Path| -> Outcome {
        fs::create_dir_all(path.join("frozen/dir"))?;
        fs::write(path.join("frozen/dir/file"), "x")?;
        let mut set = true;
        for name in names {
            set &= freeze(&path.join(name), true)?;
        }
        target.measure("immutable_files", f64::from(u8::from(set)))?;
        Ok(())
    };
    let thaw = |path: &Path| -> Outcome {
        for name in names.iter().rev() {
            freeze(&path.join(name), false)?;
        }
        Ok(())
    };
    removed_or_whole(target, "immutable-files", frozen, thaw)?;
    demand!(
        target.manifest("base")?.has("d/e/deep"),
        "the parent lost content"
    );
    Ok(())
}

fn deep(path: &Path, levels: usize) -> Outcome {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(path, flags, Mode::empty())?;
    for _ in 0..levels {
        rustix::fs::mkdirat(&at, "deeper", Mode::RWXU)?;
        at = rustix::fs::openat(&at, "deeper", flags, Mode::empty())?;
    }
    let file = rustix::fs::openat(
        &at,
        "file",
        OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC,
        Mode::RUSR,
    )?;
    rustix::io::write(file, b"x")?;
    Ok(())
}

fn many(path: &Path, files: usize) -> Outcome {
    for directory in 0..10 {
        let directory = path.join(format!("many-{directory}"));
        fs::create_dir(&directory)?;
        for file in 0..files / 10 {
            let path = directory.join(format!("a-file-with-the-number-{file}"));
            // Every fifth is a file of its own, the others are further names of it.
            if file % 5 == 0 {
                File::create(&path)?;
            } else {
                let first = format!("a-file-with-the-number-{}", file - file % 5);
                fs::hard_link(directory.join(first), &path)?;
            }
        }
    }
    Ok(())
}

/// As [`Target::within`], for a layer without a record.
fn within_alone<T>(
    target: &Target,
    id: &str,
    work: impl FnOnce(&Path) -> io::Result<T>,
) -> Result<T, Failure> {
    let (driver, id, request) = (&target.driver, layer_id(id), MountRequest::default());
    let plan = driver.mount_plan(&id, &request)?;
    let path = match &plan {
        MountPlan::ByDriver { .. } => driver.mount(&id, &request)?,
        plan => mount::execute(plan)?,
    };
    let done = work(&path);
    match &plan {
        MountPlan::ByDriver { .. } => driver.unmount(&id)?,
        plan => mount::undo(plan, &path)?,
    }
    driver.released(&id)?;
    Ok(done?)
}

pub(super) fn siblings(target: &mut Target) -> Outcome {
    const MANY: usize = 200;
    target.put("base", None, &sample())?;
    let before = target.manifest("base")?;
    let id = |number: usize| format!("child-{number}");
    for number in 0..MANY {
        let request = CreateRequest::new(layer_id(&id(number)), Some(layer_id("base")));
        target.driver.create(&request)?;
    }
    target.step("each has something of its own")?;
    for number in 0..MANY {
        within_alone(target, &id(number), |path| {
            fs::write(path.join("own"), id(number))?;
            fs::write(path.join("plain"), format!("changed by {number}"))?;
            if number % 2 == 0 {
                fs::remove_file(path.join("setuid"))
            } else {
                Ok(())
            }
        })?;
    }
    target.step("and nothing of another")?;
    for number in 0..MANY {
        let seen = within_alone(target, &id(number), |path| {
            let names = fs::read_dir(path)?.count();
            let own = fs::read_to_string(path.join("own"))?;
            let plain = fs::read_to_string(path.join("plain"))?;
            Ok((
                names,
                own,
                plain,
                fs::read_to_string(path.join("d/e/deep"))?,
            ))
        })?;
        let names = 8 - (number + 1) % 2;
        let expected = (
            names,
            id(number),
            format!("changed by {number}"),
            "deep".to_owned(),
        );
        same!(expected, seen, "what {} shows", id(number));
    }
    asks::equal("the parent changed", &before, &target.manifest("base")?)?;
    for number in 0..MANY {
        target.driver.remove(&layer_id(&id(number)))?;
    }
    if target.driver.capabilities().list {
        same!(
            vec![layer_id("base")],
            target.driver.list()?,
            "layers after all were removed"
        );
    }
    Ok(())
}

pub(super) fn large_file(target: &mut Target) -> Outcome {
    const SIZE: u64 = 5 << 30;
    let marks: [u64; 6] = [
        0,
        (2 << 30) - 8,
        2 << 30,
        (4 << 30) - 8,
        (4 << 30) + 4096,
        SIZE - 16,
    ];
    let read = |path: &Path| -> io::Result<(u64, Vec<u64>)> {
        let file = File::open(path.join("large"))?;
        let mut seen = Vec::new();
        for mark in marks {
            let mut number = [0; 8];
            file.read_exact_at(&mut number, mark)?;
            seen.push(u64::from_le_bytes(number));
        }
        // Between the marks there is nothing.
        let mut hole = vec![1; 1 << 20];
        file.read_exact_at(&mut hole, 3 << 30)?;
        seen.push(hole.iter().map(|byte| u64::from(*byte)).sum());
        Ok((file.metadata()?.size(), seen))
    };
    let mut expected: Vec<u64> = marks.iter().map(|mark| mark + 1).collect();
    expected.push(0);
    target.create_writable("base", None)?;
    target.within("base", |path| -> Outcome {
        let file = File::create(path.join("large"))?;
        file.set_len(SIZE)?;
        for mark in marks {
            file.write_all_at(&(mark + 1).to_le_bytes(), mark)?;
        }
        Ok(())
    })?;
    let seen = target.within("base", |path| -> Result<_, Failure> { Ok(read(path)?) })?;
    same!(
        (SIZE, expected.clone()),
        seen,
        "size and content of a file of 5 GiB"
    );
    target.create_writable("child", Some("base"))?;
    let seen = target.within("child", |path| -> Result<_, Failure> { Ok(read(path)?) })?;
    same!((SIZE, expected.clone()), seen, "the same in a child");
    target.step("write into it in the child")?;
    target.within("child", |path| -> Outcome {
        let file = File::options().write(true).open(path.join("large"))?;
        Ok(file.write_all_at(&7_u64.to_le_bytes(), marks[4])?)
    })?;
    let seen = target.within("base", |path| -> Result<_, Failure> { Ok(read(path)?) })?;
    same!(
        (SIZE, expected.clone()),
        seen,
        "the parent's file after the child wrote to its own"
    );
    expected[4] = 7;
    let seen = target.within("child", |path| -> Result<_, Failure> { Ok(read(path)?) })?;
    same!(
        (SIZE, expected),
        seen,
        "the child's file after it was written to"
    );
    Ok(())
}
