// SPDX-License-Identifier: Apache-2.0
//! What is said to the user, who may close the pipe before all was said.
//!
//! `println!` panics then: `list | head` would end with a backtrace, and a run in the middle.

use std::{
    fmt,
    io::{self, Write as _},
    sync::atomic::{AtomicBool, Ordering},
};

static FAILED: AtomicBool = AtomicBool::new(false);

/// Whether something could not be written, and not because its reader had seen enough.
pub(super) fn failed() -> bool {
    FAILED.load(Ordering::Relaxed)
}

/// Writes to standard output; the first failure is reported, a reader who went away is none.
pub(super) fn out(text: fmt::Arguments<'_>) {
    if let Err(error) = io::stdout().write_fmt(text)
        && error.kind() != io::ErrorKind::BrokenPipe
        && !FAILED.swap(true, Ordering::Relaxed)
    {
        complain!("error: cannot write to standard output: {error}");
    }
}

/// Writes to standard error, about whose failure nobody can be told.
pub(super) fn err(text: fmt::Arguments<'_>) {
    let _nobody_listens = io::stderr().write_fmt(text);
}

/// `print!` that does not panic.
macro_rules! say {
    ($($text:tt)*) => { $crate::cli::say::out(format_args!($($text)*)) };
}

/// `println!` that does not panic.
macro_rules! sayln {
    () => { $crate::cli::say::out(format_args!("\n")) };
    ($($text:tt)*) => {
        $crate::cli::say::out(format_args!("{}\n", format_args!($($text)*)))
    };
}

/// `eprintln!` that does not panic.
macro_rules! complain {
    ($($text:tt)*) => {
        $crate::cli::say::err(format_args!("{}\n", format_args!($($text)*)))
    };
}

pub(super) use {complain, say, sayln};
