// SPDX-License-Identifier: Apache-2.0
//! The driver: what it is asked, and which part answers.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, Host, IoContext,
    LayerId, LayerKind, LogLevel, MountPlan, MountRequest, OpenRequest, Removed, Result,
    UnpackTarget, Usage, WhiteoutForm, toolkit,
};

use crate::{
    config::{Config, invalid},
    diff,
    layout::{Layout, MAX_DEPTH, Place, ROOT_MODE, State, make_dirs, remove_tree},
    mount::{self, Abilities, Options},
};

/// An overlay store.
pub(crate) struct OverlayDriver {
    config: Config,
    layout: Layout,
    run_dir: PathBuf,
    rootless: bool,
    abilities: Abilities,
    native_diff: bool,
    host: Arc<dyn Host>,
}

impl OverlayDriver {
    pub(crate) fn open(request: OpenRequest) -> Result<Self> {
        let config = Config::parse(&request.options, &request.known_drivers)?;
        if request.image_store.is_some() {
            return Err(DriverError::new(
                DriverErrorCode::NOT_SUPPORTED,
                "overlay: a separate image store is not supported",
            )
            .remedy("leave `imagestore` out of [storage]"));
        }
        let stores = config.image_stores.iter();
        let layout = Layout {
            stores: stores.map(|store| store.join("overlay")).collect(),
            durable: config.sync,
            home: request.home,
        };
        make_dirs(&layout.home, 0o700)?;
        make_dirs(&layout.links(), 0o755)?;
        make_dirs(&request.run_dir, 0o700)?;
        Ok(Self {
            abilities: Abilities {
                metacopy: false,
                volatile: true,
                userxattr: request.rootless,
            },
            native_diff: config.mount_program.is_none(),
            config,
            layout,
            run_dir: request.run_dir,
            rootless: request.rootless,
            host: request.host,
        })
    }

    fn whiteouts(&self) -> WhiteoutForm {
        match (&self.config.mount_program, self.rootless) {
            (Some(_), _) => WhiteoutForm::Literal,
            (None, true) => WhiteoutForm::OverlayUserXattr,
            (None, false) => WhiteoutForm::Overlay,
        }
    }

    fn own(&self, id: &LayerId) -> Place {
        let (dir, home) = (self.layout.dir(id), self.layout.home.clone());
        Place {
            dir,
            home,
            own: true,
        }
    }

    fn log(&self, level: LogLevel, message: &str) {
        self.host.log(level, "overlay", message);
    }

    /// Refuses limits, which need a project quota.
    fn check_storage_options(&self, request: &CreateRequest) -> Result<()> {
        for (key, value) in &request.storage_options {
            let option = format!("{key}={value}");
            match key.to_ascii_lowercase().as_str() {
                "size" | "inodes" if request.kind == LayerKind::ReadOnly => {
                    let message =
                        format!("--storage-opt {key} is only supported for ReadWrite Layers");
                    return Err(invalid(message, &option));
                }
                "size" | "inodes" => {
                    return Err(DriverError::new(
                        DriverErrorCode::NOT_SUPPORTED,
                        "--storage-opt is supported only for overlay over xfs with 'pquota' mount option",
                    )
                    .object(option));
                }
                _ => return Err(invalid(format!("unknown option {key}"), &option)),
            }
        }
        Ok(())
    }

    fn remove_now(&self, place: &Place) -> Result<Removed> {
        self.layout.unlink(place)?;
        Ok(if remove_tree(&place.dir)? {
            Removed::Now
        } else {
            Removed::AlreadyGone
        })
    }
}

