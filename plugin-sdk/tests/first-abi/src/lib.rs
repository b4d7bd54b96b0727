// SPDX-License-Identifier: Apache-2.0
//! A driver that uses everything that version 1.0 of the SDK has: every method, every kind of
//! answer, every capability, the toolkit's private places.
//!
//! It is kept as it is. Whatever a later 1.x does, this file compiles and the plugin works.

use std::{
    collections::BTreeMap,
    fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use plywood_plugin_sdk::{
    Capabilities, ChangeKind, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode, IdMap,
    IdMaps, IoContext, LayerId, LayerKind, Log, MAX_ID_LENGTH, MountPlan, MountRequest, MountStep,
    MountSteps, NativeChange, OpenRequest, OverlayMount, Plugin, Removed, Result, Staged,
    UnpackTarget, Usage, WhiteoutForm,
    abi::{AbiVersion, VERSION},
    export_driver, to_container, to_host,
    toolkit::{self, Held, Places, TempDir, temp_dir},
};

/// The driver's name is `first`.
#[derive(Clone, Copy, Debug)]
pub struct First;

impl Plugin for First {
    const NAME: &'static str = "first";
    const VENDOR: &'static str = "Plywood tests";
    const VERSION: &'static str = "1.0.0";

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        let log = request.log(Self::NAME);
        log.debug(format_args!(
            "ABI {VERSION}, home {}",
            request.home.display()
        ));
        if let Some(option) = request.options.iter().find(|option| *option == "refuse") {
            let code = DriverErrorCode::PREREQUISITES;
            return Err(DriverError::new(code, "asked to refuse")
                .object(option)
                .remedy("do not ask"));
        }
        let layers = request.home.join("layers");
        fs::create_dir_all(&layers).at("cannot create", &layers)?;
        Ok(Box::new(Layers {
            home: request.home,
            run_dir: request.run_dir,
            image_store: request.image_store,
            known: request.known_drivers.len(),
            rootless: request.rootless,
            id_maps: request.id_maps,
            log,
            places: Places::default(),
            seen: Mutex::default(),
        }))
    }
}

export_driver!(First);

struct Layers {
    home: PathBuf,
    run_dir: PathBuf,
    image_store: Option<PathBuf>,
    known: usize,
    rootless: bool,
    id_maps: IdMaps,
    log: Log,
    places: Places,
    /// What the last requests carried.
    seen: Mutex<Vec<(String, String)>>,
}

impl Layers {
    fn note(&self, what: &str, value: String) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((what.to_owned(), value));
    }

    fn place(&self, id: &LayerId) -> PathBuf {
        self.home.join("layers").join(id.as_str())
    }

    fn tree(&self, id: &LayerId) -> Result<PathBuf> {
        if self.exists(id)? {
            return Ok(self.place(id));
        }
        Err(DriverError::no_layer(id))
    }

    fn temporary(&self) -> Result<TempDir> {
        TempDir::create(&self.home.join("places"))
    }

    fn make(&self, request: &CreateRequest) -> Result<Held> {
        let kind = match request.kind {
            LayerKind::ReadOnly => "ro",
            LayerKind::ReadWrite => "rw",
        };
        self.note(
            "create",
            format!("{} {kind} {:?}", request.id, request.parent),
        );
        if let Some(key) = request.storage_options.keys().next() {
            return Err(
                DriverError::new(DriverErrorCode::INVALID_ARGUMENT, "no options").object(key),
            );
        }
        let mut place = self.temporary()?;
        let content = place.addition();
        fs::create_dir(&content).at("cannot create", &content)?;
        Ok(Held { place, content })
    }
}

impl Driver for Layers {
    fn capabilities(&self) -> Capabilities {
        let mut can = Capabilities::default();
        can.list = true;
        can.depth_limit = Some(7);
        can.read_only_mounts = true;
        can.mount_options = true;
        can.mount_labels = true;
        can.volatile_mounts = true;
        can.idmapped_mounts = true;
        can.native_diff = true;
        can.native_changes = true;
        can.staging = true;
        can.deferred_removal = true;
        can.sync = true;
        can.size_quota = true;
        can.inode_quota = true;
        can.template = true;
        can.image_stores = true;
        can.external_directory = true;
        can.cheap_usage = true;
        can
    }

    fn status(&self) -> Result<Vec<(String, String)>> {
        let AbiVersion { major, .. } = VERSION;
        let mut pairs = vec![
            ("Major".to_owned(), major.to_string()),
            ("Known drivers".to_owned(), self.known.to_string()),
            ("Rootless".to_owned(), self.rootless.to_string()),
            ("Root".to_owned(), format!("{:?}", self.id_maps.root())),
            ("Longest id".to_owned(), MAX_ID_LENGTH.to_string()),
        ];
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        pairs.extend(seen.iter().cloned());
        Ok(pairs)
    }

    fn create(&self, request: &CreateRequest) -> Result<()> {
        if self.exists(&request.id)? {
            return Err(DriverError::layer_exists(&request.id));
        }
        let held = self.make(request)?;
        let place = self.place(&request.id);
        fs::rename(&held.content, &place).at("cannot publish", &place)?;
        held.place.close()
    }

