// SPDX-License-Identifier: Apache-2.0
//! Serves a folder of layers at a mount point until it is ended by a signal.

use std::{error::Error, path::PathBuf};

use clap::Parser;
use fuser::{Config, MountOption, SessionACL};
use layer_store::LayerStore;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

/// Serves a folder of layers as an additional layer store.
#[derive(Debug, Parser)]
struct Arguments {
    /// The folder with the layers: `DIGEST/{diff,info,blob}`.
    folder: PathBuf,
    /// An empty directory, which the option `additionallayerstore` then names.
    mount_point: PathBuf,
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments = Arguments::parse();
    let store = LayerStore::new(&arguments.folder)?;
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("layer-store".to_owned()),
        // The kernel decides by owners and modes, as for any other layer.
        MountOption::DefaultPermissions,
    ];
    config.acl = SessionACL::All;
    config.n_threads = Some(4);
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let session = fuser::spawn_mount(store, &arguments.mount_point, &config)?;
    signals.forever().next();
    // Unmounts.
    drop(session);
    Ok(())
}
