// SPDX-License-Identifier: Apache-2.0
//! Writes the tar stream of a layer's changes, or of a directory.

use std::{
    collections::HashMap,
    ffi::OsStr,
    io::Write,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use plywood_plugin_sdk::{ChangeKind, DiffView, IdMaps, WhiteoutForm};
use rustix::fs::FileType;

use super::{
    compare::{compare, container_owner},
    gotar::{BLOCK, Header, HeaderError, kind},
    lowers::{OPAQUE_NAME, WHITEOUT_PREFIX, is_overlay, split},
    stream::Stream,
    tree::{DirStack, Meta, Walk, join},
    walk::{Change, DiffMaps, Nodes, UpperKind, UpperWalk, unsupported_view},
};
use crate::{Error, ErrorKind, IoContext, Result};

/// Writes what `view` shows as a tar stream; returns its bytes.
///
/// # Behavior
/// - Sockets are left out, sparse files are written in full, times have whole seconds.
/// - Of extended attributes, `user.*`, `security.capability` and `security.ima` are kept.
/// - A file that disappears while the tree is read is left out; one that grows is cut at the size
///   it had when it was opened.
/// - After two trees whose changes are as new as the clock, it waits until the second is over: a
///   later change in the same second would look like none.
///
/// # Errors
/// Those of [`changes`](super::walk::changes); [`ErrorKind::InvalidArgument`] for an owner that
/// the maps do not have; [`ErrorKind::InvalidArchive`] for what a tar cannot hold;
/// [`ErrorKind::Busy`] for a file that became shorter. What was written to `out` before an error
/// is a part of the stream.
///
/// # Compatibility
/// The bytes are those of `TarWithOptions` and `ExportChanges` in containers/storage
/// (`pkg/archive`), which give whiteouts of compared trees the present time.
pub fn export(view: &DiffView, maps: &DiffMaps<'_>, out: &mut (dyn Write + Send)) -> Result<u64> {
    let mut packer = Packer::new(maps.layer, out);
    match view {
        DiffView::Upper {
            upper,
            lowers,
            whiteouts,
        } => packer.upper(upper, lowers, *whiteouts)?,
        DiffView::Trees { tree, parent: None } => packer.tree(tree)?,
        DiffView::Trees {
            tree,
            parent: Some(parent),
        } => {
            let changes = compare(tree, parent, maps)?;
            return export_changes(tree, &changes, maps.layer, packer.stream.into_inner());
        }
        _ => return Err(unsupported_view()),
    }
    packer.finish()
}

/// Writes the given changes of `tree` as a tar stream; returns its bytes.
///
/// # Behavior
/// As [`export`] of two trees; the changes may be in any order.
///
/// # Errors
/// Those of [`export`].
pub fn export_changes(
    tree: &Path,
    changes: &[Change],
    maps: &IdMaps,
    out: &mut (dyn Write + Send),
) -> Result<u64> {
    let mut packer = Packer::new(maps, out);
    packer.changes(tree, changes)?;
    let newest = packer.newest;
    let total = packer.finish()?;
    wait_until_past(newest);
    Ok(total)
}

/// How [`pack_tree`] writes.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions<'a> {
    /// From the ids on the host to those in the stream.
    pub id_maps: &'a IdMaps,
    /// Every entry's owner, instead of that of its file.
    pub owner: Option<(u32, u32)>,
    /// Keep times to the nanosecond: the stream is unpacked at once, and no digest depends on it.
    pub nanoseconds: bool,
}

/// Writes `source`, a directory's content or a single file, as a tar stream; returns its bytes.
///
/// # Behavior
/// A directory itself has no entry; a single file has its own name.
///
/// # Errors
/// Those of [`export`].
pub fn pack_tree(
    source: &Path,
    options: &PackOptions<'_>,
    out: &mut (dyn Write + Send),
) -> Result<u64> {
    let mut packer = Packer::new(options.id_maps, out);
    packer.owner = options.owner;
    packer.nanoseconds = options.nanoseconds;
    packer.literal = true;
    let stat = rustix::fs::lstat(source).at("cannot read the attributes of", source)?;
    if Meta::from(stat).is_dir() {
        packer.tree(source)?;
    } else {
        packer.single(source)?;
    }
    packer.finish()
}

/// What an upper directory makes of a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Plain,
    Whiteout,
    Opaque,
}

/// A node on its way into the stream.
struct Node<'a> {
    dirs: &'a mut DirStack,
    name: &'a [u8],
    /// Where it is in the tree, without slashes at its ends.
    path: Vec<u8>,
    meta: Meta,
    role: Role,
}

struct Packer<'a> {
    stream: Stream<'a>,
    maps: &'a IdMaps,
    owner: Option<(u32, u32)>,
    nanoseconds: bool,
    /// Names of whiteouts are what they say.
    literal: bool,
    /// The entry names of inodes with several names.
    seen: HashMap<(u64, u64), Vec<u8>>,
    /// The latest time of an entry.
    newest: i64,
}

