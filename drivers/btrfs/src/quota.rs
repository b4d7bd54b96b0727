// SPDX-License-Identifier: Apache-2.0
//! Limits of layers by the file system's quota groups.
//!
//! With full accounting a layer's limit is one of what only it refers to, so that what it shares
//! with its parent does not count; with simple accounting, of what it allocates, which is the same.
//!
//! # Compatibility
//! containers/storage limits what a layer refers to, its parent's content included. When it has
//! set that limit, it is taken away again.

use std::os::fd::{AsFd, OwnedFd};
use std::{io, path::Path};

use plywood_plugin_sdk::{DriverError, DriverErrorCode, IoContext, Result};

use crate::{
    items::{self, QuotaMode, kind},
    subvolume,
    sys::{self, Key, Limits, QUOTA_TREE, Range},
};

/// A layer's limit, and what counts towards it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) used: u64,
    pub(crate) limit: Option<u64>,
}

/// How the file system accounts; `None` when it does not, or does not say.
pub(crate) fn mode(file: impl AsFd) -> io::Result<Option<QuotaMode>> {
    let mut mode = None;
    let found = item(file, kind::QGROUP_STATUS, 0, |data| {
        mode = items::quota_mode(data);
    });
    match found {
        Ok(()) => Ok(mode),
        // There is no such tree before quotas are enabled for the first time.
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

fn item(file: impl AsFd, kind: u8, group: u64, mut seen: impl FnMut(&[u8])) -> io::Result<()> {
    let key = Key {
        object: 0,
        kind,
        offset: group,
    };
    let range = Range {
        tree: QUOTA_TREE,
        first: key,
        last: key,
        since: 0,
    };
    sys::search(file, &range, |_, data| seen(data))
}

/// Limits the layer whose subvolume is at `path`; quotas are enabled for that when they are not.
pub(crate) fn limit(path: &Path, bytes: u64) -> Result<()> {
    let file = subvolume::open(path)?;
    let mode = match mode(&file).at("cannot find out about quotas of", path)? {
        Some(mode) => mode,
        None => enable(&file, path)?,
    };
    let group = sys::info(&file).at("cannot inspect", path)?.id;
    let wanted = match mode {
        QuotaMode::Full => Limits {
            referenced: None,
            exclusive: Some(bytes),
        },
        QuotaMode::Simple => Limits {
            referenced: Some(bytes),
            exclusive: None,
        },
    };
    if limits(&file, group).at("cannot read the limit of", path)? == Some(wanted) {
        return Ok(());
    }
    sys::limit_group(&file, group, wanted).at("cannot limit", path)
}

fn enable(file: &OwnedFd, path: &Path) -> Result<QuotaMode> {
    sys::enable_quota(file).map_err(|error| {
        DriverError::io("cannot enable quotas for", path, &error)
            .remedy("run `btrfs quota enable` as root, or leave the size out")
    })?;
    let mode = mode(file).at("cannot find out about quotas of", path)?;
    mode.ok_or_else(|| {
        let message = format!("quotas of `{}` stay off", path.display());
        DriverError::new(DriverErrorCode::PREREQUISITES, message)
            .remedy("run `btrfs quota enable` as root, or leave the size out")
    })
}

fn limits(file: &OwnedFd, group: u64) -> io::Result<Option<Limits>> {
    let mut limits = None;
    item(file, kind::QGROUP_LIMIT, group, |data| {
        limits = items::group_limits(data).map(|(referenced, exclusive)| Limits {
            referenced,
            exclusive,
        });
    })?;
    Ok(limits)
}

/// The account of the layer at `path`; `None` when there are no quotas, or nobody tells.
pub(crate) fn account(path: &Path) -> Result<Option<Account>> {
    let file = subvolume::open(path)?;
    let mode = match mode(&file) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        other => other.at("cannot find out about quotas of", path)?,
    };
    let Some(mode) = mode else {
        return Ok(None);
    };
    let group = sys::info(&file).at("cannot inspect", path)?.id;
    let mut usage = None;
    item(&file, kind::QGROUP_INFO, group, |data| {
        usage = items::group_usage(data);
    })
    .at("cannot read the quota group of", path)?;
    let Some((referenced, exclusive)) = usage else {
        return Ok(None);
    };
    let limits = limits(&file, group).at("cannot read the limit of", path)?;
    let limits = limits.unwrap_or_default();
    Ok(Some(match mode {
        QuotaMode::Full => Account {
            used: exclusive,
            limit: limits.exclusive,
        },
        QuotaMode::Simple => Account {
            used: referenced,
            limit: limits.referenced,
        },
    }))
}

/// Removes the quota group of a subvolume that is about to be destroyed.
///
/// Kernels since 6.12 refuse that and do it by themselves once nothing of the subvolume is left;
/// older ones would keep it for good. Without quotas, or the right to manage them, there is nothing
/// to remove; a group that stays is a line in a list and harms nobody.
pub(crate) fn forget(subvolume: &OwnedFd) {
    if matches!(mode(subvolume), Ok(Some(_)))
        && let Ok(info) = sys::info(subvolume)
    {
        drop(sys::remove_group(subvolume, info.id));
    }
}
