// SPDX-License-Identifier: Apache-2.0
//! Walks a newcomer through a store: load, mount, run, change, diff, save.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::{image, run, setup};

#[derive(Args)]
pub(crate) struct Options {
    /// Uses a debug build (faster to build, slower to run).
    #[arg(long)]
    dev: bool,
    /// The driver.
    #[arg(long, default_value = "overlay")]
    driver: String,
    /// An image to load instead of the small one that the demo makes.
    #[arg(long)]
    image: Option<PathBuf>,
    /// Keeps the store and says where it is.
    #[arg(long)]
    keep: bool,
}

impl Options {
    /// The demo as the tests run it.
    pub(crate) fn for_tests() -> Self {
        Self {
            dev: true,
            driver: "overlay".into(),
            image: None,
            keep: false,
        }
    }
}

const NAME: &str = "localhost/plywood-demo:latest";

struct Demo {
    plywood: PathBuf,
    root: PathBuf,
    driver: String,
    step: u32,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure!(
        run::is_root(),
        "the demo mounts layers, which needs root\nhint: run `sudo -E cargo xtask demo`, or in a virtual machine"
    );
    setup::install(setup::Need::Demo)?;
    let profile = if options.dev {
        run::Profile::Dev
    } else {
        run::Profile::Release
    };
    println!(
        "building plywood and its driver plugins ({})",
        profile.directory()
    );
    run::build(profile)?;
    // Overlay refuses another overlay as its backing file system, and some machines have one
    // below the temporary directory: stay beside the build.
    let holder = tempfile::Builder::new()
        .prefix("demo-")
        .tempdir_in(run::target_dir())
        .context("cannot make a folder for the demo's store")?;
    let mut demo = Demo {
        plywood: run::built(profile, "plywood"),
        root: holder.path().to_path_buf(),
        driver: options.driver.clone(),
        step: 0,
    };
    let outcome = demo.walk(options.image.as_deref());
    if options.keep {
        println!("the store is kept in {}", holder.keep().display());
        return outcome;
    }
    let shutdown = demo.plywood(&["shutdown", "--force"]).map(drop);
    outcome.and(shutdown)
}

impl Demo {
    fn walk(&mut self, source: Option<&Path>) -> Result<()> {
        let made = self.root.join("image");
        let source = if let Some(given) = source {
            given.to_path_buf()
        } else {
            self.say("makes a runnable image from this machine's busybox, as an OCI layout");
            image::write_layout(&made)?;
            made
        };
        self.say("asks which drivers there are");
        self.show(&["driver", "list"])?;
        self.say("loads the image: each layer is unpacked by core, in a place the driver gave");
        self.show(&["image", "load", path(&source)?, NAME])?;
        self.show(&["image", NAME])?;
        let container = self.container()?;
        let mounted = self.mount_and_run(&container)?;
        self.change(&container, &mounted)?;
        self.save()?;
        self.podman()?;
        self.say("removes the container and the image; the layers go with it");
        self.show(&["delete-container", &container])?;
        self.show(&["delete-image", NAME])?;
        let left = self.plywood(&["layers"])?;
        ensure!(
            left.is_empty(),
            "layers are left after the image was deleted: {left}"
        );
        println!("\nThat is all: nothing is left in the store.");
        Ok(())
    }

    fn container(&mut self) -> Result<String> {
        self.say("makes a container: a writable layer on the image");
        let text = self.show(&["create-container", "--name", "demo", NAME])?;
        text.lines()
            .next()
            .map(str::to_owned)
            .context("no container id was printed")
    }

    fn mount_and_run(&mut self, container: &str) -> Result<PathBuf> {
        self.say("mounts it, and runs a program inside");
        let mounted = PathBuf::from(self.show(&["mount", container])?);
        let mut program = run::command("chroot", [mounted.as_path()]);
        program.args([
            "/bin/sh",
            "-c",
            "echo \"$(cat /etc/greeting), uid $(id -u)\"",
        ]);
        println!("   $ {}", run::shown(&program));
        let said = run::output(program)?;
        print_indented(&said);
        Ok(mounted)
    }

