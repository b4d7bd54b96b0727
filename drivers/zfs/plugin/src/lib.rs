// SPDX-License-Identifier: Apache-2.0
//! The zfs graph driver of Plywood as a loadable plugin.

plywood_plugin_sdk::export_driver!(driver::Zfs);
