// SPDX-License-Identifier: Apache-2.0
//! The driver: what it is asked, and which part answers.

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use plywood_plugin_sdk::{
    Capabilities, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, Host, IdMaps,
    IoContext, LayerId, LayerKind, LogLevel, MountPlan, MountRequest, OpenRequest, Removed, Result,
    Staged, UnpackTarget, Usage, WhiteoutForm,
    toolkit::{self, Places, Reserve},
};

use crate::{
    config::{Config, invalid},
    diff,
    layout::{Attributes, Layout, MAX_DEPTH, Place, RESERVED, ROOT_MODE, State},
    link::Chain,
    merged,
    mount::{self, Options},
    open::Opened,
    probe::Probe,
    program, staging, whiteout,
};

/// Where log messages say they come from.
pub(crate) const TARGET: &str = "overlay";

/// An overlay store.
pub(crate) struct OverlayDriver {
    store: Opened,
    id_maps: IdMaps,
    rootless: bool,
    places: Places,
    host: Arc<dyn Host>,
}

/// What a new layer is made of.
struct Plan {
    attributes: Attributes,
    chain: Option<Chain>,
}

impl OverlayDriver {
    pub(crate) fn open(request: OpenRequest) -> Result<Self> {
        Ok(Self {
            store: Opened::new(&request)?,
            id_maps: request.id_maps,
            rootless: request.rootless,
            places: Places::default(),
            host: request.host,
        })
    }

    fn config(&self) -> &Config {
        &self.store.config
    }

    fn whiteouts(&self) -> WhiteoutForm {
        whiteout::form(self.config().mount_program.is_some(), self.rootless)
    }

    /// How deletions are unpacked: with no layer below there is nothing to be hidden, and a mark
    /// would be visible where the layer is shown as it is.
    fn whiteouts_on(&self, has_parent: bool) -> WhiteoutForm {
        if has_parent {
            self.whiteouts()
        } else {
            WhiteoutForm::Removal
        }
    }

    fn own(&self, id: &LayerId) -> Place {
        Place {
            dir: self.store.layout.dir(id),
            home: self.store.layout.home.clone(),
            own: true,
        }
    }

    fn log(&self, level: LogLevel, message: &str) {
        self.host.log(level, TARGET, message);
    }

    /// Checks a request and finds what its layer is made of.
    fn plan(&self, request: &CreateRequest) -> Result<Plan> {
        self.check(request)?;
        let root = request.id_maps.root().ok_or_else(|| {
            let message = "the id maps have no entry for the root user";
            DriverError::new(DriverErrorCode::INVALID_ARGUMENT, message)
        })?;
        let layout = &self.store.layout;
        let parent = request.parent.as_ref();
        let base_mode = self.config().force_mask.unwrap_or(ROOT_MODE);
        let ignored = self.config().ignore_chown_errors;
        let mut plan = Plan {
            chain: parent.map(|id| layout.chain_on(id)).transpose()?,
            attributes: layout.attributes(parent, root, base_mode, ignored)?,
        };
        if let Some(template) = &request.template {
            plan.attributes.content = Some(self.template(template, plan.chain.as_ref())?);
        }
        Ok(plan)
    }

    /// The files of a template, which are a layer's content only on the same lower layers.
    fn template(&self, template: &LayerId, chain: Option<&Chain>) -> Result<PathBuf> {
        let place = self.store.layout.get(template)?;
        let same = place.read_chain()?.as_ref() == chain;
        if same && Layout::further_diffs(&place.dir).is_empty() {
            return diff::content_dir(&place);
        }
        let message = format!("a copy of layer `{template}` must stand on what it stands on");
        Err(invalid(message, template.as_str()))
    }

    fn check(&self, request: &CreateRequest) -> Result<()> {
        if RESERVED.contains(&request.id.as_str()) {
            let message = format!("the driver needs the name `{}` for itself", request.id);
            return Err(invalid(message, request.id.as_str()));
        }
        let writable = request.kind == LayerKind::ReadWrite;
        if writable && self.config().force_mask.is_some() && self.config().mount_program.is_none() {
            let message = "overlay: force_mask option for writeable layers is only supported with \
                           a mount_program";
            return Err(invalid(message, "force_mask")
                .remedy("set `mount_program` to fuse-overlayfs in storage.conf"));
        }
        if let Some((key, value)) = request.storage_options.iter().next() {
            let option = format!("{key}={value}");
            match key.to_ascii_lowercase().as_str() {
                "size" | "inodes" if !writable => {
                    let message =
                        format!("--storage-opt {key} is only supported for ReadWrite Layers");
                    return Err(invalid(message, &option));
                }
                "size" | "inodes" => {
                    let message = "--storage-opt is supported only for overlay over xfs with \
                                   'pquota' mount option";
                    return Err(DriverError::new(DriverErrorCode::NOT_SUPPORTED, message)
                        .object(option)
                        .remedy("leave the limit out: this version does not enforce limits"));
                }
                _ => return Err(invalid(format!("unknown option {key}"), &option)),
            }
        }
        Ok(())
    }

