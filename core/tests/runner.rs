// SPDX-License-Identifier: Apache-2.0
//! The library's properties, one module each.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "helpers of tests do as tests do"
)]

mod driver_mounts;
mod export_assemble;
mod export_roundtrip;
mod export_support;
mod export_walk;
mod hostile_records;
mod import_hostile;
mod import_interop;
mod import_support;
mod import_unpack;
mod layers_content;
mod layers_crash;
mod layers_interop;
mod layers_meanwhile;
mod layers_records;
mod layers_support;
mod plugin_abi;
mod plugin_first_abi;
mod plugin_loading;
mod plugin_panics;
mod plugin_sources;
mod stores_additional;
mod stores_containers;
mod stores_delete;
mod stores_images;
mod stores_interop;
mod stores_large;
mod stores_open;
mod stores_podman;
mod stores_shared;
mod stores_support;
mod support;
