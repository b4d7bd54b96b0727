// SPDX-License-Identifier: Apache-2.0
//! Programs, places and comparable texts.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs,
    io::Write as _,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

/// A shell's function that lists a layer's stream; the time of a whiteout is that of the export.
pub(super) const LIST: &str = "list() { tar --numeric-owner --full-time -tvf \"$1\" | \
     sed '/[.]wh[.]/s/ [0-9-]* [0-9]*:[0-9:]* / /'; }";

/// What a program answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) code: i32,
    pub(super) out: String,
    pub(super) err: String,
}

impl Answer {
    #[track_caller]
    pub(super) fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self
    }

    /// Standard output without its last newline.
    pub(super) fn line(&self) -> &str {
        self.out.trim_end()
    }

    pub(super) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs `command` with `input`.
#[track_caller]
pub(super) fn run(command: &mut Command, input: &[u8]) -> Answer {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let answer = std::thread::scope(|scope| {
        // A program that does not read its input closes it.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap()
    });
    Answer {
        code: answer.status.code().unwrap_or(-1),
        out: String::from_utf8_lossy(&answer.stdout).into_owned(),
        err: String::from_utf8_lossy(&answer.stderr).into_owned(),
    }
}

/// The built program, with the driver plugins beside it.
pub(super) fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let program = PathBuf::from(env!("CARGO_BIN_EXE_plywood"));
        let directory = program.parent().unwrap();
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--manifest-path"]);
        build.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml"));
        build.args([
            "-p",
            "plywood-driver-additional-layer-store-plugin",
            "-p",
            "plywood-driver-btrfs-plugin",
            "-p",
            "plywood-driver-overlay-plugin",
            "-p",
            "plywood-driver-vfs-plugin",
        ]);
        if directory.ends_with("release") {
            build.arg("--release");
        }
        let built = run(&mut build, b"");
        assert_eq!(
            built.code, 0,
            "the driver plugins do not build: {}",
            built.err
        );
        for name in ["additional_layer_store", "btrfs", "overlay", "vfs"] {
            let file = directory.join(format!("libplywood_driver_{name}.so"));
            assert!(file.is_file(), "{} is missing", file.display());
        }
        program
    })
}

/// Under which name the program is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum As {
    DropIn,
    Own,
}

pub(super) fn ours(name: As) -> Command {
    let mut command = Command::new(program());
    command.arg0(match name {
        As::DropIn => "containers-storage",
        As::Own => "plywood",
    });
    clean(&mut command);
    command
}

pub(super) fn theirs() -> Command {
    let mut command = Command::new("containers-storage");
    clean(&mut command);
    command
}

/// The environment must not choose stores.
fn clean(command: &mut Command) {
    for name in [
        "STORAGE_DRIVER",
        "STORAGE_OPTS",
        "CONTAINERS_STORAGE_CONF",
        "PLYWOOD_CONF",
        "PLYWOOD_PLUGIN_PATH",
    ] {
        command.env_remove(name);
    }
    command.env("NO_COLOR", "1");
}

/// Whether a test can run; what it lacks is printed, and is a failure in CI.
#[track_caller]
pub(super) fn can_run(tools: &[&str]) -> bool {
    let is_root = fs::metadata("/proc/self").map(|meta| {
        use std::os::unix::fs::MetadataExt as _;
        meta.uid() == 0
    });
    let mut lacks = Vec::new();
    if !is_root.unwrap_or(false) {
        lacks.push("root".to_owned());
    }
    for tool in tools {
        let path = std::env::split_paths(&path_variable()).any(|dir| dir.join(tool).is_file());
        if !path {
            lacks.push((*tool).to_owned());
        }
    }
    if lacks.is_empty() {
        return true;
    }
    let text = format!("skipped: needs {}", lacks.join(", "));
    assert!(!in_ci(), "{text}");
    eprintln!("{text}");
    false
}

#[expect(clippy::disallowed_methods, reason = "tests look for tools and for CI")]
fn path_variable() -> std::ffi::OsString {
    std::env::var_os("PATH").unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "tests look for tools and for CI")]
fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// A store of its own, gone with its mounts at the end.
pub(super) struct Place {
    pub(super) dir: tempfile::TempDir,
    pub(super) driver: &'static str,
    /// What it is on, when it is on a file system of its own.
    _image: Option<tempfile::NamedTempFile>,
}

