// SPDX-License-Identifier: Apache-2.0
//! The project's own tasks; `cargo xtask --help` lists them.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool"
)]

mod bench;
mod conformance;
mod corpus;
mod demo;
mod image;
mod layers;
mod lint;
mod out_of_tree;
mod run;
mod setup;
mod soak;
mod test;
mod vm;
mod zfs;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Tasks of the Plywood project")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds everything and walks through a store from load to save, step by step.
    Demo(demo::Options),
    /// Runs everything that CI runs.
    Test(test::Options),
    /// Times import and diff against containers-storage and bsdtar, in one run.
    Bench(bench::Options),
    /// Runs the conformance suite over every driver, loaded and linked in, on every file system.
    Conformance(conformance::Options),
    /// Imports real layers with both tools and compares records, trees and exports.
    Layers(layers::Options),
    /// Lets two plywood and two containers-storage processes work on one store.
    Soak(soak::Options),
    /// Builds and certifies the example of a vendor's driver outside the workspace.
    OutOfTree,
    /// Installs or uses a virtual machine with a kernel that has zfs.
    #[command(subcommand)]
    Vm(vm::Task),
    /// Runs the tests of the zfs driver, and the quick cases of the suite, in the virtual machine.
    Zfs(zfs::Options),
    /// Checks house rules that no compiler knows.
    Lint,
    /// Makes the layers that the benchmarks use.
    Corpus {
        /// Where they go.
        directory: PathBuf,
        /// Which ones: base, big, small or all.
        #[arg(default_value = "all")]
        which: String,
    },
    /// Installs the tools that demo, test and bench need.
    Setup,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Demo(options) => demo::run(&options),
        Task::Test(options) => test::run(&options),
        Task::Bench(options) => bench::run(&options),
        Task::Conformance(options) => conformance::run(&options),
        Task::Layers(options) => layers::run(&options),
        Task::Soak(options) => soak::run(&options),
        Task::OutOfTree => out_of_tree::run(),
        Task::Vm(task) => vm::task(&task),
        Task::Zfs(options) => zfs::run(&options),
        Task::Lint => lint::run(),
        Task::Corpus { directory, which } => corpus::make(&directory, &which),
        Task::Setup => setup::install(setup::Need::All),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
