// SPDX-License-Identifier: Apache-2.0
//! `copy`: files between the host and mounted layers.
//!
//! Paths in a layer are resolved inside it: a symbolic link there leads nowhere else.

use std::{
    fs::{self, File},
    io,
    os::{fd::AsRawFd as _, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail};
use plywood::{
    archive::{
        import::{ImportOptions, unpack_plain},
        pack::{PackOptions, pack_tree},
    },
    sdk::{IdMaps, UnpackTarget},
    store::{MountOptions, Store},
};
use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    io::Errno,
};

use crate::{
    hints::one_line,
    output::{go_error, go_quote},
    run::{Outcome, Run},
};

/// Who owns what is copied; nobody new when `None`.
type Owner = Option<(u32, u32)>;

/// A place: a path on the host, or inside a mounted layer.
struct End<'a> {
    mount: Option<Mounted<'a>>,
    path: PathBuf,
    trailing_slash: bool,
}

/// A layer that is mounted for as long as this lives.
struct Mounted<'a> {
    store: &'a Store,
    id: String,
    root: PathBuf,
    maps: IdMaps,
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.store.unmount(&self.id, false) {
            let id = go_quote(self.id.as_bytes());
            crate::output::note(format!("error unmounting layer {id}: {}", one_line(&error)));
        }
    }
}

pub(crate) fn copy(run: &mut Run<'_>, store: &Store) -> Outcome {
    let owner = match run.values.text("--chown") {
        Some(text) => Some(parse_owner(&text)?),
        None => None,
    };
    let args = run.args();
    let Some((target, sources)) = args.split_last() else {
        bail!("more arguments required");
    };
    let target = End::open(store, target)?;
    for source in sources {
        let source = End::open(store, source)?;
        transfer(&source, &target, owner).map_err(|error| {
            let (from, to) = (source.shown(), target.shown());
            anyhow!("error copying {from} to {to}: {}", one_line(error.as_ref()))
        })?;
    }
    Ok(0)
}

fn parse_owner(text: &str) -> anyhow::Result<(u32, u32)> {
    let (uid, gid) = text.split_once(':').unwrap_or((text, text));
    let parse = |text: &str, what: &str| {
        text.parse::<u32>().map_err(|error| {
            let why = match error.kind() {
                std::num::IntErrorKind::PosOverflow => "value out of range",
                _ => "invalid syntax",
            };
            let text = go_quote(text.as_bytes());
            anyhow!("bad {what}: strconv.ParseUint: parsing {text}: {why}")
        })
    };
    Ok((parse(uid, "UID")?, parse(gid, "GID")?))
}

impl<'a> End<'a> {
    /// `LAYER:PATH`, whose layer gets mounted, or a path of the host.
    fn open(store: &'a Store, text: &str) -> anyhow::Result<Self> {
        let Some((layer, path)) = text.split_once(':') else {
            return Ok(Self {
                mount: None,
                path: PathBuf::from(text),
                trailing_slash: text.ends_with('/'),
            });
        };
        let found = store.layer(layer).map_err(|error| {
            let layer = go_quote(layer.as_bytes());
            anyhow!("error finding layer {layer}: {}", one_line(&error))
        })?;
        let options = MountOptions {
            label: Some(found.mount_label.clone()).filter(|label| !label.is_empty()),
            ..MountOptions::default()
        };
        let root = store.mount(&found.id, &options).map_err(|error| {
            let id = go_quote(found.id.as_bytes());
            anyhow!("error mounting layer {id}: {}", one_line(&error))
        })?;
        Ok(Self {
            mount: Some(Mounted {
                store,
                id: found.id,
                root,
                maps: found.id_maps,
            }),
            path: PathBuf::from(path.trim_start_matches('/')),
            trailing_slash: path.ends_with('/'),
        })
    }

    /// `path` below this end's root, for texts.
    fn full(&self, path: &Path) -> PathBuf {
        match &self.mount {
            Some(mount) => mount.root.join(path),
            None => path.to_owned(),
        }
    }

    fn shown(&self) -> String {
        go_quote(self.full(&self.path).as_os_str().as_bytes())
    }

    fn maps(&self) -> IdMaps {
        self.mount
            .as_ref()
            .map(|mount| mount.maps.clone())
            .unwrap_or_default()
    }

