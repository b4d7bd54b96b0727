// SPDX-License-Identifier: Apache-2.0
//! Additional layer stores: directories, usually served by a FUSE program, in which the content of
//! layers is ready before it was pulled.
//!
//! As a *layer source* this looks layers up in the stores that the option `additionallayerstore`
//! names, by the directory protocol of containers/storage:
//!
//! ```text
//! STORE/DIGEST/{diff,info,blob,use}               the form without a reference
//! STORE/BASE64(REFERENCE)/DIGEST/{...}            for `additionallayerstore=STORE:ref`
//! ```
//!
//! As a *graph driver* it is overlay under another name, so that a store can be tied to its
//! additional layer stores: layers that are found there are referred to, all others are overlay's.
//!
//! # Behavior
//! - Every access to a store ends within `additionallayerstore_timeout` (30 seconds unless set):
//!   a store that hangs is an error that names it.
//! - `DIGEST` is the digest of a stream's table of contents, or of the stream; both are tried.

mod source;

use plywood_driver_overlay::Overlay;
use plywood_plugin_sdk::{Driver, LayerSource, OpenRequest, Plugin, Result, SourcePlugin};

/// The layer source, and the driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct AdditionalLayerStore;

const NAME: &str = "additional-layer-store";

impl SourcePlugin for AdditionalLayerStore {
    const NAME: &'static str = NAME;
    const VENDOR: &'static str = "Plywood";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn open(request: OpenRequest) -> Result<Box<dyn LayerSource>> {
        Ok(Box::new(source::DirectorySource::open(request)?))
    }
}

impl Plugin for AdditionalLayerStore {
    const NAME: &'static str = NAME;
    const VENDOR: &'static str = "Plywood";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        Overlay::open_as(NAME, request)
    }
}
