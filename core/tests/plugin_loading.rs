// SPDX-License-Identifier: Apache-2.0
//! A plugin file is found, checked and loaded, or refused with a sentence that says why; nothing
//! in such a file kills the program.

use std::{
    ffi::OsString,
    fs,
    os::unix::{
        fs::{PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::OnceLock,
};

use plywood::{
    ErrorKind,
    plugin::{DriverName, FoundDriver, Origin, PluginOptions, Registry, Source},
    sdk::{CreateRequest, LayerId, MountPlan, MountRequest, Removed},
};

use crate::support::plugins::{
    Place, artifacts, cargo_build, faulty, is_root, minimal, registry_of, workspace,
};

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn not_loaded(path: &Path, why: &str) -> String {
    format!("plugin `{}` is not loaded: {why}", path.display())
}

#[test]
fn a_plugin_does_everything_a_linked_in_driver_does() {
    let place = Place::new();
    let driver = place.open("minimal", &minimal()).unwrap();
    assert_eq!(driver.origin(), &Origin::File(minimal()));
    assert!(driver.capabilities().list && !driver.capabilities().staging);
    let (base, top) = (LayerId::new("base").unwrap(), LayerId::new("top").unwrap());
    driver
        .create(&CreateRequest::new(base.clone(), None))
        .unwrap();
    let directory = driver.unpack_target(&base).unwrap().directory;
    fs::write(directory.join("file"), "text").unwrap();
    driver
        .create(&CreateRequest::new(top.clone(), Some(base.clone())))
        .unwrap();
    let error = driver.create(&CreateRequest::new(top.clone(), None));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::DuplicateId);
    let plan = driver.mount_plan(&top, &MountRequest::default()).unwrap();
    let MountPlan::Directory(tree) = plan else {
        panic!("{plan:?} is no directory")
    };
    assert_eq!(fs::read_to_string(tree.join("file")).unwrap(), "text");
    let mut ids = driver.list().unwrap();
    ids.sort();
    assert_eq!(ids, [base, top.clone()]);
    assert_eq!(driver.remove(&top).unwrap(), Removed::Now);
    assert_eq!(driver.remove(&top).unwrap(), Removed::AlreadyGone);
    assert!(place.log.text().contains("Debug minimal: created base"));
}

#[test]
fn files_that_are_no_shared_objects_are_refused() {
    let place = Place::new();
    let path = place.path("libplywood_driver_faulty.so");
    for (content, why) in [
        (&b""[..], "the file is empty"),
        (b"#!/bin/sh\n", "it is no ELF file"),
        (
            b"\x7fEL",
            "it is truncated: its contents reach to byte 16, and it has 3",
        ),
        (
            b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0",
            "it is built for another word size",
        ),
        (
            b"\x7fELF\x02\x02\x01\0\0\0\0\0\0\0\0\0",
            "it is built for another byte order",
        ),
    ] {
        fs::write(&path, content).unwrap();
        assert_eq!(place.refusal(&path), not_loaded(&path, why));
    }
}

#[test]
fn shared_objects_for_something_else_are_refused() {
    let place = Place::new();
    let whole = fs::read(faulty()).unwrap();
    let path = place.path("x.so");
    for (offset, value, why) in [
        (18, 0xf3, "it is built for another processor"),
        (16, 1, "it is no shared object"),
        // The number of program headers.
        (56, 0, "it has no dynamic section"),
    ] {
        let mut changed = whole.clone();
        changed[offset] = value;
        fs::write(&path, changed).unwrap();
        assert_eq!(place.refusal(&path), not_loaded(&path, why));
    }
}

#[test]
fn a_truncated_plugin_is_refused_wherever_it_was_cut() {
    let place = Place::new();
    let whole = fs::read(faulty()).unwrap();
    let path = place.path("x.so");
    let cut = |length: usize| {
        fs::write(&path, &whole[..length]).unwrap();
        place.refusal(&path)
    };
    let half = cut(4096);
    let needed = half.split("reach to byte ").nth(1).expect(&half);
    let needed: usize = needed.split(',').next().unwrap().parse().unwrap();
    assert!(needed <= whole.len());
    let steps = (1..20).map(|step| needed * step / 20);
    for length in steps.chain([1, 15, 16, 63, 64, 119, 120, 4095, 4096, needed - 1]) {
        let refusal = cut(length);
        assert!(
            refusal.contains("it is truncated: its contents reach to byte"),
            "{length} of {}: {refusal}",
            whole.len()
        );
    }
    // Everything behind the last segment is for debuggers only.
    fs::write(&path, &whole[..needed]).unwrap();
    assert!(place.open("faulty", &path).is_ok());
}

#[test]
fn what_is_no_file_is_refused_without_opening_it() {
    let place = Place::new();
    let path = place.path("x.so");
    let refuse = |kind: &str| {
        let refusal = place.refusal(&path);
        let why = format!("it is {kind}, not a regular file");
        assert_eq!(refusal, not_loaded(&path, &why));
    };
    fs::create_dir(&path).unwrap();
    refuse("a directory");
    fs::remove_dir(&path).unwrap();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from(0o600));
    rustix::fs::mknodat(rustix::fs::CWD, &path, kind, mode, 0).unwrap();
    refuse("a FIFO");
    fs::remove_file(&path).unwrap();
    let _socket = UnixListener::bind(&path).unwrap();
    refuse("a socket");
    fs::remove_file(&path).unwrap();
    let expected = format!("cannot look at plugin `{}`", path.display());
    assert_eq!(place.refusal(&path), expected);
    symlink("/dev/null", &path).unwrap();
    let why = "it is a device, not a regular file";
    assert_eq!(
        place.refusal(&path),
        not_loaded(Path::new("/dev/null"), why)
    );
}

