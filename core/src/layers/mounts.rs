// SPDX-License-Identifier: Apache-2.0
//! What is mounted where, how often: `mountpoints.json`.
//!
//! # Locking
//! `mountpoints.lock` is innermost: it is held inside single functions of this file, around
//! nothing but the file, the kernel's mounts and the driver.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use plywood_plugin_sdk::{LayerId, MountPlan, MountRequest, toolkit::mountinfo};
use rustix::fs::StatVfsMountFlags;
use serde::{Serialize, Serializer};

use super::{
    access::{LayersView, LayersWrite},
    gc::temporary_files,
    mapped,
    options::{Shared, driver_id},
    record::Layer,
};
use crate::{
    Error, ErrorKind, IoContext, Result,
    durable::Durability,
    locking::{Token, WriteGuard, order::Unordered},
    mount,
    records::{MemberError, Members, Record, Table, Unknown},
};

/// One mounted layer.
#[derive(Clone, Debug, Default)]
pub(super) struct MountRecord {
    id: String,
    path: String,
    count: i64,
    unknown: Unknown,
    /// Mounts have none; the table wants a place for them.
    names: Vec<String>,
}

impl Record for MountRecord {
    const WHAT: &'static str = "mount";

    const EMPTY_IS_VALID: bool = true;

    const REMEDY: &'static str = "nothing was changed; stop the containers, unmount what \
        `findmnt` shows below the graph root, and remove the file";

    fn read(mut members: Members<'_>) -> Result<Self, MemberError> {
        Ok(Self {
            id: members.take_or_default("id")?,
            path: members.take_or_default("path")?,
            count: members.take_or_default("count")?,
            unknown: members.rest(),
            names: Vec::new(),
        })
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn names(&self) -> &[String] {
        &self.names
    }

    fn names_mut(&mut self) -> &mut Vec<String> {
        &mut self.names
    }
}

impl Serialize for MountRecord {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire<'a> {
            id: &'a str,
            path: &'a str,
            count: i64,
            #[serde(flatten)]
            unknown: &'a Unknown,
        }
        Wire {
            id: &self.id,
            path: &self.path,
            count: self.count,
            unknown: &self.unknown,
        }
        .serialize(serializer)
    }
}

/// All mounted layers.
#[derive(Clone, Debug)]
pub(super) struct MountTable(Table<MountRecord>);

impl MountTable {
    fn empty() -> Self {
        Self(Table::load(&[]).expect("no file, nothing to read"))
    }

    fn load(path: &Path, durability: Durability) -> Result<Self> {
        Ok(Self(Table::load(&[(path.to_owned(), durability)])?))
    }

    fn active(&self, id: &str) -> Option<&MountRecord> {
        self.0
            .get(id)
            .filter(|mount| mount.count > 0 && !mount.path.is_empty())
    }

    /// Says in a layer where and how often it is mounted.
    pub(super) fn note(&self, layer: &mut Layer) {
        if let Some(mount) = self.active(&layer.id) {
            layer.mount_point = Some(PathBuf::from(&mount.path));
            layer.mount_count = u32::try_from(mount.count).unwrap_or(u32::MAX);
        }
    }

    /// The ids of all mounted layers.
    pub(super) fn ids(&self) -> Vec<String> {
        let ids = self.0.iter().map(|mount| mount.id.clone());
        ids.filter(|id| self.active(id).is_some()).collect()
    }
}

/// The mounts, locked for changes.
struct MountsWrite<'a> {
    shared: &'a Shared,
    guard: WriteGuard<'static, Unordered>,
    table: MountTable,
}

impl Shared {
    /// What is mounted at the moment.
    pub(super) fn mounts(&self) -> Result<Arc<MountTable>> {
        let guard = self.mounts_lock.read_unordered()?;
        let token = guard.token()?;
        if let Some((table, seen)) = &self.state().mounts
            && *seen == token
        {
            return Ok(Arc::clone(table));
        }
        let table = Arc::new(MountTable::load(&self.mounts_path, self.durability)?);
        self.state().mounts = Some((Arc::clone(&table), token));
        Ok(table)
    }

