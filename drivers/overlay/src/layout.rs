// SPDX-License-Identifier: Apache-2.0
//! Where the parts of a layer are, and how they are made and read.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, lchown, symlink},
    path::{Path, PathBuf},
    time::Duration,
};

use plywood_plugin_sdk::{
    DriverError, DriverErrorCode, IoContext, LayerId, Result,
    toolkit::{self, CopiedXattrs, CopyOptions},
};

use crate::{
    external,
    link::{Chain, LINK_DIR, LinkId, Lower},
};

/// The most layers that may lie below one layer: the kernel takes no more.
pub(crate) const MAX_DEPTH: usize = 500;

/// What is in a home beside the layers, by names that a layer could have.
pub(crate) const RESERVED: [&str; 4] = [LINK_DIR, "staging", "tempdirs", "backingFsBlockDev"];

/// Mode of a base layer's `diff`, whatever the umask.
pub(crate) const ROOT_MODE: u32 = 0o555;

/// A home directory and the homes of the image stores below it.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) home: PathBuf,
    /// `STORE/overlay` of each image store.
    pub(crate) stores: Vec<PathBuf>,
    /// Whether what is made is also made durable.
    pub(crate) durable: bool,
    /// How long an additional layer store is waited for.
    pub(crate) timeout: Duration,
}

/// A layer that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The layer's directory.
    pub(crate) dir: PathBuf,
    /// The home that it is in.
    pub(crate) home: PathBuf,
    /// Whether that is this store's own home, and not an image store's.
    pub(crate) own: bool,
}

impl Place {
    pub(crate) fn diff(&self) -> PathBuf {
        self.dir.join("diff")
    }

    /// Makes the kernel's work directory again when it was lost; nothing is kept in it.
    pub(crate) fn make_work(&self, work: &Path) -> Result<()> {
        match fs::symlink_metadata(work) {
            Err(error) if absent(&error) => {
                let diff = self.diff();
                // Not what it leads to: an additional layer store may hang.
                let found = fs::symlink_metadata(&diff).at("cannot stat", &diff)?;
                make_dir(work, 0o700, (found.uid(), found.gid()))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a layer whose `diff` holds content-addressed objects and no tree: shown as it is,
    /// it would be something else.
    ///
    /// # Compatibility
    /// `getComposefsData` in containers/storage.
    pub(crate) fn refuse_composefs(dir: &Path) -> Result<()> {
        let blob = dir.join("composefs-data/composefs.blob");
        if fs::symlink_metadata(&blob).is_err() {
            return Ok(());
        }
        let message = format!("a composefs layer cannot be used: `{}`", dir.display());
        Err(DriverError::new(DriverErrorCode::NOT_SUPPORTED, message)
            .object(dir.display().to_string())
            .remedy("delete its image and pull it again without `use_composefs`"))
    }

    /// The content of `link`; `None` when the file is missing or damaged.
    pub(crate) fn read_link(&self) -> Result<Option<LinkId>> {
        let path = self.dir.join("link");
        match fs::read(&path) {
            Ok(text) => Ok(LinkId::parse(&text)),
            Err(error) if absent(&error) => Ok(None),
            Err(error) => Err(DriverError::io("cannot read", &path, &error)),
        }
    }

    /// The content of `lower`; `None` when the layer has no parent, which its directory `empty`
    /// says: without both, what lies below is not known.
    pub(crate) fn read_chain(&self) -> Result<Option<Chain>> {
        let path = self.dir.join("lower");
        let text = match fs::read(&path) {
            Ok(text) => String::from_utf8(text)
                .map_err(|_| corrupt(format!("`{}` is not text", path.display()), &path))?,
            Err(error) if absent(&error) && self.dir.join("empty").is_dir() => return Ok(None),
            Err(error) if absent(&error) => {
                let message = format!("the list of lower layers is lost: `{}`", path.display());
                return Err(corrupt(message, &path));
            }
            Err(error) => return Err(DriverError::io("cannot read", &path, &error)),
        };
        match Chain::parse(&text) {
            Ok(chain) => Ok(Some(chain)),
            Err(entry) if text.is_empty() => Err(corrupt(
                format!(
                    "the list of lower layers is empty{entry}: `{}`",
                    path.display()
                ),
                &path,
            )
            .remedy(
                "the layer was damaged, likely by a power cut; delete its image and pull again",
            )),
            Err(entry) => Err(corrupt(
                format!(
                    "`{}` has an entry that names no layer: `{entry}`",
                    path.display()
                ),
                &path,
            )),
        }
    }
}

/// What is under a layer's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Absent,
    /// What an interrupted creation or removal left.
    Partial,
    Complete,
}

/// Owners and modes of a new layer's directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Owner of the layer's own directory.
    pub(crate) outer: (u32, u32),
    /// Owner of the directories in it.
    pub(crate) inner: (u32, u32),
    /// Mode of `diff`, whatever the umask.
    pub(crate) mode: u32,
    /// The directory whose attributes `diff` gets: the parent's, since the kernel shows those of
    /// the nearest layer alone.
    pub(crate) like: Option<PathBuf>,
    /// The files that `diff` starts with a copy of: a template's.
    pub(crate) content: Option<PathBuf>,
    /// What the file system refuses of an owner is no error.
    pub(crate) ignore_chown_errors: bool,
}

impl Attributes {
    /// Makes a `diff`, empty or a copy.
    pub(crate) fn make_diff(&self, path: &Path) -> Result<()> {
        make_dir(path, self.mode, self.inner)?;
        if let Some(content) = &self.content {
            let mut options = CopyOptions::everything();
            options.ignore_chown_errors = self.ignore_chown_errors;
            return toolkit::copy_tree(content, path, options);
        }
        let Some(like) = &self.like else {
            // It is what containers see as their root.
            let mode = fs::Permissions::from_mode(self.mode);
            return fs::set_permissions(path, mode).at("cannot change the mode of", path);
        };
        let options = CopyOptions {
            ignore_chown_errors: self.ignore_chown_errors,
            xattrs: CopiedXattrs::AllButOverlay,
        };
        toolkit::copy_attributes(like, path, options)
    }
}

/// A layer below another one, as its link or path says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Below {
    /// Its `diff` for the kernel: `l/LINK` relative to the home, or absolute.
    pub(crate) mount: PathBuf,
    /// Its directory, which holds `diff`.
    pub(crate) dir: PathBuf,
    /// Whether it is in this store's own home.
    pub(crate) own: bool,
}

