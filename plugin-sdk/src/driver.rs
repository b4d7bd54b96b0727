// SPDX-License-Identifier: Apache-2.0
//! The traits that a driver implements.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use crate::{
    Capabilities, CreateRequest, DiffView, DriverError, ExternalDirectory, LayerId, MountPlan,
    MountRequest, NativeChange, OpenRequest, Removed, Result, Staged, UnpackTarget, Usage,
};

/// What a plugin is called and how it is opened; implemented by a unit type and exported with
/// [`export_driver!`](crate::export_driver).
pub trait Plugin: Send + Sync + 'static {
    /// The driver's name: `[a-z][a-z0-9-]{0,31}`. It is the directory below the graph root, and
    /// the file is `libplywood_driver_NAME.so` (dashes become underscores).
    const NAME: &'static str;
    /// Who ships it.
    const VENDOR: &'static str;
    /// The driver's own version.
    const VERSION: &'static str;

    /// Opens the driver on a store.
    ///
    /// # Behavior
    /// - Creates its home and run directories when they are missing.
    /// - Opening twice on the same home is allowed, in one process and in several.
    ///
    /// # Errors
    /// An error for which [`DriverError::means_unsuitable`] holds lets core try the next driver;
    /// it must say what is missing and how to get it.
    fn open(request: OpenRequest) -> Result<Box<dyn Driver>>;
}

/// A graph driver: it manages layers in its home directory and describes them; core moves bytes.
///
/// # Behavior
/// - Every method may be called from any thread, several at a time.
/// - Core holds the layers lock exclusively during `create`, `adopt`, `trash` and `remove`;
///   `stage`, `discard`, `reap` and everything that only reads may run without it.
/// - Ids are valid by type; core has checked that a parent or template exists.
/// - A method that fails leaves nothing behind.
pub trait Driver: Send + Sync {
    /// What this instance can do.
    fn capabilities(&self) -> Capabilities;

    /// Pairs for people, for instance the backing file system.
    fn status(&self) -> Result<Vec<(String, String)>>;

    /// Makes a layer.
    ///
    /// # Behavior
    /// - An id that exists: [`ALREADY_EXISTS`](crate::DriverErrorCode::ALREADY_EXISTS), its content
    ///   untouched. What an interrupted `create` left under that id is replaced.
    fn create(&self, request: &CreateRequest) -> Result<()>;

    /// Removes a layer and everything of it.
    ///
    /// # Behavior
    /// - A layer that is not there is [`Removed::AlreadyGone`].
    fn remove(&self, id: &LayerId) -> Result<Removed>;

    /// Whether the layer is there, in the home or in an image store.
    fn exists(&self, id: &LayerId) -> Result<bool>;

    /// Every layer in the home (capability `list`).
    fn list(&self) -> Result<Vec<LayerId>> {
        Err(DriverError::not_supported("list"))
    }

    /// Paths and other facts about a layer, by name.
    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>>;

    /// What the layer itself occupies.
    fn usage(&self, id: &LayerId) -> Result<Usage>;

    /// Says how the layer is to be mounted.
    ///
    /// # Behavior
    /// - `read_only` and every option are honoured or refused, never ignored.
    /// - May prepare directories; must not mount.
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan>;

    /// Mounts a layer whose plan is [`MountPlan::ByDriver`].
    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<PathBuf> {
        let _ = (id, request);
        Err(DriverError::not_supported("mounting by itself"))
    }

    /// Takes back what [`Driver::mount`] did.
    fn unmount(&self, id: &LayerId) -> Result<()> {
        let _ = id;
        Err(DriverError::not_supported("mounting by itself"))
    }

    /// Tidies up after core has unmounted the layer.
    fn released(&self, id: &LayerId) -> Result<()> {
        let _ = id;
        Ok(())
    }

    /// Where a diff is unpacked into an existing layer.
    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget>;

    /// How the layer's changes against `parent` can be read.
    ///
    /// # Behavior
    /// - `parent` may be another layer than the layer's own parent; `None` is the empty tree.
    fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView>;

    /// Directories in which the files of the layer's own tar are found, in order of search.
    fn content_roots(&self, id: &LayerId) -> Result<Vec<PathBuf>>;

