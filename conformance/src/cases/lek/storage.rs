// SPDX-License-Identifier: Apache-2.0
//! What the file system would keep: subvolumes, space, limits, damage.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use nix::sys::statvfs::statvfs;
use plywood::{layers::NewLayer, sdk::LayerKind};

use super::work;
use crate::{
    Case, Site, Target,
    case::{Failure, Outcome, bare, case, demand},
    cases::lifecycle::sample,
    scratch::{Size, SmallFilesystem, pool},
    tar_file::TarFile,
};

pub(in crate::cases) const CASES: &[Case] = &[
    bare("GD-LEK-004", subvolumes),
    case("GD-LEK-009", space).on_disk(),
    case("GD-LEK-010", limits),
    case("GD-LEK-013", damage),
];

/// Directories that are roots of trees of their own: subvolumes, datasets, mounts.
fn own_trees(root: &Path) -> Result<BTreeSet<PathBuf>, Failure> {
    let mut found = BTreeSet::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        let device = fs::symlink_metadata(&directory)?.dev();
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            let meta = fs::symlink_metadata(&path)?;
            if meta.is_dir() {
                if meta.dev() != device {
                    found.insert(path.clone());
                }
                waiting.push(path);
            }
        }
    }
    Ok(found)
}

fn subvolumes(site: &Site) -> Outcome {
    let target = site.open()?;
    let before = own_trees(&site.root)?;
    work(&target)?;
    target.put("base", None, &sample())?;
    target.create_writable("top", Some("base"))?;
    target.within("top", |path| -> Outcome {
        Ok(fs::create_dir(path.join("directory"))?)
    })?;
    target.delete("top")?;
    target.delete("base")?;
    let after = own_trees(&site.root)?;
    let left: Vec<_> = after.difference(&before).collect();
    demand!(
        left.is_empty(),
        "subvolumes or datasets of removed layers are left: {left:?}"
    );
    target.close()?;
    Ok(())
}

fn used(place: &Path) -> Result<u64, Failure> {
    // What `statvfs` tells of a dataset is that dataset's alone, without those of the layers.
    if let Some(bytes) = pool::used(place)? {
        return Ok(bytes);
    }
    nix::unistd::syncfs(fs::File::open(place)?)?;
    let stat = statvfs(place)?;
    Ok((stat.blocks() - stat.blocks_free()) * stat.fragment_size())
}

fn space(target: &mut Target) -> Outcome {
    const LAYERS: usize = 4;
    const EACH: usize = 3 << 20;
    let small = target.small(Size::mib(96))?;
    let place = small.small_filesystem()?.mount_point().to_owned();
    let mut rng = target.rng();
    let mut fill = || -> Outcome {
        for number in 0..LAYERS {
            let mut data = vec![0; EACH];
            rng.fill(&mut data);
            let tar = TarFile::new().file("file", &data).done();
            let id = format!("layer-{number}");
            let parent = number.checked_sub(1).map(|below| format!("layer-{below}"));
            small.put(&id, parent.as_deref(), &tar)?;
        }
        let top = format!("layer-{}", LAYERS - 1);
        small.create_writable("top", Some(&top))?;
        small.within("top", |path| {
            Ok::<_, Failure>(fs::write(path.join("more"), vec![1; EACH])?)
        })
    };
    let empty = || -> Outcome {
        small.delete("top")?;
        for number in (0..LAYERS).rev() {
            small.delete(&format!("layer-{number}"))?;
        }
        Ok(())
    };
    // A file system keeps some of what it once needed for itself.
    fill()?;
    empty()?;
    thread::sleep(Duration::from_millis(100));
    let before = used(&place)?;
    fill()?;
    let full = used(&place)?;
    let grown = full.saturating_sub(before);
    demand!(
        grown > (LAYERS * EACH) as u64 / 2,
        "layers of {} KiB take {} KiB, so that this would not notice when they stayed",
        (LAYERS * EACH) >> 10,
        grown >> 10
    );
    empty()?;
    // Some file systems give room back a while after the removal.
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let left = used(&place)?.saturating_sub(before);
        if left <= grown / 8 {
            break;
        }
        if Instant::now() > end {
            return Err(Failure::new(format!(
                "{} KiB of {} KiB are still taken after all layers were removed",
                left >> 10,
                grown >> 10
            )));
        }
        thread::sleep(Duration::from_millis(100));
    }
    small.close()?;
    Ok(())
}

