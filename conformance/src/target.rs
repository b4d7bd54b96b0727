// SPDX-License-Identifier: Apache-2.0
//! What is under test: a driver on a store of its own.

use std::{
    collections::BTreeMap,
    fmt, io,
    ops::Deref,
    path::{Path, PathBuf},
};

use plywood::{
    Error, Result,
    archive::{Compression, walk::Change},
    durable::Durability,
    layers::{
        DiffOptions, Layer, LayerStore, LayerStoreOptions, NewLayer, PutOptions, Reaper,
        UnmountOptions,
    },
    locking::order::Held,
    plugin::DriverHandle,
    sdk::{LayerId, LayerKind, MountRequest},
};

use crate::{
    Site,
    case::Failure,
    manifest::{self, Manifest},
    scratch::{Size, SmallFilesystem},
    wire,
};

/// A driver on a store, with what cases need; everything of its [`Site`] can be reached through it.
pub struct Target {
    /// The driver, behind the guard that core puts around every driver.
    pub driver: DriverHandle,
    site: Site,
    store: LayerStore,
    /// Unmounted after the store and the driver were closed: fields are dropped in order.
    small: Option<SmallFilesystem>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target")
            .field("site", &self.site)
            .finish_non_exhaustive()
    }
}

impl Deref for Target {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl Target {
    /// Opens the driver and the store around it.
    ///
    /// # Errors
    /// What opening the driver or the store reports.
    pub fn open(site: Site) -> Result<Self> {
        let driver = site.driver()?;
        Self::with(site, driver)
    }

    /// A store around a driver that is open already.
    pub(crate) fn with(site: Site, driver: DriverHandle) -> Result<Self> {
        Ok(Self {
            store: store(&site, &driver, Durability::Full)?,
            driver,
            site,
            small: None,
        })
    }

    /// From now on nothing is made durable, as far as the driver takes the toolkit's option `sync`:
    /// for cases about many layers.
    pub(crate) fn without_sync(&mut self) -> Result<()> {
        let mut site = self.site.clone();
        site.options
            .push(format!("{}.sync=none", site.source.name()?));
        if let Ok(driver) = site.driver() {
            self.driver = driver;
            self.site = site;
        }
        self.store = store(&self.site, &self.driver, Durability::None)?;
        Ok(())
    }

    /// The same store opened once more, as by another program.
    pub(crate) fn reopened(&self) -> Result<Self> {
        Self::open(self.site.clone())
    }

    /// A fresh store on a small file system of its own, of the type under the case's root where
    /// that can be made.
    pub(crate) fn small(&self, size: Size) -> Result<Self, Failure> {
        self.small_of(&self.backing.fstype, size)
    }

    /// The same with a file system of that type, whatever lies under the case's root.
    pub(crate) fn small_of(&self, fstype: &str, size: Size) -> Result<Self, Failure> {
        Ok(self.on(self.filesystem_of(fstype, size)?)?)
    }

    /// A small file system of one type.
    pub(crate) fn filesystem_of(
        &self,
        fstype: &str,
        size: Size,
    ) -> Result<SmallFilesystem, Failure> {
        let mut site = self.site.clone();
        fstype.clone_into(&mut site.backing.fstype);
        SmallFilesystem::make(&site, size)
    }

    /// The store on a small file system, new or with what was there before.
    pub(crate) fn on(&self, small: SmallFilesystem) -> Result<Self> {
        let mut site = self.site.at(small.mount_point());
        small.fstype().clone_into(&mut site.backing.fstype);
        let mut target = Self::open(site)?;
        target.small = Some(small);
        Ok(target)
    }

    /// Gives the store on a small file system up, also when closing it fails, and unmounts that.
    pub(crate) fn abandon(mut self) -> Result<SmallFilesystem, Failure> {
        let small = self.small.take();
        if let Err(error) = self.driver.close() {
            wire::step(&format!("closing failed: {error}"))?;
        }
        drop(self);
        let small =
            small.ok_or_else(|| Failure::harness("this store has no file system of its own"))?;
        small.unmount()?;
        Ok(small)
    }

