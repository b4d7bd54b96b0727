// SPDX-License-Identifier: Apache-2.0
//! `plywood-conformance selftest`.

use std::{fs, io, path::PathBuf, slice, time::Instant};

use plywood_conformance_faulty::FAULTS;

use super::{
    HARNESS, USAGE,
    run::{matches, own_mounts, usual_jobs},
    say::{complain, say, sayln},
};
use crate::{
    Scratch, Spec, case,
    certificate::SelftestRecord,
    describe, entry,
    images::{self, Images},
    report,
    selftest::{self, Caught, Lab, REFERENCE},
};

#[derive(clap::Args)]
pub(super) struct SelftestOptions {
    /// Only what matches: ids of host cases, names of faulty drivers, or `reference`; `*` stands
    /// for anything.
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    only: Vec<String>,
    /// The driver without a fault runs the quick cases alone.
    #[arg(long, conflicts_with = "out")]
    quick: bool,
    /// How many cases run at once; four for each processor, when not given.
    #[arg(long)]
    jobs: Option<usize>,
    /// Where stores are made, as for `run`.
    #[arg(long, default_value = "loop:ext4", value_name = "SCRATCH")]
    scratch: Spec,
    /// Where the suite's own files lie, as for `run`.
    #[arg(long, value_name = "PLACE")]
    images: Option<String>,
    /// The directory of a report, where a whole self-test leaves what `certify` asks for.
    #[arg(long, conflicts_with = "only", value_name = "DIRECTORY")]
    out: Option<PathBuf>,
    /// Prints the table of faults and cases, and runs nothing.
    #[arg(long)]
    matrix: bool,
    /// Turns this case's failures into passes: the self-test must notice.
    #[arg(long, hide = true, value_name = "ID")]
    sabotage: Option<String>,
}

impl SelftestOptions {
    fn specs(&self) -> &[Spec] {
        slice::from_ref(&self.scratch)
    }
}

/// How many of one kind were run, and how many were as they should be.
#[derive(Default)]
struct Count {
    run: usize,
    good: usize,
}

impl Count {
    fn add(&mut self, good: bool) {
        self.run += 1;
        self.good += usize::from(good);
    }

    fn all_good(&self) -> bool {
        self.run == self.good
    }
}

pub(super) fn selftest(options: &SelftestOptions) -> u8 {
    if options.matrix {
        say!("{}", selftest::matrix());
        return 0;
    }
    if let Err(text) = check(options) {
        complain!("error: {text}");
        return USAGE;
    }
    match try_selftest(options) {
        Ok(true) => 0,
        Ok(false) => HARNESS,
        Err(error) => {
            complain!("error: {error}");
            HARNESS
        }
    }
}

fn check(options: &SelftestOptions) -> Result<(), String> {
    Images::check(options.images.as_deref(), options.specs())?;
    let known = |pattern: &str| {
        let host = selftest::all().into_iter().map(|case| case.id);
        let faults = FAULTS.iter().map(|fault| fault.name);
        host.chain(faults)
            .chain([REFERENCE])
            .any(|name| matches(pattern, name))
    };
    if let Some(unknown) = options.only.iter().find(|pattern| !known(pattern)) {
        return Err(format!(
            "there is no host case and no driver that matches `{unknown}`"
        ));
    }
    match &options.sabotage {
        Some(id) if entry(id).is_none() => Err(format!("there is no case `{id}`")),
        _ => Ok(()),
    }
}

