// SPDX-License-Identifier: Apache-2.0
//! How a layer is mounted.

use std::path::{Path, PathBuf};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, LayerId, MountPlan, MountRequest, MountStep, MountSteps,
    OverlayMount, Result, toolkit,
};

use crate::{
    config::{Config, invalid},
    diff::content_dir,
    layout::{Layout, MAX_DEPTH, Place},
    merged,
};

/// What the kernel, or the mount program, can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Abilities {
    /// `metacopy=on` is in effect when asked for.
    pub(crate) metacopy: bool,
    /// `volatile` is accepted.
    pub(crate) volatile: bool,
    /// Marks are `user.overlay.*`: the mounts are made inside a user namespace.
    pub(crate) userxattr: bool,
}

/// Options of overlay that a single mount may ask for.
const KNOWN_KEYS: [&str; 17] = [
    "metacopy",
    "redirect_dir",
    "index",
    "nfs_export",
    "xino",
    "uuid",
    "verity",
    "fsync",
    "volatile",
    "userxattr",
    "default_permissions",
    "override_creds",
    "nooverride_creds",
    "context",
    "fscontext",
    "defcontext",
    "rootcontext",
];

/// Options that are flags of the mount and not data for the file system.
const FLAGS: [&str; 24] = [
    "defaults",
    "ro",
    "rw",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "exec",
    "noexec",
    "sync",
    "async",
    "dirsync",
    "mand",
    "nomand",
    "atime",
    "noatime",
    "diratime",
    "nodiratime",
    "relatime",
    "norelatime",
    "strictatime",
    "nostrictatime",
    "private",
    "rprivate",
];

/// Whether `option` is a flag of the mount.
pub(crate) fn is_flag(option: &str) -> bool {
    FLAGS.contains(&option)
}

/// The options of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Options {
    pub(crate) list: Vec<String>,
    pub(crate) read_only: bool,
    /// What the operator should know.
    pub(crate) warning: Option<&'static str>,
}

impl Options {
    /// Merges the options of `request` with those of the configuration.
    ///
    /// # Behavior
    /// - Options of the request replace `mountopt`, except that a configured `metacopy=on` stays:
    ///   without it the kernel does not follow what it wrote with it.
    ///
    /// # Compatibility
    /// `get` in `drivers/overlay/overlay.go`.
    pub(crate) fn merge(
        config: &Config,
        request: &MountRequest,
        abilities: Abilities,
    ) -> Result<Self> {
        const METACOPY: &str = "metacopy=on";
        let configured = || config.mount_option_list().map(str::to_owned);
        let mut list: Vec<String> = request.options.clone();
        if list.is_empty() {
            list.extend(configured());
        } else {
            check(&list, config)?;
            let has = |options: &[String]| options.iter().any(|option| option == METACOPY);
            if has(&list) && !abilities.metacopy {
                let message = "overlay: neither the kernel nor the mount program offers metacopy";
                return Err(DriverError::new(DriverErrorCode::NOT_SUPPORTED, message)
                    .object(METACOPY)
                    .remedy("leave `metacopy=on` out of the mount options"));
            }
            if configured().any(|option| option == METACOPY) && !has(&list) {
                list.push(METACOPY.to_owned());
            }
        }
        let mut warning = None;
        if !abilities.metacopy && list.iter().any(|option| option == METACOPY) {
            list.retain(|option| option != METACOPY);
            warning = Some(match config.mount_program {
                None => "Ignoring global metacopy option, not supported with booted kernel",
                Some(_) => "Ignoring global metacopy option, the mount program doesn't support it",
            });
        }
        let mut read_only = request.read_only;
        list.retain(|option| match option.as_str() {
            "ro" => {
                read_only = true;
                false
            }
            "rw" | "defaults" => false,
            _ => true,
        });
        if abilities.userxattr && !list.iter().any(|option| option == "userxattr") {
            list.push("userxattr".to_owned());
        }
        if read_only {
            // It concerns what is written.
            list.retain(|option| option != "volatile");
        } else if request.volatile
            && abilities.volatile
            && !list.iter().any(|option| option == "volatile")
        {
            list.push("volatile".to_owned());
        }
        Ok(Self {
            list,
            read_only,
            warning,
        })
    }
}

