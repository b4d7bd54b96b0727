// SPDX-License-Identifier: Apache-2.0
//! Odd surroundings: environment, user, umask, descriptors, roots, drivers.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Command, Stdio},
};

use super::{
    abuse_support::{DRIVERS, check_store, mounts, refused, refused_with_hint, seed},
    support::{Answer, As, Place, can_run, ours, program, run, tar_of},
};

/// Runs our program on the store in a shell, where `$C` is the call with its roots.
#[track_caller]
fn shell(place: &Place, script: &str) -> Answer {
    let mut command = Command::new("sh");
    let call = format!(
        "{} -g {} -R {} -s {}",
        program().display(),
        place.graph().display(),
        place.path("run").display(),
        place.driver
    );
    command.args(["-c", script]).env("C", call);
    command.current_dir(place.dir.path());
    run(&mut command, b"")
}

#[test]
fn root_every_umask_gives_a_usable_store_and_exact_modes() {
    if !can_run(&[]) {
        return;
    }
    for driver in DRIVERS {
        for umask in ["077", "000", "777"] {
            let place = Place::new(driver);
            let stream = tar_of(&[("d/", None), ("d/f", Some(b"x"))]);
            fs::write(place.path("layer.tar"), stream).unwrap();
            let script = format!(
                "umask {umask}; $C import-layer -n l -f layer.tar && $C create-image -n i l && \
                 $C create-container -n c i && $C mount c"
            );
            let answer = shell(&place, &script).ok();
            let mounted = Path::new(answer.out.lines().last().unwrap());
            for (name, mode) in [("d", 0o755), ("d/f", 0o644)] {
                let found = fs::metadata(mounted.join(name)).unwrap().permissions();
                assert_eq!(found.mode() & 0o7777, mode, "{name} under {umask}");
            }
            shell(
                &place,
                &format!("umask {umask}; $C unmount c && $C delete-container c"),
            )
            .ok();
            check_store(&place, false);
        }
    }
}

#[test]
fn root_an_empty_environment_and_closed_descriptors_do_no_harm() {
    if !can_run(&["env"]) {
        return;
    }
    let place = Place::new("overlay");
    seed(&place);
    let layers = shell(&place, "env -i $C layers").ok();
    assert_eq!(layers, place.plywood(&["layers"]));
    shell(&place, "env -i $C mount ctr && env -i $C unmount ctr").ok();
    shell(&place, "env -i $C info").ok();
    for closed in ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"] {
        shell(&place, &format!("$C layers {closed}")).ok();
        shell(
            &place,
            &format!("$C create-layer -n n {closed} && $C delete-layer n"),
        )
        .ok();
    }
    let full = shell(&place, "$C diff base > /dev/full");
    assert!(refused(&full).contains("No space left"), "{full:?}");
    check_store(&place, false);
}

#[test]
fn root_roots_may_be_relative_or_links() {
    if !can_run(&[]) {
        return;
    }
    for driver in DRIVERS {
        let place = Place::new(driver);
        seed(&place);
        symlink(place.graph(), place.path("link")).unwrap();
        let on = |graph: &str, words: &[&str]| {
            let mut command = ours(As::Own);
            command
                .args(["-g", graph, "-R", "run", "-s", driver])
                .args(words);
            run(command.current_dir(place.dir.path()), b"").ok()
        };
        let expected = place.plywood(&["layers"]).ok();
        for graph in ["graph", "link", "./link/../graph"] {
            assert_eq!(on(graph, &["layers"]), expected, "{graph}");
            // Mounted by one name, unmounted by another.
            let mounted = on(graph, &["mount", "ctr"]);
            assert!(Path::new(mounted.line()).is_absolute(), "{mounted:?}");
            assert!(Path::new(mounted.line()).join("d/f").is_file());
            assert_eq!(place.plywood(&["mounted", "ctr"]).ok().out, "ctr mounted\n");
            place.plywood(&["unmount", "ctr"]).ok();
            assert_eq!(mounts(&place), Vec::<String>::new());
        }
        check_store(&place, false);
        for bad in ["disk", "/proc/nowhere"] {
            fs::write(place.path("disk"), b"").unwrap();
            let mut command = ours(As::Own);
            command.args(["-g", bad, "-R", "run", "-s", driver, "layers"]);
            let answer = run(command.current_dir(place.dir.path()), b"");
            assert_ne!(answer.code, 0, "{bad}: {answer:?}");
            assert!(!answer.err.contains("panicked"), "{answer:?}");
        }
    }
}

