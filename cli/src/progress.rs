// SPDX-License-Identifier: Apache-2.0
//! Progress bars on standard error, for work that takes longer than a second.

use std::{
    io::{self, IsTerminal as _, Read},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Work shorter than this shows nothing.
const DELAY: Duration = Duration::from_secs(1);

/// A bar that counts bytes; it appears on a terminal only, and only when work goes on.
pub(crate) struct Meter {
    bar: ProgressBar,
    since: Instant,
    shown: bool,
}

impl Meter {
    /// A bar for `what`; without a total it shows the bytes alone.
    pub(crate) fn new(what: impl Into<String>, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::hidden());
        let template = if total.is_some() {
            "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec}"
        } else {
            "{msg} {bytes} {bytes_per_sec}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.into());
        Self {
            bar,
            since: Instant::now(),
            shown: !io::stderr().is_terminal(),
        }
    }

    /// Counts `bytes` more.
    pub(crate) fn add(&mut self, bytes: u64) {
        self.bar.inc(bytes);
        if !self.shown && self.since.elapsed() > DELAY {
            self.bar
                .set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            self.shown = true;
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// A reader that moves a bar.
pub(crate) struct Metered<R> {
    inner: R,
    meter: Meter,
}

impl<R> Metered<R> {
    /// Counts what is read from `inner`.
    pub(crate) fn new(inner: R, meter: Meter) -> Self {
        Self { inner, meter }
    }
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.meter.add(read as u64);
        Ok(read)
    }
}
