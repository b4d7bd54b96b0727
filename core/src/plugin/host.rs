// SPDX-License-Identifier: Apache-2.0
//! What core offers to drivers.

use std::sync::Arc;

use plywood_plugin_sdk::{Host, LogLevel};

struct TracingHost;

impl Host for TracingHost {
    fn log(&self, level: LogLevel, target: &str, message: &str) {
        match level {
            LogLevel::Error => {
                tracing::error!(target: "plywood::driver", driver = target, "{message}");
            }
            LogLevel::Warn => {
                tracing::warn!(target: "plywood::driver", driver = target, "{message}");
            }
            LogLevel::Info => {
                tracing::info!(target: "plywood::driver", driver = target, "{message}");
            }
            LogLevel::Debug => {
                tracing::debug!(target: "plywood::driver", driver = target, "{message}");
            }
        }
    }
}

/// A host that hands the messages of drivers to `tracing`, with the target `plywood::driver`.
pub fn tracing_host() -> Arc<dyn Host> {
    Arc::new(TracingHost)
}
