// SPDX-License-Identifier: Apache-2.0
//! Everything a third party needs to write a Plywood graph driver.

pub mod abi;
mod capability;
mod driver;
mod error;
mod id;
pub mod sys;
pub mod toolkit;
mod types;

pub use capability::Capabilities;
pub use driver::{Driver, Plugin};
pub use error::{DriverError, DriverErrorCode, IoContext, Result};
pub use id::{InvalidId, LayerId, MAX_ID_LENGTH};
pub use types::*;

#[doc(hidden)]
pub use inventory;

/// A driver that is linked into the program, found by core through [`inventory`].
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedDriver {
    /// The driver's name.
    pub name: &'static str,
    /// Who ships it.
    pub vendor: &'static str,
    /// The driver's own version.
    pub version: &'static str,
    /// Opens it.
    pub open: fn(OpenRequest) -> Result<Box<dyn Driver>>,
}

impl EmbeddedDriver {
    /// The description of `P`.
    pub const fn of<P: Plugin>() -> Self {
        Self {
            name: P::NAME,
            vendor: P::VENDOR,
            version: P::VERSION,
            open: P::open,
        }
    }
}

inventory::collect!(EmbeddedDriver);

/// Links a driver into the program that uses this macro.
///
/// Write it in the program itself (not in the driver's crate): naming the driver there keeps the
/// linker from dropping it.
#[macro_export]
macro_rules! embed_driver {
    ($plugin:ty) => {
        $crate::inventory::submit! { $crate::EmbeddedDriver::of::<$plugin>() }
    };
}
