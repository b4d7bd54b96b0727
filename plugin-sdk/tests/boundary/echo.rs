// SPDX-License-Identifier: Apache-2.0
//! A driver that remembers what it was asked and answers with one of everything.

use std::{
    collections::BTreeMap, ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf, sync::Mutex,
};

use plywood_plugin_sdk::{
    Capabilities, ChangeKind, CreateRequest, DiffView, Driver, DriverError, DriverErrorCode,
    LayerId, MountPlan, MountRequest, MountStep, MountSteps, NativeChange, OpenRequest,
    OverlayMount, Plugin, Removed, Result, Staged, UnpackTarget, Usage, WhiteoutForm,
};

pub(crate) struct Echo;

impl Plugin for Echo {
    const NAME: &'static str = "echo";
    const VENDOR: &'static str = "tests";
    const VERSION: &'static str = "7.8.9";

    fn open(request: OpenRequest) -> Result<Box<dyn Driver>> {
        let log = request.log("echo");
        log.warn("careful");
        log.error("broken");
        let seen = vec![format!("{request:?} {:?}", rest_of(&request))];
        Ok(Box::new(EchoDriver(Mutex::new(seen))))
    }
}

/// What the debug form of a request leaves out.
pub(crate) fn rest_of(request: &OpenRequest) -> impl std::fmt::Debug {
    (
        request.image_store.clone(),
        request.known_drivers.clone(),
        request.id_maps.clone(),
        request.rootless,
    )
}

/// Remembers what it was asked and answers from the lists below.
struct EchoDriver(Mutex<Vec<String>>);

impl EchoDriver {
    fn saw(&self, what: impl std::fmt::Debug) {
        self.0.lock().unwrap().push(format!("{what:?}"));
    }
}

/// The entry of a list that an id such as `at-2` asks for.
fn at<T: Clone>(list: &[T], id: &LayerId) -> T {
    let number: usize = id.as_str().rsplit('-').next().unwrap().parse().unwrap();
    list[number].clone()
}

pub(crate) fn odd_path() -> PathBuf {
    OsString::from_vec(b"/not/\xff\xfe/utf-8, with : and \\".to_vec()).into()
}

pub(crate) fn plans() -> Vec<MountPlan> {
    let overlay = OverlayMount {
        base: "/base".into(),
        lowers: vec!["l/A".into(), odd_path()],
        upper: Some("upper".into()),
        work: Some("work".into()),
        target: "/merged".into(),
        options: vec!["nodev".into(), "redirect_dir=off".into()],
        label: Some("system_u:object_r:x:s0:c1,c2".into()),
    };
    let read_only = OverlayMount {
        upper: None,
        work: None,
        label: None,
        ..overlay.clone()
    };
    let filesystem = MountStep::Filesystem {
        fstype: "zfs".into(),
        source: "pool/layer".into(),
        target: "/merged".into(),
        options: vec!["noatime".into()],
        read_only: true,
    };
    let bind = MountStep::Bind {
        source: odd_path(),
        target: "/merged".into(),
        read_only: false,
    };
    let steps = |steps| {
        MountPlan::Mounts(MountSteps {
            target: "/merged".into(),
            steps,
        })
    };
    vec![
        MountPlan::Directory(odd_path()),
        MountPlan::ByDriver {
            target: "/fuse".into(),
        },
        steps(vec![MountStep::Overlay(overlay)]),
        steps(vec![MountStep::Overlay(read_only), bind, filesystem]),
        steps(Vec::new()),
    ]
}

pub(crate) fn targets() -> Vec<UnpackTarget> {
    let tree = UnpackTarget::tree(odd_path());
    let forms = [
        WhiteoutForm::Removal,
        WhiteoutForm::Overlay,
        WhiteoutForm::OverlayUserXattr,
        WhiteoutForm::Literal,
    ];
    let mut targets = Vec::new();
    for (number, form) in forms.into_iter().enumerate() {
        let mut target = tree.clone();
        target.whiteouts = form;
        target.apply_root = number == 0;
        target.implied_directory_umask = number == 1;
        target.ignore_chown_errors = number == 2;
        target.fresh = number == 3;
        target.implied_directory_mode = 0o700 + u32::try_from(number).unwrap();
        target.force_mask = (number > 1).then_some(0o755);
        targets.push(target);
    }
    targets
}

pub(crate) fn views() -> Vec<DiffView> {
    vec![
        DiffView::Upper {
            upper: odd_path(),
            lowers: vec!["/a".into(), "/b".into()],
            whiteouts: WhiteoutForm::Literal,
        },
        DiffView::Trees {
            tree: "/tree".into(),
            parent: None,
        },
        DiffView::Trees {
            tree: "/tree".into(),
            parent: Some(odd_path()),
        },
        DiffView::Mounted,
    ]
}