/// Limits of removed layers must not reach the layers that come after them.
fn limits(target: &mut Target) -> Outcome {
    let limited = |size: &str| NewLayer {
        id: Some("limited".to_owned()),
        kind: LayerKind::ReadWrite,
        storage_options: [("size".to_owned(), size.to_owned())].into(),
        ..NewLayer::default()
    };
    let write = |id: &str, mib: usize| -> Result<io::Result<()>, Failure> {
        target.within(id, |path| {
            Ok(fs::write(path.join("file"), vec![3; mib << 20])
                .and_then(|()| fs::File::open(path.join("file"))?.sync_all()))
        })
    };
    for round in 0..6 {
        target.create_with(&limited("16m"))?;
        demand!(
            write("limited", 4)?.is_ok(),
            "4 MiB do not fit into a layer of 16 MiB in round {round}"
        );
        demand!(
            write("limited", 40)?.is_err(),
            "40 MiB fit into a layer of 16 MiB in round {round}"
        );
        target.delete("limited")?;
    }
    target.create_writable("free", None)?;
    let written = write("free", 40)?;
    demand!(
        written.is_ok(),
        "a layer without a limit has that of one that was removed: {written:?}"
    );
    target.create_with(&limited("64m"))?;
    let written = write("limited", 40)?;
    demand!(
        written.is_ok(),
        "a layer of 64 MiB has the limit of a removed one of the same id: {written:?}"
    );
    Ok(())
}

fn damage(target: &mut Target) -> Outcome {
    let mut site: Site = (**target).clone();
    if !["ext4", "xfs", "btrfs", "zfs"].contains(&site.backing.fstype.as_str()) {
        // One that can be checked.
        "ext4".clone_into(&mut site.backing.fstype);
    }
    let small = SmallFilesystem::make(&site, Size::mib(64))?;
    let own = Target::open(site.at(small.mount_point()))?;
    work(&own)?;
    own.put("stays", None, &sample())?;
    own.create_writable("top", Some("stays"))?;
    own.within("top", |path| {
        Ok::<_, Failure>(fs::write(path.join("x"), "x")?)
    })?;
    work(&own)?;
    own.close()?;
    if site.backing.fstype == "zfs" {
        let complaint = pool::damage(small.mount_point())?;
        demand!(
            complaint.is_none(),
            "`zpool scrub` finds damage in the pool of the store: {}",
            complaint.unwrap_or_default()
        );
        return Ok(());
    }
    let image = small.image().map(Path::to_owned);
    let image = image.ok_or_else(|| Failure::harness("the file system has no image"))?;
    let kept = site.root.join("checked.img");
    // The other name goes away when it is unmounted.
    fs::hard_link(&image, &kept)?;
    drop(small);
    let (program, arguments): (_, &[&str]) = match site.backing.fstype.as_str() {
        "xfs" => ("xfs_repair", &["-n"]),
        "btrfs" => ("btrfs", &["check", "--readonly"]),
        _ => ("e2fsck", &["-fn"]),
    };
    let output = match Command::new(program).args(arguments).arg(&kept).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Failure::not_run(format!(
                "there is no `{program}`: install the package that has it"
            )));
        }
        output => output?,
    };
    demand!(
        output.status.success(),
        "`{program}` finds damage in the file system of the store: {}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    fs::remove_file(&kept)?;
    Ok(())
}
