// SPDX-License-Identifier: Apache-2.0
//! Additional layer stores for Plywood as a loadable plugin: a driver and a layer source.

plywood_plugin_sdk::export_driver!(driver::AdditionalLayerStore, driver::AdditionalLayerStore);
