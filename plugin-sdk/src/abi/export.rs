// SPDX-License-Identifier: Apache-2.0
//! The plugin's side: a driver behind the function table.

use std::{path::PathBuf, sync::Arc};

use abi_stable::{
    erased_types::TD_Opaque,
    library::{__call_root_module_loader, CheckTypeLayout, LibHeader, RootModuleResult},
    prefix_type::PrefixTypeTrait,
    std_types::{ROption, RStr, RString, RVec, Tuple2},
};

use super::{
    convert::{id_of, level_number, maybe_id_of, pairs, paths, removed_number, sent, texts},
    host::Kinds,
    panic_log::{self, contain_and_log},
    source,
    types::{
        AbiCapabilities, AbiChange, AbiCreate, AbiExternal, AbiMount, AbiOpen, AbiPath, AbiPlan,
        AbiResult, AbiStaged, AbiTarget, AbiUsage, AbiView,
    },
    vtable::{DriverBox, DriverModule, DriverModule_Ref, DriverV, DriverV_TO, HostBox},
};
use crate::{Driver, DriverError, Host, LogLevel, Plugin, Result, SourcePlugin};

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
///
/// A file that holds a layer source beside the driver is made by naming both:
/// `export_driver!(MyDriver, MySource)`.
#[macro_export]
macro_rules! export_driver {
    ($plugin:ty) => {
        $crate::export_header!($crate::abi::header_of::<$plugin>());
    };
    ($plugin:ty, $source:ty) => {
        $crate::export_header!($crate::abi::header_of_both::<$plugin, $source>());
    };
}

/// Makes the running library a plugin that holds the layer source of `$source`, as
/// [`export_driver!`](crate::export_driver) does with a driver.
#[macro_export]
macro_rules! export_layer_source {
    ($source:ty) => {
        $crate::export_header!($crate::abi::header_of_source::<$source>());
    };
}

/// What both macros above write.
#[doc(hidden)]
#[macro_export]
macro_rules! export_header {
    ($header:expr) => {
        #[cfg(panic = "abort")]
        ::core::compile_error!("a Plywood plugin must be built with panic = \"unwind\"");

        #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
        static PLYWOOD_PLUGIN_HEADER: $crate::abi::PluginHeader = $header;
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
        kinds: Kinds::DRIVER,
        open_source: source::none,
    }
    .leak_into_prefix()
}

/// The header that [`export_layer_source!`](crate::export_layer_source) exports.
pub const fn header_of_source<S: SourcePlugin>() -> PluginHeader {
    let construct = construct_source::<S>;
    // SAFETY: `construct_source` returns a `DriverModule_Ref`, which is the type named here.
    unsafe { LibHeader::from_constructor::<DriverModule_Ref>(construct, CheckTypeLayout::Yes) }
}

extern "C" fn construct_source<S: SourcePlugin>() -> RootModuleResult {
    __call_root_module_loader(source_module::<S>)
}

fn source_module<S: SourcePlugin>() -> DriverModule_Ref {
    DriverModule {
        name: S::NAME.into(),
        vendor: S::VENDOR.into(),
        version: S::VERSION.into(),
        open: no_driver,
        kinds: Kinds::LAYER_SOURCE,
        open_source: source::open::<S>,
    }
    .leak_into_prefix()
}

/// What a plugin without a driver exports in its place; a host of 1.0 asks for one.
extern "C" fn no_driver(_: AbiOpen, _: HostBox) -> AbiResult<DriverBox> {
    let message = "the plugin is a layer source and no driver";
    sent(Err(DriverError::new(
        crate::DriverErrorCode::NOT_SUPPORTED,
        message,
    )
    .remedy("name another driver")))
}

/// The header of a file with a driver and a layer source, which have the same name.
pub const fn header_of_both<P: Plugin, S: SourcePlugin>() -> PluginHeader {
    let construct = construct_both::<P, S>;
    // SAFETY: `construct_both` returns a `DriverModule_Ref`, which is the type named here.
    unsafe { LibHeader::from_constructor::<DriverModule_Ref>(construct, CheckTypeLayout::Yes) }
}

extern "C" fn construct_both<P: Plugin, S: SourcePlugin>() -> RootModuleResult {
    __call_root_module_loader(module_of_both::<P, S>)
}

fn module_of_both<P: Plugin, S: SourcePlugin>() -> DriverModule_Ref {
    DriverModule {
        name: P::NAME.into(),
        vendor: P::VENDOR.into(),
        version: P::VERSION.into(),
        open: open::<P>,
        kinds: Kinds::DRIVER | Kinds::LAYER_SOURCE,
        open_source: source::open::<S>,
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
pub(super) struct RemoteHost(pub(super) HostBox);

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

    fn create_external(&self, request: AbiCreate, external: AbiExternal) -> AbiResult<()> {
        self.guard("create_external", |driver| {
            driver.create_external(&request.try_into()?, &external.into())
        })
    }

    fn external_layer(&self, id: RStr<'_>) -> AbiResult<ROption<AbiPath>> {
        self.guard("external_layer", |driver| {
            let directory = driver.external_layer(&id_of(&id)?)?;
            Ok(directory.as_deref().map(Into::into).into())
        })
    }

    fn let_go(&self, directory: AbiPath) -> AbiResult<()> {
        self.guard("let_go", |driver| driver.let_go(&PathBuf::from(directory)))
    }
}
