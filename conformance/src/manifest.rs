// SPDX-License-Identifier: Apache-2.0
//! Everything about a tree that a layer must keep, in a form that can be compared.

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::sys::stat::SFlag;
use sha2::{Digest as _, Sha256};

/// What is known of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// Whole nanoseconds since 1970.
    pub(crate) mtime: i128,
    pub(crate) device: u64,
    /// The hash of a file's bytes.
    pub(crate) content: Option<String>,
    pub(crate) target: Option<PathBuf>,
    /// The first path of the same file, for hard links.
    pub(crate) link_of: Option<PathBuf>,
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Facts {
    /// Whether something is different that makes it a changed path; a directory's time is not.
    pub(crate) fn changed_from(&self, old: &Self) -> bool {
        let comparable = |facts: &Self| Self {
            mtime: if facts.is(SFlag::S_IFDIR) {
                0
            } else {
                facts.mtime
            },
            link_of: None,
            ..facts.clone()
        };
        comparable(self) != comparable(old)
    }

    fn is(&self, kind: SFlag) -> bool {
        self.mode & SFlag::S_IFMT.bits() == kind.bits()
    }

    /// What differs, in words.
    fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        let mut compare = |what: &str, one: String, two: String| {
            if one != two {
                found.push(format!("{what} {one} became {two}"));
            }
        };
        let mode = |facts: &Self| format!("{:06o}", facts.mode);
        compare("mode", mode(self), mode(other));
        let owner = |facts: &Self| format!("{}:{}", facts.owner.0, facts.owner.1);
        compare("owner", owner(self), owner(other));
        compare("mtime", self.mtime.to_string(), other.mtime.to_string());
        compare("device", self.device.to_string(), other.device.to_string());
        let content = |facts: &Self| match &facts.content {
            Some(hash) => format!("sha256:{}", &hash[..16]),
            None => "none".to_owned(),
        };
        compare("content", content(self), content(other));
        let target = |facts: &Self| format!("{:?}", facts.target);
        compare("target", target(self), target(other));
        let link = |facts: &Self| format!("{:?}", facts.link_of);
        compare("first name", link(self), link(other));
        let names = self.xattrs.keys().chain(other.xattrs.keys());
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            let value = |facts: &Self| match facts.xattrs.get(name) {
                Some(value) => format!("\"{}\"", value.escape_ascii()),
                None => "absent".to_owned(),
            };
            let what = format!("xattr {}", name.escape_ascii());
            compare(&what, value(self), value(other));
        }
        found
    }
}

/// A tree: facts by relative path, the root as the empty path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manifest(pub(crate) BTreeMap<PathBuf, Facts>);

