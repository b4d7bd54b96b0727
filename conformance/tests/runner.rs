// SPDX-License-Identifier: Apache-2.0
//! What `run` says about input that makes no sense, and with which exit status; never 0.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "helpers of tests do as tests do"
)]

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

/// A short case that every driver passes.
const SHORT: &str = "GD-LIF-008";

struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

fn suite(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plywood-conformance"));
    command.args(arguments);
    command
}

fn said(command: &mut Command) -> Said {
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said {
        code: output.status.code(),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

fn run(arguments: &[&str]) -> Said {
    said(suite(&["run"]).args(arguments))
}

/// Demands the status for nonsense, and a message with `texts` in it.
fn refused(arguments: &[&str], texts: &[&str]) {
    let said = run(arguments);
    assert_eq!(
        said.code,
        Some(4),
        "{arguments:?}: {}{}",
        said.out,
        said.err
    );
    for text in texts {
        assert!(said.err.contains(text), "{arguments:?}: {}", said.err);
    }
    assert_eq!(said.out, "", "{arguments:?}");
}

/// A directory in which nobody else can write.
fn place() -> TempDir {
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
    place
}

fn write(place: &TempDir, name: &str, content: &[u8]) -> String {
    let path = place.path().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

/// The plugin of `examples/minimal-driver`.
fn minimal() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let suite = Path::new(env!("CARGO_BIN_EXE_plywood-conformance"));
        let artifacts = suite.parent().unwrap();
        let profile = match artifacts.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            name => name,
        };
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--offline",
                "--quiet",
                "--package",
                "minimal-driver",
            ])
            .args(["--profile", profile, "--target-dir"])
            .arg(artifacts.parent().unwrap())
            .status()
            .unwrap();
        assert!(status.success());
        artifacts.join("libplywood_driver_minimal.so")
    })
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

const NAME: &str = "libplywood_driver_minimal.so";

#[test]
fn what_is_no_plugin_is_refused() {
    let place = place();
    let whole = fs::read(minimal()).unwrap();
    let text = write(&place, NAME, b"#!/bin/sh\n");
    // Cut anywhere before the end of the last segment; what follows that is for debuggers.
    refused(&[&text], &["is not loaded: it is no ELF file", "hint: "]);
    let half = write(&place, NAME, &whole[..4096]);
    refused(&[&half], &["it is truncated", "hint: "]);
    let empty = write(&place, NAME, b"");
    refused(&[&empty], &["the file is empty"]);
    let mut other = whole;
    other[18] = 0xf3;
    let other = write(&place, NAME, &other);
    refused(&[&other], &["it is built for another processor"]);
    fs::remove_file(&other).unwrap();
    refused(&[&other], &["cannot read", NAME]);
    fs::create_dir(&other).unwrap();
    refused(&[&other], &["it is a directory, not a regular file"]);
    fs::remove_dir(&other).unwrap();
    nix::unistd::mkfifo(Path::new(&other), nix::sys::stat::Mode::S_IRWXU).unwrap();
    refused(&[&other], &["it is a FIFO, not a regular file"]);
}

#[test]
fn a_plugin_of_another_abi_is_refused_with_both_versions() {
    let place = place();
    let mut changed = fs::read(minimal()).unwrap();
    let version = plywood_plugin_sdk::abi::VERSION;
    let (own, other) = (format!("{version}.0"), format!("{}.0.0", version.major + 1));
    let places: Vec<usize> = changed
        .windows(own.len())
        .enumerate()
        .filter(|(_, text)| *text == own.as_bytes())
        .map(|(place, _)| place)
        .collect();
    assert!(!places.is_empty(), "the header carries the version as text");
    for start in places {
        changed[start..start + own.len()].copy_from_slice(other.as_bytes());
    }
    let path = write(&place, NAME, &changed);
    let expected = format!(
        "it speaks plugin ABI {}.0, and this program speaks {version}",
        version.major + 1
    );
    refused(&[&path], &[&expected, "hint: "]);
}

#[test]
fn a_shared_object_of_another_kind_is_refused() {
    let place = place();
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().find_map(|line| {
        let path = line.split_whitespace().last()?;
        path.ends_with("/libc.so.6").then_some(path)
    });
    let libc = fs::read(libc.expect("tests are linked with glibc")).unwrap();
    let path = write(&place, NAME, &libc);
    refused(&[&path], &["no Plywood plugin", "the entry symbol"]);
    let named = write(&place, "driver.so", &fs::read(minimal()).unwrap());
    refused(&[&named], &["is not called libplywood_driver_NAME.so"]);
    let other = write(
        &place,
        "libplywood_driver_other.so",
        &fs::read(minimal()).unwrap(),
    );
    refused(&[&other], &["other", "minimal"]);
}

