// SPDX-License-Identifier: Apache-2.0
//! Hand-made tars, unpacked trees as values, and containers-storage as the oracle.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::Permissions,
    io::Read as _,
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    process::Command,
};

use plywood::{
    Digest,
    archive::import::{ImportOptions, Imported, import},
    sdk::{IdMaps, UnpackTarget, WhiteoutForm},
};
use serde_json::Value;

/// One entry of a hand-made tar.
#[derive(Clone)]
pub(crate) struct Item {
    pub(crate) name: Vec<u8>,
    pub(crate) flag: u8,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: i64,
    pub(crate) link: Vec<u8>,
    pub(crate) content: Vec<u8>,
    /// The size in the header, if it is not that of the content.
    pub(crate) claimed: Option<u64>,
    pub(crate) pax: Vec<(Vec<u8>, Vec<u8>)>,
    pub(crate) device: (u32, u32),
}

/// An entry of type `flag` with plausible attributes.
pub(crate) fn item(flag: u8, name: impl AsRef<[u8]>) -> Item {
    Item {
        name: name.as_ref().to_vec(),
        flag,
        mode: if flag == b'5' { 0o755 } else { 0o644 },
        uid: 0,
        gid: 0,
        mtime: 1_600_000_000,
        link: Vec::new(),
        content: Vec::new(),
        claimed: None,
        pax: Vec::new(),
        device: (0, 0),
    }
}

pub(crate) fn file(name: &str, content: &str) -> Item {
    Item {
        content: content.into(),
        ..item(b'0', name)
    }
}

pub(crate) fn dir(name: &str) -> Item {
    item(b'5', name)
}

pub(crate) fn symlink(name: &str, target: &str) -> Item {
    Item {
        link: target.into(),
        mode: 0o777,
        ..item(b'2', name)
    }
}

pub(crate) fn hardlink(name: &str, target: &str) -> Item {
    Item {
        link: target.into(),
        ..item(b'1', name)
    }
}

impl Item {
    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn owner(mut self, uid: u32, gid: u32) -> Self {
        (self.uid, self.gid) = (uid, gid);
        self
    }

    pub(crate) fn mtime(mut self, mtime: i64) -> Self {
        self.mtime = mtime;
        self
    }