fn try_selftest(options: &SelftestOptions) -> io::Result<bool> {
    if !nix::unistd::geteuid().is_root() {
        let text = "stores with layers of every owner are made and mounted: run it as root";
        return Err(io::Error::other(text));
    }
    for fault in FAULTS {
        let source = crate::Source::Embedded(fault.name.to_owned());
        describe::plugin(&source).map_err(io::Error::other)?;
    }
    own_mounts().map_err(|refusal| io::Error::other(refusal.1))?;
    let work = images::work(options.images.as_deref())?;
    let images = Images::make(options.images.as_deref(), work.path(), options.specs())?;
    let scratch = Scratch::make(&options.scratch, &images.path).map_err(io::Error::other)?;
    let jobs = options.jobs.unwrap_or_else(usual_jobs).max(1);
    let mut lab = Lab::new(&scratch, work.path(), jobs);
    lab.sabotage.clone_from(&options.sabotage);
    let wanted = |name: &str| {
        options.only.is_empty() || options.only.iter().any(|pattern| matches(pattern, name))
    };
    let host = host_cases(&lab, &wanted);
    let faults = faults(&lab, &wanted);
    let reference = wanted(REFERENCE).then(|| reference(&lab, options.quick));
    sayln!();
    if host.run > 0 {
        sayln!("{} of {} host cases pass", host.good, host.run);
    }
    sayln!(
        "{} of {} faults caught, reference {}",
        faults.good,
        faults.run,
        match reference {
            None => "not run",
            Some(true) => "green",
            Some(false) => "RED",
        }
    );
    let passed = host.all_good() && faults.all_good() && reference != Some(false);
    if let Some(out) = &options.out {
        let record = SelftestRecord {
            program_sha256: describe::sha256(&fs::read(crate::site::PROGRAM)?),
            caught: faults.good,
            faults: faults.run,
            passed: passed && options.sabotage.is_none(),
        };
        fs::create_dir_all(out)?;
        let text = serde_json::to_vec_pretty(&record)?;
        report::replace(&out.join(SelftestRecord::FILE), &text)?;
    }
    Ok(passed)
}

fn host_cases(lab: &Lab<'_>, wanted: &dyn Fn(&str) -> bool) -> Count {
    let mut count = Count::default();
    for case in selftest::all() {
        if !wanted(case.id) {
            continue;
        }
        let start = Instant::now();
        let asserted = case::assertions();
        let mut outcome = (case.body)(lab);
        if outcome.is_ok() && case::assertions() == asserted {
            outcome = Err(case::Failure::harness("the case asserted nothing"));
        }
        let name = entry(case.id).map_or("", |entry| entry.name);
        let seconds = start.elapsed().as_secs_f32();
        count.add(outcome.is_ok());
        match outcome {
            Ok(()) => sayln!("PASS   {}  {name}  ({seconds:.1} s)", case.id),
            Err(failure) => {
                sayln!("FAIL   {}  {name}  ({seconds:.1} s)", case.id);
                sayln!("       {}", failure.text);
                if let (Some(expected), Some(actual)) = (failure.expected, failure.actual) {
                    sayln!("       expected {expected}\n       got      {actual}");
                }
            }
        }
    }
    count
}

fn faults(lab: &Lab<'_>, wanted: &dyn Fn(&str) -> bool) -> Count {
    let mut count = Count::default();
    let faults: Vec<_> = FAULTS.iter().filter(|fault| wanted(fault.name)).collect();
    for (fault, caught) in selftest::catch_all(lab, &faults) {
        count.add(matches!(caught, Caught::By(_)));
        match caught {
            Caught::By(outcomes) => {
                for outcome in outcomes {
                    sayln!(
                        "caught {:<32}by {}: {}",
                        fault.name,
                        outcome.id,
                        first_line(&outcome.message)
                    );
                }
            }
            Caught::Not(why) => {
                sayln!("MISSED {:<32}{}", fault.name, first_line(&why));
                sayln!("       its fault: {}", fault.text);
            }
        }
    }
    count
}

fn first_line(text: &str) -> String {
    const MOST: usize = 160;
    let line = text.lines().next().unwrap_or_default();
    match line.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} ...", &line[..end]),
        None => line.to_owned(),
    }
}

fn reference(lab: &Lab<'_>, quick: bool) -> bool {
    let (count, wrong) = selftest::reference(lab, quick);
    for outcome in &wrong {
        sayln!(
            "RED    {REFERENCE}  {} {}: {}",
            outcome.id,
            outcome.status.word(),
            outcome.message
        );
        if let (Some(expected), Some(actual)) = (&outcome.expected, &outcome.actual) {
            sayln!("       expected {expected}\n       got      {actual}");
        }
    }
    sayln!(
        "{REFERENCE}: {} of {count} cases as they should be",
        count - wrong.len()
    );
    wrong.is_empty()
}
