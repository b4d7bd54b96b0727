// SPDX-License-Identifier: Apache-2.0
//! A small additional layer store: a folder of unpacked layers, shown over FUSE by the protocol that
//! containers/storage and Plywood look layers up with.
//!
//! ```text
//! MOUNTPOINT/DIGEST/               a layer, by the digest that it is looked up with
//! MOUNTPOINT/base64(REF)/DIGEST/   the same, for whoever asks with the image's name
//!     diff/                        its files, as overlay has them
//!     info                         its record, as JSON
//!     blob                         its stream, as it was pulled
//!     use                          making this file says that the layer is used; it never exists
//! MOUNTPOINT/status                how often each layer is in use, a line for each
//! ```
//!
//! Removing the directory of a layer says that it is not used any more; it stays. Both are answered
//! with "no such file", by which the client knows that it was understood.

mod filesystem;
mod layers;
mod nodes;

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use fuser::{Config, MountOption, Session, SessionACL};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{filesystem::LayerStore, layers::Layers};

#[derive(Parser)]
#[command(version, about = "A small additional layer store")]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Unpacks a layer's tar stream, compressed or not, into the folder; prints its digest.
    Add {
        /// The folder of layers, made when it is missing.
        layers: PathBuf,
        /// The stream.
        file: PathBuf,
    },
    /// Shows the folder until the program is told to end, or what it shows is unmounted.
    Serve {
        /// The folder of layers.
        layers: PathBuf,
        /// Where it appears: a directory.
        mountpoint: PathBuf,
    },
}

fn main() -> Result<()> {
    match Options::parse().command {
        Command::Add { layers, file } => {
            let digest = Layers::at(&layers)?.add(&file)?;
            say(digest.as_str())
        }
        Command::Serve { layers, mountpoint } => serve(&layers, &mountpoint),
    }
}

fn serve(layers: &Path, mountpoint: &Path) -> Result<()> {
    let store = LayerStore::new(Layers::at(layers)?);
    // Not read-only: the kernel would keep `use` from us.
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("plywood-layer-store".to_owned()),
        MountOption::DefaultPermissions,
        MountOption::Suid,
        MountOption::Dev,
        MountOption::NoAtime,
    ];
    config.acl = SessionACL::All;
    config.n_threads = Some(2);
    let failed = || format!("cannot mount at {}", mountpoint.display());
    let mut session = Session::new(store, mountpoint, &config).with_context(failed)?;
    let mut unmounter = session.unmount_callable();
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let handle = signals.handle();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            if signals.forever().next().is_some() {
                // What keeps it from being unmounted keeps the session going, too.
                drop(unmounter.unmount());
            }
        });
        let said = say(&format!("{} at {}", layers.display(), mountpoint.display()));
        let served = session.run().context("the kernel ended the session");
        handle.close();
        said.and(served)
    })
}

fn say(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").context("cannot write to the terminal")
}
