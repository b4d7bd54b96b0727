// SPDX-License-Identifier: Apache-2.0
//! Holds every driver to the conformance suite, loaded and linked in, on every file system that it
//! claims.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::{run, zfs};

/// What is run.
#[derive(Args, Debug, Default)]
pub(crate) struct Options {
    /// Only the quick cases.
    #[arg(long)]
    quick: bool,
    /// Only these drivers.
    #[arg(long, value_delimiter = ',')]
    driver: Vec<String>,
    /// Only this form: plugin or linked.
    #[arg(long, value_parser = ["plugin", "linked"])]
    form: Option<String>,
    /// The whole test of the suite itself, also with the quick cases alone.
    #[arg(long)]
    whole_selftest: bool,
    /// Seeds everything random.
    #[arg(long)]
    seed: Option<String>,
}

impl Options {
    /// Every driver in every form with the quick cases; the test of the suite is whole unless
    /// `quick`, and leaves the record that the example of a vendor's driver needs.
    pub(crate) fn for_tests(quick: bool) -> Self {
        Self {
            quick: true,
            whole_selftest: !quick,
            ..Self::default()
        }
    }

    /// The quick cases are not worth a build of their own.
    fn profile(&self) -> run::Profile {
        if self.quick {
            run::Profile::Dev
        } else {
            run::Profile::Suite
        }
    }

    fn wants(&self, driver: &str, form: &str) -> bool {
        let named = self.driver.is_empty() || self.driver.iter().any(|only| only == driver);
        named && self.form.as_deref().is_none_or(|only| only == form)
    }
}

/// Drivers and the file systems that they claim.
const DRIVERS: &[(&str, &[&str])] = &[
    ("overlay", &["loop:ext4", "loop:xfs", "loop:btrfs", "tmpfs"]),
    ("vfs", &["loop:ext4", "loop:xfs", "loop:btrfs", "tmpfs"]),
    ("btrfs", &["loop:btrfs"]),
    ("additional-layer-store", &["loop:ext4", "tmpfs"]),
];

/// The suite, with drivers linked in and without, and every driver as plugin.
const PACKAGES: &[&str] = &[
    "plywood-conformance",
    "plywood-conformance-linked",
    "plywood-driver-additional-layer-store-plugin",
    "plywood-driver-btrfs-plugin",
    "plywood-driver-overlay-plugin",
    "plywood-driver-vfs-plugin",
];

/// Runs the suite's test of itself, then the suite over every driver.
pub(crate) fn run(options: &Options) -> Result<()> {
    if let [only] = &options.driver[..]
        && only == "zfs"
    {
        // Its file system is in the virtual machine.
        let (form, seed) = (options.form.clone(), options.seed.clone());
        return zfs::run(&zfs::Options::suite(!options.quick, form, seed));
    }
    let known = |driver: &String| DRIVERS.iter().any(|(name, _)| name == driver);
    if let Some(other) = options.driver.iter().find(|driver| !known(driver)) {
        bail!(
            "`{other}` is no driver that is run here\nhint: zfs is run by itself, with `--driver zfs`"
        );
    }
    let profile = options.profile();
    run::build_packages(profile, PACKAGES)?;
    let suite = run::built(profile, "plywood-conformance");
    let linked = run::built(profile, "plywood-conformance-linked");
    if options.driver.is_empty() && options.form.is_none() {
        selftest(&suite, options.quick && !options.whole_selftest)?;
    }
    let mut runs = Runs::default();
    for (driver, claimed) in DRIVERS {
        for form in ["plugin", "linked"] {
            if !options.wants(driver, form) {
                continue;
            }
            // The quick run takes one file system on a disk, and memory where it is claimed.
            let scratch = match (options.quick, form) {
                (false, _) => *claimed,
                (true, "plugin") => &claimed[..1],
                (true, _) => &claimed[claimed.len() - 1..],
            };
            let mut command = if form == "plugin" {
                with_plugin(&suite, profile, driver)
            } else {
                let mut command = run::command(&linked, ["run"]);
                command.args(["--embedded", driver]);
                command
            };
            if options.quick {
                command.args(["--group", "quick"]);
            }
            if let Some(seed) = &options.seed {
                command.args(["--seed", seed]);
            }
            runs.add(driver, form, command, scratch)?;
        }
    }
    if options.wants("overlay", "plugin") {
        // The program's own faults are listed by case; what is random must find the same ones.
        let known = run::workspace().join("drivers/overlay/tests/fuse-overlayfs.txt");
        let program = run::found_on_path("fuse-overlayfs")
            .context("fuse-overlayfs is missing\nhint: run `cargo xtask setup`")?;
        let mut command = with_plugin(&suite, profile, "overlay");
        command
            .arg("--storage-opt")
            .arg(format!("overlay.mount_program={}", program.display()))
            .args(["--group", "quick", "--seed", "1", "--known-failures"])
            .arg(known);
        runs.add("overlay", "fuse", command, &["loop:ext4"])?;
    }
    runs.end()
}

