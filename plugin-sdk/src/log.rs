// SPDX-License-Identifier: Apache-2.0
//! Logging for drivers.

use std::{
    fmt::{self, Display},
    sync::Arc,
};

use crate::{Host, LogLevel, OpenRequest};

/// A driver's way to the host's log; cheap to clone, usable from any thread.
#[derive(Clone)]
pub struct Log {
    host: Arc<dyn Host>,
    target: Arc<str>,
}

impl Log {
    /// A log whose messages are marked with `target`, usually the driver's name.
    pub fn new(host: Arc<dyn Host>, target: &str) -> Self {
        Self {
            host,
            target: target.into(),
        }
    }

    /// Something failed that the operator must see.
    pub fn error(&self, message: impl Display) {
        self.write(LogLevel::Error, &message);
    }

    /// Something is not as it should be.
    pub fn warn(&self, message: impl Display) {
        self.write(LogLevel::Warn, &message);
    }

    /// Something worth knowing.
    pub fn info(&self, message: impl Display) {
        self.write(LogLevel::Info, &message);
    }

    /// For developers.
    pub fn debug(&self, message: impl Display) {
        self.write(LogLevel::Debug, &message);
    }

    fn write(&self, level: LogLevel, message: &dyn Display) {
        self.host.log(level, &self.target, &message.to_string());
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

impl OpenRequest {
    /// A log whose messages are marked with `target`.
    pub fn log(&self, target: &str) -> Log {
        Log::new(Arc::clone(&self.host), target)
    }
}
