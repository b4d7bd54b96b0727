// SPDX-License-Identifier: Apache-2.0
//! A layer store of its own for each test.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use plywood::{
    Result,
    layers::{Layer, LayerStore, LayerStoreOptions, LayersRead, LayersWrite, NewLayer},
    locking::order::Held,
    plugin::DriverHandle,
    sdk::{
        self, Capabilities, CreateRequest, DiffView, Driver, Host, LayerId, LogLevel, MountPlan,
        MountRequest, OpenRequest, Plugin, Removed, UnpackTarget, Usage,
    },
};
use plywood_driver_overlay::Overlay;
use plywood_driver_vfs::Vfs;
use tempfile::TempDir;

/// A host that drops what drivers log.
pub(crate) struct Silent;

impl Host for Silent {
    fn log(&self, _: LogLevel, _: &str, _: &str) {}
}

/// The drivers that layers are tried with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Vfs,
    /// The former without staging and deferred removal.
    Plain,
    Overlay,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Vfs, Self::Plain, Self::Overlay];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vfs | Self::Plain => Vfs::NAME,
            Self::Overlay => Overlay::NAME,
        }
    }

    pub(crate) fn open(self, root: &Path) -> DriverHandle {
        self.open_with(root, &[])
    }

    pub(crate) fn open_with(self, root: &Path, options: &[&str]) -> DriverHandle {
        let home = root.join("graph").join(self.name());
        let run = root.join("run").join(self.name());
        let mut request = OpenRequest::new(home, run, Arc::new(Silent));
        request.options = options.iter().map(|&option| option.to_owned()).collect();
        let driver = match self {
            Self::Vfs => Vfs::open(request),
            Self::Plain => Vfs::open(request).map(|driver| Box::new(Plain(driver)) as Box<_>),
            Self::Overlay => Overlay::open(request),
        };
        DriverHandle::from_driver(self.name(), driver.unwrap())
    }
}

/// A file whose presence in a layer keeps [`Kind::Plain`] from removing it.
pub(crate) const STUBBORN: &str = "stubborn";

/// A driver that can only do what every driver must.
struct Plain(Box<dyn Driver>);

impl Driver for Plain {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.list = true;
        capabilities
    }

    fn status(&self) -> sdk::Result<Vec<(String, String)>> {
        self.0.status()
    }

    fn create(&self, request: &CreateRequest) -> sdk::Result<()> {
        self.0.create(request)
    }

    fn remove(&self, id: &LayerId) -> sdk::Result<Removed> {
        if self
            .0
            .content_roots(id)
            .is_ok_and(|roots| roots[0].join(STUBBORN).exists())
        {
            let code = sdk::DriverErrorCode::BUSY;
            return Err(sdk::DriverError::new(code, "the layer is busy"));
        }
        self.0.remove(id)
    }

    fn exists(&self, id: &LayerId) -> sdk::Result<bool> {
        self.0.exists(id)
    }

    fn list(&self) -> sdk::Result<Vec<LayerId>> {
        self.0.list()
    }

    fn metadata(&self, id: &LayerId) -> sdk::Result<BTreeMap<String, String>> {
        self.0.metadata(id)
    }

    fn usage(&self, id: &LayerId) -> sdk::Result<Usage> {
        self.0.usage(id)
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> sdk::Result<MountPlan> {
        self.0.mount_plan(id, request)
    }

    fn unpack_target(&self, id: &LayerId) -> sdk::Result<UnpackTarget> {
        self.0.unpack_target(id)
    }

    /// Core has to mount both layers to compare them.
    fn diff_view(&self, _: &LayerId, _: Option<&LayerId>) -> sdk::Result<DiffView> {
        Ok(DiffView::Mounted)
    }

    fn content_roots(&self, id: &LayerId) -> sdk::Result<Vec<PathBuf>> {
        self.0.content_roots(id)
    }
}

/// A store in a temporary directory.
pub(crate) struct Store {
    pub(crate) root: TempDir,
    pub(crate) kind: Kind,
    pub(crate) layers: LayerStore,
}

impl Store {
    pub(crate) fn new(kind: Kind) -> Self {
        // Memory is as good for this, and does not wait for a disk.
        let place = Path::new("/dev/shm");
        let place = if place.is_dir() {
            place
        } else {
            Path::new("/tmp")
        };
        let root = tempfile::Builder::new()
            .prefix("plw-layers-")
            .tempdir_in(place)
            .unwrap();
        let layers = open(root.path(), kind);
        Self { root, kind, layers }
    }