    fn remove(&self, id: &LayerId) -> Result<Removed> {
        if !self.exists(id)? {
            return Ok(Removed::AlreadyGone);
        }
        toolkit::remove_tree(&self.place(id))?;
        Ok(Removed::Now)
    }

    fn exists(&self, id: &LayerId) -> Result<bool> {
        if id.as_str() == "panic" {
            panic!("asked to panic");
        }
        let place = self.place(id);
        place.try_exists().at("cannot look at", &place)
    }

    fn list(&self) -> Result<Vec<LayerId>> {
        let layers = self.home.join("layers");
        let entries = fs::read_dir(&layers).at("cannot read", &layers)?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| LayerId::new(name).ok()).collect())
    }

    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        let tree = self.tree(id)?.display().to_string();
        Ok(BTreeMap::from([("Directory".to_owned(), tree)]))
    }

    fn usage(&self, id: &LayerId) -> Result<Usage> {
        toolkit::tree_usage(&self.tree(id)?)
    }

    /// A plan of each kind, by the layer's id.
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        let tree = self.tree(id)?;
        let (label, options) = (&request.label, &request.options);
        let (read_only, volatile) = (request.read_only, request.volatile);
        self.note(
            "mount",
            format!("{read_only} {volatile} {label:?} {options:?}"),
        );
        let target = self.run_dir.join(id.as_str());
        let step = match id.as_str() {
            "overlay" => MountStep::Overlay(OverlayMount {
                base: self.home.clone(),
                lowers: vec![tree],
                upper: None,
                work: None,
                target: target.clone(),
                options: options.clone(),
                label: label.clone(),
            }),
            "filesystem" => MountStep::Filesystem {
                fstype: "tmpfs".to_owned(),
                source: "none".to_owned(),
                target: target.clone(),
                options: options.clone(),
                read_only,
            },
            "bind" => MountStep::Bind {
                source: tree,
                target: target.clone(),
                read_only,
            },
            "itself" => return Ok(MountPlan::ByDriver { target }),
            _ => return Ok(MountPlan::Directory(tree)),
        };
        let steps = vec![step];
        Ok(MountPlan::Mounts(MountSteps { target, steps }))
    }

    fn mount(&self, id: &LayerId, _: &MountRequest) -> Result<PathBuf> {
        self.tree(id)
    }

    fn unmount(&self, id: &LayerId) -> Result<()> {
        self.tree(id).map(drop)
    }

    fn released(&self, id: &LayerId) -> Result<()> {
        self.tree(id).map(drop)
    }

    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        let mut target = UnpackTarget::tree(self.tree(id)?);
        target.whiteouts = WhiteoutForm::Literal;
        target.implied_directory_mode = 0o711;
        target.force_mask = Some(0o700);
        target.fresh = true;
        Ok(target)
    }

    fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView> {
        let tree = self.tree(id)?;
        Ok(match id.as_str() {
            "overlay" => DiffView::Upper {
                upper: tree,
                lowers: vec![self.home.clone()],
                whiteouts: WhiteoutForm::Overlay,
            },
            "itself" => DiffView::Mounted,
            _ => DiffView::Trees {
                tree,
                parent: parent.map(|parent| self.tree(parent)).transpose()?,
            },
        })
    }

    fn content_roots(&self, id: &LayerId) -> Result<Vec<PathBuf>> {
        Ok(vec![self.tree(id)?])
    }

    fn native_changes(&self, id: &LayerId, _: Option<&LayerId>) -> Result<Vec<NativeChange>> {
        self.tree(id)?;
        let change = |path: &str, kind| NativeChange {
            path: path.into(),
            kind,
        };
        Ok(vec![
            change("a", ChangeKind::Add),
            change("b", ChangeKind::Modify),
            change("c", ChangeKind::Delete),
        ])
    }

    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        let held = self.make(request)?;
        let target = UnpackTarget::tree(&held.content);
        let token = self.places.hold(held);
        Ok(Staged { token, target })
    }

    fn sync_staged(&self, token: &str) -> Result<()> {
        self.places.content(token).map(drop)
    }

    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        let held = self.places.take(token)?;
        let place = self.place(&request.id);
        fs::rename(&held.content, &place).at("cannot publish", &place)?;
        held.place.close()
    }

    fn discard(&self, token: &str) -> Result<()> {
        self.places.discard(token)
    }

    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        let mut place = self.temporary()?;
        let taken = place.take(&self.place(id))?;
        Ok(taken.map(|content| self.places.hold(Held { place, content })))
    }

    fn reap(&self, token: &str) -> Result<()> {
        self.places.discard(token)
    }

    fn recover(&self) -> Result<Vec<String>> {
        temp_dir::recover(&self.home.join("places"))
    }

    fn sync(&self, id: &LayerId) -> Result<()> {
        self.tree(id).map(drop)
    }

    fn image_stores(&self) -> Vec<PathBuf> {
        let stores = self.image_store.iter();
        stores.map(|store| store.join("first")).collect()
    }

    fn close(&self) -> Result<()> {
        let map = [IdMap {
            container_id: 0,
            host_id: 100_000,
            size: 10,
        }];
        let there_and_back = to_host(&map, 3).and_then(|host| to_container(&map, host));
        self.log
            .info(format_args!("closed, 3 is {there_and_back:?}"));
        Ok(())
    }
}