#[test]
fn a_shared_object_without_the_entry_symbol_is_no_plugin() {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let libc = maps.lines().find_map(|line| {
        let path = line.split_whitespace().last()?;
        path.ends_with("/libc.so.6").then(|| PathBuf::from(path))
    });
    let path = libc.expect("tests are linked with glibc");
    let expected = format!(
        "`{}` is a shared object, but no Plywood plugin: it does not export the entry symbol",
        path.display()
    );
    assert_eq!(Place::new().refusal(&path), expected);
}

#[test]
fn what_others_can_change_is_refused() {
    let place = Place::new();
    let path = place.install(&faulty(), "directory/x.so");
    let directory = path.parent().unwrap().to_owned();
    assert!(place.open("faulty", &path).is_ok());
    let link = place.path("link.so");
    symlink(&path, &link).unwrap();
    assert!(place.open("faulty", &link).is_ok());
    for (what, usual) in [(&path, 0o644), (&directory, 0o755)] {
        for bad in [0o666, 0o664, 0o646, 0o777, 0o1777] {
            mode(what, bad);
            let why = format!(
                "`{}` can be written by others (mode {bad:04o})",
                what.display()
            );
            assert_eq!(place.refusal(&path), not_loaded(&path, &why));
            // A link from a good directory does not help.
            assert_eq!(place.refusal(&link), not_loaded(&path, &why));
        }
        mode(what, usual);
    }
    assert!(place.open("faulty", &path).is_ok());
    mode(&place.path(""), 0o1777);
    assert!(
        place.open("faulty", &path).is_ok(),
        "further up, sticky is enough"
    );
    mode(&place.path(""), 0o777);
    assert!(place.refusal(&path).contains("(mode 0777)"));
}

#[test]
fn what_belongs_to_others_is_refused() {
    if !is_root() {
        return;
    }
    let place = Place::new();
    let path = place.install(&faulty(), "directory/x.so");
    let directory = path.parent().unwrap().to_owned();
    for what in [&path, &directory] {
        chown(what, Some(65534), Some(65534)).unwrap();
        let why = format!(
            "`{}` belongs to user 65534, neither to root nor to the caller",
            what.display()
        );
        assert_eq!(place.refusal(&path), not_loaded(&path, &why));
        chown(what, Some(0), Some(0)).unwrap();
    }
    assert!(place.open("faulty", &path).is_ok());
}