    /// Refuses an id that is in use, and clears what an interruption left under it.
    fn make_room(&self, id: &LayerId) -> Result<()> {
        match self.store.layout.state(id)? {
            State::Absent => Ok(()),
            State::Partial => {
                let message = format!("replacing what an interruption left of layer `{id}`");
                self.log(LogLevel::Warn, &message);
                self.remove(id).map(|_| ())
            }
            State::Complete => {
                let message = format!("layer `{id}` exists");
                Err(DriverError::new(DriverErrorCode::ALREADY_EXISTS, message).object(id.as_str()))
            }
        }
    }

    /// Makes everything durable once `exists` has found what is meant.
    fn sync_home(&self, exists: impl FnOnce() -> Result<PathBuf>) -> Result<()> {
        if !self.config().sync {
            return Err(DriverError::not_supported("sync"));
        }
        exists()?;
        let home = &self.store.layout.home;
        let opened = fs::File::open(home).at("cannot open", home)?;
        rustix::fs::syncfs(&opened).at("cannot sync", home)
    }

    /// Whether the kernel gives a file that it copies up the number that it had: all layers are on
    /// one file system, and its files can be found by handles.
    fn has_stable_inodes(&self) -> bool {
        const KNOWN: [&str; 4] = ["extfs", "xfs", "btrfs", "tmpfs"];
        let store = &self.store;
        store.config.mount_program.is_none()
            && store.layout.stores.is_empty()
            && KNOWN.contains(&store.backing.name())
    }