fn with_plugin(suite: &Path, profile: run::Profile, driver: &str) -> Command {
    let file = format!("libplywood_driver_{}.so", driver.replace('-', "_"));
    let mut command = run::command(suite, ["run"]);
    command.arg(run::built(profile, &file));
    command
}

/// What runs there were, and what came of them.
#[derive(Default)]
struct Runs {
    lines: Vec<String>,
    failed: usize,
}

impl Runs {
    fn add(
        &mut self,
        driver: &str,
        form: &str,
        mut command: Command,
        scratch: &[&str],
    ) -> Result<()> {
        let out = place(&format!("{driver}-{form}"))?;
        command
            .args(["--scratch", &scratch.join(","), "--out"])
            .arg(&out);
        println!("-- {driver} as {form} on {}", scratch.join(", "));
        let start = Instant::now();
        let status = command.stdout(log(&out)?).status()?;
        let seconds = start.elapsed().as_secs();
        let text = fs::read_to_string(out.join("log.txt"))?;
        let result = text.lines().last().unwrap_or("no result");
        if !status.success() {
            self.failed += 1;
            print!("{text}");
        }
        let line = format!("{driver:<24}{form:<8}{seconds:>4} s  {result}");
        self.lines.push(line);
        Ok(())
    }

    fn end(&self) -> Result<()> {
        println!("{}", self.lines.join("\n"));
        if self.failed > 0 {
            bail!(
                "{} of {} runs were no success",
                self.failed,
                self.lines.len()
            );
        }
        Ok(())
    }
}

/// Tests the suite itself; the record that a whole test leaves is what certificates need.
fn selftest(suite: &Path, quick: bool) -> Result<()> {
    let out = place("selftest")?;
    println!("-- the suite's test of itself");
    let mut command = run::command(suite, ["selftest"]);
    if quick {
        command.arg("--quick");
    } else {
        command.arg("--out").arg(&out);
    }
    let start = Instant::now();
    let status = command
        .stdout(log(&out)?)
        .stderr(error_log(&out)?)
        .status()?;
    let text = fs::read_to_string(out.join("log.txt"))?;
    if !status.success() {
        print!("{text}");
        eprint!("{}", fs::read_to_string(out.join("errors.txt"))?);
        bail!("the suite does not pass its own test");
    }
    let seconds = start.elapsed().as_secs();
    println!(
        "{seconds} s  {}",
        text.lines().last().unwrap_or("no result")
    );
    Ok(())
}

fn place(name: &str) -> Result<PathBuf> {
    let place = run::target_dir().join("conformance").join(name);
    if place.exists() {
        fs::remove_dir_all(&place)?;
    }
    fs::create_dir_all(&place)?;
    Ok(place)
}

/// Panics that a host case provokes are no news for a terminal.
fn error_log(out: &Path) -> Result<fs::File> {
    Ok(fs::File::create(out.join("errors.txt"))?)
}

fn log(out: &Path) -> Result<fs::File> {
    Ok(fs::File::create(out.join("log.txt"))?)
}
