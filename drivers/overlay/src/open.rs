// SPDX-License-Identifier: Apache-2.0
//! How a store is opened: which way of mounting works there.

use std::{fs, path::PathBuf};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, Host, IoContext, LogLevel, OpenRequest, Result,
    toolkit::{self, mountinfo},
};

use crate::{
    backing::Backing,
    config::{Config, invalid},
    driver::TARGET,
    layout::{Layout, make_dirs},
    mount::Abilities,
    probe::Probe,
    program::{self, FUSE_OVERLAYFS},
    whiteout,
};

/// Says whether the layers were made for a mount program.
const FLAG_FILE: &str = ".has-mount-program";

/// What opening found out.
pub(crate) struct Opened {
    pub(crate) config: Config,
    pub(crate) layout: Layout,
    pub(crate) run_dir: PathBuf,
    pub(crate) backing: Backing,
    pub(crate) abilities: Abilities,
    pub(crate) native_diff: bool,
    /// Whether the home was made a mount of its own.
    pub(crate) mounted_home: bool,
}

impl Opened {
    /// Opens the store of `request` for the driver called `name`.
    ///
    /// # Behavior
    /// - The kernel mounts; a mount program does when one is configured, when the store was made
    ///   with one, or when the kernel cannot and fuse-overlayfs is installed.
    ///
    /// # Compatibility
    /// `Init` in `drivers/overlay/overlay.go`; unlike there, a store that was made with a mount
    /// program is refused when none is found: the kernel would show what was deleted.
    pub(crate) fn new(name: &str, request: &OpenRequest) -> Result<Self> {
        let mut config = Config::parse(name, &request.options, &request.known_drivers)?;
        if request.image_store.is_some() {
            let message = "overlay: a separate image store is not supported";
            return Err(invalid(message, "imagestore")
                .remedy("leave `imagestore` out of [storage] in storage.conf"));
        }
        let stores = config.image_stores.iter();
        let layout = Layout {
            stores: stores.map(|store| store.join(name)).collect(),
            durable: config.sync,
            timeout: config.layer_stores.timeout,
            home: request.home.clone(),
        };
        if config.mount_program.is_none() && !rustix::process::geteuid().is_root() {
            let message = "overlay: mounting needs root, or a user namespace";
            return Err(DriverError::new(DriverErrorCode::PERMISSION, message)
                .object(layout.home.display().to_string())
                .remedy("run it as root, or under `podman unshare`"));
        }
        make_dirs(&layout.home, 0o700)?;
        make_dirs(&layout.links(), 0o755)?;
        make_dirs(&request.run_dir, 0o700)?;
        let backing = Backing::of(&layout.home)?;
        check_limits(&config, backing, &layout)?;

        let mount_options = config.mount_options.clone();
        let probe = Probe {
            home: &layout.home,
            run_dir: &request.run_dir,
            backing,
            mount_options: &mount_options,
            userxattr: request.rootless,
        };
        let host = request.host.as_ref();
        if config.mount_program.is_none() {
            choose_program(&mut config, &layout, &probe, host)?;
        }
        let (abilities, native_diff) = if config.mount_program.is_some() {
            use_program(&mut config, &layout, backing, request)?
        } else {
            use_kernel(&config, backing, &probe, request)?
        };
        if !config.skip_mount_home {
            toolkit::make_private(&layout.home)?;
        }
        Ok(Self {
            mounted_home: !config.skip_mount_home,
            run_dir: request.run_dir.clone(),
            config,
            layout,
            backing,
            abilities,
            native_diff,
        })
    }
}

/// Sets the mount program when the kernel cannot mount this store.
fn choose_program(
    config: &mut Config,
    layout: &Layout,
    probe: &Probe<'_>,
    host: &dyn Host,
) -> Result<()> {
    let needs_program = needs_program(layout)?;
    let unsuited = probe.backing.refuses_overlay();
    let kernel = if needs_program || unsuited {
        Ok(())
    } else {
        probe.overlay()
    };
    let reason = match kernel {
        Ok(()) if needs_program => "the layers were made with a mount program".to_owned(),
        Ok(()) if unsuited => format!(
            "the kernel's overlay does not work on {}",
            probe.backing.name()
        ),
        Ok(()) => return Ok(()),
        Err(error) if error.means_unsuitable() => error.message,
        Err(error) => return Err(error),
    };
    if program::is_installed(FUSE_OVERLAYFS) {
        host.log(
            LogLevel::Info,
            TARGET,
            &format!("using {FUSE_OVERLAYFS}: {reason}"),
        );
        config.mount_program = Some(FUSE_OVERLAYFS.into());
    } else if needs_program {
        let path = layout.home.join(FLAG_FILE);
        let message = format!("overlay: {reason}, and {FUSE_OVERLAYFS} is not installed");
        return Err(DriverError::new(DriverErrorCode::PREREQUISITES, message)
            .object(path.display().to_string())
            .remedy(format!(
                "install {FUSE_OVERLAYFS} or set `mount_program` in storage.conf"
            )));
    }
    Ok(())
}

