// SPDX-License-Identifier: Apache-2.0
//! `report.html`: one file that needs nothing else, for people.

use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Results, Totals, profile_of};
use crate::{Entry, GATES, Level, Outcome, Status, catalogue, entry};

const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// The page.
pub(super) fn page(results: &Results, earlier: Option<&Results>) -> String {
    let title = format!(
        "{} {}: {}",
        results.plugin.name,
        results.plugin.version,
        results.verdict()
    );
    let by_case = results.by_case();
    let markup = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                (banner(results))
                main {
                    (profiles(results))
                    (groups(&by_case))
                    (cases(results, &by_case))
                    (not_run(results))
                    (capabilities(results))
                    (waivers(results))
                    (measures(results))
                    @if let Some(earlier) = earlier { (comparison(results, earlier)) }
                    (environment(results))
                    (reproduce(results))
                }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    markup.into_string()
}

fn class(status: Status) -> &'static str {
    match status {
        Status::Pass => "pass",
        Status::Fail | Status::Xpass => "fail",
        Status::Error => "error",
        Status::NotApplicable => "na",
        Status::NotRun => "notrun",
        Status::Xfail => "xfail",
    }
}

fn label(status: Status) -> &'static str {
    match status {
        Status::Pass => "pass",
        Status::Fail => "fail",
        Status::Error => "error",
        Status::NotApplicable => "n/a",
        Status::NotRun => "not run",
        Status::Xfail => "known failure",
        Status::Xpass => "unexpected pass",
    }
}

fn banner(results: &Results) -> Markup {
    let code = results.exit_code();
    let tone = match code {
        0 => "good",
        2 => "partial",
        _ => "bad",
    };
    let plugin = &results.plugin;
    html! {
        header.banner.(tone) {
            div.verdict {
                span.word { (results.verdict()) }
                @if !results.run.complete {
                    span.note { "INCOMPLETE: cases were filtered out; this is no certificate" }
                } @else if code == 2 {
                    span.note { "INCOMPLETE: not everything could be run on this machine" }
                }
            }
            h1 { (plugin.name) " " span.version { (plugin.version) } }
            p.by {
                "by " (plugin.vendor) " - ABI " (plugin.abi) " - "
                code title=(plugin.sha256) { "sha256:" (plugin.sha256.get(..16).unwrap_or_default()) }
            }
            p.by {
                "plywood-conformance " (results.suite.version) ", catalogue "
                code title=(results.suite.catalogue_sha256) {
                    (results.suite.catalogue_sha256.get(..12).unwrap_or_default())
                }
                ", " (results.run.started) " to " (results.run.finished)
            }
            (counts(&results.totals))
        }
    }
}

fn counts(totals: &Totals) -> Markup {
    html! {
        ul.counts {
            @for status in Status::ALL {
                li.(class(status)).zero[totals.count(status) == 0] {
                    b { (totals.count(status)) } " " (label(status))
                }
            }
            li.all { b { (totals.all) } " cases" }
        }
    }
}

fn profiles(results: &Results) -> Markup {
    html! {
        section {
            h2 { "Profiles" }
            div.cards {
                @for (name, profile) in &results.profiles {
                    div.card.(profile.result.word()) {
                        h3 { (name) }
                        p.result { (profile.result.word()) @if profile.filtered { " (filtered)" } }
                        p.small {
                            (profile.totals.pass) " passed"
                            @if profile.totals.fail + profile.totals.xpass > 0 {
                                ", " (profile.totals.fail + profile.totals.xpass) " failed"
                            }
                            @if profile.totals.error > 0 { ", " (profile.totals.error) " errors" }
                            @if profile.totals.not_applicable > 0 {
                                ", " (profile.totals.not_applicable) " n/a"
                            }
                            @if profile.totals.not_run > 0 {
                                ", " (profile.totals.not_run) " not run"
                            }
                        }
                    }
                }
            }
        }
    }
}

fn groups(by_case: &BTreeMap<&'static str, Status>) -> Markup {
    let mut groups: BTreeMap<&str, Vec<(&str, Status)>> = BTreeMap::new();
    for (id, status) in by_case {
        groups.entry(&id[3..6]).or_default().push((id, *status));
    }
    html! {
        section {
            h2 { "Groups" }
            table.groups {
                @for (group, cases) in &groups {
                    @let totals = Totals::of(cases.iter().map(|case| case.1));
                    tr {
                        th { (group) }
                        td.bar {
                            @for (id, status) in cases {
                                a.cell.(class(*status)) href={ "#" (id) }
                                    title={ (id) ": " (label(*status)) } {}
                            }
                        }
                        td.small {
                            (totals.pass) " of " (totals.all)
                        }
                    }
                }
            }
        }
    }
}

