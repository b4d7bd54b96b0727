// SPDX-License-Identifier: Apache-2.0
//! SIGINT and SIGTERM during work that leaves something to clean up.
//!
//! The first signal makes the next read fail, so that the work ends through its ordinary error
//! path and takes its staging away; when that does not happen soon (a read that waits for a pipe),
//! the process ends, and the next open of the store reclaims what is left.

use std::{
    io::{self, Read},
    sync::atomic::{AtomicI32, Ordering},
    time::Duration,
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

static CAUGHT: AtomicI32 = AtomicI32::new(0);

/// How long the ordinary way out may take.
const GRACE: Duration = Duration::from_secs(3);

/// Watches for signals from now on.
pub(crate) fn watch() -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for signal in signals.forever() {
                if CAUGHT.swap(signal, Ordering::SeqCst) != 0 {
                    std::process::exit(128 + signal);
                }
                std::thread::spawn(move || {
                    std::thread::sleep(GRACE);
                    std::process::exit(128 + signal);
                });
            }
        })?;
    Ok(())
}

/// The exit code when a signal ended the work.
pub(crate) fn exit_code() -> Option<u8> {
    match CAUGHT.load(Ordering::SeqCst) {
        0 => None,
        signal => u8::try_from(128 + signal).ok(),
    }
}

/// Fails once a signal came.
pub(crate) fn check() -> io::Result<()> {
    if CAUGHT.load(Ordering::Relaxed) == 0 {
        Ok(())
    } else {
        // `ErrorKind::Interrupted` would make readers try again.
        Err(io::Error::other("interrupted by a signal"))
    }
}

/// A reader that fails once a signal came.
pub(crate) struct Interruptible<R>(pub(crate) R);

impl<R: Read> Read for Interruptible<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        check()?;
        self.0.read(buffer)
    }
}
