// SPDX-License-Identifier: Apache-2.0
//! The suite that a graph driver must pass, for our own drivers and for everybody else's.
//!
//! A case is one property with a permanent id. It runs in a process of its own, with its own mount
//! namespace and a fresh store; what it leaves mounted or open there is a failure of the case. No
//! driver is named here: what a driver declares decides which cases apply, and an operation that it
//! does not declare must be refused.

mod case;
mod cases;
mod leaks;
mod manifest;
mod runner;
pub mod sweep;
mod tar_file;
mod target;

pub use case::{Case, Gate, Verdict};
pub use cases::all;
pub use runner::{Options, Outcome, Summary, WORKER, run, worker};
pub use target::{Source, Target};
