// SPDX-License-Identifier: Apache-2.0
//! The plugin's side: a driver behind the function table.

use std::sync::Arc;

use abi_stable::{
    erased_types::TD_Opaque,
    library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult},
    prefix_type::PrefixTypeTrait,
    std_types::{ROption, RStr, RString, RVec, Tuple2},
};

use super::{
    convert::{id_of, level_number, maybe_id_of, pairs, paths, removed_number, sent, texts},
    panic_log::{self, contain_and_log},
    types::{
        AbiCapabilities, AbiChange, AbiCreate, AbiMount, AbiOpen, AbiPath, AbiPlan, AbiResult,
        AbiStaged, AbiTarget, AbiUsage, AbiView,
    },
    vtable::{DriverBox, DriverModule, DriverModule_Ref, DriverV, DriverV_TO, HostBox},
};
use crate::{Driver, Host, LogLevel, Plugin, Result};

/// Makes the running library a plugin: the file exports the driver of `$plugin`.
///
/// The crate that uses it is a `cdylib` whose file is called `libplywood_driver_NAME.so`, and it
/// depends on this crate alone. Keep the driver itself in a crate of its own: two crates that both
/// export a driver cannot be linked into one program.
///
/// ```
/// # mod my_driver {
/// #     use plywood_plugin_sdk::*;
/// #     pub struct MyDriver;
/// #     impl Plugin for MyDriver {
/// #         const NAME: &'static str = "mine";
/// #         const VENDOR: &'static str = "Example";
/// #         const VERSION: &'static str = "1.0.0";
/// #         fn open(_: OpenRequest) -> Result<Box<dyn Driver>> {
/// #             Err(DriverError::not_supported("anything"))
/// #         }
/// #     }
/// # }
/// plywood_plugin_sdk::export_driver!(my_driver::MyDriver);
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! export_driver {
    ($plugin:ty) => {
        #[cfg(panic = "abort")]
        ::core::compile_error!("a Plywood plugin must be built with panic = \"unwind\"");

        #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
        static PLYWOOD_PLUGIN_HEADER: $crate::abi::PluginHeader =
            $crate::abi::header_of::<$plugin>();
    };
}

/// What the entry symbol of a plugin designates.
pub type PluginHeader = LibHeader;

/// The header that [`export_driver!`](crate::export_driver) exports.
pub const fn header_of<P: Plugin>() -> PluginHeader {
    // SAFETY: `construct` returns a `DriverModule_Ref`, which is the type named here.
    unsafe { LibHeader::from_constructor::<DriverModule_Ref>(construct::<P>, CheckTypeLayout::Yes) }
}

extern "C" fn construct<P: Plugin>() -> RootModuleResult {
    __call_root_module_loader(module::<P>)
}

fn module<P: Plugin>() -> DriverModule_Ref {
    DriverModule {
        name: P::NAME.into(),
        vendor: P::VENDOR.into(),
        version: P::VERSION.into(),
        open: open::<P>,
    }
    .leak_into_prefix()
}

extern "C" fn open<P: Plugin>(request: AbiOpen, host: HostBox) -> AbiResult<DriverBox> {
    let host: Arc<dyn Host> = Arc::new(RemoteHost(host));
    panic_log::install(P::NAME, &host);
    sent(contain_and_log(P::NAME, &*host, "open", || {
        let driver = P::open(request.into_request(Arc::clone(&host))?)?;
        let adapter = Adapter {
            name: P::NAME,
            driver: Some(driver),
            host: Arc::clone(&host),
        };
        Ok(DriverV_TO::from_value(adapter, TD_Opaque))
    }))
}

/// The host, seen from the plugin.
struct RemoteHost(HostBox);

impl Host for RemoteHost {
    fn log(&self, level: LogLevel, target: &str, message: &str) {
        self.0
            .log(level_number(level), target.into(), message.into());
    }
}

/// A driver that cannot let a panic out.
struct Adapter {
    /// Taken out only by `drop`.
    driver: Option<Box<dyn Driver>>,
    /// Outlives the driver, so that a panic in its drop is still logged.
    host: Arc<dyn Host>,
    name: &'static str,
}

impl Adapter {
    fn guard<T>(
        &self,
        operation: &'static str,
        call: impl FnOnce(&dyn Driver) -> Result<T>,
    ) -> AbiResult<T> {
        sent(contain_and_log(self.name, &*self.host, operation, || {
            let driver = self.driver.as_deref();
            call(driver.expect("the driver is taken out only when the adapter is gone"))
        }))
    }
}

impl Drop for Adapter {
    fn drop(&mut self) {
        let driver = self.driver.take();
        let _already_logged = contain_and_log(self.name, &*self.host, "drop", || {
            drop(driver);
            Ok(())
        });
    }
}

impl DriverV for Adapter {
    fn capabilities(&self) -> AbiResult<AbiCapabilities> {
        self.guard("capabilities", |driver| Ok(driver.capabilities().into()))
    }

    fn status(&self) -> AbiResult<RVec<Tuple2<RString, RString>>> {
        self.guard("status", |driver| {
            let status = driver.status()?;
            Ok(pairs(status.iter().map(|(key, value)| (key, value))))
        })
    }

