// SPDX-License-Identifier: Apache-2.0
use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use plywood_driver_overlay::Overlay;
use plywood_plugin_sdk::{
    CreateRequest, Driver, DriverError, Host, LayerId, LayerKind, LogLevel, MountPlan,
    MountRequest, MountStep, OpenRequest, OverlayMount, Plugin, toolkit::mountinfo,
};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, unmount,
};

/// Says why a test does nothing here; with `REQUIRE` CI turns that into a failure elsewhere.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

pub(crate) fn has_program(name: &str) -> bool {
    let found = Command::new(name).arg("--version").output().is_ok();
    if !found {
        println!("skipped: needs {name}");
    }
    found
}

#[derive(Default)]
pub(crate) struct Log(Mutex<Vec<String>>);

impl Host for Log {
    fn log(&self, level: LogLevel, _: &str, message: &str) {
        self.0.lock().unwrap().push(format!("{level:?}: {message}"));
    }
}

impl Log {
    pub(crate) fn has(&self, part: &str) -> bool {
        self.0
            .lock()
            .unwrap()
            .iter()
            .any(|line| line.contains(part))
    }
}

/// A graph root and a run root of their own, unmounted and removed at the end.
pub(crate) struct Roots {
    dir: tempfile::TempDir,
    pub(crate) log: Arc<Log>,
}

impl Roots {
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    pub(crate) fn below(parent: &Path) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("plywood-overlay")
            .tempdir_in(parent)
            .unwrap();
        Self {
            dir,
            log: Arc::default(),
        }
    }

    pub(crate) fn graph_root(&self) -> PathBuf {
        self.dir.path().join("g")
    }

    pub(crate) fn run_root(&self) -> PathBuf {
        self.dir.path().join("r")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.graph_root().join("overlay")
    }

    pub(crate) fn open_with(&self, options: &[&str]) -> Result<Box<dyn Driver>, DriverError> {
        let run_dir = self.run_root().join("overlay");
        let mut request = OpenRequest::new(self.home(), run_dir, self.log.clone());
        request.options = options.iter().map(|&option| option.to_owned()).collect();
        request.known_drivers = vec!["overlay".to_owned(), "vfs".to_owned()];
        Overlay::open(request)
    }

    pub(crate) fn open(&self) -> Box<dyn Driver> {
        self.open_with(&[]).unwrap()
    }

    /// Runs containers-storage on these roots.
    pub(crate) fn containers_storage(&self, arguments: &[&str]) -> String {
        let output = Command::new("containers-storage")
            .args(["-s", "overlay", "-g"])
            .arg(self.graph_root())
            .arg("-R")
            .arg(self.run_root())
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Roots {
    fn drop(&mut self) {
        let below = self.dir.path();
        for mount in mountinfo::mounts().unwrap().iter().rev() {
            if mount.target.starts_with(below) {
                unmount(&mount.target, UnmountFlags::DETACH).ok();
            }
        }
    }
}

pub(crate) fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}

pub(crate) fn layer(name: &str, parent: Option<&str>) -> CreateRequest {
    CreateRequest::new(id(name), parent.map(id))
}

pub(crate) fn container(name: &str, parent: Option<&str>) -> CreateRequest {
    let mut request = layer(name, parent);
    request.kind = LayerKind::ReadWrite;
    request
}

/// A mount that is undone at the end.
pub(crate) struct Mounted(pub(crate) PathBuf);

impl Mounted {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0, UnmountFlags::DETACH).ok();
    }
}

/// Mounts as core does.
pub(crate) fn mount(driver: &dyn Driver, name: &str, request: &MountRequest) -> Mounted {
    match driver.mount_plan(&id(name), request).unwrap() {
        MountPlan::Mounts(steps) => {
            assert_eq!(steps.steps.len(), 1);
            let MountStep::Overlay(overlay) = &steps.steps[0] else {
                panic!("{steps:?}");
            };
            assert_eq!(overlay.target, steps.target);
            mount_overlay(overlay);
            Mounted(steps.target)
        }
        other => panic!("{other:?}"),
    }
}

fn mount_overlay(overlay: &OverlayMount) {
    let base = File::open(&overlay.base).unwrap();
    let at = |path: &Path| {
        let base_path = format!("/proc/self/fd/{}", base.as_raw_fd());
        Path::new(&base_path).join(path)
    };
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    for lower in &overlay.lowers {
        fsconfig_set_string(&context, "lowerdir+", at(lower)).unwrap();
    }
    if let (Some(upper), Some(work)) = (&overlay.upper, &overlay.work) {
        fsconfig_set_string(&context, "upperdir", at(upper)).unwrap();
        fsconfig_set_string(&context, "workdir", at(work)).unwrap();
    }
    for option in &overlay.options {
        match option.split_once('=') {
            Some((key, value)) => fsconfig_set_string(&context, key, value).unwrap(),
            None => fsconfig_set_flag(&context, option.as_str()).unwrap(),
        }
    }
    fsconfig_create(&context).unwrap();
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let made = fsmount(&context, flags, MountAttrFlags::empty()).unwrap();
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(&made, "", rustix::fs::CWD, &overlay.target, flags).unwrap();
}

pub(crate) fn read_only() -> MountRequest {
    let mut request = MountRequest::default();
    request.read_only = true;
    request
}

pub(crate) fn with_options(options: &[&str]) -> MountRequest {
    let mut request = MountRequest::default();
    request.options = options.iter().map(|&option| option.to_owned()).collect();
    request
}

pub(crate) fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
