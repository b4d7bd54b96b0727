// SPDX-License-Identifier: Apache-2.0
//! What stands between core and every driver, linked in or loaded.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, ExternalDirectory,
    LayerId, MountPlan, MountRequest, MountStep, NativeChange, Removed, Staged, UnpackTarget,
    Usage, abi::contain,
};

use crate::{Error, ErrorKind, Result};

/// Where a driver came from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// A plugin file.
    File(PathBuf),
    /// Linked into the program.
    Embedded,
    /// Handed over by the program that uses this library.
    Given,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Embedded => f.write_str("embedded"),
            Self::Given => f.write_str("given by the program"),
        }
    }
}

/// An open driver behind core's checks; cheap to clone.
///
/// # Behavior
/// - The methods are those of [`Driver`]; failures arrive as [`Error`] and name the driver.
/// - What the driver does not declare is refused before it is called, with
///   [`ErrorKind::NotSupported`].
/// - A panic of the driver becomes an error. From then on this instance is refused for everything
///   that writes ([`ErrorKind::DriverPoisoned`]); reading, status and unmounting stay possible.
/// - An answer that core could not use safely (a relative path, no mount step) is an error.
#[derive(Clone)]
pub struct DriverHandle(Arc<Guarded>);

struct Guarded {
    name: String,
    origin: Origin,
    capabilities: Capabilities,
    poison: OnceLock<String>,
    /// Taken out only by `drop`.
    driver: Option<Box<dyn Driver>>,
}

/// Directories that are mounted nowhere are named by descriptors.
pub(crate) const DESCRIPTORS: &str = "/proc/self/fd";

/// What an operation does, for the poisoning rule.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    /// It changes layers.
    Write,
    /// It reads, or it takes back what was done to the system.
    Read,
}

impl DriverHandle {
    /// Guards a driver that the program made itself.
    pub fn from_driver(name: impl Into<String>, driver: Box<dyn Driver>) -> Self {
        Self::new(name.into(), Origin::Given, driver)
    }

    pub(crate) fn new(name: String, origin: Origin, driver: Box<dyn Driver>) -> Self {
        let poison = OnceLock::new();
        let asked = contain("capabilities", || Ok(driver.capabilities()));
        let capabilities = asked.unwrap_or_else(|error| {
            tracing::error!(driver = name, "{error}");
            poison.get_or_init(|| error.message);
            Capabilities::default()
        });
        Self(Arc::new(Guarded {
            name,
            origin,
            capabilities,
            poison,
            driver: Some(driver),
        }))
    }

    /// The driver's name, which is also its directory below the graph root.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Where the driver came from.
    pub fn origin(&self) -> &Origin {
        &self.0.origin
    }

    /// What the driver can do.
    pub fn capabilities(&self) -> &Capabilities {
        &self.0.capabilities
    }

    /// The driver without the checks: for a suite that tests what the driver itself refuses.
    ///
    /// # Behavior
    /// - A panic of a driver that is linked in unwinds into the caller, and nothing is poisoned.
    ///
    /// # Panics
    /// Never: the driver is there for as long as its handle is.
    pub fn unguarded(&self) -> &dyn Driver {
        self.0
            .driver
            .as_deref()
            .expect("the driver is taken out by drop alone")
    }

    /// Where the driver panicked and what it said, when it is refused for writes.
    pub fn poisoned(&self) -> Option<&str> {
        self.0.poison.get().map(String::as_str)
    }

    /// Pairs for people, for instance the backing file system.
    pub fn status(&self) -> Result<Vec<(String, String)>> {
        self.call(Access::Read, "status", |driver| driver.status())
    }

    /// Makes a layer; a template needs the `template` capability.
    pub fn create(&self, request: &CreateRequest) -> Result<()> {
        self.check_create(request)?;
        self.call(Access::Write, "create", |driver| driver.create(request))
    }

    /// Removes a layer and everything of it.
    pub fn remove(&self, id: &LayerId) -> Result<Removed> {
        self.call(Access::Write, "remove", |driver| driver.remove(id))
    }

    /// Whether the layer is there, in the home or in an image store.
    pub fn exists(&self, id: &LayerId) -> Result<bool> {
        self.call(Access::Read, "exists", |driver| driver.exists(id))
    }

