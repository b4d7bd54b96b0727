// SPDX-License-Identifier: Apache-2.0
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::fs::symlink,
    process::{Command, Stdio},
};

use plywood_driver_overlay::Overlay;
use plywood_plugin_sdk::{MountRequest, Plugin, Removed};

use crate::support::{Roots, container, id, is_root, layer, mount, write};

#[test]
fn root_lost_links_are_made_again() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("a", None)).unwrap();
    driver.create(&layer("b", Some("a"))).unwrap();
    write(&roots.home().join("a/diff/file"), "a");
    let links = roots.home().join("l");
    // What others may have put beside the layers.
    fs::create_dir_all(roots.home().join("tempdirs/temp-dir-1/0-addition")).unwrap();
    fs::create_dir_all(roots.home().join("staging/x/dir")).unwrap();
    fs::create_dir(roots.home().join("foreign")).unwrap();
    symlink("/etc", links.join("FOREIGN")).unwrap();

    for entry in fs::read_dir(&links).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let mounted = mount(&*driver, "b", &MountRequest::default());
    assert_eq!(fs::read_to_string(mounted.path("file")).unwrap(), "a");
    drop(mounted);
    assert_eq!(fs::read_dir(&links).unwrap().count(), 2);

    // The whole directory, and a link that names another layer.
    fs::remove_dir_all(&links).unwrap();
    fs::create_dir(&links).unwrap();
    let link = fs::read_to_string(roots.home().join("a/link")).unwrap();
    symlink("../nobody/diff", links.join(&link)).unwrap();
    drop(mount(&*driver, "b", &MountRequest::default()));
    assert_eq!(
        fs::read_link(links.join(&link)).unwrap(),
        std::path::Path::new("../a/diff")
    );
}

#[test]
fn root_an_empty_link_file_is_written_again() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("a", None)).unwrap();
    let file = roots.home().join("a/link");
    let link = fs::read_to_string(&file).unwrap();
    for damage in [true, false] {
        if damage {
            fs::write(&file, "").unwrap();
        } else {
            fs::remove_file(&file).unwrap();
        }
        let name = format!("child{damage}");
        driver.create(&container(&name, Some("a"))).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), link);
        let lower = fs::read_to_string(roots.home().join(&name).join("lower")).unwrap();
        assert_eq!(lower, format!("l/{link}"));
    }
}

#[test]
fn root_removed_layers_wait_in_the_trash_and_leave_nothing() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("a", None)).unwrap();
    driver.create(&container("b", Some("a"))).unwrap();
    // The kernel leaves a directory there that only root may enter.
    let mounted = mount(&*driver, "b", &MountRequest::default());
    write(&mounted.path("file"), "x");
    drop(mounted);
    let token = driver.trash(&id("b")).unwrap().unwrap();
    assert!(!driver.exists(&id("b")).unwrap());
    assert_eq!(driver.trash(&id("b")).unwrap(), None);
    assert_eq!(fs::read_dir(roots.home().join("l")).unwrap().count(), 1);
    assert_eq!(driver.recover().unwrap(), [""; 0], "its owner is alive");
    driver.create(&container("b", Some("a"))).unwrap();
    driver.reap(&token).unwrap();
    driver.reap(&token).unwrap();
    assert_eq!(driver.remove(&id("b")).unwrap(), Removed::Now);
    assert_eq!(driver.remove(&id("b")).unwrap(), Removed::AlreadyGone);
    assert!(!roots.home().join("tempdirs").exists());
}

/// Run by the test below in a process of its own, which is then killed.
#[test]
#[ignore = "a part of another test"]
fn part_stage_trash_and_wait() {
    let mut graph = String::new();
    BufReader::new(std::io::stdin())
        .read_line(&mut graph)
        .unwrap();
    let home = std::path::PathBuf::from(graph.trim()).join("g/overlay");
    let run = std::path::PathBuf::from(graph.trim()).join("r/overlay");
    let log = std::sync::Arc::new(crate::support::Log::default());
    let request = plywood_plugin_sdk::OpenRequest::new(home, run, log);
    let driver = Overlay::open(request).unwrap();
    let staged = driver.stage(&layer("staged", Some("a"))).unwrap();
    write(&staged.target.directory.join("half"), "x");
    driver.trash(&id("b")).unwrap().unwrap();
    println!("ready");
    std::thread::sleep(std::time::Duration::from_mins(1));
}

#[test]
fn root_what_a_killed_process_left_is_reclaimed() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("a", None)).unwrap();
    driver.create(&container("b", Some("a"))).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--ignored",
            "--exact",
            "recovery::part_stage_trash_and_wait",
            "--nocapture",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let root = roots.graph_root().parent().unwrap().to_owned();
    writeln!(child.stdin.take().unwrap(), "{}", root.display()).unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready") {
        line.clear();
        assert_ne!(
            output.read_line(&mut line).unwrap(),
            0,
            "the part ended early"
        );
    }
    assert_eq!(driver.recover().unwrap(), [""; 0], "its owner is alive");
    assert_eq!(
        fs::read_dir(roots.home().join("tempdirs")).unwrap().count(),
        4
    );
    child.kill().unwrap();
    child.wait().unwrap();
    output.read_to_string(&mut line).unwrap();
    assert_eq!(driver.recover().unwrap().len(), 2);
    assert!(!roots.home().join("tempdirs").exists());
    assert_eq!(driver.list().unwrap(), [id("a")]);
}

#[test]
fn root_the_link_of_a_layer_that_was_never_published_goes_with_its_place() {
    if !is_root() {
        return;
    }
    let roots = Roots::new();
    let driver = roots.open();
    driver.create(&layer("a", None)).unwrap();
    let live = fs::read_to_string(roots.home().join("a/link")).unwrap();
    // As a process leaves it that dies between building a layer and publishing it.
    let lost = "LOSTLOSTLOSTLOSTLOSTLOSTLO";
    let place = roots.home().join("tempdirs/temp-dir-77");
    for (dir, link) in [("0-addition", live.trim()), ("1-addition", lost)] {
        fs::create_dir_all(place.join(dir)).unwrap();
        write(&place.join(dir).join("link"), link);
    }
    std::os::unix::fs::symlink("../b/diff", roots.home().join("l").join(lost)).unwrap();
    assert_eq!(driver.recover().unwrap().len(), 1);
    let links: Vec<_> = fs::read_dir(roots.home().join("l"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(links, [live.trim()], "only the link to nothing goes");
    assert!(!roots.home().join("tempdirs").exists());
}
