// SPDX-License-Identifier: Apache-2.0
//! A store that is used by our program and containers-storage in turns.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Store, run};

/// The program of this workspace that was built beside the tests.
fn ours() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let directory = tests.ancestors().nth(2).unwrap();
    directory.join("plywood")
}

fn tool(program: &Path, store: &Store, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command
        .arg("--graph")
        .arg(store.graph_root())
        .arg("--run")
        .arg(store.path("r"))
        .args(["--storage-driver", "zfs"])
        .args(arguments);
    run(&mut command)
}

fn id(letter: &str) -> String {
    letter.repeat(64)
}

/// Neither tool promises an order.
fn sorted(text: &str) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// The names, kinds, modes, owners, sizes and contents of a tree.
fn tree(path: &str) -> String {
    let script = "find . -mindepth 1 -printf '%P %y %m %U %G %n\\n' | sort; \
                  find . -type f | sort | xargs -r sha256sum";
    run(Command::new("sh")
        .args(["-e", "-c", script])
        .current_dir(path.trim()))
}

#[test]
#[ignore = "needs zfs: `cargo xtask zfs` runs it"]
fn interop_either_tool_works_on_what_the_other_made() {
    let store = Store::new();
    fs::create_dir(store.graph_root()).unwrap();
    let (ours, theirs) = (ours(), PathBuf::from("containers-storage"));
    let edits = "echo text > file; mkdir -m 0711 d; ln file d/link; chown 3:4 d; echo one >> log";
    // Each makes a layer on one of the other's.
    let mut below = String::new();
    for (letter, maker, reader) in [
        ("a", &ours, &theirs),
        ("b", &theirs, &ours),
        ("c", &ours, &theirs),
    ] {
        let layer = id(letter);
        let mut create = vec!["create-layer", "--id", &layer];
        if !below.is_empty() {
            create.push(&below);
        }
        tool(maker, &store, &create);
        let path = tool(maker, &store, &["mount", &layer]);
        assert_eq!(
            path.trim(),
            store.home().join("graph").join(&layer).to_str().unwrap()
        );
        let edit = format!("rm -rf d file; {edits}; touch {letter}");
        run(Command::new("sh")
            .args(["-e", "-c", &edit])
            .current_dir(path.trim()));
        let made = tree(&path);
        tool(maker, &store, &["unmount", &layer]);
        let path = tool(reader, &store, &["mount", &layer]);
        assert_eq!(tree(&path), made, "{letter}");
        tool(reader, &store, &["unmount", &layer]);
        let changes = |program: &Path| {
            let listed = tool(program, &store, &["changes", &layer]);
            sorted(&listed)
        };
        assert_eq!(changes(&ours), changes(&theirs), "{letter}");
        below = layer;
    }
    let layers = |program: &Path| sorted(&tool(program, &store, &["layers"]));
    assert_eq!(layers(&ours), layers(&theirs));
    // Each removes what the other made.
    tool(&theirs, &store, &["delete-layer", &id("c")]);
    tool(&ours, &store, &["delete-layer", &id("b")]);
    tool(&theirs, &store, &["delete-layer", &id("a")]);
    store.assert_only(&[]);
}

/// Podman runs what we load into a store, and we see what its containers change.
#[test]
#[ignore = "needs zfs: `cargo xtask zfs` runs it"]
fn interop_podman_runs_what_we_load() {
    const SCRIPT: &str = r#"
        run="--network=none --cgroups=disabled"
        mkdir -p tree/bin; cp "$(command -v busybox)" tree/bin/busybox; echo data > tree/data
        tar -C tree -cf tree.tar .
        $P import -q tree.tar example.com/bb:1 >/dev/null
        $P save -q --format docker-archive -o bb.tar example.com/bb:1
        $P rmi example.com/bb:1 >/dev/null
        $C image load bb.tar >&2
        $P run --rm $run example.com/bb:1 /bin/busybox cat /data
        $P run --name c $run example.com/bb:1 /bin/busybox sh -c \
            '/bin/busybox rm /data; echo new > /new'
        layer=$($C container -j c | sed 's/.*"layer":"\([0-9a-f]*\)".*/\1/')
        $C changes $layer
        list() { tar --numeric-owner --full-time -tvf "$1" |
            sed '/[.]wh[.]/s/ [0-9-]* [0-9]*:[0-9:]* / /'; }
        $C diff -u $layer > ours.tar
        containers-storage ${C#* } diff -u $layer > theirs.tar
        diff <(list ours.tar) <(list theirs.tar)
        $P rm c >/dev/null; $P rmi example.com/bb:1 >/dev/null
        $C layers"#;
    let store = Store::new();
    fs::create_dir(store.graph_root()).unwrap();
    let (graph, run_root) = (store.graph_root(), store.path("r"));
    let (graph, run_root) = (graph.display(), run_root.display());
    let podman = format!(
        "podman --root {graph} --runroot {run_root} --storage-driver zfs \
         --cgroup-manager cgroupfs --events-backend none --log-level error"
    );
    let ours = format!(
        "{} --storage-driver zfs --graph {graph} --run {run_root}",
        ours().display()
    );
    let said = run(Command::new("bash")
        .args(["-e", "-c", SCRIPT])
        .env("P", podman)
        .env("C", ours)
        .current_dir(store.path(".")));
    assert!(said.starts_with("data\n"), "{said}");
    for change in ["Delete \"/data\"\n", "Add \"/new\"\n"] {
        assert!(said.contains(change), "{said}");
    }
    assert!(said.ends_with("\"/sys\"\n"), "layers are left: {said}");
    store.assert_only(&[]);
}
