// SPDX-License-Identifier: Apache-2.0
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use plywood_driver_btrfs::Btrfs;
use plywood_plugin_sdk::{
    CreateRequest, Driver, DriverError, Host, LayerId, LayerKind, LogLevel, OpenRequest, Plugin,
};
use rustix::mount::{UnmountFlags, unmount};

struct Quiet;

impl Host for Quiet {
    fn log(&self, _: LogLevel, _: &str, _: &str) {}
}

/// A btrfs file system in a loop file with a store on it, unmounted and removed at the end.
pub(crate) struct Store {
    dir: tempfile::TempDir,
}

impl Store {
    /// `None`, with the reason printed, where that cannot be made.
    pub(crate) fn new() -> Option<Self> {
        Self::of_megabytes(512)
    }

    pub(crate) fn of_megabytes(megabytes: u64) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let dir = tempfile::Builder::new()
            .prefix("plywood-btrfs")
            .tempdir()
            .unwrap();
        let image = dir.path().join("image");
        File::create(&image)
            .unwrap()
            .set_len(megabytes << 20)
            .unwrap();
        let made = Command::new("mkfs.btrfs").arg("-q").arg(&image).output();
        let Ok(made) = made else {
            println!("skipped: needs mkfs.btrfs");
            return None;
        };
        assert!(made.status.success(), "{made:?}");
        let this = Self { dir };
        fs::create_dir(this.mounted()).unwrap();
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(&image)
            .arg(this.mounted()));
        Some(this)
    }

    pub(crate) fn mounted(&self) -> PathBuf {
        self.dir.path().join("fs")
    }

    pub(crate) fn graph_root(&self) -> PathBuf {
        self.mounted().join("g")
    }

    pub(crate) fn run_root(&self) -> PathBuf {
        self.dir.path().join("r")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.graph_root().join("btrfs")
    }

    pub(crate) fn tree(&self, name: &str) -> PathBuf {
        self.home().join("subvolumes").join(name)
    }

    pub(crate) fn open_with(&self, options: &[&str]) -> Result<Box<dyn Driver>, DriverError> {
        open_at(&self.home(), &self.run_root().join("btrfs"), options)
    }

    pub(crate) fn open(&self) -> Box<dyn Driver> {
        self.open_with(&[]).unwrap()
    }

    /// The paths of all subvolumes, relative to the file system.
    pub(crate) fn subvolumes(&self) -> Vec<String> {
        let listed = run(Command::new("btrfs")
            .args(["subvolume", "list"])
            .arg(self.mounted()));
        let paths = listed
            .lines()
            .filter_map(|line| line.split(" path ").nth(1));
        let mut paths: Vec<String> = paths.map(str::to_owned).collect();
        paths.sort();
        paths
    }

    /// Asserts that nothing but these layers is there.
    pub(crate) fn assert_only(&self, layers: &[&str]) {
        let expected: Vec<String> = layers
            .iter()
            .map(|layer| format!("g/btrfs/subvolumes/{layer}"))
            .collect();
        assert_eq!(self.subvolumes(), expected);
        assert!(!self.home().join("tempdirs").exists(), "places are left");
    }

    /// As [`Store::assert_only`], where other stores are on the same file system.
    pub(crate) fn assert_only_below_home(&self, layers: &[&str]) {
        let listed = fs::read_dir(self.home().join("subvolumes")).unwrap();
        let mut names: Vec<_> = listed.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, layers);
        assert!(!self.home().join("tempdirs").exists(), "places are left");
    }
}

pub(crate) fn open_at(
    home: &Path,
    run_dir: &Path,
    options: &[&str],
) -> Result<Box<dyn Driver>, DriverError> {
    let mut request = OpenRequest::new(home, run_dir, Arc::new(Quiet));
    request.options = options.iter().map(|&option| option.to_owned()).collect();
    request.known_drivers = vec!["overlay".to_owned(), "btrfs".to_owned()];
    Btrfs::open(request)
}

impl Drop for Store {
    fn drop(&mut self) {
        // The loop device goes with the last mount.
        let mounted = self.mounted();
        while unmount(&mounted, UnmountFlags::DETACH).is_ok() {}
    }
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn btrfs(arguments: &[&str], path: &Path) -> String {
    run(Command::new("btrfs").args(arguments).arg(path))
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

pub(crate) fn sized(mut request: CreateRequest, size: &str) -> CreateRequest {
    let option = ("size".to_owned(), size.to_owned());
    request.storage_options.extend([option]);
    request
}