#[test]
fn root_a_plugin_that_others_could_have_written_is_refused() {
    if !is_root() {
        return;
    }
    let place = place();
    let path = write(&place, NAME, &fs::read(minimal()).unwrap());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    refused(&[&path], &["can be written by others (mode 0666)"]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    chown(&path, Some(65534), None).unwrap();
    refused(&[&path], &["belongs to user 65534"]);
    chown(&path, Some(0), None).unwrap();
    let said = run(&[&path, "--only", SHORT]);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
}

#[test]
fn a_selection_that_selects_nothing_is_refused() {
    let plugin = minimal().to_str().unwrap();
    for (filter, named) in [
        (&["--only", "GD-LIF-999"][..], "GD-LIF-999"),
        (&["--only", "exists"], "exists"),
        (&["--only", ""], "case"),
        (&["--group", "nosuch"], "nosuch"),
        (&["--skip-group", "nosuch"], "nosuch"),
        (&["--profile", "nosuch"], "nosuch"),
        (
            &["--only", SHORT, "--skip-group", "quick"],
            "no case is selected",
        ),
        (&["--scratch", "nosuch"], "nosuch"),
        (&["--scratch", "loop:"], "loop:"),
        (&["--seed", "many"], "many"),
        (&["--known-failures", "/no/such/file"], "/no/such/file"),
        (&["--no-such-flag"], "--no-such-flag"),
    ] {
        refused(&[&[plugin], filter].concat(), &[named]);
    }
    refused(&[], &["PLUGIN"]);
    refused(&["--embedded", "nosuch"], &["nosuch", "reference"]);
    refused(&[plugin, "--embedded", "reference"], &["--embedded"]);
    for command in ["list", "explain", "certify", "verify", "nosuch"] {
        let said = said(&mut suite(&[command, "--nosuch"]));
        assert_eq!(said.code, Some(4), "{command}: {}", said.err);
    }
}

#[test]
fn who_reads_no_further_makes_no_failure() {
    let mut list = suite(&["list", "--planned"]);
    let mut child = list
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn what_cannot_be_written_is_said_once_and_is_a_failure() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let said = said(suite(&["list"]).stdout(full));
    assert_eq!(
        said.err.matches("cannot write to standard output").count(),
        1,
        "{}",
        said.err
    );
    assert_eq!(said.code, Some(3));
}

#[test]
fn memory_that_only_the_suite_sees_is_refused_for_a_pool() {
    let minimal = minimal().to_str().unwrap();
    refused(
        &[minimal, "--scratch", "loop:zfs", "--images", "memory"],
        &["`loop:zfs`", "--images /dev/shm"],
    );
}

#[test]
fn root_a_missing_tool_is_named_and_nothing_counts_as_passed() {
    if !is_root() {
        return;
    }
    let plugin = minimal().to_str().unwrap();
    let nowhere = place();
    let arguments = ["run", plugin, "--only", SHORT, "--scratch", "loop:xfs"];
    let said = said(suite(&arguments).env("PATH", nowhere.path()));
    assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
    assert!(said.out.contains("there is no `mkfs.xfs`"), "{}", said.out);
    assert!(said.out.contains("1 not run"), "{}", said.out);
    assert!(!said.out.contains("SUCCESS"), "{}", said.out);
}

#[test]
fn root_without_rights_nothing_is_run() {
    if !is_root() {
        return;
    }
    // Where that user can go: the plugin and the program lie in directories that may be closed.
    let place = place();
    let program = place.path().join("suite");
    fs::copy(env!("CARGO_BIN_EXE_plywood-conformance"), &program).unwrap();
    let plugin = write(&place, NAME, &fs::read(minimal()).unwrap());
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    command.arg(&program).args(["run", &plugin]);
    let said = said(&mut command);
    assert_eq!(said.code, Some(3), "{}{}", said.out, said.err);
    assert!(said.err.contains("run it as root"), "{}", said.err);
}

/// Who stops a run gets its disk, its loop devices and a report of what there was back.
#[test]
fn root_a_run_that_is_told_to_stop_tidies_up() {
    if !is_root() {
        return;
    }
    let place = place();
    let (scratch, out) = (place.path().join("scratch"), place.path().join("out"));
    fs::create_dir(&scratch).unwrap();
    let child = suite(&["run"])
        .arg(minimal())
        .args(["--group", "quick", "--scratch"])
        .arg(&scratch)
        .arg("--out")
        .arg(&out)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let begun = || fs::read_dir(&scratch).unwrap().next().is_some();
    while !begun() {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let id = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM).unwrap();
    let ended = child.wait_with_output().unwrap();
    let text = String::from_utf8(ended.stdout).unwrap();
    assert_eq!(ended.status.code(), Some(2), "{text}");
    assert!(text.contains("RESULT: INCOMPLETE"), "{text}");
    assert!(!begun(), "files are left");
    assert!(out.join("results.json").is_file());
}

#[test]
fn root_a_driver_that_cannot_be_opened_is_no_success() {
    if !is_root() {
        return;
    }
    let plugin = minimal().to_str().unwrap();
    let said = run(&[plugin, "--only", SHORT, "--storage-opt", "nosuch=1"]);
    assert_eq!(said.code, Some(1), "{}{}", said.out, said.err);
    assert!(said.out.contains("cannot be opened"), "{}", said.out);
    assert!(said.out.contains("nosuch"), "{}", said.out);
}

/// The guide for vendors names cases, commands and flags that exist.
#[test]
fn the_guide_for_vendors_is_current() {
    let guide = include_str!("../../docs/driver-guide.md").replace("\\\n", " ");
    let (mut ids, mut commands) = (0, 0);
    for start in guide.match_indices("GD-").map(|(start, _)| start) {
        let id = &guide[start..start + "GD-ABI-001".len()];
        let entry = plywood_conformance::entry(id);
        assert!(
            entry.is_some_and(|entry| entry.since.is_some()),
            "{id} is not written"
        );
        ids += 1;
    }
    for line in guide.lines() {
        let Some(line) = line.strip_prefix("plywood-conformance ") else {
            continue;
        };
        let line = line.split('#').next().unwrap();
        let mut words = line.split_whitespace();
        let help = said(&mut suite(&[words.next().unwrap(), "--help"]));
        assert_eq!(help.code, Some(0), "{line}: {}", help.err);
        for flag in words.filter(|word| word.starts_with("--")) {
            assert!(help.out.contains(flag), "{line}: there is no {flag}");
        }
        commands += 1;
    }
    assert!(ids > 8 && commands > 4, "{ids} cases, {commands} commands");
}
