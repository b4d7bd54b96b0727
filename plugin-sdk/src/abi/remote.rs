// SPDX-License-Identifier: Apache-2.0
//! The host's side of an open driver: the function table behind the plain trait.

use std::{
    collections::BTreeMap,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::Arc,
};

use abi_stable::{
    erased_types::TD_Opaque,
    std_types::{RStr, RString},
};

use super::{
    VERSION,
    convert::{
        id_of, level_of, maybe_id, maybe_path_buf, maybe_string, path_bufs, received, removed_of,
        string_pairs, strings,
    },
    vtable::{DriverBox, HostBox, HostV, HostV_TO},
};
use crate::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, ExternalDirectory,
    Host, LayerId, MountPlan, MountRequest, NativeChange, Removed, Result, Staged, UnpackTarget,
    Usage,
};

/// A driver in a plugin, as core sees it: no different from one that is linked in.
pub struct RemoteDriver {
    driver: DriverBox,
    capabilities: Capabilities,
    image_stores: Vec<PathBuf>,
}

impl RemoteDriver {
    /// Asks once for what does not change while the driver is open.
    pub(super) fn new(driver: DriverBox) -> Result<Self> {
        let capabilities = received(driver.capabilities())?.into();
        let image_stores = path_bufs(received(driver.image_stores())?);
        Ok(Self {
            driver,
            capabilities,
            image_stores,
        })
    }
}

impl fmt::Debug for RemoteDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteDriver").finish_non_exhaustive()
    }
}

fn text(id: &LayerId) -> RStr<'_> {
    id.as_str().into()
}

impl Driver for RemoteDriver {
    fn capabilities(&self) -> Capabilities {
        self.capabilities.clone()
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        received(self.driver.status()).map(string_pairs)
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        received(self.driver.create(request.into()))
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        received(self.driver.remove(text(id))).and_then(removed_of)
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        received(self.driver.exists(text(id)))
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        let ids = received(self.driver.list())?;
        let unusable = |error: DriverError| DriverError {
            code: DriverErrorCode::CORRUPT,
            ..error
        };
        ids.iter().map(|id| id_of(id).map_err(unusable)).collect()
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        received(self.driver.metadata(text(id))).map(string_pairs)
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        received(self.driver.usage(text(id))).map(Into::into)
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        received(self.driver.mount_plan(text(id), request.into()))?.try_into()
    }

    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<PathBuf> {
        received(self.driver.mount(text(id), request.into())).map(Into::into)
    }

    fn unmount(&self, id: &LayerId) -> Result<()> {
        received(self.driver.unmount(text(id)))
    }

    fn released(&self, id: &LayerId) -> Result<()> {
        received(self.driver.released(text(id)))
    }

    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        received(self.driver.unpack_target(text(id)))?.try_into()
    }

    fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView> {
        received(self.driver.diff_view(text(id), maybe_id(parent)))?.try_into()
    }

    fn content_roots(&self, id: &LayerId) -> Result<Vec<PathBuf>> {
        received(self.driver.content_roots(text(id))).map(path_bufs)
    }

    fn native_changes(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<Vec<NativeChange>> {
        let changes = received(self.driver.native_changes(text(id), maybe_id(parent)))?;
        changes.into_iter().map(TryInto::try_into).collect()
    }

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        received(self.driver.stage(request.into()))?.try_into()
    }

    fn sync_staged(&self, token: &str) -> Result<()> {
        received(self.driver.sync_staged(token.into()))
    }

    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        received(self.driver.adopt(token.into(), request.into()))
    }

    fn discard(&self, token: &str) -> Result<()> {
        received(self.driver.discard(token.into()))
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        received(self.driver.trash(text(id))).map(maybe_string)
    }

    fn reap(&self, token: &str) -> Result<()> {
        received(self.driver.reap(token.into()))
    }

    fn recover(&self) -> Result<Vec<String>> {
        received(self.driver.recover()).map(strings)
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        received(self.driver.sync(text(id)))
    }

    fn image_stores(&self) -> Vec<PathBuf> {
        self.image_stores.clone()
    }

    fn close(&self) -> Result<()> {
        received(self.driver.close())
    }

    fn create_external(&self, request: &CreateRequest, external: &ExternalDirectory) -> Result<()> {
        received(self.driver.create_external(request.into(), external.into()))
    }

    fn external_layer(&self, id: &LayerId) -> Result<Option<PathBuf>> {
        received(self.driver.external_layer(text(id))).map(maybe_path_buf)
    }

    fn let_go(&self, directory: &Path) -> Result<()> {
        received(self.driver.let_go(directory.into()))
    }
}

/// The host's log behind its function table; a panic of the host stays in the host.
struct LocalHost(Arc<dyn Host>);

impl HostV for LocalHost {
    fn abi_version(&self) -> u64 {
        u64::from(VERSION.major) << 32 | u64::from(VERSION.minor)
    }

    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>) {
        let (target, message) = (RString::from(target), RString::from(message));
        let call = || self.0.log(level_of(level), &target, &message);
        if let Err(payload) = catch_unwind(AssertUnwindSafe(call)) {
            // Nothing is left to report it to: it was the log that panicked.
            std::mem::forget(payload);
        }
    }
}

pub(super) fn host_box(host: Arc<dyn Host>) -> HostBox {
    HostV_TO::from_value(LocalHost(host), TD_Opaque)
}