    fn stack(&self, id: &LayerId, request: &MountRequest) -> Result<(mount::Stack, Options)> {
        let place = self.store.layout.get(id)?;
        let mut options = Options::merge(self.config(), request, self.store.abilities)?;
        if let Some(warning) = options.warning {
            self.log(LogLevel::Warn, warning);
        }
        let run_dir = &self.store.run_dir;
        let stack = self.store.layout.stack(id, &place, run_dir, &mut options)?;
        Ok((stack, options))
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
        capabilities.volatile_mounts = self.store.abilities.volatile;
        capabilities.native_diff = self.store.native_diff;
        capabilities.staging = true;
        capabilities.deferred_removal = true;
        capabilities.sync = self.config().sync;
        capabilities.template = true;
        capabilities.image_stores = true;
        capabilities.stable_inodes = self.has_stable_inodes();
        capabilities.space_sharing = true;
        capabilities.holes = true;
        capabilities
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        let metacopy = self.store.abilities.metacopy;
        let shifting = match self.config().mount_program {
            Some(_) => Some(true),
            None => Probe::known_shifting(&self.store.run_dir),
        };
        let pairs = [
            (
                "Backing Filesystem",
                Some(self.store.backing.name().to_owned()),
            ),
            // Opening fails without it.
            ("Supports d_type", Some(true.to_string())),
            (
                "Native Overlay Diff",
                Some(self.store.native_diff.to_string()),
            ),
            ("Using metacopy", Some(metacopy.to_string())),
            ("Supports shifting", shifting.map(|known| known.to_string())),
            (
                "Supports volatile",
                Some(self.store.abilities.volatile.to_string()),
            ),
        ];
        let known = pairs.into_iter();
        Ok(known
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect())
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        let plan = self.plan(request)?;
        self.make_room(&request.id)?;
        let place = self.own(&request.id);
        let layout = &self.store.layout;
        let chain = plan.chain.as_ref();
        let reserve = Reserve::new().at("cannot begin to make", &place.dir)?;
        let built = layout.build(&place.dir, &request.id, &plan.attributes, chain);
        built.or_else(|error| {
            drop(reserve);
            // Not by way of the trash: a full disk has no room for that.
            staging::take_down(&place)?;
            Err(error)
        })
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        match self.trash(id)? {
            Some(token) => self.reap(&token).map(|()| Removed::Now),
            None => Ok(Removed::AlreadyGone),
        }
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(self.store.layout.find(id)?.is_some())
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        self.store.layout.list()
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let layout = &self.store.layout;
        let place = layout.get(id)?;
        let chain = place.read_chain()?.unwrap_or_default();
        let mut lowers = Vec::new();
        for lower in &chain.0 {
            lowers.push(layout.below(lower)?.dir.join("diff").display().to_string());
        }
        let names = [
            ("UpperDir", "diff"),
            ("WorkDir", "work"),
            ("MergedDir", "merged"),
        ];
        let path = |name: &str| place.dir.join(name).display().to_string();
        let mut metadata = BTreeMap::from(names.map(|(key, name)| (key.to_owned(), path(name))));
        if !lowers.is_empty() {
            metadata.insert("LowerDir".to_owned(), lowers.join(":"));
        }
        Ok(metadata)
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        toolkit::tree_usage(&diff::content_dir(&self.store.layout.get(id)?)?)
    }

    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let (stack, options) = self.stack(id, request)?;
        if self.config().mount_program.is_some() {
            return Ok(MountPlan::ByDriver {
                target: stack.target,
            });
        }
        let home = &self.store.layout.home;
        Ok(mount::kernel_plan(
            home,
            stack,
            options,
            request.label.clone(),
        ))
    }

    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<PathBuf> {
        let Some(mount_program) = &self.config().mount_program else {
            return Err(DriverError::not_supported("mounting by itself"));
        };
        let (stack, options) = self.stack(id, request)?;
        let id_maps = if request.id_maps.is_empty() {
            &self.id_maps
        } else {
            &request.id_maps
        };
        let home = &self.store.layout.home;
        let label = request.label.as_deref();
        let masked = self.config().force_mask.is_some();
        let data = program::data(home, &stack, &options, label, id_maps, masked)?;
        program::mount(mount_program, home, &stack.target, &data, &options)?;
        Ok(stack.target)
    }

    fn unmount(&self, id: &LayerId) -> Result<()> {
        if self.config().mount_program.is_none() {
            return Err(DriverError::not_supported("mounting by itself"));
        }
        let layout = &self.store.layout;
        let place = layout.get(id)?;
        let run_dir = &self.store.run_dir;
        program::unmount_target(&merged::path(id, &place, run_dir))?;
        merged::renew(id, &place, run_dir, self.host.as_ref())
    }

    fn released(&self, id: &LayerId) -> Result<()> {
        match self.store.layout.find(id)? {
            Some(place) => merged::renew(id, &place, &self.store.run_dir, self.host.as_ref()),
            None => Ok(()),
        }
    }

    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        let place = self.store.layout.get(id)?;
        let directory = diff::content_dir(&place)?;
        let has_parent = place.read_chain()?.is_some();
        diff::unpack_target(directory, self.whiteouts_on(has_parent), self.config())
    }

    fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView> {
        let place = self.store.layout.get(id)?;
        if !self.store.native_diff {
            return Ok(DiffView::Mounted);
        }
        self.store
            .layout
            .diff_view(&place, parent, self.whiteouts())
    }

    fn content_roots(&self, id: &LayerId) -> Result<Vec<PathBuf>> {
        self.store.layout.content_roots(&self.store.layout.get(id)?)
    }

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        let plan = self.plan(request)?;
        let held = self.store.layout.stage(&plan.attributes)?;
        let directory = held.content.clone();
        let whiteouts = self.whiteouts_on(request.parent.is_some());
        let target = diff::unpack_target(directory, whiteouts, self.config())?;
        let token = self.places.hold(held);
        Ok(Staged { token, target })
    }

    fn sync_staged(&self, token: &str) -> Result<()> {
        self.sync_home(|| self.places.content(token))
    }

    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        let mut plan = self.plan(request)?;
        // What is staged has it already.
        plan.attributes.content = None;
        self.make_room(&request.id)?;
        let (layout, chain) = (&self.store.layout, plan.chain.as_ref());
        let mut held = self.places.take(token)?;
        let adopted = layout.adopt(&mut held, &request.id, &plan.attributes, chain);
        if adopted.is_ok() {
            return held.place.close();
        }
        self.places.hold(held);
        adopted
    }

    fn discard(&self, token: &str) -> Result<()> {
        self.places.discard(token)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        if RESERVED.contains(&id.as_str()) {
            return Ok(None);
        }
        let held = self.store.layout.trash(&self.own(id))?;
        Ok(held.map(|held| self.places.hold(held)))
    }

    fn reap(&self, token: &str) -> Result<()> {
        self.places.discard(token)
    }

    fn recover(&self) -> Result<Vec<String>> {
        self.store.layout.recover_places()
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        self.sync_home(|| self.store.layout.get(id).map(|place| place.dir))
    }

    fn image_stores(&self) -> Vec<PathBuf> {
        self.store.layout.stores.clone()
    }

    fn close(&self) -> Result<()> {
        if self.store.mounted_home {
            toolkit::undo_private(&self.store.layout.home)
        } else {
            Ok(())
        }
    }
}