pub(crate) fn corrupt(message: String, object: &Path) -> DriverError {
    DriverError::new(DriverErrorCode::CORRUPT, message).object(object.display().to_string())
}

/// Whether the failure says that there is nothing.
pub(crate) fn absent(error: &io::Error) -> bool {
    // `a/b` where `a` is a file does not exist either.
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

/// Makes one directory, its mode cut by the umask.
pub(crate) fn make_dir(path: &Path, mode: u32, owner: (u32, u32)) -> Result<()> {
    DirBuilder::new()
        .mode(mode)
        .create(path)
        .at("cannot create", path)?;
    if owner != (0, 0) {
        lchown(path, Some(owner.0), Some(owner.1)).at("cannot change the owner of", path)?;
    }
    Ok(())
}

/// Makes a directory and those above it.
pub(crate) fn make_dirs(path: &Path, mode: u32) -> Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(path)
        .at("cannot create", path)
}

pub(crate) fn sync_dir(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|dir| dir.sync_all())
        .at("cannot sync", path)
}

impl Layout {
    pub(crate) fn dir(&self, id: &LayerId) -> PathBuf {
        self.home.join(id.as_str())
    }

    pub(crate) fn links(&self) -> PathBuf {
        self.home.join(LINK_DIR)
    }

    /// Where the layer is: in the home, or in the first image store that has it.
    pub(crate) fn find(&self, id: &LayerId) -> Result<Option<Place>> {
        if RESERVED.contains(&id.as_str()) {
            return Ok(None);
        }
        for home in std::iter::once(&self.home).chain(&self.stores) {
            let dir = home.join(id.as_str());
            match fs::metadata(&dir) {
                Ok(found) if found.is_dir() => {
                    let own = *home == self.home;
                    let home = home.clone();
                    return Ok(Some(Place { dir, home, own }));
                }
                Ok(_) => {}
                Err(error) if absent(&error) => {}
                Err(error) => return Err(DriverError::io("cannot stat", &dir, &error)),
            }
        }
        Ok(None)
    }

    pub(crate) fn get(&self, id: &LayerId) -> Result<Place> {
        self.find(id)?.ok_or_else(|| {
            let message = format!("layer `{id}` does not exist");
            DriverError::new(DriverErrorCode::NOT_FOUND, message).object(id.as_str())
        })
    }