#[test]
fn a_pinned_digest_must_match() {
    let place = Place::new();
    let path = place.install(&faulty(), "x.so");
    let whole = fs::read(&path).unwrap();
    let pin = plywood::Digest::sha256(&whole);
    for pin in [pin.as_str(), pin.hex(), &pin.hex().to_uppercase()] {
        let registry = registry_of("faulty", &path, Some(pin));
        assert!(registry.open("faulty", place.request(&[])).is_ok(), "{pin}");
    }
    let registry = registry_of("faulty", &path, Some("00"));
    let error = registry.open("faulty", place.request(&[])).unwrap_err();
    let why = format!(
        "its SHA-256 is {}, and the configuration pins 00",
        pin.hex()
    );
    assert_eq!(error.to_string(), not_loaded(&path, &why));
}

#[test]
fn a_plugin_with_another_driver_than_its_name_says_is_refused() {
    let place = Place::new();
    let path = place.install(&minimal(), "libplywood_driver_faulty.so");
    let expected = format!(
        "plugin `{}` is refused: it holds the driver `minimal`, not `faulty`",
        path.display()
    );
    assert_eq!(place.refusal(&path), expected);
}

/// Directories that each have a plugin of the faulty driver.
fn everywhere(place: &Place) -> PluginOptions {
    for directory in [
        "option",
        "environment",
        "bin",
        "lib/plywood/drivers/v1",
        "system",
    ] {
        place.install(
            &faulty(),
            &format!("{directory}/libplywood_driver_faulty.so"),
        );
    }
    let mut options = PluginOptions::only_embedded();
    options.directories = vec![place.path("nothing"), place.path("option")];
    let mut environment = OsString::from("relative::");
    environment.push(place.path("environment"));
    options.environment = Some(environment);
    options.executable = Some(place.path("bin/program"));
    options.system_directories = vec![place.path("system")];
    options
}

#[test]
fn the_first_place_wins_and_the_others_are_shown_as_shadowed() {
    let place = Place::new();
    let registry = Registry::discover(everywhere(&place));
    let list: Vec<FoundDriver> = registry
        .list()
        .into_iter()
        .filter(|found| found.name.as_str() == "faulty")
        .collect();
    let sources: Vec<_> = list.iter().map(|found| found.source).collect();
    let expected = [
        Source::Option,
        Source::Environment,
        Source::Executable,
        Source::Executable,
        Source::System,
        Source::Embedded,
    ];
    assert_eq!(sources, expected);
    assert_eq!(list[0].shadowed_by, None);
    for shadowed in &list[1..] {
        assert_eq!(shadowed.shadowed_by.as_ref(), Some(&list[0].origin));
    }
    let order = [
        "option",
        "environment",
        "bin",
        "lib/plywood/drivers/v1",
        "system",
    ];
    for directory in order {
        let file = place.path(directory).join("libplywood_driver_faulty.so");
        let found = registry.find("faulty").unwrap();
        assert_eq!(found.origin, Origin::File(file.clone()), "{directory}");
        let driver = registry.open("faulty", place.request(&[])).unwrap();
        assert_eq!(driver.origin(), &found.origin);
        fs::remove_file(file).unwrap();
    }
    let last = registry.open("faulty", place.request(&[])).unwrap();
    assert_eq!(last.origin(), &Origin::Embedded);
}

#[test]
fn a_refused_plugin_is_not_replaced_by_the_next_one() {
    let place = Place::new();
    let registry = Registry::discover(everywhere(&place));
    let first = place.path("option/libplywood_driver_faulty.so");
    fs::write(&first, "no plugin").unwrap();
    let error = registry.open("faulty", place.request(&[])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DriverUnavailable);
    assert_eq!(error.to_string(), not_loaded(&first, "it is no ELF file"));
    let list = registry.list();
    let found = list.iter().find(|found| found.source == Source::Option);
    assert!(found.unwrap().check().is_err());
}