impl Driver for OverlayDriver {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::default();
        capabilities.list = true;
        capabilities.depth_limit = u32::try_from(MAX_DEPTH).ok();
        capabilities.read_only_mounts = true;
        capabilities.mount_options = true;
        capabilities.mount_labels = true;
        capabilities.volatile_mounts = self.abilities.volatile;
        capabilities.native_diff = self.native_diff;
        capabilities.image_stores = true;
        capabilities
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.check_storage_options(request)?;
        let root = request.id_maps.root().ok_or_else(|| {
            DriverError::new(
                DriverErrorCode::INVALID_ARGUMENT,
                "the id maps have no entry for the root user",
            )
        })?;
        let place = self.own(&request.id);
        match self.layout.state(&request.id)? {
            State::Absent => {}
            State::Partial => {
                let message = format!("replacing what is left of layer `{}`", request.id);
                self.log(LogLevel::Warn, &message);
                self.remove_now(&place)?;
            }
            State::Complete => {
                let message = format!("layer `{}` exists", request.id);
                return Err(DriverError::new(DriverErrorCode::ALREADY_EXISTS, message)
                    .object(request.id.as_str()));
            }
        }
        let base_mode = self.config.force_mask.unwrap_or(ROOT_MODE);
        let parent = request.parent.as_ref();
        let chain = parent.map(|id| self.layout.chain_on(id)).transpose()?;
        let attributes = self.layout.attributes(parent, root, base_mode)?;
        let built = self
            .layout
            .build(&place.dir, &request.id, &attributes, chain.as_ref());
        if built.is_err() {
            self.remove_now(&place)?;
        }
        built
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        self.remove_now(&self.own(id))
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(self.layout.find(id)?.is_some())
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        self.layout.list()
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let place = self.layout.get(id)?;
        let chain = self.layout.read_chain(&place)?.unwrap_or_default();
        let mut lowers = Vec::new();
        for lower in &chain.0 {
            lowers.push(
                self.layout
                    .below(lower)?
                    .dir
                    .join("diff")
                    .display()
                    .to_string(),
            );
        }
        let path = |name: &str| place.dir.join(name).display().to_string();
        let mut metadata: BTreeMap<_, _> = [
            ("UpperDir", "diff"),
            ("WorkDir", "work"),
            ("MergedDir", "merged"),
        ]
        .map(|(key, name)| (key.to_owned(), path(name)))
        .into();
        if !lowers.is_empty() {
            metadata.insert("LowerDir".to_owned(), lowers.join(":"));
        }
        Ok(metadata)
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        toolkit::tree_usage(&diff::content_dir(&self.layout.get(id)?)?)
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let place = self.layout.get(id)?;
        let options = Options::merge(&self.config, request, self.abilities)?;
        if let Some(warning) = options.warning {
            self.log(LogLevel::Warn, warning);
        }
        let stack = self
            .layout
            .stack(id, &place, &self.run_dir, options.read_only)?;
        if self.config.mount_program.is_some() {
            return Ok(MountPlan::ByDriver {
                target: stack.target,
            });
        }
        Ok(mount::kernel_plan(
            &self.layout.home,
            stack,
            options,
            request.label.clone(),
        ))
    }

    fn released(&self, id: &LayerId) -> Result<()> {
        match self.layout.find(id)? {
            Some(place) => self.layout.renew_target(id, &place, &self.run_dir),
            None => Ok(()),
        }
    }

    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        let directory = diff::content_dir(&self.layout.get(id)?)?;
        let Config {
            ignore_chown_errors,
            force_mask,
            ..
        } = self.config;
        diff::unpack_target(directory, self.whiteouts(), ignore_chown_errors, force_mask)
    }

    fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView> {
        let place = self.layout.get(id)?;
        match self.native_diff {
            true => self.layout.diff_view(&place, parent, self.whiteouts()),
            false => Ok(DiffView::Mounted),
        }
    }

    fn content_roots(&self, id: &LayerId) -> Result<Vec<PathBuf>> {
        self.layout.content_roots(&self.layout.get(id)?)
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        let place = self.layout.get(id)?;
        let home = fs::File::open(&place.home).at("cannot open", &place.home)?;
        rustix::fs::syncfs(&home).at("cannot sync", &place.home)
    }

    fn image_stores(&self) -> Vec<PathBuf> {
        self.layout.stores.clone()
    }
}
