// SPDX-License-Identifier: Apache-2.0
//! Plugin files and registries to load them with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, OnceLock},
};

use plywood::{
    Error,
    plugin::{ConfiguredPlugin, DriverHandle, PluginOptions, Registry},
    sdk::{Host, LogLevel, OpenRequest},
};
use tempfile::TempDir;

/// The root of the source tree.
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("core lies in the workspace")
}

/// Where cargo puts what it builds in the profile of this test, for instance `target/debug`.
pub(crate) fn artifacts() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.parent().and_then(Path::parent).unwrap().to_owned()
}

/// Runs cargo's `command` with `arguments` in `directory`, in the profile of this test; the error
/// is what the compiler said.
pub(crate) fn cargo(directory: &Path, command: &str, arguments: &[&str]) -> Result<(), String> {
    let profile = match artifacts().file_name().and_then(|name| name.to_str()) {
        Some("debug") => "dev".to_owned(),
        name => name.unwrap().to_owned(),
    };
    let output = Command::new(env!("CARGO"))
        .current_dir(directory)
        .args([command, "--offline", "--quiet", "--profile", &profile])
        .arg("--target-dir")
        .arg(artifacts().parent().unwrap())
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    output.status.success().then_some(()).ok_or(text)
}

/// Runs `cargo build`.
pub(crate) fn cargo_build(directory: &Path, arguments: &[&str]) {
    if let Err(text) = cargo(directory, "build", arguments) {
        panic!("cargo build {arguments:?}: {text}");
    }
}

/// The plugin of the driver in `fixtures/faulty`.
pub(crate) fn faulty() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| cargo_build(workspace(), &["-p", "plugin-fixture-faulty-plugin"]));
    artifacts().join("libplugin_fixture_faulty_so.so")
}

/// The plugin of `examples/minimal-driver`.
pub(crate) fn minimal() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| cargo_build(workspace(), &["-p", "minimal-driver"]));
    artifacts().join("libplywood_driver_minimal.so")
}

/// A directory in which nobody else can write, with plugins and a store.
pub(crate) struct Place {
    root: TempDir,
    pub(crate) log: Arc<Messages>,
}

/// Keeps what drivers log.
#[derive(Default)]
pub(crate) struct Messages(Mutex<Vec<String>>);

impl Messages {
    /// Everything so far, a line for each message.
    pub(crate) fn text(&self) -> String {
        self.0.lock().unwrap().join("\n")
    }
}

impl Host for Messages {
    fn log(&self, level: LogLevel, target: &str, message: &str) {
        let message = format!("{level:?} {target}: {message}");
        self.0.lock().unwrap().push(message);
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            log: Arc::default(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// A copy of `plugin` under another name, which may contain directories.
    pub(crate) fn install(&self, plugin: &Path, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::copy(plugin, &path).unwrap();
        path
    }

    /// A request that opens a driver on a store below this place.
    pub(crate) fn request(&self, options: &[&str]) -> OpenRequest {
        let host: Arc<dyn Host> = Arc::clone(&self.log) as _;
        let mut request = OpenRequest::new(self.path("home"), self.path("run"), host);
        request.options = options.iter().map(ToString::to_string).collect();
        request
    }

    /// Opens the driver `name` from the file at `path`.
    pub(crate) fn open(&self, name: &str, path: &Path) -> Result<DriverHandle, Error> {
        registry_of(name, path, None).open(name, self.request(&[]))
    }

    /// The sentence with which the file at `path` is refused as the driver `faulty`.
    pub(crate) fn refusal(&self, path: &Path) -> String {
        match self.open("faulty", path) {
            Ok(driver) => panic!("`{}` was loaded: {driver:?}", path.display()),
            Err(error) => {
                assert!(error.remedy().is_some(), "{error} has no remedy");
                error.to_string()
            }
        }
    }
}

/// A registry that knows one file.
pub(crate) fn registry_of(name: &str, path: &Path, sha256: Option<&str>) -> Registry {
    let mut options = PluginOptions::only_embedded();
    options.embedded = false;
    options.configured = vec![ConfiguredPlugin {
        name: name.to_owned(),
        path: path.to_owned(),
        sha256: sha256.map(str::to_owned),
    }];
    Registry::discover(options)
}

/// Whether the tests run as root; says so when they do not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root to give files away");
    }
    root
}