impl<'a> Packer<'a> {
    fn new(maps: &'a IdMaps, out: &'a mut (dyn Write + Send)) -> Self {
        Self {
            stream: Stream::new(out),
            maps,
            owner: None,
            nanoseconds: false,
            literal: false,
            seen: HashMap::new(),
            newest: i64::MIN,
        }
    }

    fn finish(mut self) -> Result<u64> {
        self.stream.zeros(2 * BLOCK)?;
        self.stream.finish()
    }

    fn tree(&mut self, tree: &Path) -> Result<()> {
        let mut walk = Walk::open(tree)?;
        while let Some((name, meta)) = walk.next()? {
            let path = walk.dirs.path_of(&name);
            self.add(Node {
                dirs: &mut walk.dirs,
                name: &name,
                path,
                meta,
                role: Role::Plain,
            })?;
        }
        Ok(())
    }

    fn upper(&mut self, upper: &Path, lowers: &[PathBuf], form: WhiteoutForm) -> Result<()> {
        if !is_overlay(form) {
            // Literal whiteouts are in the tree as the stream has them.
            self.literal = true;
            return self.tree(upper);
        }
        let mut walk = UpperWalk::open(upper, lowers, form)?;
        while let Some((name, meta)) = walk.next()? {
            let mut role = match walk.kind(&name, &meta)? {
                UpperKind::Whiteout => Role::Whiteout,
                UpperKind::Opaque => Role::Opaque,
                UpperKind::Plain | UpperKind::Mark => Role::Plain,
            };
            // Only directories need the look below: theirs decides for their content, too.
            if meta.is_dir() && walk.find_below(&name, &meta)?.first.is_none() {
                role = Role::Plain;
            }
            let path = walk.walk.dirs.path_of(&name);
            self.add(Node {
                dirs: &mut walk.walk.dirs,
                name: &name,
                path,
                meta,
                role,
            })?;
        }
        Ok(())
    }

    fn changes(&mut self, tree: &Path, changes: &[Change]) -> Result<()> {
        let mut sorted: Vec<&Change> = changes.iter().collect();
        // By the whole path as a string, unlike the order of a walk: "a-b" before "a/b".
        sorted.sort_by_key(|change| change.path.as_os_str().as_bytes());
        let mut nodes = Nodes::open(tree)?;
        for change in sorted {
            let path = change.path.as_os_str().as_bytes();
            let path = path.strip_prefix(b"/").unwrap_or(path);
            if change.kind == ChangeKind::Delete {
                let above = nodes.directory_of(&change.path)?;
                self.deletion(path, above.map_or(0, |meta| meta.seconds))?;
                continue;
            }
            let Some((name, meta)) = nodes.find(&change.path)? else {
                gone(path);
                continue;
            };
            self.add(Node {
                dirs: &mut nodes.dirs,
                name,
                path: path.to_vec(),
                meta,
                role: Role::Plain,
            })?;
        }
        Ok(())
    }

    fn single(&mut self, source: &Path) -> Result<()> {
        let mut nodes = Nodes::open(source.parent().unwrap_or(Path::new("/")))?;
        let name = source.file_name().unwrap_or(OsStr::new("."));
        let Some((name, meta)) = nodes.find(Path::new(name))? else {
            gone(name.as_bytes());
            return Ok(());
        };
        self.add(Node {
            dirs: &mut nodes.dirs,
            name,
            path: name.to_vec(),
            meta,
            role: Role::Plain,
        })
    }

    /// Writes the whiteout of a path that is only in the parent, with the time of the directory
    /// that it is gone from: the same tree always gives the same bytes.
    fn deletion(&mut self, path: &[u8], seconds: i64) -> Result<()> {
        let header = Header {
            name: whiteout_name(path),
            kind: kind::REGULAR,
            seconds,
            ..Header::default()
        };
        self.header(&header, Path::new(OsStr::from_bytes(path)))
    }

    fn add(&mut self, mut node: Node<'_>) -> Result<()> {
        let host_path = node.dirs.host_path(node.name);
        if !self.literal && node.name.starts_with(WHITEOUT_PREFIX) {
            return Err(means_deletion(&node.path, &host_path));
        }
        let Some((mut header, file)) = self.describe(&mut node)? else {
            return Ok(());
        };
        self.newest = self.newest.max(node.meta.seconds);
        if node.role == Role::Whiteout {
            header.name = whiteout_name(&node.path);
            header.kind = kind::REGULAR;
            header.mode = 0;
            header.size = 0;
        }
        self.header(&header, &host_path)?;
        if let Some(file) = file
            && header.kind == kind::REGULAR
        {
            self.stream.copy(&file, header.size, &host_path)?;
        }
        if !node.meta.is_dir() && node.meta.links > 1 {
            self.seen
                .entry(node.meta.inode)
                .or_insert_with(|| header.name.clone());
        }
        if node.role == Role::Opaque {
            let mark = Header {
                name: join(&node.path, OPAQUE_NAME),
                kind: kind::REGULAR,
                mode: header.mode & 0o777,
                uid: header.uid,
                gid: header.gid,
                ..Header::default()
            };
            self.header(&mark, &host_path)?;
        }
        Ok(())
    }

