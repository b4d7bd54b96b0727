// SPDX-License-Identifier: Apache-2.0
use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
};

use plywood_driver_zfs::Zfs;
use plywood_plugin_sdk::{
    CreateRequest, Driver, Host, LayerId, LayerKind, LogLevel, OpenRequest, Plugin,
};

/// Keeps the warnings that it gets.
#[derive(Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl Host for Warnings {
    fn log(&self, level: LogLevel, _: &str, message: &str) {
        if level == LogLevel::Warn {
            println!("{message}");
            self.0.lock().unwrap().push(message.to_owned());
        }
    }
}

/// A pool in a file with a store on it, destroyed at the end.
pub(crate) struct Store {
    dir: tempfile::TempDir,
    pub(crate) pool: String,
}

impl Store {
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("plywoodzfs")
            .tempdir()
            .unwrap();
        let name = dir.path().file_name().unwrap().to_str().unwrap();
        let pool: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let image = dir.path().join("image");
        File::create(&image).unwrap().set_len(512 << 20).unwrap();
        let this = Self { dir, pool };
        run(Command::new("zpool")
            .args(["create", "-f", "-o", "cachefile=none", "-m"])
            .arg(this.mounted())
            .arg(&this.pool)
            .arg(&image));
        this
    }

    pub(crate) fn mounted(&self) -> PathBuf {
        self.dir.path().join("fs")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn graph_root(&self) -> PathBuf {
        self.mounted().join("g")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.graph_root().join("zfs")
    }

    pub(crate) fn open_for(&self, host: Arc<Warnings>) -> Box<dyn Driver> {
        Zfs::open(OpenRequest::new(self.home(), self.path("r/zfs"), host)).unwrap()
    }

    pub(crate) fn open(&self) -> Box<dyn Driver> {
        self.open_for(Arc::default())
    }

    /// Opens another store with its graph root at `place`, and with the layers of the stores at
    /// `graph_roots`.
    pub(crate) fn open_at(&self, place: &Path, graph_roots: &[PathBuf]) -> Box<dyn Driver> {
        let host = Arc::<Warnings>::default();
        let mut request = OpenRequest::new(place.join("zfs"), self.path("r2/zfs"), host);
        let options = graph_roots
            .iter()
            .map(|root| format!("zfs.imagestore={}", root.display()));
        request.options.extend(options);
        Zfs::open(request).unwrap()
    }

    /// The names of everything in the pool, without the snapshots that go with their last clone.
    pub(crate) fn datasets(&self) -> Vec<String> {
        let listed = zfs(&[
            "list",
            "-H",
            "-r",
            "-o",
            "name,defer_destroy",
            "-t",
            "all",
            &self.pool,
        ]);
        let lines = listed.lines().filter_map(|line| line.split_once('\t'));
        let lasting = lines.filter(|(name, deferred)| *deferred != "on" && *name != self.pool);
        lasting
            .map(|(name, _)| name[self.pool.len() + 1..].to_owned())
            .collect()
    }

    /// Asserts that nothing but these layers is there.
    pub(crate) fn assert_only(&self, layers: &[&str]) {
        assert_eq!(self.datasets(), layers);
        assert!(!self.home().join("tempdirs").exists(), "places are left");
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // A failed test may have left something mounted; the pool goes with its image.
        Command::new("zpool")
            .args(["destroy", "-f", &self.pool])
            .output()
            .ok();
    }
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub(crate) fn zfs(arguments: &[&str]) -> String {
    run(Command::new("zfs").args(arguments))
}

/// There is nothing like a dataset inside a dataset's files.
pub(crate) fn nest(path: &Path) {
    fs::create_dir(path).unwrap();
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

/// A layer's files, until this is dropped.
pub(crate) struct Look<'a> {
    driver: &'a dyn Driver,
    pub(crate) tree: PathBuf,
}

pub(crate) fn look<'a>(driver: &'a dyn Driver, name: &str) -> Look<'a> {
    let tree = driver.unpack_target(&id(name)).unwrap().directory;
    Look { driver, tree }
}

impl Drop for Look<'_> {
    fn drop(&mut self) {
        self.driver.let_go(&self.tree).unwrap();
    }
}
