// SPDX-License-Identifier: Apache-2.0
//! The other program's stores, tars taken apart, and records made by hand.

use std::{
    ffi::OsStr,
    fs,
    io::Write as _,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::LazyLock,
};

use data_encoding::BASE64;
use flate2::{Compression, write::GzEncoder};
use plywood::sdk::{DiffView, IdMaps, WhiteoutForm};
use rustix::mount::UnmountFlags;
use tempfile::TempDir;

pub(crate) const NO_MAPS: IdMaps = IdMaps {
    uids: Vec::new(),
    gids: Vec::new(),
};

/// Whether a test that needs `what` can run; `REQUIRE` makes its absence a failure.
fn can_run(what: &str, there: bool) -> bool {
    #[expect(
        clippy::disallowed_methods,
        reason = "tests are configured by the environment"
    )]
    let required = std::env::var("REQUIRE").is_ok_and(|list| list.contains(what));
    assert!(there || !required, "{what} is required and not there");
    if !there {
        println!("skipped: {what} is not there");
    }
    there
}

pub(crate) fn is_root() -> bool {
    can_run("root", rustix::process::geteuid().is_root())
}

pub(crate) fn has_peer() -> bool {
    let found = Command::new("containers-storage")
        .arg("--help")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok();
    can_run("interop", found && rustix::process::geteuid().is_root())
}

/// A store that containers-storage alone works on.
pub(crate) struct Peer {
    root: TempDir,
    pub(crate) driver: &'static str,
}

impl Peer {
    pub(crate) fn new(driver: &'static str) -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
            driver,
        }
    }

    pub(crate) fn graph(&self) -> PathBuf {
        self.root.path().join("graph")
    }

    pub(crate) fn bytes(&self, arguments: &[&str]) -> Vec<u8> {
        let output = Command::new("containers-storage")
            .arg("--graph")
            .arg(self.graph())
            .arg("--run")
            .arg(self.root.path().join("run"))
            .args(["--storage-driver", self.driver])
            .args(arguments)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{arguments:?}: {text}");
        output.stdout
    }

    /// The first word it prints.
    pub(crate) fn word(&self, arguments: &[&str]) -> String {
        let text = String::from_utf8(self.bytes(arguments)).unwrap();
        text.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    }

    /// A layer on `parent` in whose mounted tree `script` ran.
    pub(crate) fn layer(&self, parent: Option<&str>, script: &str) -> String {
        let mut arguments = vec!["create-layer"];
        arguments.extend(parent);
        let id = self.word(&arguments);
        let place = self.word(&["mount", &id]);
        run_script(Path::new(&place), script);
        self.bytes(&["unmount", &id]);
        id
    }

    /// How the driver here would describe the layer's changes.
    pub(crate) fn view(&self, id: &str, parent: Option<&str>) -> DiffView {
        let home = self.graph().join(self.driver);
        if self.driver == "vfs" {
            return DiffView::Trees {
                tree: home.join("dir").join(id),
                parent: parent.map(|parent| home.join("dir").join(parent)),
            };
        }
        let lower = fs::read_to_string(home.join(id).join("lower")).unwrap_or_default();
        DiffView::Upper {
            upper: home.join(id).join("diff"),
            lowers: lower
                .split(':')
                .filter(|part| !part.is_empty())
                .map(|part| home.join(part))
                .collect(),
            whiteouts: WhiteoutForm::Overlay,
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It leaves a bind mount of the driver's home on itself behind.
        let home = self.graph().join(self.driver);
        rustix::mount::unmount(&home, UnmountFlags::DETACH).ok();
    }
}

pub(crate) fn run_script(place: &Path, script: &str) {
    let output = Command::new("bash")
        .args(["-euc", script])
        .current_dir(place)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {text}");
}

/// An overlay mount of its own.
pub(crate) struct Overlay {
    root: TempDir,
}

impl Overlay {
    /// Mounts an overlay of a lower directory that `script` fills.
    pub(crate) fn new(script: &str, options: &str) -> Self {
        let this = Self {
            root: tempfile::tempdir().unwrap(),
        };
        for name in ["lower", "upper", "work", "merged"] {
            fs::create_dir(this.root.path().join(name)).unwrap();
        }
        run_script(&this.root.path().join("lower"), script);
        let data = format!("lowerdir=lower,upperdir=upper,workdir=work{options}");
        let output = Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &data, "merged"])
            .current_dir(this.root.path())
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "mount -o {data}: {text}");
        this
    }

    pub(crate) fn edit(&self, script: &str) {
        run_script(&self.root.path().join("merged"), script);
    }

    pub(crate) fn view(&self, whiteouts: WhiteoutForm) -> DiffView {
        DiffView::Upper {
            upper: self.root.path().join("upper"),
            lowers: vec![self.root.path().join("lower")],
            whiteouts,
        }
    }

    /// The same changes, seen as two whole trees.
    pub(crate) fn trees(&self) -> DiffView {
        DiffView::Trees {
            tree: self.root.path().join("merged"),
            parent: Some(self.root.path().join("lower")),
        }
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        rustix::mount::unmount(self.root.path().join("merged"), UnmountFlags::DETACH).ok();
    }
}

/// A tar-split record in the making, and the stream it stands for.
#[derive(Default)]
pub(crate) struct Record {
    pub(crate) lines: Vec<Vec<u8>>,
    pub(crate) stream: Vec<u8>,
}