    /// The same for people, who are served better by a layer without its mounts than by nothing.
    pub(super) fn mounts_to_show(&self) -> Arc<MountTable> {
        self.mounts().unwrap_or_else(|error| {
            tracing::warn!(?error, "it is not known what is mounted");
            Arc::new(MountTable::empty())
        })
    }

    fn mounts_for_change(&self) -> Result<MountsWrite<'_>> {
        let guard = self.mounts_lock.write_unordered()?;
        let token: Token = guard.token()?;
        let known = self
            .state()
            .mounts
            .take()
            .filter(|(_, seen)| *seen == token);
        let table = match known {
            Some((table, _)) => Arc::unwrap_or_clone(table),
            None => MountTable::load(&self.mounts_path, self.durability)?,
        };
        Ok(MountsWrite {
            shared: self,
            guard,
            table,
        })
    }
}

impl MountsWrite<'_> {
    /// Writes the mounts. After a failure they are read anew by whoever needs them.
    fn save(mut self) -> Result<()> {
        let records = &mut self.table.0;
        let ((), token) = self.guard.publish(|| records.save())?;
        self.shared.state().mounts = Some((Arc::new(self.table), token));
        Ok(())
    }

    fn set(&mut self, id: &str, path: &Path, count: i64) -> Result<()> {
        let path = path.to_str().ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidArgument,
                format!("a mount point must be UTF-8 text: `{}`", path.display()),
            )
        })?;
        if let Some(mount) = self.table.0.edit(id) {
            path.clone_into(&mut mount.path);
            mount.count = count;
            return Ok(());
        }
        let mount = MountRecord {
            id: id.to_owned(),
            path: path.to_owned(),
            count,
            ..MountRecord::default()
        };
        let added = self.table.0.insert(mount, 0);
        debug_assert_eq!(added, Ok(()), "the id was not there");
        Ok(())
    }
}

/// What is left of a layer's mounts after one was taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmounted {
    /// Others still use the mount.
    StillMounted,
    /// It was the last one.
    Gone,
}

/// Which mounts are taken back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnmountOptions {
    /// All of them, not just one; also what is mounted without a record.
    pub force: bool,
    /// A layer that is not recorded as mounted is an error.
    pub only_if_mounted: bool,
}