#[test]
fn root_another_user_is_told_what_is_missing() {
    if !can_run(&["setpriv"]) {
        return;
    }
    let place = Place::new("vfs");
    seed(&place);
    fs::set_permissions(place.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The build may be where that user cannot look.
    for file in ["plywood", "libplywood_driver_vfs.so"] {
        fs::copy(program().with_file_name(file), place.path(file)).unwrap();
    }
    for words in [
        &["layers"][..],
        &["import-layer", "-f", "/dev/null"],
        &["gc"],
    ] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.arg(place.path("plywood"));
        command
            .arg("-g")
            .arg(place.graph())
            .arg("-R")
            .arg(place.path("run"));
        command.args(["-s", "vfs"]).args(words);
        command
            .env("HOME", "/nonexistent")
            .env_remove("XDG_CONFIG_HOME");
        let answer = run(command.stdin(Stdio::null()), b"");
        let text = refused_with_hint(&answer);
        assert!(text.contains("Permission denied"), "{text}");
        assert!(text.contains(place.dir.path().to_str().unwrap()), "{text}");
    }
    check_store(&place, false);
}

#[test]
fn root_missing_wrong_and_foreign_drivers() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("overlay");
    seed(&place);
    let on = |driver: &str, words: &[&str]| {
        let mut command = ours(As::Own);
        command
            .arg("-g")
            .arg(place.graph())
            .arg("-R")
            .arg(place.path("run"));
        command.args(["--plugin-dir"]).arg(place.path("plugins"));
        if !driver.is_empty() {
            command.args(["-s", driver]);
        }
        run(command.args(words), b"")
    };
    let plugins = place.path("plugins");
    fs::create_dir(&plugins).unwrap();
    let vfs = fs::read(program().with_file_name("libplywood_driver_vfs.so")).unwrap();
    let file = |name: &str| plugins.join(format!("libplywood_driver_{name}.so"));
    fs::write(file("text"), b"no plugin").unwrap();
    fs::write(file("half"), &vfs[..16 << 10]).unwrap();
    fs::write(file("other"), &vfs).unwrap();
    fs::write(file("open"), &vfs).unwrap();
    fs::set_permissions(file("open"), fs::Permissions::from_mode(0o666)).unwrap();
    fs::create_dir(file("dir")).unwrap();
    for (driver, expected) in [
        ("nothing", "libplywood_driver_nothing.so"),
        ("text", "no ELF file"),
        ("half", "truncated"),
        ("other", "holds the driver `vfs`"),
        ("open", "can be written by others"),
        ("dir", "directory"),
        ("../vfs", "cannot be the name"),
    ] {
        let answer = on(driver, &["create-layer"]);
        assert!(
            refused_with_hint(&answer).contains(expected),
            "{driver}: {answer:?}"
        );
    }
    // The store is overlay's: without a name its own driver is taken, and vfs sees none of it.
    let info = on("", &["info", "-j"]).ok().json();
    assert_eq!(info["driver"], "overlay");
    let before = place.plywood(&["layers"]).ok();
    let foreign = on("vfs", &["layers", "-q"]);
    assert!(!foreign.out.contains('a'), "{foreign:?}");
    drop(on("vfs", &["gc"]));
    assert_eq!(place.plywood(&["layers"]).ok(), before);
    // Two drivers' stores in one root: someone has to choose.
    on("vfs", &["create-layer"]).ok();
    let answer = on("", &["layers"]);
    let text = refused_with_hint(&answer);
    assert!(text.contains("overlay") && text.contains("vfs"), "{text}");
    check_store(&place, false);
}

#[test]
fn root_a_damaged_configuration_is_named_with_its_line() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    let conf = place.path("storage.conf");
    for (text, expected) in [
        ("garbage", "line 1"),
        ("[storage]\n\n[storage", "line 3"),
        ("[storage]\ndriver = 5\n", "storage.driver"),
    ] {
        fs::write(&conf, text).unwrap();
        let mut command = ours(As::Own);
        command.env("CONTAINERS_STORAGE_CONF", &conf).arg("layers");
        let answer = run(&mut command, b"");
        let told = refused(&answer);
        assert!(told.contains(expected), "{told}");
        assert!(told.contains(conf.to_str().unwrap()), "{told}");
    }
    let mut command = ours(As::Own);
    command
        .env("CONTAINERS_STORAGE_CONF", place.path("none"))
        .arg("layers");
    let answer = run(&mut command, b"");
    assert!(
        refused_with_hint(&answer).contains("CONTAINERS_STORAGE_CONF"),
        "{answer:?}"
    );
}

#[test]
fn root_large_records_are_read_and_written() {
    if !can_run(&[]) {
        return;
    }
    let place = Place::new("vfs");
    seed(&place);
    let file = place.graph().join("vfs-images/images.json");
    let text = fs::read_to_string(&file).unwrap();
    let metadata = "\\\"x".repeat(8 << 20);
    let large = text.replacen("\"id\":", &format!("\"foreign\":\"{metadata}\",\"id\":"), 1);
    assert_ne!(large, text);
    fs::write(&file, &large).unwrap();
    place.plywood(&["add-names", "-n", "second", "img"]).ok();
    assert!(fs::read_to_string(&file).unwrap().contains(&metadata));
    let names = place.plywood(&["get-names", "img"]).ok().out;
    assert!(names.contains("second"), "{names}");
    check_store(&place, false);
}
