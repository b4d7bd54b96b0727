// SPDX-License-Identifier: Apache-2.0
//! Graph drivers as plugins: finding, checking, loading, choosing and guarding them.
//!
//! Core knows drivers by name only. Where a driver came from (a plugin file or linked in) ends
//! here: everything else works with a [`DriverHandle`].

mod elf;
mod error;
mod guard;
mod host;
mod loader;
mod name;
pub mod probe;
mod registry;
mod select;
mod source;
mod trust;

pub use elf::ElfProblem;
pub use error::{PluginError, Suspect};
pub(crate) use guard::DESCRIPTORS;
pub use guard::{DriverHandle, Origin};
pub use host::tracing_host;
pub use loader::load_plugin;
pub use name::DriverName;
pub use registry::{ConfiguredPlugin, FoundDriver, PluginOptions, Registry, Source};
pub use select::{
    DEFAULT_LAYER_SOURCE, DEFAULT_PRIORITY, Named, Preference, SelectRequest, Selected, select,
};
pub use source::SourceHandle;
