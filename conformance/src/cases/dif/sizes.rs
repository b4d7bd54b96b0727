// SPDX-License-Identifier: Apache-2.0
//! Sizes of changes, and many files.

use std::{fs, path::Path};

use plywood::sdk::ChangeKind;

use super::{base_ops, child_ops, items, pair, path};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    ops::Op,
    tar_file::TarFile,
};

pub(super) fn like_apply(target: &mut Target) -> Outcome {
    pair(target, &base_ops(), &child_ops())?;
    let tar = target.diff("child")?;
    let size = target.diff_size(None, "child")?;
    demand!(
        size > 70_000,
        "the size of the changes is {size}, and one file has 70,000 bytes"
    );
    let mut out = Vec::new();
    let written = target.diff_to(None, "child", &mut out)?;
    same!(
        tar.len() as u64,
        written,
        "the bytes that `diff` says it has written"
    );
    target.create("applied", Some("base"))?;
    let read = target.apply("applied", &tar[..])?;
    same!(
        tar.len() as u64,
        read,
        "the bytes that `apply` says it has read"
    );
    same!(
        size,
        target.diff_size(None, "applied")?,
        "the size of the same changes, applied beside"
    );
    let recorded = target
        .layers()?
        .into_iter()
        .find(|layer| layer.id == "applied");
    let recorded = recorded.and_then(|layer| layer.diff_size);
    same!(
        i64::try_from(tar.len()).ok(),
        recorded,
        "the recorded size of the stream"
    );
    Ok(())
}

pub(super) fn rules(target: &mut Target) -> Outcome {
    let base = [
        Op::Write(path("removed"), vec![1; 5000]),
        Op::Write(path("kept"), vec![1; 7000]),
        Op::Mkdir(path("d")),
        Op::Write(path("d/removed"), vec![1; 3000]),
    ];
    pair(target, &base, &[])?;
    same!(
        15_000,
        target.diff_size(None, "base")?,
        "the size of three files"
    );
    same!(
        0,
        target.diff_size(None, "child")?,
        "the size of no changes"
    );
    let layer = |id: &str, ops: &[Op]| -> Result<u64, Failure> {
        target.create_writable(id, Some("base"))?;
        target.within(id, |root| -> Outcome { Ok(crate::ops::apply(root, ops)?) })?;
        Ok(target.diff_size(None, id)?)
    };
    let deletes = [Op::Unlink(path("removed")), Op::RemoveTree(path("d"))];
    same!(0, layer("deletes", &deletes)?, "the size of deletions");
    let links = [
        Op::Write(path("one"), vec![2; 1000]),
        Op::Link(path("two"), path("one")),
        Op::Link(path("d/three"), path("one")),
    ];
    same!(
        1000,
        layer("links", &links)?,
        "the size of one file with three names"
    );
    let directories = [
        Op::Mkdir(path("x")),
        Op::Mkdir(path("x/y")),
        Op::Fifo(path("x/pipe")),
    ];
    same!(
        0,
        layer("directories", &directories)?,
        "the size of directories and a pipe"
    );
    let modified = [Op::Append(path("kept"), vec![3; 11])];
    same!(
        7011,
        layer("modified", &modified)?,
        "the size of a file that grew by 11 bytes"
    );
    let hole = [
        Op::Write(path("hole"), Vec::new()),
        Op::Truncate(path("hole"), 1 << 20),
    ];
    same!(
        1 << 20,
        layer("hole", &hole)?,
        "the size of a file that is one hole"
    );
    same!(
        7011,
        target.diff_size(Some("base"), "modified")?,
        "the size against the parent by name"
    );
    Ok(())
}

pub(super) fn many_files(target: &mut Target) -> Outcome {
    target.without_sync()?;
    target.put("base", None, &TarFile::new().directory("d/").done())?;
    for count in [10_usize, 100, 10_000] {
        target.step(&format!("{count} files"))?;
        let layer = format!("n{count}");
        target.create_writable(&layer, Some("base"))?;
        target.within(&layer, |root| -> Outcome {
            for number in 0..count {
                let directory = root.join(format!("d/{:03}", number / 100));
                if number % 100 == 0 {
                    fs::create_dir(&directory)?;
                }
                fs::write(directory.join(number.to_string()), number.to_string())?;
            }
            Ok(())
        })?;
        let changes = target.changes(&layer)?;
        let added = changes
            .iter()
            .filter(|change| change.kind == ChangeKind::Add)
            .count();
        let directories = count.div_ceil(100);
        same!(count + directories, added, "the number of additions");
        let tar = target.diff(&layer)?;
        let again = format!("{layer}-again");
        target.put(&again, Some("base"), &tar)?;
        let files: Vec<_> = items::read(&tar)?
            .into_iter()
            .filter(|item| !item.data.is_empty())
            .collect();
        same!(count, files.len(), "the number of files in the diff");
        target.within(&again, |root| -> Outcome {
            for item in &files {
                let name = item.path();
                let number = Path::new(&name).file_name().unwrap_or_default();
                demand!(
                    fs::read(root.join(&name))? == number.as_encoded_bytes(),
                    "`{name}` has other content after the round trip"
                );
            }
            Ok(())
        })?;
        same!(
            target.diff_size(None, &layer)?,
            target.diff_size(None, &again)?,
            "the size of {count} files after the round trip"
        );
    }
    Ok(())
}

pub(super) fn one_directory(target: &mut Target) -> Outcome {
    const COUNT: usize = 65_000;
    target.without_sync()?;
    let mut tar = TarFile::new().directory("d/");
    for number in 0..COUNT {
        tar = tar.file(&format!("d/{number}"), b"");
    }
    let tar = tar.done();
    target.step("apply it")?;
    target.put("base", None, &tar)?;
    let count =
        |root: &Path| -> Result<usize, Failure> { Ok(fs::read_dir(root.join("d"))?.count()) };
    same!(
        COUNT,
        target.within("base", count)?,
        "the number of names in the directory"
    );
    target.step("export it")?;
    demand!(target.diff("base")? == tar, "the stream came back changed");
    target.step("change one of them in a child")?;
    target.create_writable("child", Some("base"))?;
    target.within("child", |root| -> Outcome {
        fs::remove_file(root.join("d/4711"))?;
        same!(
            COUNT - 1,
            count(root)?,
            "the number of names after one was removed"
        );
        Ok(())
    })?;
    let changes = target.changes("child")?;
    demand!(
        changes
            .iter()
            .any(|change| change.path == Path::new("/d/4711") && change.kind == ChangeKind::Delete)
            && changes.len() == 2,
        "the changes of the child are {changes:?}"
    );
    target.step("remove it")?;
    target.delete("child")?;
    target.delete("base")?;
    same!(
        0,
        target.layers()?.len(),
        "the number of layers that are left"
    );
    Ok(())
}
