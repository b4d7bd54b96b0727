// SPDX-License-Identifier: Apache-2.0
//! Panics end here.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
};

use crate::{DriverError, DriverErrorCode, Result};

/// Runs `call` and turns a panic into an error with the code
/// [`PANICKED`](DriverErrorCode::PANICKED).
///
/// What `call` had begun may be half done, so whoever uses this refuses further writes.
///
/// # Errors
/// The error of `call`, or the panic.
pub fn contain<T>(operation: &'static str, call: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|payload| {
        let text = panic_text(payload);
        Err(DriverError::new(
            DriverErrorCode::PANICKED,
            format!("panicked in {operation}: {text}"),
        )
        .object(operation))
    })
}

fn panic_text(payload: Box<dyn Any + Send>) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "(no text)".to_owned());
    // The payload's own drop may panic again, which would end the process.
    std::mem::forget(payload);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bomb;

    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("the payload panics too");
        }
    }

    #[test]
    fn every_kind_of_panic_becomes_an_error() {
        let text = |call: fn()| {
            let error = contain("create", || {
                call();
                Ok(())
            })
            .unwrap_err();
            assert_eq!(error.code, DriverErrorCode::PANICKED);
            error.message
        };
        assert_eq!(text(|| panic!("boom")), "panicked in create: boom");
        assert_eq!(text(|| panic!("boom {}", 7)), "panicked in create: boom 7");
        assert_eq!(
            text(|| std::panic::panic_any(Bomb)),
            "panicked in create: (no text)"
        );
    }
}
