// SPDX-License-Identifier: Apache-2.0
//! Imports real layers with both tools and compares records, trees and exports.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::{corpus, run, setup};

#[derive(Args)]
pub(crate) struct Options {
    /// Which layers: base, big, small or all.
    #[arg(long, default_value = "all")]
    pub(crate) layers: String,
    /// Where the layers are or will be made.
    #[arg(long)]
    pub(crate) corpus: Option<PathBuf>,
    /// Uses a debug build.
    #[arg(long)]
    pub(crate) dev: bool,
}

const ID: &str = "1a7e50000000000000000000000000000000000000000000000000000000000e";

/// A tar of everything below a directory but the directory itself, which overlay's layers do not
/// take from the stream. Nanoseconds, owners, links, devices and attributes are all in it.
const PICTURE: &str = "cd \"$1\" && find . -mindepth 1 -print0 | LC_ALL=C sort -z | \
    tar --null --no-recursion -T - --format=pax --numeric-owner --xattrs --xattrs-include='*' \
    --pax-option='exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' -cf - | sha256sum";

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        run::is_root(),
        "layers have owners and devices, which needs root"
    );
    setup::install(setup::Need::Test)?;
    let profile = if options.dev {
        run::Profile::Dev
    } else {
        run::Profile::Release
    };
    run::build(profile)?;
    let layers = options
        .corpus
        .clone()
        .unwrap_or_else(|| run::target_dir().join("corpus"));
    corpus::make(&layers, &options.layers)?;
    let names: &[&str] = match options.layers.as_str() {
        "all" => &["base", "big", "small"],
        "base" => &["base"],
        "big" => &["big"],
        _ => &["small"],
    };
    let ours = run::built(profile, "plywood").display().to_string();
    for name in names {
        let plain = layers.join(format!("{name}.tar"));
        for extension in ["tar", "tar.gz", "tar.zst"] {
            let layer = layers.join(format!("{name}.{extension}"));
            for driver in ["overlay", "vfs"] {
                compare(&ours, driver, &layer, &plain)
                    .with_context(|| format!("{} on {driver}", layer.display()))?;
            }
        }
    }
    Ok(())
}

fn compare(ours: &str, driver: &str, layer: &Path, plain: &Path) -> Result<()> {
    let root = tempfile::Builder::new()
        .prefix("layers-")
        .tempdir_in(run::target_dir())?;
    let left = Store::new(ours, driver, &root.path().join("ours"));
    let right = Store::new("containers-storage", driver, &root.path().join("theirs"));
    let layer_file = layer.display().to_string();
    for store in [&left, &right] {
        store.call(&["import-layer", "--id", ID, "--file", &layer_file])?;
    }
    let outcome = agree(&left, &right, plain);
    for store in [&left, &right] {
        store.call(&["delete-layer", ID])?;
        store.call(&["shutdown"])?;
    }
    outcome?;
    println!(
        "{} on {driver}: record, tree and exported bytes are equal",
        layer.display()
    );
    Ok(())
}

fn agree(left: &Store, right: &Store, plain: &Path) -> Result<()> {
    let (ours, theirs) = (left.record()?, right.record()?);
    for member in [
        "compressed-diff-digest",
        "compressed-size",
        "diff-digest",
        "diff-size",
        "compression",
        "uidset",
        "gidset",
    ] {
        ensure!(
            ours[member] == theirs[member],
            "`{member}` is {}, but {} in the other record",
            ours[member],
            theirs[member]
        );
    }
    ensure!(left.picture()? == right.picture()?, "the trees differ");
    let tar = left.root.join("exported.tar");
    let shown = tar.display().to_string();
    left.call(&["diff", "--uncompressed", "--file", &shown, ID])?;
    run::check(run::command("cmp", [plain, tar.as_path()]))?;
    fs::remove_file(&tar)?;
    Ok(())
}

struct Store {
    program: String,
    driver: String,
    root: PathBuf,
}

impl Store {
    fn new(program: &str, driver: &str, root: &Path) -> Self {
        Self {
            program: program.into(),
            driver: driver.into(),
            root: root.to_path_buf(),
        }
    }

    fn call(&self, arguments: &[&str]) -> Result<String> {
        let shown = |name: &str| self.root.join(name).display().to_string();
        let (graph, run_root) = (shown("g"), shown("r"));
        let mut all = vec!["--graph", &graph, "--run", &run_root, "-s", &self.driver];
        all.extend(arguments);
        run::output(run::command(&self.program, all))
    }

    fn record(&self) -> Result<Value> {
        let path = self
            .root
            .join(format!("g/{}-layers/layers.json", self.driver));
        let records: Value = serde_json::from_str(&fs::read_to_string(path)?)?;
        Ok(records[0].clone())
    }

    fn picture(&self) -> Result<String> {
        let tree = match self.driver.as_str() {
            "overlay" => self.root.join(format!("g/overlay/{ID}/diff")),
            driver => self.root.join(format!("g/{driver}/dir/{ID}")),
        };
        let tree = tree.display().to_string();
        run::output(run::command(
            "bash",
            ["-o", "pipefail", "-c", PICTURE, "picture", &tree],
        ))
    }
}