impl Record {
    pub(crate) fn segment(&mut self, bytes: &[u8]) {
        self.stream.extend_from_slice(bytes);
        let payload = BASE64.encode(bytes);
        let position = self.lines.len();
        self.push(format!(
            "{{\"type\":2,\"payload\":\"{payload}\",\"position\":{position}}}"
        ));
    }

    pub(crate) fn file(&mut self, name: &[u8], content: &[u8]) {
        self.stream.extend_from_slice(content);
        let name = match std::str::from_utf8(name) {
            Ok(name) => format!("\"name\":{}", serde_json::to_string(name).unwrap()),
            Err(_) => format!("\"name_raw\":\"{}\"", BASE64.encode(name)),
        };
        let rest = if content.is_empty() {
            "\"payload\":null".to_owned()
        } else {
            let sum = BASE64.encode(&crc64(content).to_be_bytes());
            format!("\"size\":{},\"payload\":\"{sum}\"", content.len())
        };
        let position = self.lines.len();
        self.push(format!(
            "{{\"type\":1,{name},{rest},\"position\":{position}}}"
        ));
    }

    fn push(&mut self, line: String) {
        self.lines.push(line.into_bytes());
    }

    pub(crate) fn text(&self) -> Vec<u8> {
        let mut text = self.lines.join(&b'\n');
        text.push(b'\n');
        text
    }

    pub(crate) fn packed(&self) -> Vec<u8> {
        gzip(&self.text())
    }
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// CRC-64/ISO from its definition, apart from the library's.
fn crc64(bytes: &[u8]) -> u64 {
    static TABLE: LazyLock<Vec<u64>> = LazyLock::new(|| {
        let step = |crc: u64| (crc >> 1) ^ ((crc & 1) * 0xd800_0000_0000_0000);
        (0..256)
            .map(|byte| (0..8).fold(byte, |crc, _| step(crc)))
            .collect()
    });
    !bytes.iter().fold(u64::MAX, |crc, byte| {
        let [.., low] = crc.to_be_bytes();
        (crc >> 8) ^ TABLE[usize::from(low ^ byte)]
    })
}

pub(crate) fn write_below(root: &Path, name: &[u8], content: &[u8]) -> PathBuf {
    let path = root.join(OsStr::from_bytes(name));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, content).unwrap();
    path
}

/// Turns a tar of containers-storage 1.43 into what its successor writes.
///
/// The known differences alone: modes had type bits, users and groups had the host's names, and a
/// whiteout that shares its inode with others named the first of them without its prefix.
pub(crate) fn modernised(mut tar: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while is_header(&tar, at) {
        let header = &mut tar[at..at + 512];
        let size = octal(&header[124..136]);
        if header[156] != b'x' {
            let mode = octal(&header[100..108]) & 0o7777;
            header[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
            header[265..329].fill(0);
            if header[156] == b'0' && header[157] != 0 {
                let link: Vec<u8> = field(&header[157..257]).to_vec();
                let (directory, name) = match link.iter().rposition(|byte| *byte == b'/') {
                    Some(slash) => link.split_at(slash + 1),
                    None => (&b""[..], &link[..]),
                };
                let link = [directory, b".wh.", name].concat();
                header[157..157 + link.len()].copy_from_slice(&link);
            }
            seal(header);
        }
        at += 512 + size.next_multiple_of(512);
    }
    tar
}

/// Makes the time of whiteouts without an owner that of 1970: they were written just now.
pub(crate) fn timeless(mut tar: Vec<u8>) -> Vec<u8> {
    let mut at = 0;
    while is_header(&tar, at) {
        let header = &mut tar[at..at + 512];
        let size = octal(&header[124..136]);
        let name = field(&header[..100]);
        let base = name.rsplit(|byte| *byte == b'/').next().unwrap();
        if base.starts_with(b".wh.") && octal(&header[100..108]) == 0 {
            header[136..147].fill(b'0');
            seal(header);
        }
        at += 512 + size.next_multiple_of(512);
    }
    tar
}

/// Whether there is a header; a name without an ASCII character leaves its field empty.
fn is_header(tar: &[u8], at: usize) -> bool {
    tar.get(at..at + 512)
        .is_some_and(|block| block.iter().any(|byte| *byte != 0))
}

fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// Every header of a tar in readable form, to name the first difference.
pub(crate) fn listing(tar: &[u8]) -> Vec<String> {
    let mut lines = Vec::new();
    let mut at = 0;
    while is_header(tar, at) {
        let header = &tar[at..at + 512];
        let size = octal(&header[124..136]);
        let text = |range| String::from_utf8_lossy(field(&header[range])).into_owned();
        lines.push(format!(
            "{} {} mode {} owner {}:{} size {size} time {} link {} device {}:{} prefix {}",
            char::from(header[156]),
            text(0..100),
            text(100..108),
            text(108..116),
            text(116..124),
            text(136..148),
            text(157..257),
            text(329..337),
            text(337..345),
            text(345..500),
        ));
        if header[156] == b'x' {
            let body = &tar[at + 512..at + 512 + size];
            lines.push(format!("  {}", body.escape_ascii()));
        }
        at += 512 + size.next_multiple_of(512);
    }
    lines.push(format!("{} bytes at the end", tar.len() - at));
    lines
}

fn octal(bytes: &[u8]) -> usize {
    let text = std::str::from_utf8(field(bytes)).unwrap();
    usize::from_str_radix(text, 8).unwrap()
}

fn field(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap()
}
