// SPDX-License-Identifier: Apache-2.0
//! The suite that a graph driver must pass, for our own drivers and for everybody else's.
//!
//! A case is one property with a permanent id; what it asserts stands in the catalogue beside the
//! code. It runs in processes of its own, in a mount and a PID namespace of its own, with a fresh
//! store; what it leaves mounted, open or running there is a failure of the case. No driver is
//! named here: what a driver declares decides which cases apply, and an operation that it does not
//! declare must be refused.
//!
//! A program that links drivers in and holds them to the suite is one line:
//!
//! ```no_run
//! // plywood_plugin_sdk::embed_driver!(my_driver::MyDriver);
//! std::process::exit(plywood_conformance::main());
//! ```

mod case;
mod cases;
mod catalogue;
mod certificate;
mod cli;
mod describe;
mod excuses;
mod gates;
mod images;
mod interrupt;
mod leaks;
mod log;
mod manifest;
mod ops;
mod report;
mod runner;
mod scratch;
mod selftest;
mod site;
pub mod sweep;
mod tar_file;
mod target;
mod wire;
mod worker;

pub use case::Case;
pub use cases::all;
pub(crate) use cases::find;
pub use catalogue::{Entry, Level, catalogue, catalogue_sha256, entry};
pub use cli::main;
pub use gates::{GATES, Gate};
pub use report::{Profile, ProfileResult, Results, Totals};
pub use runner::{Options, Outcome, run};
pub use scratch::{Backing, Scratch, ScratchError, Spec};
pub use site::{Site, Source};
pub use target::Target;
pub use wire::{Leak, Status};
pub use worker::worker_main;
