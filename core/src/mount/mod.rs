// SPDX-License-Identifier: Apache-2.0
//! Execution of mount plans.
//!
//! # Behavior
//! - A plan is executed completely or not at all.
//! - Mounts are made through the kernel's new interface, one call per lower directory. Where the
//!   kernel does not know it (before Linux 6.8), `mount(2)` is used; what does not fit into its one
//!   page of options is refused, since the kernel would cut it.
//! - Mounts are made in the caller's mount namespace and propagate as the directory that they are
//!   attached to says; a directory that is shown at another place is private.

mod classic;
mod failure;
mod modern;
mod options;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use plywood_plugin_sdk::{
    IdMaps, MountPlan, MountStep, OverlayMount,
    sys::user_namespace,
    toolkit::{self, mountinfo},
};
use rustix::{
    fs::{AtFlags, CWD, StatxAttributes, StatxFlags},
    io::Errno,
    mount::{MountPropagationFlags, UnmountFlags, mount_change},
};

use crate::{Error, ErrorKind, IoContext, Result};
use failure::Failure;
use options::Options;

/// How long a file system that is in use is waited for: another program may be mounting the same
/// device or dataset, or counting its files, for which both open it alone.
const PATIENCE: Duration = Duration::from_secs(3);

/// Which of the kernel's interfaces is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Interface {
    /// The new one where it can do all that is needed, else `mount(2)`.
    #[default]
    Best,
    /// `mount(2)` alone.
    Classic,
}

/// Makes and removes mounts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mounter {
    interface: Interface,
}

impl Mounter {
    /// One that uses `interface`.
    pub fn new(interface: Interface) -> Self {
        Self { interface }
    }

    /// Carries a plan out; returns where the layer is seen.
    ///
    /// # Errors
    /// What the kernel says, in its own words where it has any; nothing stays mounted then.
    /// [`ErrorKind::NotSupported`] for a plan that the driver carries out itself.
    pub fn execute(&self, plan: &MountPlan) -> Result<PathBuf> {
        let steps = match plan {
            MountPlan::Directory(path) => return Ok(path.clone()),
            MountPlan::Mounts(steps) => steps,
            _ => return Err(by_driver()),
        };
        for (n, step) in steps.steps.iter().enumerate() {
            if let Err(error) = self.perform(step) {
                for done in steps.steps[..n].iter().rev() {
                    if let Err(second) = unmount_once(target(done)) {
                        tracing::warn!(target = %target(done).display(), %second, "cannot undo a mount");
                    }
                }
                return Err(error);
            }
        }
        Ok(steps.target.clone())
    }

    fn perform(self, step: &MountStep) -> Result<()> {
        let new = self.interface == Interface::Best;
        match step {
            MountStep::Overlay(overlay) => self.overlay(overlay),
            MountStep::Filesystem {
                fstype,
                source,
                target,
                options,
                read_only,
            } => {
                let options = Options::parse(options, false)?.shown_read_only(*read_only);
                let attempt = || {
                    let outcome =
                        match new.then(|| modern::filesystem(fstype, source, target, &options)) {
                            Some(Err(failure)) if failure.is_missing_call() => None,
                            outcome => outcome,
                        };
                    outcome.unwrap_or_else(|| classic::filesystem(fstype, source, target, &options))
                };
                toolkit::while_busy(PATIENCE, Failure::is_busy, attempt)
                    .map_err(|failure| failure.at(&format!("cannot mount {fstype} at"), target))?;
                propagate(target, &options)
            }
            MountStep::Bind {
                source,
                target,
                read_only,
            } => {
                let options = Options::parse(&[], *read_only)?;
                self.bind(source, target, &options)
            }
            _ => Err(Error::new(
                ErrorKind::NotSupported,
                format!("this version does not know a step of the mount plan: {step:?}"),
            )),
        }
    }

    fn overlay(self, overlay: &OverlayMount) -> Result<()> {
        check(overlay)?;
        let options = Options::parse(&overlay.options, overlay.upper.is_none())?;
        if let ([only], None) = (&overlay.lowers[..], &overlay.upper) {
            // The kernel refuses an overlay of one directory; that is just the directory.
            if overlay.label.is_some() {
                return Err(Error::new(
                    ErrorKind::NotSupported,
                    "a single directory cannot be mounted with an SELinux label",
                )
                .subject(overlay.target.display().to_string()));
            }
            return self.bind(&overlay.base.join(only), &overlay.target, &options);
        }
        let new = self.interface == Interface::Best && modern::has_single_lowers();
        tracing::debug!(
            target = %overlay.target.display(),
            lowers = overlay.lowers.len(),
            writable = overlay.upper.is_some(),
            options = ?overlay.options,
            new_interface = new,
            "mounting an overlay"
        );
        let outcome = if new {
            modern::overlay(overlay, &options)
        } else {
            classic::overlay(overlay, &options)
        };
        outcome.map_err(|failure| failure.at("creating overlay mount to", &overlay.target))?;
        propagate(&overlay.target, &options)
    }

    fn bind(self, source: &Path, target: &Path, options: &Options) -> Result<()> {
        let new = self.interface == Interface::Best;
        let outcome = match new.then(|| modern::bind(source, target, options)) {
            Some(Err(failure)) if failure.is_missing_call() => None,
            outcome => outcome,
        };
        outcome
            .unwrap_or_else(|| classic::bind(source, target, options))
            .map_err(|failure| failure.at("cannot mount a directory at", target))?;
        // It would share its source's propagation: what is mounted in one appears in the other.
        let kind = options.propagation;
        set_propagation(target, kind.unwrap_or(MountPropagationFlags::PRIVATE))
    }
}