fn cases(results: &Results, by_case: &BTreeMap<&'static str, Status>) -> Markup {
    let mut outcomes: BTreeMap<&str, Vec<&Outcome>> = BTreeMap::new();
    for outcome in &results.cases {
        outcomes.entry(&outcome.id).or_default().push(outcome);
    }
    html! {
        section {
            h2 { "Cases" }
            div.filters {
                input #search type="search" placeholder="id, name or text" aria-label="Search";
                @for status in Status::ALL {
                    @if by_case.values().any(|other| *other == status) {
                        button.chip.(class(status)) data-status=(class(status)) aria-pressed="true" {
                            (label(status))
                        }
                    }
                }
                span #shown.small {}
            }
            div #cases {
                @for (id, status) in by_case {
                    @if let Some(entry) = entry(id) {
                        (case_row(entry, *status, outcomes.get(id).map_or(&[], Vec::as_slice), results))
                    }
                }
            }
        }
    }
}

fn case_row(entry: &Entry, status: Status, outcomes: &[&Outcome], results: &Results) -> Markup {
    let milliseconds: u64 = outcomes.iter().map(|outcome| outcome.duration_ms).sum();
    let again = results.again(entry.id);
    html! {
        details.case.(class(status)) id=(entry.id) data-status=(class(status))
            open[matches!(status, Status::Fail | Status::Error | Status::Xpass)] {
            summary {
                span.badge.(class(status)) { (label(status)) }
                code { (entry.id) }
                span.name { (entry.name) }
                span.level title="level" { (entry.level.word()) }
                @if let Some(gate) = entry.gate { span.gate { (gate.name) } }
                span.time { (milliseconds) " ms" }
            }
            p.asserts { (entry.asserts) }
            @for outcome in outcomes {
                (one_outcome(outcome))
            }
            p.small { "profile " (profile_of(entry)) ", since " (entry.since.unwrap_or("-")) }
            pre.again { (again) }
        }
    }
}

fn one_outcome(outcome: &Outcome) -> Markup {
    html! {
        div.outcome {
            p {
                span.badge.(class(outcome.status)) { (label(outcome.status)) }
                " on " code { (outcome.scratch) } ", " (outcome.assertions) " assertions, "
                (outcome.duration_ms) " ms"
            }
            @if !outcome.message.is_empty() { p.message { (outcome.message) } }
            @if let (Some(expected), Some(actual)) = (&outcome.expected, &outcome.actual) {
                div.compare {
                    div { h4 { "expected" } pre { (expected) } }
                    div { h4 { "got" } pre { (actual) } }
                }
            }
            @if !outcome.steps.is_empty() {
                ol.steps { @for step in &outcome.steps { li { (step) } } }
            }
            @for leak in &outcome.leaks { p.leak { code { (leak.id) } " left behind: " (leak.what) } }
            @if outcome.status != Status::Pass && !outcome.output.is_empty() {
                h4 { "output" } pre { (outcome.output) }
            }
            @if let Some(table) = &outcome.mountinfo {
                details { summary { "mounts at the failure" } pre { (table) } }
            }
            @for kept in &outcome.artifacts { p.small { "kept: " a href=(kept) { (kept) } } }
        }
    }
}