    /// The entry of a node and its content; `None` for what has no entry.
    fn describe(&self, node: &mut Node<'_>) -> Result<Option<(Header, Option<OwnedFd>)>> {
        let mut header = Header {
            name: node.path.clone(),
            ..Header::default()
        };
        let mut file = None;
        match node.meta.kind() {
            FileType::RegularFile => {
                header.kind = kind::REGULAR;
                let Some((fd, meta)) = node.dirs.open_file(node.name)? else {
                    gone(&node.path);
                    return Ok(None);
                };
                node.meta = meta;
                header.size = meta.size;
                file = Some(fd);
            }
            FileType::Directory => {
                header.kind = kind::DIRECTORY;
                header.name.push(b'/');
            }
            FileType::Symlink => {
                header.kind = kind::SYMLINK;
                let Some(target) = node.dirs.read_link(node.name)? else {
                    gone(&node.path);
                    return Ok(None);
                };
                header.link = target;
            }
            FileType::CharacterDevice => header.kind = kind::CHARACTER,
            FileType::BlockDevice => header.kind = kind::BLOCK_DEVICE,
            FileType::Fifo => header.kind = kind::FIFO,
            _ => {
                tracing::info!(path = %node.path.escape_ascii(), "leaving out a socket");
                return Ok(None);
            }
        }
        let meta = node.meta;
        if matches!(header.kind, kind::CHARACTER | kind::BLOCK_DEVICE) {
            header.device = meta.device;
        }
        if let Some(first) = self.seen.get(&meta.inode)
            && !meta.is_dir()
            && meta.links > 1
        {
            header.kind = kind::LINK;
            header.link.clone_from(first);
            header.size = 0;
        }
        header.mode = meta.mode & 0o7777;
        (header.uid, header.gid) = self.owner_of(node)?;
        header.seconds = meta.seconds;
        if self.nanoseconds {
            header.nanoseconds = meta.nanoseconds;
        }
        header.xattrs = node.dirs.xattrs(node.name, is_exported)?;
        Ok(Some((header, file)))
    }

    fn owner_of(&self, node: &Node<'_>) -> Result<(u32, u32)> {
        let owner = (node.meta.uid, node.meta.gid);
        if let Some(owner) = self.owner {
            return Ok(owner);
        }
        // Files with a whiteout's name keep their owner: it is the stream's own already.
        if self.maps.is_empty() || node.name.starts_with(WHITEOUT_PREFIX) {
            return Ok(owner);
        }
        match container_owner(self.maps, owner) {
            Some(mapped) => Ok(mapped),
            // The kernel makes whiteouts as the one who mounted, whom the maps need not have.
            None if node.role == Role::Whiteout => Ok((0, 0)),
            None => Err(Error::new(
                ErrorKind::InvalidArgument,
                format!(
                    "host owner {}:{} cannot be mapped to one of the container",
                    owner.0, owner.1
                ),
            )
            .subject(node.dirs.host_path(node.name).display().to_string())
            .hint("give the file an owner that the layer's id maps contain")),
        }
    }

    fn header(&mut self, header: &Header, host_path: &Path) -> Result<()> {
        let bytes = header
            .encode()
            .map_err(|source| not_encodable(source, host_path))?;
        self.stream.put(&bytes)
    }
}

fn not_encodable(source: HeaderError, host_path: &Path) -> Error {
    Error::new(
        ErrorKind::InvalidArchive,
        format!("cannot write `{}` to a tar", host_path.display()),
    )
    .subject(host_path.display().to_string())
    .hint("remove the attribute or the file")
    .caused_by(source)
}

/// A file of a user's whose name has a meaning in layers: applied, it would delete another one.
fn means_deletion(path: &[u8], host_path: &Path) -> Error {
    Error::new(
        ErrorKind::InvalidArchive,
        format!(
            "`{}` cannot be exported: in a layer its name means a deletion",
            path.escape_ascii()
        ),
    )
    .subject(host_path.display().to_string())
    .hint("rename the file in the container, or remove it")
}

fn gone(path: &[u8]) {
    tracing::warn!(path = %path.escape_ascii(), "leaving out a file that disappeared");
}

fn whiteout_name(path: &[u8]) -> Vec<u8> {
    let (directory, name) = split(path);
    join(directory, &[WHITEOUT_PREFIX, name].concat())
}

fn is_exported(name: &[u8]) -> bool {
    name == b"security.capability"
        || name == b"security.ima"
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

/// Waits until the clock is past the second `newest`, if that is the present one.
fn wait_until_past(newest: i64) {
    let Ok(now) = SystemTime::now().duration_since(UNIX_EPOCH) else {
        return;
    };
    if u64::try_from(newest) == Ok(now.as_secs()) {
        let rest = 1_000_000_000 - now.subsec_nanos();
        std::thread::sleep(Duration::from_nanos(rest.into()));
    }
}