    /// Every layer in the home (capability `list`).
    pub fn list(&self) -> Result<Vec<LayerId>> {
        self.need(self.0.capabilities.list, "listing its layers")?;
        self.call(Access::Read, "list", |driver| driver.list())
    }

    /// Paths and other facts about a layer, by name.
    pub fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        self.call(Access::Read, "metadata", |driver| driver.metadata(id))
    }

    /// What the layer itself occupies.
    pub fn usage(&self, id: &LayerId) -> Result<Usage> {
        self.call(Access::Read, "usage", |driver| driver.usage(id))
    }

    /// Says how the layer is to be mounted.
    ///
    /// # Behavior
    /// - Read-only mounts, options and labels need their capability.
    /// - The option `ro` is the same as `read_only`.
    /// - `volatile` is a permission: a driver that cannot use it does not see it.
    /// - A poisoned driver is asked for read-only mounts only.
    pub fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let request = self.check_mount(request)?;
        let plan = self.call(access_of(&request), "mount_plan", |driver| {
            driver.mount_plan(id, &request)
        })?;
        self.check_plan(&plan)?;
        Ok(plan)
    }

    /// Mounts a layer whose plan is [`MountPlan::ByDriver`].
    pub fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<PathBuf> {
        let request = self.check_mount(request)?;
        let target = self.call(access_of(&request), "mount", |driver| {
            driver.mount(id, &request)
        })?;
        self.absolute("mount", &target)?;
        Ok(target)
    }

    /// Takes back what [`DriverHandle::mount`] did.
    pub fn unmount(&self, id: &LayerId) -> Result<()> {
        self.call(Access::Read, "unmount", |driver| driver.unmount(id))
    }

    /// Tells the driver that core has unmounted the layer.
    pub fn released(&self, id: &LayerId) -> Result<()> {
        self.call(Access::Read, "released", |driver| driver.released(id))
    }

    /// Where a diff is unpacked into an existing layer.
    pub fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        let target = self.call(Access::Write, "unpack_target", |driver| {
            driver.unpack_target(id)
        })?;
        self.absolute("unpack_target", &target.directory)?;
        Ok(target)
    }

    /// How the layer's changes against `parent` can be read.
    pub fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView> {
        let view = self.call(Access::Read, "diff_view", |driver| {
            driver.diff_view(id, parent)
        })?;
        match &view {
            DiffView::Upper { upper, lowers, .. } => {
                self.all_absolute("diff_view", std::iter::once(upper).chain(lowers))?;
            }
            DiffView::Trees { tree, parent } => {
                self.all_absolute("diff_view", std::iter::once(tree).chain(parent))?;
            }
            _ => {}
        }
        Ok(view)
    }

    /// Directories in which the files of the layer's own tar are found, in order of search.
    pub fn content_roots(&self, id: &LayerId) -> Result<Vec<PathBuf>> {
        let roots = self.call(Access::Read, "content_roots", |driver| {
            driver.content_roots(id)
        })?;
        self.all_absolute("content_roots", &roots)?;
        Ok(roots)
    }

    /// Gives a directory back that the driver named, if that is one that it keeps open for core.
    pub fn let_go(&self, directory: &Path) -> Result<()> {
        if !directory.starts_with(DESCRIPTORS) {
            return Ok(());
        }
        self.call(Access::Read, "let_go", |driver| driver.let_go(directory))
    }

    /// Lists changed paths against `parent` (capability `native_changes`).
    pub fn native_changes(
        &self,
        id: &LayerId,
        parent: Option<&LayerId>,
    ) -> Result<Vec<NativeChange>> {
        self.need(self.0.capabilities.native_changes, "listing changes itself")?;
        self.call(Access::Read, "native_changes", |driver| {
            driver.native_changes(id, parent)
        })
    }

    /// Makes a private place for a future layer (capability `staging`).
    pub fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        self.need(self.0.capabilities.staging, "staging")?;
        self.check_create(request)?;
        let staged = self.call(Access::Write, "stage", |driver| driver.stage(request))?;
        self.absolute("stage", &staged.target.directory)?;
        Ok(staged)
    }

    /// Makes what is staged durable (capabilities `staging` and `sync`).
    pub fn sync_staged(&self, token: &str) -> Result<()> {
        self.need(self.0.capabilities.staging, "staging")?;
        self.need(self.0.capabilities.sync, "syncing one layer")?;
        self.call(Access::Write, "sync_staged", |driver| {
            driver.sync_staged(token)
        })
    }

    /// Turns a staged place into the layer (capability `staging`).
    pub fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        self.need(self.0.capabilities.staging, "staging")?;
        self.check_create(request)?;
        self.call(Access::Write, "adopt", |driver| {
            driver.adopt(token, request)
        })
    }

    /// Gives a staged place up (capability `staging`).
    pub fn discard(&self, token: &str) -> Result<()> {
        self.need(self.0.capabilities.staging, "staging")?;
        self.call(Access::Write, "discard", |driver| driver.discard(token))
    }

    /// Moves a layer out of the way quickly (capability `deferred_removal`).
    pub fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        self.need(self.0.capabilities.deferred_removal, "deferred removal")?;
        self.call(Access::Write, "trash", |driver| driver.trash(id))
    }

    /// Deletes what [`DriverHandle::trash`] moved away (capability `deferred_removal`).
    pub fn reap(&self, token: &str) -> Result<()> {
        self.need(self.0.capabilities.deferred_removal, "deferred removal")?;
        self.call(Access::Write, "reap", |driver| driver.reap(token))
    }

    /// Reclaims what dead processes left in staging and trash; returns what was reclaimed.
    pub fn recover(&self) -> Result<Vec<String>> {
        self.call(Access::Write, "recover", |driver| driver.recover())
    }

    /// Makes a layer durable (capability `sync`).
    pub fn sync(&self, id: &LayerId) -> Result<()> {
        self.need(self.0.capabilities.sync, "syncing one layer")?;
        self.call(Access::Write, "sync", |driver| driver.sync(id))
    }

    /// Homes of read-only image stores; none without the `image_stores` capability.
    pub fn image_stores(&self) -> Result<Vec<PathBuf>> {
        if !self.0.capabilities.image_stores {
            return Ok(Vec::new());
        }
        let homes = self.call(Access::Read, "image_stores", |driver| {
            Ok(driver.image_stores())
        })?;
        self.all_absolute("image_stores", &homes)?;
        Ok(homes)
    }

    /// Makes a layer whose content is in a directory of a layer source (capability
    /// `external_directory`).
    pub fn create_external(
        &self,
        request: &CreateRequest,
        external: &ExternalDirectory,
    ) -> Result<()> {
        let declared = self.0.capabilities.external_directory;
        self.need(declared, "layers in directories of others")?;
        self.check_create(request)?;
        if !external.directory.is_absolute() || !external.diff.is_absolute() {
            let shown = external.directory.display().to_string();
            let message = format!("`{shown}` is no absolute path");
            return Err(Error::new(ErrorKind::InvalidArgument, message).subject(shown));
        }
        self.call(Access::Write, "create_external", |driver| {
            driver.create_external(request, external)
        })
    }

    /// The directory in a layer source that the layer refers to; `None` without the
    /// `external_directory` capability.
    pub fn external_layer(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        if !self.0.capabilities.external_directory {
            return Ok(None);
        }
        let directory = self.call(Access::Read, "external_layer", |driver| {
            driver.external_layer(id)
        })?;
        self.all_absolute("external_layer", &directory)?;
        Ok(directory)
    }

    /// Undoes what opening did to the system, before the store shuts down.
    pub fn close(&self) -> Result<()> {
        self.call(Access::Read, "close", |driver| driver.close())
    }

    fn call<T>(
        &self,
        access: Access,
        operation: &'static str,
        run: impl FnOnce(&dyn Driver) -> plywood_plugin_sdk::Result<T>,
    ) -> Result<T> {
        if access == Access::Write {
            self.refuse_poisoned(operation)?;
        }
        let driver = self.0.driver.as_deref();
        let driver = driver.expect("the driver is taken out only when the handle is gone");
        contain(operation, || run(driver)).map_err(|error| self.failed(operation, error))
    }

    fn failed(&self, operation: &'static str, error: DriverError) -> Error {
        if error.code == DriverErrorCode::PANICKED {
            let text = error.message.clone();
            tracing::error!(driver = self.0.name, operation, "{text}");
            self.0.poison.get_or_init(|| text);
        }
        Error::from(error).prefixed(format_args!("driver `{}`", self.0.name))
    }

    fn refuse_poisoned(&self, operation: &str) -> Result<()> {
        let Some(text) = self.poisoned() else {
            return Ok(());
        };
        Err(Error::new(
            ErrorKind::DriverPoisoned,
            format!(
                "driver `{}` is refused for {operation} since it {text}",
                self.0.name
            ),
        )
        .subject(&*self.0.name)
        .hint("report the panic to the driver's vendor, then start the program again"))
    }

    fn need(&self, declared: bool, what: &str) -> Result<()> {
        if declared {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::NotSupported,
            format!("driver `{}` does not support {what}", self.0.name),
        )
        .subject(&*self.0.name))
    }

    fn check_create(&self, request: &CreateRequest) -> Result<()> {
        if request.template.is_some() {
            self.need(self.0.capabilities.template, "templates")?;
        }
        let itself = Some(&request.id);
        if request.parent.as_ref() == itself || request.template.as_ref() == itself {
            return Err(Error::new(
                ErrorKind::InvalidArgument,
                format!("layer `{}` cannot stand on itself", request.id),
            )
            .subject(request.id.as_str()));
        }
        Ok(())
    }

    fn check_mount(&self, request: &MountRequest) -> Result<MountRequest> {
        let can = &self.0.capabilities;
        let mut request = request.clone();
        request.read_only |= request.options.iter().any(|option| option == "ro");
        request.options.retain(|option| option != "ro");
        request.volatile &= can.volatile_mounts;
        if request.read_only {
            self.need(can.read_only_mounts, "read-only mounts")?;
        }
        if let Some(option) = request.options.first()
            && !can.mount_options
        {
            return Err(Error::new(
                ErrorKind::NotSupported,
                format!("{} driver does not support mount options", self.0.name),
            )
            .subject(&**option));
        }
        if request.label.is_some() {
            self.need(can.mount_labels, "labels on mounts")?;
        }
        Ok(request)
    }

    fn check_plan(&self, plan: &MountPlan) -> Result<()> {
        match plan {
            MountPlan::Directory(path) | MountPlan::ByDriver { target: path } => {
                self.absolute("mount_plan", path)
            }
            MountPlan::Mounts(mounts) => {
                let last = mounts
                    .steps
                    .last()
                    .ok_or_else(|| self.unusable("mount_plan", "there is no step in it"))?;
                if target_of(last).is_some_and(|target| *target != mounts.target) {
                    let why = format!(
                        "its last step does not end at `{}`",
                        mounts.target.display()
                    );
                    return Err(self.unusable("mount_plan", &why));
                }
                self.all_absolute("mount_plan", mounts.steps.iter().filter_map(target_of))?;
                self.absolute("mount_plan", &mounts.target)
            }
            _ => Ok(()),
        }
    }

    fn all_absolute<'a>(
        &self,
        operation: &'static str,
        paths: impl IntoIterator<Item = &'a PathBuf>,
    ) -> Result<()> {
        paths
            .into_iter()
            .try_for_each(|path| self.absolute(operation, path))
    }

    fn absolute(&self, operation: &'static str, path: &Path) -> Result<()> {
        if path.is_absolute() {
            return Ok(());
        }
        Err(self.unusable(operation, &format!("`{}` is not absolute", path.display())))
    }

    fn unusable(&self, operation: &'static str, why: &str) -> Error {
        Error::new(
            ErrorKind::Driver,
            format!(
                "driver `{}` gave an answer to {operation} that cannot be used: {why}",
                self.0.name
            ),
        )
        .subject(&*self.0.name)
    }
}

impl fmt::Debug for DriverHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DriverHandle")
            .field("name", &self.0.name)
            .field("origin", &self.0.origin)
            .field("poisoned", &self.poisoned())
            .finish_non_exhaustive()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let driver = self.driver.take();
        let dropped = contain("drop", || {
            drop(driver);
            Ok(())
        });
        if let Err(error) = dropped {
            tracing::error!(driver = self.name, "{error}");
        }
    }
}

fn access_of(request: &MountRequest) -> Access {
    if request.read_only {
        Access::Read
    } else {
        Access::Write
    }
}

fn target_of(step: &MountStep) -> Option<&PathBuf> {
    match step {
        MountStep::Overlay(overlay) => Some(&overlay.target),
        MountStep::Filesystem { target, .. } | MountStep::Bind { target, .. } => Some(target),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests;