    /// The small file system that [`Target::small`] made.
    pub(crate) fn small_filesystem(&self) -> Result<&SmallFilesystem, Failure> {
        let small = self.small.as_ref();
        small.ok_or_else(|| Failure::harness("this store has no file system of its own"))
    }

    /// Closes the driver as the end of a program does, and gives back what it ran on.
    pub(crate) fn close(self) -> Result<(Site, Option<SmallFilesystem>)> {
        self.driver.close()?;
        Ok((self.site, self.small))
    }

    /// The driver's home directory.
    pub(crate) fn home(&self) -> PathBuf {
        self.root.join("graph").join(self.driver.name())
    }

    /// Names what comes next, for the report of a failure.
    #[expect(clippy::unused_self, reason = "a case says it to what it works with")]
    pub(crate) fn step(&self, text: &str) -> io::Result<()> {
        wire::step(text)
    }

    /// Records a number for the report.
    #[expect(clippy::unused_self, reason = "a case says it to what it works with")]
    pub(crate) fn measure(&self, name: &str, value: f64) -> io::Result<()> {
        wire::measure(name, value)
    }

    /// Records a number of things for the report.
    pub(crate) fn count(&self, name: &str, number: impl TryInto<u32>) -> io::Result<()> {
        self.measure(name, f64::from(number.try_into().unwrap_or(u32::MAX)))
    }

    /// The store around the driver.
    pub(crate) fn store(&self) -> &LayerStore {
        &self.store
    }

    pub(crate) fn create(&self, id: &str, parent: Option<&str>) -> Result<Layer> {
        self.create_with(&new_layer(id, parent))
    }

    /// A layer to be written to through mounts.
    pub(crate) fn create_writable(&self, id: &str, parent: Option<&str>) -> Result<Layer> {
        let mut new = new_layer(id, parent);
        new.kind = LayerKind::ReadWrite;
        self.create_with(&new)
    }

    pub(crate) fn create_with(&self, new: &NewLayer) -> Result<Layer> {
        let mut held = Held::nothing();
        let (mut write, _) = self.store.write(&mut held)?;
        write.create(new)
    }

    /// A layer that is filled from a tar stream, as images are loaded.
    pub(crate) fn put(&self, id: &str, parent: Option<&str>, tar: &[u8]) -> Result<Layer> {
        self.put_with(&new_layer(id, parent), tar, PutOptions::default())
    }

    pub(crate) fn put_with(
        &self,
        new: &NewLayer,
        reader: impl io::Read + Send,
        options: PutOptions<'_>,
    ) -> Result<Layer> {
        let mut held = Held::nothing();
        self.store
            .put(&mut held, new, reader, options)
            .map(|(layer, _)| layer)
    }

    /// Unpacks a tar stream into a layer that exists.
    pub(crate) fn apply(&self, id: &str, tar: impl io::Read + Send) -> Result<u64> {
        self.store
            .apply(&mut Held::nothing(), id, tar, PutOptions::default())
    }

    pub(crate) fn delete(&self, id: &str) -> Result<()> {
        self.delete_later(id)?.run()
    }

    /// Deletes a layer, but leaves the content to the caller.
    pub(crate) fn delete_later(&self, id: &str) -> Result<Reaper> {
        let mut held = Held::nothing();
        let (mut write, _) = self.store.write(&mut held)?;
        write.delete(&[id])
    }

    /// Every layer that has a record.
    pub(crate) fn layers(&self) -> Result<Vec<Layer>> {
        let mut held = Held::nothing();
        let (read, _) = self.store.read(&mut held)?;
        Ok(read.list())
    }

    pub(crate) fn mount(&self, id: &str, request: &MountRequest) -> Result<PathBuf> {
        let mut held = Held::nothing();
        let (mut write, _) = self.store.write(&mut held)?;
        write.mount(id, request)
    }

    pub(crate) fn unmount(&self, id: &str) -> Result<()> {
        self.unmount_with(id, UnmountOptions::default())
    }

