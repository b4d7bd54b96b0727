// SPDX-License-Identifier: Apache-2.0
//! The binary form of the driver boundary; drivers and core use the plain traits instead.
//!
//! # Compatibility
//! The version of this crate is the version of the plugin ABI. Within a major version:
//! - the structures in `types` and what exists in `vtable` never change;
//! - a method is added below `last_prefix_field`, with a default body and a capability bit;
//! - a value is added as a new number, as a new flag or as a key in `extra`. A number or flag that
//!   the receiver does not know is refused; an unknown key in `extra` is ignored, so nothing that
//!   must be honoured may travel there without a capability that core asks for first.

#![expect(
    unsafe_code,
    reason = "the plugin boundary: stable layouts and the loader's header are unsafe by nature"
)]

mod answers;
mod contain;
mod convert;
mod export;
mod host;
mod panic_log;
#[doc(hidden)]
pub mod raw;
mod remote;
mod source;
#[doc(hidden)]
pub mod types;
mod version;
#[doc(hidden)]
pub mod vtable;

pub use contain::contain;
#[doc(hidden)]
pub use export::{PluginHeader, header_of, header_of_both, header_of_source};
pub use host::{ENTRY_SYMBOL, Header, Kinds, Loaded, Refusal};
pub use remote::RemoteDriver;
pub use source::RemoteSource;
pub use version::{AbiVersion, VERSION};