impl LayersWrite<'_> {
    /// Mounts a layer, or counts one more user of its mount.
    ///
    /// # Behavior
    /// - A recorded mount that the kernel does not have (any more) is made anew.
    /// - A layer without id maps is shown with those of the request by an idmapped mount.
    /// - The layer's own SELinux label is used when the request has none and the driver takes any.
    ///
    /// # Errors
    /// `LayerUnknown`; `StoreIsReadOnly` for a layer of a read-only store unless the mount is
    /// read-only; `Busy` when the layer is mounted read-only and is to be written to, or the other
    /// way round, or with other id maps; `NotSupported` for id maps with which the layer cannot be
    /// shown; what the driver or the kernel reports, with nothing mounted or counted.
    pub fn mount(&mut self, what: &str, request: &MountRequest) -> Result<PathBuf> {
        self.fresh()?;
        let found = self.find(what)?;
        if found.read_only && !request.read_only {
            self.own(what, "update mount locations for layers")?;
        }
        let id = found.layer.id.clone();
        let own_maps = found.layer.id_maps.clone();
        let mut request = request.clone();
        let takes_labels = self.shared.driver()?.capabilities().mount_labels;
        if takes_labels && request.label.is_none() && !found.layer.mount_label.is_empty() {
            request.label = Some(found.layer.mount_label.clone());
        }
        let shared = Arc::clone(&self.shared);
        let mut mounts = shared.mounts_for_change()?;
        let (path, count) = match mounts.table.0.get(&id) {
            Some(mount) => (PathBuf::from(&mount.path), mount.count.max(0)),
            None => (PathBuf::new(), 0),
        };
        let maps = mapped::wanted(&own_maps, &request);
        if count > 0 && mount::is_mounted(&path)? {
            check_shared(&id, &path, request.read_only)?;
            shared.check_maps(&id, &path, &request, maps)?;
            mounts.set(&id, &path, count + 1)?;
            mounts.save()?;
            return Ok(path);
        }
        let driver_id = driver_id(&id)?;
        if count > 0 && (request.read_only || maps.is_some()) {
            shared.refuse_directory(&driver_id, &path)?;
        }
        let path = match maps {
            None => shared.perform(&driver_id, &request)?,
            Some(maps) => shared.perform_mapped(&driver_id, &request, &own_maps, maps)?,
        };
        let recorded = mounts
            .set(&id, &path, count + 1)
            .and_then(|()| mounts.save());
        if let Err(error) = recorded {
            if count == 0
                && let Err(undo) = shared.take_back(&driver_id, &path)
            {
                tracing::error!(layer = id, ?undo, "a mount that cannot be recorded stays");
            }
            return Err(error);
        }
        Ok(path)
    }

    /// Takes back one use of a layer's mount, and the mount itself with the last one.
    ///
    /// # Behavior
    /// - `what` may also be the path of the mount.
    ///
    /// # Errors
    /// `LayerUnknown`; `LayerNotMounted` when that is asked for; what the driver or the kernel
    /// reports, with the mount still recorded.
    pub fn unmount(&mut self, what: &str, options: UnmountOptions) -> Result<Unmounted> {
        self.fresh()?;
        let shared = Arc::clone(&self.shared);
        let mut mounts = shared.mounts_for_change()?;
        let id = match self.find(what) {
            Ok(found) => found.layer.id.clone(),
            Err(error) => {
                let path = Path::new(what);
                // Also by the id of a layer that is gone, whose mount must not stay for that.
                let mut all = mounts.table.0.iter();
                let at_path = all.find(|m| Path::new(&m.path) == path || m.id == what);
                at_path.map(|mount| mount.id.clone()).ok_or(error)?
            }
        };
        let (path, count) = match mounts.table.0.get(&id) {
            Some(mount) => (PathBuf::from(&mount.path), mount.count.max(0)),
            None => (PathBuf::new(), 0),
        };
        if count == 0 && options.only_if_mounted {
            return Err(
                Error::new(ErrorKind::LayerNotMounted, "layer is not mounted").subject(&*id),
            );
        }
        if count > 1 && !options.force {
            mounts.set(&id, &path, count - 1)?;
            mounts.save()?;
            return Ok(Unmounted::StillMounted);
        }
        shared.take_back(&driver_id(&id)?, &path)?;
        if mounts.table.0.remove(&id).is_some() {
            mounts.save()?;
        }
        Ok(Unmounted::Gone)
    }
}

impl LayersView<'_> {
    /// Versions of the record of mounts that were never finished.
    pub(super) fn unfinished_mount_records(&self) -> Result<Vec<PathBuf>> {
        let path = &self.shared.mounts_path;
        // Nobody is writing one while the lock is held.
        let _guard = self.shared.mounts_lock.write_unordered()?;
        let Some(dir) = path.parent() else {
            return Ok(Vec::new());
        };
        temporary_files(dir, &["mountpoints.json"])
    }

    /// The layers at which something is mounted below `roots` without a record, as a process
    /// leaves them that was killed before it could write one.
    ///
    /// # Errors
    /// Those of reading what is mounted.
    pub(crate) fn stray_mounts(&self, roots: &[&Path]) -> Result<Vec<String>> {
        let recorded = self.shared.mounts()?;
        let roots: Vec<PathBuf> = roots.iter().flat_map(fs::canonicalize).collect();
        let mut strays = BTreeSet::new();
        for mount in mountinfo::mounts()? {
            let below = roots
                .iter()
                .find_map(|root| mount.target.strip_prefix(root).ok());
            let names = below.into_iter().flat_map(Path::components);
            let ids = names.filter_map(|name| name.as_os_str().to_str());
            strays.extend(
                ids.filter(|id| self.table.get(id).is_some())
                    .map(str::to_owned),
            );
        }
        strays.retain(|id| recorded.active(id).is_none());
        Ok(strays.into_iter().collect())
    }

    /// The ids of the mounted layers.
    ///
    /// # Errors
    /// Those of reading what is mounted.
    pub fn mounted_layers(&self) -> Result<Vec<String>> {
        Ok(self.shared.mounts()?.ids())
    }
}

