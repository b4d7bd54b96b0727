// SPDX-License-Identifier: Apache-2.0
//! Other places: a run directory in memory, a root that was moved.

use std::fs;

use nix::mount::{MsFlags, mount, umount};

use super::{populate, snapshot, unchanged, usable};
use crate::{
    Case, Site,
    case::{Outcome, bare, demand},
    scratch::pool,
};

pub(in crate::cases) const CASES: &[Case] =
    &[bare("GD-PER-005", run_in_memory), bare("GD-PER-006", moved)];

fn run_in_memory(site: &Site) -> Outcome {
    let run = site.scratch("run")?;
    for round in 0..2 {
        mount(
            Some("tmpfs"),
            &run,
            Some("tmpfs"),
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            Some("mode=0700"),
        )?;
        let target = site.open()?;
        if round == 0 {
            populate(&target)?;
            fs::write(site.root.join("seen"), snapshot(&target)?)?;
        }
        usable(&target, "top")?;
        let before = fs::read_to_string(site.root.join("seen"))?;
        unchanged(&before, &target, "with a run directory in memory")?;
        target.close()?;
        // The second round begins with an empty one.
        umount(&run)?;
    }
    Ok(())
}

fn moved(site: &Site) -> Outcome {
    let (old, new) = (site.scratch("old")?, site.root.join("new"));
    let first = site.at(&old).open()?;
    populate(&first)?;
    let before = snapshot(&first)?;
    first.close()?;
    pool::rename_root(&old, &new)?;
    let moved = match site.at(&new).open() {
        Ok(moved) => moved,
        Err(error) => {
            let text = error.to_string();
            demand!(
                text.contains("new") || text.contains("old"),
                "a store that was moved is refused without saying which: {text}"
            );
            return Ok(());
        }
    };
    unchanged(&before, &moved, "after the root was renamed")?;
    usable(&moved, "top")?;
    moved.close()?;
    demand!(
        !old.exists(),
        "using a store that was moved made something at its old place `{}`",
        old.display()
    );
    Ok(())
}
