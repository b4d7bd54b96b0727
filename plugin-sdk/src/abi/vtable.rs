// SPDX-License-Identifier: Apache-2.0
//! The functions of a plugin and of its host, as tables to which only can be appended.

#![expect(
    non_camel_case_types,
    non_local_definitions,
    clippy::pedantic,
    reason = "what abi_stable's macros generate"
)]

use abi_stable::{
    StableAbi,
    library::RootModule,
    package_version_strings, sabi_trait,
    sabi_types::VersionStrings,
    std_types::{RBox, ROption, RStr, RString, RVec, Tuple2},
};

use super::types::{
    AbiCapabilities, AbiChange, AbiCreate, AbiExternal, AbiMount, AbiOpen, AbiPath, AbiPlan,
    AbiQuery, AbiResult, AbiSourceLayer, AbiStaged, AbiTarget, AbiUsage, AbiView,
};

/// An open layer source in a plugin.
pub type SourceBox = SourceV_TO<'static, RBox<()>>;

/// An open driver in a plugin.
pub type DriverBox = DriverV_TO<'static, RBox<()>>;

/// The host as a plugin sees it.
pub type HostBox = HostV_TO<'static, RBox<()>>;

/// What a plugin file offers.
#[repr(C)]
#[derive(StableAbi, Debug)]
#[sabi(kind(Prefix(prefix_ref = DriverModule_Ref, prefix_fields = DriverModule_Prefix)))]
pub struct DriverModule {
    /// The driver's name.
    pub name: RStr<'static>,
    /// Who ships it.
    pub vendor: RStr<'static>,
    /// The driver's own version.
    pub version: RStr<'static>,
    /// Opens it.
    #[sabi(last_prefix_field)]
    pub open: extern "C" fn(AbiOpen, HostBox) -> AbiResult<DriverBox>,
    /// What the file holds: 1 is a driver, 2 a layer source. Since 1.1; before, a driver.
    pub kinds: u64,
    /// Opens the layer source. Since 1.1.
    pub open_source: extern "C" fn(AbiOpen, HostBox) -> AbiResult<SourceBox>,
    // ABI 1.2 and later append here.
}

impl RootModule for DriverModule_Ref {
    abi_stable::declare_root_module_statics! {DriverModule_Ref}

    const BASE_NAME: &'static str = "plywood_driver";
    const NAME: &'static str = "plywood_driver";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// What the host offers to a plugin.
#[sabi_trait]
#[sabi(no_trait_impl)]
pub trait HostV: Send + Sync {
    /// The host's major (upper half) and minor version of the ABI.
    fn abi_version(&self) -> u64;

    /// Takes a message.
    #[sabi(last_prefix_field)]
    fn log(&self, level: u32, target: RStr<'_>, message: RStr<'_>);
    // ABI 1.2 and later append here, each with a default body.
}

/// [`Driver`](crate::Driver), method by method.
#[sabi_trait]
#[sabi(no_trait_impl)]
pub trait DriverV: Send + Sync {
    fn capabilities(&self) -> AbiResult<AbiCapabilities>;
    fn status(&self) -> AbiResult<RVec<Tuple2<RString, RString>>>;
    fn create(&self, request: AbiCreate) -> AbiResult<()>;
    fn remove(&self, id: RStr<'_>) -> AbiResult<u32>;
    fn exists(&self, id: RStr<'_>) -> AbiResult<bool>;
    fn list(&self) -> AbiResult<RVec<RString>>;
    fn metadata(&self, id: RStr<'_>) -> AbiResult<RVec<Tuple2<RString, RString>>>;
    fn usage(&self, id: RStr<'_>) -> AbiResult<AbiUsage>;
    fn mount_plan(&self, id: RStr<'_>, request: AbiMount) -> AbiResult<AbiPlan>;
    fn mount(&self, id: RStr<'_>, request: AbiMount) -> AbiResult<AbiPath>;
    fn unmount(&self, id: RStr<'_>) -> AbiResult<()>;
    fn released(&self, id: RStr<'_>) -> AbiResult<()>;
    fn unpack_target(&self, id: RStr<'_>) -> AbiResult<AbiTarget>;
    fn diff_view(&self, id: RStr<'_>, parent: ROption<RStr<'_>>) -> AbiResult<AbiView>;
    fn content_roots(&self, id: RStr<'_>) -> AbiResult<RVec<AbiPath>>;
    fn native_changes(&self, id: RStr<'_>, parent: ROption<RStr<'_>>)
    -> AbiResult<RVec<AbiChange>>;
    fn stage(&self, request: AbiCreate) -> AbiResult<AbiStaged>;
    fn sync_staged(&self, token: RStr<'_>) -> AbiResult<()>;
    fn adopt(&self, token: RStr<'_>, request: AbiCreate) -> AbiResult<()>;
    fn discard(&self, token: RStr<'_>) -> AbiResult<()>;
    fn trash(&self, id: RStr<'_>) -> AbiResult<ROption<RString>>;
    fn reap(&self, token: RStr<'_>) -> AbiResult<()>;
    fn recover(&self) -> AbiResult<RVec<RString>>;
    fn sync(&self, id: RStr<'_>) -> AbiResult<()>;
    fn image_stores(&self) -> AbiResult<RVec<AbiPath>>;

    #[sabi(last_prefix_field)]
    fn close(&self) -> AbiResult<()>;
    /// Since 1.1.
    fn create_external(&self, request: AbiCreate, external: AbiExternal) -> AbiResult<()> {
        let _unused = (request, external);
        AbiResult::RErr(crate::DriverError::not_supported("external_directory").into())
    }
    /// Since 1.1.
    fn external_layer(&self, id: RStr<'_>) -> AbiResult<ROption<AbiPath>> {
        let _unused = id;
        AbiResult::ROk(ROption::RNone)
    }
    /// Since 1.1.
    fn let_go(&self, directory: AbiPath) -> AbiResult<()> {
        let _unused = directory;
        AbiResult::ROk(())
    }
    // ABI 1.2 and later append here, each with a default body that answers NOT_SUPPORTED.
}

/// [`LayerSource`](crate::LayerSource), method by method; since 1.1.
#[sabi_trait]
#[sabi(no_trait_impl)]
pub trait SourceV: Send + Sync {
    fn status(&self) -> AbiResult<RVec<Tuple2<RString, RString>>>;
    fn lookup(&self, query: AbiQuery) -> AbiResult<ROption<AbiSourceLayer>>;

    #[sabi(last_prefix_field)]
    fn release(&self, directory: AbiPath) -> AbiResult<()>;
    // Later versions append here, each with a default body that answers NOT_SUPPORTED.
}