impl Place {
    /// A place on a file system with files, not in memory.
    pub(super) fn new(driver: &'static str) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("plywood-cli-")
            .tempdir_in("/var/tmp")
            .unwrap();
        let image = (driver == "btrfs").then(|| btrfs_on(dir.path()));
        Self {
            dir,
            driver,
            _image: image,
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn graph(&self) -> PathBuf {
        self.path("graph")
    }

    pub(super) fn roots(&self, command: &mut Command) {
        command
            .arg("-g")
            .arg(self.graph())
            .arg("-R")
            .arg(self.path("run"))
            .args(["-s", self.driver])
            .current_dir(self.dir.path());
    }

    /// Runs our program on this store.
    #[track_caller]
    pub(super) fn plywood(&self, args: &[&str]) -> Answer {
        self.on(ours(As::Own), args, b"")
    }

    #[track_caller]
    pub(super) fn own(&self, args: &[&str], input: &[u8]) -> Answer {
        self.on(ours(As::Own), args, input)
    }

    #[track_caller]
    pub(super) fn drop_in(&self, args: &[&str], input: &[u8]) -> Answer {
        self.on(ours(As::DropIn), args, input)
    }

    #[track_caller]
    pub(super) fn theirs(&self, args: &[&str], input: &[u8]) -> Answer {
        self.on(theirs(), args, input)
    }

    #[track_caller]
    fn on(&self, mut command: Command, args: &[&str], input: &[u8]) -> Answer {
        self.roots(&mut command);
        command.args(args);
        run(&mut command, input)
    }

    /// Podman's flags for this store.
    pub(super) fn podman_roots(&self) -> String {
        format!(
            "--root {} --runroot {} --storage-driver {} --cgroup-manager=cgroupfs",
            self.graph().display(),
            self.path("run").display(),
            self.driver,
        )
    }
}

/// Mounts a btrfs file system that is made for that; its loop device goes with the mount.
fn btrfs_on(directory: &Path) -> tempfile::NamedTempFile {
    let image = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
    image.as_file().set_len(1 << 30).unwrap();
    let mut make = Command::new("mkfs.btrfs");
    run(make.arg("-q").arg(image.path()), b"").ok();
    let mut mount = Command::new("mount");
    mount.args(["-o", "loop"]).arg(image.path()).arg(directory);
    run(&mut mount, b"").ok();
    image
}

impl Drop for Place {
    fn drop(&mut self) {
        let Ok(mounts) = fs::read_to_string("/proc/self/mountinfo") else {
            return;
        };
        let root = self.dir.path().to_string_lossy().into_owned();
        let points = mounts
            .lines()
            .rev()
            .filter_map(|line| line.split(' ').nth(4));
        for point in points.filter(|point| point.starts_with(&root)) {
            drop(Command::new("umount").args(["-l", point]).output());
        }
    }
}

/// A shell script in an environment where podman's containers start: limits that the kernel lets
/// us set, and a private mount namespace with the unified cgroup hierarchy alone.
///
/// `run IMAGE [COMMAND...]` prints what a container prints that says something. On a busy machine
/// podman loses what a short one says, now and then, and succeeds (containers/podman#7195).
#[track_caller]
pub(super) fn podman_script(place: &Place, script: &str) -> Answer {
    const PREPARE: &str = "ulimit -n 1024; ulimit -u 1000; \
        umount -l -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; set -e; \
        run() { local said try; for try in 1 2 3; do \
            said=$($P run --rm --network=none --cgroups=disabled \"$@\"); \
            [ -z \"$said\" ] || break; \
        done; echo \"$said\"; }; ";
    let mut command = Command::new("unshare");
    command.args(["-m", "bash", "-c"]);
    command.arg(format!("{PREPARE}{script}"));
    command.env("P", format!("podman {}", place.podman_roots()));
    command.env(
        "C",
        format!(
            "{} -s {} -g {} -R {}",
            program().display(),
            place.driver,
            place.graph().display(),
            place.path("run").display()
        ),
    );
    command.current_dir(place.dir.path());
    clean(&mut command);
    run(&mut command, b"")
}

/// Texts of one place made comparable: the place, ids that were drawn, times.
#[derive(Default)]
pub(super) struct Normal {
    ids: HashMap<String, usize>,
}

impl Normal {
    pub(super) fn text(&mut self, place: &Place, text: &str) -> String {
        let root = place.dir.path().to_string_lossy().into_owned();
        let text = text.replace(&root, "PLACE");
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(first) = rest.chars().next() {
            let starts = !out.ends_with(|c: char| c.is_ascii_hexdigit() || c == ':');
            if starts && hex_length(rest) == 64 {
                let next = self.ids.len();
                let number = *self.ids.entry(rest[..64].to_owned()).or_insert(next);
                write!(out, "ID{number}.").unwrap();
                rest = &rest[64..];
            } else if let Some(length) = time_at(rest) {
                out.push_str("TIME");
                rest = &rest[length..];
            } else {
                out.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
        out
    }
}

fn hex_length(text: &str) -> usize {
    text.bytes()
        .take_while(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        .count()
}

/// The length of an RFC 3339 time in UTC at the start of `text`.
fn time_at(text: &str) -> Option<usize> {
    let head = text.get(..19)?;
    let shape: String = head
        .chars()
        .map(|c| if c.is_ascii_digit() { '9' } else { c })
        .collect();
    if shape != "9999-99-99T99:99:99" || !head.starts_with("20") {
        return None;
    }
    let end = text[19..].find(|c: char| c != '.' && !c.is_ascii_digit())?;
    text[19 + end..].starts_with('Z').then_some(19 + end + 1)
}

/// A tar stream; `None` is a directory.
pub(super) fn tar_of(entries: &[(&str, Option<&[u8]>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, data) in entries {
        let mut header = tar::Header::new_ustar();
        header.set_mtime(1_600_000_000);
        header.set_uid(0);
        header.set_gid(0);
        if let Some(data) = data {
            header.set_size(data.len() as u64);
            header.set_mode(if name.starts_with("bin/") {
                0o755
            } else {
                0o644
            });
            tar.append_data(&mut header, name, *data).unwrap();
        } else {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            tar.append_data(&mut header, name, std::io::empty())
                .unwrap();
        }
    }
    tar.into_inner().unwrap()
}

/// Fails with both texts when they differ.
#[track_caller]
pub(super) fn same(what: &str, ours: &str, theirs: &str) {
    assert!(
        ours == theirs,
        "{what}\n--- ours\n{ours}\n--- theirs\n{theirs}"
    );
}

/// Words of a command line; the last one may be quoted by the caller.
pub(super) fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

pub(super) fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
