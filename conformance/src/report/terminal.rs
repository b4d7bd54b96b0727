// SPDX-License-Identifier: Apache-2.0
//! The report on a terminal.

use std::{collections::BTreeMap, fmt::Write as _};

use super::Results;
use crate::{Outcome, Status, entry};

/// How the terminal is written to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terminal {
    /// With colours.
    pub(crate) colour: bool,
}

impl Terminal {
    fn paint(self, status: Status) -> String {
        let word = status.word();
        if !self.colour {
            return word.to_owned();
        }
        let code = match status {
            Status::Pass => 32,
            Status::Fail | Status::Error | Status::Xpass => 31,
            Status::NotApplicable => 90,
            Status::NotRun | Status::Xfail => 33,
        };
        format!("\x1b[{code}m{word}\x1b[0m")
    }

    /// One line for a case.
    pub(crate) fn line(self, outcome: &Outcome) -> String {
        let pad = 15_usize.saturating_sub(outcome.status.word().len());
        let mut line = format!(
            "{}{:pad$}{}  {:<30} {:<12} {:>6} ms",
            self.paint(outcome.status),
            "",
            outcome.id,
            outcome.name,
            outcome.scratch,
            outcome.duration_ms
        );
        if !outcome.message.is_empty() && outcome.status != Status::Pass {
            let first = outcome.message.lines().next().unwrap_or_default();
            let _infallible = write!(line, "  {first}");
        }
        line
    }

    /// Everything that a vendor needs to act on a failure.
    pub(crate) fn failure(self, outcome: &Outcome, again: &str) -> String {
        let mut text = format!(
            "  {} {} {}  ({}, {}.{:01} s)\n",
            self.paint(outcome.status),
            outcome.id,
            outcome.name,
            outcome.scratch,
            outcome.duration_ms / 1000,
            outcome.duration_ms % 1000 / 100
        );
        let mut add = |what: &str, value: &str| {
            for (index, line) in value.lines().enumerate() {
                let head = if index == 0 { what } else { "" };
                let _infallible = writeln!(text, "      {head:<10}{line}");
            }
        };
        if let Some(entry) = entry(&outcome.id) {
            add("asserts:", entry.asserts);
        }
        add("seen:", &outcome.message);
        if let (Some(expected), Some(actual)) = (&outcome.expected, &outcome.actual) {
            add("expected:", expected);
            add("got:", actual);
        }
        if let Some(step) = outcome.steps.last() {
            add("step:", &format!("{} ({step})", outcome.steps.len()));
        }
        for leak in &outcome.leaks {
            add("left:", &format!("{} ({})", leak.what, leak.id));
        }
        add("output:", outcome.output.trim_end());
        for kept in &outcome.artifacts {
            add("kept:", kept);
        }
        add("again:", again);
        text
    }
}

/// Groups, profiles and the sum of everything.
pub(crate) fn summary(results: &Results) -> String {
    let mut text = String::new();
    for (group, statuses) in groups(results) {
        let totals = super::Totals::of(statuses.iter().copied());
        let _infallible = writeln!(text, " {group}  {:>3}  {}", totals.all, bar(&statuses));
    }
    text.push('\n');
    for (name, profile) in &results.profiles {
        let totals = profile.totals;
        let _infallible = write!(
            text,
            "{name:<12} {:<10} {:>4} pass {:>3} fail {:>3} error {:>3} n/a {:>3} not run",
            profile.result.word(),
            totals.pass + totals.xfail,
            totals.fail + totals.xpass,
            totals.error,
            totals.not_applicable,
            totals.not_run
        );
        text.push_str(if profile.filtered {
            "  (filtered)\n"
        } else {
            "\n"
        });
    }
    let missing: Vec<_> = results
        .undeclared
        .iter()
        .map(|(name, cases)| format!("{name} ({})", cases.len()))
        .collect();
    if !missing.is_empty() {
        let _infallible = writeln!(text, "not declared: {}", missing.join(", "));
    }
    for (scratch, why) in &results.environment.unavailable {
        let _infallible = writeln!(text, "not available: {scratch}: {why}");
    }
    let all = results.totals;
    let _infallible = writeln!(
        text,
        "{} = {} pass + {} fail + {} error + {} n/a + {} not run + {} xfail + {} xpass",
        all.all,
        all.pass,
        all.fail,
        all.error,
        all.not_applicable,
        all.not_run,
        all.xfail,
        all.xpass
    );
    text
}

fn groups(results: &Results) -> BTreeMap<&'static str, Vec<Status>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (id, status) in results.by_case() {
        groups.entry(&id[3..6]).or_default().push(status);
    }
    groups
}

/// One character for each case.
fn bar(statuses: &[Status]) -> String {
    let mark = |status: &Status| match status {
        Status::Pass => '#',
        Status::Fail | Status::Xpass => 'x',
        Status::Error => '!',
        Status::NotApplicable => '-',
        Status::NotRun => '.',
        Status::Xfail => 'k',
    };
    statuses.iter().map(mark).collect()
}
