// SPDX-License-Identifier: Apache-2.0
//! What a layer keeps of its files: in its mount, in a child and after a restart.

mod attributes;
mod content;
mod kinds;
mod names;
mod places;
mod times;

use std::path::{Path, PathBuf};

use crate::{
    Case, Target,
    case::{Failure, case},
    ops::{Chain, Op},
};

pub(super) const CASES: &[Case] = &[
    case("GD-FID-001", kinds::modes),
    case("GD-FID-002", kinds::owners),
    case("GD-FID-003", kinds::symlinks),
    case("GD-FID-004", kinds::hard_links),
    case("GD-FID-005", kinds::fifo),
    case("GD-FID-006", kinds::devices),
    case("GD-FID-007", kinds::sockets),
    case("GD-FID-008", attributes::user),
    case("GD-FID-009", attributes::trusted),
    case("GD-FID-010", attributes::on_other_kinds),
    case("GD-FID-011", attributes::capabilities),
    case("GD-FID-012", attributes::acl),
    case("GD-FID-013", times::nanoseconds).roles(&[("reader", times::after_restart)]),
    case("GD-FID-014", times::range),
    case("GD-FID-015", times::directories_stay),
    case("GD-FID-016", names::longest),
    case("GD-FID-017", names::deep),
    case("GD-FID-018", names::bytes),
    case("GD-FID-019", names::unicode),
    case("GD-FID-020", content::holes),
    case("GD-FID-021", content::empty),
    case("GD-FID-022", content::many_links),
    case("GD-FID-023", attributes::file_flags),
    case("GD-FID-025", places::only_own_entries),
    case("GD-FID-026", times::access),
    case("GD-FID-027", places::statfs),
    case("GD-FID-028", places::root),
];

pub(super) use attributes::sample_acl;

fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}

/// Makes the changes in a layer, and looks for them in its mount, in a child and after the store
/// was opened again.
fn kept(target: &Target, ops: &[Op]) -> Result<Chain, Failure> {
    let mut chain = Chain::new(target)?;
    target.step("write it through the mount")?;
    chain.grow(target, "base", ops)?;
    target.step("look at it in a child")?;
    chain.grow(target, "child", &[])?;
    target.step("look at it after the store was opened again")?;
    chain.check_all(&target.reopened()?)?;
    Ok(chain)
}

/// A file on the scratch file system, to find out what that file system can do.
fn probe(target: &Target) -> Result<PathBuf, Failure> {
    let file = target.scratch("probe")?.join("file");
    std::fs::write(&file, "")?;
    Ok(file)
}

/// Whether the scratch file system itself takes an extended attribute.
fn takes(at: &Path, name: &str, value: &[u8]) -> Result<bool, Failure> {
    use rustix::{fs::XattrFlags, io::Errno};
    match rustix::fs::lsetxattr(at, name, value, XattrFlags::empty()) {
        Ok(()) => {
            rustix::fs::lremovexattr(at, name)?;
            Ok(true)
        }
        Err(
            Errno::OPNOTSUPP
            | Errno::PERM
            | Errno::NOSPC
            | Errno::RANGE
            | Errno::TOOBIG
            | Errno::INVAL,
        ) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