    fn change(&mut self, container: &str, mounted: &Path) -> Result<()> {
        self.say("changes a file, adds one and removes one");
        fs::write(mounted.join("etc/greeting"), "changed\n").context("cannot change a file")?;
        fs::write(mounted.join("etc/new"), "new\n").context("cannot add a file")?;
        fs::remove_file(mounted.join("etc/group")).context("cannot remove a file")?;
        self.show(&["unmount", container])?;
        let record = self.plywood(&["container", "--json", container])?;
        let record: serde_json::Value = serde_json::from_str(&record)?;
        let layer = record[0]["layer"]
            .as_str()
            .context("the container has no layer")?
            .to_owned();
        let changes = self.show(&["changes", &layer])?;
        for expected in [
            "Modify \"/etc/greeting\"",
            "Add \"/etc/new\"",
            "Delete \"/etc/group\"",
        ] {
            ensure!(
                changes.contains(expected),
                "`{expected}` is missing among the changes"
            );
        }
        let tar = self.root.join("diff.tar");
        self.show(&["diff", "--uncompressed", "--file", path(&tar)?, &layer])?;
        let list = run::command("tar", ["-tvf", path(&tar)?]);
        println!("   $ {}", run::shown(&list));
        print_indented(&run::output(list)?);
        Ok(())
    }

    fn save(&mut self) -> Result<()> {
        self.say("saves the image as an archive that podman, buildah and skopeo read");
        let archive = self.root.join("saved.tar");
        let destination = format!("docker-archive:{}", path(&archive)?);
        self.show(&["image", "save", NAME, &destination])?;
        println!("   {} bytes", fs::metadata(&archive)?.len());
        Ok(())
    }

    fn podman(&mut self) -> Result<()> {
        self.say("runs the image with podman, from the same store");
        let script = "umount -l -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; \
                      ulimit -n 1024; ulimit -u 1000; exec \"$@\"";
        let mut command = run::command("unshare", ["-m", "bash", "-c", script, "podman-env"]);
        let (graph, run_root) = self.roots();
        command
            .args([
                "podman",
                "--root",
                path(&graph)?,
                "--runroot",
                path(&run_root)?,
            ])
            .args([
                "--storage-driver",
                &self.driver,
                "--cgroup-manager=cgroupfs",
            ])
            .args(["run", "--rm", "--network=none", "--cgroups=disabled", NAME])
            .args(["/bin/cat", "/etc/greeting"]);
        println!("   $ podman run --rm {NAME} /bin/cat /etc/greeting");
        let said = run::output(command)?;
        print_indented(&said);
        if !said.contains("hello") && self.root.join("image").exists() {
            bail!("podman printed something else than the image's greeting");
        }
        Ok(())
    }

    fn roots(&self) -> (PathBuf, PathBuf) {
        (self.root.join("graph"), self.root.join("run"))
    }

    fn say(&mut self, text: &str) {
        self.step += 1;
        println!("\n{}. Plywood {text}.", self.step);
    }

    fn show(&self, arguments: &[&str]) -> Result<String> {
        println!("   $ plywood {}", arguments.join(" "));
        let text = self.plywood(arguments)?;
        print_indented(&text);
        Ok(text)
    }

    fn plywood(&self, arguments: &[&str]) -> Result<String> {
        let (graph, run_root) = self.roots();
        let mut command = Command::new(&self.plywood);
        command.args(["--graph", path(&graph)?, "--run", path(&run_root)?]);
        command
            .args(["--storage-driver", &self.driver])
            .args(arguments);
        run::output(command)
    }
}

fn path(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("`{}` is not UTF-8", path.display()))
}

fn print_indented(text: &str) {
    for line in text.lines().take(40) {
        println!("     {line}");
    }
    if text.lines().count() > 40 {
        println!("     ... {} more lines", text.lines().count() - 40);
    }
}
