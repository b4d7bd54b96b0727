// SPDX-License-Identifier: Apache-2.0
//! Everything that CI runs, in the order in which faults are cheapest to find.

use std::time::Instant;

use anyhow::Result;
use clap::Args;

use crate::{conformance, demo, layers, lint, out_of_tree, run, setup, soak, zfs};

#[derive(Args)]
pub(crate) struct Options {
    /// Leaves out what takes minutes: a vendor's driver, soak, demo, real layers and the feature
    /// matrix.
    #[arg(long)]
    quick: bool,
}

struct Report {
    skipped: Vec<&'static str>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let root = run::is_root();
    if let Err(error) = setup::install(setup::Need::Test) {
        // As root on Debian everything can be installed, so that is a failure there.
        if root {
            return Err(error);
        }
        println!("{error}");
    }
    let mut report = Report {
        skipped: Vec::new(),
    };
    step("house rules", lint::run)?;
    step("format", || run::cargo(&["fmt", "--all", "--check"]))?;
    step("clippy", || {
        run::cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])
    })?;
    step("build with plugins", || run::build(run::Profile::Dev))?;
    step("tests", || tests(root, &mut report))?;
    step("documentation", documentation)?;
    if root {
        suite(options.quick)?;
    } else {
        report
            .skipped
            .push("conformance and zfs (mounts and the virtual machine need root)");
    }
    if options.quick {
        report
            .skipped
            .push("features, a vendor's driver, demo, real layers, soak (--quick)");
    } else {
        step("embedded drivers", || {
            run::cargo(&[
                "check",
                "--quiet",
                "-p",
                "plywood-cli",
                "--features",
                "embedded-drivers",
            ])
        })?;
        if root {
            step("a vendor's driver outside the tree", out_of_tree::run)?;
            step("demo", || demo::run(&demo::Options::for_tests()))?;
            step("real layers", || {
                layers::run(&layers::Options {
                    layers: "base".into(),
                    corpus: None,
                    dev: true,
                })
            })?;
            step("soak", || {
                for driver in ["overlay", "vfs"] {
                    soak::run(&soak::Options {
                        seconds: 25,
                        driver: driver.into(),
                        dev: true,
                    })?;
                }
                Ok(())
            })?;
        } else {
            report
                .skipped
                .push("a vendor's driver, demo, real layers, soak (mounts need root)");
        }
    }
    for skipped in &report.skipped {
        println!("not run here: {skipped}");
    }
    println!("all that ran passed");
    Ok(())
}

fn tests(root: bool, report: &mut Report) -> Result<()> {
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
    if !root {
        report
            .skipped
            .push("tests named root_* and interop_* (need root and podman's tools)");
        arguments.extend(["--", "--skip", "root_", "--skip", "interop_"]);
    }
    run::cargo(&arguments)
}

/// Every driver on what it is for.
fn suite(quick: bool) -> Result<()> {
    step("conformance", || {
        conformance::run(&conformance::Options::for_tests(quick))
    })?;
    step("zfs in the virtual machine", || {
        zfs::run(&zfs::Options::quick())
    })
}

fn documentation() -> Result<()> {
    let mut command = run::command(
        env!("CARGO"),
        ["doc", "--quiet", "--workspace", "--no-deps"],
    );
    command.env("RUSTDOCFLAGS", "-D warnings");
    run::check(command)
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("== {name}");
    let start = Instant::now();
    work()?;
    println!("== {name}: done in {} s", start.elapsed().as_secs());
    Ok(())
}