    /// Opens `path` below this end's root; on the host, as the kernel does.
    fn open_path(&self, path: &Path, flags: OFlags) -> Result<File, Errno> {
        let flags = flags | OFlags::PATH | OFlags::CLOEXEC;
        let Some(mount) = &self.mount else {
            let path = if path == Path::new("") {
                Path::new(".")
            } else {
                path
            };
            return rustix::fs::open(path, flags, Mode::empty()).map(File::from);
        };
        let root = rustix::fs::open(&mount.root, flags | OFlags::DIRECTORY, Mode::empty())?;
        if path == Path::new("") {
            return Ok(root.into());
        }
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&root, path, flags, Mode::empty(), inside).map(File::from)
    }

    /// Opens the directory `path`, making what is missing of it for `owner`.
    fn make_directory(&self, path: &Path, mode: u32, owner: Owner) -> anyhow::Result<File> {
        let failed = |error: Errno| {
            let why = go_error(&error.into());
            anyhow!("mkdir {}: {why}", self.full(path).display())
        };
        let mut so_far = PathBuf::new();
        let mut parent = None;
        for component in path.components() {
            so_far.push(component);
            let mut opened = self.open_path(&so_far, OFlags::DIRECTORY);
            if let (Err(Errno::NOENT), Some(name)) = (&opened, so_far.file_name()) {
                let at = match parent.take() {
                    Some(at) => at,
                    None => self
                        .open_path(Path::new(""), OFlags::DIRECTORY)
                        .map_err(failed)?,
                };
                rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(mode)).map_err(failed)?;
                opened = self.open_path(&so_far, OFlags::DIRECTORY);
                if let (Some((uid, gid)), Ok(made)) = (owner, &opened) {
                    std::os::unix::fs::chown(fd_path(made), Some(uid), Some(gid))?;
                }
            }
            parent = Some(opened.map_err(failed)?);
        }
        match parent {
            Some(directory) => Ok(directory),
            None => self
                .open_path(Path::new(""), OFlags::DIRECTORY)
                .map_err(failed),
        }
    }
}

/// The path of an open file, good for as long as it is open.
fn fd_path(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}/.", file.as_raw_fd()))
}

fn transfer(source: &End<'_>, target: &End<'_>, owner: Owner) -> anyhow::Result<()> {
    let failed = |error: Errno| {
        let why = go_error(&error.into());
        anyhow!("stat {}: {why}", source.full(&source.path).display())
    };
    let file = source
        .open_path(&source.path, OFlags::empty())
        .map_err(failed)?;
    let maps = (source.maps(), target.maps());
    if file.metadata()?.is_dir() {
        let directory = target.make_directory(&target.path, 0o755, owner)?;
        return stream(&fd_path(&file), &fd_path(&directory), &maps, owner);
    }
    // What links led to: the file itself, by its last name.
    let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let source_name = real
        .file_name()
        .context("the source has no name")?
        .to_owned();
    let shown_name = source.path.file_name().context("the source has no name")?;
    let mut to = target.path.clone();
    // In a layer the slash says something only about a directory that is there.
    let is_directory = || target.open_path(&to, OFlags::DIRECTORY).is_ok();
    let into = target.trailing_slash && (target.mount.is_none() || is_directory());
    if into || to.file_name().is_none() {
        to.push(shown_name);
    }
    let directory = target.make_directory(to.parent().unwrap_or(Path::new("")), 0o700, None)?;
    let target_name = to.file_name().context("the target has no name")?;
    let place = fd_path(&directory);
    if place
        .join(target_name)
        .symlink_metadata()
        .is_ok_and(|meta| meta.is_dir())
    {
        bail!(
            "cannot overwrite directory with non-directory {}",
            target.full(&target.path).display()
        );
    }
    // Beside its final place first: the new file appears whole, under the new name.
    let staged = tempfile::Builder::new()
        .prefix(".plywood-copy-")
        .tempdir_in(&place)?;
    stream(&real, staged.path(), &maps, owner)?;
    fs::rename(staged.path().join(source_name), place.join(target_name))?;
    Ok(())
}

/// Packs `from` and unpacks it into the directory `to`, at the same time.
fn stream(
    from: &Path,
    to: &Path,
    (from_maps, to_maps): &(IdMaps, IdMaps),
    owner: Owner,
) -> anyhow::Result<()> {
    let (reader, mut writer) = io::pipe()?;
    let options = PackOptions {
        id_maps: from_maps,
        owner,
        nanoseconds: true,
    };
    std::thread::scope(|scope| {
        let packer = scope.spawn(move || pack_tree(from, &options, &mut writer).map(drop));
        let mut target = UnpackTarget::tree(to);
        target.apply_root = false;
        let unpacked = unpack_plain(reader, &ImportOptions::new(&target, to_maps));
        let packed = packer
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        // When unpacking ends early, packing fails for that reason alone.
        unpacked?;
        packed?;
        Ok(())
    })
}
