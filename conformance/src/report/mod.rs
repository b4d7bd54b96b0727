// SPDX-License-Identifier: Apache-2.0
//! What a run found: the model behind every form of the report.

mod events;
mod html;
mod junit;
mod profile;
mod sink;
mod terminal;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::profile::{Profile, ProfileResult};
pub(crate) use self::{
    events::check as check_events,
    profile::profile_of,
    sink::{Sink, read, replace},
    terminal::{Terminal, summary},
};
use crate::{Backing, Level, Outcome, Status, catalogue, excuses::Known};

/// The version of the form of `results.json`.
pub(crate) const SCHEMA: &str = "gd-results/1";

/// Everything about a run; `results.json` is its JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Results {
    /// `gd-results/1`.
    pub schema: String,
    /// The suite.
    pub suite: SuiteFacts,
    /// The run.
    pub run: RunFacts,
    /// The driver.
    pub plugin: PluginFacts,
    /// The machine.
    pub environment: Environment,
    /// Driver options.
    pub options: Vec<String>,
    /// Every case on every scratch.
    pub cases: Vec<Outcome>,
    /// What the cases come to, by profile.
    pub profiles: BTreeMap<String, Profile>,
    /// Capabilities that are not declared, with the cases that are about them.
    pub undeclared: BTreeMap<String, Vec<String>>,
    /// Known failures.
    pub waivers: Vec<Waiver>,
    /// How many cases ended how; a case counts once, with the worst that came of it.
    pub totals: Totals,
}

/// The suite that ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SuiteFacts {
    /// Its version.
    pub version: String,
    /// The SHA-256 of its catalogue.
    pub catalogue_sha256: String,
    /// The SHA-256 of the program.
    pub program_sha256: String,
}

/// When and how it ran.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunFacts {
    /// A random id.
    pub id: String,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339; empty while it runs.
    pub finished: String,
    /// The seed of everything random.
    pub seed: u64,
    /// The command line.
    pub argv: Vec<String>,
    /// What was filtered out, in the words of the command line; empty when nothing was.
    pub filters: Vec<String>,
    /// How many cases ran at once.
    pub jobs: usize,
    /// Whether every case of the catalogue had its chance.
    pub complete: bool,
    /// The SHA-256 of the last line of `events.ndjson`, which stands for all of them.
    pub events_sha256: String,
}

/// What was tested.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PluginFacts {
    /// The file; empty for a driver that is linked in.
    pub path: String,
    /// The SHA-256 of the file before the run (of the program, for a driver that is linked in).
    pub sha256: String,
    /// The same after the run.
    pub sha256_after: String,
    /// Its bytes.
    pub size: u64,
    /// The linker's id of the build, in hex.
    pub build_id: String,
    /// The driver's name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Who ships it.
    pub vendor: String,
    /// The version of the plugin boundary (which is the SDK's) that it was built with.
    pub abi: String,
    /// What it declares.
    pub capabilities: Vec<String>,
    /// The longest chain that it mounts.
    pub max_depth: Option<u32>,
}

impl PluginFacts {
    /// What second gates may ask.
    pub(crate) fn known(&self) -> Known<'_> {
        Known {
            capabilities: &self.capabilities,
            depth: self.max_depth,
            linked: self.path.is_empty(),
        }
    }
}

/// Where it ran.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Environment {
    /// The kernel's release.
    pub kernel: String,
    /// The machine's architecture.
    pub arch: String,
    /// The C library.
    pub libc: String,
    /// Processors.
    pub cpus: usize,
    /// Memory in KiB.
    pub mem_kb: u64,
    /// The user.
    pub uid: u32,
    /// The effective capabilities, in hex.
    pub caps: String,
    /// Security modules that are active.
    pub lsm: Vec<String>,
    /// The file systems that it ran on.
    pub scratch: Vec<Backing>,
    /// Where the image files of the suite's own file systems lay: `memory` or a directory; empty
    /// when there were none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub images: String,
    /// File systems that were asked for and could not be had, with the reason.
    pub unavailable: BTreeMap<String, String>,
}

/// A known failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiver {
    /// The case.
    pub id: String,
    /// Why it is known.
    pub reason: String,
}

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// The property holds.
    pub pass: usize,
    /// It does not.
    pub fail: usize,
    /// The suite could not do its work.
    pub error: usize,
    /// Not declared, and refused as it must be.
    pub not_applicable: usize,
    /// Filtered out, or the machine lacks something.
    pub not_run: usize,
    /// A known failure.
    pub xfail: usize,
    /// A known failure that passed.
    pub xpass: usize,
    /// All of them.
    pub all: usize,
}

