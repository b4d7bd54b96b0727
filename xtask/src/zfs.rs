// SPDX-License-Identifier: Apache-2.0
//! The zfs driver on real `OpenZFS`, in the virtual machine.

use std::{fmt::Write as _, fs};

use anyhow::{Context, Result};
use clap::Args;

use crate::{run, setup, vm};

/// What is run.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// How many random scripts native and walked lists are compared on; 500 take about an hour
    /// where the machine is emulated.
    #[arg(long, default_value_t = 5)]
    scripts: u32,
    /// Every case of the suite but those that only measure, as plugin and linked in, and not only
    /// the quick ones as plugin: about two hours where the machine is emulated.
    #[arg(long)]
    all: bool,
    /// Only the suite.
    #[arg(long)]
    suite: bool,
}

impl Options {
    /// What continuous integration has time for.
    pub(crate) fn quick() -> Self {
        Self {
            scripts: 5,
            all: false,
            suite: false,
        }
    }

    /// The suite alone.
    pub(crate) fn suite(all: bool) -> Self {
        Self {
            scripts: 0,
            all,
            suite: true,
        }
    }
}

/// How much longer everything may take than on a real machine.
const PATIENCE: &str = "20";

/// How long the driver's tests and the quick cases may take, in seconds; every case may take twice
/// that, for a machine that has more to do than one where both forms took 125 minutes.
const LIMIT: u64 = 4 * 3600;

/// The memory, in MiB, of a machine for every case: half of it is where the pool's image lies, and
/// 5000 layers on it take more than a GiB.
const MEMORY: u32 = 8192;

/// Builds what is needed, and runs the driver's tests and the suite in the machine.
pub(crate) fn run(options: &Options) -> Result<()> {
    vm::setup()?;
    let profile = if options.all {
        run::Profile::Suite
    } else {
        run::Profile::Dev
    };
    let packages = [
        "plywood-conformance",
        "plywood-conformance-linked",
        "plywood-driver-zfs-plugin",
    ];
    run::build_packages(profile, &packages)?;
    let place = run::target_dir().join("zfs");
    fs::create_dir_all(&place).with_context(|| format!("cannot create `{}`", place.display()))?;
    let mut script = String::from("set -e\nmodprobe loop\nmodprobe zfs zfs_arc_max=1073741824\n");
    if !options.suite {
        // The machine sees this system's podman and containers-storage.
        setup::install(setup::Need::Test)?;
        run::build_packages(run::Profile::Dev, &["plywood-cli"])?;
        let tests = tests()?;
        writeln!(
            script,
            "PLYWOOD_SCRIPTS={} {tests} --ignored --test-threads=2",
            options.scripts
        )?;
    }
    script.push_str(&suite(options, profile));
    let limit = if options.all { 2 * LIMIT } else { LIMIT };
    let mut machine = vm::Options::of(&["bash", "-c", &script], &place, limit);
    if options.all {
        machine.memory = MEMORY;
    }
    vm::run(&machine)
}

/// The command lines of the suite.
fn suite(options: &Options, profile: run::Profile) -> String {
    let path = |name: &str| run::built(profile, name).display().to_string();
    let common = format!("--scratch loop:zfs --patience {PATIENCE} --verbose");
    let plugin = |cases: &str| {
        let suite = path("plywood-conformance");
        let plugin = path("libplywood_driver_zfs.so");
        format!("'{suite}' run '{plugin}' {common} {cases} --out /share/plugin\n")
    };
    if !options.all {
        return plugin("--group quick");
    }
    let cases = "--skip-group perf";
    let linked = path("plywood-conformance-linked");
    format!(
        "{}'{linked}' run --embedded zfs {common} {cases} --out /share/linked\n",
        plugin(cases)
    )
}

/// Builds the driver's tests; where they are.
fn tests() -> Result<String> {
    let arguments = [
        "test",
        "-p",
        "plywood-driver-zfs",
        "--test",
        "root",
        "--no-run",
        "--message-format=json",
        "--quiet",
    ];
    let printed = run::output(run::command(env!("CARGO"), arguments))?;
    for line in printed.lines() {
        let message: serde_json::Value = serde_json::from_str(line)?;
        if let Some(path) = message["executable"].as_str() {
            return Ok(format!("'{path}'"));
        }
    }
    anyhow::bail!("cargo does not say where the tests of zfs are")
}