/// What the flag file says; when it is missing, the layers are looked at and it is written.
fn needs_program(layout: &Layout) -> Result<bool> {
    let path = layout.home.join(FLAG_FILE);
    match fs::read_to_string(&path).as_deref().map(str::trim) {
        Ok("true") => return Ok(true),
        Ok("false") => return Ok(false),
        _ => {}
    }
    let needed = whiteout::made_for_mount_program(&layout.home)?;
    write_flag(layout, needed)?;
    Ok(needed)
}

fn write_flag(layout: &Layout, needed: bool) -> Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let path = layout.home.join(FLAG_FILE);
    let text = needed.to_string();
    if fs::read(&path).is_ok_and(|found| found == text.as_bytes()) {
        return Ok(());
    }
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .at("cannot write", &path)
}

fn use_program(
    config: &mut Config,
    layout: &Layout,
    backing: Backing,
    request: &OpenRequest,
) -> Result<(Abilities, bool)> {
    if request.rootless && backing.is_network() && config.force_mask.is_none() {
        config.force_mask = Some(0o700);
        let message = "Network file system detected as backing store.  Enforcing overlay option \
                       `force_mask=\"700\"`.  Add it to storage.conf to silence this warning";
        request.host.log(LogLevel::Warn, TARGET, message);
    }
    write_flag(layout, true)?;
    let abilities = Abilities {
        metacopy: false,
        volatile: true,
        userxattr: false,
    };
    Ok((abilities, false))
}

fn use_kernel(
    config: &Config,
    backing: Backing,
    probe: &Probe<'_>,
    request: &OpenRequest,
) -> Result<(Abilities, bool)> {
    let refused = |message: String| {
        DriverError::new(DriverErrorCode::INCOMPATIBLE_FILESYSTEM, message)
            .object(request.home.display().to_string())
            .remedy("install fuse-overlayfs and set `mount_program`, or move the graph root")
    };
    if backing.refuses_overlay() {
        let name = backing.name();
        let message =
            format!("'overlay' is not supported over {name}, a mount_program is required");
        return Err(refused(message));
    }
    if request.rootless && backing.is_network() {
        let message = "a network file system with user namespaces is not supported.  Please use a \
                       mount_program";
        return Err(refused(message.to_owned()));
    }
    probe.overlay()?;
    let metacopy = probe.metacopy()?;
    let why_not = probe.native_diff()?;
    if let Some(text) = &why_not {
        request.host.log(LogLevel::Info, TARGET, text);
    }
    let abilities = Abilities {
        metacopy,
        volatile: probe.volatile()?,
        userxattr: request.rootless,
    };
    let shown = format!(
        "backing file system {}, metacopy {metacopy}, native diff {}, durable {}",
        backing.name(),
        why_not.is_none(),
        config.sync
    );
    request.host.log(LogLevel::Debug, TARGET, &shown);
    Ok((abilities, why_not.is_none() && !metacopy))
}

/// Refuses `size` and `inodes`, by what keeps them from being enforced.
fn check_limits(config: &Config, backing: Backing, layout: &Layout) -> Result<()> {
    if config.size == 0 && config.inodes == 0 {
        return Ok(());
    }
    let message = if backing.name() != "xfs" {
        format!(
            "storage option overlay.size and overlay.inodes only supported for backingFS XFS. Found {}",
            backing.name()
        )
    } else if has_project_quota(layout)? {
        "storage options overlay.size and overlay.inodes are not supported by this version"
            .to_owned()
    } else {
        "storage options overlay.size and overlay.inodes not supported. Filesystem does not support \
         Project Quota"
            .to_owned()
    };
    Err(invalid(message, "overlay.size").remedy("remove `size` and `inodes` from storage.conf"))
}

fn has_project_quota(layout: &Layout) -> Result<bool> {
    let found = rustix::fs::stat(&layout.home).at("cannot stat", &layout.home)?;
    let (major, minor) = (
        rustix::fs::major(found.st_dev),
        rustix::fs::minor(found.st_dev),
    );
    let device = format!("{major}:{minor}");
    let quota = |options: &str| {
        let mut options = options.split(',');
        options.any(|option| matches!(option, "prjquota" | "pquota"))
    };
    let mounts = mountinfo::mounts()?;
    Ok(mounts
        .iter()
        .any(|mount| mount.device == device && quota(&mount.super_options)))
}