    fn create(&self, request: AbiCreate) -> AbiResult<()> {
        self.guard("create", |driver| driver.create(&request.try_into()?))
    }

    fn remove(&self, id: RStr<'_>) -> AbiResult<u32> {
        self.guard("remove", |driver| {
            driver.remove(&id_of(&id)?).map(removed_number)
        })
    }

    fn exists(&self, id: RStr<'_>) -> AbiResult<bool> {
        self.guard("exists", |driver| driver.exists(&id_of(&id)?))
    }

    fn list(&self) -> AbiResult<RVec<RString>> {
        self.guard("list", |driver| {
            let ids = driver.list()?;
            Ok(ids.iter().map(|id| id.as_str().into()).collect())
        })
    }

    fn metadata(&self, id: RStr<'_>) -> AbiResult<RVec<Tuple2<RString, RString>>> {
        self.guard("metadata", |driver| {
            Ok(pairs(&driver.metadata(&id_of(&id)?)?))
        })
    }

    fn usage(&self, id: RStr<'_>) -> AbiResult<AbiUsage> {
        self.guard("usage", |driver| Ok(driver.usage(&id_of(&id)?)?.into()))
    }

    fn mount_plan(&self, id: RStr<'_>, request: AbiMount) -> AbiResult<AbiPlan> {
        self.guard("mount_plan", |driver| {
            let plan = driver.mount_plan(&id_of(&id)?, &request.try_into()?)?;
            Ok(plan.into())
        })
    }

    fn mount(&self, id: RStr<'_>, request: AbiMount) -> AbiResult<AbiPath> {
        self.guard("mount", |driver| {
            let target = driver.mount(&id_of(&id)?, &request.try_into()?)?;
            Ok(target.as_path().into())
        })
    }

    fn unmount(&self, id: RStr<'_>) -> AbiResult<()> {
        self.guard("unmount", |driver| driver.unmount(&id_of(&id)?))
    }

    fn released(&self, id: RStr<'_>) -> AbiResult<()> {
        self.guard("released", |driver| driver.released(&id_of(&id)?))
    }

    fn unpack_target(&self, id: RStr<'_>) -> AbiResult<AbiTarget> {
        self.guard("unpack_target", |driver| {
            Ok(driver.unpack_target(&id_of(&id)?)?.into())
        })
    }

    fn diff_view(&self, id: RStr<'_>, parent: ROption<RStr<'_>>) -> AbiResult<AbiView> {
        self.guard("diff_view", |driver| {
            let parent = maybe_id_of(parent)?;
            Ok(driver.diff_view(&id_of(&id)?, parent.as_ref())?.into())
        })
    }

    fn content_roots(&self, id: RStr<'_>) -> AbiResult<RVec<AbiPath>> {
        self.guard("content_roots", |driver| {
            Ok(paths(&driver.content_roots(&id_of(&id)?)?))
        })
    }

    fn native_changes(
        &self,
        id: RStr<'_>,
        parent: ROption<RStr<'_>>,
    ) -> AbiResult<RVec<AbiChange>> {
        self.guard("native_changes", |driver| {
            let parent = maybe_id_of(parent)?;
            let changes = driver.native_changes(&id_of(&id)?, parent.as_ref())?;
            Ok(changes.into_iter().map(Into::into).collect())
        })
    }

    fn stage(&self, request: AbiCreate) -> AbiResult<AbiStaged> {
        self.guard("stage", |driver| {
            Ok(driver.stage(&request.try_into()?)?.into())
        })
    }

    fn sync_staged(&self, token: RStr<'_>) -> AbiResult<()> {
        self.guard("sync_staged", |driver| driver.sync_staged(&token))
    }

    fn adopt(&self, token: RStr<'_>, request: AbiCreate) -> AbiResult<()> {
        self.guard("adopt", |driver| driver.adopt(&token, &request.try_into()?))
    }

    fn discard(&self, token: RStr<'_>) -> AbiResult<()> {
        self.guard("discard", |driver| driver.discard(&token))
    }

    fn trash(&self, id: RStr<'_>) -> AbiResult<ROption<RString>> {
        self.guard("trash", |driver| {
            Ok(driver.trash(&id_of(&id)?)?.map(Into::into).into())
        })
    }

    fn reap(&self, token: RStr<'_>) -> AbiResult<()> {
        self.guard("reap", |driver| driver.reap(&token))
    }

    fn recover(&self) -> AbiResult<RVec<RString>> {
        self.guard("recover", |driver| Ok(texts(&driver.recover()?)))
    }

    fn sync(&self, id: RStr<'_>) -> AbiResult<()> {
        self.guard("sync", |driver| driver.sync(&id_of(&id)?))
    }

    fn image_stores(&self) -> AbiResult<RVec<AbiPath>> {
        self.guard("image_stores", |driver| Ok(paths(&driver.image_stores())))
    }

    fn close(&self) -> AbiResult<()> {
        self.guard("close", |driver| driver.close())
    }
}