    pub(crate) fn pax(mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        self.pax
            .push((key.as_ref().to_vec(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn device(mut self, major: u32, minor: u32) -> Self {
        self.device = (major, minor);
        self
    }
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut bytes = content.to_vec();
    bytes.resize(content.len().next_multiple_of(512), 0);
    bytes
}

/// The records of a PAX header.
pub(crate) fn pax_records(records: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut content = Vec::new();
    for (key, value) in records {
        let body = [b" ", key.as_slice(), b"=", value.as_slice(), b"\n"].concat();
        let mut length = body.len();
        while length != body.len() + length.to_string().len() {
            length = body.len() + length.to_string().len();
        }
        content.extend_from_slice(length.to_string().as_bytes());
        content.extend_from_slice(&body);
    }
    content
}

/// The USTAR header block of an item; `edit` changes it before the checksum is made.
pub(crate) fn header(item: &Item, edit: impl Fn(&mut [u8; 512])) -> [u8; 512] {
    let mut block = [0_u8; 512];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &item.name[..item.name.len().min(100)]);
    put(100, format!("{:07o}\0", item.mode).as_bytes());
    put(108, format!("{:07o}\0", item.uid).as_bytes());
    put(116, format!("{:07o}\0", item.gid).as_bytes());
    let size = item.claimed.unwrap_or(item.content.len() as u64);
    put(124, format!("{size:011o}\0").as_bytes());
    match u64::try_from(item.mtime) {
        Ok(mtime) => put(136, format!("{mtime:011o}\0").as_bytes()),
        Err(_) => put(136, &[&[0xff; 4][..], &item.mtime.to_be_bytes()].concat()),
    }
    put(156, &[item.flag]);
    put(157, &item.link[..item.link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}\0", item.device.0).as_bytes());
    put(337, format!("{:07o}\0", item.device.1).as_bytes());
    edit(&mut block);
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// The bytes of one item, with its PAX header.
pub(crate) fn bytes(item: &Item) -> Vec<u8> {
    let mut bytes = Vec::new();
    if !item.pax.is_empty() {
        let extension = Item {
            content: pax_records(&item.pax),
            mtime: 0,
            ..super::import_support::item(b'x', "PaxHeaders.0/x")
        };
        bytes.extend_from_slice(&header(&extension, |_| {}));
        bytes.extend_from_slice(&padded(&extension.content));
    }
    bytes.extend_from_slice(&header(item, |_| {}));
    bytes.extend_from_slice(&padded(&item.content));
    bytes
}

/// A tar of `items` with its end mark.
pub(crate) fn tar(items: &[Item]) -> Vec<u8> {
    let mut tar: Vec<u8> = items.iter().flat_map(bytes).collect();
    tar.extend_from_slice(&[0; 1024]);
    tar
}

/// What is known about one file of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, i64),
    pub(crate) device: u64,
    /// The first path of the same inode.
    pub(crate) same_as: PathBuf,
    /// Content or link target.
    pub(crate) content: Vec<u8>,
    pub(crate) attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub(crate) type Tree = BTreeMap<PathBuf, Node>;

/// Reads the tree below `root`; the root itself is `.`.
pub(crate) fn tree(root: &Path) -> Tree {
    let mut found = Tree::new();
    let mut inodes = BTreeMap::new();
    walk(root, Path::new("."), &mut found, &mut inodes);
    found
}

fn walk(root: &Path, path: &Path, found: &mut Tree, inodes: &mut BTreeMap<u64, PathBuf>) {
    let full = root.join(path);
    let data = full.symlink_metadata().unwrap();
    let content = if data.is_file() {
        std::fs::read(&full).unwrap()
    } else if data.is_symlink() {
        let target = full.read_link().unwrap();
        target.as_os_str().as_bytes().to_vec()
    } else {
        Vec::new()
    };
    let first = || path.to_owned();
    let same_as = inodes.entry(data.ino()).or_insert_with(first).clone();
    let node = Node {
        mode: data.mode(),
        owner: (data.uid(), data.gid()),
        mtime: (data.mtime(), data.mtime_nsec()),
        device: data.rdev(),
        same_as,
        content,
        attributes: attributes(&full),
    };
    found.insert(path.to_owned(), node);
    if data.is_dir() {
        let entries = std::fs::read_dir(&full).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            walk(root, &path.join(name), found, inodes);
        }
    }
}

fn attributes(path: &Path) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut names = vec![0_u8; 4096];
    let length = rustix::fs::llistxattr(path, &mut names[..]).unwrap();
    let names = names[..length].split(|byte| *byte == 0);
    // The other program does not mark directories with whiteouts in them.
    let names = names.filter(|name| !name.is_empty() && *name != b"trusted.overlay.origin");
    let values = names.map(|name| {
        let mut value = vec![0_u8; 65536];
        let length = rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value[..]).unwrap();
        (name.to_vec(), value[..length].to_vec())
    });
    values.collect()
}

/// The names in a tree, without the root.
pub(crate) fn names(tree: &Tree) -> Vec<&str> {
    let names = tree.keys().filter(|path| *path != Path::new("."));
    names
        .map(|path| path.strip_prefix(".").unwrap().to_str().unwrap())
        .collect()
}

/// Where a test unpacks.
pub(crate) struct Scratch {
    pub(crate) place: tempfile::TempDir,
}

impl Scratch {
    pub(crate) fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let root = place.path().join("root");
        std::fs::create_dir(&root).unwrap();
        // As containers-storage makes it.
        std::fs::set_permissions(&root, Permissions::from_mode(0o555)).unwrap();
        Self { place }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.place.path().join("root")
    }

    /// The target for `form`: overlay's is fresh and without root attributes.
    pub(crate) fn target(&self, form: WhiteoutForm) -> UnpackTarget {
        let mut target = UnpackTarget::tree(self.root());
        if form != WhiteoutForm::Removal {
            target.apply_root = false;
            target.implied_directory_mode = 0o777;
            target.implied_directory_umask = true;
            target.fresh = true;
        }
        target.whiteouts = form;
        target
    }

    pub(crate) fn import(
        &self,
        form: WhiteoutForm,
        tar: &[u8],
    ) -> plywood::Result<(Imported, Vec<u8>)> {
        Self::import_with(&self.target(form), tar)
    }

    pub(crate) fn import_with(
        target: &UnpackTarget,
        tar: &[u8],
    ) -> plywood::Result<(Imported, Vec<u8>)> {
        let maps = IdMaps::default();
        let mut record = Vec::new();
        let imported = import(tar, &ImportOptions::new(target, &maps), &mut record)?;
        Ok((imported, gunzip(&record)))
    }

    pub(crate) fn tree(&self) -> Tree {
        tree(&self.root())
    }
}

pub(crate) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes)
        .read_to_end(&mut content)
        .unwrap();
    content
}

