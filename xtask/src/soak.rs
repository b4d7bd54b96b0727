// SPDX-License-Identifier: Apache-2.0
//! Two plywood and two containers-storage processes at work on one store.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{run, setup};

#[derive(Args)]
pub(crate) struct Options {
    /// How long.
    #[arg(long, default_value_t = 300)]
    pub(crate) seconds: u64,
    /// The driver.
    #[arg(long, default_value = "overlay")]
    pub(crate) driver: String,
    /// Uses a debug build.
    #[arg(long)]
    pub(crate) dev: bool,
}

struct Worker {
    name: String,
    program: PathBuf,
    global: Vec<String>,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(run::is_root(), "the soak mounts layers, which needs root");
    setup::install(setup::Need::Test)?;
    let profile = if options.dev {
        run::Profile::Dev
    } else {
        run::Profile::Release
    };
    run::build(profile)?;
    let root = tempfile::Builder::new()
        .prefix("soak-")
        .tempdir_in(run::target_dir())?;
    let global = |root: &Path| {
        let shown = |name: &str| root.join(name).display().to_string();
        let driver = options.driver.clone();
        [
            "--graph".into(),
            shown("graph"),
            "--run".into(),
            shown("run"),
            "-s".into(),
            driver,
        ]
        .to_vec()
    };
    let workers: Vec<Worker> = [("p1", true), ("p2", true), ("g1", false), ("g2", false)]
        .map(|(name, ours)| Worker {
            name: name.to_owned(),
            program: if ours {
                run::built(profile, "plywood")
            } else {
                "containers-storage".into()
            },
            global: global(root.path()),
        })
        .into();
    let base = make_base(&workers[0], root.path())?;
    let end = Instant::now() + Duration::from_secs(options.seconds);
    let failures = Mutex::new(Vec::new());
    let rounds = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for worker in &workers {
            scope.spawn(|| match worker.work(&base, root.path(), end) {
                Ok(count) => rounds
                    .lock()
                    .expect("no panic")
                    .push((worker.name.clone(), count)),
                Err(error) => failures
                    .lock()
                    .expect("no panic")
                    .push(format!("{error:#}")),
            });
        }
    });
    let failures = failures.into_inner().expect("no panic");
    let outcome = if failures.is_empty() {
        agree(&workers, &base)
    } else {
        Ok(())
    };
    workers[0].call(&["shutdown", "--force"]).ok();
    ensure!(
        failures.is_empty(),
        "{} of 4 processes failed:\n{}",
        failures.len(),
        failures.join("\n")
    );
    outcome?;
    let rounds = rounds.into_inner().expect("no panic");
    println!(
        "soak: {} seconds on {}, rounds {rounds:?}, both tools agree",
        options.seconds, options.driver
    );
    Ok(())
}

fn make_base(worker: &Worker, root: &Path) -> Result<String> {
    let tree = root.join("tree");
    fs::create_dir_all(tree.join("etc"))?;
    for number in 0..200 {
        fs::write(tree.join(format!("etc/f{number}")), "x".repeat(number * 7))?;
    }
    let tar = root.join("base.tar");
    let shown = tar.display().to_string();
    run::check(run::command(
        "tar",
        ["-C", &tree.display().to_string(), "-cf", &shown, "."],
    ))?;
    let id = worker.call(&["import-layer", "--file", &shown])?;
    let id = id
        .lines()
        .next()
        .context("no layer id was printed")?
        .to_owned();
    worker.call(&["create-image", "--name", "soak", &id])?;
    Ok(id)
}

/// What the store must look like when all workers are done.
fn agree(workers: &[Worker], base: &str) -> Result<()> {
    let seen: Vec<[String; 3]> = workers
        .iter()
        .map(|worker| {
            Ok([
                worker.call(&["layers"])?,
                worker.call(&["images"])?,
                worker.call(&["containers"])?,
            ])
        })
        .collect::<Result<_>>()?;
    ensure!(
        seen.iter().all(|one| *one == seen[0]),
        "the tools do not agree: {seen:#?}"
    );
    ensure!(
        seen[0][2].is_empty(),
        "containers are left over: {}",
        seen[0][2]
    );
    let ids = seen[0][0]
        .lines()
        .filter(|line| !line.starts_with('\t'))
        .count();
    ensure!(
        ids == 1 && seen[0][0].starts_with(base),
        "layers are left over: {}",
        seen[0][0]
    );
    Ok(())
}

impl Worker {
    fn call(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.program);
        command.args(&self.global).args(arguments);
        run::output(command).with_context(|| format!("{}: {}", self.name, arguments.join(" ")))
    }

    fn work(&self, base: &str, root: &Path, end: Instant) -> Result<u32> {
        let tar = root
            .join(format!("{}.tar", self.name))
            .display()
            .to_string();
        let mut round = 0;
        while Instant::now() < end {
            round += 1;
            let name = format!("{}-{round}", self.name);
            self.container(&name, &tar)?;
            self.layer(base, &name, &tar)?;
        }
        Ok(round)
    }

    fn container(&self, name: &str, tar: &str) -> Result<()> {
        self.call(&["create-container", "--name", name, "soak"])?;
        let mounted = PathBuf::from(self.call(&["mount", name])?);
        fs::write(mounted.join("etc/mine"), name)
            .with_context(|| format!("{name}: cannot write below `{}`", mounted.display()))?;
        fs::remove_file(mounted.join("etc/f7"))
            .with_context(|| format!("{name}: cannot remove"))?;
        self.call(&["unmount", name])?;
        let record = self.call(&["container", "--json", name])?;
        let record: serde_json::Value = serde_json::from_str(&record)?;
        let layer = record[0]["layer"]
            .as_str()
            .context("no layer in the record")?;
        let changes = self.call(&["changes", layer])?;
        ensure!(
            changes.contains("Add \"/etc/mine\""),
            "{name}: changes say {changes}"
        );
        ensure!(
            changes.contains("Delete \"/etc/f7\""),
            "{name}: changes say {changes}"
        );
        self.call(&["diff", "-u", "-f", tar, layer])?;
        self.call(&["delete-container", name]).map(drop)
    }

    /// Imports the container's diff as a layer and exports it again.
    fn layer(&self, base: &str, name: &str, tar: &str) -> Result<()> {
        let id = self.call(&["import-layer", "--name", name, "--file", tar, base])?;
        let id = id
            .lines()
            .next()
            .context("no layer id was printed")?
            .to_owned();
        let back = format!("{tar}.back");
        self.call(&["diff", "-u", "-f", &back, &id])?;
        ensure!(
            fs::read(tar)? == fs::read(&back)?,
            "{name}: the exported layer differs"
        );
        self.call(&["delete-layer", &id]).map(drop)
    }
}