    /// Lists changed paths against the layer's parent (capability `native_changes`).
    ///
    /// # Behavior
    /// - Every path that differs is named, or stands below a directory that is listed as added or
    ///   deleted: that one stands for everything below it, in both layers. A directory that is
    ///   listed as modified stands for itself.
    /// - More may be named than differs: core compares what is.
    /// - A `parent` of `None` is the empty tree.
    fn native_changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<NativeChange>> {
        let _ = (id, parent);
        Err(DriverError::not_supported("native_changes"))
    }

    /// Makes a private place for a future layer (capability `staging`).
    ///
    /// # Behavior
    /// - The place is on the home's file system, is found and reclaimed after a crash, and is no
    ///   layer until [`Driver::adopt`].
    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        let _ = request;
        Err(DriverError::not_supported("staging"))
    }

    /// Makes what is staged durable (capabilities `staging` and `sync`).
    fn sync_staged(&self, token: &str) -> Result<()> {
        let _ = token;
        Err(DriverError::not_supported("staging"))
    }

    /// Turns a staged place into the layer, by rename.
    ///
    /// # Behavior
    /// - `request` is the one that was staged, except that its id may differ.
    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        let _ = (token, request);
        Err(DriverError::not_supported("staging"))
    }

    /// Gives a staged place up; one that is not there any more is no error.
    fn discard(&self, token: &str) -> Result<()> {
        let _ = token;
        Err(DriverError::not_supported("staging"))
    }

    /// Moves a layer out of the way quickly (capability `deferred_removal`); `None` when it is
    /// already gone.
    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        let _ = id;
        Err(DriverError::not_supported("deferred_removal"))
    }

    /// Deletes what [`Driver::trash`] moved away; what is not there any more is no error.
    fn reap(&self, token: &str) -> Result<()> {
        let _ = token;
        Err(DriverError::not_supported("deferred_removal"))
    }

    /// Reclaims staging and trash places whose owner is dead; returns what was reclaimed.
    fn recover(&self) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// Makes a layer durable (capability `sync`): after it, a power cut does not lose content.
    fn sync(&self, id: &LayerId) -> Result<()> {
        let _ = id;
        Err(DriverError::not_supported("sync"))
    }

    /// Homes of read-only image stores that the options name (capability `image_stores`).
    fn image_stores(&self) -> Vec<PathBuf> {
        Vec::new()
    }

    /// Makes a layer whose content is in a directory that a layer source gives (capability
    /// `external_directory`); since ABI 1.1.
    ///
    /// # Behavior
    /// - As [`Driver::create`]. The driver keeps a reference to the directory, in which whiteouts have
    ///   overlay's form. One that would have to copy does not declare the capability: core then
    ///   unpacks the source's stream, whose bytes are those that the layer gives back.
    /// - A reference is a use of its own: the driver says so to the source, and says when the layer
    ///   is removed, by [`LayerDirectory`](crate::toolkit::layer_store::LayerDirectory).
    /// - A source that does not answer is a [`TIMEOUT`](crate::DriverErrorCode::TIMEOUT).
    /// - The options of additional layer stores are for every driver; one with this capability takes
    ///   them with [`StoresConfig`](crate::toolkit::layer_store::StoresConfig).
    fn create_external(&self, request: &CreateRequest, external: &ExternalDirectory) -> Result<()> {
        let _ = (request, external);
        Err(DriverError::not_supported("external_directory"))
    }

    /// The directory in a layer source that the layer refers to; `None` when its content is the
    /// driver's own (capability `external_directory`); since ABI 1.1.
    fn external_layer(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        let _ = id;
        Ok(None)
    }

    /// Takes a directory back that the driver keeps open for core; since ABI 1.1.
    ///
    /// # Behavior
    /// - A driver may name directories below `/proc/self/fd` in [`Driver::unpack_target`],
    ///   [`Driver::diff_view`] and [`Driver::content_roots`]: mounts that are attached to no place.
    ///   When core has finished with one of them, it calls this with the path, once for each time
    ///   that the path was named; for other directories it does not.
    fn let_go(&self, directory: &Path) -> Result<()> {
        let _ = directory;
        Ok(())
    }

    /// Undoes what opening did to the system (mounts of the home), before the store shuts down.
    fn close(&self) -> Result<()> {
        Ok(())
    }
}
