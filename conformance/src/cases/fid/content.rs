// SPDX-License-Identifier: Apache-2.0
//! Content of files: holes, nothing at all, and many names for one.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use rustix::{fs::SeekFrom, io::Errno};

use super::{kept, path};
use crate::{
    Target,
    case::{Failure, Outcome, demand, same},
    ops::Op,
};

const MIB: u64 = 1 << 20;

pub(super) fn holes(target: &mut Target) -> Outcome {
    let data = vec![7; 64 << 10];
    let ops = [
        Op::Write(path("holes"), Vec::new()),
        Op::Truncate(path("holes"), 16 * MIB),
        Op::WriteAt(path("holes"), 4 * MIB, data.clone()),
        Op::WriteAt(path("holes"), 10 * MIB, data.clone()),
        Op::Write(path("ends-in-data"), Vec::new()),
        Op::WriteAt(path("ends-in-data"), 3 * MIB, data),
        Op::Write(path("only-hole"), Vec::new()),
        Op::Truncate(path("only-hole"), 5 * MIB),
    ];
    kept(target, &ops)?;
    for name in ["holes", "ends-in-data", "only-hole"] {
        let layout = |layer: &str| target.within(layer, |root| data_ranges(&root.join(name)));
        let (base, child) = (layout("base")?, layout("child")?);
        let stored: u64 = base.iter().map(|(start, end)| end - start).sum();
        demand!(
            stored <= 256 << 10,
            "`{name}` has {stored} bytes of data where at most 128 KiB were written: {base:?}"
        );
        same!(base, child, "where the data of `{name}` lies in a child");
    }
    Ok(())
}

/// Beginning and end of everything that is no hole.
fn data_ranges(at: &Path) -> Result<Vec<(u64, u64)>, Failure> {
    let file = File::open(at)?;
    let mut found = Vec::new();
    let mut position = 0;
    loop {
        let start = match rustix::fs::seek(&file, SeekFrom::Data(position)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(found),
            Err(error) => return Err(error.into()),
        };
        position = rustix::fs::seek(&file, SeekFrom::Hole(start))?;
        found.push((start, position));
    }
}

pub(super) fn empty(target: &mut Target) -> Outcome {
    let ops = [
        Op::Write(path("file"), Vec::new()),
        Op::Mkdir(path("directory")),
        Op::Write(path("no-rights"), b"secret".to_vec()),
        Op::Chmod(path("no-rights"), 0),
        Op::Mkdir(path("no-rights-directory")),
        Op::Write(path("no-rights-directory/inside"), Vec::new()),
        Op::Chmod(path("no-rights-directory"), 0),
    ];
    let mut chain = kept(target, &ops)?;
    chain.change(
        target,
        &[
            Op::Unlink(path("no-rights-directory/inside")),
            Op::Rmdir(path("directory")),
            Op::Append(path("no-rights"), b" more".to_vec()),
        ],
    )?;
    chain.check_all(target)
}

pub(super) fn many_links(target: &mut Target) -> Outcome {
    let mut ops = vec![
        Op::Mkdir(path("d")),
        Op::Write(path("d/0"), b"one content".to_vec()),
    ];
    ops.extend((1..1000).map(|number| Op::Link(path(&format!("d/{number}")), path("d/0"))));
    kept(target, &ops)?;
    for layer in ["base", "child"] {
        target.within(layer, |root| -> Outcome {
            let meta = fs::symlink_metadata(root.join("d/999"))?;
            same!(1000, meta.nlink(), "the number of links in `{layer}`");
            Ok(())
        })?;
    }
    Ok(())
}