/// A store of the installed containers-storage (1.43).
pub(crate) struct Oracle {
    place: tempfile::TempDir,
    driver: &'static str,
}

/// What it made of a layer.
pub(crate) struct Verdict {
    pub(crate) tree: Tree,
    pub(crate) record: Value,
    pub(crate) tar_split: Vec<u8>,
}

impl Oracle {
    pub(crate) fn new(driver: &'static str) -> Self {
        let place = tempfile::tempdir().unwrap();
        Self { place, driver }
    }

    /// Imports `layer` as `id`; the error is what the tool says.
    pub(crate) fn import(
        &self,
        id: &str,
        parent: Option<&str>,
        layer: &[u8],
    ) -> Result<Verdict, String> {
        let blob = self.place.path().join("blob");
        std::fs::write(&blob, layer).unwrap();
        let graph = self.place.path().join("graph");
        let output = Command::new("containers-storage")
            .arg("--graph")
            .arg(&graph)
            .arg("--run")
            .arg(self.place.path().join("run"))
            .args(["-s", self.driver, "import-layer", "-i", id, "-f"])
            .arg(&blob)
            .args(parent)
            .output()
            .expect("containers-storage is installed");
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned());
        }
        let layers = graph.join(format!("{}-layers", self.driver));
        let table = std::fs::read(layers.join("layers.json")).unwrap();
        let table: Vec<Value> = serde_json::from_slice(&table).unwrap();
        let record = table.into_iter().find(|layer| layer["id"] == id).unwrap();
        let split = std::fs::read(layers.join(format!("{id}.tar-split.gz"))).unwrap();
        let root = match self.driver {
            "overlay" => graph.join("overlay").join(id).join("diff"),
            _ => graph.join(self.driver).join("dir").join(id),
        };
        Ok(Verdict {
            tree: tree(&root),
            record,
            tar_split: without_empty_segment(&gunzip(&split)),
        })
    }
}

impl Oracle {
    /// What it rebuilds of a layer when the record beside it is `split`.
    pub(crate) fn rebuild(&self, id: &str, split: &[u8]) -> Vec<u8> {
        let graph = self.place.path().join("graph");
        let layers = graph.join(format!("{}-layers", self.driver));
        std::fs::write(layers.join(format!("{id}.tar-split.gz")), split).unwrap();
        let output = Command::new("containers-storage")
            .arg("--graph")
            .arg(&graph)
            .arg("--run")
            .arg(self.place.path().join("run"))
            .args(["-s", self.driver, "diff", "-u", id])
            .output()
            .expect("containers-storage is installed");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        output.stdout
    }
}

