// SPDX-License-Identifier: Apache-2.0
//! All integration tests of core, one module for each property.

mod plugin_loading;
mod plugin_panics;
mod support;
