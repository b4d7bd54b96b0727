// SPDX-License-Identifier: Apache-2.0
//! What happens before a store is opened.

use super::support::{Answer, As, can_run, ours, run, same, theirs, words};

/// Usage without the lines that only one of the two versions has: the oracle is older than the
/// version that we follow, and id maps are not ours yet.
fn comparable(answer: &Answer) -> (i32, Vec<String>, Vec<String>) {
    const COMMANDS: [&str; 7] = [
        "config",
        "create-storage-layer",
        "gc",
        "get-image-dir",
        "get-image-run-dir",
        "remove-names",
        "storage-layers",
    ];
    const FLAGS: [&str; 9] = [
        "--gidmap",
        "--hostgidmap",
        "--hostuidmap",
        "--quick,",
        "--ro,",
        "--read-only,",
        "--subgidmap",
        "--subuidmap",
        "--uidmap",
    ];
    let keep = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| {
                let first = line.split_whitespace().next().unwrap_or_default();
                !(line.starts_with("  ") && (COMMANDS.contains(&first) || FLAGS.contains(&first)))
            })
            .map(str::to_owned)
            .collect()
    };
    (answer.code, keep(&answer.out), keep(&answer.err))
}

fn compare(args: &[&str]) {
    let ours = comparable(&run(ours(As::DropIn).args(args), b""));
    let theirs = comparable(&run(theirs().args(args), b""));
    same(
        &format!("{args:?}"),
        &format!("{ours:#?}"),
        &format!("{theirs:#?}"),
    );
}

#[test]
fn interop_usage_and_wrong_flags() {
    if !can_run(&["containers-storage"]) {
        return;
    }
    compare(&[]);
    for line in [
        "--help",
        "-h",
        "-help",
        "--bogus",
        "-g",
        "-s",
        "-D=x layers",
        "-Dx",
        "-Dh",
        "-=x",
        "bogus",
        "layers --bogus",
        "layers -j=x",
        "layers --json=maybe",
        "mount -o",
        "layers -jz",
        "create-layer a b",
        "mount",
        "images -=x",
        "images -jh",
        "create-image -n",
        "-g /root/x layers --help",
        "-g /x -R /y -s vfs --storage-opt a=b layers -h",
        "-D",
        "set-metadata",
        "get-image-data x",
        "-- layers --bogus",
    ] {
        compare(&words(line));
    }
}

#[test]
fn interop_usage_of_every_command() {
    if !can_run(&["containers-storage"]) {
        return;
    }
    let usage = run(&mut theirs(), b"").out;
    let commands: Vec<&str> = usage
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() > 40, "{usage}");
    // The usage of `copy` crashes in that version.
    for command in commands.iter().filter(|command| **command != "copy") {
        compare(&[command, "--help"]);
        compare(&[command, "--bogus"]);
    }
}

#[test]
fn aliases_are_commands() {
    for alias in [
        "createlayer",
        "umount",
        "apply-diff",
        "diff-size",
        "removenames",
        "getimagedir",
    ] {
        let answer = run(ours(As::DropIn).args([alias, "--bogus"]), b"");
        assert_eq!(answer.code, 125, "{alias}: {answer:?}");
    }
}

#[test]
fn under_our_own_name_mistakes_are_explained() {
    for (line, code, text, hint) in [
        (
            "imoprt-layer",
            1,
            "error: imoprt-layer: unrecognized command",
            "did you mean `import-layer`?",
        ),
        (
            "layers --bogus",
            125,
            "error: flag provided but not defined: --bogus",
            "`plywood layers --help`",
        ),
        (
            "mount",
            1,
            "error: mount: more arguments required",
            "usage: plywood mount",
        ),
        (
            "driver",
            1,
            "error: driver: what to do is missing or unknown",
            "list, inspect, check, probe",
        ),
        (
            "layers --log-level loud",
            125,
            "error: `loud` is no log level",
            "levels are",
        ),
        (
            "image save x",
            1,
            "error: image save: more arguments required",
            "NAME DEST",
        ),
    ] {
        let answer = run(ours(As::Own).args(words(line)), b"");
        assert_eq!(answer.code, code, "{line}: {answer:?}");
        assert_eq!(answer.out, "", "{line}");
        assert!(
            answer.err.starts_with(&format!("{text}\n\nhint: ")),
            "{line}: {}",
            answer.err
        );
        assert!(answer.err.contains(hint), "{line}: {}", answer.err);
    }
}

#[test]
fn help_completions_and_manual_come_from_the_table() {
    let help = run(ours(As::Own).arg("--help"), b"").ok().out;
    for command in ["import-layer", "driver", "completions", "info"] {
        assert!(help.contains(command), "{command} is missing in {help}");
    }
    let load = run(ours(As::Own).args(["image", "load", "--help"]), b"")
        .ok()
        .out;
    assert!(
        load.contains("--platform") && load.contains("SRC [NAME]"),
        "{load}"
    );
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = run(ours(As::Own).args(["completions", shell]), b"")
            .ok()
            .out;
        assert!(script.contains("import-layer"), "{shell}");
    }
    let unknown = run(ours(As::Own).args(["completions", "tcsh"]), b"");
    assert_eq!(unknown.code, 1);
    let dir = tempfile::tempdir().unwrap();
    run(ours(As::Own).arg("man").arg(dir.path()), b"").ok();
    let page = std::fs::read_to_string(dir.path().join("plywood-import-layer.1")).unwrap();
    assert!(page.contains("Read from file instead of stdin"), "{page}");
    let own = std::fs::read_to_string(dir.path().join("plywood-image-load.1")).unwrap();
    assert!(own.contains("platform"), "{own}");
}
