// SPDX-License-Identifier: Apache-2.0
//! Changed bytes, and the sizes at which they get difficult.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
    path::Path,
};

use rustix::fs::{SeekFrom, seek};
use tar::EntryType;

use super::{bytes, p};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    ops::{Chain, Op},
    tar_file::TarFile,
};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

pub(super) fn same_size_same_second(target: &mut Target) -> Outcome {
    // Times around full seconds, which a comparison by seconds takes for equal or for different.
    const TIMES: [(i64, u32); 5] = [
        (1_600_000_000, 999_999_999),
        (1_600_000_001, 1),
        (1_600_000_001, 500_000_000),
        (1_600_000_001, 999_999_999),
        (1_600_000_002, 1),
    ];
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &[Op::Write(p("file"), b"round x".to_vec())])?;
    let mut parent = "base".to_owned();
    for (round, (seconds, nanoseconds)) in TIMES.into_iter().enumerate() {
        let id = format!("round-{round}");
        let text = format!("round {round}");
        let ops = [
            Op::Write(p("file"), text.clone().into_bytes()),
            Op::Mtime(p("file"), seconds, nanoseconds),
        ];
        chain.grow(target, &id, &ops)?;
        let changes = target.changes(&id)?;
        demand!(
            changes
                .iter()
                .any(|change| change.path == Path::new("/file")),
            "the change of `file` between {parent} and {id} is not listed: {changes:?}"
        );
        parent = id;
    }
    // The very same time: nothing but the bytes tells the layers apart.
    let ops = [
        Op::Write(p("file"), b"round y".to_vec()),
        Op::Mtime(p("file"), TIMES[4].0, TIMES[4].1),
    ];
    chain.grow(target, "same-time", &ops)?;
    chain.check_all(target)
}

pub(super) fn append_truncate(target: &mut Target) -> Outcome {
    let file = |name: &str| Op::Write(p(name), bytes(7, 70_000));
    let names = ["append", "cut", "cut-to-nothing", "extend", "hole", "write"];
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &names.map(file))?;
    let changes = [
        Op::Append(p("append"), bytes(8, 5000)),
        Op::Truncate(p("cut"), 12_345),
        Op::Truncate(p("cut-to-nothing"), 0),
        Op::Truncate(p("extend"), 200_000),
        Op::PunchHole(p("hole"), 8192, 20_000),
        Op::WriteAt(p("write"), 40_000, bytes(9, 123)),
    ];
    chain.grow(target, "child", &changes)?;
    let more = [
        Op::WriteAt(p("cut"), 100_000, b"beyond the end".to_vec()),
        Op::Append(p("cut-to-nothing"), b"again".to_vec()),
        Op::PunchHole(p("append"), 0, 4096),
        Op::Truncate(p("hole"), 9000),
    ];
    chain.change(target, &more)?;
    chain.grow(
        target,
        "grandchild",
        &[Op::Append(p("hole"), b"tail".to_vec())],
    )?;
    chain.check_all(target)
}

/// Where the data of the large file is.
const MARKS: [u64; 4] = [0, 2 * GIB - 4, 3 * GIB, 4 * GIB - 7];

fn read_marks(path: &Path) -> Outcome {
    let file = fs::File::open(path)?;
    same!(
        4 * GIB + 1,
        file.metadata()?.len(),
        "the size of the large file"
    );
    for offset in MARKS {
        let mut data = [0; 8];
        file.read_exact_at(&mut data, offset)?;
        same!(offset.to_le_bytes(), data, "the bytes at {offset}");
        let between = offset + 4096;
        if between < 4 * GIB {
            file.read_exact_at(&mut data, between)?;
            same!([0; 8], data, "the bytes at {between}");
        }
    }
    Ok(())
}

pub(super) fn large(target: &mut Target) -> Outcome {
    if !target.driver.capabilities().holes {
        let stat = nix::sys::statvfs::statvfs(&target.root)?;
        let free = stat.blocks_available() * stat.fragment_size();
        if free < 10 * GIB {
            return Err(Failure::not_run(
                "the driver does not keep holes, so 10 GiB must be free on the scratch",
            ));
        }
    }
    target.create_writable("base", None)?;
    target.within("base", |path| -> Outcome {
        let file = fs::File::create(path.join("large"))?;
        for offset in MARKS {
            file.write_all_at(&offset.to_le_bytes(), offset)?;
        }
        Ok(file.set_len(4 * GIB + 1)?)
    })?;
    target.create_writable("child", Some("base"))?;
    target.within("child", |path| -> Outcome {
        let file = path.join("large");
        read_marks(&file)?;
        target.step("chmod of the large file")?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        read_marks(&file)
    })?;
    target.within("child", |path| read_marks(&path.join("large")))?;
    target.within("base", |path| -> Outcome {
        let mode = fs::metadata(path.join("large"))?.mode() & 0o777;
        same!(0o644, mode, "the mode of the parent's large file");
        read_marks(&path.join("large"))
    })
}