#[test]
fn a_missing_driver_is_reported_with_the_places_that_were_searched() {
    let place = Place::new();
    let registry = Registry::discover(everywhere(&place));
    let error = registry.open("nobody", place.request(&[])).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DriverUnavailable);
    let text = error.to_string();
    assert!(
        text.starts_with(
            "driver `nobody` is not available: there is no `libplywood_driver_nobody.so` in"
        ),
        "{text}"
    );
    for directory in [
        "option",
        "environment",
        "bin",
        "lib/plywood/drivers/v1",
        "system",
    ] {
        assert!(
            text.contains(&format!("`{}`", place.path(directory).display())),
            "{text}"
        );
    }
    assert!(!text.contains("relative"), "{text}");
}

#[test]
fn a_name_is_checked_before_it_becomes_a_path() {
    let place = Place::new();
    let registry = Registry::discover(everywhere(&place));
    for name in ["", "../option/x", "/etc/passwd", "overlay-layers", "UPPER"] {
        let error = registry.open(name, place.request(&[])).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert_eq!(
            error.to_string(),
            format!("`{name}` cannot be the name of a driver")
        );
    }
    assert!("faulty".parse::<DriverName>().is_ok());
}

/// `core/examples/probe_plugin.rs`.
fn prober() -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let example = ["-p", "plywood", "--example", "probe_plugin"];
    BUILT.get_or_init(|| cargo_build(workspace(), &example));
    artifacts().join("examples/probe_plugin")
}

#[test]
fn a_probe_tells_what_a_plugin_is() {
    let place = Place::new();
    let path = place.install(&faulty(), "libplywood_driver_faulty.so");
    let report = plywood::plugin::probe::probe_in_child(&prober(), &path);
    assert_eq!(report.refusal, None);
    assert_eq!(report.name.as_deref(), Some("faulty"));
    assert_eq!(report.vendor.as_deref(), Some("Plywood tests"));
    assert_eq!(report.version.as_deref(), Some("0.1.0"));
    assert_eq!(report.abi.as_deref(), Some("1.1"));
    let digest = plywood::Digest::sha256(&fs::read(&path).unwrap());
    assert_eq!(report.sha256.as_deref(), Some(digest.hex()));
    assert_eq!(report.path, Some(path));
}

#[test]
fn a_corrupt_plugin_kills_the_probe_and_not_the_program() {
    let place = Place::new();
    let whole = fs::read(faulty()).unwrap();
    let path = place.path("libplywood_driver_faulty.so");
    let (mut dead, mut refused) = (0, 0);
    // Pages of headers, relocations, code and data.
    for page in 0..64 {
        let start = page * whole.len() / 64 / 4096 * 4096;
        let mut corrupt = whole.clone();
        let end = whole.len().min(start + 4096);
        corrupt[start..end].fill(0xff);
        fs::write(&path, corrupt).unwrap();
        let report = plywood::plugin::probe::probe_in_child(&prober(), &path);
        match &report.refusal {
            Some(text) if text.contains("process that loads it") => dead += 1,
            Some(_) => refused += 1,
            None => {}
        }
    }
    assert!(refused > 0, "no damage was noticed before loading");
    assert!(dead > 0, "no damage was deadly, so this proves nothing");
}

#[test]
fn a_program_that_cannot_probe_is_reported() {
    let place = Place::new();
    let path = place.install(&faulty(), "x.so");
    let report = plywood::plugin::probe::probe_in_child(Path::new("/nonexistent"), &path);
    let refusal = report.refusal.unwrap();
    assert!(
        refusal.contains("could not be probed: No such file"),
        "{refusal}"
    );
    let report = plywood::plugin::probe::probe_in_child(Path::new("/bin/true"), &path);
    let expected = format!(
        "plugin `{}` ends the process that loads it (exit status 0)",
        path.display()
    );
    assert_eq!(report.refusal.unwrap(), expected);
}