/// A mount that is there can be shared only by those who want the same of it.
fn check_shared(id: &str, path: &Path, read_only: bool) -> Result<()> {
    let found = rustix::fs::statvfs(path).at("cannot inspect", path)?;
    let is_read_only = found.f_flag.contains(StatVfsMountFlags::RDONLY);
    if is_read_only == read_only {
        return Ok(());
    }
    let how = if is_read_only {
        "read-only"
    } else {
        "writable"
    };
    Err(mounted_otherwise(id, path, how))
}

fn mounted_otherwise(id: &str, path: &Path, how: &str) -> Error {
    let path = path.display();
    Error::new(
        ErrorKind::Busy,
        format!("layer `{id}` is mounted already, {how}, at `{path}`"),
    )
    .subject(id)
    .hint("unmount it first")
}

impl Shared {
    /// Lets the kernel or the driver mount a layer.
    fn perform(&self, id: &LayerId, request: &MountRequest) -> Result<PathBuf> {
        let driver = self.driver()?;
        match driver.mount_plan(id, request)? {
            MountPlan::Directory(path) => Ok(path),
            MountPlan::ByDriver { .. } => driver.mount(id, request),
            // A process that died before it could record its mount left it there.
            MountPlan::Mounts(steps) if mount::is_mounted(&steps.target)? => {
                check_shared(id.as_str(), &steps.target, request.read_only)?;
                Ok(steps.target)
            }
            plan => mount::execute(&plan).inspect_err(|_| {
                // The plan may have come with a directory for the mount.
                if let Err(error) = driver.released(id) {
                    tracing::warn!(layer = %id, ?error, "what was made for a mount stays");
                }
            }),
        }
    }

    /// Refuses when `path` is the layer's own directory, which is in use without a mount: its user
    /// would be told of the read-only view that takes its place in the record.
    fn refuse_directory(&self, id: &LayerId, path: &Path) -> Result<()> {
        match self.driver()?.mount_plan(id, &MountRequest::default())? {
            MountPlan::Directory(directory) if directory == path => {
                Err(mounted_otherwise(id.as_str(), path, "writable"))
            }
            _ => Ok(()),
        }
    }

    /// Undoes [`Shared::perform`]; what is not mounted is no error.
    pub(super) fn take_back(&self, id: &LayerId, path: &Path) -> Result<()> {
        let driver = self.driver()?;
        match driver.mount_plan(id, &MountRequest::default()) {
            // A read-only view of a plain directory is a mount elsewhere.
            Ok(MountPlan::Directory(_)) if path.as_os_str().is_empty() => {
                let mut request = MountRequest::default();
                request.read_only = true;
                if driver.capabilities().read_only_mounts
                    && let Ok(plan @ MountPlan::Mounts(_)) = driver.mount_plan(id, &request)
                {
                    mount::undo(&plan, path)?;
                }
            }
            Ok(MountPlan::Directory(directory)) => {
                if path != directory {
                    mount::unmount(path)?;
                }
            }
            Ok(MountPlan::ByDriver { .. }) => driver.unmount(id)?,
            Ok(plan) => mount::undo(&plan, path)?,
            // The layer is damaged or gone: its mount must not stay for that.
            Err(error) => {
                tracing::warn!(layer = %id, ?error, "unmounting by path alone");
                mount::unmount(path)?;
            }
        }
        self.undo_mapped(id)?;
        driver.released(id)
    }
}
