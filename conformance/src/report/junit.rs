// SPDX-License-Identifier: Apache-2.0
//! `junit.xml`: one test case for each case of the catalogue, with the worst that came of it.

use std::{io, time::Duration};

use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use super::Results;
use crate::{Entry, Outcome, Status, entry};

/// Writes the results for tools that read `JUnit`'s XML.
///
/// # Behavior
/// - What was not run is `skipped`, with the status as the first word of the message.
/// - The test case `gd.RUN completeness` fails when something could not be run, so that a tool
///   that counts skipped cases as good turns red all the same.
pub(super) fn write(results: &Results, out: &mut dyn io::Write) -> io::Result<()> {
    let mut report = Report::new(format!("gd-conformance {}", results.suite.version));
    report.set_time(duration(results.cases.iter()));
    let by_case = results.by_case();
    let mut groups: Vec<&str> = by_case.keys().map(|id| &id[3..6]).collect();
    groups.dedup();
    for group in groups {
        let mut suite = TestSuite::new(group);
        suite.add_properties(properties(results));
        for (id, status) in by_case.iter().filter(|(id, _)| &id[3..6] == group) {
            let Some(entry) = entry(id) else { continue };
            let of_case = |outcome: &&Outcome| outcome.id == *id;
            let outcomes: Vec<&Outcome> = results.cases.iter().filter(of_case).collect();
            suite.add_test_case(test_case(entry, *status, &outcomes));
        }
        suite.set_time(duration(
            results.cases.iter().filter(|case| &case.id[3..6] == group),
        ));
        report.add_test_suite(suite);
    }
    report.add_test_suite(completeness(results));
    report.serialize(out).map_err(io::Error::other)
}

fn duration<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Duration {
    Duration::from_millis(outcomes.map(|outcome| outcome.duration_ms).sum())
}

fn properties(results: &Results) -> Vec<Property> {
    let (plugin, host) = (&results.plugin, &results.environment);
    let scratch: Vec<_> = host.scratch.iter().map(|s| s.spec.as_str()).collect();
    let mut pairs = vec![
        ("plugin.name".to_owned(), plugin.name.clone()),
        ("plugin.version".to_owned(), plugin.version.clone()),
        ("plugin.sha256".to_owned(), plugin.sha256.clone()),
        ("abi".to_owned(), plugin.abi.clone()),
        (
            "catalogue.sha256".to_owned(),
            results.suite.catalogue_sha256.clone(),
        ),
        ("kernel".to_owned(), host.kernel.clone()),
        ("scratch".to_owned(), scratch.join(",")),
        ("seed".to_owned(), format!("{:#x}", results.run.seed)),
    ];
    for (name, profile) in &results.profiles {
        pairs.push((format!("verdict.{name}"), profile.result.word().to_owned()));
    }
    let property = |(name, value): (String, String)| Property::new(name, value);
    pairs.into_iter().map(property).collect()
}

fn test_case(entry: &Entry, status: Status, outcomes: &[&Outcome]) -> TestCase {
    let worst = outcomes.iter().find(|outcome| outcome.status == status);
    let message = match worst {
        Some(outcome) => outcome.message.clone(),
        None => "filtered out".to_owned(),
    };
    let mut case = TestCase::new(
        format!("{} {}", entry.id, entry.name),
        verdict(status, worst, &message),
    );
    case.set_classname(format!("gd.{}", entry.group()));
    case.set_time(duration(outcomes.iter().copied()));
    case.set_assertions(outcomes.iter().map(|o| o.assertions as usize).sum());
    case.add_property(Property::new("level", entry.level.word()));
    let mut said = String::new();
    for outcome in outcomes {
        said.extend([&outcome.scratch, ": ", outcome.status.word(), "\n"]);
        if outcome.status != Status::Pass {
            said.push_str(&outcome.output);
        }
    }
    case.set_system_out(said);
    case
}

fn verdict(status: Status, worst: Option<&&Outcome>, message: &str) -> TestCaseStatus {
    let mut result = match status {
        Status::Pass => return TestCaseStatus::success(),
        Status::Fail | Status::Xpass => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Status::Error => TestCaseStatus::non_success(NonSuccessKind::Error),
        Status::NotApplicable | Status::NotRun | Status::Xfail => TestCaseStatus::skipped(),
    };
    result.set_type(match status {
        Status::Fail => "assertion",
        Status::Xpass => "unexpected-pass",
        _ => "status",
    });
    let text = match status {
        Status::Fail | Status::Error => message.to_owned(),
        _ => format!("{}: {message}", status.word()),
    };
    result.set_message(text);
    if let Some(outcome) = worst
        && let (Some(expected), Some(actual)) = (&outcome.expected, &outcome.actual)
    {
        result.set_description(format!("expected {expected}\ngot      {actual}"));
    }
    result
}

fn completeness(results: &Results) -> TestSuite {
    let mut suite = TestSuite::new("RUN");
    let missing: Vec<_> = results
        .profiles
        .values()
        .flat_map(|profile| &profile.not_run)
        .map(String::as_str)
        .collect();
    let complete =
        results.run.complete && missing.is_empty() && results.environment.unavailable.is_empty();
    let status = if complete {
        TestCaseStatus::success()
    } else {
        let mut failed = TestCaseStatus::non_success(NonSuccessKind::Failure);
        failed.set_type("incomplete");
        failed.set_message(format!(
            "not everything was run: filters {:?}, not run {missing:?}, not available {:?}",
            results.run.filters,
            results.environment.unavailable.keys().collect::<Vec<_>>()
        ));
        failed
    };
    let mut case = TestCase::new("completeness", status);
    case.set_classname("gd.RUN");
    suite.add_test_case(case);
    suite
}