pub(crate) fn changes() -> Vec<NativeChange> {
    let kinds = [ChangeKind::Modify, ChangeKind::Add, ChangeKind::Delete];
    let path = odd_path();
    let change = |kind| NativeChange {
        path: path.clone(),
        kind,
    };
    kinds.map(change).to_vec()
}

pub(crate) fn failures() -> Vec<DriverError> {
    let code = DriverErrorCode::BUSY;
    let mut whole = DriverError::new(code, "message")
        .object("object")
        .remedy("remedy");
    whole.errno = Some(16);
    vec![
        whole,
        DriverError::new(DriverErrorCode(4711), "a code of a newer version"),
    ]
}

pub(crate) fn pairs() -> BTreeMap<String, String> {
    BTreeMap::from([("b".into(), "\u{e4}".into()), ("a".into(), String::new())])
}

impl Driver for EchoDriver {
    fn capabilities(&self) -> Capabilities {
        Capabilities::from_bits(0b1_0101_0110_1001, Some(500))
    }
    fn status(&self) -> Result<Vec<(String, String)>> {
        let seen = std::mem::take(&mut *self.0.lock().unwrap());
        Ok(seen.into_iter().map(|seen| (seen, "x".into())).collect())
    }
    fn create(&self, request: &CreateRequest) -> Result<()> {
        self.saw(request);
        Ok(())
    }
    fn remove(&self, id: &LayerId) -> Result<Removed> {
        Ok(at(&[Removed::Now, Removed::AlreadyGone], id))
    }
    fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(at(&[false, true], id))
    }
    fn list(&self) -> Result<Vec<LayerId>> {
        Ok(vec![id("b"), id("a")])
    }
    fn metadata(&self, id: &LayerId) -> Result<BTreeMap<String, String>> {
        self.saw(id);
        Ok(pairs())
    }
    fn usage(&self, _: &LayerId) -> Result<Usage> {
        Ok(Usage {
            bytes: u64::MAX,
            inodes: 7,
        })
    }
    fn mount_plan(&self, id: &LayerId, request: &MountRequest) -> Result<MountPlan> {
        self.saw(request);
        Ok(at(&plans(), id))
    }
    fn mount(&self, id: &LayerId, request: &MountRequest) -> Result<PathBuf> {
        self.saw((id, request));
        Ok(odd_path())
    }
    fn unmount(&self, id: &LayerId) -> Result<()> {
        Err(at(&failures(), id))
    }
    fn released(&self, id: &LayerId) -> Result<()> {
        self.saw(id);
        Ok(())
    }
    fn unpack_target(&self, id: &LayerId) -> Result<UnpackTarget> {
        Ok(at(&targets(), id))
    }
    fn diff_view(&self, id: &LayerId, parent: Option<&LayerId>) -> Result<DiffView> {
        self.saw(parent);
        Ok(at(&views(), id))
    }
    fn content_roots(&self, _: &LayerId) -> Result<Vec<PathBuf>> {
        Ok(vec![odd_path(), "/b".into()])
    }
    fn native_changes(&self, _: &LayerId, parent: Option<&LayerId>) -> Result<Vec<NativeChange>> {
        self.saw(parent);
        Ok(changes())
    }
    fn stage(&self, request: &CreateRequest) -> Result<Staged> {
        self.saw(request);
        let target = at(&targets(), &request.id);
        Ok(Staged {
            token: "token".into(),
            target,
        })
    }
    fn sync_staged(&self, token: &str) -> Result<()> {
        self.saw(("sync_staged", token));
        Ok(())
    }
    fn adopt(&self, token: &str, request: &CreateRequest) -> Result<()> {
        self.saw(("adopt", token, request));
        Ok(())
    }
    fn discard(&self, token: &str) -> Result<()> {
        self.saw(("discard", token));
        Ok(())
    }
    fn trash(&self, id: &LayerId) -> Result<Option<String>> {
        Ok(at(&[None, Some("trash".to_owned())], id))
    }
    fn reap(&self, token: &str) -> Result<()> {
        self.saw(("reap", token));
        Ok(())
    }
    fn recover(&self) -> Result<Vec<String>> {
        Ok(vec!["one".into(), "two".into()])
    }
    fn sync(&self, id: &LayerId) -> Result<()> {
        self.saw(("sync", id));
        Ok(())
    }
    fn image_stores(&self) -> Vec<PathBuf> {
        vec![odd_path()]
    }
    fn close(&self) -> Result<()> {
        self.saw("close");
        Ok(())
    }
}

pub(crate) fn id(text: &str) -> LayerId {
    LayerId::new(text).unwrap()
}
