// SPDX-License-Identifier: Apache-2.0
//! Layers as they are at one moment.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use plywood_plugin_sdk::{DriverErrorCode, IoContext, Result, Usage, toolkit, toolkit::TempDir};

use crate::{
    subvolume,
    sys::{self, Access, FIRST_INODE, Uuid},
    tree,
};

/// A snapshot of a layer in a private place, which a recovery removes after a crash.
///
/// A layer itself does not show all that has changed: what is written and not yet on disk is
/// missing from its tree, and so are attributes that the kernel keeps back until it commits. A
/// snapshot commits both, of this one subvolume. Where none can be made, on a read-only or a full
/// file system, everything is committed instead.
pub(crate) struct Frozen {
    snapshot: Option<(TempDir, PathBuf)>,
    pub(crate) subvolume: OwnedFd,
}

impl Frozen {
    /// Freezes the layer at `path`.
    pub(crate) fn of(path: &Path, places: &Path) -> Result<Self> {
        match Self::snapshot(path, places) {
            // An image store's may be on another file system, where nobody changes it.
            Err(error)
                if error.errno == Some(libc::EXDEV)
                    || matches!(
                        error.code,
                        DriverErrorCode::READ_ONLY | DriverErrorCode::NO_SPACE
                    ) =>
            {
                let subvolume = subvolume::open(path)?;
                rustix::fs::syncfs(&subvolume).at("cannot sync", path)?;
                Ok(Self {
                    snapshot: None,
                    subvolume,
                })
            }
            other => other,
        }
    }

    fn snapshot(path: &Path, places: &Path) -> Result<Self> {
        let mut place = TempDir::create_to_build(places)?;
        let frozen = place.addition();
        subvolume::snapshot(path, &frozen, Access::ReadOnly)?;
        match subvolume::open(&frozen) {
            Ok(subvolume) => Ok(Self {
                snapshot: Some((place, frozen)),
                subvolume,
            }),
            Err(error) => {
                place.spend_reserve();
                subvolume::remove(&frozen)
                    .and(place.close())
                    .and(Err(error))
            }
        }
    }

    pub(crate) fn close(self) -> Result<()> {
        drop(self.subvolume);
        let Some((place, path)) = self.snapshot else {
            return Ok(());
        };
        subvolume::remove(&path)?;
        place.close()
    }
}

/// What the layer at `path` has that is not in what it is a snapshot of.
///
/// # Behavior
/// - A file that has changed counts whole.
pub(crate) fn usage(path: &Path, places: &Path) -> Result<Usage> {
    let layer = subvolume::open(path)?;
    let info = sys::info(&layer).at("cannot inspect", path)?;
    let since = match info.parent_uuid {
        parent if parent == Uuid::default() => 0,
        _ => info.created,
    };
    // Whoever may not look makes no snapshot for it.
    tree::inode(&layer, FIRST_INODE).at("cannot measure", path)?;
    let frozen = Frozen::of(path, places)?;
    let mut usage = Usage::default();
    let counted = tree::changed(&frozen.subvolume, since, |_, inode| {
        usage.inodes += 1;
        if !inode.is_dir() {
            usage.bytes = usage.bytes.saturating_add(inode.size);
        }
    });
    counted.at("cannot measure", path).and(frozen.close())?;
    for child in sys::children(&layer).at("cannot look into", path)? {
        let inner = sys::child_path(&layer, &child).at("cannot look into", path)?;
        let inner = toolkit::tree_usage(&path.join(tree::as_path(inner)))?;
        usage.bytes = usage.bytes.saturating_add(inner.bytes);
        usage.inodes += inner.inodes;
    }
    Ok(usage)
}
