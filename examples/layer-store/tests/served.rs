// SPDX-License-Identifier: Apache-2.0
//! The program as a client of its file system sees it.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a failure of a helper is a failure of its test"
)]

use std::{
    fs::{self, File, OpenOptions},
    io::{BufRead as _, BufReader},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use data_encoding::BASE64;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const PROGRAM: &str = env!("CARGO_BIN_EXE_plywood-layer-store");

/// A served folder; the program ends with it.
struct Served {
    dir: tempfile::TempDir,
    program: Child,
    digest: String,
}

impl Served {
    /// `None` where nothing can be mounted, with the reason printed.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (stream, layers) = (dir.path().join("stream"), dir.path().join("layers"));
        write_stream(&stream);
        let added = Command::new(PROGRAM)
            .arg("add")
            .args([&layers, &stream])
            .output()
            .unwrap();
        assert!(added.status.success(), "{added:?}");
        let digest = String::from_utf8(added.stdout).unwrap().trim().to_owned();
        fs::create_dir(dir.path().join("shown")).unwrap();
        let mut program = Command::new(PROGRAM)
            .arg("serve")
            .args([&layers, &dir.path().join("shown")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(program.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        assert!(line.contains(" at "), "it says when it is ready: {line}");
        Some(Self {
            dir,
            program,
            digest,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn layer(&self) -> PathBuf {
        self.path("shown").join(&self.digest)
    }

    fn uses(&self) -> String {
        let text = fs::read_to_string(self.path("shown/status")).unwrap();
        text.trim().strip_prefix(&self.digest).unwrap().to_owned()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ended = self.program.kill().and_then(|()| self.program.wait());
        for name in ["merged", "shown"] {
            while umount2(&self.path(name), MntFlags::MNT_DETACH).is_ok() {}
        }
    }
}

/// A layer with everything that a tree can hold but sockets.
fn write_stream(path: &Path) {
    let mut tar = tar::Builder::new(File::create(path).unwrap());
    let mut add = |kind: tar::EntryType, name: &str, link: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        if !link.is_empty() {
            header.set_link_name(link).unwrap();
        }
        header.set_size(content.len() as u64);
        header.set_mode(0o4711);
        header.set_uid(12);
        header.set_gid(34);
        header.set_mtime(1_500_000_000);
        header.set_device_major(1).unwrap();
        header.set_device_minor(3).unwrap();
        header.set_cksum();
        tar.append(&header, content).unwrap();
    };
    add(tar::EntryType::Directory, "d", "", b"");
    add(tar::EntryType::Regular, "d/file", "", &vec![b'x'; 300_000]);
    add(tar::EntryType::Link, "d/linked", "d/file", b"");
    add(tar::EntryType::Symlink, "soft", "d/file", b"");
    add(tar::EntryType::Char, "null", "", b"");
    add(tar::EntryType::Fifo, "pipe", "", b"");
    add(tar::EntryType::Regular, "d/.wh.gone", "", b"");
    tar.finish().unwrap();
}

/// Kind, mode, owner, size, links, device and time of everything below `root`.
fn picture(root: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let name = path.strip_prefix(root).unwrap().display();
        let time = (found.mtime(), found.mtime_nsec());
        lines.push(format!(
            "{name} {:o} {}:{} {} {} {} {time:?}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.size(),
            found.nlink(),
            found.rdev(),
        ));
        if found.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    lines.sort();
    lines
}

#[test]
fn root_a_layer_is_shown_as_it_is_on_disk() {
    let Some(served) = Served::new() else { return };
    let on_disk = served.path("layers").join(&served.digest);
    let layer = served.layer();
    assert_eq!(picture(&layer.join("diff")), picture(&on_disk.join("diff")));
    let gone = fs::symlink_metadata(layer.join("diff/d/gone")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    let inode = |name: &str| fs::metadata(layer.join(name)).unwrap().ino();
    assert_eq!(inode("diff/d/file"), inode("diff/d/linked"));
    assert_eq!(
        fs::read(layer.join("blob")).unwrap(),
        fs::read(served.path("stream")).unwrap()
    );
    let info: serde_json::Value =
        serde_json::from_slice(&fs::read(layer.join("info")).unwrap()).unwrap();
    assert_eq!(info["compressed-diff-digest"], served.digest.as_str());
    assert_eq!(info["diff-digest"], served.digest.as_str());
    assert_eq!(info["uidset"], serde_json::json!([12]));

    // The same for those who come with an image's name, and nothing for others.
    let reference = BASE64.encode(b"docker.io/library/x:1");
    let by_name = served.path("shown").join(reference).join(&served.digest);
    assert_eq!(
        picture(&by_name.join("diff")),
        picture(&on_disk.join("diff"))
    );
    let unknown = served.digest.replace(|c: char| c.is_ascii_digit(), "0");
    for name in [unknown.as_str(), "sha256:short", "x", "====", ".."] {
        let path = served.path("shown").join(name).join("info");
        assert!(fs::read(path).is_err(), "{name}");
    }
}

#[test]
fn root_uses_and_releases_are_counted_and_answered_with_not_found() {
    let Some(served) = Served::new() else { return };
    let layer = served.layer();
    assert_eq!(served.uses(), " 0");
    for expected in [" 1", " 2"] {
        let error = File::create(layer.join("use")).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(served.uses(), expected);
    }
    for expected in [" 1", " 0", " 0"] {
        let error = fs::remove_dir(&layer).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(served.uses(), expected);
        assert!(layer.join("info").is_file(), "the layer stays");
    }
    for (name, result) in [
        ("new", File::create(layer.join("new")).map(drop)),
        ("diff", fs::remove_dir(layer.join("diff"))),
        (
            "info",
            OpenOptions::new()
                .write(true)
                .open(layer.join("info"))
                .map(drop),
        ),
    ] {
        assert!(result.is_err(), "{name} was changed");
    }
}

#[test]
fn root_overlay_mounts_it() {
    let Some(served) = Served::new() else { return };
    for name in ["base", "merged", "upper", "work"] {
        fs::create_dir(served.path(name)).unwrap();
    }
    fs::create_dir(served.path("base/d")).unwrap();
    fs::write(served.path("base/d/gone"), "below").unwrap();
    let options = format!(
        "lowerdir={}/diff:{},upperdir={},workdir={}",
        served.layer().display().to_string().replace(':', "\\:"),
        served.path("base").display(),
        served.path("upper").display(),
        served.path("work").display()
    );
    let merged = served.path("merged");
    let none = MsFlags::empty();
    mount(
        Some("overlay"),
        &merged,
        Some("overlay"),
        none,
        Some(options.as_str()),
    )
    .unwrap();
    assert_eq!(fs::read(merged.join("d/file")).unwrap().len(), 300_000);
    assert!(!merged.join("d/gone").exists(), "its whiteouts count");
    fs::write(merged.join("d/file"), "changed").unwrap();
    assert_eq!(fs::read(merged.join("soft")).unwrap(), b"changed");
}

#[test]
fn root_it_ends_when_it_is_told_to() {
    let Some(mut served) = Served::new() else {
        return;
    };
    let id = rustix::process::Pid::from_child(&served.program);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(served.program.wait().unwrap().success());
    assert!(!served.layer().exists(), "nothing is shown any more");
}