fn not_run(results: &Results) -> Markup {
    let mut missing: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for outcome in &results.cases {
        if outcome.status == Status::NotRun {
            let what = (outcome.message.as_str(), outcome.scratch.as_str());
            missing.entry(what).or_default().push(&outcome.id);
        }
    }
    let filtered = results.totals.all - results.selected().len();
    html! {
        @if !missing.is_empty() || filtered > 0 {
            section {
                h2 { "Not run" }
                @if filtered > 0 {
                    p { (filtered) " cases were filtered out: " code { (results.run.filters.join(" ")) } }
                }
                @if !missing.is_empty() {
                    table {
                        tr { th { "what is missing" } th { "scratch" } th { "cases" } }
                        @for ((why, scratch), ids) in missing {
                            tr {
                                td { (why) }
                                td { (scratch) }
                                td { @for id in ids { a href={ "#" (id) } { (id) } " " } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn capabilities(results: &Results) -> Markup {
    let declared = |name: &str| results.plugin.capabilities.iter().any(|can| can == name);
    let by_case = results.by_case();
    html! {
        section {
            h2 { "Capabilities" }
            table {
                tr { th { "capability" } th { "" } th { "profile" } th { "cases" } }
                @for gate in GATES {
                    @let behind = catalogue().iter().filter(|entry| {
                        by_case.contains_key(entry.id)
                            && entry.gate.is_some_and(|other| other.name == gate.name)
                    });
                    tr {
                        td { code { (gate.name) } }
                        td {
                            @if declared(gate.name) { span.badge.pass { "declared" } }
                            @else { span.badge.na { "undeclared" } }
                        }
                        td { (gate.profile) }
                        td.bar {
                            @for entry in behind {
                                @let status = by_case[entry.id];
                                a.cell.(class(status)) href={ "#" (entry.id) }
                                    title={ (entry.id) ": " (label(status)) } {}
                            }
                        }
                    }
                }
            }
            @if let Some(depth) = results.plugin.max_depth {
                p.small { "Chains of up to " (depth) " layers." }
            }
        }
    }
}

fn waivers(results: &Results) -> Markup {
    html! {
        @if !results.waivers.is_empty() {
            section {
                h2 { "Known failures" }
                table {
                    tr { th { "case" } th { "reason" } }
                    @for waiver in &results.waivers {
                        tr { td { (waiver.id) } td { (waiver.reason) } }
                    }
                }
            }
        }
    }
}

fn measures(results: &Results) -> Markup {
    let measured: Vec<_> = results
        .cases
        .iter()
        .filter(|outcome| !outcome.measures.is_empty())
        .collect();
    let host = &results.environment;
    html! {
        @if !measured.is_empty() {
            section {
                h2 { "Measurements" }
                p.small {
                    "Not part of the verdict. Taken once on " (host.cpus) " processors, "
                    (host.mem_kb / 1024) " MiB, Linux " (host.kernel)
                    ", with " (results.run.jobs) " cases at a time."
                }
                @for outcome in measured {
                    @let most = outcome.measures.values().copied().fold(0.0, f64::max);
                    h3 { (outcome.id) " " (outcome.name) " " span.small { (outcome.scratch) } }
                    table.measures {
                        @for (name, value) in &outcome.measures {
                            tr {
                                td { (name) }
                                td.number { (number(*value)) }
                                td.chart {
                                    div.stroke style={ "width:" (percent(*value, most)) "%" } {}
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn number(value: f64) -> String {
    if value >= 100.0 || value.fract().abs() < f64::EPSILON {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

fn percent(value: f64, most: f64) -> String {
    let share = if most > 0.0 {
        value / most * 100.0
    } else {
        0.0
    };
    format!("{share:.1}")
}

fn comparison(results: &Results, earlier: &Results) -> Markup {
    let (now, then) = (results.by_case(), earlier.by_case());
    let changed: Vec<_> = now
        .iter()
        .filter_map(|(id, status)| {
            let before = then.get(id).copied().unwrap_or(Status::NotRun);
            (before != *status).then_some((*id, before, *status))
        })
        .collect();
    html! {
        section {
            h2 { "Compared with " (earlier.run.started) }
            p.small { (earlier.plugin.name) " " (earlier.plugin.version) ", sha256:" (earlier.plugin.sha256) }
            @if changed.is_empty() { p { "Every case ended as before." } }
            @else {
                table {
                    tr { th { "case" } th { "before" } th { "now" } }
                    @for (id, before, status) in changed {
                        tr {
                            td { a href={ "#" (id) } { (id) } }
                            td { span.badge.(class(before)) { (label(before)) } }
                            td { span.badge.(class(status)) { (label(status)) } }
                        }
                    }
                }
            }
        }
    }
}

fn environment(results: &Results) -> Markup {
    let host = &results.environment;
    let rows = [
        ("kernel", format!("Linux {} {}", host.kernel, host.arch)),
        ("C library", host.libc.clone()),
        ("processors", host.cpus.to_string()),
        ("memory", format!("{} MiB", host.mem_kb / 1024)),
        ("user", host.uid.to_string()),
        ("capabilities", host.caps.clone()),
        ("security modules", host.lsm.join(", ")),
        ("driver options", results.options.join(" ")),
        ("build id", results.plugin.build_id.clone()),
        ("file", results.plugin.path.clone()),
    ];
    html! {
        section {
            h2 { "Environment" }
            table {
                @for (name, value) in rows {
                    @if !value.is_empty() { tr { th { (name) } td { (value) } } }
                }
                @for scratch in &host.scratch {
                    tr { th { "scratch" } td { (scratch.spec) ": " (scratch.fstype) ", blocks of " (scratch.block) " bytes" } }
                }
                @if !host.images.is_empty() {
                    tr { th { "images of file systems" } td { (host.images) } }
                }
                @for (scratch, why) in &host.unavailable {
                    tr { th { "not available" } td { (scratch) ": " (why) } }
                }
            }
        }
    }
}

fn reproduce(results: &Results) -> Markup {
    let seed = format!("{:#x}", results.run.seed);
    let mut words: Vec<String> = vec!["plywood-conformance".to_owned()];
    words.extend(results.run.argv.iter().cloned());
    if !results
        .run
        .argv
        .iter()
        .any(|word| word.starts_with("--seed"))
    {
        words.extend(["--seed".to_owned(), seed]);
    }
    let recorded = catalogue()
        .iter()
        .filter(|e| e.level == Level::Recorded && e.since.is_some());
    html! {
        section {
            h2 { "Again" }
            pre.again { (words.join(" ")) }
            p.small {
                "Run " code { (results.run.id) } ", " (results.run.jobs) " cases at a time; "
                (recorded.count()) " cases record numbers and decide nothing."
            }
        }
    }
}