    /// As another process would see it.
    pub(crate) fn other(&self) -> LayerStore {
        open(self.root.path(), self.kind)
    }

    pub(crate) fn dir(&self) -> PathBuf {
        self.layers.dir().to_owned()
    }

    pub(crate) fn json(&self) -> String {
        fs::read_to_string(self.dir().join("layers.json")).unwrap_or_default()
    }

    pub(crate) fn driver_dir(&self, id: &str) -> PathBuf {
        let home = self.root.path().join("graph").join(self.kind.name());
        match self.kind {
            Kind::Vfs | Kind::Plain => home.join("dir").join(id),
            Kind::Overlay => home.join(id),
        }
    }

    pub(crate) fn create(&self, new: &NewLayer) -> Result<Layer> {
        write(&self.layers, |write| write.create(new))
    }

    pub(crate) fn delete(&self, ids: &[&str]) -> Result<()> {
        write(&self.layers, |write| write.delete(ids))?.run()
    }
}

/// What is mounted below a directory, innermost first.
pub(crate) fn mounts_below(root: &Path) -> Vec<PathBuf> {
    let info = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let paths = info.lines().filter_map(|line| line.split(' ').nth(4));
    let mut below: Vec<PathBuf> = paths
        .map(PathBuf::from)
        .filter(|path| path.starts_with(root))
        .collect();
    below.reverse();
    below
}

impl Drop for Store {
    /// The other program leaves the driver's home mounted on itself.
    fn drop(&mut self) {
        for path in mounts_below(self.root.path()) {
            let gone = rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH);
            assert!(
                gone.is_ok() || std::thread::panicking(),
                "{} stays mounted",
                path.display()
            );
        }
    }
}

pub(crate) fn options(root: &Path, kind: Kind) -> LayerStoreOptions {
    let name = format!("{}-layers", kind.name());
    LayerStoreOptions::new(root.join("graph").join(&name), root.join("run").join(&name))
}

pub(crate) fn open(root: &Path, kind: Kind) -> LayerStore {
    let mut options = options(root, kind);
    options.driver = Some(kind.open(root));
    LayerStore::open(options).unwrap()
}

pub(crate) fn read<T>(store: &LayerStore, look: impl FnOnce(&LayersRead<'_>) -> T) -> T {
    let mut held = Held::nothing();
    let (read, _) = store.read(&mut held).unwrap();
    look(&read)
}

pub(crate) fn write<T>(store: &LayerStore, change: impl FnOnce(&mut LayersWrite<'_>) -> T) -> T {
    let mut held = Held::nothing();
    let (mut write, _) = store.write(&mut held).unwrap();
    change(&mut write)
}

/// Collects garbage; says what it was.
pub(crate) fn collect_garbage(store: &LayerStore) -> Vec<String> {
    let mut held = Held::nothing();
    let (mut write, _) = store.write(&mut held).unwrap();
    let (found, reaper) = write.garbage_collect().unwrap();
    drop(write);
    reaper.run().unwrap();
    found
}

/// Removes all layers.
pub(crate) fn wipe(store: &LayerStore) {
    let mut held = Held::nothing();
    let (mut write, _) = store.write(&mut held).unwrap();
    let reaper = write.wipe().unwrap();
    drop(write);
    reaper.run().unwrap();
}

/// A layer with that id and nothing else.
pub(crate) fn new(id: &str) -> NewLayer {
    NewLayer {
        id: Some(id.to_owned()),
        ..NewLayer::default()
    }
}

/// A layer with that id on that parent.
pub(crate) fn child(id: &str, parent: &str) -> NewLayer {
    NewLayer {
        parent: Some(parent.to_owned()),
        ..new(id)
    }
}

/// An id of 64 equal digits.
pub(crate) fn id(digit: char) -> String {
    String::from(digit).repeat(64)
}

/// The names of what is in a directory, sorted; none when it is missing.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// A tar stream with one directory and some files.
pub(crate) fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1_000_000_000);
        header.set_entry_type(tar::EntryType::Regular);
        builder
            .append_data(&mut header, path, text.as_bytes())
            .unwrap();
    }
    builder.into_inner().unwrap()
}
