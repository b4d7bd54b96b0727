// SPDX-License-Identifier: Apache-2.0
//! Import and diff of real layers, against containers-storage and bsdtar, alternating in one run.
//!
//! Every figure is a ratio of medians of the same run: times alone mean nothing on a shared
//! machine. Each import starts with an empty store on a file system without history, since ext4
//! is slow for minutes after a large deletion.

mod changes;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};

use crate::{corpus, run, setup};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    /// Import and diff of whole layers.
    Layers,
    /// Ten changes on a small and on a large base, on btrfs.
    Changes,
}

#[derive(Args)]
pub(crate) struct Options {
    /// What is measured.
    #[arg(value_enum, default_value = "layers")]
    what: What,
    /// Runs of each program.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Which layers: base, big, small or all.
    #[arg(long, default_value = "all")]
    layers: String,
    /// Where the layers are or will be made.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Fails unless the ratios reach the goals: 3 on tmpfs, 1 on ext4, 32 MiB.
    #[arg(long)]
    check: bool,
    /// Leaves ext4 out.
    #[arg(long)]
    no_ext4: bool,
}

/// What one run of a program took.
#[derive(Clone, Copy, Debug)]
struct Figure {
    wall: f64,
    cpu: f64,
    peak_kib: f64,
}

const GOAL_TMPFS: f64 = 3.0;
const GOAL_EXT4: f64 = 1.0;
const GOAL_PEAK_KIB: f64 = 32.0 * 1024.0;

/// A scratch file system; unmounted and deleted when dropped.
struct Scratch {
    mount: PathBuf,
    image: Option<PathBuf>,
}

impl Scratch {
    fn tmpfs(parent: &Path) -> Result<Self> {
        let mount = parent.join("tmpfs");
        fs::create_dir_all(&mount)?;
        run::check(run::command(
            "mount",
            ["-t", "tmpfs", "tmpfs", text(&mount)?],
        ))?;
        Ok(Self { mount, image: None })
    }

    fn ext4(parent: &Path) -> Result<Self> {
        Self::of_file(
            parent,
            "mkfs.ext4",
            &["-q", "-F", "-E", "lazy_itable_init=0"],
        )
    }

    fn btrfs(parent: &Path) -> Result<Self> {
        Self::of_file(parent, "mkfs.btrfs", &["-q", "-f"])
    }

    fn of_file(parent: &Path, make: &str, arguments: &[&str]) -> Result<Self> {
        let (mount, image) = (parent.join("mounted"), parent.join("image"));
        fs::create_dir_all(&mount)?;
        fs::File::create(&image)?.set_len(8 << 30)?;
        let image_text = text(&image)?;
        run::check(run::command(make, [arguments, &[image_text]].concat()))?;
        run::check(run::command(
            "mount",
            ["-o", "loop", text(&image)?, text(&mount)?],
        ))?;
        Ok(Self {
            mount,
            image: Some(image),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Only what this value mounted; the tools' own mounts below go with it.
        let unmounted = Command::new("umount").arg("-R").arg(&self.mount).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("warning: cannot unmount `{}`", self.mount.display());
        }
        if let Some(image) = &self.image
            && let Err(error) = fs::remove_file(image)
        {
            eprintln!("warning: cannot remove `{}`: {error}", image.display());
        }
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        run::is_root(),
        "the benchmark mounts file systems, which needs root"
    );
    setup::install(setup::Need::All)?;
    if options.what == What::Changes {
        let packages = ["-p", "plywood-cli", "-p", "plywood-driver-btrfs-plugin"];
        run::cargo(&[&["build", "--quiet", "--release"][..], &packages].concat())?;
        let holder = holder()?;
        return changes::run(options, holder.path());
    }
    run::build(run::Profile::Release)?;
    let layers = options
        .corpus
        .clone()
        .unwrap_or_else(|| run::target_dir().join("corpus"));
    corpus::make(&layers, &options.layers)?;
    let names: Vec<&str> = match options.layers.as_str() {
        "all" => vec!["base", "big", "small"],
        one => vec![one],
    };
    let holder = holder()?;
    let mut bench = Bench {
        holder: holder.path().to_path_buf(),
        options,
        missed: Vec::new(),
    };
    println!("{:<28}{:>12}{:>12}{:>14}", "", "wall", "cpu", "peak MiB");
    for name in names {
        for extension in ["tar.gz", "tar.zst", "tar"] {
            let layer = layers.join(format!("{name}.{extension}"));
            bench.tmpfs(&layer, extension == "tar")?;
        }
        if !options.no_ext4 {
            bench.ext4(&layers.join(format!("{name}.tar.gz")))?;
        }
    }
    ensure!(
        !options.check || bench.missed.is_empty(),
        "goals missed:\n{}",
        bench.missed.join("\n")
    );
    Ok(())
}

fn holder() -> Result<tempfile::TempDir> {
    let target = run::target_dir();
    Ok(tempfile::Builder::new()
        .prefix("bench-")
        .tempdir_in(target)?)
}

struct Bench<'a> {
    holder: PathBuf,
    options: &'a Options,
    missed: Vec<String>,
}

