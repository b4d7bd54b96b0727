// SPDX-License-Identifier: Apache-2.0
//! The list of ten changes on bases of different sizes, on btrfs: by the driver's own list and by
//! the comparison of whole trees that containers-storage makes.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, ensure};

use super::{Options, Scratch, Tool, text};
use crate::run;

const SIZES: [u64; 2] = [50, 800];
/// A base of that many files in each megabyte has the mean size of files that images have.
const FILES_IN_A_MEGABYTE: u64 = 40;
const FILES_IN_A_DIRECTORY: u64 = 12;

const GOAL_RATIO: f64 = 20.0;
/// How much more the largest base may cost than the smallest.
const GOAL_FLAT: f64 = 2.0;

const BASE: &str = "ba5e000000000000000000000000000000000000000000000000000000000000";
const TOP: &str = "70b0000000000000000000000000000000000000000000000000000000000000";

const COMMANDS: [&[&str]; 3] = [
    &["changes", TOP],
    &["diffsize", TOP],
    &["diff", "--uncompressed", TOP],
];

/// One median for each command.
type Medians = Vec<f64>;

pub(super) fn run(options: &Options, holder: &Path) -> Result<()> {
    println!("milliseconds, median of {} runs", options.rounds);
    println!("{:<36}{:>10}{:>10}{:>10}", "", "plywood", "go", "ratio");
    let mut missed = Vec::new();
    let mut by_size = Vec::new();
    for megabytes in SIZES {
        let (ours, theirs) = measure(options, holder, megabytes)?;
        for (index, command) in COMMANDS.iter().enumerate() {
            let ratio = theirs[index] / ours[index];
            let what = format!("{} on {megabytes} MB", command[0]);
            println!(
                "{what:<36}{:>10.1}{:>10.1}{ratio:>9.1}x",
                ours[index], theirs[index]
            );
            if megabytes == SIZES[1] && ratio < GOAL_RATIO {
                missed.push(format!("{what}: {ratio:.1}x, the goal is {GOAL_RATIO}x"));
            }
        }
        by_size.push(ours);
    }
    for (index, command) in COMMANDS.iter().enumerate() {
        let growth = by_size[1][index] / by_size[0][index];
        println!(
            "{} from {} to {} MB: {growth:.2}x",
            command[0], SIZES[0], SIZES[1]
        );
        if growth > GOAL_FLAT {
            missed.push(format!("{}: grows {growth:.2}x with the base", command[0]));
        }
    }
    ensure!(
        !options.check || missed.is_empty(),
        "goals missed:\n{}",
        missed.join("\n")
    );
    Ok(())
}

fn measure(options: &Options, holder: &Path, megabytes: u64) -> Result<(Medians, Medians)> {
    let scratch = Scratch::btrfs(holder)?;
    let store = Store(scratch.mount.clone());
    store.fill(megabytes)?;
    let medians = |tool: Tool| -> Result<Medians> {
        let medians = COMMANDS.iter();
        medians
            .map(|command| store.median(tool, command, options.rounds))
            .collect()
    };
    // Not in turns: who reads whole trees changes access times, which generation numbers show.
    let ours = medians(Tool::Plywood)?;
    let theirs = medians(Tool::Go)?;
    let again = store.median(Tool::Plywood, COMMANDS[0], options.rounds)?;
    let what = format!("changes on {megabytes} MB, read by go");
    println!("{what:<36}{again:>10.1}");
    let lists = [Tool::Plywood, Tool::Go].map(|tool| store.lines(tool));
    let [ours_list, theirs_list] = lists;
    ensure!(ours_list? == theirs_list?, "the two lists differ");
    Ok((ours, theirs))
}

struct Store(PathBuf);

impl Store {
    /// Makes the base, and a layer on it with ten changed files.
    fn fill(&self, megabytes: u64) -> Result<()> {
        let base = self.layer(&["--id", BASE])?;
        let files = megabytes * FILES_IN_A_MEGABYTE;
        let length = (megabytes << 20) / files;
        let mut content = vec![0; usize::try_from(length)?];
        for number in 0..files {
            let path = base.join(name(number));
            if number % FILES_IN_A_DIRECTORY == 0 {
                fs::create_dir_all(path.parent().context("it has a directory")?)?;
            }
            fill(&mut content, number);
            fs::write(path, &content)?;
        }
        run::check(run::command("sync", ["-f", text(&self.0)?]))?;
        let top = self.layer(&["--id", TOP, BASE])?;
        for index in 0..10 {
            // Evenly over the tree.
            let path = top.join(name(files / 10 * index));
            match index {
                0..6 => fs::write(path, format!("changed {index}"))?,
                6 | 7 => fs::remove_file(path)?,
                _ => fs::write(path.with_extension("new"), "new")?,
            }
        }
        Ok(())
    }

    /// Makes a layer; its tree.
    fn layer(&self, arguments: &[&str]) -> Result<PathBuf> {
        let mut create = self.command(Tool::Plywood);
        create.arg("create-layer").args(arguments);
        run::output(create)?;
        let id = arguments.get(1).context("the id comes first")?;
        Ok(self.0.join("g/btrfs/subvolumes").join(id))
    }

    fn command(&self, tool: Tool) -> Command {
        let shown = |name: &str| self.0.join(name).display().to_string();
        let program = tool.program();
        let mut command = run::command(program, ["-s", "btrfs"]);
        command.args(["--graph", &shown("g"), "--run", &shown("r")]);
        command
    }

    fn median(&self, tool: Tool, arguments: &[&str], rounds: usize) -> Result<f64> {
        let mut times = Vec::new();
        for round in 0..=rounds {
            let mut command = self.command(tool);
            command.args(arguments).stdout(Stdio::null());
            let start = Instant::now();
            run::check(command)?;
            // The first one warms up.
            if round > 0 {
                times.push(start.elapsed().as_secs_f64() * 1000.0);
            }
        }
        times.sort_by(f64::total_cmp);
        Ok(times[times.len() / 2])
    }

    fn lines(&self, tool: Tool) -> Result<Vec<String>> {
        let mut command = self.command(tool);
        command.args(COMMANDS[0]);
        let printed = run::output(command)?;
        let mut lines: Vec<String> = printed.lines().map(str::to_owned).collect();
        lines.sort();
        Ok(lines)
    }
}

fn name(number: u64) -> String {
    let directory = number / FILES_IN_A_DIRECTORY;
    format!("usr/{}/{directory}/file-{number}", directory / 40)
}

/// Bytes that do not compress.
fn fill(content: &mut [u8], seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for chunk in content.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        chunk.copy_from_slice(&state.to_le_bytes()[..chunk.len()]);
    }
}