impl Totals {
    /// Counts.
    pub fn of(statuses: impl IntoIterator<Item = Status>) -> Self {
        let mut totals = Self::default();
        for status in statuses {
            *match status {
                Status::Pass => &mut totals.pass,
                Status::Fail => &mut totals.fail,
                Status::Error => &mut totals.error,
                Status::NotApplicable => &mut totals.not_applicable,
                Status::NotRun => &mut totals.not_run,
                Status::Xfail => &mut totals.xfail,
                Status::Xpass => &mut totals.xpass,
            } += 1;
            totals.all += 1;
        }
        totals
    }

    /// The count of one status.
    pub fn count(&self, status: Status) -> usize {
        match status {
            Status::Pass => self.pass,
            Status::Fail => self.fail,
            Status::Error => self.error,
            Status::NotApplicable => self.not_applicable,
            Status::NotRun => self.not_run,
            Status::Xfail => self.xfail,
            Status::Xpass => self.xpass,
        }
    }
}

impl Results {
    /// What came of each case of the catalogue that a driver can be held to: the worst of all
    /// scratches, and `NOT_RUN` for what was filtered out.
    pub fn by_case(&self) -> BTreeMap<&'static str, Status> {
        let mut worst: BTreeMap<&str, Status> = BTreeMap::new();
        for outcome in &self.cases {
            let status = worst.entry(&outcome.id).or_insert(outcome.status);
            if severity(outcome.status) > severity(*status) {
                *status = outcome.status;
            }
        }
        let entries = catalogue().iter().filter(|entry| is_released(entry));
        entries
            .map(|entry| {
                let status = worst.get(entry.id).copied();
                (entry.id, status.unwrap_or(Status::NotRun))
            })
            .collect()
    }

    /// Computes profiles and totals from the cases.
    pub fn settle(&mut self) {
        let by_case = self.by_case();
        self.totals = Totals::of(by_case.values().copied());
        self.profiles = profile::all(&by_case, &self.plugin.capabilities, &self.selected());
        self.undeclared = profile::undeclared(&self.plugin.capabilities);
    }

    /// The ids that were to be run; filtered ones are not among them.
    fn selected(&self) -> std::collections::BTreeSet<String> {
        self.cases.iter().map(|case| case.id.clone()).collect()
    }

    /// The exit status of the run, as the catalogue fixes it.
    pub fn exit_code(&self) -> u8 {
        let any = |status| self.cases.iter().any(|case| case.status == status);
        if self.cases.iter().any(|case| case.host_unsafe) {
            5
        } else if any(Status::Fail) || any(Status::Xpass) {
            1
        } else if any(Status::Error) {
            3
        } else if any(Status::NotRun) || !self.environment.unavailable.is_empty() {
            2
        } else {
            0
        }
    }

    /// The command line that runs one case as it was run here.
    pub fn again(&self, id: &str) -> String {
        let what = match self.plugin.path.as_str() {
            "" => format!("--embedded {}", self.plugin.name),
            path => path.to_owned(),
        };
        let scratch: Vec<_> = self
            .environment
            .scratch
            .iter()
            .map(|s| s.spec.as_str())
            .collect();
        let mut text = format!(
            "plywood-conformance run {what} --scratch {} --only {id} --seed {:#x}",
            scratch.join(","),
            self.run.seed
        );
        for option in &self.options {
            text.push_str(" --storage-opt ");
            text.push_str(option);
        }
        text
    }

    /// The exit status in a word.
    pub fn verdict(&self) -> &'static str {
        match self.exit_code() {
            0 if self.run.complete => "SUCCESS",
            0 => "SUCCESS (filtered)",
            1 => "FAILED",
            2 => "INCOMPLETE",
            3 => "ERROR",
            _ => "HOST UNSAFE",
        }
    }
}

/// Whether a run against a driver has it.
pub(crate) fn is_released(entry: &crate::Entry) -> bool {
    entry.since.is_some() && entry.level != Level::Host
}

/// Which of two outcomes of one case counts.
fn severity(status: Status) -> u8 {
    match status {
        Status::NotApplicable => 0,
        Status::Pass => 1,
        Status::Xfail => 2,
        Status::NotRun => 3,
        Status::Error => 4,
        Status::Xpass => 5,
        Status::Fail => 6,
    }
}