impl Bench<'_> {
    fn tmpfs(&mut self, layer: &Path, with_diff: bool) -> Result<()> {
        let mut import = [Vec::new(), Vec::new(), Vec::new()];
        let mut diff = [Vec::new(), Vec::new()];
        for _ in 0..self.options.rounds {
            for (slot, tool) in [Tool::Plywood, Tool::Go, Tool::Bsdtar]
                .into_iter()
                .enumerate()
            {
                let scratch = Scratch::tmpfs(&self.holder)?;
                import[slot].push(tool.import(&scratch.mount, layer, &["overlay.sync=none"])?);
                if with_diff && let Some(figure) = tool.diff(&scratch.mount)? {
                    diff[slot].push(figure);
                }
            }
        }
        let name = name_of(layer);
        let [ours, go, bsdtar] = import;
        self.report(&format!("import {name}"), &ours, &go, Some(GOAL_TMPFS));
        self.report(&format!("import {name} / bsdtar"), &ours, &bsdtar, None);
        if with_diff {
            let [ours, go] = diff;
            self.report(&format!("diff -u {name}"), &ours, &go, Some(GOAL_TMPFS));
        }
        Ok(())
    }

    fn ext4(&mut self, layer: &Path) -> Result<()> {
        let mut import = [Vec::new(), Vec::new()];
        for _ in 0..self.options.rounds {
            for (slot, tool) in [Tool::Plywood, Tool::Go].into_iter().enumerate() {
                let scratch = Scratch::ext4(&self.holder)?;
                import[slot].push(tool.import(&scratch.mount, layer, &[])?);
            }
        }
        let [ours, go] = import;
        self.report(
            &format!("import {} ext4", name_of(layer)),
            &ours,
            &go,
            Some(GOAL_EXT4),
        );
        Ok(())
    }

    fn report(&mut self, what: &str, ours: &[Figure], theirs: &[Figure], goal: Option<f64>) {
        let ratio = |pick: fn(&Figure) -> f64| median(theirs, pick) / median(ours, pick);
        let (wall, cpu) = (ratio(|f| f.wall), ratio(|f| f.cpu));
        let peak = median(ours, |f| f.peak_kib);
        println!(
            "{what:<28}{:>11.1}x{:>11.1}x{:>7.1} / {:.1}",
            wall,
            cpu,
            peak / 1024.0,
            median(theirs, |f| f.peak_kib) / 1024.0
        );
        if goal.is_some_and(|goal| wall < goal) {
            self.missed.push(format!("{what}: {wall:.2}x"));
        }
        if peak > GOAL_PEAK_KIB {
            self.missed
                .push(format!("{what}: peak memory {:.1} MiB", peak / 1024.0));
        }
    }
}

#[derive(Clone, Copy)]
enum Tool {
    Plywood,
    Go,
    Bsdtar,
}

const ID: &str = "be0c000000000000000000000000000000000000000000000000000000000000";

impl Tool {
    fn import(self, root: &Path, layer: &Path, options: &[&str]) -> Result<Figure> {
        if matches!(self, Self::Bsdtar) {
            let tree = root.join("tree");
            fs::create_dir_all(&tree)?;
            return timed(root, "bsdtar", &["-C", text(&tree)?, "-xpf", text(layer)?]);
        }
        let mut arguments = store(root);
        if matches!(self, Self::Plywood) {
            for option in options {
                arguments.extend(["--storage-opt".to_owned(), (*option).to_owned()]);
            }
        }
        arguments.extend(["import-layer", "--id", ID, "--file", text(layer)?].map(str::to_owned));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        timed(root, &self.program(), &arguments)
    }

    fn diff(self, root: &Path) -> Result<Option<Figure>> {
        if matches!(self, Self::Bsdtar) {
            return Ok(None);
        }
        let mut arguments = store(root);
        arguments.extend(["diff", "--uncompressed", ID].map(str::to_owned));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        timed(root, &self.program(), &arguments).map(Some)
    }

    fn program(self) -> String {
        match self {
            Self::Plywood => run::built(run::Profile::Release, "plywood")
                .display()
                .to_string(),
            Self::Go => "containers-storage".into(),
            Self::Bsdtar => "bsdtar".into(),
        }
    }
}

fn store(root: &Path) -> Vec<String> {
    let shown = |name: &str| root.join(name).display().to_string();
    let arguments = ["--graph".into(), shown("g"), "--run".into(), shown("r")];
    arguments
        .into_iter()
        .chain(["-s".into(), "overlay".into()])
        .collect()
}

/// Runs a program under time(1), its output thrown away.
fn timed(root: &Path, program: &str, arguments: &[&str]) -> Result<Figure> {
    let record = root.join("time");
    let mut all = vec!["-f", "%e %U %S %M", "-o", text(&record)?, program];
    all.extend(arguments);
    let mut command = run::command("/usr/bin/time", all);
    command.stdout(std::process::Stdio::null());
    run::check(command)?;
    let printed = fs::read_to_string(&record)?;
    let numbers: Vec<f64> = printed
        .split_whitespace()
        .filter_map(|n| n.parse().ok())
        .collect();
    let [wall, user, system, peak_kib] = numbers[..] else {
        anyhow::bail!("time(1) printed something unexpected: {printed}");
    };
    Ok(Figure {
        wall: wall.max(0.01),
        cpu: (user + system).max(0.01),
        peak_kib,
    })
}

fn median(figures: &[Figure], pick: fn(&Figure) -> f64) -> f64 {
    let mut values: Vec<f64> = figures.iter().map(pick).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn name_of(path: &Path) -> String {
    path.file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn text(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("`{}` is not UTF-8", path.display()))
}
