// SPDX-License-Identifier: Apache-2.0
//! Loads plugin files; the only place in core that needs `unsafe`.

#![expect(
    unsafe_code,
    reason = "loading a library runs its code; everything that can be checked before is checked"
)]

use std::path::Path;

use plywood_plugin_sdk::abi::Loaded;

use super::{PluginError, trust};

/// Whether the program runs with more rights than its caller has (`AT_SECURE`), so that the
/// caller's environment must not decide what code is loaded.
pub(super) fn is_privileged_execution() -> bool {
    // SAFETY: `getauxval` has no preconditions.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// Checks and loads the plugin at `path`, without opening its driver; it stays loaded for as long as
/// the process lives.
///
/// # Behavior
/// - To be used by programs that look at plugins; drivers are opened by a
///   [`Registry`](super::Registry), which puts its guard around them.
///
/// # Errors
/// Why the file is refused.
pub fn load_plugin(path: &Path) -> Result<Loaded, PluginError> {
    load(path, None, None)
}

pub(super) fn load(
    path: &Path,
    name: Option<&str>,
    pin: Option<&str>,
) -> Result<Loaded, PluginError> {
    let path = trust::check(path, pin)?;
    let loaded = open(&path)?;
    if let Some(expected) = name
        && loaded.name() != expected
    {
        return Err(PluginError::OtherName {
            path,
            expected: expected.to_owned(),
            found: loaded.name().to_owned(),
        });
    }
    Ok(loaded)
}

#[cfg(not(target_feature = "crt-static"))]
fn open(path: &Path) -> Result<Loaded, PluginError> {
    use std::{ffi::c_void, ptr::NonNull};

    use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};
    use plywood_plugin_sdk::abi::{ENTRY_SYMBOL, Header, Refusal};

    let refused = |refusal: Refusal| {
        if let Refusal::Layout { full, .. } = &refusal {
            tracing::debug!(path = %path.display(), "plugin types differ: {full}");
        }
        PluginError::Refused {
            path: path.to_owned(),
            refusal: Box::new(refusal),
        }
    };
    // Every plugin exports the same symbol, so it must stay local; and missing functions are to
    // be found now, not in the middle of an operation.
    //
    // SAFETY: the initialisers of the library run; `trust::check` has made sure that it is a
    // complete shared object that only root or the caller could have put there.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_LOCAL) };
    let library = library.map_err(|error| PluginError::Open {
        path: path.to_owned(),
        reason: reason(&error, path),
    })?;
    // SAFETY: only the address is taken; what is there is checked by `Header::read`.
    let symbol = unsafe { library.get::<*mut c_void>(ENTRY_SYMBOL) };
    let symbol = symbol
        .ok()
        .and_then(|symbol| NonNull::new(symbol.as_raw_ptr()))
        .ok_or_else(|| PluginError::NoEntry {
            path: path.to_owned(),
        })?;
    // SAFETY: the symbol was just found in the library, which is not closed before the end of
    // this function, and below not at all.
    let header = unsafe { Header::read(symbol) }.map_err(refused)?;
    // What follows keeps addresses inside the library, so from here on it must not be closed.
    std::mem::forget(library);
    header.admit().map_err(refused)
}

#[cfg(target_feature = "crt-static")]
fn open(path: &Path) -> Result<Loaded, PluginError> {
    Err(PluginError::StaticBuild {
        path: path.to_owned(),
    })
}

/// What the system's loader said, without the path that the caller names already.
#[cfg(not(target_feature = "crt-static"))]
fn reason(error: &dyn std::error::Error, path: &Path) -> String {
    let text = error.source().unwrap_or(error).to_string();
    let own = format!("{}: ", path.display());
    text.strip_prefix(&own).unwrap_or(&text).to_owned()
}
