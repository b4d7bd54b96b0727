// SPDX-License-Identifier: Apache-2.0
//! Random edits of a tree, for the tests of every driver that lists changes by itself.
//!
//! `crate::support::nest` makes what a driver may find inside a layer beside files: a subvolume, or
//! just a directory.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt, lchown, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, XattrFlags};

use crate::support::nest;

/// Numbers that a seed repeats.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> Option<T> {
        (!of.is_empty()).then(|| of[self.below(of.len())])
    }

    fn bytes(&mut self) -> Vec<u8> {
        // Small files are stored in the tree itself, large ones are not.
        let length = [0, 10, 1500, 5000, 40_000][self.below(5)];
        let byte = u8::try_from(self.below(256)).unwrap();
        vec![byte; length]
    }
}

/// What a tree contains.
struct Nodes {
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
    /// Anything but directories.
    leaves: Vec<PathBuf>,
}

impl Nodes {
    fn of(tree: &Path) -> Self {
        let mut found = Self {
            directories: vec![tree.to_owned()],
            files: Vec::new(),
            leaves: Vec::new(),
        };
        let mut at = 0;
        while at < found.directories.len() {
            let mut names: Vec<_> = fs::read_dir(&found.directories[at])
                .unwrap()
                .map(|entry| entry.unwrap())
                .collect();
            names.sort_by_key(fs::DirEntry::file_name);
            for entry in names {
                let kind = entry.file_type().unwrap();
                if kind.is_dir() && entry.metadata().unwrap().ino() == 2 {
                    // In the place of a subvolume of the parent; nothing can be made there.
                    continue;
                }
                if kind.is_dir() {
                    found.directories.push(entry.path());
                    continue;
                }
                if kind.is_file() {
                    found.files.push(entry.path());
                }
                found.leaves.push(entry.path());
            }
            at += 1;
        }
        found
    }
}

/// A new name: plain, long or no UTF-8.
fn name(random: &mut Random) -> PathBuf {
    let number = random.below(1 << 20);
    let mut name = format!("n{number}").into_bytes();
    match random.below(12) {
        0 => name.extend([0xff, b' ', 0xfe, b'\n']),
        1 => name.extend([b'l'; 200]),
        _ => {}
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&name))
}

/// Fills an empty tree.
pub(crate) fn fill(tree: &Path, random: &mut Random) {
    for _ in 0..80 {
        grow(tree, random);
    }
}

fn grow(tree: &Path, random: &mut Random) {
    let nodes = Nodes::of(tree);
    let above = &nodes.directories[random.below(nodes.directories.len())];
    if above.as_os_str().len() - tree.as_os_str().len() > 2000 {
        return;
    }
    let path = above.join(name(random));
    if path.symlink_metadata().is_ok() {
        return;
    }
    match random.below(8) {
        0 | 1 => fs::create_dir(&path).unwrap(),
        2 => symlink("target", &path).unwrap(),
        3 => special(&path, random),
        4 if !nodes.files.is_empty() => {
            let file = &nodes.files[random.below(nodes.files.len())];
            fs::hard_link(file, &path).unwrap();
        }
        _ => fs::write(&path, random.bytes()).unwrap(),
    }
}