fn allocated(path: &Path) -> Result<u64, Failure> {
    let file = fs::File::open(path)?;
    file.sync_all()?;
    Ok(file.metadata()?.blocks() * 512)
}

pub(super) fn sparse(target: &mut Target) -> Outcome {
    const SIZE: u64 = 32 * MIB;
    // The kernel's overlay copies a MiB at a time and skips those that are holes.
    const ENOUGH: u64 = 8 * MIB;
    let islands = [0, 10 * MIB, 20 * MIB + 4096, SIZE - 4096];
    let mut ops = vec![Op::Write(p("sparse"), Vec::new())];
    for island in islands {
        ops.push(Op::WriteAt(p("sparse"), island, bytes(island, 4096)));
    }
    let mut chain = Chain::new(target)?;
    chain.grow(target, "base", &ops)?;
    let before = target.within("base", |path| allocated(&path.join("sparse")))?;
    demand!(before < MIB, "the parent's own file takes {before} bytes");
    let unchanged = [Op::Mkdir(p("other"))];
    chain.grow(target, "child", &unchanged)?;
    chain.change(target, &[Op::Chmod(p("sparse"), 0o600)])?;
    chain.change(target, &[Op::WriteAt(p("sparse"), 25 * MIB, b"x".to_vec())])?;
    target.within("child", |path| {
        let file = path.join("sparse");
        let taken = allocated(&file)?;
        demand!(
            taken < ENOUGH,
            "after the copy-up the file of {SIZE} bytes with {} of data takes {taken}",
            islands.len() * 4096
        );
        let hole = seek(fs::File::open(&file)?, SeekFrom::Hole(0))?;
        demand!(hole < ENOUGH, "the first hole is found at {hole}");
        Ok::<_, Failure>(())
    })?;
    chain.check_all(target)
}

fn names(path: &Path) -> Result<BTreeSet<String>, Failure> {
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(path)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        demand!(!names.contains(&name), "readdir lists `{name}` twice");
        names.insert(name);
    }
    Ok(names)
}

pub(super) fn big_directory(target: &mut Target) -> Outcome {
    const ENTRIES: u32 = 100_000;
    let mut tar = TarFile::new().directory("big/");
    for number in 0..ENTRIES {
        let path = format!("big/file-{number:06}");
        // Most are further names: what is listed are names, and those are made in less time.
        tar = match number % 5 {
            0 => tar.file(&path, b""),
            rest => tar.link(
                &path,
                EntryType::Link,
                &format!("big/file-{:06}", number - rest),
            ),
        };
    }
    target.put("base", None, &tar.done())?;
    target.create_writable("child", Some("base"))?;
    let mut expected: BTreeSet<String> = (0..ENTRIES).map(|n| format!("file-{n:06}")).collect();
    target.within("child", |path| {
        let big = path.join("big");
        for number in [0, 1, 50_000, 99_999] {
            let name = format!("file-{number:06}");
            fs::remove_file(big.join(&name))?;
            expected.remove(&name);
        }
        for name in ["new-1", "new-2", "file-000001"] {
            fs::write(big.join(name), "new")?;
            expected.insert(name.to_owned());
        }
        fs::rename(big.join("file-012345"), big.join("renamed"))?;
        expected.remove("file-012345");
        expected.insert("renamed".to_owned());
        fs::write(big.join("file-077777"), "changed")?;
        fs::set_permissions(big.join("file-077778"), fs::Permissions::from_mode(0o600))?;
        Ok::<_, Failure>(())
    })?;
    for moment in ["in the next mount", "in a mount after that"] {
        let seen = target.within("child", |path| names(&path.join("big")))?;
        let wrong: Vec<_> = seen.symmetric_difference(&expected).take(5).collect();
        demand!(
            wrong.is_empty(),
            "{moment} {} entries are listed instead of {}; the first that differ are {wrong:?}",
            seen.len(),
            expected.len()
        );
    }
    let seen = target.within("base", |path| names(&path.join("big")))?;
    same!(ENTRIES as usize, seen.len(), "entries of the parent");
    Ok(())
}