    /// Whether the home has the layer, whole or in part.
    ///
    /// A layer is complete when `link` names it and its last part, `lower` or `empty`, is there.
    pub(crate) fn state(&self, id: &LayerId) -> Result<State> {
        let dir = self.dir(id);
        match fs::symlink_metadata(&dir) {
            Ok(_) => {}
            Err(error) if absent(&error) => return Ok(State::Absent),
            Err(error) => return Err(DriverError::io("cannot stat", &dir, &error)),
        }
        let home = self.home.clone();
        let place = Place {
            dir,
            home,
            own: true,
        };
        let named = place.read_link().ok().flatten().is_some();
        let ended = place.read_chain().is_ok();
        let complete = named && ended && fs::symlink_metadata(place.diff()).is_ok();
        Ok(if complete {
            State::Complete
        } else {
            State::Partial
        })
    }

    /// The chain of a new layer on `parent`.
    pub(crate) fn chain_on(&self, parent: &LayerId) -> Result<Chain> {
        let place = self.get(parent)?;
        let link = if let Some(link) = place.read_link()? {
            link
        } else {
            self.recover_links()?;
            place.read_link()?.ok_or_else(|| {
                let path = place.dir.join("link");
                corrupt(
                    format!("layer `{parent}` has lost its link: `{}`", path.display()),
                    &path,
                )
            })?
        };
        let chain = place.read_chain()?.unwrap_or_default().below(link);
        if chain.0.len() > MAX_DEPTH {
            let message = format!(
                "max depth exceeded: {} layers below, {MAX_DEPTH} allowed",
                chain.0.len()
            );
            return Err(DriverError::new(DriverErrorCode::TOO_DEEP, message)
                .object(parent.as_str())
                .remedy("squash the image into fewer layers"));
        }
        Ok(chain)
    }

    /// Finds the layer that a chain names, in the home or in an image store.
    pub(crate) fn below(&self, lower: &Lower) -> Result<Below> {
        if let Some(below) = self.resolve(lower)? {
            return Ok(below);
        }
        // Links were lost in a power cut, or by a copy of the store without them.
        self.recover_links()?;
        self.resolve(lower)?.ok_or_else(|| {
            let path = self.home.join(lower.to_string());
            let message = format!("a lower layer is missing: `{}`", path.display());
            corrupt(message, &path)
        })
    }

    fn resolve(&self, lower: &Lower) -> Result<Option<Below>> {
        for home in std::iter::once(&self.home).chain(&self.stores) {
            let own = *home == self.home;
            let path = home.join(lower.to_string());
            let target = match lower {
                Lower::Directory(_) => path.clone(),
                Lower::Link(_) => match fs::read_link(&path) {
                    // The form is `../ID/diff`, or absolute in a split image store.
                    Ok(target) => match target.strip_prefix("..") {
                        Ok(below_home) => home.join(below_home),
                        Err(_) => target,
                    },
                    Err(error) if absent(&error) => continue,
                    Err(error) => {
                        return Err(DriverError::io("cannot read the link", &path, &error));
                    }
                },
            };
            let (Some(dir), true) = (target.parent(), target.is_absolute()) else {
                return Err(corrupt(
                    format!("`{}` is no link to a layer", path.display()),
                    &path,
                ));
            };
            external::reach(&target, self.timeout)?;
            match fs::metadata(&target) {
                Ok(found) if found.is_dir() => {
                    let dir = dir.to_owned();
                    let mount = if own { lower.to_string().into() } else { path };
                    return Ok(Some(Below { mount, dir, own }));
                }
                Ok(_) => {
                    return Err(corrupt(
                        format!("`{}` is no directory", target.display()),
                        &target,
                    ));
                }
                Err(error) if absent(&error) => {}
                Err(error) => return Err(DriverError::io("cannot stat", &target, &error)),
            }
        }
        Ok(None)
    }

