// SPDX-License-Identifier: Apache-2.0
//! The host's side of a plugin file: from the entry symbol to a driver that can be opened.

use std::{ffi::c_void, fmt, mem::transmute, ptr::NonNull};

use abi_stable::{
    StableAbi,
    abi_stability::check_layout_compatibility,
    library::{AbiHeader, AbiHeaderRef, LibHeader, LibraryError, ROOT_MODULE_LOADER_NAME_WITH_NUL},
    sabi_types::VersionNumber,
    type_layout::TypeLayout,
};

use super::{
    AbiVersion, RemoteDriver, VERSION,
    convert::received,
    raw::RawDriver,
    remote::host_box,
    source::RemoteSource,
    vtable::{DriverBox, DriverModule_Ref},
};
use crate::{Driver, DriverError, LayerSource, OpenRequest, Result};

/// The symbol that every plugin exports, with its final NUL.
pub const ENTRY_SYMBOL: &[u8] = ROOT_MODULE_LOADER_NAME_WITH_NUL.as_bytes();

/// Why a library is not accepted as a plugin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The entry symbol designates something else.
    #[error("it exports the symbol of a plugin, but what is there is no plugin header")]
    NotAPlugin,
    /// Built with an incompatible `abi_stable`.
    #[error("it was built with abi_stable {0}.{1}, which this program does not understand")]
    Toolkit(u32, u32),
    /// Built by a compiler that passes values in another way.
    #[error("it passes values in another way than this program")]
    Calls(#[source] LibraryError),
    /// Another major version.
    #[error("it speaks plugin ABI {plugin}, and this program speaks {host}")]
    Version {
        /// The plugin's version.
        plugin: AbiVersion,
        /// The program's version.
        host: AbiVersion,
    },
    /// No readable version.
    #[error("its plugin ABI version cannot be read")]
    UnreadableVersion(#[source] LibraryError),
    /// Its types cannot be checked.
    #[error("it was built without a description of its types, so they cannot be checked")]
    NoLayout,
    /// Its types differ.
    #[error("its types differ from those of plugin ABI {version}: {summary}")]
    Layout {
        /// The version it claims.
        version: AbiVersion,
        /// The first differences.
        summary: String,
        /// The whole comparison, which is long.
        full: String,
    },
    /// It gave no function table.
    #[error("it failed to initialise")]
    Start(#[source] LibraryError),
}

/// A plugin's header, whose magic number is right.
pub struct Header(AbiHeaderRef);

impl Header {
    /// Looks at what the entry symbol designates.
    ///
    /// # Safety
    /// `symbol` is the address of [`ENTRY_SYMBOL`] in a library that stays loaded while the result
    /// is used, and at least the 40 bytes of a header can be read there.
    ///
    /// # Errors
    /// It is no header, or that of an incompatible `abi_stable`.
    pub unsafe fn read(symbol: NonNull<c_void>) -> Result<Self, Refusal> {
        // SAFETY: `AbiHeaderRef` is a transparent non-null pointer to an `AbiHeader`, which is
        // plain bytes and numbers, readable there according to the caller.
        let header = unsafe { transmute::<NonNull<c_void>, AbiHeaderRef>(symbol) };
        if header.is_valid() {
            Ok(Self(header))
        } else if header.magic_string == AbiHeader::VALUE.magic_string {
            Err(Refusal::Toolkit(header.abi_major, header.abi_minor))
        } else {
            Err(Refusal::NotAPlugin)
        }
    }

    /// Checks version and types and gets the plugin's functions.
    ///
    /// From here on the library must stay loaded for ever, even when this fails: what was compared
    /// is remembered by address.
    ///
    /// # Errors
    /// The plugin is not compatible.
    pub fn admit(self) -> Result<Loaded, Refusal> {
        let header = self.0.upgrade().map_err(Refusal::Calls)?;
        let abi = version_of(header)?;
        if abi.major != VERSION.major {
            return Err(Refusal::Version {
                plugin: abi,
                host: VERSION,
            });
        }
        let layout = header.layout().ok_or(Refusal::NoLayout)?;
        check_types((DriverModule_Ref::LAYOUT, VERSION), (layout, abi))?;
        // SAFETY: the layouts were compared above, with the older side as the interface: every
        // function and type that it knows is the same on both sides, and what the newer side has
        // beyond lies behind the prefix and is looked up with its presence checked.
        let module = unsafe { header.init_root_module_with_unchecked_layout::<DriverModule_Ref>() };
        Ok(Loaded {
            module: module.map_err(Refusal::Start)?,
            abi,
        })
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Header").finish_non_exhaustive()
    }
}

fn version_of(header: &LibHeader) -> Result<AbiVersion, Refusal> {
    let version = VersionNumber::new(header.version_strings())
        .map_err(|error| Refusal::UnreadableVersion(error.into()))?;
    Ok(AbiVersion {
        major: version.major,
        minor: version.minor,
    })
}

/// Compares the two sides; `check_layout_compatibility` accepts only an implementation that has
/// more than the interface, so the older side is the interface.
fn check_types(
    (host, host_version): (&'static TypeLayout, AbiVersion),
    (plugin, plugin_version): (&'static TypeLayout, AbiVersion),
) -> Result<(), Refusal> {
    let (interface, implementation) = if plugin_version < host_version {
        (plugin, host)
    } else {
        (host, plugin)
    };
    let compared = check_layout_compatibility(interface, implementation);
    compared.into_result().map_err(|errors| {
        let full = errors.to_string();
        Refusal::Layout {
            version: plugin_version,
            summary: summary(&full),
            full,
        }
    })
}

/// The first few of the lines that name a difference.
fn summary(full: &str) -> String {
    let mut seen: Vec<&str> = Vec::new();
    for line in full.lines() {
        if let Some(what) = line.trim().strip_prefix("Error:")
            && !seen.contains(&what)
            && seen.len() < 3
        {
            seen.push(what);
        }
    }
    if seen.is_empty() {
        "they cannot be compared".to_owned()
    } else {
        seen.join(", ")
    }
}

/// What a plugin file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// A graph driver.
    pub driver: bool,
    /// A layer source.
    pub layer_source: bool,
}

impl Kinds {
    pub(super) const DRIVER: u64 = 1;
    pub(super) const LAYER_SOURCE: u64 = 2;

    /// What `bits` say; kinds of a newer version are ignored.
    fn of(bits: u64) -> Self {
        Self {
            driver: bits & Self::DRIVER != 0,
            layer_source: bits & Self::LAYER_SOURCE != 0,
        }
    }
}

/// A plugin that passed every check.
#[derive(Clone, Copy)]
pub struct Loaded {
    module: DriverModule_Ref,
    abi: AbiVersion,
}

impl Loaded {
    /// The driver's name.
    pub fn name(&self) -> &'static str {
        self.module.name().as_str()
    }

    /// Who ships it.
    pub fn vendor(&self) -> &'static str {
        self.module.vendor().as_str()
    }

    /// The driver's own version.
    pub fn version(&self) -> &'static str {
        self.module.version().as_str()
    }

    /// The plugin ABI that it was built for.
    pub fn abi(&self) -> AbiVersion {
        self.abi
    }

    /// Opens the driver.
    ///
    /// # Errors
    /// Those of [`Plugin::open`](crate::Plugin::open), and a panic in it.
    pub fn open(&self, request: &OpenRequest) -> Result<Box<dyn Driver>> {
        Ok(Box::new(RemoteDriver::new(self.call_open(request)?)?))
    }

    /// What the file holds; a plugin of ABI 1.0 is a driver.
    pub fn kinds(&self) -> Kinds {
        Kinds::of(self.module.kinds().unwrap_or(Kinds::DRIVER))
    }

    /// Opens the layer source.
    ///
    /// # Errors
    /// Those of [`SourcePlugin::open`](crate::SourcePlugin::open), a panic in it, and
    /// `NOT_SUPPORTED` when the file holds none.
    pub fn open_source(&self, request: &OpenRequest) -> Result<Box<dyn LayerSource>> {
        let open = self.module.open_source();
        let open = open.ok_or_else(|| DriverError::not_supported("giving layers"))?;
        let source = received(open(request.into(), host_box(request.host.clone())))?;
        Ok(Box::new(RemoteSource::new(source)))
    }

    /// Opens the driver for tests of the boundary itself.
    ///
    /// # Errors
    /// Those of [`Loaded::open`].
    #[doc(hidden)]
    pub fn open_raw(&self, request: &OpenRequest) -> Result<RawDriver> {
        self.call_open(request).map(RawDriver)
    }

    fn call_open(&self, request: &OpenRequest) -> Result<DriverBox> {
        let host = host_box(request.host.clone());
        received((self.module.open())(request.into(), host))
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("name", &self.name())
            .field("abi", &self.abi)
            .finish_non_exhaustive()
    }
}