/// Carries a plan out with the best interface that the kernel has.
///
/// # Errors
/// As [`Mounter::execute`].
pub fn execute(plan: &MountPlan) -> Result<PathBuf> {
    Mounter::default().execute(plan)
}

/// Shows a directory at `target` with `maps`: what belongs to a container id on disk is seen to
/// belong to the host id.
///
/// # Errors
/// What the kernel says: of maps that it refuses, or where the file system cannot be shown so.
pub fn show_mapped(source: &Path, target: &Path, read_only: bool, maps: &IdMaps) -> Result<()> {
    let namespace = user_namespace::with_maps(maps).map_err(|error| {
        let kind = match error.raw_os_error() {
            Some(number) if number == Errno::INVAL.raw_os_error() => ErrorKind::InvalidArgument,
            _ => ErrorKind::NotSupported,
        };
        Error::new(kind, "the kernel does not take the id maps")
            .subject(target.display().to_string())
            .caused_by(error)
    })?;
    let options = Options::parse(&[], read_only)?;
    modern::bind_as(source, target, &options, Some(&namespace))
        .map_err(|failure| failure.at("cannot mount a directory with id maps at", target))
}

/// Takes back what [`execute`] did; `seen` is where the layer was seen.
///
/// # Behavior
/// - What is not mounted is no error.
///
/// # Errors
/// What the kernel says; the other steps are taken back all the same.
pub fn undo(plan: &MountPlan, seen: &Path) -> Result<()> {
    let steps = match plan {
        MountPlan::Directory(_) => return Ok(()),
        MountPlan::Mounts(steps) => steps,
        _ => return Err(by_driver()),
    };
    let mut result = unmount(seen);
    for step in steps.steps.iter().rev() {
        if target(step) != seen {
            result = result.and(unmount(target(step)));
        }
    }
    result
}

/// Unmounts everything that is mounted at `path` itself, lazily; what is not mounted is no error.
///
/// # Errors
/// What the kernel says.
pub fn unmount(path: &Path) -> Result<()> {
    while unmount_once(path)? {}
    Ok(())
}

/// Whether something is mounted at `path` itself.
///
/// # Errors
/// What the kernel says, except that nothing is there.
pub fn is_mounted(path: &Path) -> Result<bool> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    match rustix::fs::statx(CWD, path, flags, StatxFlags::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        // A FUSE program that died leaves a mount that answers nothing else.
        Err(Errno::NOTCONN) => Ok(true),
        Err(error) => Err(error).at("cannot inspect", path),
        Ok(found) => {
            let known = found.stx_attributes_mask;
            if !known.contains(StatxAttributes::MOUNT_ROOT) {
                return in_table(path);
            }
            Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
        }
    }
}

/// What kernels before 5.8 say.
fn in_table(path: &Path) -> Result<bool> {
    let path = std::fs::canonicalize(path).at("cannot resolve", path)?;
    Ok(mountinfo::at(&mountinfo::mounts()?, &path).is_some())
}

/// Says whether something was mounted there.
fn unmount_once(path: &Path) -> Result<bool> {
    match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(true),
        Err(Errno::INVAL | Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(error) => Err(error).at("cannot unmount", path),
    }
}

fn propagate(target: &Path, options: &Options) -> Result<()> {
    match options.propagation {
        Some(kind) => set_propagation(target, kind),
        None => Ok(()),
    }
}

fn set_propagation(target: &Path, kind: MountPropagationFlags) -> Result<()> {
    mount_change(target, kind)
        .at("cannot set the propagation of", target)
        .inspect_err(|_| drop(unmount_once(target)))
}

fn target(step: &MountStep) -> &Path {
    match step {
        MountStep::Overlay(overlay) => &overlay.target,
        MountStep::Filesystem { target, .. } | MountStep::Bind { target, .. } => target,
        // `perform` has refused it, so nothing was mounted.
        _ => Path::new(""),
    }
}

/// The kernel's rules that it would answer with a bare "invalid argument".
fn check(overlay: &OverlayMount) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::new(ErrorKind::InvalidArgument, why)
            .subject(overlay.target.display().to_string()))
    };
    if overlay.lowers.is_empty() {
        return refuse("an overlay needs a lower directory".to_owned());
    }
    if overlay.upper.is_some() != overlay.work.is_some() {
        return refuse(
            "an overlay needs a work directory exactly when it is written to".to_owned(),
        );
    }
    let paths = [&overlay.base, &overlay.target];
    if let Some(path) = paths.into_iter().find(|path| !path.is_absolute()) {
        return refuse(format!("not an absolute path: `{}`", path.display()));
    }
    if overlay.lowers.len() > MAX_LOWERS {
        return refuse(format!(
            "an overlay of {} lower directories: the kernel allows {MAX_LOWERS}",
            overlay.lowers.len()
        ));
    }
    Ok(())
}

/// The kernel's limit.
const MAX_LOWERS: usize = 500;

fn by_driver() -> Error {
    Error::new(
        ErrorKind::NotSupported,
        "the driver has to make this mount itself",
    )
}

#[cfg(test)]
mod tests;