fn special(path: &Path, random: &mut Random) {
    let (kind, device) = [
        (FileType::Fifo, 0),
        (FileType::CharacterDevice, 0x103),
        (FileType::BlockDevice, 0x701),
        (FileType::Socket, 0),
    ][random.below(4)];
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

/// Makes one random change somewhere below `tree`; says what it did.
pub(crate) fn edit(tree: &Path, random: &mut Random) -> String {
    let nodes = Nodes::of(tree);
    let inner: Vec<&Path> = nodes.directories[1..]
        .iter()
        .map(PathBuf::as_path)
        .collect();
    let files: Vec<&Path> = nodes.files.iter().map(PathBuf::as_path).collect();
    let leaves: Vec<&Path> = nodes.leaves.iter().map(PathBuf::as_path).collect();
    let any: Vec<&Path> = [&inner[..], &leaves[..]].concat();
    let above = nodes.directories[random.below(nodes.directories.len())].as_path();
    let new = above.join(name(random));
    if new.symlink_metadata().is_ok() || new.as_os_str().len() - tree.as_os_str().len() > 2000 {
        return "nothing".to_owned();
    }
    let (file, leaf) = (random.one(&files), random.one(&leaves));
    let (directory, node) = (random.one(&inner), random.one(&any));
    let which = random.below(25);
    let target = match which {
        0..=5 => file,
        6..=9 | 14 => node,
        10 | 13 | 15 | 24 => leaf,
        11 | 12 | 16 => directory,
        _ => None,
    };
    match (which, target) {
        (0, Some(file)) => append(file, random),
        (1, Some(file)) => fs::write(file, random.bytes()).unwrap(),
        (2, Some(file)) => truncate(file, random),
        // Between subvolumes, these are refused.
        (3, Some(file)) => drop(fs::hard_link(file, &new)),
        (4, Some(file)) => rewrite_unseen(file),
        (5, Some(file)) => drop(File::open(file).unwrap().read(&mut [0]).unwrap()),
        (6, Some(node)) => chmod(node, random),
        (7, Some(node)) => {
            let id = Some(u32::try_from(random.below(4)).unwrap());
            lchown(node, id, id).unwrap();
        }
        (8, Some(node)) => xattr(node, random),
        (9, Some(node)) => touch(node, random),
        (10, Some(leaf)) => drop(fs::rename(leaf, &new)),
        // Into itself, which is refused.
        (11, Some(directory)) => drop(fs::rename(directory, &new)),
        (12, Some(directory)) => fs::remove_dir_all(directory).unwrap(),
        (13, Some(leaf)) => fs::remove_file(leaf).unwrap(),
        (14, Some(node)) => swap(node, node_or(random.one(&any), node)),
        (15, Some(leaf)) => {
            fs::remove_file(leaf).unwrap();
            recreate(leaf, random);
        }
        (16, Some(directory)) => {
            fs::remove_dir_all(directory).unwrap();
            recreate(directory, random);
        }
        (17, _) => fs::create_dir(&new).unwrap(),
        (18, _) => symlink("elsewhere", &new).unwrap(),
        (19, _) => special(&new, random),
        (20 | 21, _) => fs::write(&new, random.bytes()).unwrap(),
        (22, _) => {
            fs::create_dir_all(new.join("a/b")).unwrap();
            fs::write(new.join("a/b/c"), random.bytes()).unwrap();
        }
        (23, _) if random.below(4) == 0 => {
            nest(&new);
            fs::write(new.join("inside"), random.bytes()).unwrap();
        }
        (24, Some(leaf)) => {
            // Written beside and renamed over it, as editors and package managers do.
            fs::write(&new, random.bytes()).unwrap();
            fs::rename(&new, leaf).ok();
        }
        _ => return "nothing".to_owned(),
    }
    let target = target.map(Path::display);
    format!("{which} {target:?} {}", new.display())
}

fn node_or<'a>(node: Option<&'a Path>, other: &'a Path) -> &'a Path {
    node.unwrap_or(other)
}

fn append(file: &Path, random: &mut Random) {
    let mut file = OpenOptions::new().append(true).open(file).unwrap();
    file.write_all(&random.bytes()).unwrap();
}

fn truncate(file: &Path, random: &mut Random) {
    let length = random.below(6000) as u64;
    OpenOptions::new()
        .write(true)
        .open(file)
        .unwrap()
        .set_len(length)
        .unwrap();
}

/// Other bytes, the same size and the same time: nobody who looks at attributes sees it.
fn rewrite_unseen(file: &Path) {
    let found = fs::metadata(file).unwrap();
    let time = found.modified().unwrap();
    let length = usize::try_from(found.len()).unwrap();
    let mut open = OpenOptions::new().write(true).open(file).unwrap();
    open.write_all(&vec![b'~'; length]).unwrap();
    open.set_modified(time).unwrap();
}

fn chmod(node: &Path, random: &mut Random) {
    if node.symlink_metadata().unwrap().is_symlink() {
        return;
    }
    let mode = [0o755, 0o700, 0o4711, 0o1777][random.below(4)];
    fs::set_permissions(node, Permissions::from_mode(mode)).unwrap();
}

fn xattr(node: &Path, random: &mut Random) {
    let found = node.symlink_metadata().unwrap();
    if !found.is_file() && !found.is_dir() {
        return;
    }
    let name = ["user.one", "user.two", "trusted.three"][random.below(3)];
    if random.below(3) == 0 {
        rustix::fs::lremovexattr(node, name).ok();
    } else {
        let value = [random.below(256)].map(|it| u8::try_from(it).unwrap());
        rustix::fs::lsetxattr(node, name, &value, XattrFlags::empty()).unwrap();
    }
}

fn touch(node: &Path, random: &mut Random) {
    let seconds = i64::try_from(random.below(1 << 30)).unwrap();
    let time = rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(random.below(2)).unwrap() * 77,
    };
    let times = rustix::fs::Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(CWD, node, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn swap(one: &Path, other: &Path) {
    // One may be inside the other, or a subvolume may be involved; both are refused.
    rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).ok();
}

/// Something at a path that was just given free.
fn recreate(path: &Path, random: &mut Random) {
    match random.below(4) {
        0 => fs::create_dir(path).unwrap(),
        1 => symlink("target", path).unwrap(),
        2 => {
            fs::create_dir(path).unwrap();
            fs::write(path.join("in it"), random.bytes()).unwrap();
        }
        _ => fs::write(path, random.bytes()).unwrap(),
    }
}
