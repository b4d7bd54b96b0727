// SPDX-License-Identifier: Apache-2.0
//! Panic messages of a plugin go to the host's log in place of standard error.
//!
//! A plugin has its own copy of the standard library, so its hook does not touch the host's.

use std::{
    cell::{Cell, RefCell},
    panic::PanicHookInfo,
    sync::{Arc, Mutex, Once, PoisonError, Weak},
};

use super::contain;
use crate::{DriverErrorCode, Host, LogLevel, Result};

thread_local! {
    /// Whether this thread is inside a call of the host.
    static IN_CALL: Cell<bool> = const { Cell::new(false) };
    /// What the hook saw during such a call.
    static SEEN: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Who opened the plugin last: for panics of threads that the driver started itself.
static LAST_HOST: Mutex<Option<Weak<dyn Host>>> = Mutex::new(None);

/// Takes panic messages over from the standard library.
pub(super) fn install(name: &'static str, host: &Arc<dyn Host>) {
    static INSTALLED: Once = Once::new();
    let mut last = LAST_HOST.lock().unwrap_or_else(PoisonError::into_inner);
    *last = Some(Arc::downgrade(host));
    drop(last);
    INSTALLED.call_once(|| std::panic::set_hook(Box::new(move |panic| hook(name, panic))));
}

fn hook(name: &str, panic: &PanicHookInfo<'_>) {
    let text = panic.payload_as_str().unwrap_or("(no text)");
    let place = panic.location().map(ToString::to_string);
    let place = place.unwrap_or_else(|| "an unknown place".to_owned());
    let message = format!("panicked at {place}: {text}");
    if IN_CALL.get() {
        SEEN.replace(Some(message));
        return;
    }
    let last = LAST_HOST.lock().unwrap_or_else(PoisonError::into_inner);
    let host = last.as_ref().and_then(Weak::upgrade);
    drop(last);
    if let Some(host) = host {
        host.log(LogLevel::Error, name, &message);
    }
}

/// Runs a call of the host: a panic becomes an error, and where it was goes to `host`.
pub(super) fn contain_and_log<T>(
    name: &str,
    host: &dyn Host,
    operation: &'static str,
    call: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let outer = IN_CALL.replace(true);
    let outcome = contain(operation, call);
    IN_CALL.set(outer);
    if let Err(error) = &outcome
        && error.code == DriverErrorCode::PANICKED
        && let Some(message) = SEEN.take()
    {
        host.log(LogLevel::Error, name, &message);
    }
    outcome
}