impl Drop for Oracle {
    /// Version 1.43 leaves its driver directory mounted on itself.
    fn drop(&mut self) {
        let home = self.place.path().join("graph").join(self.driver);
        let flags = rustix::mount::UnmountFlags::DETACH;
        if let Err(error) = rustix::mount::unmount(&home, flags) {
            assert_ne!(error, rustix::io::Errno::BUSY, "{}", home.display());
        }
    }
}

/// Version 1.43 ends a record with an empty segment that later versions leave out.
fn without_empty_segment(split: &[u8]) -> Vec<u8> {
    let end = split.len().saturating_sub(1);
    let last = split[..end]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |line_end| line_end + 1);
    if split[last..].starts_with(b"{\"type\":2,\"payload\":\"\",") {
        split[..last].to_vec()
    } else {
        split.to_vec()
    }
}

/// Checks an import against the oracle's record of the same layer.
pub(crate) fn assert_same_record(name: &str, ours: &Imported, theirs: &Value) {
    let ids = |key: &str| -> Vec<u32> {
        let list = theirs[key].as_array().cloned().unwrap_or_default();
        list.iter()
            .map(|id| u32::try_from(id.as_u64().unwrap()).unwrap())
            .collect()
    };
    let digest = |key: &str| theirs[key].as_str().unwrap().parse::<Digest>().unwrap();
    let number = |key: &str| theirs[key].as_u64().unwrap_or(0);
    assert_eq!(
        ours.compressed_digest,
        digest("compressed-diff-digest"),
        "{name}"
    );
    assert_eq!(ours.diff_digest, digest("diff-digest"), "{name}");
    assert_eq!(ours.compressed_size, number("compressed-size"), "{name}");
    assert_eq!(ours.diff_size, number("diff-size"), "{name}");
    let compression = u64::try_from(ours.compression.number()).unwrap();
    assert_eq!(compression, number("compression"), "{name}");
    assert_eq!(ours.uids, ids("uidset"), "{name}: uids");
    assert_eq!(ours.gids, ids("gidset"), "{name}: gids");
}

/// Times after this one are those of the test itself: of directories that the tar does not name.
const RECENT: i64 = 1_750_000_000;

/// Checks two records line by line.
pub(crate) fn assert_same_split(name: &str, ours: &[u8], theirs: &[u8]) {
    let lines = |bytes: &[u8]| -> Vec<String> {
        let text = std::str::from_utf8(bytes).unwrap();
        text.lines().map(str::to_owned).collect()
    };
    let (ours, theirs) = (lines(ours), lines(theirs));
    let end = |line: &String| line[line.len().saturating_sub(160)..].to_owned();
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert!(
            ours == theirs,
            "{name}: {} against {}",
            end(ours),
            end(theirs)
        );
    }
    assert_eq!(ours.len(), theirs.len(), "{name}: lines");
}

/// Checks two trees; `.` is compared only when `with_root`.
pub(crate) fn assert_same_tree(name: &str, ours: &Tree, theirs: &Tree, with_root: bool) {
    let pick = |tree: &Tree| -> Tree {
        let mut tree = tree.clone();
        if !with_root {
            tree.remove(Path::new("."));
        }
        for node in tree.values_mut().filter(|node| node.mtime.0 > RECENT) {
            node.mtime = (0, 0);
        }
        tree
    };
    let (ours, theirs) = (pick(ours), pick(theirs));
    for path in ours.keys().chain(theirs.keys()) {
        assert_eq!(
            ours.get(path),
            theirs.get(path),
            "{name}: {}",
            path.display()
        );
    }
}

/// The permission bits of `path`.
pub(crate) fn mode_of(path: impl AsRef<Path>) -> u32 {
    let data = path.as_ref().symlink_metadata().unwrap();
    data.permissions().mode() & 0o7777
}