impl Manifest {
    /// What differs, in words; empty when nothing does.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (path, facts) in &self.0 {
            match other.0.get(path) {
                None => found.push(format!("`{}` is missing", path.display())),
                Some(theirs) if theirs != facts => {
                    let what = facts.differences(theirs).join(", ");
                    found.push(format!("`{}`: {what}", path.display()));
                }
                Some(_) => {}
            }
        }
        let extra = other.0.keys().filter(|path| !self.0.contains_key(*path));
        found.extend(extra.map(|path| format!("`{}` is extra", path.display())));
        found
    }

    /// Whether the roots have the same mode and owner; a child's root has its own times.
    pub(crate) fn root_like(&self, other: &Self) -> bool {
        let facts = |manifest: &Self| {
            manifest
                .0
                .get(Path::new(""))
                .map(|root| (root.mode, root.owner))
        };
        facts(self) == facts(other)
    }

    /// Leaves the root's own facts out.
    pub(crate) fn without_root(mut self) -> Self {
        self.0.remove(Path::new(""));
        self
    }

    /// Leaves the root's time out.
    pub(crate) fn without_root_time(mut self) -> Self {
        if let Some(root) = self.0.get_mut(Path::new("")) {
            root.mtime = 0;
        }
        self
    }

    /// Compares times in whole seconds, as exported streams have them.
    pub(crate) fn in_seconds(mut self) -> Self {
        for facts in self.0.values_mut() {
            facts.mtime = facts.mtime.div_euclid(1_000_000_000);
        }
        self
    }

    /// What a stream carries of it: no root, no sockets, whole seconds, and of the attributes
    /// `user.*` and `security.capability`.
    pub(crate) fn exported(mut self) -> Self {
        self.0.retain(|_, facts| !facts.is(SFlag::S_IFSOCK));
        for facts in self.0.values_mut() {
            facts
                .xattrs
                .retain(|name, _| name.starts_with(b"user.") || name == b"security.capability");
        }
        self.without_root().in_seconds()
    }

    /// Leaves out which names belong to one file.
    pub(crate) fn without_links(mut self) -> Self {
        for facts in self.0.values_mut() {
            facts.link_of = None;
        }
        self
    }

    /// Leaves out the times of symbolic links, which few readers set.
    pub(crate) fn without_link_times(mut self) -> Self {
        for facts in self.0.values_mut().filter(|facts| facts.is(SFlag::S_IFLNK)) {
            facts.mtime = 0;
        }
        self
    }

    /// Leaves extended attributes out.
    pub(crate) fn without_xattrs(mut self) -> Self {
        for facts in self.0.values_mut() {
            facts.xattrs.clear();
        }
        self
    }

    /// A name whose others are elsewhere, or deleted in a layer, is like a file's only one.
    fn forget_lone_links(&mut self) {
        let mut names: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for first in self.0.values().filter_map(|facts| facts.link_of.clone()) {
            *names.entry(first).or_default() += 1;
        }
        for facts in self.0.values_mut() {
            facts.link_of = facts.link_of.take().filter(|first| names[first] > 1);
        }
    }

    /// Whether the path is there.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.0.contains_key(Path::new(path))
    }
}

impl fmt::Display for Manifest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Reads a tree.
///
/// # Errors
/// What the file system reports.
pub(crate) fn of(root: &Path) -> io::Result<Manifest> {
    let mut manifest = Manifest::default();
    let mut first = BTreeMap::new();
    visit(root, Path::new(""), &mut manifest, &mut first)?;
    manifest.forget_lone_links();
    Ok(manifest)
}

/// The hash of bytes, as a manifest has it.
pub(crate) fn hash(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(bytes))
}

fn visit(
    root: &Path,
    relative: &Path,
    manifest: &mut Manifest,
    first: &mut BTreeMap<(u64, u64), PathBuf>,
) -> io::Result<()> {
    let path = root.join(relative);
    let meta = fs::symlink_metadata(&path)?;
    let kind = meta.file_type();
    let mut facts = Facts {
        mode: meta.mode(),
        owner: (meta.uid(), meta.gid()),
        mtime: i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()),
        device: if kind.is_char_device() || kind.is_block_device() {
            meta.rdev()
        } else {
            0
        },
        content: None,
        target: None,
        link_of: None,
        xattrs: xattrs(&path)?,
    };
    if kind.is_file() {
        facts.content = Some(hash(&fs::read(&path)?));
    }
    if kind.is_symlink() {
        facts.target = Some(fs::read_link(&path)?);
    }
    if meta.nlink() > 1 && !kind.is_dir() {
        let key = (meta.dev(), meta.ino());
        facts.link_of = Some(
            first
                .entry(key)
                .or_insert_with(|| relative.to_owned())
                .clone(),
        );
    }
    manifest.0.insert(relative.to_owned(), facts);
    if kind.is_dir() {
        let mut names = fs::read_dir(&path)?
            .map(|entry| entry.map(|entry| entry.file_name()))
            .collect::<io::Result<Vec<_>>>()?;
        names.sort();
        for name in names {
            visit(root, &relative.join(name), manifest, first)?;
        }
    }
    Ok(())
}

/// Every attribute but what a mount keeps for itself and what the security module gives.
fn xattrs(path: &Path) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let mut names = vec![0; 64 * 1024];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = BTreeMap::new();
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        if name.starts_with(b"trusted.overlay.") || name == b"security.selinux" {
            continue;
        }
        let mut value = vec![0; 64 * 1024];
        let size = rustix::fs::lgetxattr(path, name, &mut value[..])?;
        value.truncate(size);
        found.insert(name.to_vec(), value);
    }
    Ok(found)
}
