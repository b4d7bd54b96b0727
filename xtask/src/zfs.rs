// SPDX-License-Identifier: Apache-2.0
//! The zfs driver on real `OpenZFS`, in the virtual machine.

use std::{fmt::Write as _, fs};

use anyhow::{Context, Result};
use clap::Args;

use crate::{run, setup, vm};

/// What is run.
#[derive(Args, Debug, Default)]
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
    /// Only this form: plugin or linked.
    #[arg(long, value_parser = ["plugin", "linked"])]
    form: Option<String>,
    /// Seeds everything random in the suite.
    #[arg(long)]
    seed: Option<String>,
}

impl Options {
    /// What continuous integration has time for.
    pub(crate) fn quick() -> Self {
        Self {
            scripts: 5,
            ..Self::default()
        }
    }

    /// The suite alone, in `form` or in those that a run has without being asked.
    pub(crate) fn suite(all: bool, form: Option<String>, seed: Option<String>) -> Self {
        Self {
            all,
            suite: true,
            form,
            seed,
            ..Self::default()
        }
    }

    /// Whether the suite runs over this form. The quick cases are run on the plugin alone, unless
    /// the other form is asked for: continuous integration has no time for both.
    fn wants(&self, form: &str) -> bool {
        match &self.form {
            Some(only) => only == form,
            None => self.all || form == "plugin",
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

/// The command lines of the suite. What fails in one form does not keep the other from being run.
fn suite(options: &Options, profile: run::Profile) -> String {
    let path = |name: &str| vm::quoted(&run::built(profile, name).display().to_string());
    let cases = if options.all {
        "--skip-group perf"
    } else {
        "--group quick"
    };
    let seed = match &options.seed {
        Some(seed) => format!("--seed {}", vm::quoted(seed)),
        None => String::new(),
    };
    let suite = path("plywood-conformance");
    let plugin = path("libplywood_driver_zfs.so");
    let linked = path("plywood-conformance-linked");
    let forms = [
        ("plugin", format!("{suite} run {plugin}")),
        ("linked", format!("{linked} run --embedded zfs")),
    ];
    let wanted = forms.iter().filter(|(form, _)| options.wants(form));
    let lines: Vec<_> = wanted
        .map(|(form, command)| {
            format!(
                "{command} --scratch loop:zfs --patience {PATIENCE} --verbose {cases} {seed} \
                 --out /share/{form} || failed=$?\n"
            )
        })
        .collect();
    format!("failed=0\n{}exit $failed\n", lines.concat())
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
            return Ok(vm::quoted(path));
        }
    }
    anyhow::bail!("cargo does not say where the tests of zfs are")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(all: bool, form: Option<&str>) -> Vec<&'static str> {
        let options = Options::suite(all, form.map(str::to_owned), None);
        let script = suite(&options, run::Profile::Dev);
        let all = ["plugin", "linked"].into_iter();
        all.filter(|form| script.contains(&format!("--out /share/{form} || failed=$?\n")))
            .collect()
    }

    #[test]
    fn both_forms_are_run_where_there_is_time_and_one_where_it_is_asked_for() {
        assert_eq!(forms(false, None), ["plugin"]);
        assert_eq!(forms(true, None), ["plugin", "linked"]);
        for all in [false, true] {
            assert_eq!(forms(all, Some("plugin")), ["plugin"]);
            assert_eq!(forms(all, Some("linked")), ["linked"]);
        }
    }

    #[test]
    fn a_seed_reaches_the_suite_as_one_word() {
        let options = Options::suite(true, None, Some("7 'of' 9".to_owned()));
        let script = suite(&options, run::Profile::Suite);
        assert_eq!(
            script.matches(r"--seed '7 '\''of'\'' 9' ").count(),
            2,
            "{script}"
        );
    }
}
