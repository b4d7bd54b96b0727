// SPDX-License-Identifier: Apache-2.0
//! A whole store of its own for each test, and containers-storage on the same one.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use plywood::{
    Error, ErrorKind, Result,
    store::{Layer, NewLayer, Store, StoreOptions},
};
use tempfile::TempDir;

use crate::layers_support::{Kind, mounts_below};

/// A store in a temporary directory.
pub(crate) struct Fixture {
    pub(crate) root: TempDir,
    pub(crate) kind: Kind,
    pub(crate) store: Store,
}

pub(crate) fn options(root: &Path) -> StoreOptions {
    StoreOptions {
        graph_root: root.join("graph"),
        run_root: root.join("run"),
        ..StoreOptions::default()
    }
}

pub(crate) fn open(root: &Path, kind: Kind) -> Store {
    Store::open_with_driver(options(root), kind.open(root)).unwrap()
}

impl Drop for Fixture {
    /// Both programs leave the driver's home mounted on itself.
    fn drop(&mut self) {
        for path in mounts_below(self.root.path()) {
            let done = Command::new("umount").arg("--lazy").arg(&path).status();
            assert!(
                done.is_ok_and(|status| status.success()) || std::thread::panicking(),
                "{} stays mounted",
                path.display()
            );
        }
    }
}

impl Fixture {
    pub(crate) fn new(kind: Kind) -> Self {
        let root = tempfile::Builder::new()
            .prefix("plw-stores-")
            .tempdir()
            .unwrap();
        let store = open(root.path(), kind);
        Self { root, kind, store }
    }

    pub(crate) fn vfs() -> Self {
        Self::new(Kind::Vfs)
    }

    /// As another process would see it.
    pub(crate) fn other(&self) -> Store {
        open(self.root.path(), self.kind)
    }

    /// A path below the graph root, with the driver's name before `what`.
    pub(crate) fn path(&self, what: &str) -> PathBuf {
        let name = self.kind.name();
        self.root
            .path()
            .join("graph")
            .join(format!("{name}-{what}"))
    }

    pub(crate) fn run_path(&self, what: &str) -> PathBuf {
        let name = self.kind.name();
        self.root.path().join("run").join(format!("{name}-{what}"))
    }

    pub(crate) fn images_json(&self) -> String {
        fs::read_to_string(self.path("images/images.json")).unwrap()
    }

    pub(crate) fn containers_json(&self) -> String {
        fs::read_to_string(self.path("containers/containers.json")).unwrap()
    }

    pub(crate) fn layers_json(&self) -> String {
        fs::read_to_string(self.path("layers/layers.json")).unwrap()
    }

    /// Replaces a file of records behind everyone's back.
    pub(crate) fn plant(&self, what: &str, text: &str) {
        let path = self.path(what);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// A layer of that id on that parent.
    pub(crate) fn layer(&self, id: &str, parent: Option<&str>) -> Layer {
        let new = NewLayer {
            id: Some(id.to_owned()),
            parent: parent.map(str::to_owned),
            ..NewLayer::default()
        };
        self.store.create_layer(new).unwrap()
    }

    /// Runs containers-storage on the store.
    pub(crate) fn try_go(&self, arguments: &[&str], input: &[u8]) -> Result<String, String> {
        let root = self.root.path();
        let mut child = Command::new("containers-storage")
            .arg("--graph")
            .arg(root.join("graph"))
            .arg("--run")
            .arg(root.join("run"))
            .args(["--storage-driver", self.kind.name()])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stdout) + &text(output.stderr))
        }
    }

    pub(crate) fn go(&self, arguments: &[&str]) -> String {
        self.try_go(arguments, b"")
            .unwrap_or_else(|text| panic!("{arguments:?}: {text}"))
    }
}

/// Whether containers-storage is here; `REQUIRE=interop` makes its absence a failure.
pub(crate) fn go_is_here() -> bool {
    let found = Command::new("containers-storage")
        .arg("--help")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are configured by the environment"
    )]
    let required = std::env::var("REQUIRE").is_ok_and(|list| list.contains("interop"));
    assert!(
        found || !required,
        "containers-storage is required and not installed"
    );
    if !found {
        println!("skipped: containers-storage is not installed");
    }
    found
}

/// An id of 64 times the digit.
pub(crate) fn id(digit: char) -> String {
    digit.to_string().repeat(64)
}

pub(crate) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[track_caller]
pub(crate) fn fails<T: std::fmt::Debug>(result: Result<T>, kind: ErrorKind) -> Error {
    let error = result.unwrap_err();
    assert_eq!(error.kind(), kind, "{error:?}");
    error
}