/// Refuses what neither the kernel nor the driver would understand.
fn check(options: &[String], config: &Config) -> Result<()> {
    for option in options {
        let key = option.split('=').next().unwrap_or_default();
        let own = matches!(
            key,
            "lowerdir" | "lowerdir+" | "datadir+" | "upperdir" | "workdir"
        );
        if own || option.contains(',') {
            let message = format!("overlay: mount option \"{key}\" is set by the driver");
            return Err(invalid(message, option));
        }
        // No kernel and no program takes more than a page.
        if option.is_empty() || option.len() >= 4096 {
            let message = format!("overlay: a mount option of {} bytes", option.len());
            return Err(invalid(message, option));
        }
        // A mount program has options of its own and says what it does not know.
        let known = is_flag(option) || KNOWN_KEYS.contains(&key);
        if !known && config.mount_program.is_none() {
            let message = format!("overlay: unknown mount option \"{option}\"");
            return Err(invalid(message, option));
        }
    }
    Ok(())
}

/// The directories of one mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stack {
    /// Nearest first; relative to the home or absolute.
    pub(crate) lowers: Vec<PathBuf>,
    pub(crate) upper_and_work: Option<(PathBuf, PathBuf)>,
    pub(crate) target: PathBuf,
}

impl Layout {
    /// Collects the directories for a mount and makes those that a mount needs.
    pub(crate) fn stack(
        &self,
        id: &LayerId,
        place: &Place,
        run_dir: &Path,
        options: &mut Options,
    ) -> Result<Stack> {
        let read_only = options.read_only;
        content_dir(place)?;
        let diff = place.diff();
        let mut lowers = self.lowers(place)?;
        if lowers.is_empty() {
            lowers.push(place.dir.join("empty"));
        }
        let target = merged::ready(id, place, run_dir)?;
        let mut writable = !read_only;
        if place.own && read_only && lowers.len() == MAX_DEPTH {
            // One more lower than the kernel takes: the layer is shown as the upper directory of a
            // mount that is read-only as a whole.
            writable = true;
            options.list.push("ro".to_owned());
        } else if read_only || !place.own {
            // What is in an image store cannot be written.
            lowers.insert(0, diff);
            writable = false;
        }
        if lowers.len() > MAX_DEPTH {
            let message = format!(
                "max depth exceeded: {} layers, {MAX_DEPTH} allowed",
                lowers.len()
            );
            return Err(DriverError::new(DriverErrorCode::TOO_DEEP, message).object(id.as_str()));
        }
        let upper_and_work = writable.then(|| (place.diff(), place.dir.join("work")));
        if let Some((_, work)) = &upper_and_work {
            // The kernel refuses a work directory that a volatile mount has used; the name
            // `work` twice is right.
            toolkit::remove_tree(&work.join("work/incompat/volatile"))?;
            place.make_work(work)?;
        }
        Ok(Stack {
            lowers,
            upper_and_work,
            target,
        })
    }

    fn lowers(&self, place: &Place) -> Result<Vec<PathBuf>> {
        let chain = place.read_chain()?.unwrap_or_default();
        if chain.0.len() > MAX_DEPTH {
            let message = format!("max depth exceeded: {} layers below", chain.0.len());
            return Err(DriverError::new(DriverErrorCode::TOO_DEEP, message)
                .object(place.dir.display().to_string()));
        }
        let further = |dir: &Path| {
            let names = Self::further_diffs(dir).into_iter();
            names.map(|name| dir.join(name)).collect::<Vec<_>>()
        };
        let mut lowers = further(&place.dir);
        for lower in &chain.0 {
            let below = self.below(lower)?;
            Place::refuse_composefs(&below.dir)?;
            lowers.push(below.mount);
            lowers.extend(further(&below.dir));
        }
        Ok(lowers)
    }
}

/// The plan for a mount by the kernel.
pub(crate) fn kernel_plan(
    home: &Path,
    stack: Stack,
    options: Options,
    label: Option<String>,
) -> MountPlan {
    let (upper, work) = stack.upper_and_work.unzip();
    let target = stack.target.clone();
    let step = OverlayMount {
        base: home.to_owned(),
        lowers: stack.lowers,
        upper,
        work,
        target: stack.target,
        options: options.list,
        label: label.filter(|label| !label.is_empty()),
    };
    MountPlan::Mounts(MountSteps {
        target,
        steps: vec![MountStep::Overlay(step)],
    })
}
