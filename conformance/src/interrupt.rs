// SPDX-License-Identifier: Apache-2.0
//! Being told to stop: what is running is ended, nothing new is begun, and everything is tidied up.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    flag,
};

static ASKED: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// Takes the signals by which people and services end a program.
///
/// # Behavior
/// - A second one ends the program at once.
/// - Programs that are started from then on have the default dispositions, also when this one was
///   started with some of the signals ignored, as shells do in the background: what a case ends by
///   a signal must end by it (`execve(2)`: caught signals are reset).
///
/// # Errors
/// What the kernel reports.
pub(crate) fn take_signals() -> io::Result<()> {
    let asked = Arc::new(AtomicBool::new(false));
    if ASKED.set(Arc::clone(&asked)).is_err() {
        return Ok(());
    }
    for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
    }
    Ok(())
}

/// Whether the program was told to stop.
pub(crate) fn asked() -> bool {
    ASKED
        .get()
        .is_some_and(|asked| asked.load(Ordering::Relaxed))
}
