// SPDX-License-Identifier: Apache-2.0
//! The example of a vendor's driver, on its own: outside the workspace, with the SDK as it would be
//! published.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest as _, Sha256};

use crate::run;

const EXAMPLE: &str = "examples/out-of-tree-plugin";

/// Copies the example out of the tree and runs its own CI there, without the network.
pub(crate) fn run() -> Result<()> {
    run::cargo(&["build", "--quiet", "--package", "plywood-conformance"])?;
    let suite = run::built(run::Profile::Dev, "plywood-conformance");
    let place = tempfile::tempdir().context("cannot make a temporary directory")?;
    let sdk = unpack_sdk(place.path())?;
    let checkout = place.path().join("checkout");
    copy_tracked(&checkout)?;
    let mut ci = run::command(checkout.join("ci.sh"), [] as [&str; 0]);
    ci.current_dir(&checkout)
        .env("PLYWOOD_SDK", sdk)
        .env("PLYWOOD_CONFORMANCE", &suite)
        // What was built for it stays, so that a second run is quick.
        .env("CARGO_TARGET_DIR", run::target_dir().join("out-of-tree"))
        .env("CARGO_NET_OFFLINE", "true");
    // One file system is enough here: `cargo xtask conformance` runs our own drivers on all.
    ci.env("SCRATCH", "loop:xfs");
    if let Some(selftest) = selftest_of(&suite)? {
        ci.env("PLYWOOD_SELFTEST", selftest);
    }
    run::check(ci)
}

/// Where the report of a self-test lies that this very program made.
fn selftest_of(suite: &Path) -> Result<Option<PathBuf>> {
    let place = run::target_dir().join("conformance/selftest");
    let Ok(text) = fs::read_to_string(place.join("selftest.json")) else {
        return Ok(None);
    };
    let record: serde_json::Value = serde_json::from_str(&text)?;
    let program = fs::read(suite).with_context(|| format!("cannot read `{}`", suite.display()))?;
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(program));
    Ok((record["program_sha256"] == digest.as_str()).then_some(place))
}

/// The SDK's sources as `cargo publish` would send them.
fn unpack_sdk(place: &Path) -> Result<PathBuf> {
    let target = place.join("package");
    let mut package = run::command(
        env!("CARGO"),
        [
            "package",
            "--quiet",
            "--package",
            "plywood-plugin-sdk",
            "--no-verify",
            "--allow-dirty",
            "--offline",
            "--target-dir",
        ],
    );
    package.arg(&target);
    run::check(package)?;
    let packed = target.join("package");
    let found =
        fs::read_dir(&packed).with_context(|| format!("cannot read `{}`", packed.display()))?;
    let mut names = found.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let Some(name) = names.find_map(|name| name.strip_suffix(".crate").map(str::to_owned)) else {
        bail!("cargo package left no .crate in `{}`", packed.display());
    };
    let mut tar = run::command("tar", ["--extract", "--gzip", "--file"]);
    tar.arg(packed.join(format!("{name}.crate")))
        .arg("--directory")
        .arg(place);
    run::check(tar)?;
    Ok(place.join(name))
}

/// Copies what a checkout of the example would have, and nothing that was built in it.
fn copy_tracked(to: &Path) -> Result<()> {
    let listed = run::output(run::command(
        "git",
        [
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            EXAMPLE,
        ],
    ))?;
    for name in listed.lines() {
        let (from, relative) = (
            run::workspace().join(name),
            Path::new(name).strip_prefix(EXAMPLE)?,
        );
        let target = to.join(relative);
        let parent = target.parent().context("a file lies in a directory")?;
        fs::create_dir_all(parent)
            .and_then(|()| fs::copy(&from, &target))
            .with_context(|| format!("cannot copy `{name}`"))?;
    }
    Ok(())
}