    /// `diff1`, `diff2`, ... in a layer's directory: what lies directly below its `diff` after a
    /// change of owners for an id map.
    pub(crate) fn further_diffs(dir: &Path) -> Vec<&'static str> {
        const NAMES: [&str; 9] = [
            "diff1", "diff2", "diff3", "diff4", "diff5", "diff6", "diff7", "diff8", "diff9",
        ];
        let there = |name: &&str| dir.join(name).is_dir();
        NAMES.into_iter().take_while(there).collect()
    }

    /// Owners and modes of a layer on `parent`, or of a base layer with root `root`.
    pub(crate) fn attributes(
        &self,
        parent: Option<&LayerId>,
        root: (u32, u32),
        base_mode: u32,
        ignore_chown_errors: bool,
    ) -> Result<Attributes> {
        let Some(parent) = parent else {
            return Ok(Attributes {
                outer: root,
                inner: root,
                mode: base_mode,
                like: None,
                content: None,
                ignore_chown_errors,
            });
        };
        let diff = self.get(parent)?.diff();
        external::reach(&diff, self.timeout)?;
        let found = match fs::metadata(&diff) {
            Err(error) if absent(&error) => {
                let message = format!("the layer has lost its files: `{}`", diff.display());
                return Err(corrupt(message, &diff));
            }
            found => found.at("cannot stat", &diff)?,
        };
        Ok(Attributes {
            outer: root,
            inner: (found.uid(), found.gid()),
            mode: found.permissions().mode() & 0o777,
            like: Some(diff),
            content: None,
            ignore_chown_errors,
        })
    }

    /// Makes the parts of the layer `id` in `dir`, which becomes `home/<id>`, and its link.
    ///
    /// # Behavior
    /// - `link` is written before the link that it names is made, unlike in containers/storage, so
    ///   that no interruption leaves a link whose owner is unknown.
    /// - The last part is `lower` or `empty`: what lacks it was interrupted.
    ///
    /// # Durability
    /// - `link`, `lower` and all names are on disk at the end, unless durability is switched off.
    pub(crate) fn build(
        &self,
        dir: &Path,
        id: &LayerId,
        attributes: &Attributes,
        chain: Option<&Chain>,
    ) -> Result<()> {
        self.build_parts(dir, Some(id), attributes, chain)?;
        if self.durable {
            sync_dir(&self.links())?;
        }
        Ok(())
    }

    /// As [`Layout::build`], but without the link unless `named`; returns its name.
    pub(crate) fn build_parts(
        &self,
        dir: &Path,
        named: Option<&LayerId>,
        attributes: &Attributes,
        chain: Option<&Chain>,
    ) -> Result<LinkId> {
        let inner = attributes.inner;
        make_dir(dir, 0o700, attributes.outer)?;
        attributes.make_diff(&dir.join("diff"))?;
        let name = LinkId::generate()?;
        let link = write_new(&dir.join("link"), name.as_str(), 0o644)?;
        if let Some(id) = named {
            self.make_link(&name, id)?;
        }
        make_dir(&dir.join("work"), 0o700, inner)?;
        make_dir(&dir.join("merged"), 0o700, inner)?;
        let lower = match chain {
            None => {
                make_dir(&dir.join("empty"), 0o700, inner)?;
                None
            }
            Some(chain) => Some(write_new(&dir.join("lower"), &chain.to_string(), 0o666)?),
        };
        if self.durable {
            // At the end and together: the first of them commits most of the others.
            for file in std::iter::once(&link).chain(&lower) {
                file.sync_all().at("cannot sync", dir)?;
            }
            sync_dir(dir)?;
            if let Some(parent) = dir.parent() {
                sync_dir(parent)?;
            }
        }
        Ok(name)
    }

    /// Makes the link called `name` to the layer's files.
    pub(crate) fn make_link(&self, name: &LinkId, id: &LayerId) -> Result<()> {
        let path = self.links().join(name.as_str());
        symlink(Path::new("..").join(id.as_str()).join("diff"), &path).at("cannot create", &path)
    }

    /// Removes the link of the layer in `dir`.
    pub(crate) fn unlink(place: &Place) -> Result<()> {
        if let Some(link) = place.read_link()? {
            let path = place.home.join(LINK_DIR).join(link.as_str());
            match fs::remove_file(&path) {
                Err(error) if !absent(&error) => {
                    return Err(DriverError::io("cannot remove", &path, &error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Every directory in the home that is a layer or what is left of one.
    pub(crate) fn list(&self) -> Result<Vec<LayerId>> {
        let mut ids = Vec::new();
        for entry in fs::read_dir(&self.home).at("cannot read", &self.home)? {
            let entry = entry.at("cannot read", &self.home)?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if RESERVED.contains(&name.as_str()) {
                continue;
            }
            let kind = entry.file_type().at("cannot stat", entry.path())?;
            if let (true, Ok(id)) = (kind.is_dir(), LayerId::new(name)) {
                ids.push(id);
            }
        }
        ids.sort();
        Ok(ids)
    }
}

/// Writes a file that is not there yet.
pub(crate) fn write_new(path: &Path, text: &str, mode: u32) -> Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()).map(|()| file))
        .at("cannot write", path)
}