    pub(crate) fn unmount_with(&self, id: &str, options: UnmountOptions) -> Result<()> {
        let mut held = Held::nothing();
        let (mut write, _) = self.store.write(&mut held)?;
        write.unmount(id, options).map(drop)
    }

    /// The changes against the layer's parent.
    pub(crate) fn changes(&self, id: &str) -> Result<Vec<Change>> {
        self.changes_between(None, id)
    }

    pub(crate) fn changes_between(&self, from: Option<&str>, id: &str) -> Result<Vec<Change>> {
        self.store.changes(&mut Held::nothing(), from, id)
    }

    pub(crate) fn diff_size(&self, from: Option<&str>, id: &str) -> Result<u64> {
        self.store.diff_size(&mut Held::nothing(), from, id)
    }

    /// The diff against the layer's parent, uncompressed.
    pub(crate) fn diff(&self, id: &str) -> Result<Vec<u8>> {
        self.diff_between(None, id)
    }

    pub(crate) fn diff_between(&self, from: Option<&str>, id: &str) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        self.diff_to(from, id, &mut out)?;
        Ok(out)
    }

    pub(crate) fn diff_to(
        &self,
        from: Option<&str>,
        id: &str,
        out: &mut (dyn io::Write + Send),
    ) -> Result<u64> {
        let mut options = DiffOptions::default();
        options.compression = Some(Compression::None);
        self.store
            .diff(&mut Held::nothing(), from, id, options, out)
    }

    /// Mounts a layer, does `work` in it, and unmounts it in any case.
    pub(crate) fn within<T, E: From<Error>>(
        &self,
        id: &str,
        work: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        self.within_as(id, &MountRequest::default(), work)
    }

    pub(crate) fn within_as<T, E: From<Error>>(
        &self,
        id: &str,
        request: &MountRequest,
        work: impl FnOnce(&Path) -> Result<T, E>,
    ) -> Result<T, E> {
        let path = self.mount(id, request)?;
        let done = work(&path);
        let unmounted = self.unmount(id);
        let done = done?;
        unmounted?;
        Ok(done)
    }

    /// Everything there is to see in a mounted layer.
    pub(crate) fn manifest(&self, id: &str) -> Result<Manifest, Failure> {
        self.within(id, |path| Ok(manifest::of(path)?))
    }

    /// How often the layer is mounted, as is recorded.
    pub(crate) fn mount_count(&self, id: &str) -> Result<u32> {
        let mut held = Held::nothing();
        let (read, _) = self.store.read(&mut held)?;
        read.mounted(id)
    }

    /// What the driver says about a layer.
    pub(crate) fn metadata(&self, id: &str) -> Result<BTreeMap<String, String>> {
        self.driver.metadata(&layer_id(id))
    }
}

/// The store around a driver.
fn store(site: &Site, driver: &DriverHandle, durability: Durability) -> Result<LayerStore> {
    let name = site.source.name()?;
    let mut options = LayerStoreOptions::new(
        site.root.join("graph").join(format!("{name}-layers")),
        site.root.join("run").join(format!("{name}-layers")),
    );
    options.driver = Some(driver.clone());
    // Beside each home is the directory of the records, as in the store's own graph root.
    let homes = driver.image_stores()?;
    let records = |home: &PathBuf| Some(home.parent()?.join(format!("{name}-layers")));
    options.read_only_stores = homes.iter().filter_map(records).collect();
    options.durability = durability;
    LayerStore::open(options)
}

/// A layer with an id, and nothing else but perhaps a parent.
pub(crate) fn new_layer(id: &str, parent: Option<&str>) -> NewLayer {
    NewLayer {
        id: Some(id.to_owned()),
        parent: parent.map(str::to_owned),
        ..NewLayer::default()
    }
}

/// The id as drivers get it.
///
/// # Panics
/// When the text is no valid id; cases about invalid ones do not come through here.
pub(crate) fn layer_id(text: &str) -> LayerId {
    LayerId::new(text).expect("the suite's own ids are valid")
}
