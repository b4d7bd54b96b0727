// SPDX-License-Identifier: Apache-2.0
//! The conformance suite with Plywood's own drivers linked in, for `run --embedded NAME`.

use plywood_driver_additional_layer_store::AdditionalLayerStore;

plywood_plugin_sdk::embed_driver!(AdditionalLayerStore);
plywood_plugin_sdk::embed_driver!(plywood_driver_btrfs::Btrfs);
plywood_plugin_sdk::embed_driver!(plywood_driver_overlay::Overlay);
plywood_plugin_sdk::embed_driver!(plywood_driver_vfs::Vfs);
plywood_plugin_sdk::embed_driver!(plywood_driver_zfs::Zfs);
plywood_plugin_sdk::embed_layer_source!(AdditionalLayerStore);

fn main() {
    std::process::exit(plywood_conformance::main());
}
