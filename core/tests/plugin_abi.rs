// SPDX-License-Identifier: Apache-2.0
//! A plugin of an older minor version works in a newer program and the other way round; what
//! differs otherwise is refused.
//!
//! The other versions are made from the SDK's own sources by the edits below, each in a workspace
//! of its own, and built into the usual target directory.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use plywood::sdk::{CreateRequest, LayerId};

use crate::support::plugins::{Place, artifacts, cargo, cargo_build, minimal, workspace};

/// A text in a file of the SDK, and what comes in its place.
type Edit = (&'static str, &'static str, &'static str);

/// ABI 1.2: a method more in each table and a field more in the module.
const NEXT: &[Edit] = &[
    ("Cargo.toml", "version = \"1.1.0\"", "version = \"1.2.0\""),
    (
        "src/driver.rs",
        "    /// Undoes what opening did",
        "    /// A method of version 1.2.
    fn colour(&self) -> Result<String> {
        Err(DriverError::not_supported(\"colour\"))
    }

    /// Undoes what opening did",
    ),
    (
        "src/abi/vtable.rs",
        "    // ABI 1.2 and later append here.\n",
        "    /// A field of version 1.2.\n    pub licence: RStr<'static>,\n",
    ),
    (
        "src/abi/vtable.rs",
        "    // ABI 1.2 and later append here, each with a default body.\n",
        "    fn limit(&self) -> u64 {\n        0\n    }\n",
    ),
    (
        "src/abi/vtable.rs",
        "    // ABI 1.2 and later append here, each with a default body that answers NOT_SUPPORTED.\n",
        "    fn colour(&self) -> AbiResult<RString> {
        AbiResult::RErr(crate::DriverError::not_supported(\"colour\").into())
    }\n",
    ),
    (
        "src/abi/export.rs",
        "        kinds: Kinds::DRIVER,\n",
        "        kinds: Kinds::DRIVER,\n        licence: \"a licence\".into(),\n",
    ),
    (
        "src/abi/export.rs",
        "        kinds: Kinds::LAYER_SOURCE,\n",
        "        kinds: Kinds::LAYER_SOURCE,\n        licence: \"a licence\".into(),\n",
    ),
    (
        "src/abi/export.rs",
        "        kinds: Kinds::DRIVER | Kinds::LAYER_SOURCE,\n",
        "        kinds: Kinds::DRIVER | Kinds::LAYER_SOURCE,\n        licence: \"a licence\".into(),\n",
    ),
    (
        "src/abi/export.rs",
        "    fn close(&self) -> AbiResult<()> {",
        "    fn colour(&self) -> AbiResult<RString> {
        self.guard(\"colour\", |driver| driver.colour().map(Into::into))
    }

    fn close(&self) -> AbiResult<()> {",
    ),
    (
        "src/abi/remote.rs",
        "    fn close(&self) -> Result<()> {",
        "    fn colour(&self) -> Result<String> {
        received(self.driver.colour()).map(Into::into)
    }

    fn close(&self) -> Result<()> {",
    ),
    (
        "src/abi/host.rs",
        "    /// Who ships it.\n    pub fn vendor",
        "    /// A field of version 1.2.
    pub fn licence(&self) -> Option<&'static str> {
        self.module.licence().map(|licence| licence.as_str())
    }

    /// Who ships it.\n    pub fn vendor",
    ),
];

/// The method of version 1.2 in the driver.
const COLOUR: &str = "    fn colour(&self) -> Result<String> {
        Ok(\"green\".into())
    }
";

/// The next major version.
const MAJOR: &[Edit] = &[("Cargo.toml", "version = \"1.1.0\"", "version = \"2.0.0\"")];

/// The same version with another layout.
const CHANGED: &[Edit] = &[(
    "src/abi/types.rs",
    "    pub bytes: u64,\n    pub inodes: u64,",
    "    pub inodes: u64,\n    pub bytes: u64,",
)];

/// The same version and layout, but the header does not describe it.
const SILENT: &[Edit] = &[(
    "src/abi/export.rs",
    "(construct::<P>, CheckTypeLayout::Yes)",
    "(construct::<P>, CheckTypeLayout::No)",
)];

/// What makes the plugins of earlier ABIs members of a variant's workspace.
const FIRST: &[(&str, &str)] = &[
    ("\n[workspace]\n", ""),
    (
        "name = \"first-abi-plugin\"",
        "name = \"first-abi-plugin-VARIANT\"",
    ),
    (
        "name = \"plywood_driver_first\"",
        "name = \"abi_fixture_first_VARIANT\"",
    ),
    (
        "plywood-plugin-sdk = \"1.0\"",
        "plywood-plugin-sdk = { path = \"../sdk-VARIANT\" }",
    ),
    (
        "name = \"second-abi-plugin\"",
        "name = \"second-abi-plugin-VARIANT\"",
    ),
    (
        "name = \"plywood_driver_second\"",
        "name = \"abi_fixture_second_VARIANT\"",
    ),
    (
        "plywood-plugin-sdk = \"1.1\"",
        "plywood-plugin-sdk = { path = \"../sdk-VARIANT\" }",
    ),
];

/// Builds `packages` of `fixtures/abi` with an edited SDK.
pub(crate) fn build(variant: &str, edits: &[Edit], packages: &[&str]) {
    cargo_build(&prepare(variant, edits, packages), &[]);
}

/// Writes the workspace of a variant.
fn prepare(variant: &str, edits: &[Edit], packages: &[&str]) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("abi")
        .join(variant);
    // Cargo tells packages apart by name, version and place in the workspace; the place must
    // differ, since they all share a target directory.
    let sdk = format!("sdk-{variant}");
    copy_sources(&workspace().join("plugin-sdk"), &root.join(&sdk), edits);
    let colour = if variant == "next" { COLOUR } else { "" };
    for package in packages {
        let source = match *package {
            "first" => workspace().join("plugin-sdk/tests/first-abi"),
            "second" => workspace().join("plugin-sdk/tests/abi-1-1"),
            _ => workspace().join("core/tests/fixtures/abi").join(package),
        };
        for file in ["Cargo.toml", "src/main.rs", "src/lib.rs"] {
            if let Ok(text) = fs::read_to_string(source.join(file)) {
                let text = FIRST
                    .iter()
                    .fold(text, |text, (old, new)| text.replace(old, new));
                let text = text.replace("VARIANT", variant);
                let text = text.replace("    // COLOUR\n", colour);
                write_if_changed(&root.join(package).join(file), &text);
            }
        }
    }
    let manifest = fs::read_to_string(workspace().join("Cargo.toml")).unwrap();
    let start = manifest.find("members = [").unwrap();
    let end = manifest.find("]\n\n").unwrap();
    let members = format!("members = [\"{sdk}\", \"{}\"", packages.join("\", \""));
    let manifest = manifest.replace(&manifest[start..end], &members);
    write_if_changed(&root.join("Cargo.toml"), &manifest);
    fs::copy(workspace().join("Cargo.lock"), root.join("Cargo.lock")).unwrap();
    root
}

fn copy_sources(from: &Path, to: &Path, edits: &[Edit]) {
    let mut pending = vec![PathBuf::from("Cargo.toml"), PathBuf::from("src")];
    let mut done = 0;
    while let Some(name) = pending.pop() {
        let source = from.join(&name);
        if source.is_dir() {
            let entries = fs::read_dir(&source).unwrap();
            pending.extend(entries.map(|entry| name.join(entry.unwrap().file_name())));
            continue;
        }
        let mut text = fs::read_to_string(&source).unwrap();
        for (_, old, new) in edits.iter().filter(|(file, ..)| Path::new(file) == name) {
            assert_eq!(
                text.matches(old).count(),
                1,
                "`{old}` in {}",
                name.display()
            );
            text = text.replace(old, new);
            done += 1;
        }
        write_if_changed(&to.join(name), &text);
    }
    assert_eq!(done, edits.len(), "an edit names a file that is not there");
}

/// Leaves an equal file alone, so that cargo does not build it again.
fn write_if_changed(path: &Path, text: &str) {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return;
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

pub(crate) fn plugin(variant: &str) -> PathBuf {
    artifacts().join(format!("libabi_fixture_{variant}.so"))
}

pub(crate) fn next() {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| build("next", NEXT, &["plugin", "host", "first", "second"]));
}

fn refusal(variant: &str) -> String {
    let place = Place::new();
    let path = place.install(&plugin(variant), "x.so");
    let refusal = place.open("variant", &path).unwrap_err();
    assert!(refusal.remedy().is_some());
    let start = format!("plugin `{}` is refused: ", path.display());
    refusal.to_string().strip_prefix(&start).unwrap().to_owned()
}

/// What the program of ABI 1.2 says about a plugin: licence, existence of a layer, colour.
pub(crate) fn in_newer_program(plugin: &Path) -> String {
    next();
    let place = Place::new();
    let output = Command::new(artifacts().join("abi_fixture_host"))
        .args([plugin, &place.path("home")])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_newer_plugin_works_in_this_program() {
    next();
    let place = Place::new();
    let path = place.install(&plugin("next"), "x.so");
    let driver = place.open("variant", &path).unwrap();
    let id = LayerId::new("layer").unwrap();
    driver
        .create(&CreateRequest::new(id.clone(), None))
        .unwrap();
    assert!(driver.exists(&id).unwrap());
    assert_eq!(
        driver.status().unwrap(),
        [("SDK".to_owned(), "1.2".to_owned())]
    );
}

#[test]
fn a_plugin_of_this_version_works_in_a_newer_program() {
    assert_eq!(
        in_newer_program(&minimal()),
        "1.1 minimal licence=None exists=true colour=not-supported\n"
    );
}

#[test]
fn the_newer_program_uses_what_only_newer_plugins_have() {
    next();
    assert_eq!(
        in_newer_program(&plugin("next")),
        "1.2 variant licence=Some(\"a licence\") exists=true colour=green\n"
    );
}

#[test]
fn another_major_version_is_refused() {
    build("major", MAJOR, &["plugin"]);
    let expected = "it speaks plugin ABI 2.0, and this program speaks 1.1";
    assert_eq!(refusal("major"), expected);
}

#[test]
fn other_types_under_the_same_version_are_refused() {
    build("changed", CHANGED, &["plugin"]);
    let refusal = refusal("changed");
    let start = "its types differ from those of plugin ABI 1.1: ";
    assert!(refusal.starts_with(start), "{refusal}");
    assert!(refusal.len() < 200, "{refusal}");
}

#[test]
fn a_plugin_that_does_not_describe_its_types_is_refused() {
    build("silent", SILENT, &["plugin"]);
    let expected = "it was built without a description of its types, so they cannot be checked";
    assert_eq!(refusal("silent"), expected);
}

#[test]
fn the_entry_symbol_alone_does_not_make_a_plugin() {
    build("junk", &[], &["junk"]);
    let expected = "it exports the symbol of a plugin, but what is there is no plugin header";
    assert_eq!(refusal("junk"), expected);
}

#[test]
fn a_plugin_that_aborts_on_panic_does_not_compile() {
    let root = prepare("abort", &[], &["plugin"]);
    let abort = ["-p", "abi-fixture-plugin-abort", "--", "-C", "panic=abort"];
    let error = cargo(&root, "rustc", &abort).unwrap_err();
    let expected = "a Plywood plugin must be built with panic = \"unwind\"";
    assert!(error.contains(expected), "{error}");
}
